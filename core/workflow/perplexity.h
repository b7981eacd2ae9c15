// Quanvas - scores of windows of tokens: which rows of a network's output foretold which token, and how well. Internal
// to core/workflow.
#pragma once

#include <vector>

#include "core/exec/chunks.h"
#include "core/workflow/state.h"

namespace quanvas {

// The windows of these samples.
std::vector<TokenWindow> windows_of(const Dataset& data, const std::vector<std::int64_t>& samples);

// A chunk in parts, in order, whose inputs hold no tokens that only fill windows up: windows of one length each, cut to
// it. The chunk itself when samples are no windows, or when the network takes one length only.
std::vector<exec::Chunk> without_filling(const exec::Chunk& chunk, const Dataset& data, const Graph& graph);

// Rows of the output that foretell scored tokens, float32 [n, vocabulary] on the CPU, window after window. `output`:
// [windows, T, vocabulary] or [windows * T, vocabulary], T not shorter than any window. kUnsupported for other shapes.
Result<at::Tensor> scored_rows(const at::Tensor& output, const std::vector<TokenWindow>& windows);

// Sums over scored tokens.
struct TokenSums {
  struct Window {
    double tokens = 0, loss = 0;  // of its scored tokens, in nats
  };
  std::vector<Window> windows;
  double tokens = 0, loss = 0, squares = 0;  // squares: of the tokens' losses
  void merge(const TokenSums& other);
  // loss, its standard error, perplexity and theirs; `tokens` and `samples` too. See Accuracy.
  void write(Accuracy& a) const;
  double perplexity() const;  // nan without tokens
};
// Of rows that scored_rows gave for the windows of `input` [windows, T or more], whose values are the tokens' ids.
// kInvalidArgument for an id that the network has no score for.
Result<TokenSums> score_tokens(const at::Tensor& rows, const at::Tensor& input, const std::vector<TokenWindow>& windows,
                               bool is_distribution);

}  // namespace quanvas
