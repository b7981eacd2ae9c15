// Training of quantizers with two scales: gradients against scalar formulas and finite differences, and the bound
// of an accumulator, which no step may break.
#include "core/quant/weight_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/quant/decouple.h"
#include "core/quant/gradient.h"
#include "core/quant/grid.h"
#include "core/recipe/recipe.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant {
namespace {

using test::parameter_of;
using test::sample;

struct Row {
  const char* what;
  Decoupling norm;
  Granularity granularity;
  int bits;
  std::optional<int> accumulator;
  bool centered;
  float shrink;  // of the scale: below 1 some values are clipped
  float longer;  // of the lengths, in powers of two
};
constexpr Row kRows[] = {
    {"l2", Decoupling::kL2, Granularity::kChannel, 4, {}, false, 0.5f, 0},
    {"l2, longer", Decoupling::kL2, Granularity::kChannel, 4, {}, false, 1, 0.7f},
    {"l1, tensor", Decoupling::kL1, Granularity::kTensor, 3, {}, false, 0.5f, -0.4f},
    {"inf", Decoupling::kInf, Granularity::kChannel, 4, {}, false, 0.5f, 0.3f},
    {"l2, groups", Decoupling::kL2, Granularity::kGroup, 4, {}, false, 0.6f, 0.2f},
    {"A2Q, bound", Decoupling::kL1, Granularity::kChannel, 8, 14, false, 1, 3},
    {"A2Q, free", Decoupling::kL1, Granularity::kChannel, 4, 20, false, 0.5f, 0.2f},
    {"A2Q+, bound", Decoupling::kL1, Granularity::kChannel, 8, 14, true, 1, 3},
    {"A2Q+, free", Decoupling::kL1, Granularity::kChannel, 4, 20, true, 0.5f, 0.2f},
};
const Shape kShape = {3, 5, 7};
constexpr int kAxis = 1;

QuantSpec spec_of(const Row& row) {
  QuantSpec s;
  s.bits = row.bits;
  s.narrow = true;
  s.granularity = row.granularity;
  s.axis = kAxis;
  s.group_size = 2;
  s.decoupled = row.norm;
  s.accumulator_bits = row.accumulator;
  s.zero_centered = row.centered;
  s.source = ScaleSource::kLearned;
  if (row.accumulator) s.rounding = Rounding::kTowardZero;
  return s;
}

struct Problem {
  QuantParams params;
  std::vector<float> x, dy, lengths;
};

Problem problem(const Row& row) {
  Problem p;
  p.x = sample(105, 3);
  for (float& v : p.x) v = v == 0 ? 0.01f : v;  // a group of zeros has no direction
  p.dy = sample(105, 8);
  QuantSpec s = spec_of(row);
  EXPECT_EQ(check(s, SiteKind::kWeight), "") << row.what;
  p.params = *find_params(s, kShape, p.x.data(), kAxis);
  p.lengths = present_lengths(p.params, p.params.layout, p.x.data());
  for (float& t : p.lengths) t += row.longer;
  for (float& v : p.params.scale) v *= row.shrink;
  set_lengths(p.params, p.params.layout, p.x.data(), p.lengths);
  return p;
}

// Everything of one parameter by the definition, in double.
struct Definition {
  const Problem& p;
  std::size_t k;
  std::vector<std::size_t> own;
  Definition(const Problem& problem, std::size_t parameter) : p(problem), k(parameter) {
    for (std::size_t i = 0; i < p.x.size(); ++i)
      if (parameter_of(p.params.layout, static_cast<std::int64_t>(i)) == k) own.push_back(i);
  }
  double mean(const std::vector<double>& x) const {
    double sum = 0;
    for (const std::size_t i : own) sum += x[i];
    return p.params.spec.zero_centered ? sum / static_cast<double>(own.size()) : 0;
  }
  double norm(const std::vector<double>& x) const {
    const double c = mean(x);
    double sum = 0, most = 0;
    for (const std::size_t i : own) {
      const double a = std::fabs(x[i] - c);
      sum += p.params.spec.decoupled == Decoupling::kL2 ? a * a : a;
      most = std::max(most, a);
    }
    return p.params.spec.decoupled == Decoupling::kL1   ? sum
           : p.params.spec.decoupled == Decoupling::kL2 ? std::sqrt(sum)
                                                        : most;
  }
  double length(double s, double t) const {
    const double g = std::exp2(t);
    return p.params.spec.accumulator_bits ? std::min(g, s * code_norm_bound(p.params.spec)) : g;
  }
  double steps(std::size_t i, const std::vector<double>& x, double s, double t) const {
    return (x[i] - mean(x)) * length(s, t) / (s * norm(x));
  }
};

// The loss dy . x~ where what rounding adds and who is clipped are held as they are.
struct Surrogate {
  Definition d;
  std::vector<double> x, residue;
  std::vector<int> side;  // -1, 0, 1
  double s, t;
  Surrogate(const Problem& p, std::size_t k)
      : d(p, k),
        x(p.x.begin(), p.x.end()),
        residue(x.size()),
        side(x.size()),
        s(p.params.scale[k]),
        t(p.lengths[k]) {
    const Rounding rounding = p.params.spec.rounding;
    for (const std::size_t i : d.own) {
      const double v = d.steps(i, x, s, t), q = round_to_whole(rounding, v, 0);
      residue[i] = q - v;
      side[i] = q < static_cast<double>(p.params.lo) ? -1 : q > static_cast<double>(p.params.hi) ? 1 : 0;
    }
  }
  double value(std::size_t i, const std::vector<double>& at, double scale, double exponent, bool passes) const {
    if (side[i] == 0 || passes) return scale * (d.steps(i, at, scale, exponent) + residue[i]);
    return scale * static_cast<double>(side[i] < 0 ? d.p.params.lo : d.p.params.hi);
  }
  double loss(const std::vector<double>& at, double scale, double exponent, bool passes = false) const {
    double sum = 0;
    for (const std::size_t i : d.own) sum += static_cast<double>(d.p.dy[i]) * value(i, at, scale, exponent, passes);
    return sum;
  }
};

struct Gradients {
  std::vector<float> dx, scale, length;
};
Gradients gradients(const Problem& p, bool pass) {
  Gradients g{std::vector<float>(p.x.size()), std::vector<float>(p.params.scale.size()),
              std::vector<float>(p.params.scale.size())};
  decoupled_backward(p.params, p.params.layout, p.lengths, p.x.data(), p.dy.data(), g.dx.data(), g.scale.data(),
                     g.length.data(), pass);
  return g;
}

void expect_near(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 2e-3 * std::max(1.0, std::fabs(want))) << what;
}

TEST(WeightNorm, GradientsAgreeWithFiniteDifferences) {
  constexpr double kStep = 1e-5;
  for (const Row& row : kRows) {
    const Problem p = problem(row);
    for (const bool pass : {false, true}) {
      const Gradients got = gradients(p, pass);
      for (std::size_t k = 0; k < p.params.scale.size(); ++k) {
        const Surrogate f(p, k);
        const std::string what =
            std::string(row.what) + (pass ? ", passes" : "") + ", parameter " + std::to_string(k);
        if (!pass) {
          expect_near(
              got.scale[k],
              (f.loss(f.x, f.s * (1 + kStep), f.t) - f.loss(f.x, f.s * (1 - kStep), f.t)) / (2 * kStep * f.s),
              what + ": s");
          expect_near(got.length[k], (f.loss(f.x, f.s, f.t + kStep) - f.loss(f.x, f.s, f.t - kStep)) / (2 * kStep),
                      what + ": t");
        }
        for (const std::size_t i : f.d.own) {
          std::vector<double> up = f.x, down = f.x;
          up[i] += kStep;
          down[i] -= kStep;
          expect_near(got.dx[i], (f.loss(up, f.s, f.t, pass) - f.loss(down, f.s, f.t, pass)) / (2 * kStep),
                      what + ": x");
        }
      }
    }
  }
}

// Term by term, as the header has them; and that the rows mean what they say.
TEST(WeightNorm, ScaleAndLengthAreTheirFormulas) {
  for (const Row& row : kRows) {
    const Problem p = problem(row);
    const Gradients got = gradients(p, true);
    std::size_t clipped = 0, bound = 0;
    for (std::size_t k = 0; k < p.params.scale.size(); ++k) {
      const Surrogate f(p, k);
      const double T = code_norm_bound(p.params.spec), g = f.d.length(f.s, f.t), N = f.d.norm(f.x),
                   c = f.d.mean(f.x);
      const bool active = p.params.spec.accumulator_bits && std::exp2(f.t) > f.s * T;
      bound += active;
      double ds = 0, dg = 0;
      for (const std::size_t i : f.d.own) {
        const double dy = p.dy[i];
        clipped += f.side[i] != 0;
        ds += dy * (f.side[i] == 0 ? f.residue[i] : static_cast<double>(f.side[i] < 0 ? p.params.lo : p.params.hi));
        dg += f.side[i] == 0 ? dy * (f.x[i] - c) / N : 0;
      }
      expect_near(got.scale[k], ds + (active ? dg * T : 0), row.what);
      expect_near(got.length[k], active ? 0 : dg * g * std::log(2.0), row.what);
    }
    EXPECT_EQ(clipped > 0, row.shrink < 1 || (row.longer > 0 && !row.accumulator)) << row.what;
    EXPECT_EQ(bound, row.longer == 3 ? p.params.scale.size() : 0) << row.what;
  }
}

// Only the direction of x counts: a gradient along it is orthogonal (Salimans and Kingma 2016, section 2.1).
TEST(WeightNorm, TheGradientIsOrthogonalToTheWeight) {
  for (const Row& row : kRows) {
    if (row.centered) continue;
    const Problem p = problem(row);
    const Gradients got = gradients(p, true);
    for (std::size_t k = 0; k < p.params.scale.size(); ++k) {
      double dot = 0, size = 0;
      for (const std::size_t i : Definition(p, k).own) {
        dot += static_cast<double>(got.dx[i]) * p.x[i];
        size += std::fabs(static_cast<double>(got.dx[i]) * p.x[i]);
      }
      EXPECT_LT(std::fabs(dot), 1e-5 * size + 1e-12) << row.what;
    }
  }
}

TEST(WeightNorm, LearningStartsFromTheQuantizerAsItIs) {
  for (const Row& row : kRows) {
    const std::vector<float> x = sample(105, 3);
    QuantParams found = *find_params(spec_of(row), kShape, x.data(), kAxis);
    const std::vector<float> lengths = present_lengths(found, found.layout, x.data());
    QuantParams again = found;
    set_lengths(again, again.layout, x.data(), lengths);
    for (std::size_t k = 0; k < found.scale.size(); ++k) {
      EXPECT_NEAR(again.code_scale[k] / found.code_scale[k], 1, 1e-5) << row.what;
      if (found.spec.accumulator_bits) {
        EXPECT_LE(std::exp2(lengths[k]), found.scale[k] * code_norm_bound(found.spec) * 1.0001) << row.what;
      }
    }
  }
}

TEST(WeightNorm, RowsOfZerosStayZeroAndFinite) {
  for (const Row& row : kRows) {
    std::vector<float> x(105, 0.0f), dy = sample(105, 8), dx(105);
    QuantParams p = *find_params(spec_of(row), kShape, x.data(), kAxis);
    const std::vector<float> lengths = present_lengths(p, p.layout, x.data());
    set_lengths(p, p.layout, x.data(), lengths);
    std::vector<float> ds(p.scale.size()), dt(p.scale.size()), y(105);
    decoupled_backward(p, p.layout, lengths, x.data(), dy.data(), dx.data(), ds.data(), dt.data(), true);
    fake_quantize(p, p.layout, x.data(), y.data());
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(y[i] == 0 && std::isfinite(dx[i])) << row.what;
    for (std::size_t k = 0; k < ds.size(); ++k)
      EXPECT_TRUE(std::isfinite(ds[k]) && std::isfinite(dt[k])) << row.what;
  }
}

// Whatever the lengths and the weights become: the worst input there is does not overflow the accumulator.
TEST(WeightNorm, NoStepBreaksTheBoundOfTheAccumulator) {
  const Shape shape = {6, 90};
  for (const bool centered : {false, true})
    for (const bool signed_input : {false, true})
      for (const int accumulator : {12, 16, 20}) {
        QuantSpec s = spec_of(kRows[5]);
        s.axis = 0;
        s.accumulator_bits = accumulator;
        s.accumulator_input_signed = signed_input;
        s.zero_centered = centered;
        std::vector<float> x = sample(540, 11);
        QuantParams p = *find_params(s, shape, x.data(), 0);
        std::vector<float> lengths = present_lengths(p, p.layout, x.data());
        for (int step = 0; step < 40; ++step) {
          const std::vector<float> change = sample(540, static_cast<unsigned>(100 + step));
          for (std::size_t i = 0; i < x.size(); ++i) x[i] += 0.05f * change[i];
          for (std::size_t k = 0; k < lengths.size(); ++k) {
            lengths[k] += 0.4f * change[k];
            p.scale[k] *= std::exp2(0.2f * change[k + 6]);
          }
          set_lengths(p, p.layout, x.data(), lengths);
          std::vector<std::int32_t> codes(x.size());
          quantize_codes(p, p.layout, x.data(), codes.data());
          const std::int64_t low = signed_input ? -128 : 0, high = signed_input ? 127 : 255;
          const std::int64_t most = (std::int64_t{1} << (accumulator - 1)) - 1;
          for (std::size_t k = 0; k < 6; ++k) {
            std::int64_t largest = 0, least = 0;
            for (std::size_t i = 0; i < 90; ++i) {
              const std::int64_t q = codes[k * 90 + i];
              largest += std::max(q * low, q * high);
              least += std::min(q * low, q * high);
            }
            ASSERT_LE(largest, most) << accumulator << " bits, step " << step;
            ASSERT_GE(least, -most) << accumulator << " bits, step " << step;
          }
        }
      }
}

TEST(WeightNorm, ThePenaltyIsWhatIsAboveTheBound) {
  QuantParams p;
  p.spec = spec_of(kRows[5]);
  p.scale = {0.5f, 2};
  const double T = code_norm_bound(p.spec);
  const auto bound = [&](std::size_t k) { return std::log2(p.scale[k] * T); };
  const std::vector<float> lengths = {static_cast<float>(bound(0) + 1.5), static_cast<float>(bound(1) - 1)};
  std::vector<float> ds(2), dt(2);
  EXPECT_NEAR(length_penalty(p, lengths, 0.1, ds.data(), dt.data()), 1.5, 1e-5);
  EXPECT_FLOAT_EQ(dt[0], 0.1f);
  EXPECT_FLOAT_EQ(ds[0], static_cast<float>(-0.1 / (0.5 * std::log(2.0))));
  EXPECT_EQ(dt[1], 0);
  EXPECT_EQ(ds[1], 0);
  p.spec.accumulator_bits.reset();
  EXPECT_EQ(length_penalty(p, lengths, 0.1, ds.data(), dt.data()), 0);
}

// A width that is learned beside: what is clipped is said by the codes' own scale.
TEST(WeightNorm, WidthGradientsLookAtTheCodes) {
  Problem p = problem(kRows[0]);
  double want = 0;
  for (std::size_t k = 0; k < p.params.scale.size(); ++k) {
    const Surrogate f(p, k);
    for (const std::size_t i : f.d.own)
      want += std::fabs(f.side[i]) * p.dy[i] * f.s * f.side[i] * std::log(2.0) * std::exp2(p.params.spec.bits - 1);
  }
  std::vector<float> zero;
  EXPECT_NEAR(width_gradient(p.params, p.params.layout, p.x.data(), p.dy.data()), want, 1e-3 * std::fabs(want));
}

}  // namespace
}  // namespace quanvas::quant
