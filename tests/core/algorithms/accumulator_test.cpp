// AXE: GPTQ, GPFQ and Qronos with codes whose sums no input can make too large.
#include <algorithm>
#include <map>

#include "core/algorithms/magr.h"
#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

using Spread = AccumulatorOptions::Spread;
using Codes = std::vector<std::int64_t>;
constexpr FactorOptions kQronos{1e-6, true, false};

struct Range {
  std::int64_t low, high;
};
Range input_codes(int bits, bool is_signed) {
  return is_signed ? Range{-(std::int64_t{1} << (bits - 1)), (std::int64_t{1} << (bits - 1)) - 1} : Range{0, (std::int64_t{1} << bits) - 1};
}

Accumulator accumulator_of(const AccumulatorOptions& options, const ColumnQuantizer& q) {
  auto made = Accumulator::create(options, q);
  EXPECT_TRUE(made) << made.error().text();
  return *made;
}

// The whole numbers of a row, from the values and the scales alone.
Codes codes_of(const Floats& q, const QuantParams& params, std::int64_t m, std::int64_t n) {
  Codes out;
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t c = 0; c < n; ++c) {
      std::size_t p = params.scale.size() == 1 ? 0 : static_cast<std::size_t>(r);
      if (params.layout.granularity == Granularity::kGroup)
        p = static_cast<std::size_t>(r * ((n + params.layout.group - 1) / params.layout.group) + c / params.layout.group);
      const double v = static_cast<double>(q[static_cast<std::size_t>(r * n + c)]) / static_cast<double>(params.scale[p]);
      EXPECT_NEAR(v, std::nearbyint(v), 1e-4);
      out.push_back(static_cast<std::int64_t>(std::nearbyint(v)));
    }
  return out;
}

struct Use {
  std::int64_t beyond = 0;  // tiles that some input overflows
  double most = 0;          // largest share of the accumulator
};
Use use_of(const Codes& w, std::int64_t m, std::int64_t n, const AccumulatorOptions& o) {
  const std::int64_t limit = (std::int64_t{1} << (o.bits - 1)) - 1, tile = o.tile == 0 ? n : o.tile;
  Use out;
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t c = 0; c < n; c += tile) {
      const WorstCase worst = worst_case(std::min(tile, n - c), w.data() + r * n + c, o.low, o.high);
      out.beyond += worst.most > limit || worst.least < -limit;
      out.most = std::max(out.most, static_cast<double>(std::max(worst.most, -worst.least)) / static_cast<double>(limit));
    }
  return out;
}

const std::vector<std::string> kAll = {"gptq", "gpfq", "qronos"};
struct Case {
  Problem p;
  Gram gram;
  Factor factor, spectral;
};
Case case_of(unsigned seed, std::int64_t m, std::int64_t n, double mismatch = 0.1) {
  Case c{make_problem(seed, m, n, 3 * n, 0.8, mismatch), {}, {}, {}};
  c.gram = gram_of(c.p, mismatch > 0);
  c.factor = factor_of(c.gram);
  c.spectral = factor_of(c.gram, kQronos);
  return c;
}
Rounded run(const std::string& id, const Case& c, const ColumnQuantizer& q, const Accumulator* bound, std::int64_t block = 128) {
  RoundingOptions options;
  options.block = block;
  options.accumulator = bound;
  if (id == "gptq") return run_gptq(c.p, c.factor, q, options);
  if (id == "gpfq") return run_gpfq(c.p, c.gram, q, false, options);
  return run_qronos(c.p, c.spectral, q, options);
}

TEST(Accumulator, NoInputOverflowsAnyTile) {
  const Case c = case_of(51, 12, 48);
  std::map<std::string, double> most;
  for (const std::string& id : kAll)
    for (const int weight_bits : {3, 4, 8})
      for (int input_bits = 2; input_bits <= 8; ++input_bits)
        for (const bool is_signed : {false, true})
          for (int bits = 8; bits <= 20; ++bits)
            for (const std::int64_t tile : {0, 16, 25})
              for (const Spread spread : {Spread::kTotal, Spread::kRounding, Spread::kBest}) {
                const Range range = input_codes(input_bits, is_signed);
                const AccumulatorOptions o{bits, tile, spread, range.low, range.high};
                const QuantParams params = params_of(int_spec(weight_bits), c.p.m, c.p.n, c.p.w);
                const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
                const Accumulator bound = accumulator_of(o, q);
                const Rounded r = run(id, c, q, &bound);
                const Use use = use_of(codes_of(r.q, params, c.p.m, c.p.n), c.p.m, c.p.n, o);
                ASSERT_EQ(use.beyond, 0) << id << " W" << weight_bits << " A" << input_bits << is_signed << " P" << bits << " tile " << tile;
                ASSERT_NEAR(r.report.used, use.most, 1e-12);
                // All values are the quantizer's own.
                Floats again(r.q.size());
                q.fake_matrix(r.q.data(), again.data());
                ASSERT_EQ(flips(r.q, again), 0);
                most[id] = std::max(most[id], use.most);
              }
  for (const std::string& id : kAll) EXPECT_GT(most[id], 0.99) << id;  // the bound is used, not only kept
}

// An input with zero point has all codes of its width; weights with one count without it.
TEST(Accumulator, HoldsForZeroPointsPerTensorScalesAndNarrowGrids) {
  const Case c = case_of(52, 20, 48);
  QuantSpec asymmetric = int_spec(4);
  asymmetric.narrow = asymmetric.is_signed = false;
  asymmetric.zero_point = ZeroPointType::kInteger;
  QuantSpec whole = int_spec(5, Granularity::kTensor), half_up = int_spec(4), two = int_spec(2), powers = int_spec(4);
  half_up.rounding = Rounding::kHalfUp;
  powers.scale = ScaleType::kPowerOfTwo;
  for (const std::string& id : kAll)
    for (const QuantSpec& spec : {asymmetric, whole, half_up, two, powers})
      for (const Range range : {Range{0, 255}, Range{-128, 127}, Range{-100, 155}, Range{-1, 0}, Range{0, 1}})
        for (const int bits : {2, 5, 9, 12, 15}) {
          const AccumulatorOptions o{bits, 12, Spread::kTotal, range.low, range.high};
          const QuantParams params = params_of(spec, c.p.m, c.p.n, c.p.w);
          const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
          const Accumulator bound = accumulator_of(o, q);
          const Rounded r = run(id, c, q, &bound);
          EXPECT_EQ(use_of(codes_of(r.q, params, c.p.m, c.p.n), c.p.m, c.p.n, o).beyond, 0) << id << bits;
          Floats again(r.q.size());
          q.fake_matrix(r.q.data(), again.data());
          EXPECT_EQ(flips(r.q, again), 0);
        }
}

// Each scale of a group is its own tile.
TEST(Accumulator, GroupsAreTiles) {
  const Case c = case_of(53, 16, 64);
  QuantSpec spec = int_spec(4, Granularity::kGroup);
  spec.group_size = 16;
  const QuantParams params = params_of(spec, c.p.m, c.p.n, c.p.w);
  const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
  for (const std::int64_t tile : {8, 16}) {
    const AccumulatorOptions o{11, tile, Spread::kTotal, 0, 255};
    const Accumulator bound = accumulator_of(o, q);
    for (const std::string& id : kAll)
      EXPECT_EQ(use_of(codes_of(run(id, c, q, &bound).q, params, c.p.m, c.p.n), c.p.m, c.p.n, o).beyond, 0);
  }
  for (const std::int64_t tile : {0, 24, 32}) {
    const auto refused = Accumulator::create({11, tile, Spread::kTotal, 0, 255}, q);
    ASSERT_FALSE(refused) << tile;
    EXPECT_NE(refused.error().text().find("scales of their own"), std::string::npos);
  }
}

// The bound is not kept by itself: without it codes go beyond.
TEST(Accumulator, CodesWithoutABoundOverflow) {
  const Case c = case_of(54, 40, 128);
  const QuantParams params = params_of(int_spec(4), c.p.m, c.p.n, c.p.w);
  const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
  const AccumulatorOptions o{14, 0, Spread::kTotal, 0, 255};
  EXPECT_GT(use_of(codes_of(nearest(c.p, q), params, c.p.m, c.p.n), c.p.m, c.p.n, o).beyond, 0);
  for (const std::string& id : kAll)
    EXPECT_GT(use_of(codes_of(run(id, c, q, nullptr).q, params, c.p.m, c.p.n), c.p.m, c.p.n, o).beyond, 0) << id;
  // Nor does rounding to nearest what the levels leave: that is what the sums are counted for.
  const Accumulator bound = accumulator_of(o, q);
  const Floats levels = *bound.levels(c.p.m, c.p.n, c.p.w.data());
  Problem softened = c.p;
  for (std::int64_t i = 0; i < c.p.m * c.p.n; ++i) {
    float& w = softened.w[static_cast<std::size_t>(i)];
    const float level = levels[static_cast<std::size_t>(i / c.p.n)];
    w = std::copysign(std::max(std::fabs(w) - level, 0.0f), w);
  }
  EXPECT_GT(use_of(codes_of(nearest(softened, q), params, c.p.m, c.p.n), c.p.m, c.p.n, o).beyond, 0);
}

TEST(Accumulator, WideOnesChangeNothing) {
  const Case c = case_of(55, 30, 128);
  const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
  for (const Range range : {Range{0, 15}, Range{-8, 7}})
    for (const Spread spread : {Spread::kTotal, Spread::kRounding})
      for (const std::string& id : kAll) {
        // The paper's bound of the data type, ceil(log2(2^a + 1) + 1), a = log2 K + N + M - 1 - signed.
        const double a = std::log2(128.0) + 4 + 4 - 1 - (range.low < 0 ? 1 : 0);
        const int wide = static_cast<int>(std::ceil(std::log2(std::exp2(a) + 1) + 1));
        for (const int bits : {wide, wide + 3, 32}) {
          const Accumulator bound = accumulator_of({bits, 0, spread, range.low, range.high}, q);
          EXPECT_TRUE(bound.never_binds()) << bits;
          const Rounded with = run(id, c, q, &bound), without = run(id, c, q, nullptr);
          EXPECT_EQ(flips(with.q, without.q), 0) << id << bits;
          EXPECT_EQ(with.report.before, without.report.before);
          EXPECT_NEAR(with.report.after, without.report.after, 1e-4 * without.report.after);
          EXPECT_EQ(with.report.bounded, 0);
          EXPECT_GT(with.report.used, 0);
          EXPECT_LE(with.report.used, 1);
        }
        EXPECT_FALSE(accumulator_of({wide - 2, 0, spread, range.low, range.high}, q).never_binds());
      }
}

// Levels that are 0 and sums that never reach the bound: the codes are those of the plain algorithm, too.
TEST(Accumulator, BindsOnlyWhereItMust) {
  Case c = case_of(56, 12, 32, 0);
  const QuantParams params = params_of(int_spec(4), c.p.m, c.p.n, c.p.w);
  const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
  AccumulatorOptions o{13, 0, Spread::kTotal, 0, 15};
  const Accumulator bound = accumulator_of(o, q);
  ASSERT_TRUE(bound.never_binds());
  const Rounded plain = run("gptq", c, q, nullptr);
  const Codes codes = codes_of(plain.q, params, c.p.m, c.p.n);
  for (o.bits = 12; o.bits > 8; --o.bits) {
    const Accumulator narrow = accumulator_of(o, q);
    const Floats levels = *narrow.levels(c.p.m, c.p.n, c.p.w.data());
    const Rounded r = run("gptq", c, q, &narrow);
    for (std::int64_t row = 0; row < c.p.m; ++row) {
      AccumulatorOptions one = o;
      const Codes of_row(codes.begin() + row * c.p.n, codes.begin() + (row + 1) * c.p.n);
      if (levels[static_cast<std::size_t>(row)] > 0 || use_of(of_row, 1, c.p.n, one).beyond > 0) continue;
      EXPECT_TRUE(std::equal(r.q.begin() + row * c.p.n, r.q.begin() + (row + 1) * c.p.n, plain.q.begin() + row * c.p.n)) << row;
    }
  }
}

// Arithmetic that wraps around at P bits, as an accumulator's does, gives what 64 bits give, at every step; and the sum of
// tiles in the outer one.
TEST(Accumulator, WrappingArithmeticIsExact) {
  const Case c = case_of(57, 16, 80);
  const QuantParams params = params_of(int_spec(5), c.p.m, c.p.n, c.p.w);
  const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
  std::mt19937_64 random(1);
  const auto wrap = [](std::int64_t v, int bits) {
    const auto up = static_cast<std::uint64_t>(v) << (64 - bits);
    return static_cast<std::int64_t>(up) >> (64 - bits);
  };
  for (const std::string& id : kAll)
    for (const Range range : {Range{0, 255}, Range{-128, 127}, Range{-8, 7}})
      for (const int bits : {10, 13, 16}) {
        const AccumulatorOptions o{bits, 16, Spread::kTotal, range.low, range.high};
        const Accumulator bound = accumulator_of(o, q);
        const Codes w = codes_of(run(id, c, q, &bound).q, params, c.p.m, c.p.n);
        const int outer = bound.outer_bits();
        EXPECT_EQ(outer, bits + 3);  // 5 tiles
        EXPECT_LT(bound.tiles() * ((std::int64_t{1} << (bits - 1)) - 1), std::int64_t{1} << (outer - 1));
        for (int trial = 0; trial < 200; ++trial)
          for (std::int64_t r = 0; r < c.p.m; ++r) {
            std::int64_t exact = 0, wrapped = 0;
            for (std::int64_t begin = 0; begin < c.p.n; begin += 16) {
              std::int64_t tile_exact = 0, tile_wrapped = 0;
              for (std::int64_t i = begin; i < begin + 16; ++i) {
                // Half of the trials at the ends of the range, as they are worst for this row.
                const std::int64_t weight = w[static_cast<std::size_t>(r * c.p.n + i)];
                const std::int64_t x = trial % 4 == 0   ? (weight > 0 ? range.high : range.low)
                                       : trial % 4 == 1 ? (weight > 0 ? range.low : range.high)
                                                        : range.low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(range.high - range.low + 1));
                tile_exact += weight * x;
                tile_wrapped = wrap(tile_wrapped + wrap(weight * x, bits), bits);
                ASSERT_EQ(tile_wrapped, tile_exact);
              }
              exact += tile_exact;
              wrapped = wrap(wrapped + tile_wrapped, outer);
            }
            ASSERT_EQ(wrapped, exact);
          }
      }
}

// Where most codes are within the bound; where it takes nearly all, there is nothing left that could make up for it.
TEST(Accumulator, MakingUpForAllIsBetterThanForRoundingAlone) {
  std::map<std::string, double> total, rounding, plain;
  for (unsigned seed = 58; seed < 62; ++seed) {
    const Case c = case_of(seed, 32, 128, 0);
    const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
    for (const std::string& id : kAll) {
      const Accumulator a = accumulator_of({16, 0, Spread::kTotal, 0, 255}, q), b = accumulator_of({16, 0, Spread::kRounding, 0, 255}, q);
      const Rounded all = run(id, c, q, &a), some = run(id, c, q, &b);
      total[id] += all.report.after, rounding[id] += some.report.after, plain[id] += run(id, c, q, nullptr).report.after;
      EXPECT_NEAR(all.report.after, output_error(c.p, all.q), 1e-3 * all.report.after);
      EXPECT_NEAR(some.report.after, output_error(c.p, some.q), 1e-3 * some.report.after);
      EXPECT_GT(all.report.bounded, 0);
    }
  }
  for (const std::string& id : kAll) {
    EXPECT_LT(total[id], rounding[id]) << id;
    EXPECT_LT(plain[id], total[id]) << id;
  }
}

TEST(Accumulator, TheBestOfBothIsItInEachRow) {
  for (const double mismatch : {0.0, 0.1}) {
    const Case c = case_of(66, 32, 96, mismatch);
    const Moments moments = moments_for(c.gram);
    const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
    for (const std::string& id : kAll) {
      std::vector<double> rows[3];
      for (const Spread spread : {Spread::kTotal, Spread::kRounding, Spread::kBest}) {
        const Accumulator bound = accumulator_of({15, 0, spread, 0, 255}, q);
        const Rounded r = run(id, c, q, &bound);
        EXPECT_NEAR(r.report.after, output_error(c.p, r.q), 1e-3 * r.report.after);
        rows[static_cast<std::size_t>(spread)] = *row_objectives(c.p.m, c.p.n, c.p.w.data(), r.q.data(), moments);
      }
      for (std::size_t r = 0; r < rows[0].size(); ++r) EXPECT_EQ(rows[2][r], std::min(rows[0][r], rows[1][r])) << id;
    }
  }
}

// Coordinate descent from codes within a bound lowers the error and stays within it; it refuses codes that are beyond.
TEST(Accumulator, PolishStaysWithinTheBound) {
  for (const double mismatch : {0.0, 0.1})
    for (const Range range : {Range{0, 255}, Range{-128, 127}})
      for (const int bits : {12, 15, 17})
        for (const std::int64_t tile : {0, 20}) {
          const Case c = case_of(67, 40, 96, mismatch);
          const Moments moments = moments_for(c.gram);
          const QuantParams params = params_of(int_spec(4), c.p.m, c.p.n, c.p.w);
          const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
          const AccumulatorOptions o{bits, tile, Spread::kBest, range.low, range.high};
          const Accumulator bound = accumulator_of(o, q);
          Floats w = run("gptq", c, q, &bound).q;
          const double start = output_error(c.p, w);
          const auto done = polish(c.p.m, c.p.n, c.p.w.data(), w.data(), moments, q, {20, {}, &bound});
          ASSERT_TRUE(done) << done.error().text();
          const Use use = use_of(codes_of(w, params, c.p.m, c.p.n), c.p.m, c.p.n, o);
          EXPECT_EQ(use.beyond, 0);
          EXPECT_NEAR(done->used, use.most, 1e-12);
          EXPECT_LT(output_error(c.p, w), start);
          Floats again(w.size());
          q.fake_matrix(w.data(), again.data());
          EXPECT_EQ(flips(w, again), 0);
          if (bits > 12) continue;
          Floats beyond = nearest(c.p, q);
          const auto refused = polish(c.p.m, c.p.n, c.p.w.data(), beyond.data(), moments, q, {3, {}, &bound});
          ASSERT_FALSE(refused);
          EXPECT_NE(refused.error().text().find("overflow the accumulator of 12 bits already"), std::string::npos);
        }
  // A bound that never binds: the same as without.
  const Case c = case_of(68, 20, 40, 0);
  const Moments moments = moments_for(c.gram);
  const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
  const Accumulator wide = accumulator_of({32, 0, Spread::kTotal, 0, 255}, q);
  Floats a = nearest(c.p, q), b = a;
  ASSERT_TRUE(polish(c.p.m, c.p.n, c.p.w.data(), a.data(), moments, q, {20, {}, &wide}));
  ASSERT_TRUE(polish(c.p.m, c.p.n, c.p.w.data(), b.data(), moments, q, {20, {}}));
  EXPECT_EQ(a, b);
}

TEST(Accumulator, LevelsAreThoseOfTheProjection) {
  const Case c = case_of(62, 10, 60);
  const QuantParams params = params_of(int_spec(4), c.p.m, c.p.n, c.p.w);
  const ColumnQuantizer q = quantizer_of(params, c.p.m, c.p.n);
  const AccumulatorOptions o{11, 25, Spread::kTotal, -128, 127};
  const Accumulator bound = accumulator_of(o, q);
  const Floats levels = *bound.levels(c.p.m, c.p.n, c.p.w.data());
  const double radius = (std::exp2(11) - 2) / 255;
  int positive = 0;
  for (std::int64_t t = 0; t < 3; ++t)
    for (std::int64_t r = 0; r < c.p.m; ++r) {
      const std::int64_t begin = 25 * t, count = std::min<std::int64_t>(25, 60 - begin);
      const double s = static_cast<double>(params.scale[static_cast<std::size_t>(r)]);
      Doubles v;
      double mean = 0;
      for (std::int64_t i = 0; i < count; ++i) v.push_back(static_cast<double>(c.p.w[static_cast<std::size_t>(r * 60 + begin + i)]) / s);
      for (const double x : v) mean += x / static_cast<double>(count);
      for (double& x : v) x = std::abs(x - mean);
      double all = 0, left = 0;
      const double level = static_cast<double>(levels[static_cast<std::size_t>(t * c.p.m + r)]) / s;
      for (const double x : v) all += x, left += std::max(0.0, x - level);
      positive += all > radius;
      EXPECT_NEAR(left, std::min(all, radius), 1e-4 * radius);
      EXPECT_EQ(level > 0, all > radius);
    }
  EXPECT_GT(positive, 0);
}

TEST(Accumulator, KeepsItsBitsForAllThreadsAndBlocks) {
  const Case c = case_of(63, 600, 96);
  const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
  const Accumulator bound = accumulator_of({14, 32, Spread::kTotal, 0, 255}, q);
  for (const std::string& id : kAll) {
    expect_same_for_all_threads([&] { return run(id, c, q, &bound).q; });
    EXPECT_LE(flips(run(id, c, q, &bound).q, run(id, c, q, &bound, 16).q), c.p.m * c.p.n / 1000) << id;
  }
}

TEST(Accumulator, RefusesWhatItCannotBound) {
  const Case c = case_of(64, 4, 8);
  const ColumnQuantizer q = quantizer_of(int_spec(4), c.p);
  const AccumulatorOptions bad[] = {{1, 0, Spread::kTotal, 0, 255}, {33, 0, Spread::kTotal, 0, 255}, {16, -1, Spread::kTotal, 0, 255},
                                    {16, 0, Spread::kTotal, 1, 255}, {16, 0, Spread::kTotal, -5, -1}, {16, 0, Spread::kTotal, 0, 0},
                                    {16, 0, Spread::kTotal, 0, std::int64_t{1} << 40}};
  for (const AccumulatorOptions& o : bad) {
    const auto made = Accumulator::create(o, q);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  }
  QuantSpec minifloat;
  minifloat.format = "float";
  const auto none = Accumulator::create({16, 0, Spread::kTotal, 0, 255}, quantizer_of(minifloat, c.p));
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text().find("no whole codes"), std::string::npos);
  const auto wide = Accumulator::create({16, 0, Spread::kTotal, 0, 255}, quantizer_of(int_spec(24), c.p));
  ASSERT_FALSE(wide);
  EXPECT_NE(wide.error().text().find("22 bits"), std::string::npos);
  const Accumulator other = accumulator_of({16, 0, Spread::kTotal, 0, 255}, q);
  const Case larger = case_of(65, 4, 9);
  EXPECT_FALSE(other.levels(4, 9, larger.p.w.data()));
}

}  // namespace
}  // namespace quanvas::algorithms::test
