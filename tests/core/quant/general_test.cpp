// Kernels of roundings, zero points inside the rounding, offsets, scales of the codes' own, signs and codebooks,
// with every instruction set, against a scalar reference.
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "core/quant/kernels.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

double rounded(Rounding rounding, double v) {
  switch (rounding) {
    case Rounding::kHalfUp:
      return std::floor(v + 0.5);
    case Rounding::kHalfAway:
      return std::round(v);
    case Rounding::kCeil:
      return std::ceil(v);
    case Rounding::kFloor:
      return std::floor(v);
    case Rounding::kTowardZero:
      return std::trunc(v);
    case Rounding::kDpu:
      return v < 0 ? std::floor(v + 0.5) : std::nearbyint(v);
    default:
      return std::nearbyint(v);
  }
}

struct Expected {
  std::int64_t code = 0;
  float value = 0;
  bool clipped = false;
};

Expected expected(const QuantParams& p, std::size_t i, float x) {
  const float s = p.scale[i], z = p.zero_point.empty() ? 0.0f : p.zero_point[i];
  const volatile float quotient = x / s;
  const float v = std::isnan(quotient) ? 0.0f : quotient;
  const QuantSpec& spec = p.spec;
  const auto lo = static_cast<double>(p.lo), hi = static_cast<double>(p.hi);
  if (const Codebook* book = find_codebook(spec.format)) {
    const std::vector<float>& values = book->values;
    const float near = std::min(std::max(v, values.front() - 1), values.back() + 1);  // infinity is near the last one
    std::size_t best = 0;
    for (std::size_t k = 1; k < values.size(); ++k)
      if (std::fabs(values[k] - near) < std::fabs(values[best] - near)) best = k;
    const std::size_t n = values.size();
    return {static_cast<std::int64_t>(best), values[best] * s,
            v < values[0] - (values[1] - values[0]) / 2 || v > values[n - 1] + (values[n - 1] - values[n - 2]) / 2};
  }
  if (spec.format == "binary" || spec.format == "ternary") {
    const bool zero = spec.format == "ternary" && !(std::fabs(x) > static_cast<float>(spec.ternary_threshold) * s);
    const int sign = zero ? 0 : x < 0 ? -1 : 1;
    return {sign, static_cast<float>(sign) * s, std::fabs(v) > 1.5f};
  }
  const bool offset = spec.zero_point == ZeroPointType::kOffset;
  const volatile float centered = x - (offset ? z : p.center.empty() ? 0.0f : p.center[i]);
  const volatile float steps = centered / (p.code_scale.empty() ? s : p.code_scale[i]);
  const float w = std::isnan(steps) ? 0.0f : steps;
  const double zero = offset ? 0 : static_cast<double>(z);
  const volatile float with_zero = w + static_cast<float>(zero);
  const double q = spec.zero_point_inside ? rounded(spec.rounding, static_cast<double>(with_zero))
                                          : rounded(spec.rounding, static_cast<double>(w)) + zero;
  const double code = std::min(std::max(q, lo), hi);
  const volatile float product = static_cast<float>(code - zero) * s;
  const double raw = static_cast<double>(steps);
  return {static_cast<std::int64_t>(code), offset ? product + z : product,
          raw < lo - zero - 0.5 || raw > hi - zero + 0.5};
}

struct Form {
  const char* name;
  QuantSpec (*make)(QuantSpec);
};
const Form kForms[] = {
    {"symmetric", [](QuantSpec s) { return s; }},
    {"unsigned", [](QuantSpec s) { return unsigned_(s); }},
    {"zero_point", [](QuantSpec s) { return asym(s); }},
    {"inside",
     [](QuantSpec s) {
       s = asym(s);
       s.zero_point_inside = true;
       return s;
     }},
    {"float_inside",
     [](QuantSpec s) {
       s = asym(s);
       s.zero_point = ZeroPointType::kFloat;
       s.zero_point_inside = true;
       return s;
     }},
    {"offset",
     [](QuantSpec s) {
       s = asym(s);
       s.zero_point = ZeroPointType::kOffset;
       return s;
     }},
};

// x, and all that is special.
std::vector<float> rough(std::int64_t n) {
  std::vector<float> x = sample(n);
  const float inf = std::numeric_limits<float>::infinity();
  const float special[] = {0.0f,  -0.0f,  inf,    -inf,   std::numeric_limits<float>::quiet_NaN(),
                           3e38f, -3e38f, 1e-42f, -1e-42f};
  for (std::size_t i = 0; i < x.size(); ++i)
    if (i % 23 == 7) x[i] = special[i / 23 % std::size(special)];
  return x;
}

void compare(const QuantParams& params, const std::vector<float>& x, const std::string& what) {
  std::vector<float> y(x.size()), decoded(x.size());
  std::vector<std::int32_t> codes(x.size());
  fake_quantize(params, params.layout, x.data(), y.data());
  quantize_codes(params, params.layout, x.data(), codes.data());
  dequantize_codes(params, params.layout, codes.data(), decoded.data());
  double clipped = 0;
  std::set<std::int64_t> used;
  for (std::size_t e = 0; e < x.size(); ++e) {
    const Expected r = expected(params, parameter_of(params.layout, static_cast<std::int64_t>(e)), x[e]);
    ASSERT_EQ(codes[e], r.code) << what << ", element " << e << " = " << x[e];
    ASSERT_EQ(y[e], r.value) << what << ", element " << e << " = " << x[e];
    ASSERT_FALSE(y[e] == 0 && std::signbit(y[e])) << what << ", element " << e;
    clipped += r.clipped;
    used.insert(r.code);
  }
  ASSERT_TRUE(same_bits(y, decoded)) << what;
  const SiteFacts facts = measure(params, params.layout, x.data());
  ASSERT_EQ(facts.codes_used, static_cast<double>(used.size())) << what;
  if (!x.empty()) {
    ASSERT_EQ(facts.clipped_share, clipped / static_cast<double>(x.size())) << what;
  }
}

class General : public testing::TestWithParam<Case> {
 protected:
  void TearDown() override {
    use_kernels(nullptr);
    if (ran_ == 0 && !HasFailure()) GTEST_SKIP() << "none of these is legal with this granularity";
  }
  // The spec with every kernel set, with the scales that are found and with half of them, which clip.
  void run(QuantSpec spec, const std::string& name) {
    spec.granularity = GetParam().spec.granularity;
    spec.axis = GetParam().spec.axis;
    spec.group_size = GetParam().spec.group_size;
    if (!check(spec).empty()) return;
    ++ran_;
    const std::int64_t n = size_of(GetParam().shape);
    const std::vector<float> clean = sample(n), x = rough(n);
    const auto found = find_params(spec, GetParam().shape, clean.data(), 0);
    ASSERT_TRUE(found) << found.error().text();
    QuantParams halved = *found;
    for (float& s : halved.scale) s /= 2;
    for (const Kernels* set : available_kernels()) {
      use_kernels(set);
      for (const QuantParams* params :
           {static_cast<const QuantParams*>(&*found), static_cast<const QuantParams*>(&halved)}) {
        compare(*params, x, name + ", " + set->name);
        if (HasFatalFailure()) return;
      }
    }
  }
  int ran_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Layouts, General, testing::ValuesIn([] {
                           std::vector<Case> small;
                           for (Case& c : cases())
                             if (size_of(c.shape) < 30000 && c.spec.scale == ScaleType::kFloat32)
                               small.push_back(c);
                           return small;
                         }()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(General, RoundingsOfEveryForm) {
  for (const Form& form : kForms)
    for (const auto& [rounding, name] : enum_names(Rounding())) {
      if (rounding == Rounding::kStochastic || rounding == Rounding::kLearned) continue;
      for (const int bits : {2, 8}) {
        QuantSpec spec = form.make(spec_of(bits));
        spec.rounding = rounding;
        run(spec, std::string(form.name) + ", " + name);
        if (HasFatalFailure()) return;
      }
    }
}

// Both neighbours of every half: the nearest floats are where a fraction is rounded itself.
TEST(GeneralHalves, NeighboursOfTies) {
  std::vector<float> x;
  for (float half = -8.5f; half < 9; half += 1)
    for (const float v : {std::nextafter(half, -10.0f), half, std::nextafter(half, 10.0f)}) x.push_back(v);
  for (const auto& [rounding, name] : enum_names(Rounding())) {
    if (rounding == Rounding::kStochastic || rounding == Rounding::kLearned) continue;
    QuantSpec spec = spec_of(8);
    spec.rounding = rounding;
    spec.source = ScaleSource::kConstant;
    spec.scale_value = 1;
    const auto found = find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
    ASSERT_TRUE(found) << found.error().text();
    for (const Kernels* set : available_kernels()) {
      use_kernels(set);
      compare(*found, x, std::string(name) + ", " + set->name);
    }
    use_kernels(nullptr);
  }
}

TEST_P(General, ScalesOfTheCodesOwn) {
  for (const bool centered : {false, true}) {
    QuantSpec spec = narrow(spec_of(8));
    spec.decoupled = Decoupling::kL1;
    spec.accumulator_bits = 12;
    spec.rounding = Rounding::kTowardZero;
    spec.zero_centered = centered;
    run(spec, centered ? "centered" : "decoupled");
  }
}

TEST_P(General, SignsAndCodebooks) {
  for (const char* format : {"ternary", "binary", "nf4", "iq4nl"}) {
    QuantSpec spec = spec_of(8);
    spec.format = format;
    run(spec, format);
  }
}

}  // namespace
}  // namespace quanvas::quant::test
