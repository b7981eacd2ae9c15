// QuantSpec: code ranges, what is legal where, and the texts that people read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/recipe/quant_spec.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;

QuantSpec spec_of(const char* text) {
  auto spec = from_json_text<QuantSpec>(text, "spec");
  EXPECT_TRUE(spec) << (spec ? "" : spec.error().text());
  return spec.value_or(QuantSpec{});
}

struct RangeRow {
  int bits;
  bool is_signed, narrow;
  std::int64_t lo, hi;
};
class CodeRanges : public ::testing::TestWithParam<RangeRow> {};
TEST_P(CodeRanges, AreTheDefinedOnes) {
  const RangeRow& row = GetParam();
  QuantSpec spec;
  spec.bits = row.bits;
  spec.is_signed = row.is_signed;
  spec.narrow = row.narrow;
  EXPECT_EQ(code_range(spec).lo, row.lo);
  EXPECT_EQ(code_range(spec).hi, row.hi);
}
INSTANTIATE_TEST_SUITE_P(Rows, CodeRanges,
                         ::testing::Values(RangeRow{8, true, false, -128, 127}, RangeRow{8, true, true, -127, 127},
                                           RangeRow{8, false, false, 0, 255}, RangeRow{8, false, true, 0, 254},
                                           RangeRow{4, true, true, -7, 7}, RangeRow{2, true, true, -1, 1},
                                           RangeRow{1, true, false, -1, 0}, RangeRow{1, false, false, 0, 1},
                                           RangeRow{16, true, false, -32768, 32767},
                                           RangeRow{32, true, false, -2147483648LL, 2147483647LL},
                                           RangeRow{32, false, false, 0, 4294967295LL}));

struct CheckRow {
  const char* spec;
  SiteKind site;
  const char* problem;  // empty: legal
};
class Checks : public ::testing::TestWithParam<CheckRow> {};
TEST_P(Checks, NameTheField) {
  const CheckRow& row = GetParam();
  const std::string problem = check(spec_of(row.spec), row.site);
  if (*row.problem)
    EXPECT_THAT(problem, HasSubstr(row.problem));
  else
    EXPECT_EQ(problem, "");
}
INSTANTIATE_TEST_SUITE_P(
    Rows, Checks,
    ::testing::Values(
        CheckRow{R"({})", SiteKind::kWeight, ""}, CheckRow{R"({"bits":16})", SiteKind::kInput, ""},
        CheckRow{R"({"bits":20})", SiteKind::kWeight, ""},
        CheckRow{R"({"bits":40})", SiteKind::kWeight, "bits is 40; it must lie between 1 and 32."},
        CheckRow{R"({"bits":0})", SiteKind::kWeight, "bits is 0"},
        CheckRow{R"({"bits":-2147483648})", SiteKind::kBias, "bits is -2147483648"},
        CheckRow{R"({"bits":32})", SiteKind::kBias, ""}, CheckRow{R"({"bits":33})", SiteKind::kBias, "bits is 33"},
        CheckRow{R"({"bits":1,"narrow":true})", SiteKind::kWeight, "narrow is true with 1 bit"},
        CheckRow{R"({"format":"posit"})", SiteKind::kWeight, "format is 'posit'"},
        CheckRow{R"({"granularity":"group","group_size":0})", SiteKind::kWeight, "group_size is 0"},
        CheckRow{R"({"granularity":"tensor","group_size":0})", SiteKind::kWeight, ""},
        CheckRow{R"({"granularity":"group"})", SiteKind::kInput, "granularity is group; the static scales of an activation"},
        CheckRow{R"({"granularity":"group"})", SiteKind::kBias, "granularity is group; a bias"},
        CheckRow{R"({"granularity":"channel"})", SiteKind::kOutput, ""},
        CheckRow{R"({"granularity":"channel","zero_point":"integer"})", SiteKind::kOutput, "granularity is channel"},
        CheckRow{R"({"granularity":"channel","zero_point":"integer"})", SiteKind::kWeight, ""},
        CheckRow{R"({"percentile":"nan"})", SiteKind::kInput, "percentile is nan"},
        CheckRow{R"({"percentile":49})", SiteKind::kInput, "percentile is 49"},
        CheckRow{R"({"clip_min":-1,"clip_max":2})", SiteKind::kInput, ""},
        CheckRow{R"({"clip_max":"inf"})", SiteKind::kInput, "clip_max is inf"},
        CheckRow{R"({"clip_min":0.5,"clip_max":2})", SiteKind::kInput, "clip_min is 0.5"},
        CheckRow{R"({"clip_min":0,"clip_max":0})", SiteKind::kInput, "the range between them is empty"},
        CheckRow{R"({"signed":false,"clip_min":-1})", SiteKind::kInput, "clip_max is 0 or missing"},
        CheckRow{R"({"granularity":"channel","clip_max":2})", SiteKind::kWeight, "need granularity tensor"},
        CheckRow{R"({"axis":99})", SiteKind::kWeight, "axis is 99"},
        CheckRow{R"({"scale_from_accumulator":true})", SiteKind::kWeight, "scale_from_accumulator is true"},
        CheckRow{R"({"scale_from_accumulator":true,"bits":32})", SiteKind::kBias, ""},
        CheckRow{R"({"format":"float","exponent_bits":4,"mantissa_bits":3})", SiteKind::kWeight, ""},
        CheckRow{R"({"format":"float","exponent_bits":9})", SiteKind::kWeight, "exponent_bits is 9"},
        CheckRow{R"({"format":"float","mantissa_bits":-1})", SiteKind::kWeight, "mantissa_bits is -1"},
        CheckRow{R"({"format":"float","exponent_bias":127,"mantissa_bits":3})", SiteKind::kWeight, "exponent_bias is 127"},
        CheckRow{R"({"format":"float","narrow":true})", SiteKind::kWeight, "narrow is true with format float"},
        CheckRow{R"({"format":"float","zero_point":"integer"})", SiteKind::kWeight, "zero_point is integer with format float"},
        CheckRow{R"({"format":"float","specials":"fnuz","signed":false})", SiteKind::kInput, "specials is fnuz with signed false"},
        CheckRow{R"({"format":"float","statistic":"hqo"})", SiteKind::kWeight, "statistic is hqo with format float"},
        CheckRow{R"({"format":"ternary","ternary_threshold":1})", SiteKind::kWeight, "ternary_threshold is 1"},
        CheckRow{R"({"format":"ternary","signed":false})", SiteKind::kWeight, "signed is false with format ternary"},
        CheckRow{R"({"format":"binary","rounding":"floor"})", SiteKind::kWeight, "rounding is floor with format binary"},
        CheckRow{R"({"zero_point":"float"})", SiteKind::kWeight, "zero_point is float with zero_point_inside false"},
        CheckRow{R"({"zero_point":"float","zero_point_inside":true})", SiteKind::kWeight, ""},
        CheckRow{R"({"source":"constant"})", SiteKind::kWeight, ""},
        CheckRow{R"({"source":"constant","scale_value":0.1})", SiteKind::kWeight, ""},
        CheckRow{R"({"source":"constant","scale_value":0})", SiteKind::kWeight, "scale_value is 0"},
        CheckRow{R"({"source":"constant","scale_value":1,"zero_point":"integer"})", SiteKind::kWeight, "source is constant with zero_point"},
        CheckRow{R"({"scale_value":1})", SiteKind::kWeight, ""},
        CheckRow{R"({"source":"dynamic"})", SiteKind::kWeight, "source is dynamic; a weight"},
        CheckRow{R"({"source":"dynamic","granularity":"row"})", SiteKind::kInput, ""},
        CheckRow{R"({"source":"dynamic","axis":0})", SiteKind::kInput, "axis is 0 with source dynamic"},
        CheckRow{R"({"granularity":"row"})", SiteKind::kInput, "granularity is row; the static scales"},
        CheckRow{R"({"scale":"float8"})", SiteKind::kWeight, "scale is float8 with granularity tensor"},
        CheckRow{R"({"scale":"power-of-two","exponent_rounding":"even"})", SiteKind::kWeight, "exponent_rounding is even"},
        CheckRow{R"({"statistic":"kl","zero_point":"integer"})", SiteKind::kWeight, "statistic is kl with zero_point integer"},
        CheckRow{R"({"statistic":"max-mean","granularity":"channel"})", SiteKind::kWeight, "statistic is max-mean"},
        CheckRow{R"({"statistic":"l2"})", SiteKind::kInput, "statistic is l2"},
        CheckRow{R"({"statistic":"mean-sigma","sigma":-1})", SiteKind::kInput, "sigma is -1"},
        CheckRow{R"({"scale_from_accumulator":true,"signed":false})", SiteKind::kBias, "signed is false"},
        CheckRow{R"({"scale_from_accumulator":true,"zero_point":"integer"})", SiteKind::kBias, "zero_point is integer"}));

struct ChipRow {
  const char* spec;
  SiteKind site;
  const char* chip;
};
class Chips : public ::testing::TestWithParam<ChipRow> {};
TEST_P(Chips, FitEightCharacters) {
  const ChipRow& row = GetParam();
  EXPECT_EQ(chip_text(spec_of(row.spec), row.site), row.chip);
  EXPECT_LE(std::string(row.chip).size(), 8u);
}
INSTANTIATE_TEST_SUITE_P(
    Rows, Chips,
    ::testing::Values(ChipRow{R"({"bits":4})", SiteKind::kWeight, "W4"}, ChipRow{R"({"bits":4})", SiteKind::kInput, "A4"},
                      ChipRow{R"({"bits":32})", SiteKind::kBias, "B32"},
                      ChipRow{R"({"signed":false})", SiteKind::kInput, "U8"},
                      ChipRow{R"({"bits":4,"scale":"power-of-two"})", SiteKind::kOutput, "A4 po2"},
                      ChipRow{R"({"bits":16,"scale":"power-of-two"})", SiteKind::kWeight, "W16 po2"},
                      ChipRow{R"({"bits":4,"granularity":"group","group_size":128})", SiteKind::kWeight, "W4 g128"},
                      ChipRow{R"({"format":"float"})", SiteKind::kWeight, "E4M3"},
                      ChipRow{R"({"format":"float","exponent_bits":2,"mantissa_bits":1,"granularity":"group","scale":"power-of-two"})",
                              SiteKind::kWeight, "MX E2M1"},
                      ChipRow{R"({"format":"ternary"})", SiteKind::kWeight, "W1.58"},
                      ChipRow{R"({"format":"binary"})", SiteKind::kInput, "A1"},
                      ChipRow{R"({"bits":16,"granularity":"group","group_size":65536})", SiteKind::kWeight, "W16"}));

struct TextRow {
  const char* spec;
  const char* text;
};
class Descriptions : public ::testing::TestWithParam<TextRow> {};
TEST_P(Descriptions, SayEverything) { EXPECT_EQ(describe(spec_of(GetParam().spec)), GetParam().text); }
INSTANTIATE_TEST_SUITE_P(
    Rows, Descriptions,
    ::testing::Values(
        TextRow{R"({"bits":4,"narrow":true,"granularity":"channel","statistic":"mse"})",
                "Integer 4 bit signed, −7 … 7, per channel, MSE, float32 scale"},
        TextRow{R"({"signed":false,"zero_point":"integer","statistic":"percentile","percentile":99.9})",
                "Integer 8 bit unsigned, 0 … 255, zero point, per tensor, percentile 99.9 %, float32 scale"},
        TextRow{R"({"granularity":"group","group_size":32,"scale":"power-of-two","source":"learned"})",
                "Integer 8 bit signed, −128 … 127, per group of 32, absolute maximum, power-of-two scale, learned in training"},
        TextRow{R"({"clip_min":-0.5,"clip_max":1.25})",
                "Integer 8 bit signed, −128 … 127, per tensor, clipped at −0.5 … 1.25, float32 scale"},
        TextRow{R"({"bits":32,"scale_from_accumulator":true})", "Integer 32 bit signed, scale of the accumulator"}));

class Forms : public ::testing::TestWithParam<SiteKind> {};
TEST_P(Forms, DefaultsAreALegalSpec) {
  const Schema& form = quant_spec_schema(GetParam());
  const auto spec = from_json_value<QuantSpec>(form.defaults(), "defaults");
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(check(*spec, GetParam()), "");
}
TEST_P(Forms, EveryChoiceIsReadable) {
  const Schema& form = quant_spec_schema(GetParam());
  for (const Field& field : form.fields) {
    EXPECT_FALSE(field.title.empty()) << field.key;
    EXPECT_FALSE(field.doc.empty()) << field.key;
    for (const Choice& choice : field.choices) {
      json values = form.defaults();
      values[field.key] = choice.value;
      const auto spec = from_json_value<QuantSpec>(values, "values");
      ASSERT_TRUE(spec) << spec.error().text();
    }
    if (field.enabled_if) EXPECT_NE(form.find(field.enabled_if->key), nullptr) << field.key;
  }
}
INSTANTIATE_TEST_SUITE_P(Sites, Forms,
                         ::testing::Values(SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput));

TEST(QuantSpecJson, KeepsEveryField) {
  QuantSpec spec;
  spec.bits = 3;
  spec.is_signed = false;
  spec.narrow = true;
  spec.axis = -1;
  spec.clip_min = -0.1;
  spec.clip_max = 0.30000000000000004;
  spec.statistic = Statistic::kMse;
  spec.source = ScaleSource::kLearned;
  const auto again = from_json_text<QuantSpec>(to_json_text(spec), "spec");
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, spec);
}

}  // namespace
}  // namespace quanvas
