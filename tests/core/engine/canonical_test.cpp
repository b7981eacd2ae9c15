// canonical(): one form for what files write in many; it computes the same, and the sites that it opens quantize what they
// say. Oracles: the network as it was written, and cells computed here step by step.
#include "core/graph/canonical.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/quant/dynamic.h"

#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using exec::QuantizerMap;
using exec::Runner;
using testing::ModelMaker;
using testing::noise;
using testing::relative_difference;
using testing::run_one;
using testing::same_bits;
using testing::tensor;

ModelPtr canonical_of(const ModelPtr& model, const Kept& kept = {}) {
  auto out = canonical(*model, kept);
  if (!out) throw std::runtime_error(out.error().text());
  return std::make_shared<const Model>(std::move(*out));
}

std::vector<std::string> ops(const Model& model) {
  std::vector<std::string> out;
  for (const Node& n : model.graph->nodes()) out.push_back(n.op);
  return out;
}

Attributes ints_attribute(const std::string& key, std::vector<std::int64_t> values) { return {{key, Attribute(std::move(values))}}; }

struct Written {
  const char* name;
  std::function<void(ModelMaker&)> make;  // from "x" [-1, 3, 4] to "y"
  std::vector<std::string> expected;      // operators afterwards
  Kept kept = {};
};
void PrintTo(const Written& w, std::ostream* out) { *out << w.name; }

ModelPtr model_of(const Written& w) {
  ModelMaker m;
  m.input("x", {-1, 3, 4});
  w.make(m);
  return m.output("y").build();
}

void linear(ModelMaker& m, const Shape& bias, bool bias_first = false) {
  m.weight("w", noise({4, 5}, 1)).weight("b", noise(bias, 2));
  m.node("fc", "MatMul", {"x", "w"}, {"p"}).shape("p", {-1, 3, 5});
  m.node("add", "Add", bias_first ? std::vector<std::string>{"b", "p"} : std::vector<std::string>{"p", "b"}, {"y"});
}

// Layer normalization in nine nodes; `second` is what else reads the centered values.
void layer_norm(ModelMaker& m, const char* square, bool second = false) {
  m.weight("g", noise({4}, 3)).weight("b", noise({4}, 4)).weight("two", tensor({}, {2})).weight("eps", tensor({}, {1e-5f}));
  m.node("n/mean", "ReduceMean", {"x"}, {"m"}, ints_attribute("axes", {-1})).node("n/sub", "Sub", {"x", "m"}, {"d"});
  if (std::string(square) == "Pow") m.node("n/pow", "Pow", {"d", "two"}, {"q"});
  else m.node("n/pow", "Mul", {"d", "d"}, {"q"});
  m.node("n/var", "ReduceMean", {"q"}, {"v"}, ints_attribute("axes", {2})).shape("q", {-1, 3, 4}).node("n/eps", "Add", {"v", "eps"}, {"e"});
  m.node("n/root", "Sqrt", {"e"}, {"s"}).node("n/div", "Div", {"d", "s"}, {"z"}).node("n/mul", "Mul", {"z", "g"}, {"k"});
  m.node("n/add", "Add", {"k", "b"}, {second ? "l" : "y"});
  if (second) m.node("more", "Add", {"l", "d"}, {"y"});
}

void rms_norm(ModelMaker& m, const char* quotient) {
  m.weight("g", noise({4}, 3)).weight("two", tensor({}, {2})).weight("one", tensor({}, {1})).weight("eps", tensor({}, {1e-6f}));
  m.node("n/pow", "Pow", {"x", "two"}, {"q"}).shape("q", {-1, 3, 4});
  m.node("n/mean", "ReduceMean", {"q"}, {"v"}, ints_attribute("axes", {-1})).node("n/eps", "Add", {"eps", "v"}, {"e"});
  m.node("n/root", "Sqrt", {"e"}, {"s"});
  const std::string q = quotient;
  if (q == "Div") {
    m.node("n/div", "Div", {"x", "s"}, {"z"});
  } else {
    if (q == "Reciprocal") m.node("n/inverse", "Reciprocal", {"s"}, {"i"});
    else m.node("n/inverse", "Div", {"one", "s"}, {"i"});
    m.node("n/div", "Mul", {"x", "i"}, {"z"});
  }
  m.node("n/mul", "Mul", {"g", "z"}, {"y"});
}

// ½ x (1 + erf(x / √2)) with the half at one of three places.
void gelu(ModelMaker& m, int half) {
  m.weight("root", tensor({}, {1.41421354f})).weight("one", tensor({}, {1})).weight("half", tensor({}, {0.5f}));
  m.node("a/div", "Div", {"x", "root"}, {"u"}).node("a/erf", "Erf", {"u"}, {"e"}).node("a/plus", "Add", {"e", "one"}, {"p"});
  if (half == 0) m.node("a/mul", "Mul", {"x", "p"}, {"t"}).node("a/half", "Mul", {"t", "half"}, {"y"});
  if (half == 1) m.node("a/half", "Mul", {"p", "half"}, {"t"}).node("a/mul", "Mul", {"t", "x"}, {"y"});
  if (half == 2) m.node("a/half", "Mul", {"x", "half"}, {"t"}).node("a/mul", "Mul", {"t", "p"}, {"y"});
}

void gelu_tanh(ModelMaker& m, bool pow) {
  m.weight("c", tensor({}, {0.044715f})).weight("k", tensor({}, {0.79788458f})).weight("one", tensor({}, {1}));
  m.weight("half", tensor({}, {0.5f})).weight("three", tensor({}, {3}));
  if (pow) m.node("a/cube", "Pow", {"x", "three"}, {"x3"});
  else m.node("a/square", "Mul", {"x", "x"}, {"x2"}).node("a/cube", "Mul", {"x", "x2"}, {"x3"});
  m.node("a/c", "Mul", {"x3", "c"}, {"t"}).node("a/sum", "Add", {"x", "t"}, {"s"}).node("a/k", "Mul", {"k", "s"}, {"u"});
  m.node("a/tanh", "Tanh", {"u"}, {"e"}).node("a/plus", "Add", {"one", "e"}, {"p"});
  m.node("a/half", "Mul", {"x", "half"}, {"h"}).node("a/mul", "Mul", {"h", "p"}, {"y"});
}

const Written kWritten[] = {
    {"linear", [](ModelMaker& m) { linear(m, {5}); }, {"MatMul"}},
    {"linear_bias_first", [](ModelMaker& m) { linear(m, {5}, true); }, {"MatMul"}},
    {"linear_bias_as_row", [](ModelMaker& m) { linear(m, {1, 1, 5}); }, {"MatMul"}},
    {"bias_of_another_size", [](ModelMaker& m) { linear(m, {3, 1}); }, {"MatMul", "Add"}},
    {"bias_that_widens", [](ModelMaker& m) { linear(m, {1, 1, 1, 5}); }, {"MatMul", "Add"}},
    {"product_quantized_by_the_file", [](ModelMaker& m) { linear(m, {5}); }, {"MatMul", "Add"}, {{}, {"fc"}}},
    {"product_is_read_twice",
     [](ModelMaker& m) { linear(m, {5}); m.node("relu", "Relu", {"p"}, {"r"}).output("r"); },
     {"MatMul", "Add", "Relu"}},
    {"product_is_an_output", [](ModelMaker& m) { linear(m, {5}); m.output("p"); }, {"MatMul", "Add"}},
    {"weight_on_the_left",
     [](ModelMaker& m) {
       m.weight("w", noise({5, 3}, 1)).weight("b", noise({4}, 2));
       m.node("fc", "MatMul", {"w", "x"}, {"p"}).node("add", "Add", {"p", "b"}, {"y"});
     },
     {"MatMul", "Add"}},
    {"layer_norm_pow", [](ModelMaker& m) { layer_norm(m, "Pow"); }, {"LayerNormalization"}},
    {"layer_norm_mul", [](ModelMaker& m) { layer_norm(m, "Mul"); }, {"LayerNormalization"}},
    {"layer_norm_named_by_the_file", [](ModelMaker& m) { layer_norm(m, "Mul"); },
     {"ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"}, {{"n/div"}, {}}},
    {"layer_norm_whose_center_is_read", [](ModelMaker& m) { layer_norm(m, "Pow", true); },
     {"ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add", "Add"}},
    {"rms_norm_quotient", [](ModelMaker& m) { rms_norm(m, "Div"); }, {"RMSNormalization"}},
    {"rms_norm_reciprocal", [](ModelMaker& m) { rms_norm(m, "Reciprocal"); }, {"RMSNormalization"}},
    {"rms_norm_one_over", [](ModelMaker& m) { rms_norm(m, "One"); }, {"RMSNormalization"}},
    {"gelu_half_last", [](ModelMaker& m) { gelu(m, 0); }, {"Gelu"}},
    {"gelu_half_inside", [](ModelMaker& m) { gelu(m, 1); }, {"Gelu"}},
    {"gelu_half_first", [](ModelMaker& m) { gelu(m, 2); }, {"Gelu"}},
    {"gelu_tanh_pow", [](ModelMaker& m) { gelu_tanh(m, true); }, {"Gelu"}},
    {"gelu_tanh_products", [](ModelMaker& m) { gelu_tanh(m, false); }, {"Gelu"}},
};

class WrittenOut : public ::testing::TestWithParam<Written> {};

TEST_P(WrittenOut, ComputesTheSame) {
  const ModelPtr before = model_of(GetParam()), after = canonical_of(before, GetParam().kept);
  EXPECT_EQ(ops(*after), GetParam().expected);
  const at::Tensor x = noise({2, 3, 4}, 9) * 3;
  EXPECT_LE(relative_difference(run_one(after, x), run_one(before, x)), 1e-6);
  EXPECT_EQ(canonical_of(after, GetParam().kept)->graph->hash(), after->graph->hash()) << "done once is done";
  for (const auto& [name, data] : after->weights->all())
    EXPECT_TRUE(after->graph->tensor(name) != kNoTensor || before->graph->tensor(name) == kNoTensor) << name;
}
INSTANTIATE_TEST_SUITE_P(Canonical, WrittenOut, ::testing::ValuesIn(kWritten), [](const auto& info) { return std::string(info.param.name); });

TEST(Canonical, ALinearLayerHasABiasSite) {
  const ModelPtr model = canonical_of(model_of(kWritten[2]));
  const auto layers = find_layers(*model->graph);
  ASSERT_EQ(layers.size(), 1u);
  ASSERT_NE(layers[0].bias, kNoTensor);
  EXPECT_EQ(layers[0].bias_axis, 0);
  EXPECT_EQ(model->graph->tensor(layers[0].bias).shape, Shape{5});
  EXPECT_EQ(model->graph->tensor(layers[0].output).name, "y");
}

// Recurrent layers.
struct Recurrent {
  const char* op;
  const char* direction;
  bool lengths, linear_before_reset = false;
};
void PrintTo(const Recurrent& r, std::ostream* out) { *out << r.op << " " << r.direction; }
std::string name_of(const Recurrent& r) {
  return std::string(r.op) + "_" + r.direction + (r.lengths ? "_lengths" : "") + (r.linear_before_reset ? "_linear" : "");
}

constexpr std::int64_t kSteps = 5, kBatch = 3, kColumns = 4, kHidden = 6;

ModelPtr recurrent_model(const Recurrent& r) {
  const std::int64_t sides = std::string(r.direction) == "bidirectional" ? 2 : 1;
  const std::int64_t gates_of = static_cast<std::int64_t>(gates(r.op).size());
  ModelMaker m(14);
  m.input("x", {kSteps, kBatch, kColumns});
  m.weight("w", noise({sides, gates_of * kHidden, kColumns}, 1)).weight("r", noise({sides, gates_of * kHidden, kHidden}, 2));
  m.weight("b", noise({sides, 2 * gates_of * kHidden}, 3) * 0.3).weight("n", at::tensor({2, 5, 3}, at::kInt));
  Attributes attributes = {{"direction", std::string(r.direction)}, {"hidden_size", kHidden}};
  if (r.linear_before_reset) attributes["linear_before_reset"] = std::int64_t{1};
  m.node("cell", r.op, {"x", "w", "r", "b", r.lengths ? "n" : ""}, {"y", "h"}, attributes);
  return m.output("y").output("h").build();
}

const Recurrent kRecurrent[] = {{"LSTM", "forward", false},       {"LSTM", "reverse", true},  {"LSTM", "bidirectional", true},
                                {"GRU", "forward", false},        {"GRU", "forward", false, true}, {"GRU", "bidirectional", true},
                                {"RNN", "reverse", false},        {"RNN", "bidirectional", true}};

class RecurrentLayers : public ::testing::TestWithParam<Recurrent> {};

TEST_P(RecurrentLayers, AreTheSameGateByGate) {
  const ModelPtr before = recurrent_model(GetParam()), after = canonical_of(before);
  const at::Tensor x = noise({kSteps, kBatch, kColumns}, 7);
  const auto a = Runner::create(before, nullptr), b = Runner::create(after, nullptr);
  ASSERT_TRUE(a && b);
  std::map<std::string, at::Tensor> seen;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& t) { seen[after->graph->tensor(id).name] = t; };
  const auto plain = (*a)->run({x}), opened = (*b)->run({x}), watched = (*b)->run({x}, hooks);
  ASSERT_TRUE(plain && opened && watched);
  for (const std::size_t i : {0u, 1u}) {
    EXPECT_TRUE(same_bits((*plain)[i], (*opened)[i]));
    EXPECT_TRUE(same_bits((*plain)[i], (*watched)[i]));
  }

  const auto layers = find_layers(*after->graph);
  ASSERT_EQ(layers.size(), 1u);
  const Layer& layer = layers[0];
  const std::size_t sides = std::string(GetParam().direction) == "bidirectional" ? 2 : 1, of = gates(GetParam().op).size();
  EXPECT_EQ(layer.weights(), (of == 1 && sides == 1 ? 2 : 2 * of * sides));
  EXPECT_EQ(layer.inputs.size(), 1 + sides);
  EXPECT_EQ(layer.internals.size(), sides * cell_sites(GetParam().op).size());
  EXPECT_NE(layer.bias, kNoTensor);
  std::set<std::string> names;
  for (const Site& site : layer.sites()) {
    EXPECT_TRUE(names.insert(site_name(layer, site)).second) << site_name(layer, site);
    const TensorInfo& t = after->graph->tensor(site_tensor(layer, site));
    if (t.is_initializer) continue;
    ASSERT_TRUE(seen.count(t.name)) << t.name;
    if (site.kind != SiteKind::kInternal) continue;
    const std::int64_t rows = GetParam().lengths ? 2 + 5 + 3 : kSteps * kBatch;
    EXPECT_EQ(seen[t.name].sizes(), (at::IntArrayRef{rows, kHidden})) << t.name;
  }
  // The joined weight is the file's.
  for (const Node& node : after->graph->nodes())
    if (node.op == "Concat" && (sides == 1 || node.integer("axis", 1) == 0)) {
      const bool input = node.name == "cell/W";
      EXPECT_TRUE(same_bits(seen[node.name], exec::to_tensor(*before->weights->find(input ? "w" : "r")))) << node.name;
    }
}

quant::QuantParams params_for(const at::Tensor& values, int bits, Granularity granularity = Granularity::kTensor, int axis = 1) {
  QuantSpec spec;
  spec.bits = bits;
  spec.granularity = granularity;
  if (granularity == Granularity::kChannel) spec.axis = axis;
  const at::Tensor x = values.contiguous();
  auto p = quant::find_params(spec, x.sizes().vec(), x.data_ptr<float>(), axis);
  if (!p) throw std::runtime_error(p.error().text());
  return *p;
}

TEST_P(RecurrentLayers, QuantizeTheWeightOfOneGate) {
  const ModelPtr before = recurrent_model(GetParam()), after = canonical_of(before);
  const Layer layer = find_layers(*after->graph).at(0);
  const auto of = static_cast<std::int64_t>(gates(GetParam().op).size());
  for (const Site& site : layer.sites()) {
    if (site.kind != SiteKind::kWeight) continue;
    const TensorData* data = after->weights->find(after->graph->tensor(site_tensor(layer, site)).name);
    QuantizerMap q;
    q[site] = params_for(exec::to_tensor(*data), 3, Granularity::kChannel);
    // The same by hand in the weight as the file has it.
    const auto half = static_cast<std::int64_t>(layer.weights() / 2);
    const bool recurrent = site.operand >= half;
    const std::int64_t k = site.operand % half;
    auto weights = std::make_shared<WeightStore>(*before->weights);
    at::Tensor whole = exec::to_tensor(*weights->find(recurrent ? "r" : "w")).clone();
    at::Tensor part = whole.select(0, k / of).narrow(0, k % of * kHidden, kHidden);
    part.copy_(exec::fake_quantize(part.unsqueeze(0).contiguous(), q[site]).squeeze(0));
    weights->set(recurrent ? "r" : "w", exec::to_data(whole));
    const ModelPtr by_hand = std::make_shared<const Model>(Model{before->graph, weights, "test"});
    const at::Tensor x = noise({kSteps, kBatch, kColumns}, 7);
    EXPECT_TRUE(same_bits(run_one(after, x, &q), run_one(by_hand, x))) << site_name(layer, site);
    EXPECT_FALSE(same_bits(run_one(after, x, &q), run_one(before, x))) << site_name(layer, site);
  }
}
INSTANTIATE_TEST_SUITE_P(Canonical, RecurrentLayers, ::testing::ValuesIn(kRecurrent), [](const auto& info) { return name_of(info.param); });

TEST(Canonical, EverythingInsideAnLstmIsQuantizedAsACellComputedByHand) {
  const ModelPtr model = canonical_of(recurrent_model({"LSTM", "forward", false}));
  const Layer layer = find_layers(*model->graph).at(0);
  const at::Tensor x = noise({kSteps, kBatch, kColumns}, 7);
  std::map<TensorId, at::Tensor> seen;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& t) { seen[id] = t; };
  ASSERT_TRUE((*Runner::create(model, nullptr))->run({x}, hooks));
  QuantizerMap q;
  int bits = 3;
  for (const Site& site : layer.sites())
    if (site.kind == SiteKind::kInternal || (site.kind == SiteKind::kInput && site.operand == 1))
      q[site] = params_for(seen.at(site_tensor(layer, site)), 3 + bits++ % 4);
  const auto at_site = [&](const std::string& name, const at::Tensor& t) {
    for (const auto& [site, params] : q)
      if (site_name(layer, site) == name) return exec::fake_quantize(t.contiguous(), params);
    ADD_FAILURE() << "there is no site " << name;
    return t;
  };
  const auto weight = [&](const std::string& name) { return exec::to_tensor(*recurrent_model({"LSTM", "forward", false})->weights->find(name)); };
  const at::Tensor w = weight("w")[0], r = weight("r")[0], b = weight("b")[0];
  at::Tensor h = at::zeros({kBatch, kHidden}), c = at::zeros({kBatch, kHidden});
  std::vector<at::Tensor> ys;
  for (std::int64_t t = 0; t < kSteps; ++t) {
    const at::Tensor sums = at::matmul(x[t], w.t()) + b.narrow(0, 0, 4 * kHidden) + b.narrow(0, 4 * kHidden, 4 * kHidden) +
                            at::matmul(at_site("hidden state", h), r.t());
    const auto sum = [&](int k, const char* gate) {
      return at_site(std::string(gate) + " accumulator", sums.narrow(1, k * kHidden, kHidden));
    };
    const at::Tensor i = at_site("input gate activation", at::sigmoid(sum(0, "input gate"))),
                     o = at_site("output gate activation", at::sigmoid(sum(1, "output gate"))),
                     f = at_site("forget gate activation", at::sigmoid(sum(2, "forget gate"))),
                     g = at_site("cell gate activation", at::tanh(sum(3, "cell gate")));
    c = at_site("cell state", f * c + i * g);
    h = o * at_site("cell state activation", at::tanh(c));
    ys.push_back(h);
  }
  const at::Tensor actual = run_one(model, x, &q);
  EXPECT_LE(relative_difference(actual.squeeze(1), at::stack(ys)), 1e-6);
  EXPECT_GT(relative_difference(actual, run_one(model, x)), 1e-2) << "the quantizers do something";
}

// Attention.
TEST(Canonical, ScoresAndProbabilitiesOfAttentionAreSites) {
  for (const bool causal : {false, true}) {
    ModelMaker m(23);
    m.input("q", {2, 3, 4, 8}).input("k", {2, 3, 4, 8}).input("v", {2, 3, 4, 8});
    m.node("attend", "Attention", {"q", "k", "v"}, {"y"}, {{"is_causal", std::int64_t{causal}}});
    const ModelPtr model = canonical_of(m.output("y").build());
    const Layer layer = find_layers(*model->graph).at(0);
    ASSERT_EQ(layer.internals.size(), 2u);
    EXPECT_EQ(layer.input_names, (std::vector<std::string>{"queries", "keys", "values"}));
    const at::Tensor query = noise({2, 3, 4, 8}, 1) * 2, key = noise({2, 3, 4, 8}, 2) * 2, value = noise({2, 3, 4, 8}, 3);
    QuantizerMap q;
    std::map<TensorId, at::Tensor> seen;
    exec::RunHooks hooks;
    hooks.tap = [&](TensorId id, const at::Tensor& t) { seen[id] = t; };
    ASSERT_TRUE((*Runner::create(model, nullptr))->run({query, key, value}, hooks));
    EXPECT_EQ(seen.at(layer.internals[0]).count_nonzero().item().toLong(), 2 * 3 * (causal ? 10 : 16)) << "what the mask leaves";
    for (const int operand : {0, 1})
      q[{layer.node, SiteKind::kInternal, operand}] = params_for(seen.at(layer.internals[static_cast<std::size_t>(operand)]), 4);
    const at::Tensor scores = exec::fake_quantize(at::matmul(query, key.transpose(2, 3)) / std::sqrt(8.0), q[{layer.node, SiteKind::kInternal, 0}]);
    const at::Tensor mask = at::ones({4, 4}, at::kBool).tril();
    const at::Tensor p = at::softmax(causal ? scores.masked_fill(mask.logical_not(), -INFINITY) : scores, -1);
    const at::Tensor expected = at::matmul(exec::fake_quantize(p.contiguous(), q[{layer.node, SiteKind::kInternal, 1}]), value);
    const auto actual = (*Runner::create(model, &q))->run({query, key, value});
    ASSERT_TRUE(actual) << actual.error().text();
    EXPECT_LE(relative_difference((*actual)[0], expected), 1e-5) << causal;
    EXPECT_GT(relative_difference((*actual)[0], (*(*Runner::create(model, nullptr))->run({query, key, value}))[0]), 1e-2);
  }
}

// A mask is no score, whatever number stands for it, and a dynamic format does not see it either.
TEST(Canonical, MasksOfAttentionAreNoScores) {
  const at::Tensor query = noise({1, 2, 4, 8}, 1) * 2, key = noise({1, 2, 4, 8}, 2) * 2, value = noise({1, 2, 4, 8}, 3);
  for (const float shut : {-INFINITY, -3.4028235e38f, -1e9f, -10000.0f}) {
    ModelMaker m(23);
    m.input("q", {1, 2, 4, 8}).input("k", {1, 2, 4, 8}).input("v", {1, 2, 4, 8}).input("mask", {4, 4});
    m.node("attend", "Attention", {"q", "k", "v", "mask"}, {"y"});
    const ModelPtr model = canonical_of(m.output("y").build());
    const Layer layer = find_layers(*model->graph).at(0);
    const at::Tensor mask = at::zeros({4, 4}).masked_fill(at::ones({4, 4}, at::kBool).tril().logical_not(), shut);
    std::map<TensorId, at::Tensor> seen;
    exec::RunHooks hooks;
    hooks.tap = [&](TensorId id, const at::Tensor& t) { seen[id] = t; };
    const auto plain = (*Runner::create(model, nullptr))->run({query, key, value, mask}, hooks);
    ASSERT_TRUE(plain) << plain.error().text();
    EXPECT_LT(seen.at(layer.internals[0]).abs().max().item().toFloat(), 100) << shut;
    // Looking changes nothing, not even where every key is shut out and a finite mask leaves the scores to decide.
    const at::Tensor all = at::full({4, 4}, std::max(shut, -10000.0f));
    const auto looked = (*Runner::create(model, nullptr))->run({query, key, value, all}, hooks), alone = (*Runner::create(model, nullptr))->run({query, key, value, all});
    ASSERT_TRUE(looked && alone);
    EXPECT_TRUE(same_bits((*looked)[0], (*alone)[0])) << shut;
    ASSERT_TRUE((*Runner::create(model, nullptr))->run({query, key, value, mask}, hooks));
    QuantizerMap still, dynamic;
    still[{layer.node, SiteKind::kInternal, 0}] = params_for(seen.at(layer.internals[0]), 8);
    QuantSpec spec;
    spec.source = ScaleSource::kDynamic;
    dynamic[{layer.node, SiteKind::kInternal, 0}] = *quant::dynamic_params(spec, -1);
    for (const QuantizerMap* q : {&still, &dynamic}) {
      const auto quantized = (*Runner::create(model, q))->run({query, key, value, mask});
      ASSERT_TRUE(quantized) << quantized.error().text();
      const double difference = relative_difference((*quantized)[0], (*plain)[0]);
      EXPECT_LT(difference, 0.05) << shut;
      EXPECT_GT(difference, 1e-5) << shut;
    }
  }
}

TEST(Canonical, OtherTypesAndWideningConstantsStay) {
  ModelMaker half;
  half.input("x", {-1, 3, 4}, DataType::kFloat16);
  gelu(half, 0);
  EXPECT_EQ(canonical_of(half.output("y").build())->graph->nodes().size(), 5u) << "exporters write constants of float32";
  ModelMaker wide;
  wide.input("x", {-1, 3, 4}).weight("root", tensor({}, {1.41421354f})).weight("one", tensor({}, {1})).weight("half", tensor({1, 1, 1, 1}, {0.5f}));
  wide.node("a/div", "Div", {"x", "root"}, {"u"}).node("a/erf", "Erf", {"u"}, {"e"}).node("a/plus", "Add", {"e", "one"}, {"p"});
  wide.node("a/mul", "Mul", {"x", "p"}, {"t"}).node("a/half", "Mul", {"t", "half"}, {"y"});
  EXPECT_EQ(canonical_of(wide.output("y").build())->graph->nodes().size(), 5u);
}

// Gates that two nodes read, or one twice, have no format for one of them.
TEST(Canonical, SharedGatesAreNoSites) {
  ModelMaker m(14);
  m.input("x", {kSteps, kBatch, kColumns});
  std::vector<std::string> parts;
  for (int g = 0; g < 4; ++g) {
    parts.push_back("g" + std::to_string(g));
    m.weight(parts.back(), noise({1, kHidden, kColumns}, static_cast<std::uint64_t>(g)));
  }
  parts[3] = parts[2];
  m.weight("r", noise({1, 4 * kHidden, kHidden}, 9)).node("w", "Concat", parts, {"w"}, {{"axis", std::int64_t{1}}});
  m.node("one", "LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", kHidden}}).node("two", "LSTM", {"x", "w", "r"}, {"z"}, {{"hidden_size", kHidden}});
  const ModelPtr model = canonical_of(m.output("y").output("z").build());
  for (const Layer& layer : find_layers(*model->graph)) {
    EXPECT_EQ(layer.weights(), 4u) << "those of the hidden state, which each node has for itself";
    for (const Site& site : layer.sites())
      if (site.kind == SiteKind::kWeight) EXPECT_EQ(model->graph->tensor(site_tensor(layer, site)).consumers.size(), 1u);
  }
}

// Weights that do not fit the node stay as they are, and nothing crashes.
TEST(Canonical, OddRecurrentNodesStay) {
  struct Row {
    const char* what;
    Shape w, r;
  };
  for (const Row& row : {Row{"rows that are no multiple of the gates", {1, 23, 4}, {1, 24, 6}}, Row{"another rank", {24, 4}, {24, 6}},
                         Row{"two directions for one", {2, 24, 4}, {2, 24, 6}}, Row{"empty", {1, 0, 4}, {1, 0, 0}}}) {
    ModelMaker m(14);
    m.input("x", {kSteps, kBatch, kColumns}).weight("w", noise(row.w, 1)).weight("r", noise(row.r, 2));
    m.node("cell", "LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", kHidden}});
    const ModelPtr model = canonical_of(m.output("y").build());
    const auto runner = Runner::create(model, nullptr);
    ASSERT_TRUE(runner) << row.what;
    (void)(*runner)->run({noise({kSteps, kBatch, kColumns}, 7)});
    find_layers(*model->graph);
  }
}

}  // namespace
}  // namespace quanvas
