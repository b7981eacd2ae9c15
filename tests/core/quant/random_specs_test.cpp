// Declarations drawn at random: the legal ones run, the others are refused by the name of a field.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "core/base/json.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

template <class E>
E any_of(std::mt19937& random) {
  const auto& names = enum_names(E{});
  return names[random() % names.size()].first;
}

QuantSpec random_spec(std::mt19937& random) {
  const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
  QuantSpec s;
  const char* const formats[] = {"int", "int", "int", "float", "ternary", "binary", "nf4", "iq4nl", "decimal"};
  s.format = formats[random() % (chance(97) ? 8 : 9)];
  s.bits = static_cast<int>(random() % 17) + (chance(5) ? 20 : 0);
  s.is_signed = chance(70);
  s.narrow = chance(30);
  s.exponent_bits = static_cast<int>(random() % 7);
  s.mantissa_bits = static_cast<int>(random() % 6);
  if (chance(10)) s.exponent_bias = static_cast<int>(random() % 40) - 5;
  s.specials = any_of<FloatSpecials>(random);
  s.saturate = chance(80);
  s.ternary_threshold = chance(90) ? 0.3 : 1.5;
  s.zero_point = chance(60) ? ZeroPointType::kNone : any_of<ZeroPointType>(random);
  s.zero_point_inside = chance(50);
  s.zero_in_range = chance(80);
  s.granularity = any_of<Granularity>(random);
  if (chance(30)) s.axis = static_cast<int>(random() % 3) - 1;
  s.group_size = static_cast<int>(random() % 40);
  s.statistic = any_of<Statistic>(random);
  if (chance(30)) s.search = Search::kBracketing;
  s.percentile = chance(95) ? 99 : 30;
  s.scale = any_of<ScaleType>(random);
  s.exponent_rounding = any_of<ExponentRounding>(random);
  s.source = any_of<ScaleSource>(random);
  if (chance(s.source == ScaleSource::kConstant ? 90 : 3)) s.scale_value = 0.125;
  s.rounding = any_of<Rounding>(random);
  if (chance(8)) s.clip_max = 2;
  s.scale_bits = chance(95) ? 2 + static_cast<int>(random() % 7) : 9;
  s.scale_group = static_cast<int>(random() % 5);
  if (chance(20)) s.batches = any_of<BatchStatistic>(random);
  if (chance(2)) s.momentum = 0;
  s.learned_rounding = any_of<LearnedRounding>(random);
  s.soft_rounding = s.rounding == Rounding::kLearned && chance(30);
  if (chance(15)) s.decoupled = any_of<Decoupling>(random);
  if (s.decoupled == Decoupling::kL1 && chance(70)) {
    s.accumulator_bits = 2 + static_cast<int>(random() % 20);
    s.accumulator_input_signed = chance(50);
    s.zero_centered = chance(50);
    if (chance(80)) s.rounding = Rounding::kTowardZero;
    if (chance(80)) s.granularity = Granularity::kChannel;
  }
  if (chance(3)) s.truncation = any_of<Truncation>(random);
  if (chance(10)) s.scale_domain = any_of<ScaleDomain>(random);
  s.learn_bits = chance(3);
  s.learn_zero_point = chance(5);
  if (chance(5)) s.delay = static_cast<int>(random() % 20) - 2;
  return s;
}

TEST(RandomSpecs, RunOrAreRefusedByName) {
  std::mt19937 random(20);
  const std::vector<float> x = sample(6 * 37, 5);
  static const std::vector<std::string> kAxes = {
      "format", "bits", "narrow", "exponent_b", "mantissa", "specials", "ternary", "zero_point", "granularity", "group_size",
      "statistic", "percentile", "scale", "source", "rounding", "clip", "signed", "exponent_rounding", "accumulator_bits",
      "decoupled", "learn_bits", "learn_zero_point", "momentum", "soft_rounding", "truncation", "zero_centered", "delay"};
  int legal = 0;
  std::map<std::string, int> refusals;
  for (int i = 0; i < 12000; ++i) {
    const QuantSpec spec = random_spec(random);
    const auto again = from_json_value<QuantSpec>(to_json_value(spec));
    ASSERT_TRUE(again);
    ASSERT_EQ(*again, spec);
    const std::string problem = check(spec);
    if (!problem.empty()) {
      const bool named = std::any_of(kAxes.begin(), kAxes.end(), [&](const std::string& a) { return problem.starts_with(a); });
      EXPECT_TRUE(named) << problem;
      ++refusals[problem.substr(0, problem.find(' '))];
      continue;
    }
    ++legal;
    const auto p = find_params(spec, {6, 37}, x.data(), 1);
    ASSERT_TRUE(p) << p.error().text() << '\n' << to_json_value(spec).dump();
    std::vector<float> y(x.size()), decoded(x.size());
    std::vector<std::int32_t> codes(x.size());
    fake_quantize(*p, p->layout, x.data(), y.data());
    quantize_codes(*p, p->layout, x.data(), codes.data());
    dequantize_codes(*p, p->layout, codes.data(), decoded.data());
    const CodeRange range = code_range(spec);
    for (std::size_t e = 0; e < x.size(); ++e) {
      const auto code = range.lo >= 0 ? static_cast<std::int64_t>(static_cast<std::uint32_t>(codes[e])) : codes[e];
      ASSERT_TRUE(code >= range.lo && code <= range.hi) << to_json_value(spec).dump();
      if (spec.soft_rounding) continue;  // values between the codes
      ASSERT_TRUE(y[e] == decoded[e] || (std::isnan(y[e]) && std::isnan(decoded[e]))) << to_json_value(spec).dump();
    }
    const SiteFacts facts = measure(*p, p->layout, x.data());
    ASSERT_LE(facts.codes_used, facts.codes_total + (spec.specials == FloatSpecials::kNone ? 0 : 8));
    std::vector<float> dy(x.size(), 1), dx(x.size()), dscale(p->scale.size());
    fake_quantize_backward(*p, p->layout, x.data(), dy.data(), dx.data(), dscale.data(), false);
    for (const float d : dx) ASSERT_TRUE(d == 0 || d == 1);
  }
  EXPECT_GT(legal, 1000) << "most draws are refused; the test sees too little";
  EXPECT_GT(refusals.size(), 8u);
}

}  // namespace
}  // namespace quanvas::quant::test
