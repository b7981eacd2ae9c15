#include "core/workflow/perplexity.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

namespace quanvas {
namespace {

constexpr std::int64_t kRowsAtOnce = 256;  // whose logarithms are taken, in double

std::int64_t scored(const TokenWindow& w) { return w.length - w.first; }

// Ids of the scored tokens.
at::Tensor targets_of(const at::Tensor& input, const std::vector<TokenWindow>& windows) {
  const at::Tensor ids = input.to(at::kCPU, at::kLong);
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < windows.size(); ++i)
    parts.push_back(ids.select(0, static_cast<std::int64_t>(i)).narrow(0, windows[i].first, scored(windows[i])));
  return at::cat(parts);
}

Failure no_scores(const at::Tensor& output, std::size_t windows, std::int64_t length) {
  return fail(ErrorCode::kUnsupported,
              "The network gives an output of shape " + shape_text(Shape(output.sizes().begin(), output.sizes().end())) + " for " +
                  std::to_string(windows) + " windows of " + std::to_string(length) + " tokens.",
              "A perplexity needs scores for every token of a window: [windows, tokens, vocabulary].");
}

// Sum and sum of squares of the losses of the rows of each window.
TokenSums sums_of(const at::Tensor& losses, const std::vector<TokenWindow>& windows) {
  TokenSums out;
  const double* loss = losses.data_ptr<double>();
  for (const TokenWindow& w : windows) {
    TokenSums::Window sums;
    sums.tokens = static_cast<double>(scored(w));
    for (std::int64_t i = 0; i < scored(w); ++i, ++loss) {
      sums.loss += *loss;
      out.squares += *loss * *loss;
    }
    out.tokens += sums.tokens;
    out.loss += sums.loss;
    out.windows.push_back(sums);
  }
  return out;
}

}  // namespace

std::vector<TokenWindow> windows_of(const Dataset& data, const std::vector<std::int64_t>& samples) {
  std::vector<TokenWindow> out;
  for (const std::int64_t i : samples) out.push_back(data.token_window(i));
  return out;
}

Result<at::Tensor> scored_rows(const at::Tensor& output, const std::vector<TokenWindow>& windows) {
  const auto n = static_cast<std::int64_t>(windows.size());
  std::int64_t longest = 0;
  for (const TokenWindow& w : windows) longest = std::max(longest, w.length);
  const bool flat = output.dim() == 2 && output.size(0) % n == 0;
  const at::Tensor all = flat ? output.reshape({n, -1, output.size(1)}) : output;
  if (all.dim() != 3 || all.size(0) != n || all.size(1) < longest || !all.is_floating_point())
    return no_scores(output, windows.size(), longest);
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < n; ++i) {
    const TokenWindow& w = windows[static_cast<std::size_t>(i)];
    parts.push_back(all.select(0, i).narrow(0, w.first - 1, scored(w)));
  }
  return at::cat(parts).detach().to(at::kCPU, at::kFloat).contiguous();
}

std::vector<exec::Chunk> without_filling(const exec::Chunk& chunk, const Dataset& data, const Graph& graph) {
  const auto& shape = graph.tensor(graph.inputs().at(0)).shape;
  if (!data.has_tokens() || (shape && !shape->empty() && shape->back() >= 0)) return {chunk};
  std::vector<exec::Chunk> out;
  const auto& samples = chunk.samples;
  const auto length = [&](std::size_t i) { return data.token_window(samples[i]).length; };
  for (std::size_t begin = 0, end; begin < samples.size(); begin = end) {
    for (end = begin + 1; end < samples.size() && length(end) == length(begin);) ++end;
    const auto first = static_cast<std::int64_t>(begin), count = static_cast<std::int64_t>(end - begin);
    exec::Chunk part;
    part.index = chunk.index;
    part.samples.assign(samples.begin() + first, samples.begin() + first + count);
    part.input = chunk.input.narrow(0, first, count).narrow(1, 0, length(begin)).contiguous();
    out.push_back(std::move(part));
  }
  return out;
}

void TokenSums::merge(const TokenSums& other) {
  windows.insert(windows.end(), other.windows.begin(), other.windows.end());
  tokens += other.tokens;
  loss += other.loss;
  squares += other.squares;
}

double TokenSums::perplexity() const { return tokens > 0 ? std::exp(loss / tokens) : std::nan(""); }

void TokenSums::write(Accuracy& a) const {
  const double mean = loss / tokens, clusters = static_cast<double>(windows.size());
  double square = 0;  // of the standard error
  for (const Window& w : windows) square += (w.loss - mean * w.tokens) * (w.loss - mean * w.tokens);
  square *= clusters / (clusters - 1) / (tokens * tokens);
  if (windows.size() < 2) square = std::max(0.0, squares - mean * loss) / (tokens - 1) / tokens;
  a.samples = clusters;
  a.tokens = tokens;
  a.loss = mean;
  a.loss_stderr = std::sqrt(square);
  a.perplexity = std::exp(mean);
  a.perplexity_stderr = a.perplexity * a.loss_stderr;
}

Result<TokenSums> score_tokens(const at::Tensor& rows, const at::Tensor& input, const std::vector<TokenWindow>& windows,
                               bool is_distribution) {
  const at::Tensor targets = targets_of(input, windows);
  const std::int64_t vocabulary = rows.size(1), n = targets.size(0);
  if (const auto most = targets.max().item<std::int64_t>(); most >= vocabulary)
    return fail(ErrorCode::kInvalidArgument, "The text holds the token " + std::to_string(most) + ", but the network has scores for " +
                                                 std::to_string(vocabulary) + " tokens only.",
                "Choose the tokenizer that belongs to this network.");
  std::vector<at::Tensor> losses;
  for (std::int64_t at = 0; at < n; at += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, n - at);
    const at::Tensor logs = log_probabilities(rows.narrow(0, at, count), is_distribution);
    losses.push_back(-logs.gather(1, targets.narrow(0, at, count).unsqueeze(1)).squeeze(1));
  }
  return sums_of(at::cat(losses).contiguous(), windows);
}

}  // namespace quanvas
