// The kernels against the scalar reference, and the properties that every quantizer has.
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "core/quant/kernels.h"
#include "core/quant/spans.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Quantized {
  QuantParams params;
  std::vector<float> x, y;
  std::vector<std::int32_t> codes;
};

Quantized quantize(const Shape& shape, const QuantSpec& spec, std::vector<float> x) {
  auto params = find_params(spec, shape, x.data(), 0);
  EXPECT_TRUE(params) << params.error().text();
  Quantized q{*params, std::move(x), {}, {}};
  q.y.resize(q.x.size());
  q.codes.resize(q.x.size());
  fake_quantize(q.params, q.params.layout, q.x.data(), q.y.data());
  quantize_codes(q.params, q.params.layout, q.x.data(), q.codes.data());
  return q;
}

class Kernels : public testing::TestWithParam<Case> {
 protected:
  Quantized run() const { return quantize(GetParam().shape, GetParam().spec, sample(size_of(GetParam().shape))); }
  // Scales that clip: half of what was found.
  static QuantParams halved(QuantParams p) {
    for (float& s : p.scale) s /= 2;
    return p;
  }
};
INSTANTIATE_TEST_SUITE_P(Layouts, Kernels, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Kernels, SpansCoverEveryElementOnceWithItsParameter) {
  const auto layout = make_layout(GetParam().spec, GetParam().shape, 0);
  ASSERT_TRUE(layout);
  const SpanPlan plan(*layout);
  std::vector<int> seen(static_cast<std::size_t>(layout->elements()));
  std::set<std::int64_t> slots;
  for (std::int64_t i = 0; i < plan.count(); ++i) {
    const Span s = plan.span(i);
    EXPECT_LE(s.elements(), kTile);
    std::int64_t e = s.offset;
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t k = 0; k < (r + 1 == s.rows ? s.last : s.length); ++k, ++e) {
        const std::int64_t slot = plan.vector_rows() ? k : r;
        ASSERT_EQ(plan.parameter(s, slot), static_cast<std::int64_t>(parameter_of(*layout, e)));
        ++seen[static_cast<std::size_t>(e)];
      }
    for (std::int64_t k = 0; s.rows > 0 && k < plan.slots(s); ++k) {
      EXPECT_TRUE(slots.insert(s.result + k).second);
      EXPECT_LT(s.result + k, plan.results());
    }
  }
  for (const int n : seen) ASSERT_EQ(n, 1);
}

TEST_P(Kernels, EqualTheScalarReference) {
  const Quantized q = run();
  for (const QuantParams& params : {q.params, halved(q.params)}) {
    std::vector<float> y(q.x.size()), decoded(q.x.size());
    std::vector<std::int32_t> codes(q.x.size());
    fake_quantize(params, params.layout, q.x.data(), y.data());
    quantize_codes(params, params.layout, q.x.data(), codes.data());
    dequantize_codes(params, params.layout, codes.data(), decoded.data());
    double dd = 0, xx = 0, clipped = 0, worst = 0;
    std::set<std::int64_t> used;
    for (std::size_t e = 0; e < q.x.size(); ++e) {
      const Scalar r(params, parameter_of(params.layout, static_cast<std::int64_t>(e)));
      ASSERT_EQ(codes[e], r.code(q.x[e])) << e;
      ASSERT_EQ(y[e], r.value(r.code(q.x[e]))) << e;
      const double d = static_cast<double>(q.x[e]) - y[e], v = q.x[e] / r.s;
      dd += d * d;
      xx += static_cast<double>(q.x[e]) * q.x[e];
      worst = std::max(worst, std::fabs(d));
      clipped += v < r.lo - r.z - 0.5 || v > r.hi - r.z + 0.5;
      used.insert(codes[e] - params.lo);
    }
    EXPECT_TRUE(same_bits(y, decoded));
    const SiteFacts facts = measure(params, params.layout, q.x.data());
    const double n = static_cast<double>(q.x.size());
    EXPECT_EQ(facts.codes_used, static_cast<double>(used.size()));
    EXPECT_EQ(facts.codes_total, static_cast<double>(params.hi - params.lo + 1));
    EXPECT_EQ(facts.error.elements, n);
    if (q.x.empty()) continue;
    EXPECT_NEAR(facts.error.mse, dd / n, 1e-6 * dd / n);
    EXPECT_NEAR(facts.error.max_abs, worst, 1e-6 * worst);
    EXPECT_EQ(facts.clipped_share, clipped / n);
    if (dd > 0 && xx > 0) {
      EXPECT_NEAR(facts.error.sqnr_db, 10 * std::log10(xx / dd), 1e-5);
    }
    const TensorError direct = tensor_error(q.x.data(), y.data(), static_cast<std::int64_t>(n));
    EXPECT_NEAR(facts.error.mse, direct.mse, 1e-12 * direct.mse);
    EXPECT_EQ(facts.error.max_abs, direct.max_abs);
  }
}

TEST_P(Kernels, Properties) {
  const Quantized q = run();
  const Quantized again = [&] {
    Quantized r = q;
    fake_quantize(q.params, q.params.layout, q.y.data(), r.y.data());
    return r;
  }();
  EXPECT_TRUE(same_bits(again.y, q.y)) << "idempotent";
  for (std::size_t e = 0; e < q.x.size(); ++e) {
    const Scalar r(q.params, parameter_of(q.params.layout, static_cast<std::int64_t>(e)));
    ASSERT_GE(q.codes[e], q.params.lo);
    ASSERT_LE(q.codes[e], q.params.hi);
    const float v = q.x[e] / r.s;
    const bool in_range = v >= r.lo - r.z && v <= r.hi - r.z;
    ASSERT_TRUE(!in_range || std::fabs(q.x[e] - q.y[e]) <= r.s * 0.501f) << "within half a step";
  }
  std::vector<float> in_place = q.x;
  fake_quantize(q.params, q.params.layout, in_place.data(), in_place.data());
  EXPECT_TRUE(same_bits(in_place, q.y)) << "in place";
}

TEST_P(Kernels, ScalingByPowersOfTwoChangesNoCode) {
  const Quantized q = run();
  for (const float c : {0.125f, 4.0f, 0x1p20f}) {
    std::vector<float> scaled = q.x, y(q.x.size()), expected = q.y;
    for (float& v : scaled) v *= c;
    for (float& v : expected) v *= c;
    QuantParams params = q.params;
    for (float& s : params.scale) s *= c;
    fake_quantize(params, params.layout, scaled.data(), y.data());
    EXPECT_TRUE(same_bits(y, expected)) << c;
    // The scales that are found scale too, unless the smallest range was in the way.
    const auto found = find_params(GetParam().spec, GetParam().shape, scaled.data(), 0);
    ASSERT_TRUE(found);
    for (std::size_t i = 0; i < params.scale.size(); ++i)
      EXPECT_TRUE(q.params.scale[i] <= 1e-8f || found->scale[i] == params.scale[i]);
  }
}

TEST_P(Kernels, AnyNumberOfThreadsGivesTheSameBits) {
  const Shape& shape = GetParam().shape;
  const std::vector<float> x = sample(size_of(shape)), dy = sample(size_of(shape), 2);
  std::vector<float> first_y, first_dx, first_ds;
  SiteFacts first;
  for (const int threads : {1, 2, 7}) {
    set_kernel_threads(threads);
    const Quantized q = quantize(shape, GetParam().spec, x);
    const SiteFacts facts = measure(q.params, q.params.layout, x.data());
    std::vector<float> dx(x.size()), ds(q.params.scale.size());
    fake_quantize_backward(q.params, q.params.layout, x.data(), dy.data(), dx.data(), ds.data(), false);
    if (threads == 1) {
      first_y = q.y, first_dx = dx, first_ds = ds, first = facts;
      continue;
    }
    EXPECT_TRUE(same_bits(q.y, first_y));
    EXPECT_TRUE(same_bits(dx, first_dx));
    EXPECT_TRUE(same_bits(ds, first_ds));
    EXPECT_EQ(facts.error.mse, first.error.mse);
    EXPECT_TRUE(facts.error.cosine == first.error.cosine || std::isnan(first.error.cosine));
    EXPECT_EQ(facts.codes_used, first.codes_used);
    EXPECT_EQ(facts.clipped_share, first.clipped_share);
  }
  set_kernel_threads(0);
}

TEST(KernelSets, AllInstructionSetsGiveTheSameElements) {
  const auto sets = available_kernels();
  const std::int64_t rows = 5, length = 77;
  const std::vector<float> x = sample(rows * length), dy = sample(rows * length, 3);
  const std::vector<float> scale = {0.1f, 0.37f, 1e-10f, 3.0f, 0.02f};
  std::vector<float> column_scale(length), zero(length);
  for (std::size_t i = 0; i < column_scale.size(); ++i) {
    column_scale[i] = 0.01f + 0.013f * static_cast<float>(i);
    zero[i] = static_cast<float>(i % 9);
  }
  Rows uniform{rows, length, length - 3, 3, 5, false, scale.data(), zero.data(), 0, 15};
  Rows vector{rows, length, length, 0, 1, true, column_scale.data(), zero.data(), 0, 15};
  for (const Rows& t : {uniform, vector}) {
    std::vector<float> y0, dx0;
    std::vector<std::int32_t> q0, i0;
    for (const auto* set : sets) {
      std::vector<float> y(x.size()), dx(x.size()), z(x.size());
      std::vector<std::int32_t> q(x.size()), index(x.size());
      std::vector<double> sums(length);
      set->fake(t, x.data(), y.data());
      set->codes(t, x.data(), q.data());
      const std::int64_t clipped = set->measure(t, x.data(), z.data(), index.data());
      set->backward(t, x.data(), dy.data(), dx.data(), sums.data(), false);
      EXPECT_TRUE(same_bits(y, z)) << set->name;
      EXPECT_GT(clipped, 0);
      if (set == sets.front()) {
        y0 = y, dx0 = dx, q0 = q, i0 = index;
        continue;
      }
      EXPECT_TRUE(same_bits(y, y0)) << set->name;
      EXPECT_TRUE(same_bits(dx, dx0)) << set->name;
      EXPECT_EQ(q, q0) << set->name;
      EXPECT_EQ(index, i0) << set->name;
    }
  }
}

TEST(Values, NanInfinitiesAndExtremesNeverLeaveTheCodes) {
  for (const QuantSpec& spec : {spec_of(8), asym(spec_of(8)), narrow(spec_of(4)), asym(spec_of(16)), spec_of(1)}) {
    QuantParams params = params_from_range(spec, *make_layout(spec, {12}, 0), {-1.0f}, {2.0f});
    const std::vector<float> x = {kNan, kInf, -kInf, 3.4e38f, -3.4e38f, 1e-45f, -1e-45f, 0.0f, -0.0f, -kNan, 1e30f, -1e30f};
    std::vector<float> y(12);
    std::vector<std::int32_t> q(12);
    fake_quantize(params, params.layout, x.data(), y.data());
    quantize_codes(params, params.layout, x.data(), q.data());
    const float zero = params.zero_point.empty() ? 0.0f : params.zero_point[0];
    for (const std::size_t i : {0u, 5u, 6u, 7u, 8u, 9u}) {
      EXPECT_EQ(q[i], static_cast<std::int32_t>(zero));
      EXPECT_EQ(y[i], 0.0f);
      EXPECT_FALSE(std::signbit(y[i])) << "never -0";
    }
    for (const std::size_t i : {1u, 3u, 10u}) EXPECT_EQ(q[i], params.hi);
    for (const std::size_t i : {2u, 4u, 11u}) EXPECT_EQ(q[i], params.lo);
    const SiteFacts facts = measure(params, params.layout, x.data());
    EXPECT_TRUE(std::isnan(facts.error.mse)) << "a NaN in the data stays visible";
    EXPECT_EQ(facts.clipped_share, 6.0 / 12);
  }
}

TEST(Values, TiesGoToEvenAndTheZeroPointIsAddedAfterwards) {
  QuantSpec spec = asym(spec_of(8));
  QuantParams params = params_from_range(spec, *make_layout(spec, {6}, 0), {0.0f}, {255.0f});
  ASSERT_EQ(params.scale[0], 1.0f);
  params.zero_point[0] = 3;
  const std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f};
  std::vector<std::int32_t> q(6);
  quantize_codes(params, params.layout, x.data(), q.data());
  EXPECT_EQ(q, (std::vector<std::int32_t>{3, 5, 5, 3, 1, 1}));
}

TEST(Values, Monotone) {
  std::vector<float> x = sample(5000);
  std::sort(x.begin(), x.end());
  for (const QuantSpec& spec : {spec_of(3), asym(spec_of(5)), po2(spec_of(8)), narrow(spec_of(16))}) {
    const Quantized q = quantize({5000}, spec, x);
    EXPECT_TRUE(std::is_sorted(q.y.begin(), q.y.end()));
  }
}

TEST(Values, OneChannelOrOneGroupEqualsPerTensor) {
  const std::vector<float> x = sample(999);
  for (QuantSpec spec : {narrow(spec_of(4)), asym(spec_of(8)), po2(spec_of(6)), spec_of(4, {}, 0, Statistic::kMse)}) {
    const Quantized whole = quantize({1, 999}, spec, x);
    spec.granularity = Granularity::kChannel;
    spec.axis = 0;
    EXPECT_TRUE(same_bits(quantize({1, 999}, spec, x).y, whole.y));
    spec.granularity = Granularity::kGroup;
    spec.axis = 1;
    spec.group_size = 999;
    EXPECT_TRUE(same_bits(quantize({1, 999}, spec, x).y, whole.y));
  }
}

TEST(Values, SixDecibelPerBitOnUniformInputs) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(200000);
  for (float& v : x) v = uniform(random);
  for (int bits = 4; bits <= 10; ++bits) {
    const auto params = find_params(narrow(spec_of(bits)), {200000}, x.data(), 0);
    const double db = measure(*params, params->layout, x.data()).error.sqnr_db;
    EXPECT_NEAR(db, 20 * std::log10(std::exp2(bits) - 2), 0.15) << bits;
  }
}

TEST(Wide, ThirtyTwoBitBiasIsExact) {
  QuantSpec spec = spec_of(32);
  const std::vector<float> scales = {1e-3f, 1e-9f, 2.0f};
  QuantParams params = *bias_params(spec, 0.5f, scales, {3}, 0);
  ASSERT_EQ(params.scale.size(), 3u);
  EXPECT_EQ(params.scale[1], 0.5f * 1e-9f);
  EXPECT_EQ(params.lo, -2147483648LL);
  const std::vector<float> x = {1.25f, -40.0f, 1e30f};
  std::vector<float> y(3), dx(3), ds(3);
  std::vector<std::int32_t> q(3);
  fake_quantize(params, params.layout, x.data(), y.data());
  quantize_codes(params, params.layout, x.data(), q.data());
  EXPECT_EQ(q, (std::vector<std::int32_t>{2500, INT32_MIN, INT32_MAX}));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(y[i], Scalar(params, i).value(q[i]));
  const SiteFacts facts = measure(params, params.layout, x.data());
  EXPECT_EQ(facts.codes_used, 3);
  EXPECT_EQ(facts.codes_total, 4294967296.0);
  EXPECT_NEAR(facts.clipped_share, 2.0 / 3, 1e-12);
  const std::vector<float> dy = {1, 1, 1};
  fake_quantize_backward(params, params.layout, x.data(), dy.data(), dx.data(), ds.data(), false);
  EXPECT_EQ(dx, (std::vector<float>{1, 0, 0}));
  EXPECT_EQ(ds[2], 2147483648.0f);
  std::vector<float> back(3);
  dequantize_codes(params, params.layout, q.data(), back.data());
  EXPECT_TRUE(same_bits(back, y));
}

TEST(Errors, KnownValues) {
  const std::vector<float> x = {3, 4, 0, 0}, y = {3, 3, 0, 1}, zero(4);
  const TensorError e = tensor_error(x.data(), y.data(), 4);
  EXPECT_DOUBLE_EQ(e.mse, 0.5);
  EXPECT_DOUBLE_EQ(e.sqnr_db, 10 * std::log10(25.0 / 2));
  EXPECT_DOUBLE_EQ(e.cosine, 21 / (5 * std::sqrt(19.0)));
  EXPECT_EQ(e.max_abs, 1);
  EXPECT_EQ(e.elements, 4);
  EXPECT_TRUE(std::isinf(tensor_error(x.data(), x.data(), 4).sqnr_db));
  EXPECT_DOUBLE_EQ(tensor_error(x.data(), x.data(), 4).cosine, 1);
  EXPECT_TRUE(std::isnan(tensor_error(zero.data(), y.data(), 4).sqnr_db));
  EXPECT_EQ(tensor_error(x.data(), zero.data(), 4).cosine, 0);
  EXPECT_EQ(tensor_error(x.data(), y.data(), 0).elements, 0);
}

TEST(Errors, TinyAndHugeValuesKeepTheirRatio) {
  for (const float size : {1e-30f, 1e30f}) {
    std::vector<float> x = {3, 4}, y = {3, 5};
    for (auto* v : {&x, &y})
      for (float& e : *v) e *= size;
    EXPECT_NEAR(tensor_error(x.data(), y.data(), 2).sqnr_db, 10 * std::log10(25.0), 1e-4);
  }
}

TEST(Errors, SumsMergeLikeOnePass) {
  const std::vector<float> x = sample(50000), y = sample(50000, 9);
  ErrorSums whole, first, second;
  whole.add(x.data(), y.data(), 50000);
  first.add(x.data(), y.data(), 20000);
  second.add(x.data() + 20000, y.data() + 20000, 30000);
  first.merge(second);
  EXPECT_EQ(first.n, whole.n);
  EXPECT_EQ(first.max_abs, whole.max_abs);
  EXPECT_NEAR(first.result().mse, whole.result().mse, 1e-12 * whole.result().mse);
  EXPECT_NEAR(first.result().cosine, whole.result().cosine, 1e-12);
}

TEST(Grid, PointsAreTheValuesOfTheCodes) {
  const QuantSpec spec = asym(spec_of(4));
  QuantParams params = params_from_range(spec, *make_layout(spec, {1}, 0), {-1.0f}, {2.0f});
  const auto points = grid_points(params, 0);
  ASSERT_EQ(points.size(), 16u);
  for (std::size_t i = 0; i < 16; ++i)
    EXPECT_EQ(points[i], static_cast<double>(Scalar(params, 0).value(static_cast<std::int64_t>(i))));
  QuantParams fine = params_from_range(spec_of(16), params.layout, {0}, {1.0f});
  const auto thinned = grid_points(fine, 0, 100);
  EXPECT_EQ(thinned.size(), 100u);
  EXPECT_TRUE(std::is_sorted(thinned.begin(), thinned.end()));
  EXPECT_EQ(thinned.front(), static_cast<double>(-32768 * fine.scale[0]));
  EXPECT_EQ(thinned.back(), static_cast<double>(32767 * fine.scale[0]));
  EXPECT_TRUE(grid_points(params, 5).empty());
  EXPECT_TRUE(grid_points(params, -1).empty());
}

}  // namespace
}  // namespace quanvas::quant::test
