// Operators in TorchScript: LibTorch computes from the file what the executor computes from the graph.
#include "tests/plugins/torchscript_export_support.h"

#include "plugins/exporters/torchscript/operators.h"

namespace quanvas {
namespace {

using namespace torchscript_export;
using Ints = std::vector<std::int64_t>;

struct OpCase {
  std::string op;
  std::vector<Shape> inputs;          // of the graph; -1: 3 in the run
  std::vector<TensorData> constants;  // after them
  Attributes attributes;
  int opset = 13, outputs = 1;
  Shape result;  // as the graph declares it; empty: nothing
};

TensorData ints(std::vector<std::int64_t> v) { return TensorData::of_int64({static_cast<std::int64_t>(v.size())}, v); }
TensorData number(float v) { return TensorData::of_floats({}, {v}); }
TensorData floats(Shape shape, std::uint32_t seed = 5) { return export_net::random_floats(std::move(shape), seed); }
TensorData above_zero(std::int64_t n) {
  return TensorData::of_floats({n}, std::vector<float>(static_cast<std::size_t>(n), 0.7f));
}

ModelPtr model_of(const OpCase& c) {
  GraphBuilder b;
  b.set_name("case");
  b.set_opset(c.opset);
  auto weights = std::make_shared<WeightStore>();
  std::vector<std::string> in, out;
  for (const Shape& s : c.inputs) {
    in.push_back("in" + std::to_string(in.size()));
    b.tensor(in.back(), DataType::kFloat, s);
    b.input(in.back());
  }
  for (const TensorData& d : c.constants) {
    in.push_back("k" + std::to_string(in.size()));
    b.initializer(in.back(), d.type, d.shape);
    weights->set(in.back(), d);
  }
  for (int i = 0; i < c.outputs; ++i) {
    out.push_back("out" + std::to_string(i));
    b.tensor(out.back(), DataType::kFloat, c.result.empty() ? std::nullopt : std::optional(c.result));
  }
  b.node("a/b.0/node", c.op, in, out, c.attributes);
  for (const std::string& o : out) b.output(o);
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "case"});
}

std::vector<OpCase> cases() {
  const Shape image = {-1, 4, 9, 7}, line = {-1, 4, 9}, matrix = {-1, 6};
  std::vector<OpCase> all = {
      {"Conv",
       {image},
       {floats({6, 4, 3, 3}), floats({6})},
       {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 1}}}},
      {"Conv",
       {image},
       {floats({4, 1, 3, 3})},
       {{"pads", Ints{0, 1, 2, 1}}, {"group", std::int64_t{4}}, {"dilations", Ints{2, 1}}}},
      {"Conv", {image}, {floats({6, 4, 2, 3})}, {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{2, 2}}}},
      {"Conv", {image}, {floats({6, 4, 2, 3})}, {{"auto_pad", std::string("SAME_LOWER")}}},
      {"Conv", {line}, {floats({6, 2, 3}), floats({6})}, {{"pads", Ints{1, 1}}, {"group", std::int64_t{2}}}},
      {"ConvTranspose",
       {image},
       {floats({4, 3, 3, 3}), floats({3})},
       {{"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}, {"output_padding", Ints{1, 0}}}},
      {"Gemm", {matrix}, {floats({5, 6}), floats({5})}, {{"transB", std::int64_t{1}}}},
      {"Gemm", {matrix}, {floats({6, 5}), floats({1, 5})}, {{"alpha", 0.5f}, {"beta", 2.0f}}},
      {"Gemm", {matrix}, {floats({6, 5})}},
      {"MatMul", {{-1, 2, 6}}, {floats({6, 5}), floats({5})}},
      {"MatMul", {{-1, 2, 6}, {-1, 6, 4}}, {}},
      {"MaxPool", {image}, {}, {{"kernel_shape", Ints{3, 2}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
      {"MaxPool", {image}, {}, {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"ceil_mode", std::int64_t{1}}}},
      {"MaxPool", {image}, {}, {{"kernel_shape", Ints{2, 2}}, {"pads", Ints{0, 0, 1, 1}}}},
      {"MaxPool", {line}, {}, {{"kernel_shape", Ints{3}}, {"strides", Ints{2}}}},
      {"AveragePool", {image}, {}, {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
      {"AveragePool",
       {image},
       {},
       {{"kernel_shape", Ints{2, 3}}, {"count_include_pad", std::int64_t{1}}, {"pads", Ints{1, 0, 1, 0}}}},
      {"GlobalAveragePool", {image}, {}},
      {"GlobalMaxPool", {image}, {}},
      {"ReduceMean", {image}, {}, {{"axes", Ints{2, -1}}, {"keepdims", std::int64_t{0}}}},
      {"ReduceSum", {image}, {ints({1})}},
      {"ReduceMax", {image}, {}, {{"axes", Ints{3}}}},
      {"ReduceMin", {image}, {}},
      {"BatchNormalization", {image}, {floats({4}, 1), floats({4}, 2), floats({4}, 3), above_zero(4)}, {{"epsilon", 1e-3f}}},
      {"InstanceNormalization", {image}, {floats({4}, 1), floats({4}, 2)}},
      {"LayerNormalization", {{-1, 5, 6}}, {floats({6}, 1), floats({6}, 2)}, {{"epsilon", 1e-3f}}, 17},
      {"RMSNormalization", {{-1, 5, 6}}, {floats({6}, 1)}, {{"epsilon", 1e-3f}}},
      {"Softmax", {image}, {}, {{"axis", std::int64_t{1}}}},
      {"Softmax", {image}, {}, {{"axis", std::int64_t{2}}}, 11},
      {"LogSoftmax", {matrix}, {}},
      {"Clip", {image}, {number(-0.5f), number(1)}},
      {"Clip", {image}, {}, {{"min", 0.0f}, {"max", 6.0f}}, 9},
      {"Clip", {image}, {number(0.1f)}},
      {"LeakyRelu", {image}, {}, {{"alpha", 0.2f}}},
      {"Elu", {image}, {}, {{"alpha", 0.7f}}},
      {"HardSigmoid", {image}, {}, {{"alpha", 0.3f}, {"beta", 0.4f}}},
      {"PRelu", {image}, {floats({4, 1, 1})}},
      {"Gelu", {image}, {}, {}, 20},
      {"Gelu", {image}, {}, {{"approximate", std::string("tanh")}}, 20},
      {"Add", {image}, {floats({4, 1, 1})}},
      {"Sub", {image, image}, {}},
      {"Div", {image}, {above_zero(7)}},
      {"Max", {image, image}, {}},
      {"Min", {image, image}, {}},
      {"Sum", {image, image, image}, {}},
      {"Reshape", {image}, {ints({0, -1})}},
      {"Reshape", {image}, {ints({1, 36, 7})}, {}, 13, 1, {-1, 36, 7}},
      {"Flatten", {image}, {}},
      {"Flatten", {image}, {}, {{"axis", std::int64_t{2}}}},
      {"Flatten", {image}, {}, {{"axis", std::int64_t{0}}}},
      {"Transpose", {image}, {}, {{"perm", Ints{0, 2, 3, 1}}}},
      {"Transpose", {image}, {}},
      {"Squeeze", {{-1, 1, 5, 1}}, {ints({1, -1})}},
      {"Unsqueeze", {matrix}, {ints({0, 3})}},
      {"Unsqueeze", {matrix}, {}, {{"axes", Ints{-1}}}, 11},
      {"Concat", {image, image}, {}, {{"axis", std::int64_t{1}}}},
      {"Split", {image}, {ints({1, 3})}, {{"axis", std::int64_t{1}}}, 13, 2},
      {"Split", {image}, {}, {{"axis", std::int64_t{1}}}, 13, 2},
      {"Slice", {image}, {ints({1, -5}), ints({3, 100}), ints({1, 2}), ints({1, 2})}},
      {"Slice", {image}, {}, {{"starts", Ints{1}}, {"ends", Ints{-1}}, {"axes", Ints{3}}}, 9},
      {"Pad", {image}, {ints({0, 1, 0, 2, 0, 0, 3, 1}), number(0.5f)}},
      {"Pad", {image}, {}, {{"pads", Ints{0, 0, 1, 1, 0, 0, 1, 1}}}, 9},
      {"Expand", {{-1, 1, 5}}, {ints({1, 4, 1})}},
      {"Gather", {image}, {TensorData::of_int64({}, {2})}, {{"axis", std::int64_t{1}}}},
      {"Gather", {image}, {ints({3, 0, -1})}, {{"axis", std::int64_t{1}}}},
      {"Cast", {image}, {}, {{"to", std::int64_t{11}}}},
      {"Identity", {image}, {}},
      {"Dropout", {image}, {}},
      {"Pow", {image}, {number(2)}}};
  for (const char* op : {"Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Erf", "Ceil", "Floor", "Round", "Sign", "Sin", "Cos",
                         "HardSwish", "Mish", "Selu", "Softplus", "Celu", "Reciprocal"})
    all.push_back({op, {image}, {}, {}, 18});
  return all;
}

TEST_F(TorchScriptExportTest, LibTorchComputesEveryOperatorAsTheExecutorDoes) {
  std::set<std::string> tried;
  for (const OpCase& c : cases()) {
    SCOPED_TRACE(c.op + " opset " + std::to_string(c.opset));
    tried.insert(c.op);
    QuantizedModel model;
    model.model = model_of(c);
    ASSERT_NO_FATAL_FAILURE(write(kFloat, model));
    Tensors inputs;
    for (Shape s : c.inputs) {
      for (auto& d : s) d = d < 0 ? 3 : d;
      inputs.push_back(random_input(s, 40 + static_cast<std::uint32_t>(inputs.size())));
    }
    const Tensors wanted = screen(model, inputs), got = libtorch(inputs);
    ASSERT_EQ(wanted.size(), got.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_EQ(wanted[i].sizes(), got[i].sizes());
      EXPECT_LE((wanted[i].to(at::kDouble) - got[i].to(at::kDouble)).abs().max().item<double>(),
                2e-6 * std::max(1.0, wanted[i].to(at::kDouble).abs().max().item<double>()));
    }
  }
  // Comparisons, logic, roots of what may be below 0, shapes and tables are tried in networks.
  const std::set<std::string> elsewhere = {"And",  "Or",          "Xor", "Not",  "Equal", "Greater", "GreaterOrEqual",
                                           "Less", "LessOrEqual", "Log", "Sqrt", "Where", "Shape",   "Mul"};
  for (const std::string& op : torchscript_file::expressible_operators())
    EXPECT_TRUE(tried.count(op) || elsewhere.count(op)) << op;
}

TEST_F(TorchScriptExportTest, ComparisonsChooseWithWhere) {
  for (const char* op : {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}) {
    GraphBuilder b;
    b.set_opset(16);
    auto weights = std::make_shared<WeightStore>();
    weights->set("k", floats({6}, 9));
    b.initializer("k", DataType::kFloat, {6});
    b.tensor("x", DataType::kFloat, Shape{-1, 6});
    b.input("x");
    b.node("compare", op, {"x", "k"}, {"c"});
    b.node("not", "Not", {"c"}, {"n"});
    b.node("and", "And", {"c", "c"}, {"d"});
    b.node("or", "Or", {"d", "n"}, {"e"});
    b.node("xor", "Xor", {"e", "n"}, {"f"});
    b.node("abs", "Abs", {"x"}, {"a"});
    b.node("sqrt", "Sqrt", {"a"}, {"r"});
    b.node("mul", "Mul", {"r", "k"}, {"m"});
    b.node("where", "Where", {"f", "x", "m"}, {"y"});
    b.tensor("y", DataType::kFloat, Shape{-1, 6});
    b.output("y");
    QuantizedModel model;
    model.model = std::make_shared<const Model>(Model{*b.build(), weights, "case"});
    ASSERT_NO_FATAL_FAILURE(write(kFloat, model));
    at::Tensor x = random_input({5, 6});
    x[0].copy_(exec::to_tensor(*weights->find("k")));
    EXPECT_TRUE(at::equal(libtorch({x})[0], screen(model, {x})[0])) << op;
  }
}

TEST_F(TorchScriptExportTest, OperatorsWithoutExpressionAreRefusedByName) {
  const OpCase rows[] = {{"Einsum", {{2, 3}}, {}, {{"equation", std::string("ij->ji")}}},
                         {"AveragePool", {{-1, 4, 9, 7}}, {}, {{"kernel_shape", Ints{2, 2}}, {"ceil_mode", std::int64_t{1}}}},
                         {"Pad", {{-1, 4, 9, 7}}, {ints({0, 0, 1, 1, 0, 0, 1, 1})}, {{"mode", std::string("reflect")}}},
                         {"Slice", {{-1, 4}}, {ints({3}), ints({0}), ints({1}), ints({-1})}}};
  for (const OpCase& c : rows)
    for (const char* id : {kPacked, kFloat}) {
      QuantizedModel model;
      model.model = model_of(c);
      const auto refusals = check(id, model);
      ASSERT_EQ(refusals.size(), 1u) << c.op;
      EXPECT_EQ(refusals[0].rule, "operator");
      EXPECT_EQ(refusals[0].layer, "a/b.0/node");
      EXPECT_NE(refusals[0].got.find(c.op), std::string::npos);
    }
}

// Layers that small_net has not: products over several axes with the weight on the right, convolutions over one axis and
// with uneven pads, Concat and Mul of codes, a limit behind a layer.
struct LayerCase {
  std::string name;
  ModelPtr model;
  std::vector<Shape> inputs;
};

ModelPtr chain(const Shape& in, const std::function<void(GraphBuilder&, WeightStore&)>& body) {
  GraphBuilder b;
  auto weights = std::make_shared<WeightStore>();
  b.set_opset(13);
  b.tensor("x", DataType::kFloat, in);
  b.input("x");
  body(b, *weights);
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "chain"});
}
void parameter(GraphBuilder& b, WeightStore& w, const std::string& name, const Shape& shape, std::uint32_t seed) {
  b.initializer(name, DataType::kFloat, shape);
  w.set(name, floats(shape, seed));
}
void result(GraphBuilder& b, const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); }

std::vector<LayerCase> layer_cases() {
  std::vector<LayerCase> all;
  all.push_back({"MatMul with a bias over three axes",
                 chain({-1, 5, 6},
                       [](GraphBuilder& b, WeightStore& w) {
                         parameter(b, w, "w", {6, 6}, 1);
                         parameter(b, w, "b", {6}, 2);
                         result(b, "y", {-1, 5, 6});
                         b.node("mlp.0.fc", "MatMul", {"x", "w", "b"}, {"y"});
                         b.output("y");
                       }),
                 {{16, 5, 6}}});
  all.push_back({"Gemm with the weight on the right",
                 chain({-1, 6},
                       [](GraphBuilder& b, WeightStore& w) {
                         parameter(b, w, "w", {6, 4}, 1);
                         result(b, "y", {-1, 4});
                         b.node("fc", "Gemm", {"x", "w"}, {"y"});
                         b.output("y");
                       }),
                 {{64, 6}}});
  all.push_back({"Conv over one axis",
                 chain({-1, 4, 12},
                       [](GraphBuilder& b, WeightStore& w) {
                         parameter(b, w, "w", {6, 2, 3}, 1);
                         parameter(b, w, "b", {6}, 2);
                         result(b, "c", {-1, 6, 6});
                         result(b, "y", {-1, 6, 6});
                         b.node("conv", "Conv", {"x", "w", "b"}, {"c"},
                                {{"pads", Ints{1, 1}}, {"strides", Ints{2}}, {"group", std::int64_t{2}}});
                         b.node("relu", "Relu", {"c"}, {"y"});
                         b.output("y");
                       }),
                 {{32, 4, 12}}});
  all.push_back(
      {"Conv with uneven pads",
       chain({-1, 3, 8, 8},
             [](GraphBuilder& b, WeightStore& w) {
               parameter(b, w, "w", {4, 3, 3, 3}, 1);
               result(b, "y", {-1, 4, 4, 4});
               b.node("/features/0/Conv", "Conv", {"x", "w"}, {"y"}, {{"pads", Ints{0, 0, 1, 1}}, {"strides", Ints{2, 2}}});
               b.output("y");
             }),
       {{16, 3, 8, 8}}});
  all.push_back({"Concat and Mul",
                 chain({-1, 4, 5},
                       [](GraphBuilder& b, WeightStore&) {
                         result(b, "c", {-1, 8, 5});
                         result(b, "y", {-1, 8, 5});
                         b.node("cat", "Concat", {"x", "x"}, {"c"}, {{"axis", std::int64_t{1}}});
                         b.node("square", "Mul", {"c", "c"}, {"y"});
                         b.output("y");
                       }),
                 {{16, 4, 5}}});
  return all;
}

TEST_F(TorchScriptExportTest, OtherLayersOnCodes) {
  const Formats formats = {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true};
  for (const LayerCase& c : layer_cases())
    for (const char* id : {kPacked, kFloat}) {
      SCOPED_TRACE(c.name + ", " + id);
      QuantizedModel model = quantize(c.model, formats);
      // Where a Relu follows, it has the output quantizer: the layer takes it as its own.
      if (const Node* relu = model.model->graph->find(std::string("relu"))) {
        const Site own{model.model->graph->nodes()[0].id, SiteKind::kOutput, 0};
        model.quantizers[{relu->id, SiteKind::kOutput, 0}] = model.quantizers.at(own);
        model.quantizers.erase(own);
      }
      ASSERT_NO_FATAL_FAILURE(write(id, model));
      const auto rows = audit(id, model);
      EXPECT_EQ(rows.size(), model.quantizers.size());
      EXPECT_TRUE(all_equal(rows)) << text_of(rows);
      const at::Tensor x = random_input(c.inputs[0], 3, 1.5f);
      double scale = 0;
      for (const auto& [site, p] : model.quantizers)
        if (site.kind == SiteKind::kOutput) scale = p.scale[0];
      const at::Tensor wanted = screen(model, {x})[0], got = libtorch({x})[0];
      ASSERT_EQ(wanted.sizes(), got.sizes());
      const Steps s = steps_between(got, wanted, scale);
      EXPECT_LE(s.most, 1);
      EXPECT_LE(s.differing * 100, s.values) << s.differing;
      JobContext job;
      const auto back = exporter(id).read(model, path(), json::object(), job);
      ASSERT_TRUE(back) << back.error().text();
      const Steps again = steps_between(run(back->model, {x})[0], wanted, scale);
      EXPECT_LE(again.most, 1);
      EXPECT_LE(again.differing * 100, again.values) << again.differing;
    }
}

// The file adds a layer's uneven pads before it; what its quantizer gives lies before those.
TEST_F(TorchScriptExportTest, QuantizedInputsLieBeforeUnevenPads) {
  GraphBuilder b;
  auto weights = std::make_shared<WeightStore>();
  b.tensor("x", DataType::kFloat, Shape{-1, 2, 7, 6});
  b.input("x");
  b.initializer("w", DataType::kFloat, {3, 2, 4, 3});
  weights->set("w", floats({3, 2, 4, 3}));
  b.tensor("y", DataType::kFloat, Shape{-1, 3, 7, 6});
  b.node("conv", "Conv", {"x", "w"}, {"y"}, {{"pads", Ints{1, 1, 2, 1}}});
  b.output("y");
  const QuantizedModel model =
      quantize(std::make_shared<const Model>(Model{*b.build(), weights, "pads"}),
               {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true});
  const at::Tensor x = random_input({4, 2, 7, 6});
  const Site site{node_of(model, "conv").id, SiteKind::kInput, 0};
  for (const char* id : {kPacked, kFloat}) {
    SCOPED_TRACE(id);
    ASSERT_NO_FATAL_FAILURE(write(id, model));
    JobContext job;
    const auto back = exporter(id).read(model, path(), json::object(), job);
    ASSERT_TRUE(back) << back.error().text();
    ASSERT_EQ(back->sites.count(site), 1u);
    const auto all = (*exec::Runner::create(back->model, nullptr))->run_all({x});
    ASSERT_TRUE(all) << all.error().text();
    const TensorId held = back->model->graph->tensor(back->sites.at(site).tensor);
    const at::Tensor got = (*all)[static_cast<std::size_t>(held)];
    EXPECT_TRUE(at::equal(got, exec::fake_quantize(x, model.quantizers.at(site)))) << got.sizes();
  }
}

}  // namespace
}  // namespace quanvas
