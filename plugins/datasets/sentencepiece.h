// SentencePiece models, through the program quanvas-sentencepiece: Debian's library carries a Protocol Buffers of its own
// whose symbols collide with those that ONNX and gRPC use, and a damaged model may end the process that reads it.
#pragma once

#include "core/data/tokenizer.h"

namespace quanvas {

// Starts the program once, to see whether it reads the model; encode() starts it again. The program lies beside the
// running one or in the bin folder beside that, QUANVAS_SENTENCEPIECE names another. kNotFound without it, kCorrupt
// for models that cannot be read.
Result<TokenizerPtr> sentencepiece_tokenizer(const std::filesystem::path& model);

}  // namespace quanvas
