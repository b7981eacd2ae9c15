// Quanvas - networks that run batches and windows of any size, and their data, for the tests of passes that look at features.
#pragma once

#include "tests/plugins/graph_pass_support.h"
#include "tests/plugins/transformer_nets.h"

namespace quanvas::testing {

inline const std::int64_t kTokens = 24, kWidth = 16, kHidden = 24, kWindow = 8;

// A block of a language model with grouped queries: ids [windows, tokens] to scores [windows, tokens, 24]. A few features of
// the stream and of the gates stand out.
inline ModelPtr open_llama() {
  NetMaker n;
  const Shape s = {-1, -1, kWidth}, h = {-1, -1, kHidden};
  n.ids({-1, -1});
  const auto weight = [&](const std::string& name, std::int64_t in, std::int64_t out, const std::vector<std::int64_t>& large) {
    at::Tensor w = noise({in, out}, ++n.seed) / std::sqrt(static_cast<double>(in));
    for (const std::int64_t c : large) w.select(1, c).mul_(8);
    n.m.weight(name + ".w", w);
  };
  const auto linear = [&](const std::string& name, const std::string& from, std::int64_t in, const Shape& shape,
                          const std::vector<std::int64_t>& large = {}) {
    weight(name, in, shape.back(), large);
    n.op(name, "MatMul", {from, name + ".w"}, shape);
  };
  weight("emb", kTokens, kWidth, {3, 4});
  n.op("tok", "Gather", {"emb.w", "x"}, s).rms("an", "tok", s);
  linear("q", "an", kWidth, {-1, -1, 16});
  linear("k", "an", kWidth, {-1, -1, 8});
  linear("v", "an", kWidth, {-1, -1, 8}, {1});
  n.op("att", "Attention", {"q", "k", "v"}, {-1, -1, 16},
       {{"q_num_heads", std::int64_t{4}}, {"kv_num_heads", std::int64_t{2}}, {"is_causal", std::int64_t{1}}});
  linear("o", "att", 16, s);
  n.add("r1", "tok", "o", s).rms("fn", "r1", s);
  linear("gate", "fn", kWidth, h, {0, 2, 5});
  linear("up", "fn", kWidth, h, {0, 2, 5});
  n.op("sig", "Sigmoid", {"gate"}, h).op("silu", "Mul", {"gate", "sig"}, h).op("mul", "Mul", {"silu", "up"}, h);
  linear("down", "mul", kHidden, s);
  n.add("r2", "r1", "down", s).rms("norm", "r2", s);
  linear("head", "norm", kWidth, {-1, -1, kTokens});
  return n.m.output("head").build();
}

// x [batch, 6] to 5 scores, with a stream of 12 features, two of which stand out.
inline ModelPtr open_classifier() {
  NetMaker n;
  const Shape s = {-1, 12};
  at::Tensor a = noise({6, 12}, 1);
  a.select(1, 3).mul_(12);
  a.select(1, 7).mul_(9);
  n.in({-1, 6})
      .m.weight("a.w", a)
      .weight("a.b", noise({12}, 2))
      .weight("b.w", noise({5, 12}, 3))
      .weight("b.b", noise({5}, 5))
      .weight("r.w", noise({12, 12}, 4) * 0.3);
  n.op("a", "MatMul", {"x", "a.w", "a.b"}, s).op("r", "MatMul", {"a", "r.w"}, s).op("sum", "Add", {"a", "r"}, s);
  // Stored as [outputs, inputs], and halved on the way.
  return n.op("b", "Gemm", {"sum", "b.w", "b.b"}, {-1, 5}, {{"transB", std::int64_t{1}}, {"alpha", 0.5f}}).m.output("b").build();
}

// Windows of tokens of two lengths, filled up; labelled rows; or rows alone.
class OpenData final : public Dataset {
 public:
  enum class Kind { kWindows, kLabels, kRows };
  OpenData(Kind kind, std::int64_t size, std::uint64_t seed = 9) : kind_(kind) {
    x_ = kind == Kind::kWindows ? tokens({size, kWindow}, kTokens, seed).to(at::kFloat) : noise({size, 6}, seed);
    x_ = x_.contiguous();
  }
  at::Tensor& values() { return x_; }
  std::int64_t size() const override { return x_.size(0); }
  Shape sample_shape() const override { return {x_.size(1)}; }
  bool has_labels() const override { return kind_ == Kind::kLabels; }
  bool has_tokens() const override { return kind_ == Kind::kWindows; }
  TokenWindow token_window(std::int64_t i) const override { return {i % 3 == 0 ? kWindow - 2 : kWindow, 1}; }
  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t* labels) const override {
    const std::int64_t n = x_.size(1);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      std::copy_n(x_.data_ptr<float>() + indices[i] * n, n, out + static_cast<std::int64_t>(i) * n);
      if (labels) labels[i] = (indices[i] * 7) % 5;
    }
    return {};
  }
  std::string hash() const override { return "open data"; }

 private:
  Kind kind_;
  at::Tensor x_;
};

}  // namespace quanvas::testing
