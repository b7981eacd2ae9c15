// Every preset on every kind of tensor: codes in range and on the grid, JSON, constant, empty, NaN, infinite and zero
// tensors, ranks 0 to 5, ragged groups, gradients, threads, the single pass.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/quant/fused.h"
#include "core/quant/grid.h"
#include "core/recipe/recipe.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

class Presets : public testing::TestWithParam<std::string> {
 protected:
  // As the tensor itself gives them; static activations from all its values.
  QuantSpec spec() const {
    QuantSpec s = PresetLibrary::builtin().find(GetParam())->spec;
    s.truncation = Truncation::kNone;
    return s;
  }
  static int axis(const QuantSpec& s, std::size_t rank) {
    if (s.granularity == Granularity::kRow) return -1;
    return s.granularity == Granularity::kGroup && rank > 1 ? 1 : 0;
  }
};

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const Preset& p : PresetLibrary::builtin().all())
    if (!p.spec.scale_from_accumulator) out.push_back(p.id);
  return out;
}
INSTANTIATE_TEST_SUITE_P(All, Presets, testing::ValuesIn(names()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return a.size() == b.size();
}

TEST_P(Presets, HoldOnEveryShapeAndContent) {
  const QuantSpec s = spec();
  const auto again = from_json_value<QuantSpec>(to_json_value(s));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, s);
  const Shape shapes[] = {{}, {1}, {70}, {6, 40}, {40, 6}, {3, 5, 37}, {2, 6, 5, 3}, {2, 3, 2, 3, 4}, {0}, {4, 0}};
  for (const Shape& shape : shapes) {
    if (shape.empty() && s.granularity != Granularity::kTensor) continue;  // no axis to divide: refused by name
    const auto n = static_cast<std::size_t>(size_of(shape));
    std::vector<std::vector<float>> contents = {sample(size_of(shape), 7), std::vector<float>(n, 0.0f), std::vector<float>(n, 1.5f),
                                                std::vector<float>(n, -2.0f), std::vector<float>(n, 1e-30f)};
    for (const std::vector<float>& x : contents) {
      const auto p = find_params(s, shape, x.data(), axis(s, shape.size()));
      ASSERT_TRUE(p) << p.error().text();
      for (const float scale : p->scale) ASSERT_TRUE(std::isfinite(scale) && scale != 0);
      std::vector<float> y(n), decoded(n);
      std::vector<std::int32_t> codes(n);
      fake_quantize(*p, p->layout, x.data(), y.data());
      quantize_codes(*p, p->layout, x.data(), codes.data());
      dequantize_codes(*p, p->layout, codes.data(), decoded.data());
      ASSERT_TRUE(same(y, decoded)) << shape_text(shape);
      const Grid grid = grid_of(p->spec);
      for (std::size_t e = 0; e < n; ++e) {
        ASSERT_TRUE(codes[e] >= p->lo && codes[e] <= p->hi) << codes[e];
        ASSERT_TRUE(std::isfinite(y[e]));
      }
      // In one pass, and on one, two and seven threads.
      std::vector<float> fused(n);
      SiteFacts facts;
      for (const int threads : {1, 2, 7}) {
        set_kernel_threads(threads);
        const auto q = find_and_quantize(s, shape, x.data(), axis(s, shape.size()), fused.data(), &facts);
        ASSERT_TRUE(q);
        ASSERT_TRUE(same(fused, y)) << shape_text(shape) << ' ' << threads;
        ASSERT_EQ(q->scale, p->scale);
        ASSERT_EQ(q->zero_point, p->zero_point);
      }
      set_kernel_threads(0);
      const std::vector<float> dy(n, 1.0f);
      std::vector<float> dx(n), dscale(p->scale.size());
      fake_quantize_backward(*p, p->layout, x.data(), dy.data(), dx.data(), dscale.data(), false);
      for (const float d : dx) ASSERT_TRUE(d == 0 || d == 1);
      for (const float d : dscale) ASSERT_TRUE(std::isfinite(d));
    }
  }
}

TEST_P(Presets, RefuseWhatIsNotFinite) {
  const QuantSpec s = spec();
  const bool looks = s.source != ScaleSource::kConstant;
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    std::vector<float> x = sample(6 * 40, 8);
    x[77] = bad;
    const auto p = find_params(s, {6, 40}, x.data(), axis(s, 2));
    EXPECT_EQ(p.has_value(), !looks);
    if (!p) {
      EXPECT_THAT(p.error().message, testing::HasSubstr("at index [1, 37]"));
      continue;
    }
    std::vector<float> y(x.size());
    fake_quantize(*p, p->layout, x.data(), y.data());
    // NaN stays NaN where the format has one; infinities saturate where the declaration says so.
    if (std::isinf(bad) && s.saturate) EXPECT_TRUE(std::isfinite(y[77]));
  }
}

}  // namespace
}  // namespace quanvas::quant::test
