// Calibration statistics: merging, order statistics, and bytes from strangers.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/quant/order.h"
#include "core/quant/statistics.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TensorStatistics of(const std::vector<float>& x, Shape shape = {}) {
  if (shape.empty()) shape = {static_cast<std::int64_t>(x.size())};
  TensorStatistics s;
  s.add(x.data(), shape);
  return s;
}

double percentile(const TensorStatistics& s, double percent, bool absolute) {
  return s.at_rank(upper_rank(percent, s.count()), absolute);
}

QuantSpec with(QuantSpec s, Statistic statistic, double percentile = 99.9) {
  s.statistic = statistic;
  s.percentile = percentile;
  return s;
}

TEST(Gathering, CountsRangeMomentsAndChannels) {
  const Shape shape = {4, 5, 30, 31};
  const std::vector<float> x = sample(size_of(shape));
  const TensorStatistics s = of(x, shape);
  const double n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  double square = 0;
  for (const float v : x) square += (v - mean) * (v - mean);
  EXPECT_EQ(s.count(), n);
  EXPECT_EQ(s.minimum(), *std::min_element(x.begin(), x.end()));
  EXPECT_EQ(s.maximum(), *std::max_element(x.begin(), x.end()));
  EXPECT_NEAR(s.mean(), mean, 1e-12);
  EXPECT_NEAR(s.stddev(), std::sqrt(square / n), 1e-12);
  std::vector<float> absmax(5);
  for (std::size_t e = 0; e < x.size(); ++e) absmax[e / 930 % 5] = std::max(absmax[e / 930 % 5], std::fabs(x[e]));
  EXPECT_EQ(s.channel_absmax(), absmax);
}

TEST(Gathering, TheRangeIsThatOfTheValuesInEveryLayout) {
  for (const Shape& shape : {Shape{6}, Shape{2, 3}, Shape{1, 6}, Shape{3, 1, 2}, Shape{2, 3, 1}})
    for (const float sign : {1.0f, -1.0f}) {
      std::vector<float> x = {4, 3, 2, 5, 7, 6};
      for (float& v : x) v *= sign;
      const TensorStatistics s = of(x, shape);
      EXPECT_EQ(s.minimum(), *std::min_element(x.begin(), x.end())) << shape_text(shape);
      EXPECT_EQ(s.maximum(), *std::max_element(x.begin(), x.end())) << shape_text(shape);
    }
  // More columns than are looked at together, more rows than one thread has.
  const Shape wide = {40, 20000};
  std::vector<float> x = sample(size_of(wide));
  for (float& v : x) v = 1 + std::fabs(v);
  std::vector<float> absmax(20000), highest;
  for (std::size_t e = 0; e < x.size(); ++e) absmax[e % 20000] = std::max(absmax[e % 20000], x[e]);
  TensorStatistics s;
  s.add(x.data(), wide, &highest);
  EXPECT_EQ(s.minimum(), *std::min_element(x.begin(), x.end()));
  EXPECT_EQ(s.channel_absmax(), absmax);
  EXPECT_EQ(highest, absmax);
}

TEST(Gathering, RectifiedIsThatOfTheRectifiedTensor) {
  struct Row {
    const char* name;
    float factor, shift;
    Shape shape;
  };
  const Row rows[] = {{"both signs", 1, 0, {4, 5, 30, 31}},  {"all negative", 1, -100, {4, 5, 30, 31}},
                      {"all positive", 1, 100, {3, 7, 11}},  {"one channel is negative", 1, 0, {1, 2, 1}},
                      {"no channels", 3, -1, {1000}},        {"nothing but zeros", 0, 0, {2, 3, 4}},
                      {"tiny", 1e-40f, 0, {8, 4, 16}}};
  for (const Row& row : rows) {
    std::vector<float> x = sample(size_of(row.shape));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 11 == 0 ? -0.0f : row.factor * x[i] + row.shift;
    std::vector<float> positive = x, channel_highest;
    for (float& v : positive) v = v > 0 ? v : 0;
    TensorStatistics s;
    s.add(x.data(), row.shape, &channel_highest);
    TensorStatistics follows = s.rectified(channel_highest), seen = of(positive, row.shape);
    follows.close_batch();
    seen.close_batch();
    EXPECT_EQ(follows.serialize(), seen.serialize()) << row.name;
    EXPECT_EQ(follows.batches(), seen.batches()) << row.name;
    EXPECT_EQ(follows.channel_absmax(), seen.channel_absmax()) << row.name;
  }
}

TEST(Gathering, BatchRecordsAreTheOrderStatisticsOfTheWhole) {
  // close_batch() looks at the ends only.
  for (const float shift : {-3.0f, -0.2f, 0.0f, 0.4f, 5.0f}) {
    std::vector<float> x = sample(30000);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 5 == 0 ? shift : x[i] + shift;
    TensorStatistics s = of(x);
    s.close_batch();
    const BatchRecord& b = s.batches().at(0);
    for (std::size_t i = 0; i < kBatchPercentiles.size(); ++i) {
      const std::int64_t upper = upper_rank(kBatchPercentiles[i], s.count()), lower = lower_rank(kBatchPercentiles[i], s.count());
      EXPECT_EQ(b.absolute[i], static_cast<float>(s.at_rank(upper, true))) << shift << " " << i;
      EXPECT_EQ(b.high[i], static_cast<float>(s.at_rank(upper, false))) << shift << " " << i;
      EXPECT_EQ(b.low[i], static_cast<float>(s.at_rank(lower, false))) << shift << " " << i;
    }
  }
}

TEST(Gathering, MomentsOfNarrowDistributions) {
  // All in one or two bins of the histogram: the sums inside the bins must carry the moments.
  std::vector<float> x(10000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 100 + 0.01f * static_cast<float>(i % 10);
  double mean = 0, square = 0;
  for (const float v : x) mean += v / 1e4;
  for (const float v : x) square += (v - mean) * (v - mean) / 1e4;
  EXPECT_NEAR(of(x).mean(), mean, 1e-9);
  EXPECT_NEAR(of(x).stddev(), std::sqrt(square), 1e-7);
  EXPECT_EQ(of(std::vector<float>(1000, 0.3f)).stddev(), 0);
}

TEST(Gathering, ChannelsOfEveryLayout) {
  for (const Shape& shape : std::vector<Shape>{{50, 7}, {1, 3}, {2, 3, 1}, {3, 20000, 2}, {2, 20000}}) {
    const std::vector<float> x = sample(size_of(shape));
    const TensorStatistics s = of(x, shape);
    const std::int64_t inner = shape.size() > 2 ? shape[2] : 1;
    std::vector<float> absmax(static_cast<std::size_t>(shape[1]));
    for (std::size_t e = 0; e < x.size(); ++e) {
      float& most = absmax[e / static_cast<std::size_t>(inner) % absmax.size()];
      most = std::max(most, std::fabs(x[e]));
    }
    EXPECT_EQ(s.channel_absmax(), absmax);
  }
  EXPECT_TRUE(of(sample(10)).channel_absmax().empty());
}

TEST(Gathering, NonFiniteValuesAreCountedApart) {
  std::vector<float> x = {1, -2, kNan, 3, kInf, -kInf, -kNan, 0};
  const TensorStatistics s = of(x, {2, 2, 2});
  EXPECT_EQ(s.count(), 4);
  EXPECT_EQ(s.non_finite(), 4);
  EXPECT_EQ(s.minimum(), -2);
  EXPECT_EQ(s.maximum(), 3);
  EXPECT_EQ(s.mean(), 0.5);
  EXPECT_EQ(s.channel_absmax(), (std::vector<float>{2, 3}));
  const TensorStatistics none = of({kNan, kInf});
  EXPECT_EQ(none.count(), 0);
  EXPECT_EQ(none.mean(), 0);
  EXPECT_EQ(percentile(none, 50, false), 0);
  const auto p = find_params(spec_of(8), {2}, none, 1);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().message, "Calibration saw no finite value of this tensor.");
}

TEST(Gathering, EmptyTensorsAndZeros) {
  TensorStatistics s;
  s.add(nullptr, {0, 3});
  s.add(nullptr, {0});
  EXPECT_EQ(s.count(), 0);
  EXPECT_EQ(s.stddev(), 0);
  EXPECT_TRUE(s.bins().empty());
  const TensorStatistics zeros = of(std::vector<float>(1000, -0.0f));
  EXPECT_EQ(zeros.count(), 1000);
  EXPECT_FALSE(std::signbit(zeros.minimum()));
  EXPECT_EQ(percentile(zeros, 99, true), 0);
  ASSERT_EQ(zeros.bins().size(), 1u);
  EXPECT_EQ(zeros.bins()[0].mean, 0);
}

TEST(Merging, AnyOrderAnySplitAnyThreadsGivesTheSame) {
  const std::int64_t channels = 6, inner = 5000;
  const std::vector<float> x = sample(8 * channels * inner);
  const auto part = [&](std::int64_t from, std::int64_t to) {
    TensorStatistics s;
    s.add(x.data() + from * channels * inner, {to - from, channels, inner});
    return s;
  };
  const std::string whole = part(0, 8).serialize();
  std::vector<std::pair<int, int>> parts = {{0, 1}, {1, 4}, {4, 6}, {6, 8}};
  do {
    TensorStatistics s;
    for (const auto& [from, to] : parts) s.merge(part(from, to));
    ASSERT_EQ(s.serialize(), whole);
  } while (std::next_permutation(parts.begin(), parts.end()));
  for (const int threads : {1, 2, 7}) {
    set_kernel_threads(threads);
    EXPECT_EQ(part(0, 8).serialize(), whole);
  }
  set_kernel_threads(0);
  TensorStatistics twice = part(0, 8), self = twice;
  twice.merge(part(0, 8));
  self.merge(self);
  EXPECT_EQ(self.serialize(), twice.serialize());
  EXPECT_EQ(self.count(), 2.0 * static_cast<double>(x.size()));
}

TEST(Merging, DifferentChannelsLeaveNone) {
  const std::vector<float> x = sample(24);
  std::vector<TensorStatistics> parts = {of(x, {2, 3, 4}), of(x, {2, 4, 3}), of(x, {2, 3, 4})};
  for (int first = 0; first < 3; ++first) {
    TensorStatistics s;
    for (int i = 0; i < 3; ++i) s.merge(parts[static_cast<std::size_t>((first + i) % 3)]);
    EXPECT_TRUE(s.channel_absmax().empty());
  }
}

TEST(Percentile, WithinOneBinOfTheOrderStatistic) {
  for (const std::int64_t n : {1, 2, 10, 1000, 100000}) {
    const std::vector<float> x = sample(n, 3);
    const TensorStatistics s = of(x);
    for (const bool absolute : {false, true}) {
      std::vector<float> sorted = x;
      if (absolute)
        for (float& v : sorted) v = std::fabs(v);
      std::sort(sorted.begin(), sorted.end());
      double before = -INFINITY;
      for (const double q : {0.0, 0.1, 10.0, 50.0, 90.0, 99.0, 99.999, 100.0}) {
        const double rank = std::clamp(std::floor(.01 * q * static_cast<double>(n) + .5), 1.0, static_cast<double>(n));
        const double exact = sorted[static_cast<std::size_t>(rank) - 1], found = percentile(s, q, absolute);
        EXPECT_NEAR(found, exact, std::fabs(exact) * 0x1p-7 + 1e-40) << n << " " << q;
        EXPECT_GE(found, before) << "monotone";
        before = found;
      }
      EXPECT_EQ(percentile(s, 100, absolute), sorted.back());
    }
    EXPECT_EQ(percentile(s, 0, false), s.minimum());
  }
  EXPECT_EQ(of({1, 2, 3}).at_rank(0, false), 1);
  EXPECT_EQ(of({1, 2, 3}).at_rank(1000, false), 3);
}

TEST(Rebin, KeepsTheCountsAndTheirPlaces) {
  const std::vector<float> x = sample(50000);
  const TensorStatistics s = of(x);
  const auto all = s.rebin(s.minimum(), s.maximum(), 64);
  EXPECT_NEAR(std::accumulate(all.begin(), all.end(), 0.0), 50000, 1e-6);
  // Where bins are much wider than those inside, counts agree with counting the values.
  std::vector<double> counted(8);
  for (const float v : x)
    if (v >= -4 && v <= 4) counted[std::min<std::size_t>(7, static_cast<std::size_t>(v + 4))] += 1;
  const auto eight = s.rebin(-4, 4, 8);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(eight[i], counted[i], 0.02 * 50000) << i;
  EXPECT_EQ(of({1, 1, 2}).rebin(1, 2, 2), (std::vector<double>{2, 1}));
  EXPECT_EQ(of({1, 1, 2}).rebin(5, 6, 2), (std::vector<double>{0, 0}));
  EXPECT_TRUE(s.rebin(1, 1, 4).empty());
  EXPECT_TRUE(s.rebin(2, 1, 4).empty());
  EXPECT_TRUE(s.rebin(0, 1, 0).empty());
  EXPECT_TRUE(s.rebin(kNan, 1, 4).empty());
  EXPECT_TRUE(s.rebin(0, INFINITY, 4).empty());
  EXPECT_EQ(s.rebin(-3e38, 3e38, 3).size(), 3u);
}

TEST(FromStatistics, ExtremesEqualThoseOfTheTensor) {
  const Shape shape = {3, 4, 50};
  const std::vector<float> x = sample(600);
  const TensorStatistics s = of(x, shape);
  for (const QuantSpec& base : {narrow(spec_of(8)), asym(spec_of(4)), po2(spec_of(8)), unsigned_(spec_of(8))})
    for (const Statistic statistic : {Statistic::kAbsMax, Statistic::kMinMax, Statistic::kPercentile}) {
      const QuantSpec spec = with(base, statistic, 100);
      const auto from_values = find_params(spec, shape, x.data(), 1);
      const auto found = find_params(spec, {-1, 4, 50}, s, 1);
      ASSERT_TRUE(found) << found.error().text();
      EXPECT_EQ(found->scale, from_values->scale);
      EXPECT_EQ(found->zero_point, from_values->zero_point);
      EXPECT_TRUE(rebatch(*found, shape));
    }
}

TEST(FromStatistics, PercentileIsCloseToThatOfTheTensor) {
  const std::vector<float> x = sample(100000);
  const TensorStatistics s = of(x);
  for (const QuantSpec& base : {narrow(spec_of(8)), asym(spec_of(8))}) {
    const QuantSpec spec = with(base, Statistic::kPercentile, 99);
    const auto exact = find_params(spec, {100000}, x.data(), 0), found = find_params(spec, {100000}, s, 0);
    EXPECT_NEAR(found->scale[0], exact->scale[0], exact->scale[0] * 0x1p-7);
  }
}

TEST(FromStatistics, MseIsAtLeastAsGoodAsTheExtremesAndNearTheSearchOnTheTensor) {
  const std::vector<float> x = sample(100000);
  const TensorStatistics s = of(x);
  for (const QuantSpec& base : {narrow(spec_of(2)), narrow(spec_of(4)), asym(spec_of(4)), po2(spec_of(4)), narrow(spec_of(8))}) {
    const auto error = [&](const Result<QuantParams>& p) { return measure(*p, p->layout, x.data()).error.mse; };
    const auto found = find_params(with(base, Statistic::kMse), {100000}, s, 0);
    const auto extreme = find_params(with(base, Statistic::kAbsMax), {100000}, s, 0);
    const auto searched = find_params(with(base, Statistic::kMse), {100000}, x.data(), 0);
    EXPECT_LE(error(found), error(extreme) * 1.0001) << describe(base);
    EXPECT_LE(error(found), error(searched) * 1.02) << describe(base);
    QuantSpec bracketing = with(base, Statistic::kMse);
    bracketing.search = Search::kBracketing;
    EXPECT_LE(error(find_params(bracketing, {100000}, s, 0)), error(searched) * 1.02) << describe(base);
  }
}

TEST(FromStatistics, PerChannelFromTheMagnitudes) {
  const Shape shape = {3, 4, 50};
  std::vector<float> x = sample(600);
  const QuantSpec spec = narrow(spec_of(8, Granularity::kChannel, 1));
  const auto found = find_params(spec, {-1, 4, 50}, of(x, shape), 1);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->scale, find_params(spec, shape, x.data(), 1)->scale);
  for (float& v : x) v = std::fabs(v);
  const QuantSpec positive = asym(spec);
  const auto p = find_params(with(positive, Statistic::kMinMax), shape, of(x, shape), 1);
  EXPECT_EQ(p->zero_point, std::vector<float>(4, 0));
}

TEST(FromStatistics, SaysWhatItCannotDo) {
  const Shape shape = {3, 4, 50};
  const TensorStatistics s = of(sample(600), shape);
  struct Row {
    QuantSpec spec;
    const char* word;
  };
  const std::vector<Row> rows = {
      {spec_of(8, Granularity::kChannel, 2), "axis 2"},
      {with(spec_of(8, Granularity::kChannel, 1), Statistic::kMse), "statistic is mse"},
      {with(spec_of(8, Granularity::kChannel, 1), Statistic::kPercentile), "statistic is percentile"},
      {group(4, 1, 2), "group"},
      {spec_of(8, Granularity::kChannel, 7), "axis is 7"},
  };
  for (const Row& r : rows) {
    const auto p = find_params(r.spec, shape, s, 1);
    ASSERT_FALSE(p);
    EXPECT_NE(p.error().text().find(r.word), std::string::npos) << p.error().text();
  }
  EXPECT_FALSE(find_params(spec_of(8), shape, TensorStatistics(), 1));
  QuantSpec clipped = spec_of(8);
  clipped.clip_max = 3;
  EXPECT_EQ(find_params(clipped, shape, TensorStatistics(), 1)->scale[0], 3.0f / 128);
  EXPECT_EQ(find_params(clipped, shape, s, 1)->scale[0], 3.0f / 128);
}

TEST(Bytes, RoundTrip) {
  std::vector<TensorStatistics> all = {TensorStatistics(), of({1}), of({kNan}), of(sample(1000)), of({-1e-45f, 3e38f, -0.0f}),
                                       of(sample(2 * 3 * 400), {2, 3, 400})};
  for (const TensorStatistics& s : all) {
    const std::string bytes = s.serialize();
    const auto again = TensorStatistics::deserialize(bytes);
    ASSERT_TRUE(again) << again.error().text();
    EXPECT_EQ(again->serialize(), bytes);
    EXPECT_EQ(again->count(), s.count());
    EXPECT_EQ(again->non_finite(), s.non_finite());
    EXPECT_EQ(again->minimum(), s.minimum());
    EXPECT_EQ(again->maximum(), s.maximum());
    EXPECT_EQ(again->mean(), s.mean());
    EXPECT_EQ(again->stddev(), s.stddev());
    EXPECT_EQ(again->channel_absmax(), s.channel_absmax());
    EXPECT_EQ(percentile(*again, 90, true), percentile(s, 90, true));
  }
}

// Whatever is accepted must be usable.
void use(const TensorStatistics& s) {
  EXPECT_TRUE(std::isfinite(s.mean()) && std::isfinite(s.stddev()));
  for (const double q : {0.0, 50.0, 99.9, 100.0}) {
    EXPECT_GE(percentile(s, q, false), s.minimum());
    EXPECT_LE(percentile(s, q, false), s.maximum());
  }
  (void)s.rebin(s.minimum(), s.maximum(), 16);
  const auto p = find_params(with(asym(spec_of(4)), Statistic::kMse), {4}, s, 0);
  EXPECT_TRUE(!p || (p->scale[0] > 0 && std::isfinite(p->scale[0])));
}

TEST(Bytes, DamagedOnesAreRefusedOrUsable) {
  const std::string good = of(sample(60), {2, 3, 10}).serialize();
  for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(TensorStatistics::deserialize(good.substr(0, n))) << n;
  EXPECT_FALSE(TensorStatistics::deserialize(good + "x"));
  EXPECT_EQ(TensorStatistics::deserialize("").error().code, ErrorCode::kCorrupt);
  for (std::size_t i = 0; i < good.size(); ++i)
    for (const int bit : {0, 3, 7}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      if (const auto s = TensorStatistics::deserialize(bad)) use(*s);
    }
  std::mt19937 random(3);
  for (int k = 0; k < 3000; ++k) {
    std::string bad = good;
    for (int j = 0; j < 4; ++j) bad[4 + random() % (bad.size() - 4)] = static_cast<char>(random());
    if (const auto s = TensorStatistics::deserialize(bad)) use(*s);
    std::string noise = "QVS1";
    for (std::size_t j = random() % 100; j > 0; --j) noise += static_cast<char>(random());
    if (const auto s = TensorStatistics::deserialize(noise)) use(*s);
  }
}

TEST(Bytes, AHugeNumberOfChannelsAllocatesNothing) {
  std::string bytes = "QVS1" + std::string(16, '\0');
  bytes += '\0';                          // non-finite
  bytes += "\xff\xff\xff\xff\x0f";        // channels
  EXPECT_FALSE(TensorStatistics::deserialize(bytes));
}

}  // namespace
}  // namespace quanvas::quant::test
