// Quanvas - texts to tokens. Torch-free; tokenizers are immutable and thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace quanvas {

// Token ids, from 0.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Of each text, without a token for its beginning. most: texts that begin after so many tokens are left out; 0: none.
  virtual Result<std::vector<std::vector<std::int32_t>>> encode(const std::vector<std::string>& texts, std::int64_t most) const = 0;
  // Of the token for the beginning of a text; -1: it has none.
  virtual std::int32_t bos() const = 0;
};
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

// llama2.c's tokenizer.bin: int32 longest token in bytes, then for each id until the end of the file float32 score,
// int32 length, bytes; little endian. Ids 0 to 2 are unknown, BOS and EOS, 3 to 258 the bytes 0 to 255. encode(): a
// space is put before a text that is not empty; each UTF-8 character becomes its token or, without one, those of its
// bytes; then the two neighbours whose joined text is the token of the highest score (the leftmost of several) are
// joined until none can be.
// kCorrupt for files that end early, lengths that are none, or fewer than 259 tokens.
Result<TokenizerPtr> read_llama2c_tokenizer(std::string bytes, const std::string& name);

}  // namespace quanvas
