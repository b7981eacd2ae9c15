// Layouts, and how scale and zero point are found.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <thread>

#include "core/quant/order.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

QuantSpec with(QuantSpec s, Statistic statistic, double percentile = 99.999) {
  s.statistic = statistic;
  s.percentile = percentile;
  return s;
}

TEST(Layout, WhatEachGranularityMeans) {
  const Shape shape = {6, 40, 3, 2};
  struct Row {
    QuantSpec spec;
    int default_axis;
    std::int64_t outer, dim, inner, parameters;
  };
  const std::vector<Row> rows = {
      {spec_of(8), 0, 1, 1, 1440, 1},
      {spec_of(8, Granularity::kChannel, 0), 1, 1, 6, 240, 6},
      {spec_of(8, Granularity::kChannel, -3), 0, 6, 40, 6, 40},
      {group(4, 1, 32), 0, 6, 40, 6, 6 * 2 * 6},
      {group(4, 3, 32), 0, 720, 2, 1, 720},
  };
  for (const Row& r : rows) {
    const auto layout = make_layout(r.spec, shape, r.default_axis);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->outer, r.outer);
    EXPECT_EQ(layout->dim, r.dim);
    EXPECT_EQ(layout->inner, r.inner);
    EXPECT_EQ(layout->parameters(), r.parameters);
    EXPECT_EQ(layout->elements(), 1440);
  }
  QuantSpec own = spec_of(8, Granularity::kChannel);
  own.axis.reset();
  EXPECT_EQ(make_layout(own, shape, 1)->dim, 40);
}

TEST(Layout, RefusesWhatMakesNoSense) {
  struct Row {
    QuantSpec spec;
    Shape shape;
    const char* word;
  };
  const std::int64_t big = std::int64_t{1} << 40;
  QuantSpec no_group = group(4, 0, 0);
  const std::vector<Row> rows = {
      {spec_of(8, Granularity::kChannel, 4), {2, 3}, "axis is 4"},
      {spec_of(8, Granularity::kChannel, -3), {2, 3}, "axis is -3"},
      {spec_of(8, Granularity::kChannel, 0), {}, "axis is 0"},
      {spec_of(8), {big, big}, "elements"},
      {spec_of(8), {-7}, "negative"},
      {no_group, {4}, "group_size"},
  };
  for (const Row& r : rows) {
    const auto layout = make_layout(r.spec, r.shape, 0);
    ASSERT_FALSE(layout);
    EXPECT_EQ(layout.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(layout.error().text().find(r.word), std::string::npos) << layout.error().text();
  }
}

TEST(Layout, TheBatchMayChangeTheChannelsMayNot) {
  const std::vector<float> x = sample(2 * 5 * 3);
  const auto params = find_params(spec_of(8, Granularity::kChannel, 1), {2, 5, 3}, x.data(), 1);
  ASSERT_TRUE(params);
  EXPECT_EQ(rebatch(*params, {7, 5, 3})->outer, 7);
  EXPECT_EQ(rebatch(*params, {7, 5, 9})->inner, 9);
  EXPECT_FALSE(rebatch(*params, {2, 6, 3}));
  EXPECT_FALSE(rebatch(*params, {5}));
  const auto whole = find_params(spec_of(8), {2, 5, 3}, x.data(), 1);
  EXPECT_EQ(rebatch(*whole, {4, 4})->elements(), 16);
}

TEST(Scale, Rules) {
  struct Row {
    const char* name;
    QuantSpec spec;
    float lo, hi;
    float scale, zero;
  };
  const std::vector<Row> rows = {
      {"signed narrow", narrow(spec_of(8)), 0, 12.7f, 12.7f / 127, 0},
      {"signed wide", spec_of(8), 0, 12.8f, 12.8f / 128, 0},
      {"unsigned", unsigned_(spec_of(8)), 0, 25.5f, 25.5f / 255, 0},
      {"unsigned narrow", narrow(unsigned_(spec_of(8))), 0, 25.4f, 25.4f / 254, 0},
      {"1 bit", spec_of(1), 0, 3.0f, 3.0f, 0},
      {"asymmetric", asym(spec_of(8)), -1, 1.55f, 2.55f / 255, 100},
      {"asymmetric positive: 0 forced in", asym(spec_of(8)), 2, 2.55f, 2.55f / 255, 0},
      {"asymmetric negative: 0 forced in", asym(spec_of(8)), -2.55f, -1, 2.55f / 255, 255},
      {"asymmetric zero", asym(spec_of(8)), 0, 0, 1e-10f / 255, 0},
      {"symmetric zero", narrow(spec_of(8)), 0, 0, 1e-10f / 127, 0},
      {"po2 exact", po2(spec_of(8)), 0, 1.0f, 1.0f / 128, 0},
      {"po2 above", po2(spec_of(8)), 0, std::nextafter(1.0f, 2.0f), 2.0f / 128, 0},
      {"po2 below", po2(spec_of(8)), 0, std::nextafter(1024.0f, 0.0f), 8, 0},
      {"po2 unsigned", po2(unsigned_(spec_of(8))), 0, 1.0f, 1.0f / 256, 0},
      {"po2 zero", po2(spec_of(8)), 0, 0, 0x1p-40f, 0},
      {"po2 asymmetric", po2(asym(spec_of(8))), -1, 1, 2.0f / 128 / 1, 64},
      {"NaN counts as 0", asym(spec_of(8)), NAN, NAN, 1e-10f / 255, 0},
      {"infinity", asym(spec_of(8)), -INFINITY, INFINITY, static_cast<float>(2.0 * FLT_MAX / 255), 128},
  };
  for (const Row& r : rows) {
    const QuantParams p = params_from_range(r.spec, *make_layout(r.spec, {1}, 0), {r.lo}, {r.hi});
    ASSERT_EQ(p.scale.size(), 1u);
    EXPECT_EQ(p.scale[0], r.scale) << r.name;
    const bool asymmetric = r.spec.zero_point == ZeroPointType::kInteger;
    EXPECT_EQ(p.zero_point, asymmetric ? std::vector<float>{r.zero} : std::vector<float>{}) << r.name;
  }
}

TEST(Find, ZeroConstantAndEmptyTensors) {
  for (const QuantSpec& base : {narrow(spec_of(8)), asym(spec_of(4)), po2(spec_of(8)), unsigned_(spec_of(8))})
    for (const Statistic statistic :
         {Statistic::kAbsMax, Statistic::kMinMax, Statistic::kPercentile, Statistic::kMse}) {
      const QuantSpec spec = with(base, statistic);
      for (const float value : {0.0f, -0.0f, 2.5f, -3.0f, 1e-30f, 3e38f}) {
        const std::vector<float> x(100, value);
        const auto p = find_params(spec, {100}, x.data(), 0);
        ASSERT_TRUE(p);
        EXPECT_TRUE(std::isfinite(p->scale[0]) && p->scale[0] > 0);
        std::vector<float> y(100);
        fake_quantize(*p, p->layout, x.data(), y.data());
        for (const float v : y) EXPECT_TRUE(std::isfinite(v));
        EXPECT_TRUE(value != 0 || y[0] == 0);
      }
      const auto empty = find_params(spec, {0, 3}, nullptr, 0);
      ASSERT_TRUE(empty);
      EXPECT_GT(empty->scale.at(0), 0);
      EXPECT_EQ(measure(*empty, empty->layout, nullptr).error.elements, 0);
    }
}

TEST(Find, NonFiniteValuesAreRefusedWithTheirIndex) {
  for (const Case& c : cases()) {
    std::vector<float> x = sample(size_of(c.shape));
    if (c.shape.size() < 2 || x.empty()) continue;
    for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
      x[x.size() / 2] = bad;
      EXPECT_FALSE(find_params(c.spec, c.shape, x.data(), 0)) << c.name;
    }
  }
  std::vector<float> x(2 * 3 * 4);
  x[17] = INFINITY;
  x[20] = NAN;
  const auto p = find_params(spec_of(8), {2, 3, 4}, x.data(), 0);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().message, "The tensor of shape 2×3×4 holds inf at index [1, 1, 1].");
}

TEST(Find, FixedClipLimits) {
  const std::vector<float> x = sample(1000);
  QuantSpec s = narrow(spec_of(8));
  s.clip_min = -2;
  s.clip_max = 1.5;
  EXPECT_EQ(find_params(s, {1000}, x.data(), 0)->scale[0], 2.0f / 127);
  s.zero_point = ZeroPointType::kInteger;
  s.narrow = false;
  EXPECT_EQ(find_params(s, {1000}, x.data(), 0)->scale[0], 3.5f / 255);
  s.clip_min.reset();  // the other end stays what the statistic says
  const float least = *std::min_element(x.begin(), x.end());
  EXPECT_EQ(find_params(s, {1000}, x.data(), 0)->scale[0], (1.5f - least) / 255);
  s.granularity = Granularity::kChannel;
  EXPECT_FALSE(find_params(s, {10, 100}, x.data(), 0));
  s.granularity = Granularity::kTensor;
  s.clip_max = NAN;
  EXPECT_FALSE(find_params(s, {1000}, x.data(), 0));
  QuantSpec bias = spec_of(32);
  bias.scale_from_accumulator = true;
  EXPECT_FALSE(find_params(bias, {1000}, x.data(), 0));
}

TEST(Find, AxisIsResolved) {
  const std::vector<float> x = sample(60);
  QuantSpec s = spec_of(8, Granularity::kChannel, -1);
  EXPECT_EQ(find_params(s, {3, 4, 5}, x.data(), 0)->spec.axis, 2);
  s.axis.reset();
  EXPECT_EQ(find_params(s, {3, 4, 5}, x.data(), 1)->spec.axis, 1);
}

// Elements of each parameter, by the definition of the layout.
std::vector<std::vector<float>> split(const BlockLayout& l, const std::vector<float>& x) {
  std::vector<std::vector<float>> blocks(static_cast<std::size_t>(l.parameters()));
  for (std::size_t e = 0; e < x.size(); ++e) blocks[parameter_of(l, static_cast<std::int64_t>(e))].push_back(x[e]);
  return blocks;
}

class Statistics : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Layouts, Statistics, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Statistics, AbsMaxAndMinMaxAreThoseOfTheBlocks) {
  const std::vector<float> x = sample(size_of(GetParam().shape));
  for (const Statistic statistic : {Statistic::kAbsMax, Statistic::kMinMax}) {
    const QuantSpec spec = with(GetParam().spec, statistic);
    const auto p = find_params(spec, GetParam().shape, x.data(), 0);
    ASSERT_TRUE(p);
    const auto blocks = split(p->layout, x);
    std::vector<float> lo, hi;
    for (const auto& b : blocks) {
      float least = b.empty() ? 0.0f : b[0], most = least;
      for (const float v : b) least = std::min(least, v), most = std::max(most, v);
      const bool positive = statistic == Statistic::kMinMax && !spec.is_signed;
      lo.push_back(least);
      hi.push_back(spec.zero_point == ZeroPointType::kInteger ? most
                   : positive                                 ? std::max(0.0f, most)
                                                              : std::max(-least, most));
    }
    const QuantParams expected = params_from_range(p->spec, p->layout, lo, hi);
    EXPECT_EQ(p->scale, expected.scale);
    EXPECT_EQ(p->zero_point, expected.zero_point);
  }
}

TEST_P(Statistics, PercentileIsTheOrderStatisticOfTheBlocks) {
  const std::vector<float> x = sample(size_of(GetParam().shape));
  for (const double q : {50.0, 90.0, 99.0, 99.999, 100.0}) {
    const QuantSpec spec = with(GetParam().spec, Statistic::kPercentile, q);
    const auto p = find_params(spec, GetParam().shape, x.data(), 0);
    ASSERT_TRUE(p);
    std::vector<float> lo, hi;
    for (auto b : split(p->layout, x)) {
      if (b.empty()) b = {0.0f};
      const auto n = static_cast<double>(b.size());
      const auto high = static_cast<std::size_t>(std::max(1.0, std::floor(.01 * q * n + .5)));
      const auto low =
          static_cast<std::size_t>(std::max(1.0, std::ceil(.01 * std::round((100 - q) * 1e9) / 1e9 * n)));
      if (spec.zero_point == ZeroPointType::kNone)
        for (float& v : b) v = std::fabs(v);
      std::sort(b.begin(), b.end());
      lo.push_back(b[low - 1]);
      hi.push_back(b[high - 1]);
    }
    const QuantParams expected = params_from_range(p->spec, p->layout, lo, hi);
    EXPECT_EQ(p->scale, expected.scale) << q;
    EXPECT_EQ(p->zero_point, expected.zero_point) << q;
    if (q != 100.0) continue;
    const bool symmetric = spec.zero_point == ZeroPointType::kNone;
    const auto extreme =
        find_params(with(spec, symmetric ? Statistic::kAbsMax : Statistic::kMinMax), GetParam().shape, x.data(), 0);
    EXPECT_EQ(p->scale, extreme->scale);
  }
}

double block_error(const QuantParams& p, std::size_t i, const std::vector<float>& block) {
  const Scalar r(p, i);
  double sum = 0;
  for (const float v : block) {
    const double d = static_cast<double>(v) - r.value(r.code(v));
    sum += d * d;
  }
  return sum;
}

TEST_P(Statistics, MseIsTheBestOfTheGridAndNeverWorseThanTheExtremes) {
  if (size_of(GetParam().shape) > 100000) return;  // the plain search below is slow
  const std::vector<float> x = sample(size_of(GetParam().shape));
  const QuantSpec spec = with(GetParam().spec, Statistic::kMse);
  const auto p = find_params(spec, GetParam().shape, x.data(), 0);
  ASSERT_TRUE(p);
  const auto extreme = find_params(with(spec, Statistic::kAbsMax), GetParam().shape, x.data(), 0);
  const auto blocks = split(p->layout, x);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const double found = block_error(*p, i, blocks[i]);
    ASSERT_LE(found, block_error(*extreme, i, blocks[i]) * (1 + 1e-9));
    if (spec.zero_point != ZeroPointType::kNone) continue;
    float most = 0;
    for (const float v : blocks[i]) most = std::max(most, std::fabs(v));
    double best = block_error(*extreme, i, blocks[i]);
    for (int k = 2; k < 20; ++k) {
      const QuantParams candidate =
          params_from_range(spec, *make_layout(spec_of(8), {1}, 0), {0}, {most * (static_cast<float>(k) / 20)});
      best = std::min(best, block_error(candidate, 0, blocks[i]));
    }
    ASSERT_LE(found, best * (1 + 1e-4) + 1e-30) << i;
  }
}

TEST_P(Statistics, BracketingIsNoWorseThanItsStartAndTheExtremes) {
  if (size_of(GetParam().shape) > 100000) return;
  const std::vector<float> x = sample(size_of(GetParam().shape));
  QuantSpec spec = with(GetParam().spec, Statistic::kMse);
  spec.search = Search::kBracketing;
  const auto p = find_params(spec, GetParam().shape, x.data(), 0);
  ASSERT_TRUE(p);
  const auto extreme = find_params(with(spec, Statistic::kMinMax), GetParam().shape, x.data(), 0);
  const auto blocks = split(p->layout, x);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const double found = block_error(*p, i, blocks[i]);
    if (blocks[i].empty()) continue;
    ASSERT_LE(found, block_error(*extreme, i, blocks[i]) * (1 + 1e-9));
    const auto [least, most] = std::minmax_element(blocks[i].begin(), blocks[i].end());
    const bool symmetric = spec.zero_point == ZeroPointType::kNone;
    const std::pair<float, float> whole = symmetric ? std::pair{0.0f, std::max(std::fabs(*least), std::fabs(*most))}
                                                    : std::pair{std::min(0.0f, *least), std::max(0.0f, *most)};
    for (int k = 1; k < 10; ++k) {
      const float share = static_cast<float>(k) / 10;
      const QuantParams candidate =
          params_from_range(spec, *make_layout(spec_of(8), {1}, 0), {whole.first * share}, {whole.second * share});
      ASSERT_LE(found, block_error(candidate, 0, blocks[i]) * (1 + 1e-4) + 1e-30) << i << " " << k;
    }
  }
}

TEST(Bracketing, FindsTheMinimumThatADenseSearchFinds) {
  const std::vector<float> x = sample(20000);
  float most = 0;
  for (const float v : x) most = std::max(most, std::fabs(v));
  for (const int bits : {2, 3, 4, 6, 8}) {
    QuantSpec spec = with(narrow(spec_of(bits)), Statistic::kMse);
    const auto grid = find_params(spec, {20000}, x.data(), 0);
    spec.search = Search::kBracketing;
    const auto found = find_params(spec, {20000}, x.data(), 0);
    double dense = std::numeric_limits<double>::infinity();
    for (int k = 20; k <= 1000; ++k) {
      const auto candidate = params_from_range(spec, found->layout, {0}, {most * (static_cast<float>(k) / 1000)});
      dense = std::min(dense, block_error(candidate, 0, x));
    }
    EXPECT_LE(block_error(*found, 0, x), dense * 1.002) << bits;
    EXPECT_LE(block_error(*found, 0, x), block_error(*grid, 0, x) * 1.0005) << bits;
  }
}

TEST_P(Statistics, AnyNumberOfThreadsFindsTheSame) {
  const std::vector<float> x = sample(size_of(GetParam().shape));
  for (const Statistic statistic : {Statistic::kMinMax, Statistic::kPercentile, Statistic::kMse}) {
    const QuantSpec spec = with(GetParam().spec, statistic, 99);
    set_kernel_threads(1);
    const auto one = find_params(spec, GetParam().shape, x.data(), 0);
    for (const int threads : {2, 7}) {
      set_kernel_threads(threads);
      const auto many = find_params(spec, GetParam().shape, x.data(), 0);
      EXPECT_EQ(one->scale, many->scale);
      EXPECT_EQ(one->zero_point, many->zero_point);
    }
  }
  set_kernel_threads(0);
}

TEST(Order, EqualsSorting) {
  for (const std::int64_t n : {1, 2, 100, 16384, 16385, 50000}) {
    std::vector<float> x = sample(n, 7), sorted = x;
    for (const bool absolute : {false, true}) {
      sorted = x;
      if (absolute)
        for (float& v : sorted) v = std::fabs(v);
      std::sort(sorted.begin(), sorted.end());
      const std::vector<std::int64_t> ranks = {1, (n + 1) / 2, n, n + 5, -3};
      const auto values = order_statistics(x.data(), n, absolute, ranks, 2);
      for (std::size_t i = 0; i < ranks.size(); ++i)
        EXPECT_EQ(values[i], sorted[static_cast<std::size_t>(std::clamp<std::int64_t>(ranks[i], 1, n) - 1)]);
    }
  }
}

TEST(Order, Ranks) {
  EXPECT_EQ(upper_rank(99.999, 100000), 99999);
  EXPECT_EQ(upper_rank(100, 7), 7);
  EXPECT_EQ(upper_rank(50, 1), 1);
  EXPECT_EQ(lower_rank(99.999, 100000), 1) << "100 - 99.999 is a little more than .001 in binary";
  EXPECT_EQ(lower_rank(99.999, 100001), 2);
  EXPECT_EQ(lower_rank(100, 7), 1);
}

TEST(Facts, SizesAndRanges) {
  const std::vector<float> x = sample(9 * 40);
  const QuantSpec spec = asym(group(4, 1, 32));
  const auto p = find_params(spec, {9, 40}, x.data(), 1);
  const SiteFacts f = measure(*p, p->layout, x.data());
  EXPECT_EQ(f.bytes_float, 1440);
  EXPECT_EQ(f.bytes_quantized, 180 + 18 * (4 + 0.5));
  EXPECT_DOUBLE_EQ(f.bits_per_element, 8 * 261.0 / 360);
  EXPECT_EQ(f.scale_min, *std::min_element(p->scale.begin(), p->scale.end()));
  EXPECT_EQ(f.scale_max, *std::max_element(p->scale.begin(), p->scale.end()));
  EXPECT_EQ(f.zero_point_max, *std::max_element(p->zero_point.begin(), p->zero_point.end()));
  EXPECT_EQ(f.codes_total, 16);
  QuantSpec bias = spec_of(32);
  bias.scale_from_accumulator = true;
  const QuantParams b = *bias_params(bias, 0.1f, {0.1f, 0.2f}, {2}, 0);
  EXPECT_EQ(measure(b, b.layout, x.data()).bytes_quantized, 8) << "the scale is that of input and weight";
}

TEST(BiasParams, ScalesRunAlongTheOutputChannels) {
  struct Case {
    const char* what;
    std::vector<float> weight_scale;
    Shape shape;
    int axis;
    std::vector<float> scale;  // with an input scale of 2; empty: refused
  };
  const std::vector<Case> cases = {
      {"one scale", {3}, {4}, 0, {6}},
      {"one scale, any bias", {3}, {1, 4}, -1, {6}},
      {"per channel", {1, 2, 3}, {3}, 0, {2, 4, 6}},
      {"a row", {1, 2, 3}, {1, 3}, 1, {2, 4, 6}},
      {"a column", {1, 2}, {2, 1}, 0, {2, 4}},
      {"a row per sample", {1, 2}, {5, 2}, 1, {2, 4}},
      {"groups of a transposed convolution", {1, 2}, {6}, 0, {2, 4, 2, 4, 2, 4}},
      {"a product too small", {1e-40f, 1}, {2}, 0, {FLT_MIN, 2}},
      {"not a multiple", {1, 2}, {3}, 0, {}},
      {"one bias for all channels", {1, 2}, {1}, 0, {}},
      {"no axis of channels", {1, 2}, {2}, -1, {}},
      {"a row where columns have scales", {1, 2, 3}, {1, 3}, 0, {}},
  };
  QuantSpec spec = spec_of(32);
  spec.scale_from_accumulator = true;
  for (const Case& c : cases) {
    const auto p = bias_params(spec, 2, c.weight_scale, c.shape, c.axis);
    EXPECT_EQ(static_cast<bool>(p), !c.scale.empty()) << c.what;
    if (!p) {
      EXPECT_EQ(p.error().code, ErrorCode::kUnsupported) << c.what;
      continue;
    }
    EXPECT_EQ(p->scale, c.scale) << c.what;
    const auto layout = rebatch(*p, c.shape);
    ASSERT_TRUE(layout) << c.what << ": " << layout.error().text();
    EXPECT_EQ(layout->elements(), size_of(c.shape)) << c.what;
  }
}

TEST(KernelThreads, TheDefaultHoldsForEveryThreadWithoutANumberOfItsOwn) {
  const auto elsewhere = [](int own) {
    int threads = 0;
    std::thread([&] {
      if (own) set_kernel_threads(own);
      threads = kernel_threads();
    }).join();
    return threads;
  };
  set_default_kernel_threads(3);
  EXPECT_EQ(elsewhere(0), 3);
  EXPECT_EQ(elsewhere(5), 5);
  set_default_kernel_threads(0);
  EXPECT_GE(elsewhere(0), 1);
}

}  // namespace
}  // namespace quanvas::quant::test
