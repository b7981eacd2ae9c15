// Quanvas - whether a network is what llama.cpp calls the architecture "llama": which of its tensors has which name there,
// and its hyperparameters.
//
// Recognised are decoders of token ids: embedding, blocks of RMS norm, attention with rotary embedding, RMS norm and gated
// SiLU feed-forward with residual additions around both, RMS norm, output matrix. What stands between the projections and
// the output matrix of an attention is not matched by its form: it is computed on random numbers and compared with
// llama.cpp's definition (gguf_probe.h), so that any spelling of the same function is recognised and no other one.
#pragma once

#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "core/graph/weights.h"

namespace quanvas::gguf_file {

struct LlamaTensor {
  std::string name;  // "blk.0.attn_q.weight"
  TensorId tensor = kNoTensor;
  NodeId reader = kNoNode;  // the node that reads it
  int heads = 0;            // > 0: the rows of each head are paired anew (gguf_fit.h, View::heads)
};

struct Llama {
  std::vector<LlamaTensor> tensors;
  int blocks = 0, embedding = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_size = 0, vocabulary = 0, context = 0;
  float epsilon = 0, rope_base = 0;
};

// The error is the reason, as the end of "This network is no Llama: ...".
tl::expected<Llama, std::string> find_llama(const Model& model);

}  // namespace quanvas::gguf_file
