// Quanvas - the vocabulary that a GGUF file carries for llama.cpp, from a SentencePiece model or llama2.c's tokenizer.bin.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace quanvas::gguf_file {

struct Vocabulary {
  std::vector<std::string> tokens;  // SentencePiece's own texts: a space is U+2581
  std::vector<float> scores;
  std::vector<std::int32_t> types;  // llama_token_type: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  int unknown = 0, bos = 1, eos = 2;
  bool space_prefix = true;  // a space is put before a text
};

// Of model types BPE only: llama.cpp tokenizes the others differently. kCorrupt for files that are neither or end early,
// kUnsupported for other model types.
Result<Vocabulary> read_vocabulary(const std::string& path);

}  // namespace quanvas::gguf_file
