#include "plugins/exporters/gguf_reach.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace quanvas::gguf_file {
namespace {

using Reason = tl::unexpected<std::string>;

constexpr std::int64_t kFew = 5, kUsualTokens = 1024, kMostTokens = 4096;      // of a mask: their square is evaluated
constexpr std::int64_t kMostScores = std::int64_t{1} << 24, kMostQueries = std::int64_t{1} << 20;
constexpr double kHidden = -1e4;      // added to a score, this leaves nothing of it
constexpr double kTolerance = 1e-3;   // of the largest score: the graph's angles are float32

Values zeros(Shape shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return {std::move(shape), std::vector<double>(static_cast<std::size_t>(n))};
}

std::int64_t leading(const Shape& shape) {
  std::int64_t n = 1;
  for (std::size_t i = 0; i + 2 < shape.size(); ++i) n *= shape[i];
  return n;
}

// Where the matrix of a head begins in a tensor whose leading axes may be broadcast against those of `all`.
std::size_t matrix_at(const Shape& shape, const Shape& all, std::int64_t head) {
  std::int64_t at = 0, stride = shape[shape.size() - 1] * shape[shape.size() - 2];
  for (std::size_t k = 3; k <= all.size(); ++k) {
    const std::int64_t d = all[all.size() - k], i = head % d;
    head /= d;
    if (k > shape.size()) continue;
    const std::int64_t own = shape[shape.size() - k];
    at += (own == 1 ? 0 : i) * stride;
    stride *= own;
  }
  return static_cast<std::size_t>(at);
}

// What a row of a mask says of token t: the architecture's is 0 for all up to t.
std::string wrong_row(const double* row, std::int64_t t, std::int64_t tokens) {
  std::int64_t first = -1, last = -1;
  for (std::int64_t s = 0; s < tokens; ++s)
    if (row[s] > kHidden) first = first < 0 ? s : first, last = s;
  if (last > t) return "token " + std::to_string(t) + " sees token " + std::to_string(last) + ", which comes after it";
  for (std::int64_t s = 0; s <= t; ++s) {
    if (row[s] > kHidden && std::fabs(row[s] - row[t]) <= 1e-3) continue;
    if (row[s] > kHidden) return "scores have a bias that depends on the distance";
    if (last == t && s < first && std::all_of(row + first, row + t + 1, [](double v) { return v > kHidden; }))
      return "it has a sliding window of " + std::to_string(t + 1 - first) + " tokens";
    return "token " + std::to_string(t) + " does not see token " + std::to_string(s) + " before it";
  }
  return {};
}

}  // namespace

struct ReachChecker::Path {
  const Node* product = nullptr;   // queries times keys
  TensorId scores = kNoTensor;     // into the softmax
  std::vector<TensorId> beside;    // what is added and multiplied on the way
  std::string name;                // the way, so that blocks with the same are known
};

bool ReachChecker::depends(TensorId tensor, const Reach& reach, std::unordered_map<TensorId, bool>& known) const {
  if (tensor == kNoTensor) return false;
  if (tensor == reach.queries || tensor == reach.keys || tensor == reach.values) return true;
  if (std::find(reach.lines.begin(), reach.lines.end(), tensor) != reach.lines.end()) return false;
  if (const auto it = known.find(tensor); it != known.end()) return it->second;
  known[tensor] = false;
  const Node* node = graph_.find(graph_.tensor(tensor).producer);
  // Their shapes alone are no dependence.
  if (!node || node->op == "Shape") return false;
  bool any = false;
  for (const TensorId t : node->inputs) any = depends(t, reach, known) || any;
  return known[tensor] = any;
}

tl::expected<ReachChecker::Path, std::string> ReachChecker::path_of(const Reach& reach) const {
  std::unordered_map<TensorId, bool> known;
  Path path;
  // The one softmax behind the mixed values.
  std::vector<TensorId> todo = {reach.mixed};
  std::set<TensorId> seen;
  const Node* softmax = nullptr;
  while (!todo.empty()) {
    const TensorId t = todo.back();
    todo.pop_back();
    if (!seen.insert(t).second || !depends(t, reach, known)) continue;
    const Node* node = graph_.find(graph_.tensor(t).producer);
    if (!node || t == reach.queries || t == reach.keys || t == reach.values) continue;
    if (node->op == "Softmax") {
      if (softmax && softmax != node) return Reason("it has several softmaxes");
      softmax = node;
      continue;
    }
    for (const TensorId i : node->inputs)
      if (i != kNoTensor) todo.push_back(i);
  }
  if (!softmax) return Reason("it has no softmax");
  path.scores = softmax->input(0);
  for (TensorId t = path.scores;;) {
    const Node* node = graph_.find(graph_.tensor(t).producer);
    if (!node) return Reason("its scores are no product");
    std::vector<TensorId> on;
    for (const TensorId i : node->inputs) {
      if (i == kNoTensor) continue;
      if (depends(i, reach, known)) on.push_back(i);
      else if (node->op != "MatMul") path.beside.push_back(i);
    }
    path.name += node->op + " ";
    if (on.size() == 2 && node->op == "MatMul") {
      path.product = node;
      break;
    }
    if (on.size() != 1) return Reason("its scores are no product of queries and keys");
    t = on[0];
  }
  for (const TensorId t : path.beside) path.name += std::to_string(t) + " ";
  return path;
}

std::set<std::int64_t> ReachChecker::numbers_behind(const std::vector<TensorId>& tensors) const {
  std::set<std::int64_t> out;
  std::vector<TensorId> todo = tensors;
  std::set<TensorId> seen;
  while (!todo.empty()) {
    const TensorId t = todo.back();
    todo.pop_back();
    if (t == kNoTensor || !seen.insert(t).second) continue;
    const TensorInfo& info = graph_.tensor(t);
    if (info.is_initializer) {
      const TensorData* data = model_.weights->find(info.name);
      if (!data || data->count() > 8) continue;
      if (data->type == DataType::kInt64 || data->type == DataType::kInt32)
        for (const std::int64_t v : data->to_int64()) out.insert(v < 0 && v > INT64_MIN ? -v : v);
      continue;
    }
    const Node* node = graph_.find(info.producer);
    if (!node || node->op == "Shape") continue;
    todo.insert(todo.end(), node->inputs.begin(), node->inputs.end());
  }
  return out;
}

void ReachChecker::set_lines(Probe& probe, const Reach& reach, std::int64_t tokens) const {
  probe.set(reach.ids, {{1, tokens}, std::vector<double>(static_cast<std::size_t>(tokens), 1.0)});
  for (const TensorId t : reach.lines) probe.set(t, zeros({1, tokens, reach.features}));
  const std::int64_t size = reach.form.size;
  probe.set(reach.queries, zeros({1, tokens, reach.form.heads * size}));
  probe.set(reach.keys, zeros({1, tokens, reach.form.kv_heads * size}));
  probe.set(reach.values, zeros({1, tokens, reach.form.kv_heads * size}));
}

// Scores of 0 take the way to the softmax: as one head; as all of them where a shape is written in the graph.
tl::expected<Values, std::string> ReachChecker::masked(const Reach& reach, const Path& path, std::int64_t& tokens) const {
  for (const bool all : {false, true}) {
    if (all) tokens = std::min(tokens, static_cast<std::int64_t>(std::sqrt(kMostScores / std::max(1, reach.form.heads))));
    Probe probe(model_);
    set_lines(probe, reach, tokens);
    probe.set(path.product->outputs[0], zeros({1, all ? reach.form.heads : 1, tokens, tokens}));
    auto out = probe.value(path.scores);
    if (!out && all) return Reason(out.error());
    if (!out) continue;
    const Shape& s = out->shape;
    if (s.size() < 2 || s[s.size() - 1] != tokens || s[s.size() - 2] != tokens) return Reason("its scores have another shape");
    return out;
  }
  return Reason("");
}

ReachChecker::Outcome ReachChecker::check_mask(const Reach& reach, const Path& path, std::int64_t tokens) const {
  const auto mask = masked(reach, path, tokens);
  if (!mask) return Reason("what its attention sees of " + std::to_string(tokens) + " tokens is not known: " + mask.error());
  for (std::int64_t h = 0; h < leading(mask->shape); ++h)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const double* row = mask->at.data() + (h * tokens + t) * tokens;
      if (const std::string wrong = wrong_row(row, t, tokens); !wrong.empty()) return Reason(wrong);
    }
  return {};
}

// Tables of a graph end somewhere.
bool ReachChecker::serves(const Reach& reach, const Path& path, std::int64_t tokens) const {
  Probe probe(model_);
  set_lines(probe, reach, tokens);
  if (!probe.value(path.product->input(0)) || !probe.value(path.product->input(1))) return false;
  return masked(reach, path, tokens).has_value();
}

// Scores of random queries and keys, far apart, against the definition's; a factor of all of them is known to be right.
ReachChecker::Outcome ReachChecker::check_rotation(const Reach& reach, const Path& path) const {
  const RopeAttention& form = reach.form;
  const std::int64_t width = std::int64_t{form.heads} * form.size, narrow = std::int64_t{form.kv_heads} * form.size;
  const std::int64_t tokens = std::clamp<std::int64_t>(std::min(reach.context, kMostQueries / width), kFew, kUsualTokens);
  const auto count = static_cast<std::size_t>(tokens);
  std::mt19937 random(7);
  const auto numbers = [&](std::int64_t n) {
    std::vector<double> v(count * static_cast<std::size_t>(n));
    for (double& x : v) x = static_cast<double>(random()) / 2147483648.0 - 1;
    return v;
  };
  std::vector<double> q = numbers(width), k = numbers(narrow);
  Probe probe(model_);
  set_lines(probe, reach, tokens);
  probe.set(reach.queries, {{1, tokens, width}, q});
  probe.set(reach.keys, {{1, tokens, narrow}, k});
  const auto left = probe.value(path.product->input(0)), right = probe.value(path.product->input(1));
  if (!left || !right) return Reason("how it rotates far tokens is not known: " + (left ? right.error() : left.error()));
  const Shape &a = left->shape, &b = right->shape;
  Shape all = a.size() < b.size() ? b : a;
  for (std::size_t i = 3; i <= all.size(); ++i)
    all[all.size() - i] = std::max(i <= a.size() ? a[a.size() - i] : 1, i <= b.size() ? b[b.size() - i] : 1);
  if (a.size() < 2 || b.size() < 2 || a[a.size() - 2] != tokens || a.back() != form.size || b[b.size() - 2] != form.size ||
      b.back() != tokens || leading(all) != form.heads)
    return Reason("its queries and keys are multiplied in another shape");
  rotate(form, count, static_cast<std::size_t>(form.heads), q);
  rotate(form, count, static_cast<std::size_t>(form.kv_heads), k);
  std::vector<double> given, wanted;
  for (std::int64_t h = 0; h < form.heads; ++h)
    for (const std::int64_t t : {std::int64_t{0}, tokens / 2, tokens - 1})
      for (std::int64_t s = 0; s <= t; s += std::max<std::int64_t>(1, tokens / 16)) {
        const std::size_t at = matrix_at(a, all, h), under = matrix_at(b, all, h);
        const std::int64_t g = h / (form.heads / form.kv_heads);
        double is = 0, should = 0;
        const auto one = static_cast<std::size_t>(t * width + h * form.size),
                   other = static_cast<std::size_t>(s * narrow + g * form.size);
        for (std::size_t i = 0; i < static_cast<std::size_t>(form.size); ++i) {
          is += left->at[at + static_cast<std::size_t>(t) * static_cast<std::size_t>(form.size) + i] *
                right->at[under + i * count + static_cast<std::size_t>(s)];
          should += q[one + i] * k[other + i];
        }
        given.push_back(is);
        wanted.push_back(should);
      }
  double above = 0, below = 0, most = 0, apart = 0;
  for (std::size_t i = 0; i < given.size(); ++i) above += given[i] * wanted[i], below += wanted[i] * wanted[i];
  const double factor = below > 0 ? above / below : 0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    most = std::max(most, std::fabs(factor * wanted[i]));
    apart = std::max(apart, std::fabs(given[i] - factor * wanted[i]));
  }
  if (apart <= kTolerance * most) return {};
  return Reason("its rotary embedding is scaled: over " + std::to_string(tokens - 1) +
                " tokens it turns otherwise than by powers of base " + std::to_string(static_cast<std::int64_t>(form.base)));
}

tl::expected<std::int64_t, std::string> ReachChecker::check(Reach reach) {
  const auto path = path_of(reach);
  if (!path) return Reason(path.error());
  if (!accepted_.count(path->name)) {
    std::int64_t most = std::max(kFew, std::min(reach.context, kUsualTokens));
    if (!serves(reach, *path, most)) {
      std::int64_t least = kFew;
      while (most - least > 1) {
        const std::int64_t middle = (least + most) / 2;
        (serves(reach, *path, middle) ? least : most) = middle;
      }
      reach.context = least;
    }
    std::int64_t tokens = std::min(reach.context, kUsualTokens);
    // A number that the mask is computed with may be a window.
    for (const std::int64_t n : numbers_behind(path->beside)) {
      if (n < tokens || n >= reach.context) continue;
      if (n + 2 > kMostTokens)
        return Reason("its mask is computed with the number " + std::to_string(n) + ", which may be a sliding window");
      tokens = std::min(reach.context, n + 2);
    }
    if (auto ok = check_mask(reach, *path, tokens); !ok) return Reason(ok.error());
    accepted_.insert(path->name);
  }
  if (auto ok = check_rotation(reach, *path); !ok) return Reason(ok.error());
  return reach.context;
}

}  // namespace quanvas::gguf_file
