// Quanvas - what a part of a graph computes, on small numbers and in double precision: so that the writer of GGUF files can
// tell whether it is the attention that llama.cpp computes, however the file spells it.
//
// Knows the operators that attentions are spelt with. Not thread-safe; one object per question.
#pragma once

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "core/graph/weights.h"

namespace quanvas::gguf_file {

struct Values {
  Shape shape;
  std::vector<double> at;  // row-major
};

class Probe {
 public:
  explicit Probe(const Model& model) : model_(model), graph_(*model.graph) {}

  void set(TensorId tensor, Values values) { known_[tensor] = std::move(values); }
  // From what is set and the initializers; the error says which operator is not known or has other inputs than expected.
  tl::expected<Values, std::string> value(TensorId tensor);

 private:
  tl::expected<void, std::string> run(const Node& node);

  const Model& model_;
  const Graph& graph_;
  std::unordered_map<TensorId, Values> known_;
  int depth_ = 0;
};

// Attention as llama.cpp computes it for the architecture llama: rotary embedding of queries and keys, scores / sqrt(head
// size), causal mask, softmax. q: [tokens, heads * size], k and v: [tokens, kv heads * size]; result: as q.
struct RopeAttention {
  int heads = 1, kv_heads = 1, size = 2;
  bool halves = false;  // pairs (i, i + size/2) are rotated instead of (2i, 2i + 1)
  double base = 10000;
  // What the architecture does not have, so that a refusal can name it.
  int rotated = -1;        // elements of a head that are rotated; -1: all
  double factor = 1;       // positions are divided by it
  double divisor = 0;      // of scores; 0: the root of size
  std::size_t window = 0;  // a token sees so many, itself included; 0: all before it
  bool causal = true;
};
// x: [tokens, heads * size], rotated in place as at the positions 0, 1, ...
void rotate(const RopeAttention& form, std::size_t tokens, std::size_t heads, std::vector<double>& x);
std::vector<double> attention(const RopeAttention& form, std::size_t tokens, std::vector<double> q, std::vector<double> k,
                              const std::vector<double>& v);
// Attentions that differ from the form in one thing that so many tokens can show, and the words for it.
std::vector<std::pair<RopeAttention, std::string>> kin(const RopeAttention& form, std::size_t tokens);

}  // namespace quanvas::gguf_file
