// Subgraphs, functions, sequences and rare element types, from the file to the result.
#include <ATen/ATen.h>

#include <thread>

#include "core/exec/runner.h"
#include "core/exec/worker.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

using Ops = std::vector<std::string>;
using L = std::vector<std::int64_t>;

onnx::NodeProto& add(onnx::GraphProto& g, const std::string& op, const std::vector<std::string>& in,
                     const std::vector<std::string>& out,
                     const std::vector<onnx::AttributeProto>& attributes = {}) {
  auto& n = *g.add_node();
  n.set_op_type(op);
  for (const auto& t : in) n.add_input(t);
  for (const auto& t : out) n.add_output(t);
  for (const auto& a : attributes) *n.add_attribute() = a;
  return n;
}

onnx::GraphProto& body(onnx::NodeProto& node, const std::string& key) {
  auto& a = *node.add_attribute();
  a.set_name(key);
  a.set_type(onnx::AttributeProto::GRAPH);
  return *a.mutable_g();
}

void formal(onnx::GraphProto& g, const std::string& name, int type = 1) {
  auto& v = *g.add_input();
  v.set_name(name);
  v.mutable_type()->mutable_tensor_type()->set_elem_type(type);
}
void result(onnx::GraphProto& g, const std::string& name) {
  g.add_output()->set_name(name);
}

void constant(onnx::GraphProto& g, const std::string& name, const std::vector<float>& values, const L& dims) {
  auto& t = *g.add_initializer();
  t.set_name(name);
  t.set_data_type(1);
  for (const auto d : dims) t.add_dims(d);
  for (const float v : values) t.add_float_data(v);
}

void truth(onnx::GraphProto& g, const std::string& name, bool value) {
  auto& t = *g.add_initializer();
  t.set_name(name);
  t.set_data_type(9);
  t.add_int32_data(value);
}

Result<std::vector<at::Tensor>> run(const Imported& m, const std::vector<at::Tensor>& inputs) {
  if (!m.model) return Failure(m.model.error());
  auto runner = exec::Runner::create(std::make_shared<const Model>(*m.model), nullptr);
  if (!runner) return Failure(runner.error());
  return (*runner)->run(inputs);
}

std::vector<float> floats(const at::Tensor& t) {
  const at::Tensor c = t.to(at::kFloat).contiguous();
  return {c.data_ptr<float>(), c.data_ptr<float>() + c.numel()};
}

void expect_result(const Imported& m, const std::vector<at::Tensor>& inputs, const std::vector<float>& expected) {
  const auto out = run(m, inputs);
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(floats((*out)[0]), expected);
}

// y = x * 10 in the one branch, x + 1 in the other; both call their tensors alike and read x from outside.
void add_branches(onnx::NodeProto& node) {
  for (const char* key : {"then_branch", "else_branch"}) {
    auto& g = body(node, key);
    const bool first = std::string(key) == "then_branch";
    constant(g, "k", {first ? 10.0f : 1.0f}, {});
    add(g, first ? "Mul" : "Add", {"x", "k"}, {"r"});
    result(g, "r");
  }
}

TEST(ImportSubgraph, BranchesThatAreKnownAreTaken) {
  for (const bool condition : {true, false}) {
    Proto p;
    p.input("x", {"2"});
    truth(p.graph, "c", condition);
    add_branches(p.node("If", {"c"}, {"y"}));
    p.node("Neg", {"y"}, {"z"});
    p.output("z");
    const Imported m = p.import();
    ASSERT_TRUE(m.model) << m.model.error().text();
    EXPECT_EQ(m.ops(), (Ops{condition ? "Mul" : "Add", "Neg"}));
    EXPECT_EQ(m.shape("z"), "2");
    expect_result(m, {at::tensor({1.0f, 2.0f})},
                  condition ? std::vector<float>{-10, -20} : std::vector<float>{-2, -3});
  }
}

TEST(ImportSubgraph, ConditionsOnShapesAreKnown) {
  Proto p;
  p.input("x", {"N", "2"});
  p.node("Shape", {"x"}, {"s"});
  p.ints("one", {1});
  p.node("Gather", {"s", "one"}, {"n"});
  p.ints("two", {2});
  p.node("Equal", {"n", "two"}, {"c"});
  add_branches(p.node("If", {"c"}, {"y"}));
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.only("If"), nullptr);
  expect_result(m, {at::tensor({1.0f, 2.0f}).reshape({1, 2})}, {10, 20});
}

TEST(ImportSubgraph, BranchesAreTakenByTheData) {
  Proto p;
  p.input("x", {"2"});
  p.input("c", {}, 9);
  add_branches(p.node("If", {"c"}, {"y"}));
  p.output("y");
  const Imported m = p.import();
  const at::Tensor x = at::tensor({1.0f, 2.0f});
  expect_result(m, {x, at::scalar_tensor(true, at::kBool)}, {10, 20});
  expect_result(m, {x, at::scalar_tensor(false, at::kBool)}, {2, 3});
}

// Four rounds; in every second one w (of the main graph) is added, else the value is doubled. Both values of the
// round come out, too.
Proto loop_with_branch() {
  Proto p;
  p.input("x", {"2"});
  p.input("trips", {}, 7);
  constant(p.graph, "w", {1, 100}, {2});
  p.ints("two", {2}, true);
  auto& loop = p.node("Loop", {"trips", "", "x"}, {"last", "all"});
  auto& g = body(loop, "body");
  formal(g, "i", 7);
  formal(g, "keep_in", 9);
  formal(g, "v");
  add(g, "Identity", {"keep_in"}, {"keep"});
  add(g, "Mod", {"i", "two"}, {"odd"});
  add(g, "Cast", {"odd"}, {"odd_truth"}, {attribute("to", 9)});
  auto& branch = add(g, "If", {"odd_truth"}, {"next"});
  auto& yes = body(branch, "then_branch");
  add(yes, "Add", {"v", "w"}, {"r"});
  result(yes, "r");
  auto& no = body(branch, "else_branch");
  add(no, "Add", {"v", "v"}, {"r"});
  result(no, "r");
  for (const char* t : {"keep", "next", "next"}) result(g, t);
  p.output("last");
  p.output("all");
  return p;
}

TEST(ImportSubgraph, LoopsReadWhatIsOutsideOfThem) {
  const Imported m = loop_with_branch().import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  const auto out = run(m, {at::tensor({1.0f, 2.0f}), at::scalar_tensor(std::int64_t{4}, at::kLong)});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ(floats((*out)[0]), (std::vector<float>{7, 308}));
  EXPECT_EQ(floats((*out)[1]), (std::vector<float>{2, 4, 3, 104, 6, 208, 7, 308}));
  const auto none = run(m, {at::tensor({1.0f, 2.0f}), at::scalar_tensor(std::int64_t{0}, at::kLong)});
  ASSERT_TRUE(none) << none.error().text();
  EXPECT_EQ(floats((*none)[0]), (std::vector<float>{1, 2}));
  EXPECT_EQ((*none)[1].size(0), 0);
}

TEST(ImportSubgraph, EndlessLoopsCanBeStopped) {
  const Imported m = loop_with_branch().import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  std::stop_source stop;
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    stop.request_stop();
  });
  exec::set_stop_token(stop.get_token());
  const auto out = run(m, {at::tensor({1.0f, 2.0f}), at::scalar_tensor(std::int64_t{1} << 60, at::kLong)});
  exec::set_stop_token({});
  stopper.join();
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, ErrorCode::kCancelled);
}

onnx::AttributeProto reference(const std::string& name, const std::string& argument,
                               onnx::AttributeProto::AttributeType type) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(type);
  a.set_ref_attr_name(argument);
  return a;
}

// Leaky(x, alpha) calls Scaled(x, factor) and passes x through as its second result.
void add_functions(Proto& p) {
  p.model.add_opset_import()->set_domain("own");
  auto& scaled = *p.model.add_functions();
  scaled.set_name("Scaled");
  scaled.set_domain("own");
  scaled.add_input("a");
  scaled.add_output("b");
  scaled.add_attribute("factor");
  auto& k = *scaled.add_node();
  k.set_op_type("Constant");
  k.add_output("t");
  *k.add_attribute() = reference("value_float", "factor", onnx::AttributeProto::FLOAT);
  auto& mul = *scaled.add_node();
  mul.set_op_type("Mul");
  mul.add_input("a");
  mul.add_input("t");
  mul.add_output("b");
  auto& leaky = *p.model.add_functions();
  leaky.set_name("Leaky");
  leaky.set_domain("own");
  leaky.add_input("x");
  leaky.add_output("t");
  leaky.add_output("x");
  leaky.add_attribute("alpha");
  auto& relu = *leaky.add_node();
  relu.set_op_type("LeakyRelu");
  relu.add_input("x");
  relu.add_output("m");
  *relu.add_attribute() = reference("alpha", "alpha", onnx::AttributeProto::FLOAT);
  auto& call = *leaky.add_node();
  call.set_op_type("Scaled");
  call.set_domain("own");
  call.add_input("m");
  call.add_output("t");
  auto& factor = *call.add_attribute();
  factor.set_name("factor");
  factor.set_type(onnx::AttributeProto::FLOAT);
  factor.set_f(4);
}

TEST(ImportSubgraph, FunctionsAreTheirNodes) {
  Proto p;
  p.input("x", {"3"});
  add_functions(p);
  auto& first = p.node("Leaky", {"x"}, {"a", "same"});
  first.set_domain("own");
  auto& alpha = *first.add_attribute();
  alpha.set_name("alpha");
  alpha.set_type(onnx::AttributeProto::FLOAT);
  alpha.set_f(0.5f);
  p.node("Leaky", {"a"}, {"b", ""}).set_domain("own");  // LeakyRelu's own alpha, 0.01
  p.node("Add", {"b", "same"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.ops(), (Ops{"LeakyRelu", "Mul", "LeakyRelu", "Mul", "Add"}));
  const auto out = run(m, {at::tensor({-1.0f, 0.0f, 2.0f})});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_NEAR((*out)[0][0].item().toFloat(), -2 * 0.01 * 4 - 1, 1e-6);
  EXPECT_FLOAT_EQ((*out)[0][2].item().toFloat(), 34);
}

TEST(ImportSubgraph, FunctionsThatCallThemselvesAreRefused) {
  Proto p;
  p.input("x", {"3"});
  p.model.add_opset_import()->set_domain("own");
  auto& f = *p.model.add_functions();
  f.set_name("F");
  f.set_domain("own");
  f.add_input("a");
  f.add_output("b");
  auto& n = *f.add_node();
  n.set_op_type("F");
  n.set_domain("own");
  n.add_input("a");
  n.add_output("b");
  p.node("F", {"x"}, {"y"}).set_domain("own");
  p.output("y");
  const Imported m = p.import();
  ASSERT_FALSE(m.model);
  EXPECT_NE(m.model.error().message.find("calls itself"), std::string::npos) << m.model.error().text();
}

TEST(ImportSubgraph, SparseTensorsAreWrittenOut) {
  Proto p;
  p.input("x", {"2", "3"});
  auto& s = *p.graph.add_sparse_initializer();
  for (const int d : {2, 3}) s.add_dims(d);
  s.mutable_values()->set_name("w");
  s.mutable_values()->set_data_type(1);
  s.mutable_values()->add_dims(2);
  s.mutable_values()->add_float_data(5);
  s.mutable_values()->add_float_data(7);
  s.mutable_indices()->set_data_type(7);
  s.mutable_indices()->add_dims(2);
  s.mutable_indices()->add_int64_data(1);
  s.mutable_indices()->add_int64_data(5);
  p.node("Add", {"x", "w"}, {"y"});
  p.output("y");
  expect_result(p.import(), {at::zeros({2, 3})}, {0, 5, 0, 0, 0, 7});
  s.mutable_indices()->set_int64_data(1, 6);
  const Imported bad = p.import();
  ASSERT_FALSE(bad.model);
  EXPECT_NE(bad.model.error().message.find("outside its dimensions"), std::string::npos)
      << bad.model.error().text();
}

struct SmallRow {
  int type;
  std::vector<std::uint8_t> bytes;
  std::vector<float> values;
};

// Values by the definitions of the formats.
TEST(ImportSubgraph, TypesOfOneByteAndLess) {
  const SmallRow rows[] = {
      {17, {0x38, 0x7e, 0x01, 0xc0}, {1, 448, 0x1p-9f, -2}},     // float8e4m3fn
      {18, {0x40, 0x7f, 0x01, 0xc8}, {1, 240, 0x1p-10f, -2}},    // float8e4m3fnuz
      {19, {0x3c, 0x7b, 0x01, 0xc0}, {1, 57344, 0x1p-16f, -2}},  // float8e5m2
      {20, {0x40, 0x7f, 0x01, 0xc4}, {1, 57344, 0x1p-17f, -2}},  // float8e5m2fnuz
      {21, {0x21, 0xf0}, {1, 2, 0, 15}},                         // uint4
      {22, {0x21, 0xf8}, {1, 2, -8, -1}},                        // int4
      {23, {0x21, 0xf7}, {0.5, 1, 6, -6}},                       // float4e2m1
  };
  for (const SmallRow& row : rows) {
    Proto p(21);
    p.input("x", {"4"});
    auto& t = *p.graph.add_initializer();
    t.set_name("w");
    t.set_data_type(row.type);
    t.add_dims(4);
    t.set_raw_data(row.bytes.data(), row.bytes.size());
    p.node("Cast", {"w"}, {"f"}, {attribute("to", 1)});
    p.node("Add", {"x", "f"}, {"y"});
    p.output("y");
    expect_result(p.import(), {at::zeros({4})}, row.values);
    // And back: the bytes of the file.
    const auto type = static_cast<DataType>(row.type);
    const TensorData data = exec::to_data(at::tensor(row.values), type);
    EXPECT_EQ(std::vector<std::uint8_t>(reinterpret_cast<const std::uint8_t*>(data.data),
                                        reinterpret_cast<const std::uint8_t*>(data.data) + data.bytes),
              row.bytes)
        << type_name(type);
  }
}

TEST(ImportSubgraph, SmallTypesRoundAndSaturate) {
  struct Row {
    DataType type;
    float value;
    bool saturate;
    float expected;
  };
  const float inf = std::numeric_limits<float>::infinity();
  const Row rows[] = {{DataType::kFloat8E4M3Fn, 1.0625f, true, 1},
                      {DataType::kFloat8E4M3Fn, 1.1875f, true, 1.25f},
                      {DataType::kFloat8E4M3Fn, 500, true, 448},
                      {DataType::kFloat8E4M3Fn, -inf, true, -448},
                      {DataType::kFloat8E5M2, 1e9f, false, inf},
                      {DataType::kFloat8E5M2, 1e9f, true, 57344},
                      {DataType::kFloat8E4M3Fnuz, -1e-9f, true, 0},
                      {DataType::kFloat4E2M1, 5, true, 4},
                      {DataType::kFloat4E2M1, 100, false, 6},
                      {DataType::kInt4, 7.5f, true, 7},
                      {DataType::kUint4, -3, true, 0},
                      {DataType::kFloat8E8M0, 3.5f, true, 4}};
  for (const Row& r : rows)
    EXPECT_EQ(small_value(r.type, small_code(r.type, r.value, r.saturate)), r.expected)
        << type_name(r.type) << " " << r.value;
  EXPECT_TRUE(std::isnan(small_value(DataType::kFloat8E4M3Fn, small_code(DataType::kFloat8E4M3Fn, 500, false))));
  EXPECT_TRUE(
      std::isnan(small_value(DataType::kFloat8E4M3Fnuz, small_code(DataType::kFloat8E4M3Fnuz, inf, false))));
  // Every code is the nearest code of its own value.
  for (const DataType t :
       {DataType::kFloat8E4M3Fn, DataType::kFloat8E4M3Fnuz, DataType::kFloat8E5M2, DataType::kFloat8E5M2Fnuz})
    for (int c = 0; c < 256; ++c) {
      const float v = small_value(t, static_cast<std::uint8_t>(c));
      if (!std::isfinite(v)) continue;
      EXPECT_EQ(small_code(t, v), c) << type_name(t);
    }
}

Imported binary(const std::string& op, int type) {
  Proto p(18);
  p.input("a", {"2"}, type);
  p.input("b", {"2"}, type);
  p.node(op, {"a", "b"}, {"y"});
  p.output("y");
  return p.import();
}

TEST(ImportSubgraph, UnsignedTypesWrapOrRefuse) {
  const auto longs = [](std::int64_t a, std::int64_t b) {
    return at::tensor(std::vector<std::int64_t>{a, b}, at::kLong);
  };
  const auto row = [&](const std::string& op, int type, const at::Tensor& a, const at::Tensor& b) {
    const auto out = run(binary(op, type), {a, b});
    EXPECT_TRUE(out) << out.error().text();
    return out ? (*out)[0] : at::Tensor();
  };
  EXPECT_TRUE(at::equal(row("Sub", 12, longs(0, 5), longs(1, 3)), longs(4294967295, 2)));
  EXPECT_TRUE(at::equal(row("Mul", 12, longs(65536, 3), longs(65536, 3)), longs(0, 9)));
  EXPECT_TRUE(at::equal(row("Sub", 4, longs(0, 5), longs(1, 3)).to(at::kLong), longs(65535, 2)));
  const std::int64_t large = -2;  // 2^64 - 2
  EXPECT_TRUE(at::equal(row("Add", 13, longs(large, 1), longs(1, 1)), longs(-1, 2)));
  EXPECT_TRUE(at::equal(row("Div", 13, longs(9, 8), longs(2, 2)), longs(4, 4)));
  const auto refused = run(binary("Div", 13), {longs(large, 1), longs(1, 1)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(refused.error().message.find("2^63"), std::string::npos) << refused.error().message;
}

struct BadRow {
  const char* name;
  void (*make)(Proto&);
  const char* part;
};

// Nodes that make no sense end in a sentence, at import or when run.
TEST(ImportSubgraph, BadNodesAreSentences) {
  const BadRow rows[] = {
      {"loop gives too little",
       [](Proto& p) {
         p.ints("n", {3}, true);
         auto& loop = p.node("Loop", {"n", "", "x"}, {"y"});
         auto& g = body(loop, "body");
         for (const char* t : {"i", "c", "v"}) formal(g, t);
         result(g, "c");
       },
       "carried values"},
      {"loop without body",
       [](Proto& p) {
         p.ints("n", {3}, true);
         p.node("Loop", {"n", "", "x"}, {"y"});
       },
       "subgraph 'body' is missing"},
      {"scan of nothing",
       [](Proto& p) {
         auto& scan = p.node("Scan", {"x"}, {"y"}, {attribute("num_scan_inputs", 7)});
         auto& g = body(scan, "body");
         formal(g, "v");
         add(g, "Neg", {"v"}, {"r"});
         result(g, "r");
       },
       "num_scan_inputs"},
      {"window",
       [](Proto& p) {
         p.ints("n", {-3}, true);
         p.node("HannWindow", {"n"}, {"h"});
         p.node("Add", {"x", "h"}, {"y"});
       },
       "size -3"},
      {"random",
       [](Proto& p) {
         p.node("RandomNormal", {}, {"h"}, {attribute("shape", L{2, -7})});
         p.node("Add", {"x", "h"}, {"y"});
       },
       "size -7"},
      {"sequence as tensor",
       [](Proto& p) {
         p.node("SequenceConstruct", {"x"}, {"s"});
         p.node("Neg", {"s"}, {"y"});
       },
       "sequence"},
      {"position",
       [](Proto& p) {
         p.node("SequenceConstruct", {"x"}, {"s"});
         p.ints("n", {4}, true);
         p.node("SequenceAt", {"s", "n"}, {"y"});
       },
       "position is 4"},
      {"empty optional",
       [](Proto& p) {
         p.node("Optional", {}, {"s"});
         p.node("OptionalGetElement", {"s"}, {"y"});
       },
       "holds nothing"},
      {"heads",
       [](Proto& p) {
         p.node("Attention", {"x", "x", "x"}, {"y"});
       },
       "heads"},
      {"lstm",
       [](Proto& p) {
         p.node("LSTM", {"x", "x", "x"}, {"y"});
       },
       "rank 3"},
      {"activation",
       [](Proto& p) {
         auto& n = p.node("RNN", {"x", "x", "x"}, {"y"});
         auto& a = *n.add_attribute();
         a.set_name("activations");
         a.set_type(onnx::AttributeProto::STRINGS);
         a.add_strings("Gauss");
       },
       "'Gauss'"},
  };
  for (const BadRow& row : rows) {
    Proto p(23);
    p.input("x", {"2", "3"});
    row.make(p);
    p.output("y");
    const auto out = run(p.import(), {at::ones({2, 3})});
    ASSERT_FALSE(out) << row.name;
    EXPECT_NE(out.error().text().find(row.part), std::string::npos) << row.name << ": " << out.error().text();
  }
}

// Types of results inside and of the node itself, when the file does not say them.
TEST(ImportSubgraph, TypesOfResultsComeFromTheSubgraphs) {
  Proto p;
  p.input("x", {"2"}, 12);  // uint32
  p.input("c", {}, 9);
  auto& node = p.node("If", {"c"}, {"y"});
  for (const char* key : {"then_branch", "else_branch"}) {
    auto& g = body(node, key);
    add(g, "Sub", {"x", "x"}, {"zero"});
    auto& k = add(g, "Constant", {}, {"one"});
    auto& t = *k.add_attribute();
    t.set_name("value");
    t.set_type(onnx::AttributeProto::TENSOR);
    t.mutable_t()->set_data_type(12);
    t.mutable_t()->add_uint64_data(1);
    add(g, "Sub", {"zero", "one"}, {"r"});
    result(g, "r");
  }
  p.output("y");
  p.graph.mutable_output(0)->clear_type();
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.graph().tensor(m.graph().outputs()[0]).type, DataType::kUint32);
  EXPECT_EQ(m.shape("y"), "2");
  const auto out = run(m, {at::tensor(L{5, 7}, at::kLong), at::scalar_tensor(true, at::kBool)});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_EQ((*out)[0][0].item().toLong(), 4294967295);
}

TEST(ImportSubgraph, WhatIsLeftOutOpensWithItsReason) {
  Proto p;
  p.input("x", {"2", "3"});
  p.model.add_opset_import()->set_domain("ai.onnx.ml");
  p.node("TreeEnsembleRegressor", {"x"}, {"a"}).set_domain("ai.onnx.ml");
  p.node("Momentum", {"a", "x"}, {"b"}).set_domain("ai.onnx.preview.training");
  p.node("StringNormalizer", {"x"}, {"s"});
  p.output("b");
  p.output("s");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  const std::pair<const char*, const char*> rows[] = {
      {"TreeEnsembleRegressor", "ai.onnx.ml"}, {"Momentum", "training"}, {"StringNormalizer", "texts"}};
  for (const auto& [op, part] : rows) {
    ASSERT_NE(m.only(op), nullptr) << op;
    EXPECT_NE(exec::unsupported_reason(*m.only(op)).find(part), std::string::npos)
        << exec::unsupported_reason(*m.only(op));
  }
}

TEST(ImportSubgraph, CasesSurviveJsonAndHash) {
  const Imported m = loop_with_branch().import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  const auto again = graph_from_json(graph_to_json(m.graph()));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ((*again)->hash(), m.graph().hash());
  Proto other = loop_with_branch();
  other.graph.mutable_node(0)->mutable_attribute(0)->mutable_g()->mutable_node(1)->set_op_type("Sub");
  EXPECT_NE(other.import().graph().hash(), m.graph().hash());
}

}  // namespace
}  // namespace quanvas::import_test
