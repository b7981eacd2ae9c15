// Ranges averaged over the calibration's batches, against plain computations on the batches themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/quant/order.h"
#include "core/quant/statistics.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant {
namespace {

using test::sample;

const Shape kShape = {6, 5, 40};

std::vector<std::vector<float>> batches() {
  std::vector<std::vector<float>> out;
  for (unsigned b = 0; b < 7; ++b) {
    out.push_back(sample(6 * 5 * 40, b + 1));
    for (float& v : out.back()) v = v * static_cast<float>(1 + b % 3) + 0.3f * static_cast<float>(b);
  }
  return out;
}

TensorStatistics gathered(const std::vector<std::vector<float>>& all, const Shape& shape = kShape) {
  TensorStatistics total;
  for (std::size_t b = 0; b < all.size(); ++b) {
    TensorStatistics one;
    one.add(all[b].data(), shape);
    one.close_batch();
    if (b == 0) total = one;
    else total.merge(one);
  }
  return total;
}

float lowest(const std::vector<float>& x) { return *std::min_element(x.begin(), x.end()); }
float highest(const std::vector<float>& x) { return *std::max_element(x.begin(), x.end()); }
float absmax(const std::vector<float>& x) { return std::max(std::fabs(lowest(x)), std::fabs(highest(x))); }
float mean_of_maxima(const std::vector<float>& x) {
  double sum = 0;
  for (int c = 0; c < 5; ++c) {
    float most = 0;
    for (int n = 0; n < 6; ++n)
      for (int i = 0; i < 40; ++i) most = std::max(most, std::fabs(x[static_cast<std::size_t>((n * 5 + c) * 40 + i)]));
    sum += static_cast<double>(most);
  }
  return static_cast<float>(sum / 5);
}
float ranked(std::vector<float> x, bool absolute, std::int64_t rank) {
  if (absolute)
    for (float& v : x) v = std::fabs(v);
  std::sort(x.begin(), x.end());
  return x[static_cast<std::size_t>(rank - 1)];
}

double averaged(const std::vector<double>& values, BatchStatistic how, double momentum) {
  if (how == BatchStatistic::kMean) {
    double sum = 0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
  }
  double now = values[0];
  for (std::size_t i = 1; i < values.size(); ++i) now = (1 - momentum) * now + momentum * values[i];
  return now;
}

TEST(Batches, KeepWhatABatchHolds) {
  const auto all = batches();
  const TensorStatistics s = gathered(all);
  ASSERT_EQ(s.batches().size(), all.size());
  for (std::size_t b = 0; b < all.size(); ++b) {
    const BatchRecord& r = s.batches()[b];
    EXPECT_EQ(r.lowest, lowest(all[b]));
    EXPECT_EQ(r.highest, highest(all[b]));
    EXPECT_FLOAT_EQ(r.mean_of_maxima, mean_of_maxima(all[b]));
    for (std::size_t i = 0; i < kBatchPercentiles.size(); ++i) {
      const double n = 6 * 5 * 40;
      const std::int64_t upper = upper_rank(kBatchPercentiles[i], n), lower = lower_rank(kBatchPercentiles[i], n);
      const auto near = [&](float got, float want) { EXPECT_NEAR(got, want, std::fabs(want) / 64) << kBatchPercentiles[i] << " of " << b; };
      near(r.absolute[i], ranked(all[b], true, upper));
      near(r.high[i], ranked(all[b], false, upper));
      near(r.low[i], ranked(all[b], false, lower));
    }
  }
}

struct Row {
  const char* name;
  Statistic statistic;
  bool is_signed, zero_point;
  double percentile, tolerance;
};

TEST(Batches, AreAveragedInTheirOrder) {
  const auto all = batches();
  const TensorStatistics s = gathered(all);
  const Row rows[] = {{"absmax", Statistic::kAbsMax, true, false, 100, 1e-6},
                      {"minmax signed", Statistic::kMinMax, true, false, 100, 1e-6},
                      {"minmax unsigned", Statistic::kMinMax, false, false, 100, 1e-6},
                      {"minmax asymmetric", Statistic::kMinMax, false, true, 100, 1e-6},
                      {"percentile 100", Statistic::kPercentile, true, false, 100, 1e-6},
                      {"percentile 99", Statistic::kPercentile, true, false, 99, 0.01},
                      {"percentile 99.9 asymmetric", Statistic::kPercentile, false, true, 99.9, 0.01},
                      {"max-mean", Statistic::kMaxMean, true, false, 100, 1e-6}};
  for (const Row& row : rows)
    for (const BatchStatistic how : {BatchStatistic::kMean, BatchStatistic::kEma})
      for (const double momentum : {0.1, 0.7, 1.0}) {
        const std::string what = std::string(row.name) + ", " + enum_text(how) + " " + std::to_string(momentum);
        QuantSpec spec;
        spec.is_signed = row.is_signed;
        spec.statistic = row.statistic;
        spec.percentile = row.percentile;
        spec.zero_point = row.zero_point ? ZeroPointType::kInteger : ZeroPointType::kNone;
        spec.batches = how;
        spec.momentum = momentum;
        ASSERT_EQ(check(spec, SiteKind::kInput), "") << what;
        std::vector<double> lo, hi;
        for (const auto& x : all) {
          const std::int64_t upper = upper_rank(row.percentile, 1200), lower = lower_rank(row.percentile, 1200);
          if (row.zero_point) {
            lo.push_back(std::min(0.0f, ranked(x, false, lower)));
            hi.push_back(std::max(0.0f, ranked(x, false, upper)));
          } else {
            hi.push_back(row.statistic == Statistic::kMaxMean                       ? mean_of_maxima(x)
                         : row.statistic == Statistic::kMinMax && !row.is_signed ? highest(x)
                         : row.statistic == Statistic::kPercentile               ? ranked(x, true, upper)
                                                                                 : absmax(x));
          }
        }
        const auto params = find_params(spec, kShape, s, 1);
        ASSERT_TRUE(params) << what << ": " << params.error().text();
        const double top = averaged(hi, how, momentum), width = row.zero_point ? top - averaged(lo, how, momentum) : top;
        const double steps = row.zero_point || !row.is_signed ? 255 : 128;
        EXPECT_NEAR(params->scale[0], width / steps, row.tolerance * width / steps) << what;
      }
}

TEST(Batches, ChannelsAreAveragedToo) {
  const auto all = batches();
  const TensorStatistics s = gathered(all);
  QuantSpec spec;
  spec.granularity = Granularity::kChannel;
  spec.batches = BatchStatistic::kMean;
  ASSERT_EQ(check(spec, SiteKind::kInput), "");
  const auto again = TensorStatistics::deserialize(s.serialize());
  ASSERT_TRUE(again);
  for (const TensorStatistics* from : {&s, &*again}) {
    const auto params = find_params(spec, kShape, *from, 1);
    ASSERT_TRUE(params) << params.error().text();
    for (int c = 0; c < 5; ++c) {
      double sum = 0;
      for (const auto& x : all) {
        float most = 0;
        for (int n = 0; n < 6; ++n)
          for (int i = 0; i < 40; ++i) most = std::max(most, std::fabs(x[static_cast<std::size_t>((n * 5 + c) * 40 + i)]));
        sum += static_cast<double>(most);
      }
      EXPECT_FLOAT_EQ(params->scale[static_cast<std::size_t>(c)], static_cast<float>(sum / 7) / 128);
    }
  }
  spec.batches = BatchStatistic::kEma;
  EXPECT_FALSE(find_params(spec, kShape, s, 1));
}

TEST(Batches, MomentumOneIsTheLastBatch) {
  const auto all = batches();
  QuantSpec spec;
  spec.batches = BatchStatistic::kEma;
  spec.momentum = 1;
  EXPECT_EQ(find_params(spec, kShape, gathered(all), 1)->scale[0], absmax(all.back()) / 128);
  // Without the average all samples count together.
  spec.batches = BatchStatistic::kAll;
  float most = 0;
  for (const auto& x : all) most = std::max(most, absmax(x));
  EXPECT_EQ(find_params(spec, kShape, gathered(all), 1)->scale[0], most / 128);
}

TEST(Batches, SurviveTheFileAndOldFilesAreStillRead) {
  const TensorStatistics s = gathered(batches());
  const std::string bytes = s.serialize();
  const auto again = TensorStatistics::deserialize(bytes);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->batches(), s.batches());
  for (std::size_t cut = bytes.size() - 200; cut < bytes.size(); cut += 7) EXPECT_FALSE(TensorStatistics::deserialize(bytes.substr(0, cut)));
  EXPECT_FALSE(TensorStatistics::deserialize(bytes + "x"));

  // A file of the version before: no batches at its end.
  TensorStatistics plain;
  const auto all = batches();
  for (const auto& x : all) plain.add(x.data(), kShape);
  std::string old = plain.serialize();
  for (const char* what : {"no channels", "no batches"}) {
    ASSERT_EQ(old.back(), '\0') << what;
    old.pop_back();
  }
  old[3] = '1';
  const auto read = TensorStatistics::deserialize(old);
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->maximum(), plain.maximum());
  QuantSpec spec;
  EXPECT_TRUE(find_params(spec, kShape, *read, 1));
  spec.batches = BatchStatistic::kMean;
  const auto refused = find_params(spec, kShape, *read, 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("Calibrate again"), std::string::npos) << refused.error().text();
}

TEST(Batches, WhatIsNotKeptIsRefusedByName) {
  QuantSpec spec;
  spec.batches = BatchStatistic::kEma;
  spec.statistic = Statistic::kPercentile;
  spec.percentile = 99.5;
  EXPECT_NE(check(spec, SiteKind::kInput).find("99, 99.9, 99.99, 99.999 and 100"), std::string::npos) << check(spec, SiteKind::kInput);
  EXPECT_FALSE(find_params(spec, kShape, gathered(batches()), 1));
  spec.statistic = Statistic::kMse;
  EXPECT_EQ(check(spec, SiteKind::kInput).rfind("statistic is mse", 0), 0u);
  spec.statistic = Statistic::kAbsMax;
  EXPECT_EQ(check(spec, SiteKind::kWeight).rfind("batches is ema", 0), 0u);
  spec.granularity = Granularity::kChannel;
  EXPECT_EQ(check(spec, SiteKind::kInput).rfind("granularity is channel", 0), 0u);
}

TEST(Batches, JoinedTensorsAreWidenedBatchByBatch) {
  const auto a = batches();
  auto b = a;
  for (std::size_t i = 0; i < b.size(); ++i)
    for (float& v : b[i]) v *= i % 2 ? 3.0f : 0.5f;
  TensorStatistics joined = gathered(a);
  joined.join(gathered(b));
  ASSERT_EQ(joined.batches().size(), a.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(joined.batches()[i].highest, std::max(highest(a[i]), highest(b[i])));
  EXPECT_EQ(joined.count(), 2 * 7 * 1200);
  joined.join(gathered({a[0]}));
  EXPECT_TRUE(joined.batches().empty());
}

// Statistics that look at every value, from the histogram.
TEST(Batches, MeanMeanSigmaDivergenceAndMaxMeanAreThoseOfTheTensor) {
  const std::vector<float> x = sample(6 * 5 * 40, 3);
  TensorStatistics s;
  s.add(x.data(), kShape);
  for (const Statistic statistic : {Statistic::kMean, Statistic::kMeanSigma, Statistic::kKl, Statistic::kMaxMean}) {
    QuantSpec spec;
    spec.statistic = statistic;
    const auto from_histogram = find_params(spec, kShape, s, 1), from_values = find_params(spec, kShape, x.data(), 1);
    ASSERT_TRUE(from_histogram && from_values);
    EXPECT_NEAR(from_histogram->scale[0], from_values->scale[0], (statistic == Statistic::kKl ? 0.1 : 1e-5) * from_values->scale[0])
        << enum_text(statistic);
  }
  TensorStatistics flat;
  flat.add(x.data(), {1200});
  QuantSpec spec;
  spec.statistic = Statistic::kMaxMean;
  EXPECT_FALSE(find_params(spec, {1200}, flat, 0)) << "no channels";
}

}  // namespace
}  // namespace quanvas::quant
