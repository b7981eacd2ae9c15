// Quanvas - GGUF files of the architecture llama as networks: token ids [N, T] to scores [N, T, vocabulary].
#pragma once

#include <string>

#include "core/base/job.h"
#include "core/graph/weights.h"
#include "plugins/importers/gguf_read.h"

namespace quanvas::gguf_in {

// The graph that llama.cpp computes, in ONNX's operators; weights are dequantized, matrices [in, out] as MatMul has them.
// Initializers have the tensors' names. kUnsupported for what the architecture has beyond dense blocks with plain rotary
// embedding (experts, scaled rotation, tensors that are not known), kCorrupt for sizes that do not fit each other.
Result<Model> llama_network(const File& file, const std::string& path, JobContext& job);

}  // namespace quanvas::gguf_in
