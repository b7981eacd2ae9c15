// Quantizers that are no such: a sentence each, the node stays, nothing crashes.
#include <functional>

#include "tests/plugins/import_quantized_support.h"

namespace quanvas::import_test {
namespace {

using D = DataType;
using Ints = std::vector<std::int64_t>;

struct Case {
  std::string name;
  std::function<void(QuantizedProto&)> build;
  std::string says;  // part of an issue
};

void quantize(QuantizedProto& p, const std::string& scale, const std::string& zero) {
  p.node("QuantizeLinear", {"x", scale, zero}, {"q"});
  p.node("DequantizeLinear", {"q", scale, zero}, {"d"});
  p.conv("d", p.conv_weight(), "y");
}
void quant(QuantizedProto& p, const std::string& scale, const std::string& zero, const std::string& bits, const std::string& mode = "ROUND") {
  p.own("Quant", {"x", scale, zero, bits}, {"d"}, {attribute("signed", std::int64_t{1}), text_attribute("rounding_mode", mode)});
  p.conv("d", p.conv_weight(), "y");
}
void thresholds(QuantizedProto& p, const Shape& shape, const std::vector<float>& values) {
  p.reals("t", shape, values);
  p.own("MultiThreshold", {"x", "t"}, {"d"}, {text_attribute("out_dtype", "UINT2")}, "finn.custom_op.general");
  p.conv("d", p.conv_weight(), "y");
}

std::vector<Case> cases() {
  std::vector<Case> out;
  const float nan = std::nanf("");
  for (const auto& [name, scale] : {std::pair{"zero", 0.0f}, {"negative", -1.0f}, {"NaN", nan}, {"infinite", INFINITY}}) {
    out.push_back({std::string("QuantizeLinear with a scale that is ") + name,
                   [s = scale](QuantizedProto& p) { p.real("s", s), p.code("z", D::kInt8, 0), quantize(p, "s", "z"); },
                   "its scale is not above 0"});
    out.push_back({std::string("Quant with a scale that is ") + name,
                   [s = scale](QuantizedProto& p) { p.real("s", s), p.real("z", 0), p.real("b", 4), quant(p, "s", "z", "b"); },
                   "its scale is not above 0"});
  }
  for (const auto& [name, bits] : {std::pair{"0", 0.0f}, {"33", 33.0f}, {"2.5", 2.5f}, {"NaN", nan}, {"-4", -4.0f}})
    out.push_back({std::string("a bit width of ") + name,
                   [b = bits](QuantizedProto& p) { p.real("s", 1), p.real("z", 0), p.real("b", b), quant(p, "s", "z", "b"); },
                   "its bit width is no whole number from 1 to 32"});
  const std::vector<Case> more = {
      {"a scale that is missing", [](QuantizedProto& p) { p.real("z", 0), p.real("b", 4), quant(p, "", "z", "b"); }, "it has no scale"},
      {"a scale that is computed",
       [](QuantizedProto& p) {
         p.node("ReduceMax", {"x"}, {"s"}, {attribute("keepdims", std::int64_t{0})});
         p.real("z", 0), p.real("b", 4), quant(p, "s", "z", "b");
       },
       "its scale is not a constant"},
      {"a bit width that is computed",
       [](QuantizedProto& p) {
         p.node("ReduceMax", {"x"}, {"b"}, {attribute("keepdims", std::int64_t{0})});
         p.real("z", 0), p.real("s", 4), quant(p, "s", "z", "b");
       },
       "its bit width is not a constant"},
      {"several bit widths", [](QuantizedProto& p) { p.real("s", 1), p.real("z", 0), p.reals("b", {4}, {1, 2, 3, 4}), quant(p, "s", "z", "b"); },
       "its bit width is not a single number"},
      {"a rounding that nobody knows", [](QuantizedProto& p) { p.real("s", 1), p.real("z", 0), p.real("b", 4), quant(p, "s", "z", "b", "UPSIDE"); },
       "UPSIDE"},
      {"scales that fit no axis",
       [](QuantizedProto& p) { p.reals("s", {1, 7, 1, 1}, std::vector<float>(7, 1)), p.real("z", 0), p.real("b", 4), quant(p, "s", "z", "b"); },
       "are not one for each entry of one axis"},
      {"more scales than channels",
       [](QuantizedProto& p) {
         p.reals("s", {5}, std::vector<float>(5, 1)), p.codes("z", D::kInt8, {5}, Ints{0, 0, 0, 0, 0});
         quantize(p, "s", "z");
       },
       "do not fit"},
      {"a zero point of another size",
       [](QuantizedProto& p) { p.reals("s", {4}, std::vector<float>(4, 1)), p.code("z", D::kInt8, 0), quantize(p, "s", "z"); },
       "different sizes"},
      {"a zero point of another type",
       [](QuantizedProto& p) {
         p.real("s", 1), p.code("z", D::kInt8, 0), p.real("f", 0.5f);
         p.node("QuantizeLinear", {"x", "s", "z"}, {"q"});
         p.node("DequantizeLinear", {"q", "s", "f"}, {"d"});
         p.conv("d", p.conv_weight(), "y");
       },
       "another scale or zero point"},
      {"an axis that is none",
       [](QuantizedProto& p) {
         p.codes("w", D::kInt8, {3, 4, 3, 3}, -100, 100);
         p.reals("s", {3}, {1, 2, 3}), p.codes("z", D::kInt8, {3}, Ints{0, 0, 0});
         p.node("DequantizeLinear", {"w", "s", "z"}, {"d"}, {attribute("axis", std::int64_t{9})});
         p.conv("x", "d", "y");
       },
       "its axis 9 is none"},
      {"blocks that do not divide it",
       [](QuantizedProto& p) {
         p.codes("w", D::kInt8, {3, 4, 3, 3}, -100, 100);
         p.reals("s", {3, 3, 3, 3}, std::vector<float>(81, 1));
         p.node("DequantizeLinear", {"w", "s"}, {"d"}, {attribute("axis", std::int64_t{1}), attribute("block_size", std::int64_t{4})});
         p.conv("x", "d", "y");
       },
       "do not fit"},
      {"a Clip that leaves nothing",
       [](QuantizedProto& p) {
         p.real("s", 1), p.code("z", D::kInt8, 0), p.code("lo", D::kInt8, 5), p.code("hi", D::kInt8, -5);
         p.node("QuantizeLinear", {"x", "s", "z"}, {"q"});
         p.node("Clip", {"q", "lo", "hi"}, {"c"});
         p.node("DequantizeLinear", {"c", "s", "z"}, {"d"});
         p.conv("d", p.conv_weight(), "y");
       },
       "those of no integer format"},
      {"weights without data",
       [](QuantizedProto& p) {
         p.codes("w", D::kInt8, {3, 4, 3, 3}, Ints{1, 2, 3});
         p.real("s", 1);
         p.node("DequantizeLinear", {"w", "s"}, {"d"});
         p.conv("x", "d", "y");
       },
       ""},
      {"thresholds that do not ascend", [](QuantizedProto& p) { thresholds(p, {1, 3}, {1, 0, 2}); }, "do not ascend"},
      {"thresholds without channels", [](QuantizedProto& p) { thresholds(p, {3}, {0, 1, 2}); }, "[channels, steps]"},
      {"no thresholds", [](QuantizedProto& p) { thresholds(p, {0, 3}, {}); }, "[channels, steps]"},
      {"a threshold that is NaN", [=](QuantizedProto& p) { thresholds(p, {1, 3}, {0, nan, 2}); }, "not finite"},
      {"thresholds of other channels", [](QuantizedProto& p) { thresholds(p, {3, 2}, {0, 1, 2, 3, 4, 5}); }, "different thresholds"},
      {"a minifloat without a largest value",
       [=](QuantizedProto& p) {
         p.real("s", 1), p.real("e", 4), p.real("m", 3), p.real("b", 7), p.real("t", nan);
         p.own("FloatQuant", {"x", "s", "e", "m", "b", "t"}, {"d"});
         p.conv("d", p.conv_weight(), "y");
       },
       "largest value"},
      {"a minifloat of absurd widths",
       [](QuantizedProto& p) {
         p.real("s", 1), p.real("e", 400), p.real("m", 3e9f), p.real("b", 7), p.real("t", 1);
         p.own("FloatQuant", {"x", "s", "e", "m", "b", "t"}, {"d"});
         p.conv("d", p.conv_weight(), "y");
       },
       "no minifloat's"},
      {"no input at all",
       [](QuantizedProto& p) { p.real("s", 1), p.real("z", 0), p.real("b", 4), p.own("Quant", {"", "s", "z", "b"}, {"d"}), p.conv("d", p.conv_weight(), "y"); },
       "it has no input"},
      {"a quantizer that reads itself",
       [](QuantizedProto& p) { p.real("s", 1), p.real("z", 0), p.real("b", 4), p.own("Quant", {"d", "s", "z", "b"}, {"d"}), p.conv("d", p.conv_weight(), "y"); },
       ""},
  };
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

TEST(QuantizedHostile, EachIsASentenceAndNoneCrashes) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    QuantizedProto p;
    c.build(p);
    p.output("y");
    const Opened opened = open_bytes(p.bytes(), FileQuantizers::kRules);
    if (!opened.file) {
      EXPECT_GT(opened.file.error().message.size(), 20u);
      EXPECT_TRUE(c.says.empty()) << opened.file.error().text();
      continue;
    }
    EXPECT_NE(opened.all_issues().find(c.says), std::string::npos) << opened.all_issues();
    EXPECT_NE(opened.all_issues().find("stays a node"), std::string::npos) << opened.all_issues();
    const auto result = run(opened, {input_of(p.shape)});
    if (!result) EXPECT_GT(result.error().message.size(), 20u);
  }
}

// Every byte of a good file, wrong: refused, or opened and maybe run, but never a crash.
TEST(QuantizedHostile, DamagedFilesEndInSentences) {
  QuantizedProto p;
  p.codes("w", D::kInt8, {3, 4, 3, 3}, -100, 100);
  p.reals("ws", {3}, {0.1f, 0.2f, 0.3f});
  p.codes("wz", D::kInt8, {3}, Ints{0, 0, 0});
  p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {attribute("axis", std::int64_t{0})});
  p.conv(p.quant(p.qdq("x", 0.05f, D::kUint8, 3), 0.1f, 0, 4, false, false), "wd", "y");
  p.output("y");
  const std::string bytes = p.bytes();
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = bytes;
    for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    if (i % 5 == 0) damaged.resize(random() % damaged.size());
    const Opened opened = open_bytes(damaged, FileQuantizers::kRules);
    if (opened.file) (void)run(opened, {input_of(p.shape)});
  }
}

}  // namespace
}  // namespace quanvas::import_test
