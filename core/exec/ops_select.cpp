// Picking, finding and counting elements.
#include <algorithm>
#include <map>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

OpResult compress(const OpCall& call) {
  at::Tensor x = call.x();
  std::int64_t axis = 0;
  if (call.has_attribute("axis")) {
    QUANVAS_TRY(axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  } else {
    x = x.reshape({-1});
  }
  if (x.dim() == 0) return bad_node("a scalar has nothing to choose from.");
  const at::Tensor index = at::nonzero(call.x(1).reshape({-1})).reshape({-1});
  if (index.numel() > 0 && index.max().item().toLong() >= x.size(axis))
    return bad_node("the condition chooses beyond the " + std::to_string(x.size(axis)) + " entries of the axis.");
  return one(x.index_select(axis, index));
}

OpResult unique(const OpCall& call) {
  const at::Tensor& x = call.x();
  at::Tensor values, inverse, counts;
  std::int64_t axis = 0;
  if (call.has_attribute("axis")) {
    QUANVAS_TRY(axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
    if (x.dim() == 0) return bad_node("a scalar has no axes.");
    std::tie(values, inverse, counts) = at::unique_dim(x, axis, true, true, true);
  } else {
    std::tie(values, inverse, counts) = at::_unique2(x.reshape({-1}), true, true, true);
  }
  inverse = inverse.reshape({-1});
  const std::int64_t n = inverse.numel(), groups = counts.numel();
  at::Tensor first = at::full({groups}, n, at::kLong);
  first = first.scatter_reduce(0, inverse, at::arange(n, at::kLong), "amin");
  if (!call.node.integer("sorted", 1)) {
    const at::Tensor order = at::argsort(first), rank = at::argsort(order);
    values = values.index_select(axis, order);
    counts = counts.index_select(0, order);
    first = first.index_select(0, order);
    inverse = rank.index_select(0, inverse);
  }
  return Tensors{values, first, inverse, counts};
}

OpResult reverse_sequence(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t batch, resolve_axis(call.node.integer("batch_axis", 1), x.dim()));
  QUANVAS_TRY(const std::int64_t time, resolve_axis(call.node.integer("time_axis", 0), x.dim()));
  const at::Tensor lengths = call.x(1).to(at::kLong);
  if (batch == time || x.dim() < 2 || lengths.dim() != 1 || lengths.size(0) != x.size(batch))
    return bad_node("lengths " + sizes_text(lengths) + " do not fit " + sizes_text(x) + ".");
  if (lengths.numel() > 0 && (lengths.min().item().toLong() < 0 || lengths.max().item().toLong() > x.size(time)))
    return bad_node("a length lies outside 0 to " + std::to_string(x.size(time)) + ".");
  Ints along_time(static_cast<std::size_t>(x.dim()), 1), along_batch = along_time;
  along_time[static_cast<std::size_t>(time)] = -1;
  along_batch[static_cast<std::size_t>(batch)] = -1;
  const at::Tensor t = at::arange(x.size(time), lengths.options()).reshape(along_time),
                   n = lengths.reshape(along_batch);
  return one(x.gather(time, at::where(t < n, n - 1 - t, t).expand_as(x)));
}

OpResult eye_like(const OpCall& call) {
  const at::Tensor& x = call.x();
  if (x.dim() != 2) return bad_node("the input is " + sizes_text(x) + ", expected a matrix.");
  const std::int64_t k = call.node.integer("k", 0);
  const auto type = call.has_attribute("dtype") ? scalar_type(static_cast<DataType>(call.node.integer("dtype", 1)))
                                                : std::optional(x.scalar_type());
  if (!type) return bad_node("'dtype' is no type that can be computed with.");
  const at::Tensor row = at::arange(x.size(0), at::kLong).unsqueeze(1), column = at::arange(x.size(1), at::kLong);
  return one((column - row == k).to(*type).to(x.device()));
}

OpResult determinant(const OpCall& call) {
  const at::Tensor& x = call.x();
  if (x.dim() < 2 || x.size(-1) != x.size(-2))
    return bad_node("the input is " + sizes_text(x) + ", expected square matrices.");
  return one(at::linalg_det(x));
}

// n-grams of integers, with gaps, counted and weighted. pool: all n-grams, shortest first.
struct GramPool {
  std::map<Ints, std::int64_t> column;
  std::vector<float> weights;  // by n-gram in the pool's order, may be empty
  std::map<std::int64_t, float> weight_of_column;
  std::int64_t columns = 0, shortest = 1, longest = 1, gaps = 0;
  std::string mode;
};

Result<GramPool> gram_pool(const Node& node) {
  GramPool p;
  p.shortest = node.integer("min_gram_length", 1);
  p.longest = node.integer("max_gram_length", 1);
  p.gaps = node.integer("max_skip_count", 0);
  p.mode = node.text("mode", "TF");
  const Ints starts = node.integers("ngram_counts"), columns = node.integers("ngram_indexes"),
             pool = node.integers("pool_int64s");
  const std::vector<float> weights = node.reals("weights");
  if (p.shortest < 1 || p.longest < p.shortest || p.longest > 64 || p.gaps < 0 || p.gaps > (1 << 20))
    return bad_node("its n-gram lengths make no sense.");
  std::size_t gram = 0;
  for (std::size_t n = 1; n <= starts.size(); ++n) {
    const std::int64_t begin = starts[n - 1],
                       end = n < starts.size() ? starts[n] : static_cast<std::int64_t>(pool.size());
    if (begin < 0 || begin > end || end > static_cast<std::int64_t>(pool.size()) ||
        (end - begin) % static_cast<std::int64_t>(n) != 0)
      return bad_node("'ngram_counts' does not fit the pool.");
    for (auto at = begin; at < end; at += static_cast<std::int64_t>(n), ++gram) {
      if (gram >= columns.size() || columns[gram] < 0 || columns[gram] > (1 << 28))
        return bad_node("'ngram_indexes' does not fit the pool.");
      p.column[Ints(pool.begin() + at, pool.begin() + at + static_cast<std::int64_t>(n))] = columns[gram];
      if (gram < weights.size()) p.weight_of_column[columns[gram]] = weights[gram];
      p.columns = std::max(p.columns, columns[gram] + 1);
    }
  }
  return p;
}

void count_grams(const GramPool& p, const Ints& row, float* counts) {
  const auto n = static_cast<std::int64_t>(row.size());
  for (std::int64_t step = 1; step <= p.gaps + 1; ++step)
    for (std::int64_t length = step == 1 ? p.shortest : std::max<std::int64_t>(2, p.shortest); length <= p.longest;
         ++length)
      for (std::int64_t start = 0; start + (length - 1) * step < n; ++start) {
        Ints gram;
        for (std::int64_t i = 0; i < length; ++i) gram.push_back(row[static_cast<std::size_t>(start + i * step)]);
        if (const auto it = p.column.find(gram); it != p.column.end()) ++counts[it->second];
      }
}

OpResult tf_idf(const OpCall& call) {
  QUANVAS_TRY(const GramPool p, gram_pool(call.node));
  const at::Tensor& x = call.x();
  if (x.dim() < 1 || x.dim() > 2) return bad_node("the input is " + sizes_text(x) + ", expected rank 1 or 2.");
  const std::int64_t rows = x.dim() == 2 ? x.size(0) : 1, width = x.size(-1);
  const Ints values = int_values(x);
  at::Tensor y = at::zeros({rows, p.columns}, at::kFloat);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* out = y.data_ptr<float>() + r * p.columns;
    count_grams(p, Ints(values.begin() + r * width, values.begin() + (r + 1) * width), out);
    for (std::int64_t c = 0; c < p.columns; ++c) {
      const auto it = p.weight_of_column.find(c);
      const float weight = it == p.weight_of_column.end() ? 1.0f : it->second;
      if (p.mode == "IDF") out[c] = out[c] > 0 ? weight : 0;
      if (p.mode == "TFIDF") out[c] *= weight;
    }
  }
  return one(x.dim() == 1 ? y.reshape({p.columns}) : y);
}
std::string refuse_tf_idf(const Node& node) {
  if (!node.texts("pool_strings").empty()) return "it counts texts, and only numbers are computed with";
  const std::string mode = node.text("mode", "TF");
  return mode == "TF" || mode == "IDF" || mode == "TFIDF" ? std::string() : "its mode is '" + mode + "'";
}

}  // namespace

const std::vector<OpRow>& select_ops() {
  static const std::vector<OpRow> rows = {
      {"Compress", 2, compress}, {"Unique", 1, unique},   {"ReverseSequence", 2, reverse_sequence},
      {"EyeLike", 1, eye_like},  {"Det", 1, determinant}, {"TfIdfVectorizer", 1, tf_idf, refuse_tf_idf}};
  return rows;
}

}  // namespace quanvas::exec
