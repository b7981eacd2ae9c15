// Files that are quantized already: each form opens as a float network with a recipe that computes what the file computes.
#include "tests/plugins/import_quantized_support.h"

#include <functional>

namespace quanvas::import_test {
namespace {

using D = DataType;
using Set = std::set<std::string>;
using Ints = std::vector<std::int64_t>;

struct Case {
  std::string name;
  std::function<void(QuantizedProto&)> build;  // from x to y
  Set formats;                                 // "Conv weight W8"
  std::multiset<std::string> left = {};        // quantizing nodes that stay
  Shape x = {2, 4, 6, 6};
  std::int64_t opset = 21;
  double tolerance = 0;
};

// DequantizeLinear of codes as the weight of a convolution of x_d.
void conv_of_codes(QuantizedProto& p, const std::string& x, D type, std::int64_t lo, std::int64_t hi, std::int64_t zero) {
  p.codes("w", type, {3, 4, 3, 3}, lo, hi);
  p.real("ws", 0.03125f);
  p.code("wz", type, zero);
  p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"});
  p.conv(x, "wd", "y");
}

std::vector<Case> qdq_cases() {
  return {
      {"int8 activation, int8 weight per channel, int32 bias",
       [](QuantizedProto& p) {
         p.codes("w", D::kInt8, {3, 4, 3, 3}, -128, 127);
         p.reals("ws", {3}, {0.01f, 0.02f, 0.003f});
         p.codes("wz", D::kInt8, {3}, Ints{0, 0, 0});
         p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {attribute("axis", std::int64_t{0})});
         p.codes("b", D::kInt32, {3}, Ints{1000, -77, 123456});
         p.reals("bs", {3}, {0.017f * 0.01f, 0.017f * 0.02f, 0.017f * 0.003f});
         p.node("DequantizeLinear", {"b", "bs"}, {"bd"}, {attribute("axis", std::int64_t{0})});
         p.conv(p.qdq("x", 0.017f, D::kInt8, 0), "wd", "y", "bd");
       },
       {"Conv input A8", "Conv weight W8", "Conv bias B32"}},
      {"uint8 activation with a zero point, uint8 weight with one",
       [](QuantizedProto& p) { conv_of_codes(p, p.qdq("x", 0.02f, D::kUint8, 117), D::kUint8, 0, 255, 130); },
       {"Conv input U8", "Conv weight U8"}},
      {"int16 activation, uint16 weight",
       [](QuantizedProto& p) { conv_of_codes(p, p.qdq("x", 0.0001f, D::kInt16, 0), D::kUint16, 0, 65535, 32768); },
       {"Conv input A16", "Conv weight U10"}},
      {"int4 weight", [](QuantizedProto& p) { conv_of_codes(p, "x", D::kInt4, -8, 7, 0); }, {"Conv weight W4"}},
      {"uint4 weight with a zero point", [](QuantizedProto& p) { conv_of_codes(p, "x", D::kUint4, 0, 15, 7); },
       {"Conv weight U4"}},
      {"int4 weight in blocks with zero points",
       [](QuantizedProto& p) {
         p.codes("w", D::kUint4, {10, 5}, 0, 15);
         p.noise("ws0", {3, 5}, 1);
         std::vector<float> s = random_values(15, 3);
         for (float& v : s) v = 0.05f + v * v;
         p.reals("ws", {3, 5}, s);
         p.codes("wz", D::kUint4, {3, 5}, 0, 9);
         p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {attribute("axis", std::int64_t{0}), attribute("block_size", std::int64_t{4})});
         p.node("MatMul", {"x", "wd"}, {"y"});
       },
       {"MatMul weight U4 g4"}, {}, {3, 10}},
      {"3 bit activation and narrow 4 bit weight by Clip",
       [](QuantizedProto& p) {
         p.real("xs", 0.4f);
         p.code("xz", D::kUint8, 0);
         p.code("lo", D::kUint8, 0);
         p.code("hi", D::kUint8, 7);
         p.node("QuantizeLinear", {"x", "xs", "xz"}, {"xq"});
         p.node("Clip", {"xq", "lo", "hi"}, {"xc"});
         p.node("DequantizeLinear", {"xc", "xs", "xz"}, {"xd"});
         p.code("wlo", D::kInt8, -7);
         p.code("whi", D::kInt8, 7);
         p.codes("w", D::kInt8, {3, 4, 3, 3}, -7, 7);
         p.node("Clip", {"w", "wlo", "whi"}, {"wc"});
         p.real("ws", 0.1f);
         p.code("wz", D::kInt8, 0);
         p.node("DequantizeLinear", {"wc", "ws", "wz"}, {"wd"});
         p.conv("xd", "wd", "y");
       },
       {"Conv input U3", "Conv weight W4"}},
      {"float weight quantized in the file",
       [](QuantizedProto& p) { p.conv(p.qdq("x", 0.02f, D::kInt8, 3), p.qdq(p.conv_weight(), 0.004f, D::kInt8, 0), "y"); },
       {"Conv input A8", "Conv weight W8"}},
      {"float8 of both kinds",
       [](QuantizedProto& p) {
         p.conv(p.qdq("x", 0.01f, D::kFloat8E4M3Fn, 0), p.qdq(p.conv_weight(), 0.002f, D::kFloat8E5M2, 0), "y");
       },
       {"Conv input E4M3", "Conv weight E5M2"}},
      {"float8 without negative zero, codes in the file",
       [](QuantizedProto& p) {
         p.raw("w", D::kFloat8E4M3Fnuz, {3, 4, 3, 3}, std::string(108, '\x3a'));
         p.real("ws", 0.3f);
         p.node("DequantizeLinear", {"w", "ws"}, {"wd"});
         p.conv(p.qdq("x", 0.01f, D::kFloat8E5M2Fnuz, 0), "wd", "y");
       },
       {"Conv input E5M2", "Conv weight E4M3"}},
      {"the result of the network",
       [](QuantizedProto& p) {
         p.conv("x", p.conv_weight(), "c");
         p.real("s", 0.05f);
         p.code("z", D::kUint8, 128);
         p.node("QuantizeLinear", {"c", "s", "z"}, {"cq"});
         p.node("DequantizeLinear", {"cq", "s", "z"}, {"y"});
       },
       {"Conv output U8"}},
      {"behind operators that move elements",
       [](QuantizedProto& p) {
         p.node("MaxPool", {p.qdq("x", 0.05f, D::kInt8, 4)}, {"m"}, {attribute("kernel_shape", Ints{2, 2}), attribute("strides", Ints{2, 2})});
         p.node("Flatten", {"m"}, {"f"});
         p.noise("w", {36, 5}, 3);
         p.node("MatMul", {"f", "w"}, {"y"});
       },
       {"MatMul input A8"}},
      {"two layers read it",
       [](QuantizedProto& p) {
         const std::string x = p.qdq("x", 0.05f, D::kInt8, 0);
         p.conv(x, p.conv_weight(), "c");
         p.conv(x, p.noise("v", {3, 4, 3, 3}, 9), "d");
         p.node("Add", {"c", "d"}, {"y"});
       },
       {"Conv input A8"}},
      {"both operands of an addition",
       [](QuantizedProto& p) {
         p.node("Relu", {"x"}, {"r"});
         p.node("Add", {p.qdq("r", 0.05f, D::kUint8, 0), p.qdq("x", 0.03f, D::kInt8, 0)}, {"y"});
       },
       {"Add input U8", "Add input 1 A8"}},
      {"transposed weight of a product",
       [](QuantizedProto& p) {
         p.codes("w", D::kInt8, {5, 10}, -100, 100);
         p.reals("ws", {5}, {0.1f, 0.2f, 0.3f, 0.4f, 0.5f});
         p.codes("wz", D::kInt8, {5}, Ints{0, 0, 0, 0, 0});
         p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {attribute("axis", std::int64_t{0})});
         p.node("Transpose", {"wd"}, {"wt"}, {attribute("perm", Ints{1, 0})});
         p.node("MatMul", {"x", "wt"}, {"y"});
       },
       {"MatMul weight W8"}, {}, {3, 10}},
      {"a constant that is no weight, and a tensor that the network gives",
       [](QuantizedProto& p) {
         p.codes("c", D::kInt8, {4, 6, 6}, -100, 100);
         p.real("cs", 0.1f);
         p.code("cz", D::kInt8, 0);
         p.node("DequantizeLinear", {"c", "cs", "cz"}, {"cd"});
         p.node("Add", {"x", "cd"}, {"y"});
       },
       {}, {"DequantizeLinear"}},
      {"another scale on the way back",
       [](QuantizedProto& p) {
         p.real("a", 0.05f);
         p.real("b", 0.1f);
         p.code("z", D::kInt8, 0);
         p.node("QuantizeLinear", {"x", "a", "z"}, {"q"});
         p.node("DequantizeLinear", {"q", "b", "z"}, {"d"});
         p.conv("d", p.conv_weight(), "y");
       },
       {}, {"QuantizeLinear", "DequantizeLinear"}},
  };
}

std::vector<Case> qoperator_cases() {
  const auto quantized_input = [](QuantizedProto& p) {
    p.real("xs", 0.02f);
    p.code("xz", D::kUint8, 120);
    p.node("QuantizeLinear", {"x", "xs", "xz"}, {"xq"});
  };
  const auto real_output = [](QuantizedProto& p, const std::string& codes) { p.node("DequantizeLinear", {codes, "ys", "yz"}, {"y"}); };
  const auto qlinear_conv = [](QuantizedProto& p, const std::string& y) {
    p.codes("w", D::kInt8, {3, 4, 3, 3}, -120, 120);
    p.reals("ws", {3}, {0.01f, 0.002f, 0.005f});
    p.codes("wz", D::kInt8, {3}, Ints{0, 0, 0});
    p.codes("b", D::kInt32, {3}, Ints{100, -2000, 3000});
    p.real("ys", 0.06f);
    p.code("yz", D::kUint8, 100);
    p.node("QLinearConv", {"xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"}, {y},
           {attribute("kernel_shape", Ints{3, 3}), attribute("pads", Ints{1, 1, 1, 1})});
  };
  return {
      {"QLinearConv",
       [=](QuantizedProto& p) { quantized_input(p), qlinear_conv(p, "yq"), real_output(p, "yq"); },
       {"Conv input U8", "Conv weight W8", "Conv bias B32", "Conv output U8"}},
      {"QLinearConv, MaxPool and Reshape on codes, QLinearMatMul",
       [=](QuantizedProto& p) {
         quantized_input(p), qlinear_conv(p, "c");
         p.node("MaxPool", {"c"}, {"m"}, {attribute("kernel_shape", Ints{2, 2}), attribute("strides", Ints{2, 2})});
         p.node("Flatten", {"m"}, {"f"});
         p.codes("v", D::kInt8, {27, 5}, -120, 120);
         p.real("vs", 0.004f);
         p.code("vz", D::kInt8, 2);
         p.real("zs", 0.1f);
         p.code("zz", D::kUint8, 128);
         p.node("QLinearMatMul", {"f", "ys", "yz", "v", "vs", "vz", "zs", "zz"}, {"o"});
         p.node("DequantizeLinear", {"o", "zs", "zz"}, {"y"});
       },
       {"Conv input U8", "Conv weight W8", "Conv bias B32", "MatMul input U8", "MatMul weight W8", "MatMul output U8"}},
      {"codes are the result",
       [=](QuantizedProto& p) {
         quantized_input(p);
         p.node("Flatten", {"xq"}, {"f"});
         p.node("Cast", {"f"}, {"y"}, {attribute("to", std::int64_t{1})});
       },
       {}, {"QuantizeLinear"}},
      {"a scale that is made at run time",
       [](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kInt8, {10, 5}, -120, 120);
         p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         p.node("Cast", {"i"}, {"c"}, {attribute("to", std::int64_t{1})});
         p.node("Mul", {"c", "xs"}, {"y"});
       },
       {}, {"DynamicQuantizeLinear", "MatMulInteger"}, {3, 10}},
  };
}

std::vector<Case> qonnx_cases() {
  std::vector<Case> out = {
      {"narrow weight, unsigned activation",
       [](QuantizedProto& p) { p.conv(p.quant("x", 0.1f, 0, 4, false, false), p.quant(p.conv_weight(), 0.06f, 0, 4, true, true), "y"); },
       {"Conv input U4", "Conv weight W4"}},
      {"zero point inside the rounding",
       [](QuantizedProto& p) { p.conv(p.quant("x", 0.1f, 3, 5, false, true), p.conv_weight(), "y"); },
       {"Conv input U5"}},
      {"scales of the channels",
       [](QuantizedProto& p) {
         p.conv_weight();
         p.reals("ws", {3, 1, 1, 1}, {0.1f, 0.2f, 0.05f});
         p.real("wz", 0);
         p.real("wb", 3);
         p.own("IntQuant", {"w", "ws", "wz", "wb"}, {"wd"}, {attribute("signed", std::int64_t{1}), attribute("narrow", std::int64_t{1})});
         p.conv("x", "wd", "y");
       },
       {"Conv weight W3"}},
      {"old domain, weight transposed behind its quantizer",
       [](QuantizedProto& p) {
         p.noise("w", {5, 10}, 3);
         p.node("Transpose", {p.quant("w", 0.5f, 0, 2, true, true, "ROUND", "onnx.brevitas")}, {"wt"}, {attribute("perm", Ints{1, 0})});
         p.node("MatMul", {p.quant("x", 1, 0, 2, true, true, "ROUND", "onnx.brevitas"), "wt"}, {"y"});
       },
       {"MatMul input A2", "MatMul weight W2"}, {}, {3, 10}},
      {"no domain at all",
       [](QuantizedProto& p) { p.conv(p.quant("x", 0.25f, 0, 6, true, false, "ROUND", ""), p.conv_weight(), "y"); },
       {"Conv input A6"}},
      {"one signed bit is a sign",
       [](QuantizedProto& p) { p.conv(p.quant("x", 0.5f, 0, 1, true, false), p.conv_weight(), "y"); }, {"Conv input A1"}},
      {"BipolarQuant",
       [](QuantizedProto& p) {
         p.real("s", 0.5f);
         p.reals("ws", {3, 1, 1, 1}, {0.1f, 0.2f, 0.05f});
         p.own("BipolarQuant", {"x", "s"}, {"xd"});
         p.own("BipolarQuant", {p.conv_weight(), "ws"}, {"wd"});
         p.conv("xd", "wd", "y");
       },
       {"Conv input A1", "Conv weight W1"}},
      {"FloatQuant",
       [](QuantizedProto& p) {
         p.real("s", 0.003f);
         p.real("e", 4);
         p.real("m", 3);
         p.real("bias", 7);
         p.real("most", 448);
         p.real("most_mx", 480);
         p.own("FloatQuant", {"x", "s", "e", "m", "bias", "most"}, {"xd"}, {attribute("has_nan", std::int64_t{1}), attribute("saturation", std::int64_t{1})});
         p.own("FloatQuant", {p.conv_weight(), "s", "e", "m", "bias", "most_mx"}, {"wd"});
         p.conv("xd", "wd", "y");
       },
       {"Conv input E4M3", "Conv weight E4M3"}},
      {"a largest value that is no pattern",
       [](QuantizedProto& p) {
         p.real("s", 0.003f);
         p.real("e", 4);
         p.real("m", 3);
         p.real("bias", 7);
         p.real("most", 300);
         p.own("FloatQuant", {"x", "s", "e", "m", "bias", "most"}, {"xd"});
         p.conv("xd", p.conv_weight(), "y");
       },
       {}, {"FloatQuant"}},
      {"Trunc of two versions",
       [](QuantizedProto& p) {
         const std::string x = p.quant("x", 0.125f, 0, 8, true, false);
         p.real("b", 8);
         p.real("o", 5);
         p.real("os", 0.5f);
         p.own("Trunc", {x, "x_s", "x_z", "b", "o"}, {"t"}, {text_attribute("rounding_mode", "FLOOR")});
         p.own("Trunc", {x, "x_s", "x_z", "b", "os", "o"}, {"u"}, {text_attribute("rounding_mode", "ROUND")});
         p.node("Add", {"t", "u"}, {"y"});
       },
       {}, {"Quant", "Trunc", "Trunc"}},
      {"a fraction as zero point", [](QuantizedProto& p) { p.conv(p.quant("x", 0.1f, 2.5f, 5, false, false), p.conv_weight(), "y"); },
       {}, {"Quant"}},
      {"scales along two axes",
       [](QuantizedProto& p) {
         p.reals("ws", {3, 4, 1, 1}, std::vector<float>(12, 0.25f));
         p.real("wz", 0);
         p.real("wb", 3);
         p.own("Quant", {p.conv_weight(), "ws", "wz", "wb"}, {"wd"}, {attribute("signed", std::int64_t{1})});
         p.conv("x", "wd", "y");
       },
       {}, {"Quant"}},
  };
  for (const char* mode : {"ROUND", "half_even", "CEIL", "FLOOR", "DOWN", "ROUND_TO_ZERO", "DPU", "HALF_UP"})
    out.push_back({std::string("rounding ") + mode,
                   [mode](QuantizedProto& p) { p.conv(p.quant("x", 0.25f, 0, 4, true, false, mode), p.conv_weight(), "y"); },
                   {"Conv input A4"}});
  for (const char* mode : {"UP", "HALF_DOWN"})
    out.push_back({std::string("rounding ") + mode,
                   [mode](QuantizedProto& p) { p.conv(p.quant("x", 0.25f, 0, 4, true, false, mode), p.conv_weight(), "y"); },
                   {}, {"Quant"}});
  return out;
}

void thresholds(QuantizedProto& p, int channels, const std::vector<float>& t, float scale, float bias, const std::string& y) {
  std::vector<float> all;
  for (int c = 0; c < channels; ++c) all.insert(all.end(), t.begin(), t.end());
  p.reals("t", {channels, static_cast<std::int64_t>(t.size())}, all);
  p.own("MultiThreshold", {"x", "t"}, {y}, {text_attribute("out_dtype", "UINT2"), real_attribute("out_scale", scale), real_attribute("out_bias", bias)},
        "finn.custom_op.general");
}

std::vector<Case> threshold_cases() {
  return {
      {"unsigned, the scale in the node",
       [](QuantizedProto& p) { thresholds(p, 4, {0.25f, 0.75f, 1.25f}, 0.5f, 0, "h"), p.conv("h", p.conv_weight(), "y"); },
       {"Conv input U2"}},
      {"unsigned, the scale behind the node",
       [](QuantizedProto& p) {
         thresholds(p, 1, {0.25f, 0.75f, 1.25f}, 1, 0, "h");
         p.real("s", 0.5f);
         p.node("Mul", {"h", "s"}, {"hs"});
         p.conv("hs", p.conv_weight(), "y");
       },
       {"Conv input U2"}},
      {"signed, with ties to even",
       [](QuantizedProto& p) {
         thresholds(p, 4, {std::nextafter(-0.75f, 1.0f), -0.25f, std::nextafter(0.25f, 1.0f)}, 0.5f, -1.0f, "h");
         p.conv("h", p.conv_weight(), "y");
       },
       {"Conv input A2"}},
      {"signed, with ties that no rounding has",
       [](QuantizedProto& p) {
         thresholds(p, 4, {-0.75f, std::nextafter(-0.25f, 1.0f), 0.25f}, 0.5f, -1.0f, "h");
         p.conv("h", p.conv_weight(), "y");
       },
       {}, {"MultiThreshold"}},
      {"signed",
       [](QuantizedProto& p) { thresholds(p, 4, {-0.75f, -0.25f, 0.25f}, 0.5f, -1.0f, "h"), p.conv("h", p.conv_weight(), "y"); },
       {"Conv input A2"}},
      {"bipolar", [](QuantizedProto& p) { thresholds(p, 4, {0}, 2, -1, "h"), p.conv("h", p.conv_weight(), "y"); }, {"Conv input A1"}},
      {"no layer reads it",
       [](QuantizedProto& p) { thresholds(p, 4, {0.25f, 0.75f, 1.25f}, 0.5f, 0, "h"), p.node("Neg", {"h"}, {"y"}); },
       {"Relu output U2"}},
      {"uneven", [](QuantizedProto& p) { thresholds(p, 4, {0.25f, 0.5f, 1.25f}, 0.5f, 0, "h"), p.conv("h", p.conv_weight(), "y"); },
       {}, {"MultiThreshold"}},
  };
}

class QuantizedFile : public ::testing::TestWithParam<Case> {};

std::multiset<std::string> quantizing(const std::multiset<std::string>& ops) {
  static const Set known = {"QuantizeLinear", "DequantizeLinear", "Quant", "IntQuant", "BipolarQuant", "FloatQuant", "Trunc",
                            "MultiThreshold", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"};
  std::multiset<std::string> out;
  for (const std::string& op : ops)
    if (known.count(op)) out.insert(op);
  return out;
}

TEST_P(QuantizedFile, TheRecipeComputesWhatTheNodesCompute) {
  const Case& c = GetParam();
  QuantizedProto p(c.opset, c.x);
  c.build(p);
  p.output("y");
  const Opened rules = open_bytes(p.bytes(), FileQuantizers::kRules), nodes = open_bytes(p.bytes(), FileQuantizers::kNodes);
  ASSERT_TRUE(rules.file) << rules.file.error().text();
  ASSERT_TRUE(nodes.file) << nodes.file.error().text();
  EXPECT_FALSE(nodes.file->recipe);
  EXPECT_EQ(formats_of(*rules.file), c.formats) << rules.all_issues();
  EXPECT_EQ(quantizing(rules.ops()), c.left) << rules.all_issues();
  // None vanishes without a word.
  if (!c.left.empty()) EXPECT_NE(rules.all_issues().find("stays a node"), std::string::npos) << rules.all_issues();
  const at::Tensor x = input_of(c.x);
  const auto want = run(nodes, {x}), got = run(rules, {x});
  ASSERT_TRUE(want) << want.error().text();
  ASSERT_TRUE(got) << got.error().text();
  ASSERT_EQ(got->size(), want->size());
  EXPECT_LE(difference((*got)[0], (*want)[0]), c.tolerance);
  if (c.formats.empty()) return;
  // And it is the recipe that does it.
  Opened plain = open_bytes(p.bytes(), FileQuantizers::kRules);
  plain.file->recipe.reset();
  const auto without = run(plain, {x});
  ASSERT_TRUE(without) << without.error().text();
  if (c.formats != Set{"Conv weight W4"} && c.formats.size() > 1) EXPECT_GT(difference((*without)[0], (*want)[0]), 0);
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name;
  for (const char ch : info.param.name) name += std::isalnum(static_cast<unsigned char>(ch)) ? ch : '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Qdq, QuantizedFile, ::testing::ValuesIn(qdq_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(QOperator, QuantizedFile, ::testing::ValuesIn(qoperator_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Qonnx, QuantizedFile, ::testing::ValuesIn(qonnx_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Finn, QuantizedFile, ::testing::ValuesIn(threshold_cases()), case_name);

}  // namespace
}  // namespace quanvas::import_test
