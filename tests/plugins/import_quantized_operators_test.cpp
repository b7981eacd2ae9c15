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

// What nobody executes here is said, and stays.
TEST(QuantizedOperators, OthersOfTheDomainAreOpaque) {
  QuantizedProto p(17, {2, 3, 10});
  p.own("QAttention", {"x", "x", "x", "x", "x"}, {"y"}, {}, "com.microsoft");
  p.output("y");
  const Opened opened = open_bytes(p.bytes(), FileQuantizers::kRules);
  ASSERT_TRUE(opened.file) << opened.file.error().text();
  EXPECT_NE(opened.all_issues().find("QAttention"), std::string::npos) << opened.all_issues();
}

}  // namespace
}  // namespace quanvas::import_test
