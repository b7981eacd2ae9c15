// Shrinking of weights' ranges on the layer's output error.
#include "core/algorithms/clip_search.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

MatrixView whole(const Problem& p) {
  return {p.m, p.n, 0, p.n, 1};
}

QuantSpec group_spec(int bits, int size) {
  QuantSpec spec = int_spec(bits, Granularity::kGroup);
  spec.group_size = size;
  return spec;
}

std::vector<std::pair<std::string, QuantSpec>> formats() {
  QuantSpec asymmetric = int_spec(3), offset = int_spec(3), minifloat = int_spec(4), nf4 = int_spec(4),
            signed_max = int_spec(3), zero_group = group_spec(3, 16);
  for (QuantSpec* s : {&asymmetric, &offset, &zero_group}) s->narrow = s->is_signed = false;
  asymmetric.zero_point = zero_group.zero_point = ZeroPointType::kInteger;
  offset.zero_point = ZeroPointType::kOffset;
  minifloat.format = "float";
  minifloat.exponent_bits = 2, minifloat.mantissa_bits = 1;
  minifloat.specials = FloatSpecials::kNone;
  nf4.format = codebooks().front().id;
  signed_max.narrow = false;
  signed_max.statistic = Statistic::kSignedMax;
  return {{"int3", int_spec(3)},
          {"int3 per tensor", int_spec(3, Granularity::kTensor)},
          {"groups", group_spec(3, 12)},
          {"uint3", asymmetric},
          {"uint3 in groups", zero_group},
          {"offset", offset},
          {"e2m1", minifloat},
          {nf4.format, nf4},
          {"negative scales", signed_max}};
}

// tr(D H D') of each row in float64 from the samples themselves.
Doubles row_errors(const Problem& p, const QuantParams& params) {
  const ColumnQuantizer q = quantizer_of(params, p.m, p.n);
  const Floats rounded = nearest(p, q);
  Doubles out(static_cast<std::size_t>(p.m));
  for (std::int64_t r = 0; r < p.m; ++r)
    for (std::int64_t c = 0; c < p.columns; ++c) {
      double y = 0;
      for (std::int64_t i = 0; i < p.n; ++i) {
        const auto at = static_cast<std::size_t>(r * p.n + i);
        y += (static_cast<double>(rounded[at]) - static_cast<double>(p.w[at])) *
             static_cast<double>(p.xt[static_cast<std::size_t>(i * p.columns + c)]);
      }
      out[static_cast<std::size_t>(r)] += y * y;
    }
  return out;
}
double sum_of(const Doubles& v) {
  double s = 0;
  for (const double x : v) s += x;
  return s;
}

struct Searched {
  QuantParams params;
  ClipReport report;
};
Searched search(const Problem& p, const QuantParams& start, const ClipOptions& options = {}) {
  Searched out{start, {}};
  const Moments moments = moments_for(gram_of(p));
  const auto done = search_clip({{whole(p), p.w.data(), &moments}}, out.params, options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) out.report = *done;
  return out;
}

TEST(ClipSearch, NoRowGetsWorseAndTheReportIsTheErrorOfTheSamples) {
  for (const auto& [name, spec] : formats()) {
    SCOPED_TRACE(name);
    const Problem p = make_problem(61, 40, 48, 150, 0.6);
    const QuantParams start = params_of(spec, p.m, p.n, p.w);
    const Searched found = search(p, start);
    const Doubles before = row_errors(p, start), after = row_errors(p, found.params);
    const bool shared = spec.granularity == Granularity::kTensor;
    for (std::size_t r = 0; r < before.size() && !shared; ++r) EXPECT_LE(after[r], before[r] * (1 + 1e-4)) << r;
    EXPECT_LE(sum_of(after), sum_of(before));
    if (!shared) {
      EXPECT_LT(sum_of(after), 0.97 * sum_of(before));
    }
    EXPECT_NEAR(found.report.before, sum_of(before), 1e-3 * sum_of(before));
    EXPECT_NEAR(found.report.after, sum_of(after), 1e-3 * sum_of(after));
    // Every scale is one of the fractions; zero points stay but for offsets, which move with their scales.
    std::int64_t smaller = 0;
    for (std::size_t i = 0; i < start.scale.size(); ++i) {
      const double factor = static_cast<double>(found.params.scale[i]) / static_cast<double>(start.scale[i]);
      EXPECT_NEAR(std::nearbyint((1 - factor) * 40) / 40, 1 - factor, 1e-6);
      EXPECT_GE(factor, 0.5 - 1e-6);
      EXPECT_LE(factor, 1);
      smaller += factor < 1 - 1e-6;
      if (!start.zero_point.empty() && spec.zero_point == ZeroPointType::kOffset)
        EXPECT_NEAR(found.params.zero_point[i], factor * static_cast<double>(start.zero_point[i]), 1e-6);
      else if (!start.zero_point.empty())
        EXPECT_EQ(found.params.zero_point[i], start.zero_point[i]);
    }
    EXPECT_EQ(found.report.changed, smaller);
    // Once more: from the ranges that were found, so again not worse.
    EXPECT_LE(search(p, found.params).report.after, found.report.after * (1 + 1e-6));
  }
}

// Channels: all fractions of each row; groups: all fractions of each group in turn with the others as they are
// then.
TEST(ClipSearch, IsWhatTryingAllFractionsFinds) {
  for (const int group : {0, 4}) {
    const Problem p = make_problem(62, 9, 12, 60, 0.7);
    const QuantParams start = params_of(group > 0 ? group_spec(2, group) : int_spec(2), p.m, p.n, p.w);
    const ClipOptions options{7, 0.6, {}};
    const Searched found = search(p, start, options);
    QuantParams best = start;
    const std::size_t per_row = group > 0 ? 3 : 1;
    for (std::size_t r = 0; r < 9; ++r)
      for (std::size_t g = 0; g < per_row; ++g) {
        const std::size_t i = r * per_row + g;
        double least = row_errors(p, best)[r];
        float chosen = best.scale[i];
        for (int k = 1; k <= 7; ++k) {
          QuantParams trial = best;
          trial.scale[i] = static_cast<float>(static_cast<double>(start.scale[i]) * (1 - 0.6 * k / 7));
          const double e = row_errors(p, trial)[r];
          if (e < least * (1 - 1e-9)) least = e, chosen = trial.scale[i];
        }
        best.scale[i] = chosen;
      }
    EXPECT_EQ(found.params.scale, best.scale) << group;
  }
}

// Half the inputs alike: groups that do not count each other would leave more than those that do.
TEST(ClipSearch, GroupsCountEachOther) {
  double together = 0, apart = 0;
  for (unsigned seed = 63; seed < 71; ++seed) {
    Problem p = make_problem(seed, 16, 32, 200, 0.2);
    for (std::int64_t i = 0; i < 16; ++i)
      std::copy_n(p.xt.begin() + i * p.columns, p.columns, p.xt.begin() + (16 + i) * p.columns);
    p.x = p.xt;
    const QuantParams start = params_of(group_spec(2, 16), p.m, p.n, p.w);
    together += search(p, start).report.after;
    // Each half for itself.
    QuantParams alone = start;
    Gram gram = gram_of(p);
    for (std::int64_t i = 0; i < 32; ++i)
      for (std::int64_t j = 0; j < 32; ++j)
        if ((i < 16) != (j < 16)) gram.h[static_cast<std::size_t>(i * 32 + j)] = 0;
    const Moments blind = moments_for(gram);
    ASSERT_TRUE(search_clip({{whole(p), p.w.data(), &blind}}, alone));
    apart += sum_of(row_errors(p, alone));
  }
  EXPECT_LT(together, 0.9 * apart);
}

TEST(ClipSearch, ClipsOneLargeWeight) {
  Problem p = make_problem(72, 6, 200, 400, 0.3);
  for (std::int64_t r = 0; r < p.m; ++r) p.w[static_cast<std::size_t>(r * p.n + 20 + r)] = r < 5 ? 0.6f : 0.1f;
  const Searched found = search(p, params_of(int_spec(4), p.m, p.n, p.w));
  for (std::size_t r = 0; r < 5; ++r) {
    const QuantParams start = params_of(int_spec(4), p.m, p.n, p.w);
    EXPECT_LT(found.params.scale[r], 0.9f * start.scale[r]) << r;
  }
  EXPECT_LT(found.report.after, 0.8 * found.report.before);
}

TEST(ClipSearch, OneScaleOfSeveralMatricesIsChosenForAll) {
  const Problem a = make_problem(73, 8, 10, 80, 0.5), b = make_problem(74, 8, 10, 90, 0.1);
  Floats both = a.w;
  both.insert(both.end(), b.w.begin(), b.w.end());
  const QuantSpec spec = int_spec(3, Granularity::kTensor);
  QuantParams params = *quant::find_params(spec, {16, 10}, both.data(), 0);
  const QuantParams start = params;
  const Moments ma = moments_for(gram_of(a)), mb = moments_for(gram_of(b));
  const auto error = [&](const QuantParams& q) {
    QuantParams half = q;
    half.layout.dim = 8;
    half.layout.outer = 1, half.layout.inner = 10;
    return sum_of(row_errors(a, half)) + sum_of(row_errors(b, half));
  };
  const auto done =
      search_clip({{{8, 10, 0, 10, 1}, a.w.data(), &ma}, {{8, 10, 80, 10, 1}, b.w.data(), &mb}}, params);
  ASSERT_TRUE(done) << done.error().text();
  double least = error(start);
  float best = start.scale[0];
  for (int k = 1; k <= 20; ++k) {
    QuantParams trial = start;
    trial.scale[0] = static_cast<float>(static_cast<double>(start.scale[0]) * (1 - 0.5 * k / 20));
    if (const double e = error(trial); e < least) least = e, best = trial.scale[0];
  }
  EXPECT_EQ(params.scale[0], best);
  EXPECT_LT(best, start.scale[0]);
}

TEST(ClipSearch, KeepsItsBitsForAllThreads) {
  const Problem p = make_problem(75, 100, 96, 200, 0.7);
  for (const QuantSpec& spec : {int_spec(3), group_spec(3, 16), int_spec(3, Granularity::kTensor)})
    expect_same_for_all_threads([&] { return search(p, params_of(spec, p.m, p.n, p.w)).params.scale; });
}

TEST(ClipSearch, RefusesWhatItCannotChoose) {
  const Problem p = make_problem(76, 10, 12, 60, 0.5);
  const Moments moments = moments_for(gram_of(p));
  const auto refusal = [&](QuantParams params, const Floats& w, const ClipOptions& options = {}) {
    const QuantParams before = params;
    const auto done = search_clip({{whole(p), w.data(), &moments}}, params, options);
    EXPECT_EQ(params.scale, before.scale);
    return done ? std::string() : done.error().text();
  };
  const QuantParams good = params_of(int_spec(3), p.m, p.n, p.w);
  for (const ClipOptions& o :
       {ClipOptions{0, 0.5, {}}, ClipOptions{5, 0, {}}, ClipOptions{5, 1, {}}, ClipOptions{5, NAN, {}}})
    EXPECT_NE(refusal(good, p.w, o).find("search for ranges"), std::string::npos);
  Floats bad = p.w;
  bad[7] = NAN;
  EXPECT_NE(refusal(good, bad).find("not finite"), std::string::npos);
  // One scale for each input.
  EXPECT_NE(
      refusal(*quant::find_params(int_spec(3), {p.m, p.n}, p.w.data(), 1), p.w).find("parts of several outputs"),
      std::string::npos);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(refusal(good, p.w, {20, 0.5, stop.get_token()}).empty());
  // Nothing to see: nothing changes. A row of zeros, a single sample, inputs that are always 0.
  Problem odd = make_problem(77, 10, 12, 1, 0.5);
  std::fill_n(odd.w.begin(), 12, 0.0f);
  std::fill_n(odd.xt.begin() + 5, 1, 0.0f);
  const QuantParams start = params_of(int_spec(3), odd.m, odd.n, odd.w);
  const Searched found = search(odd, start);
  EXPECT_EQ(found.params.scale[0], start.scale[0]);
  EXPECT_LE(found.report.after, found.report.before);
  std::fill(odd.xt.begin(), odd.xt.end(), 0.0f);
  EXPECT_EQ(search(odd, start).params.scale, start.scale);
}

TEST(ClipSearch, StopsWithinTwoSeconds) {
  const Problem p = make_problem(78, 512, 800, 900, 0.3);
  const Moments moments = moments_for(gram_of(p));
  for (const QuantSpec& spec : {int_spec(4), group_spec(4, 32)}) {
    std::stop_source source;
    QuantParams params = params_of(spec, p.m, p.n, p.w);
    const auto before = params.scale;
    std::chrono::steady_clock::time_point asked;
    std::jthread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      asked = std::chrono::steady_clock::now();
      source.request_stop();
    });
    const auto done = search_clip({{whole(p), p.w.data(), &moments}}, params, {5000, 0.5, source.get_token()});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count(), 2);
    EXPECT_EQ(params.scale, before);
  }
}

}  // namespace
}  // namespace quanvas::algorithms::test
