// Quantized tensors: storage, validity, and arithmetic that is exact or refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/quant/qtensor.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

using testing::HasSubstr;

QTensor quantized(const QuantSpec& spec, const Shape& shape, unsigned seed) {
  const std::vector<float> x = sample(size_of(shape), seed);
  auto params = find_params(spec, shape, x.data(), 1);
  EXPECT_TRUE(params) << params.error().text();
  return *QTensor::quantize(*params, shape, x.data());
}
// On a scale that several tensors share.
QTensor at_scale(QuantSpec spec, float scale, const Shape& shape, unsigned seed, float zero = 0) {
  const std::vector<float> x = sample(size_of(shape), seed);
  QuantParams params = *find_params(spec, shape, x.data(), 1);
  params.scale.assign(params.scale.size(), scale);
  if (!params.zero_point.empty()) params.zero_point.assign(params.scale.size(), zero);
  return *QTensor::quantize(params, shape, x.data());
}
std::int64_t code(const QTensor& t, std::size_t i) {
  return t.is_signed() ? t.codes()[i] : static_cast<std::int64_t>(static_cast<std::uint32_t>(t.codes()[i]));
}
// Steps from zero: the real value in units of the scale.
std::int64_t steps(const QTensor& t, std::size_t i) {
  const auto& z = t.params().zero_point;
  const std::size_t p = parameter_of(t.layout(), static_cast<std::int64_t>(i));
  return code(t, i) - (z.empty() ? 0 : static_cast<std::int64_t>(z[p]));
}
QuantSpec format(const char* id) {
  QuantSpec s;
  s.format = id;
  return s;
}
QuantSpec minifloat(int exponent, int mantissa) {
  QuantSpec s = format("float");
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = FloatSpecials::kNone;
  return s;
}

TEST(QTensorStorage, PackedCodesComeBack) {
  const QuantSpec specs[] = {spec_of(1),          spec_of(3),  spec_of(8),    unsigned_(spec_of(5)), asym(spec_of(8)),
                             spec_of(17),         spec_of(32), unsigned_(spec_of(32)), group(4, 1, 16),
                             narrow(spec_of(4, Granularity::kChannel, 0)), minifloat(4, 3), minifloat(2, 1), minifloat(3, 2),
                             format("ternary"),   format("binary"), format("nf4"), format("iq4nl")};
  for (const QuantSpec& spec : specs) {
    SCOPED_TRACE(to_json_value(spec).dump());
    const QTensor t = quantized(spec, {7, 45}, 3);
    EXPECT_EQ(t.problem(), "");
    const auto bytes = t.packed();
    EXPECT_EQ(bytes.size(), static_cast<std::size_t>((7 * 45 * code_bits(spec) + 7) / 8));
    const auto back = QTensor::from_packed(t.params(), t.shape(), bytes);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_EQ(back->codes(), t.codes());
    EXPECT_TRUE(same_bits(back->values(), t.values()));
    EXPECT_FALSE(QTensor::from_packed(t.params(), t.shape(), {1, 2, 3}));
  }
}

TEST(QTensorStorage, ValuesOnTheGridAreTakenOthersNamed) {
  for (const QuantSpec& spec : {spec_of(4), asym(spec_of(8)), minifloat(4, 3), format("ternary"), group(4, 1, 16)}) {
    const QTensor t = quantized(spec, {4, 40}, 4);
    std::vector<float> values = t.values();
    const auto again = QTensor::from_values(t.params(), t.shape(), values);
    ASSERT_TRUE(again) << again.error().text();
    EXPECT_TRUE(same_bits(again->values(), values));
    values[77] += 0.3f * t.params().scale.back();
    const auto off = QTensor::from_values(t.params(), t.shape(), values);
    ASSERT_FALSE(off);
    EXPECT_THAT(off.error().message, HasSubstr("of element 77 is not on the quantizer's grid"));
    EXPECT_FALSE(QTensor::from_values(t.params(), t.shape(), {1}));
  }
}

TEST(QTensorStorage, InvalidOnesAreRefusedByTheirFault) {
  const QTensor good = quantized(asym(spec_of(4)), {2, 8}, 5);
  const auto problem = [&](auto change) {
    QuantParams params = good.params();
    std::vector<std::int32_t> codes = good.codes();
    change(params, codes);
    const auto t = QTensor::from_codes(params, {2, 8}, codes);
    return t ? std::string() : t.error().message;
  };
  using P = QuantParams&;
  using C = std::vector<std::int32_t>&;
  EXPECT_EQ(problem([](P, C) {}), "");
  EXPECT_THAT(problem([](P, C c) { c[5] = 16; }), HasSubstr("Code 16 of element 5 is outside 0 … 15"));
  EXPECT_THAT(problem([](P, C c) { c[5] = -1; }), HasSubstr("element 5 is outside"));
  EXPECT_THAT(problem([](P, C c) { c.pop_back(); }), HasSubstr("15 codes do not fill"));
  EXPECT_THAT(problem([](P p, C) { p.scale[0] = 0; }), HasSubstr("Scale 0 is 0"));
  EXPECT_THAT(problem([](P p, C) { p.scale[0] = std::nanf(""); }), HasSubstr("finite"));
  EXPECT_THAT(problem([](P p, C) { p.zero_point[0] = 2.5f; }), HasSubstr("no integer"));
  EXPECT_THAT(problem([](P p, C) { p.zero_point.push_back(1); }), HasSubstr("2 zero points for 1 scales"));
}

TEST(QTensorArithmetic, SumsAreExact) {
  const Shape shape = {3, 50};
  const std::pair<QTensor, QTensor> pairs[] = {
      {at_scale(spec_of(8), 0.1f, shape, 1), at_scale(spec_of(8), 0.1f, shape, 2)},
      {at_scale(spec_of(4), 0.3f, shape, 1), at_scale(unsigned_(spec_of(6)), 0.3f, shape, 2)},
      {at_scale(asym(spec_of(8)), 0.01f, shape, 1, 100), at_scale(spec_of(8), 0.01f, shape, 2)},
      {at_scale(asym(spec_of(8)), 0.01f, shape, 1, 100), at_scale(asym(spec_of(8)), 0.01f, shape, 2, 30)}};
  for (const auto& [a, b] : pairs) {
    const auto sum = a.add(b);
    ASSERT_TRUE(sum) << sum.error().text();
    EXPECT_EQ(sum->problem(), "");
    EXPECT_EQ(sum->params().scale, a.params().scale);
    for (std::size_t i = 0; i < a.codes().size(); ++i) ASSERT_EQ(steps(*sum, i), steps(a, i) + steps(b, i)) << i;
  }
  const QTensor a = at_scale(spec_of(8), 0.1f, shape, 1);
  EXPECT_EQ(a.add(a)->bits(), 9);
  EXPECT_THAT(a.add(at_scale(spec_of(8), 0.2f, shape, 2)).error().message, HasSubstr("The scales differ"));
  EXPECT_THAT(a.add(at_scale(spec_of(8), 0.1f, {3, 49}, 2)).error().message, HasSubstr("differ"));
  EXPECT_THAT(a.add(quantized(minifloat(4, 3), shape, 2)).error().message, HasSubstr("Only integers"));
  const QTensor wide = at_scale(spec_of(32), 1e-7f, shape, 1);
  EXPECT_THAT(wide.add(wide).error().message, HasSubstr("at most 32 bits"));
}

TEST(QTensorArithmetic, ProductsAreExact) {
  const Shape shape = {4, 33};
  const QTensor weights = quantized(narrow(spec_of(4, Granularity::kChannel, 0)), shape, 1);
  const QTensor inputs = at_scale(asym(spec_of(8)), 0.02f, shape, 2, 77);
  const auto product = weights.multiply(inputs);
  ASSERT_TRUE(product) << product.error().text();
  EXPECT_EQ(product->problem(), "");
  for (std::size_t i = 0; i < weights.codes().size(); ++i) {
    ASSERT_EQ(steps(*product, i), steps(weights, i) * steps(inputs, i)) << i;
    const std::size_t p = parameter_of(product->layout(), static_cast<std::int64_t>(i));
    ASSERT_EQ(product->params().scale[p], weights.params().scale[p] * 0.02f);
  }
  const QTensor two = at_scale(spec_of(8), 0.5f, {1}, 6);
  const auto scaled = weights.multiply(two);
  ASSERT_TRUE(scaled);
  for (std::size_t i = 0; i < weights.codes().size(); ++i) ASSERT_EQ(steps(*scaled, i), steps(weights, i) * steps(two, 0));
  const QTensor wide = at_scale(spec_of(20), 1e-4f, shape, 1);
  EXPECT_THAT(wide.multiply(wide).error().message, HasSubstr("at most 32 bits"));
  EXPECT_THAT(inputs.multiply(weights).error().message, HasSubstr("more than one scale"));
}

TEST(QTensorArithmetic, SignsJoinsAndShapes) {
  const Shape shape = {2, 30};
  for (const QTensor& t : {at_scale(spec_of(8), 0.1f, shape, 1), at_scale(asym(spec_of(8)), 0.05f, shape, 2, 90),
                           at_scale(unsigned_(spec_of(4)), 0.2f, shape, 3)}) {
    const auto negated = t.negate(), rectified = t.relu();
    ASSERT_TRUE(negated && rectified);
    EXPECT_EQ(negated->problem(), "");
    EXPECT_EQ(rectified->problem(), "");
    for (std::size_t i = 0; i < t.codes().size(); ++i) {
      ASSERT_EQ(steps(*negated, i), -steps(t, i));
      ASSERT_EQ(steps(*rectified, i), std::max<std::int64_t>(0, steps(t, i)));
    }
    for (const int axis : {0, 1, -1}) {
      const auto joined = t.concat(*rectified, axis);
      ASSERT_TRUE(joined) << joined.error().text();
      EXPECT_EQ(joined->shape(), axis == 0 ? Shape({4, 30}) : Shape({2, 60}));
      EXPECT_EQ(code(*joined, axis == 0 ? 60 : 30), code(*rectified, 0));
      EXPECT_EQ(code(*joined, axis == 0 ? 119 : 119), code(*rectified, 59));
    }
    const auto flat = t.reshape({60});
    ASSERT_TRUE(flat);
    EXPECT_EQ(flat->codes(), t.codes());
    EXPECT_FALSE(t.reshape({61}));
    EXPECT_FALSE(t.concat(at_scale(spec_of(8), 0.7f, shape, 1), 0));
    EXPECT_FALSE(t.concat(t, 2));
  }
  const QTensor grouped = quantized(group(4, 1, 16), shape, 4);
  EXPECT_THAT(grouped.reshape({60}).error().message, HasSubstr("several scales"));
  // The same patterns of another format, the same scales along another axis.
  QTensor e4m3 = quantized(minifloat(4, 3), {4}, 6);
  QuantParams e5m2 = e4m3.params();
  e5m2.spec = minifloat(5, 2);
  EXPECT_FALSE(e4m3.concat(*QTensor::from_codes(e5m2, {4}, e4m3.codes()), 0));
  const auto channels = [](int axis) {
    QuantParams p = *find_params(spec_of(8, Granularity::kChannel, axis), {2, 2}, std::vector<float>{1, 2, 3, 4}.data(), axis);
    p.scale = {1, 2};
    return *QTensor::from_codes(p, {2, 2}, {1, 2, 3, 4});
  };
  EXPECT_TRUE(channels(0).add(channels(0)));
  EXPECT_FALSE(channels(0).add(channels(1)));
  // A sum with the negated is zero, whatever was rounded before.
  const QTensor a = at_scale(spec_of(8), 0.1f, shape, 5);
  const auto nothing = a.add(*a.negate());
  ASSERT_TRUE(nothing);
  for (const float v : nothing->values()) EXPECT_EQ(v, 0);
}

}  // namespace
}  // namespace quanvas::quant::test
