#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::noise;
using testing::tensor;

quant::QuantParams tensor_params(int bits, bool is_signed, float scale, float zero = 0) {
  quant::QuantParams p;
  p.spec.bits = bits;
  p.spec.is_signed = is_signed;
  p.lo = is_signed ? -(1ll << (bits - 1)) : 0;
  p.hi = is_signed ? (1ll << (bits - 1)) - 1 : (1ll << bits) - 1;
  p.scale = {scale};
  if (zero != 0) {
    p.spec.zero_point = ZeroPointType::kInteger;
    p.zero_point = {zero};
  }
  return p;
}

quant::QuantParams channel_params(std::vector<float> scale, Shape shape, int axis) {
  quant::QuantParams p = tensor_params(4, true, 1);
  p.spec.granularity = Granularity::kChannel;
  p.spec.axis = axis;
  p.layout = *quant::make_layout(p.spec, shape, axis);
  p.scale = std::move(scale);
  return p;
}

TEST(ExecFakeQuantize, MatchesTheFormula) {
  const quant::QuantParams p = tensor_params(3, true, 0.5f);
  const at::Tensor x = tensor({8}, {-9, -1.25f, -0.75f, -0.25f, 0.25f, 0.75f, 1.25f, 9});
  EXPECT_TRUE(exec::fake_quantize(x, p).equal(tensor({8}, {-2, -1, -1, 0, 0, 1, 1, 1.5f})));
  EXPECT_EQ(exec::fake_quantize(at::empty({0, 3}), p).sizes(), at::IntArrayRef({0, 3}));
  // Not contiguous and not float32.
  const at::Tensor t = noise({4, 6}, 1);
  EXPECT_TRUE(exec::fake_quantize(t.t(), p).equal(exec::fake_quantize(t, p).t()));
  EXPECT_EQ(exec::fake_quantize(t.to(at::kDouble), p).scalar_type(), at::kDouble);
}

TEST(ExecFakeQuantize, FollowsTheBatch) {
  const quant::QuantParams p = channel_params({0.1f, 0.2f, 0.4f}, {1, 3, 5}, 1);
  const at::Tensor x = noise({7, 3, 5}, 1);
  const at::Tensor y = exec::fake_quantize(x, p);
  const at::Tensor s = tensor({1, 3, 1}, {0.1f, 0.2f, 0.4f});
  EXPECT_TRUE(y.equal(at::clamp(at::round(x / s), -8, 7) * s));
  EXPECT_THROW(exec::fake_quantize(noise({7, 4, 5}, 1), p), std::exception);
}

struct GradientCase {
  const char* name;
  quant::QuantParams params;
  bool pass_clipped;
};

// The gradient of the straight-through estimator, element by element from its definition. Learned scales lie on the
// CPU, wherever the activations are.
void check_gradients(const GradientCase& row, const char* device) {
  const auto& p = row.params;
  const std::string what = std::string(row.name) + " on " + device;
  const at::Tensor values = noise({4, 3, 5}, 9), dy = noise({4, 3, 5}, 10);
  const at::Tensor x = values.to(at::Device(device)).detach().clone().requires_grad_(true);
  const at::Tensor scale = at::tensor(p.scale, at::kFloat).requires_grad_(true);
  const at::Tensor y = exec::fake_quantize_ste(x, scale, p, row.pass_clipped);
  EXPECT_TRUE(testing::same_bits(y.detach().cpu(), exec::fake_quantize(x.detach(), p).cpu())) << what;
  y.backward(dy.to(x.device()));
  const at::Tensor dx = x.grad().cpu();
  ASSERT_TRUE(scale.grad().device().is_cpu()) << what;
  std::vector<double> dscale(p.scale.size(), 0);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const std::size_t k = p.scale.size() == 1 ? 0 : static_cast<std::size_t>(i / 5 % 3);
    const double z = p.zero_point.empty() ? 0 : p.zero_point[0];
    const float v = values.data_ptr<float>()[i] / p.scale[k];
    const double q = std::nearbyint(v) + z, g = dy.data_ptr<float>()[i];
    const bool inside = q >= static_cast<double>(p.lo) && q <= static_cast<double>(p.hi);
    EXPECT_EQ(dx.data_ptr<float>()[i], inside || row.pass_clipped ? static_cast<float>(g) : 0.0f) << what;
    const double code = std::min(std::max(q, static_cast<double>(p.lo)), static_cast<double>(p.hi)) - z;
    dscale[k] += g * (inside ? code - v : code);
  }
  for (std::size_t k = 0; k < dscale.size(); ++k) EXPECT_NEAR(scale.grad().data_ptr<float>()[k], dscale[k], 1e-4) << what;
}

std::vector<GradientCase> gradient_cases() {
  return {{"signed", tensor_params(3, true, 0.2f), false},
          {"unsigned", tensor_params(2, false, 0.3f), false},
          {"zero_point", tensor_params(3, false, 0.2f, 3), false},
          {"pass_clipped", tensor_params(2, true, 0.2f), true},
          {"channels", channel_params({0.05f, 0.1f, 0.2f}, {4, 3, 5}, 1), false}};
}

TEST(ExecFakeQuantize, GradientsMatchTheDefinition) {
  for (const auto& row : gradient_cases()) check_gradients(row, "cpu");
}

TEST(ExecFakeQuantize, GradientsMatchTheDefinitionOnCuda) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  for (const auto& row : gradient_cases()) check_gradients(row, "cuda");
}

// Without clipping the sum over x of y is nearly linear in x and flat in scale: the learned scale moves only
// through rounding and clipping. With everything clipped it is exactly hi per element.
TEST(ExecFakeQuantize, ClippedValuesPullTheScaleUp) {
  const quant::QuantParams p = tensor_params(2, false, 0.1f);
  const at::Tensor x = at::full({10}, 5.0f).requires_grad_(true);
  const at::Tensor scale = tensor({1}, {0.1f}).requires_grad_(true);
  exec::fake_quantize_ste(x, scale, p, false).sum().backward();
  EXPECT_FLOAT_EQ(scale.grad().item().toFloat(), 30.0f);
  EXPECT_EQ(x.grad().abs().sum().item().toFloat(), 0.0f);
}

TEST(ExecFakeQuantize, FixedScaleNeedsNoTensor) {
  const quant::QuantParams p = tensor_params(4, true, 0.1f);
  const at::Tensor x = noise({10}, 4).requires_grad_(true);
  const at::Tensor y = exec::fake_quantize_ste(x, at::Tensor(), p, false);
  y.sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_THROW(exec::fake_quantize_ste(x, at::ones({3}), p, false), std::exception);
}

TEST(ExecFakeQuantize, NanGivesTheZeroCode) {
  const quant::QuantParams p = tensor_params(4, true, 0.1f);
  const at::Tensor y = exec::fake_quantize(tensor({3}, {NAN, INFINITY, -INFINITY}), p);
  EXPECT_TRUE(at::allclose(y, tensor({3}, {0, 0.7f, -0.8f})));
}

// Views of other tensors: values and gradients are those of a copy.
TEST(ExecFakeQuantize, ViewsAreQuantizedAsTheirCopies) {
  struct View {
    const char* what;
    at::Tensor (*of)(const at::Tensor&);
  };
  const View views[] = {
      {"transposed",
       [](const at::Tensor& t) {
         return t.permute({3, 1, 2, 0});
       }},
      {"channels last", [](const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }},
      {"sliced", [](const at::Tensor& t) { return t.slice(3, 1, 6, 2); }},
      {"every second sample", [](const at::Tensor& t) { return t.slice(0, 0, 4, 2); }},
      {"narrow", [](const at::Tensor& t) { return t.narrow(2, 1, 3); }},
      {"expanded", [](const at::Tensor& t) {
         return t.narrow(0, 0, 1).expand({5, -1, -1, -1});
       }}};
  quant::QuantParams grouped = tensor_params(4, true, 0.1f);
  grouped.spec.source = ScaleSource::kDynamic;
  grouped.spec.granularity = Granularity::kRow;
  grouped.spec.axis = -1;
  grouped.scale.clear();
  quant::QuantParams truncated = tensor_params(4, true, 0.2f);
  truncated.spec.truncation = Truncation::kMsb;
  truncated.truncated = quant::TruncationInput{0.05f, 6};
  const std::pair<const char*, quant::QuantParams> quantizers[] = {
      {"tensor", tensor_params(3, true, 0.2f)},
      {"channels", channel_params({0.05f, 0.1f, 0.2f}, {4, 3, 5, 7}, 1)},
      {"dynamic rows", grouped},
      {"truncated", truncated}};
  for (const View& view : views)
    for (const auto& [name, params] : quantizers) {
      const std::string what = std::string(name) + ", " + view.what;
      const auto scales = static_cast<std::int64_t>(params.scale.size());
      const auto gradients = [&](bool copied) {
        const at::Tensor base = noise({4, 3, 5, 7}, 9).requires_grad_(true);
        const at::Tensor x = copied ? view.of(base).contiguous() : view.of(base);
        const at::Tensor scale =
            scales > 0 ? at::tensor(params.scale, at::kFloat).requires_grad_(true) : at::Tensor();
        const at::Tensor y = exec::fake_quantize_ste(x, params.truncated ? at::Tensor() : scale, params, false);
        // A gradient that is a view, too.
        at::Tensor dy = noise({y.size(1), y.size(0), y.size(2), y.size(3)}, 10).permute({1, 0, 2, 3});
        if (copied) dy = dy.contiguous();
        y.backward(dy);
        return std::vector<at::Tensor>{y.detach().contiguous(), base.grad(),
                                       scale.defined() && scale.grad().defined() ? scale.grad() : at::zeros({1})};
      };
      const at::Tensor source = noise({4, 3, 5, 7}, 9), viewed = view.of(source);
      EXPECT_FALSE(viewed.is_contiguous()) << what;
      const at::Tensor plain = exec::fake_quantize(viewed, params);
      EXPECT_TRUE(testing::same_bits(plain.contiguous(), exec::fake_quantize(viewed.contiguous(), params))) << what;
      const auto got = gradients(false), want = gradients(true);
      EXPECT_TRUE(testing::same_bits(got[0], plain.contiguous())) << what;
      for (std::size_t i = 0; i < want.size(); ++i)
        EXPECT_TRUE(testing::same_bits(got[i], want[i])) << what << ", result " << i;
    }
}

}  // namespace
}  // namespace quanvas
