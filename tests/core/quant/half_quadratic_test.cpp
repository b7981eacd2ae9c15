// Half-quadratic splitting from parameters that were found already.
#include "core/quant/half_quadratic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/quant/params.h"

namespace quanvas::quant {
namespace {

// Heavy tails, as weights have them.
std::vector<float> values(std::int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> x;
  for (std::int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(0.05 * normal(random) * std::exp(0.5 * normal(random)) + 0.01));
  return x;
}

QuantSpec weight_spec(int bits, Granularity granularity, ZeroPointType zero_point = ZeroPointType::kNone) {
  QuantSpec s;
  s.bits = bits;
  s.granularity = granularity;
  s.group_size = 16;
  s.zero_point = zero_point;
  s.is_signed = zero_point == ZeroPointType::kNone;
  s.narrow = s.is_signed;
  return s;
}

double loss_of(const QuantParams& params, const std::vector<float>& x, double power, std::int64_t begin = 0, std::int64_t end = -1) {
  std::vector<float> y(x.size());
  fake_quantize(params, params.layout, x.data(), y.data());
  double sum = 0;
  for (std::int64_t i = begin; i < (end < 0 ? static_cast<std::int64_t>(x.size()) : end); ++i)
    sum += std::pow(std::fabs(static_cast<double>(x[static_cast<std::size_t>(i)]) - static_cast<double>(y[static_cast<std::size_t>(i)])), power);
  return sum;
}

TEST(RefineHalfQuadratic, NoParameterGetsWorseAndMostGetBetter) {
  const std::int64_t m = 12, n = 48;
  const std::vector<float> x = values(m * n, 1);
  for (const int bits : {2, 4, 8})
    for (const Granularity granularity : {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup})
      for (const ZeroPointType zero : {ZeroPointType::kNone, ZeroPointType::kInteger, ZeroPointType::kFloat})
        for (const Statistic statistic : {Statistic::kAbsMax, Statistic::kMse})
          for (const double power : {0.5, 0.7, 1.0, 2.0}) {
            QuantSpec spec = weight_spec(bits, granularity, zero);
            spec.statistic = statistic;
            spec.zero_point_inside = zero == ZeroPointType::kFloat;
            const auto start = find_params(spec, {m, n}, x.data(), granularity == Granularity::kGroup ? 1 : 0);
            ASSERT_TRUE(start) << start.error().text();
            QuantParams now = *start;
            HalfQuadraticOptions o;
            o.power = power;
            const auto done = refine_half_quadratic(now, x.data(), o);
            ASSERT_TRUE(done) << done.error().text();
            const double before = loss_of(*start, x, power), after = loss_of(now, x, power);
            EXPECT_LE(after, before * (1 + 1e-12));
            EXPECT_NEAR(done->before, std::pow(before / static_cast<double>(m * n), 1 / power), 1e-4 * done->before);
            EXPECT_NEAR(done->after, std::pow(after / static_cast<double>(m * n), 1 / power), 1e-4 * done->after);
            for (std::int64_t c = 0; c < m && granularity == Granularity::kChannel; ++c)
              EXPECT_LE(loss_of(now, x, power, c * n, (c + 1) * n), loss_of(*start, x, power, c * n, (c + 1) * n) * (1 + 1e-12));
            if (bits == 4 && power <= 1 && statistic == Statistic::kAbsMax && granularity != Granularity::kTensor) {
              EXPECT_LT(done->after, 0.97 * done->before) << static_cast<int>(zero) << " " << power;
              EXPECT_GT(done->improved, static_cast<std::int64_t>(now.scale.size()) / 3);
            }
            for (std::size_t i = 0; i < now.scale.size(); ++i) {
              EXPECT_TRUE(std::isfinite(now.scale[i]) && now.scale[i] > 0);
              if (zero == ZeroPointType::kInteger) {
                EXPECT_TRUE(now.zero_point[i] == std::nearbyint(now.zero_point[i]) && now.zero_point[i] >= 0 && now.zero_point[i] <= static_cast<float>(now.hi));
              }
            }
            EXPECT_EQ(now.spec, start->spec);
          }
}

TEST(RefineHalfQuadratic, ServesAnyGrid) {
  const std::vector<float> x = values(16 * 64, 4);
  for (const std::string& format : {std::string("float"), std::string("ternary"), std::string("binary"), codebooks().front().id}) {
    SCOPED_TRACE(format);
    QuantSpec spec = weight_spec(4, Granularity::kChannel);
    spec.format = format;
    spec.narrow = false;
    spec.exponent_bits = 2, spec.mantissa_bits = 1;
    spec.specials = FloatSpecials::kNone;
    const auto start = find_params(spec, {16, 64}, x.data(), 0);
    ASSERT_TRUE(start) << start.error().text();
    QuantParams now = *start;
    const auto done = refine_half_quadratic(now, x.data());
    ASSERT_TRUE(done) << done.error().text();
    EXPECT_LT(loss_of(now, x, 1), 0.99 * loss_of(*start, x, 1));
    EXPECT_GT(done->improved, 4);
  }
}

TEST(RefineHalfQuadratic, FollowsTheScaleOfTheValuesAndKeepsItsBits) {
  const std::vector<float> x = values(400 * 512, 2);
  const QuantSpec spec = weight_spec(4, Granularity::kChannel);
  std::vector<float> first;
  for (const int threads : {1, 2, 3})
    for (const float factor : {1.0f, 0.25f, 1024.0f}) {
      if (threads > 1 && factor != 1) continue;
      set_kernel_threads(threads);
      std::vector<float> scaled = x;
      for (float& v : scaled) v *= factor;
      QuantParams p = *find_params(spec, {400, 512}, scaled.data(), 0);
      HalfQuadraticOptions o;
      o.iterations = 5;
      ASSERT_TRUE(refine_half_quadratic(p, scaled.data(), o));
      for (float& s : p.scale) s /= factor;
      if (first.empty()) first = p.scale;
      for (std::size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(p.scale[i], first[i], factor == 1 ? 0 : 1e-5f * first[i]);
    }
  set_kernel_threads(0);
}

TEST(RefineHalfQuadratic, LeavesWhatItCannotMakeBetter) {
  // Values on the grid; zeros; nothing at all.
  QuantSpec spec = weight_spec(4, Granularity::kTensor);
  for (const std::vector<float>& x : {std::vector<float>{-7, 3, 2, 7, 0, 1}, std::vector<float>(6, 0.0f), std::vector<float>{}}) {
    QuantParams p = *find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
    const QuantParams before = p;
    const auto done = refine_half_quadratic(p, x.data());
    ASSERT_TRUE(done);
    EXPECT_EQ(p.scale, before.scale);
    EXPECT_EQ(done->improved, 0);
  }
}

TEST(RefineHalfQuadratic, RefusesScalesThatAreNotFree) {
  const std::pair<std::function<void(QuantSpec&)>, const char*> rows[] = {
      {[](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; }, "power-of-two"},
      {[](QuantSpec& s) { s.source = ScaleSource::kConstant; s.scale_value = 0.1; }, "is given"},
      {[](QuantSpec& s) { s.statistic = Statistic::kSignedMax; s.narrow = false; }, "sign of the largest"},
      {[](QuantSpec& s) { s.decoupled = Decoupling::kL2; }, "bound of the codes"},
      {[](QuantSpec& s) { s.rounding = Rounding::kStochastic; }, "stochastic"},
      {[](QuantSpec& s) { s.clip_max = 1; }, "limits are fixed"}};
  const std::vector<float> x = values(64, 3);
  for (const auto& [change, sentence] : rows) {
    QuantSpec spec = weight_spec(4, Granularity::kTensor);
    change(spec);
    QuantParams p = *find_params(spec, {64}, x.data(), 0);
    const auto done = refine_half_quadratic(p, x.data());
    ASSERT_FALSE(done) << sentence;
    EXPECT_NE(done.error().text().find(sentence), std::string::npos) << done.error().text();
  }
  std::stop_source stop;
  stop.request_stop();
  QuantParams p = *find_params(weight_spec(4, Granularity::kTensor), {64}, x.data(), 0);
  HalfQuadraticOptions o;
  o.stop = stop.get_token();
  EXPECT_EQ(refine_half_quadratic(p, x.data(), o).error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace quanvas::quant
