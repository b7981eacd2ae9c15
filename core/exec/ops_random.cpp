// Random numbers: by the node's seed, else by the run's seed and the node. ONNX leaves the generator open, so
// values agree with other programs in their distribution only.
#include <cmath>
#include <cstring>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

class Generator {
 public:
  explicit Generator(const OpCall& call) {
    state_ = call.hooks.seed * 0x9e3779b97f4a7c15ull + static_cast<std::uint64_t>(call.node.id) + 1;
    if (call.has_attribute("seed")) {
      const double seed = call.node.real("seed", 0);
      std::memcpy(&state_, &seed, sizeof state_);
    }
  }
  double uniform() {  // splitmix64, [0, 1)
    state_ += 0x9e3779b97f4a7c15ull;
    std::uint64_t z = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
  }
  double normal() {  // Box and Muller 1958
    const double u = 1 - uniform(), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  }

 private:
  std::uint64_t state_;
};

template <class Fn>
at::Tensor filled(at::IntArrayRef sizes, Fn&& next) {
  at::Tensor t = at::empty(sizes, at::kDouble);
  auto* p = t.data_ptr<double>();
  for (std::int64_t i = 0; i < t.numel(); ++i) p[i] = next();
  return t;
}

Result<at::ScalarType> wanted_type(const OpCall& call, at::ScalarType fallback) {
  if (!call.has_attribute("dtype")) return fallback;
  const auto type = scalar_type(static_cast<DataType>(call.node.integer("dtype", 1)));
  if (!type) return bad_node("'dtype' is no type that can be computed with.");
  return *type;
}

template <bool Normal, bool Like>
OpResult random_values(const OpCall& call) {
  const bool floats = Like && at::isFloatingType(call.x().scalar_type());
  QUANVAS_TRY(const at::ScalarType type, wanted_type(call, floats ? call.x().scalar_type() : at::kFloat));
  const Ints sizes = Like ? call.x().sizes().vec() : call.node.integers("shape");
  QUANVAS_CHECK(check_sizes(sizes));
  Generator g(call);
  const Node& n = call.node;
  const double mean = n.real("mean", 0), scale = n.real("scale", 1), low = n.real("low", 0),
               high = n.real("high", 1);
  at::Tensor y =
      filled(sizes, [&] { return Normal ? mean + scale * g.normal() : low + (high - low) * g.uniform(); });
  y = y.to(type);
  return one(Like ? y.to(call.x().device()) : y);
}

OpResult bernoulli(const OpCall& call) {
  QUANVAS_TRY(const at::ScalarType type, wanted_type(call, call.x().scalar_type()));
  Generator g(call);
  const at::Tensor u = filled(call.x().sizes(), [&] { return g.uniform(); }).to(call.x().device());
  return one((u < call.x()).to(type));
}

// Input: logarithms of class weights, one row per sample.
OpResult multinomial(const OpCall& call) {
  if (call.x().dim() != 2)
    return bad_node("the input is " + sizes_text(call.x()) + ", expected samples and classes.");
  const std::int64_t n = call.node.integer("sample_size", 1), rows = call.x().size(0), classes = call.x().size(1);
  QUANVAS_CHECK(check_sizes({rows, n}));
  if (classes < 1) return bad_node("there are no classes.");
  const auto type = scalar_type(static_cast<DataType>(call.node.integer("dtype", 6)));
  if (!type) return bad_node("'dtype' is no type that can be computed with.");
  const at::Tensor sums = at::cumsum(at::softmax(call.x().to(at::kCPU, at::kDouble), 1), 1).contiguous();
  Generator g(call);
  at::Tensor y = at::empty({rows, n}, at::kLong);
  auto out = y.accessor<std::int64_t, 2>();
  const auto in = sums.accessor<double, 2>();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t k = 0; k < n; ++k) {
      const double u = g.uniform();
      std::int64_t c = 0;
      while (c + 1 < classes && in[r][c] <= u) ++c;
      out[r][k] = c;
    }
  return one(y.to(*type));
}

}  // namespace

const std::vector<OpRow>& random_ops() {
  static const std::vector<OpRow> rows = {{"RandomNormal", 0, random_values<true, false>},
                                          {"RandomUniform", 0, random_values<false, false>},
                                          {"RandomNormalLike", 1, random_values<true, true>},
                                          {"RandomUniformLike", 1, random_values<false, true>},
                                          {"Bernoulli", 1, bernoulli},
                                          {"Multinomial", 1, multinomial}};
  return rows;
}

}  // namespace quanvas::exec
