// Truncation: integers that have a scale lose their low bits. Against a scalar reference on the integers
// themselves.
#include "core/quant/truncate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/quant/statistics.h"
#include "core/recipe/recipe.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant {
namespace {

QuantSpec preset(const std::string& id) {
  return PresetLibrary::builtin().find(id)->spec;
}

// n / t by integers alone, t a power of two.
std::int64_t shortened(std::int64_t n, std::int64_t t, Rounding rounding) {
  const std::int64_t down = n >= 0 ? n / t : -((-n + t - 1) / t), rest = n - down * t;  // 0 <= rest < t
  const auto up = [&](bool yes) { return down + (yes ? 1 : 0); };
  switch (rounding) {
    case Rounding::kFloor:
      return down;
    case Rounding::kCeil:
      return up(rest > 0);
    case Rounding::kTowardZero:
      return up(n < 0 && rest > 0);
    case Rounding::kHalfUp:
      return up(2 * rest >= t);
    case Rounding::kHalfAway:
      return up(2 * rest > t || (2 * rest == t && n >= 0));
    case Rounding::kDpu:
      return up(2 * rest > t || (2 * rest == t && (n < 0 || down % 2 != 0)));
    default:
      return up(2 * rest > t || (2 * rest == t && down % 2 != 0));
  }
}

struct Row {
  bool is_signed;
  int bits_in, bits;
  bool narrow;
};
constexpr Row kRows[] = {{false, 10, 8, false}, {true, 10, 8, false}, {true, 10, 8, true},  {false, 12, 4, true},
                         {true, 21, 8, false},  {false, 8, 8, false}, {false, 6, 8, false}, {true, 3, 1, false}};
constexpr Rounding kRoundings[] = {Rounding::kHalfEven, Rounding::kFloor,    Rounding::kCeil, Rounding::kTowardZero,
                                   Rounding::kHalfUp,   Rounding::kHalfAway, Rounding::kDpu};

// Every integer of the width where there are few, else many of them with both ends; some beyond.
std::vector<std::int64_t> integers(const Row& row) {
  const std::int64_t count = std::int64_t{1} << row.bits_in, first = row.is_signed ? -count / 2 : 0;
  std::vector<std::int64_t> out = {first - 5, first + count, first + count + 100, 0};
  const std::int64_t step = std::max<std::int64_t>(1, count / 5000);
  for (std::int64_t n = first; n < first + count; n += step) out.push_back(n);
  out.push_back(first + count - 1);
  return out;
}

TEST(Truncation, IsTheOneOfTheIntegersBitForBit) {
  for (const float scale : {0.05f, 0.0123f / 49, 0x1p-9f})
    for (const Row& row : kRows)
      for (const Rounding rounding : kRoundings) {
        QuantSpec spec = preset("TruncTo8bit");
        spec.is_signed = row.is_signed;
        spec.bits = row.bits;
        spec.narrow = row.narrow;
        spec.rounding = rounding;
        ASSERT_EQ(check(spec, SiteKind::kOutput), "");
        const std::vector<std::int64_t> n = integers(row);
        std::vector<float> x;
        for (const std::int64_t v : n) x.push_back(static_cast<float>(v) * scale);
        const Shape shape = {static_cast<std::int64_t>(x.size())};
        const auto p = truncation_params(spec, shape, {scale, row.bits_in}, 0);
        ASSERT_TRUE(p);
        const std::int64_t t = row.bits_in > row.bits ? std::int64_t{1} << (row.bits_in - row.bits) : 1;
        ASSERT_EQ(p->scale[0], scale * static_cast<float>(t));
        std::vector<float> y(x.size()), dy(x.size(), 2), dx(x.size());
        std::vector<std::int32_t> codes(x.size());
        fake_quantize(*p, p->layout, x.data(), y.data());
        quantize_codes(*p, p->layout, x.data(), codes.data());
        fake_quantize_backward(*p, p->layout, x.data(), dy.data(), dx.data(), nullptr, false);
        const std::int64_t half = std::int64_t{1} << (row.bits_in - 1);
        const std::int64_t least = row.is_signed ? -half : 0, most = row.is_signed ? half - 1 : 2 * half - 1;
        std::set<std::int64_t> used;
        std::size_t clipped = 0;
        for (std::size_t e = 0; e < n.size(); ++e) {
          const std::int64_t within = std::clamp(n[e], least, most), q = shortened(within, t, rounding);
          const std::int64_t code = std::clamp(q, p->lo, p->hi);
          const bool cut = code != q || within != n[e];
          ASSERT_EQ(codes[e], code) << n[e] << ", " << enum_text(rounding);
          const float want = static_cast<float>(code) * p->scale[0];
          ASSERT_EQ(std::memcmp(&y[e], &want, 4), 0) << n[e];
          ASSERT_EQ(dx[e], cut ? 0.0f : 2.0f) << n[e];
          used.insert(code);
          clipped += cut;
        }
        const SiteFacts facts = measure(*p, p->layout, x.data());
        EXPECT_EQ(facts.codes_used, static_cast<double>(used.size()));
        EXPECT_EQ(facts.codes_total, static_cast<double>(p->hi - p->lo + 1));
        EXPECT_DOUBLE_EQ(facts.clipped_share, static_cast<double>(clipped) / static_cast<double>(n.size()));
        EXPECT_EQ(facts.error.mse, tensor_error(x.data(), y.data(), shape[0]).mse);
        EXPECT_EQ(facts.scale_max, p->scale[0]);
      }
}

// What is between the integers belongs to the nearest of them first: not a plain quantizer of the larger scale.
TEST(Truncation, RoundsToTheIntegerBeforeItIsShortened) {
  QuantSpec spec = preset("TruncTo8bit");
  const auto p = truncation_params(spec, {3}, {1, 10}, 0);
  ASSERT_TRUE(p);
  const std::vector<float> x = {3.9f, 3.4f, NAN};
  std::vector<std::int32_t> codes(3);
  quantize_codes(*p, p->layout, x.data(), codes.data());
  EXPECT_EQ(codes, (std::vector<std::int32_t>{1, 0, 0}));
}

TEST(Truncation, TakesAsManyBitsAsTheStatisticAsksFor) {
  const QuantSpec spec = preset("ShiftRoundSaturateTo8bit");
  struct Asked {
    float largest, by;
  };
  // The exponent is rounded: 256 sqrt(2) = 362 is the border between 1 and 2.
  for (const Asked& row :
       {Asked{100, 1}, Asked{255, 1}, Asked{350, 1}, Asked{370, 2}, Asked{900, 4}, Asked{5000, 4}}) {
    const auto p = truncation_params(spec, {1}, {0.5f, 10}, row.largest * 0.5f);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->scale[0], 0.5f * row.by) << row.largest;
  }
}

TEST(Truncation, TheThresholdIsTheStatistics) {
  std::vector<float> x(1000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  TensorStatistics s;
  s.add(x.data(), {1000});
  QuantSpec spec = preset("ShiftRoundSaturateTo8bit");
  for (const auto& [statistic, percentile, want] : {std::tuple{Statistic::kAbsMax, 50.0, 999.0f},
                                                    {Statistic::kPercentile, 100.0, 999.0f},
                                                    {Statistic::kPercentile, 50.0, 500.0f}}) {
    spec.statistic = statistic;
    spec.percentile = percentile;
    const auto threshold = find_threshold(spec, s);
    ASSERT_TRUE(threshold);
    EXPECT_NEAR(*threshold, want, 0.01f * want);
  }
  spec.clip_max = 17;
  EXPECT_EQ(*find_threshold(spec, s), 17);
  spec.clip_max.reset();
  EXPECT_FALSE(find_threshold(spec, TensorStatistics())) << "nothing was seen";
}

TEST(Truncation, FollowsIntegersThatChange) {
  auto msb = *truncation_params(preset("RoundTo8bit"), {1}, {0.5f, 12}, 0);
  ASSERT_TRUE(retarget(msb, {0.25f, 10}));
  EXPECT_EQ(msb.scale[0], 0.25f * 4) << "as many bits as there are too many";
  EXPECT_EQ(msb.truncated, (TruncationInput{0.25f, 10}));
  auto kept = *truncation_params(preset("ShiftRoundSaturateTo8bit"), {1}, {0.5f, 12}, 500 * 0.5f);
  ASSERT_EQ(kept.scale[0], 0.5f * 2);
  ASSERT_TRUE(retarget(kept, {0.3f, 12}));
  EXPECT_EQ(kept.scale[0], 0.3f * 2) << "what was cut off stays";
  ASSERT_TRUE(retarget(kept, {0.3f, 8}));
  EXPECT_EQ(kept.scale[0], 0.3f) << "as far as there is so much";
}

TEST(Truncation, RefusesWhatIsNoSuchInteger) {
  const QuantSpec spec = preset("TruncTo8bit");
  EXPECT_FALSE(truncation_params(QuantSpec{}, {1}, {1, 10}, 0));
  auto p = *truncation_params(spec, {1}, {1, 10}, 0);
  for (const TruncationInput bad :
       {TruncationInput{0, 10}, {-1, 10}, {INFINITY, 10}, {NAN, 10}, {1, 0}, {1, 33}, {1e38f, 32}}) {
    EXPECT_FALSE(truncation_params(spec, {1}, bad, 0)) << bad.scale << ' ' << bad.bits;
    EXPECT_FALSE(retarget(p, bad)) << bad.scale << ' ' << bad.bits;
  }
}

}  // namespace
}  // namespace quanvas::quant
