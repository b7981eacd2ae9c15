// Operators on codes of com.microsoft: what they stand for on real numbers.
#include "tests/plugins/import_quantized_operators.h"

namespace quanvas::import_test {
namespace {

TEST(QuantizedOperators, AreTheOperatorOnRealNumbersBetweenQuantizers) {
  for (const OperatorCase& c : operator_cases()) {
    SCOPED_TRACE(c.name);
    const Opened rules = open_bytes(operator_file(c, true).bytes(), FileQuantizers::kRules);
    const Opened nodes = open_bytes(operator_file(c, false).bytes(), FileQuantizers::kNodes);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    ASSERT_TRUE(nodes.file) << nodes.file.error().text();
    EXPECT_FALSE(formats_of(*rules.file).empty());
    for (const std::string& op : rules.ops()) EXPECT_TRUE(op[0] != 'Q' && op != "DequantizeLinear") << op << "\n" << rules.all_issues();
    const at::Tensor x = input_of(c.x);
    const auto got = run(rules, {x}), want = run(nodes, {x});
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_TRUE(want) << want.error().text();
    EXPECT_EQ(difference((*got)[0], (*want)[0]), 0);
  }
}

// What quantize_dynamic of onnxruntime writes: the activation's scale is found at each run, its codes are multiplied as integers.
struct DynamicCase {
  std::string name;
  Shape x;
  std::function<void(QuantizedProto&)> build;
  std::set<std::string> formats;
  std::multiset<std::string> ops;  // of the float network
};

void sums_to_real(QuantizedProto& p, const std::string& sums, const std::string& weight_scale, const std::string& result, bool swapped = false) {
  p.node("Cast", {sums}, {sums + "_f"}, {attribute("to", std::int64_t{1})});
  p.node("Mul", swapped ? Names{weight_scale, "xs"} : Names{"xs", weight_scale}, {sums + "_s"});
  p.node("Mul", swapped ? Names{sums + "_s", sums + "_f"} : Names{sums + "_f", sums + "_s"}, {result});
}

std::vector<DynamicCase> dynamic_cases() {
  using D = DataType;
  using Ints = std::vector<std::int64_t>;
  const auto linear = [](QuantizedProto& p) {
    p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
    p.codes("w", D::kInt8, {10, 5}, -120, 120);
  };
  return {
      {"per tensor", {1, 10}, [=](QuantizedProto& p) {
         linear(p), p.real("ws", 0.03f), p.code("wz", D::kInt8, 3);
         p.node("MatMulInteger", {"xq", "w", "xz", "wz"}, {"i"});
         sums_to_real(p, "i", "ws", "y");
       }, {"MatMul input U8", "MatMul weight W8"}, {"MatMul"}},
      {"per channel, no zero point, operands swapped", {1, 10}, [=](QuantizedProto& p) {
         linear(p), p.reals("ws", {5}, {0.1f, 0.02f, 0.03f, 0.04f, 0.05f});
         p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         sums_to_real(p, "i", "ws", "y", true);
       }, {"MatMul input U8", "MatMul weight W8"}, {"MatMul"}},
      {"scales of channels with one zero point, and a bias", {1, 3, 10}, [=](QuantizedProto& p) {
         linear(p), p.reals("ws", {1, 5}, {0.1f, 0.02f, 0.03f, 0.04f, 0.05f}), p.code("wz", D::kInt8, -2), p.noise("b", {5}, 4);
         p.node("MatMulInteger", {"xq", "w", "xz", "wz"}, {"i"});
         sums_to_real(p, "i", "ws", "r");
         p.node("Add", {"r", "b"}, {"y"});
       }, {"MatMul input U8", "MatMul weight W8"}, {"MatMul"}},
      {"two layers read one", {1, 10}, [=](QuantizedProto& p) {
         linear(p), p.real("ws", 0.03f), p.codes("v", D::kInt8, {10, 5}, -90, 127), p.real("vs", 0.02f);
         p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"}), p.node("MatMulInteger", {"xq", "v", "xz"}, {"j"});
         sums_to_real(p, "i", "ws", "r"), sums_to_real(p, "j", "vs", "s");
         p.node("Sub", {"r", "s"}, {"y"});
       }, {"MatMul input U8", "MatMul weight W8"}, {"MatMul", "MatMul", "Sub"}},
      {"convolution", {1, 4, 6, 6}, [=](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kUint8, {3, 4, 3, 3}, 0, 255), p.real("ws", 0.01f), p.code("wz", D::kUint8, 120);
         p.node("ConvInteger", {"xq", "w", "xz", "wz"}, {"i"}, {attribute("kernel_shape", Ints{3, 3}), attribute("strides", Ints{2, 2})});
         sums_to_real(p, "i", "ws", "y");
       }, {"Conv input U8", "Conv weight U8"}, {"Conv"}},
  };
}

TEST(DynamicQuantization, BecomesDynamicInputsAndWeightsOfAFloatNetwork) {
  for (const DynamicCase& c : dynamic_cases()) {
    SCOPED_TRACE(c.name);
    QuantizedProto p(17, c.x);
    p.model.set_ir_version(8);
    c.build(p);
    p.output("y");
    const Opened rules = open_bytes(p.bytes(), FileQuantizers::kRules), nodes = open_bytes(p.bytes(), FileQuantizers::kNodes);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    ASSERT_TRUE(nodes.file) << nodes.file.error().text();
    EXPECT_EQ(formats_of(*rules.file), c.formats) << rules.all_issues();
    EXPECT_EQ(rules.ops(), c.ops) << rules.all_issues();
    const at::Tensor x = input_of(c.x);
    const auto got = run(rules, {x}), want = run(nodes, {x});
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_TRUE(want) << want.error().text();
    // Sums of integers are exact there, and rounded to float32 here.
    EXPECT_LT(difference((*got)[0], (*want)[0]), 1e-6);
  }
}

TEST(DynamicQuantization, ProductsOfTheDomainOfOnnxruntime) {
  using D = DataType;
  const char* ms = "com.microsoft";
  const auto file = [&](int form, bool bias) {
    QuantizedProto p(17, {1, 10});
    p.model.set_ir_version(8);
    p.codes("w", D::kInt8, {10, 5}, -120, 120), p.real("ws", 0.03f), p.code("wz", D::kInt8, 3), p.noise("b", {5}, 4);
    if (form != 0) p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
    const std::string end = bias && form == 2 ? "r" : "y";
    if (form == 0) p.own("DynamicQuantizeMatMul", bias ? Names{"x", "w", "ws", "wz", "b"} : Names{"x", "w", "ws", "wz"}, {"y"}, {}, ms);
    if (form == 1) p.own("MatMulIntegerToFloat", bias ? Names{"xq", "w", "xs", "ws", "xz", "wz", "b"} : Names{"xq", "w", "xs", "ws", "xz", "wz"}, {"y"}, {}, ms);
    if (form == 2) p.node("MatMulInteger", {"xq", "w", "xz", "wz"}, {"i"}), sums_to_real(p, "i", "ws", end);
    if (end == "r") p.node("Add", {"r", "b"}, {"y"});
    p.output("y");
    return p.bytes();
  };
  for (const bool bias : {false, true})
    for (const int form : {0, 1}) {
      SCOPED_TRACE(form);
      const Opened rules = open_bytes(file(form, bias), FileQuantizers::kRules), spelled = open_bytes(file(2, bias), FileQuantizers::kRules);
      ASSERT_TRUE(rules.file) << rules.file.error().text();
      EXPECT_EQ(formats_of(*rules.file), (std::set<std::string>{"MatMul input U8", "MatMul weight W8"})) << rules.all_issues();
      const auto got = run(rules, {input_of({1, 10})}), want = run(spelled, {input_of({1, 10})});
      ASSERT_TRUE(got) << got.error().text();
      ASSERT_TRUE(want) << want.error().text();
      EXPECT_EQ(difference((*got)[0], (*want)[0]), 0);
    }
}

// Scales that ONNX spreads along another axis than that of the output channels.
TEST(DynamicQuantization, ScalesOfRowsAndColumnsAreNotThoseOfChannels) {
  using D = DataType;
  struct Row {
    const char* what;
    Shape x;
    std::function<void(QuantizedProto&)> build;
  };
  const Row rows[] = {
      {"rows of a product", {5, 10}, [](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kInt8, {10, 5}, -120, 120), p.reals("ws", {5, 1}, {0.1f, 0.02f, 0.03f, 0.04f, 0.05f});
         p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         sums_to_real(p, "i", "ws", "y");
       }},
      {"columns of a picture", {1, 2, 5, 5}, [](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kInt8, {3, 2, 3, 3}, -120, 120), p.reals("ws", {3}, {0.1f, 0.02f, 0.03f});
         p.node("ConvInteger", {"xq", "w", "xz"}, {"i"}, {attribute("kernel_shape", std::vector<std::int64_t>{3, 3})});
         sums_to_real(p, "i", "ws", "y");
       }},
      {"an axis more", {3, 10}, [](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kInt8, {10, 5}, -120, 120), p.reals("ws", {1, 1, 1, 5}, {0.1f, 0.02f, 0.03f, 0.04f, 0.05f});
         p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         sums_to_real(p, "i", "ws", "y");
       }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    QuantizedProto p(17, row.x);
    p.model.set_ir_version(8);
    row.build(p);
    p.output("y");
    const Opened rules = open_bytes(p.bytes(), FileQuantizers::kRules), nodes = open_bytes(p.bytes(), FileQuantizers::kNodes);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    const auto got = run(rules, {input_of(row.x)}), want = run(nodes, {input_of(row.x)});
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_TRUE(want) << want.error().text();
    EXPECT_EQ((*got)[0].sizes(), (*want)[0].sizes());
    EXPECT_EQ(difference((*got)[0], (*want)[0]), 0);
  }
}

// Nodes that look alike and are none of these stay and run as they stand.
TEST(DynamicQuantization, OtherUsesStayNodes) {
  using D = DataType;
  struct Row {
    const char* what;
    std::function<void(QuantizedProto&)> build;
  };
  const auto begin = [](QuantizedProto& p) {
    p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
    p.codes("w", D::kInt8, {10, 5}, -120, 120), p.real("ws", 0.03f);
  };
  const Row rows[] = {
      {"the codes are a result", [=](QuantizedProto& p) { begin(p), p.node("Cast", {"xq"}, {"y"}, {attribute("to", std::int64_t{1})}); }},
      {"another zero point", [=](QuantizedProto& p) {
         begin(p), p.code("z", D::kUint8, 7), p.node("MatMulInteger", {"xq", "w", "z"}, {"i"});
         sums_to_real(p, "i", "ws", "y");
       }},
      {"a computed weight scale", [=](QuantizedProto& p) {
         begin(p), p.node("Exp", {"ws"}, {"e0"}), p.node("Mul", {"e0", "xs"}, {"e"}), p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         p.node("Cast", {"i"}, {"f"}, {attribute("to", std::int64_t{1})}), p.node("Mul", {"xs", "xs"}, {"ss"}), p.node("Mul", {"f", "ss"}, {"y"});
       }},
      {"a scale for each row", [=](QuantizedProto& p) {
         p.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
         p.codes("w", D::kInt8, {10, 1}, -120, 120), p.reals("rs", {1, 1, 1, 1}, {0.03f}), p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         sums_to_real(p, "i", "rs", "y");
       }},
      {"as many scales as inputs", [=](QuantizedProto& p) {
         begin(p), p.reals("vs", {1, 1}, {0.5f}), p.reals("us", {10}, std::vector<float>(10, 0.1f)), p.node("MatMulInteger", {"xq", "w", "xz"}, {"i"});
         p.node("Cast", {"i"}, {"f"}, {attribute("to", std::int64_t{1})}), p.node("Mul", {"xs", "us"}, {"m"}), p.node("ReduceSum", {"m"}, {"k"}), p.node("Mul", {"f", "k"}, {"y"});
       }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    QuantizedProto p(17, {1, 10});
    p.model.set_ir_version(8);
    row.build(p);
    p.output("y");
    const Opened rules = open_bytes(p.bytes(), FileQuantizers::kRules), nodes = open_bytes(p.bytes(), FileQuantizers::kNodes);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    EXPECT_TRUE(formats_of(*rules.file).empty()) << rules.all_issues();
    EXPECT_NE(rules.all_issues().find("DynamicQuantizeLinear"), std::string::npos) << rules.all_issues();
    const auto got = run(rules, {input_of({1, 10})}), want = run(nodes, {input_of({1, 10})});
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_TRUE(want) << want.error().text();
    EXPECT_EQ(difference((*got)[0], (*want)[0]), 0);
  }
}

// What nobody executes here is said, and stays.
TEST(QuantizedOperators, OthersOfTheDomainAreOpaque) {
  QuantizedProto p(17, {2, 3, 10});
  p.own("QAttention", {"x", "x", "x", "x", "x"}, {"y"}, {}, "com.microsoft");
  p.output("y");
  const Opened opened = open_bytes(p.bytes(), FileQuantizers::kRules);
  ASSERT_TRUE(opened.file) << opened.file.error().text();
  EXPECT_NE(opened.all_issues().find("QAttention"), std::string::npos) << opened.all_issues();
}

// QuantAvgPool2d of qonnx: the sum of each window, which has as many bits as the greatest one takes, shifted to obits.
TEST(QuantizedOperators, AveragesOfWholeNumbersAreShiftedSums) {
  struct Row {
    std::int64_t kernel, stride, ibits, obits;
    bool is_signed;
    int shift;
  };
  const Row rows[] = {{2, 2, 4, 4, false, 2}, {2, 1, 4, 2, true, 4}, {3, 3, 4, 4, false, 4}, {3, 1, 8, 8, true, 4},
                      {4, 2, 2, 8, false, 0}, {1, 1, 5, 5, true, 0}, {2, 2, 8, 1, false, 9}};
  for (const char* domain : {"qonnx.custom_op.general", "finn.custom_op.general"})
    for (const Row& r : rows) {
      SCOPED_TRACE(std::to_string(r.kernel) + "x, " + std::to_string(r.ibits) + " to " + std::to_string(r.obits));
      QuantizedProto p(13, {2, 3, 8, 8});
      p.own("QuantAvgPool2d", {"x"}, {"y"},
            {attribute("kernel", r.kernel), attribute("stride", r.stride), attribute("ibits", r.ibits), attribute("obits", r.obits),
             attribute("signed", std::int64_t{r.is_signed}), text_attribute("data_layout", "NCHW")},
            domain);
      p.output("y");
      const double least = r.is_signed ? -std::exp2(static_cast<double>(r.ibits - 1)) : 0, count = std::exp2(static_cast<double>(r.ibits));
      at::manual_seed(4);
      const at::Tensor x = at::floor(at::rand({2, 3, 8, 8}) * count) + least;
      const at::Tensor sums = at::round(at::avg_pool2d(x.to(at::kDouble), r.kernel, r.stride) * static_cast<double>(r.kernel * r.kernel));
      const at::Tensor want = at::floor(sums / std::exp2(r.shift)).to(at::kFloat);
      for (const FileQuantizers how : {FileQuantizers::kRules, FileQuantizers::kNodes}) {
        const Opened opened = open_bytes(p.bytes(), how);
        ASSERT_TRUE(opened.file) << opened.file.error().text();
        const auto got = run(opened, {x});
        ASSERT_TRUE(got) << got.error().text() << opened.all_issues();
        EXPECT_TRUE(at::equal((*got)[0], want));
      }
    }
  // What it cannot be stays a node that is not run, and never a crash.
  const std::int64_t far = std::numeric_limits<std::int64_t>::max();
  for (const auto& [kernel, stride, ibits, obits, layout] :
       {std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, const char*>{0, 1, 4, 4, "NCHW"},
        {far, 1, 4, 4, "NCHW"},
        {2, -1, 4, 4, "NCHW"},
        {2, 1, 63, 4, "NCHW"},
        {2, 1, -4, 4, "NCHW"},
        {2, 1, 4, 0, "NCHW"},
        {2, 1, 4, far, "NCHW"},
        {2, 1, 4, 4, "NHWC"}}) {
    QuantizedProto p(13, {2, 3, 8, 8});
    p.own("QuantAvgPool2d", {"x"}, {"y"},
          {attribute("kernel", kernel), attribute("stride", stride), attribute("ibits", ibits), attribute("obits", obits),
           text_attribute("data_layout", layout)});
    p.output("y");
    const Opened opened = open_bytes(p.bytes(), FileQuantizers::kRules);
    if (opened.file) {
      EXPECT_NE(opened.all_issues().find("QuantAvgPool2d"), std::string::npos) << opened.all_issues();
    }
  }
}

}  // namespace
}  // namespace quanvas::import_test
