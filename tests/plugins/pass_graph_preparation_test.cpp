// Passes that give the network another form before it is quantized: pool-to-conv, merge-concats, relu6-to-relu.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/plugins/graph_pass_support.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;
using testing::L;
using testing::ModelMaker;
using testing::noise;

int count(const ModelPtr& model, const std::string& op) {
  int n = 0;
  for (const Node& node : model->graph->nodes()) n += node.op == op;
  return n;
}

Result<testing::Scaled> pass(const std::string& id, const ModelPtr& model, const json& options = json::object()) {
  return testing::run_pass(id, model, options, at::zeros({1, 1}));
}

TEST(GraphPreparation, StopsWhenAsked) {
  for (const char* id : {"pool-to-conv", "merge-concats", "relu6-to-relu", "fold-bn"}) {
    ModelMaker m(13);
    m.input("x", {-1, 3, 7, 7}).node("pool", "GlobalAveragePool", {"x"}, {"y"}).output("y");
    std::stop_source source;
    source.request_stop();
    testing::Kept kept;
    kept.stop = source.get_token();
    const auto done = testing::run_pass(id, m.build(), json::object(), at::zeros({1, 1}), &kept);
    ASSERT_FALSE(done) << id;
    EXPECT_EQ(done.error().code, ErrorCode::kCancelled) << id;
  }
}

struct PoolRow {
  std::string name, op;
  Attributes attributes;
  Shape input;
  std::string left;  // why it stays; empty: it becomes a convolution
  bool is_known = true;
};

std::vector<PoolRow> pools() {
  const std::int64_t one = 1, none = 0;
  return {
      {"window", "AveragePool", {{"kernel_shape", L{2, 3}}, {"strides", L{2, 1}}}, {2, 5, 7, 8}, ""},
      {"overlapping", "AveragePool", {{"kernel_shape", L{3, 3}}, {"strides", L{2, 2}}}, {2, 3, 9, 8}, ""},
      {"defaults", "AveragePool", {{"kernel_shape", L{2, 2}}}, {2, 1, 4, 4}, ""},
      {"counted_pads",
       "AveragePool",
       {{"kernel_shape", L{3, 3}}, {"pads", L{1, 0, 1, 2}}, {"count_include_pad", one}},
       {2, 3, 6, 6},
       ""},
      {"same_counted",
       "AveragePool",
       {{"kernel_shape", L{3, 3}}, {"auto_pad", std::string("SAME_UPPER")}, {"strides", L{2, 2}}, {"count_include_pad", one}},
       {2, 3, 7, 7},
       ""},
      {"line", "AveragePool", {{"kernel_shape", L{4}}, {"strides", L{4}}}, {2, 3, 12}, ""},
      {"volume", "AveragePool", {{"kernel_shape", L{2, 2, 2}}}, {1, 2, 4, 5, 6}, ""},
      {"global", "GlobalAveragePool", {}, {2, 6, 7, 5}, ""},
      {"mean", "ReduceMean", {{"axes", L{2, 3}}, {"keepdims", one}}, {2, 4, 6, 6}, ""},
      {"mean_flat", "ReduceMean", {{"axes", L{-1, -2}}, {"keepdims", none}}, {2, 4, 6, 6}, ""},
      {"mean_of_rows", "ReduceMean", {{"axes", L{3}}, {"keepdims", one}}, {2, 4, 6, 5}, ""},
      // Not the same everywhere, or not known.
      {"pads", "AveragePool", {{"kernel_shape", L{3, 3}}, {"pads", L{1, 1, 1, 1}}}, {2, 3, 6, 6}, "reach into the padding"},
      {"same",
       "AveragePool",
       {{"kernel_shape", L{3, 3}}, {"auto_pad", std::string("SAME_LOWER")}},
       {2, 3, 6, 6},
       "reach into the padding"},
      {"ceil", "AveragePool", {{"kernel_shape", L{2, 2}}, {"strides", L{2, 2}}, {"ceil_mode", one}}, {2, 3, 7, 7}, "ceil_mode"},
      {"unknown_size", "GlobalAveragePool", {}, {2, 3, 6, 6}, "not known", false},
      {"mean_of_rows_flat", "ReduceMean", {{"axes", L{3}}, {"keepdims", none}}, {2, 4, 6, 5}, "leaves out only some axes"},
  };
}

TEST(PoolToConv, TheNetworkStaysTheSame) {
  for (const PoolRow& row : pools()) {
    SCOPED_TRACE(row.name);
    Shape declared = row.input;
    declared[0] = -1;
    if (!row.is_known) declared[2] = -1;
    ModelMaker m(13);
    m.input("x", declared).weight("w", noise({row.input[1], row.input[1]}, 3));
    m.node("pool", row.op, {"x"}, {"p"}, row.attributes).node("relu", "Relu", {"p"}, {"y"}).output("y");
    const ModelPtr model = m.build();
    const auto done = pass("pool-to-conv", model);
    ASSERT_TRUE(done) << done.error().text();
    EXPECT_EQ(count(done->model, "Conv"), row.left.empty() ? 1 : 0) << done->text;
    if (!row.left.empty()) {
      EXPECT_EQ(done->model, model);
      EXPECT_THAT(done->text, HasSubstr("'pool' ("));
      EXPECT_THAT(done->text, HasSubstr(row.left));
      continue;
    }
    EXPECT_THAT(done->text, HasSubstr("1 of 1"));
    const at::Tensor x = noise(row.input, 5) * 10;
    EXPECT_LT(testing::relative_difference(testing::run_one(done->model, x), testing::run_one(model, x)), 1e-6);
    // A layer with weight and input, depthwise, of the same name.
    const Node* conv = done->model->graph->find("pool");
    ASSERT_NE(conv, nullptr);
    EXPECT_EQ(conv->integer("group", 1), row.input[1]);
    const std::vector<Layer> layers = find_layers(*done->model->graph);
    const Layer* layer = find_layer(layers, conv->id);
    ASSERT_NE(layer, nullptr);
    EXPECT_NE(layer->weight, kNoTensor);
    EXPECT_EQ(layer->inputs.size(), 1u);
  }
}

// 8 bits hold 1 / k exactly, at code 127 of each channel.
TEST(PoolToConv, WeightsOfEightBitsAreExact) {
  ModelMaker m(13);
  m.input("x", {-1, 3, 7, 7}).node("pool", "GlobalAveragePool", {"x"}, {"y"}).output("y");
  const auto done = pass("pool-to-conv", m.build());
  ASSERT_TRUE(done);
  const at::Tensor w = testing::weight(done->model, "pool.weight");
  EXPECT_EQ(w.sizes(), (Shape{3, 1, 7, 7}));
  EXPECT_EQ(w.min().item<float>(), w.max().item<float>());
  EXPECT_FLOAT_EQ(w.max().item<float>(), 1.0f / 49);
}

ModelPtr concats(const std::function<void(ModelMaker&)>& build) {
  ModelMaker m(13);
  m.input("x", {-1, 3, 4, 4});
  m.weight("k1", noise({2, 2, 4, 4}, 1)).weight("k2", noise({2, 1, 4, 4}, 2)).weight("k3", noise({2, 3, 4, 4}, 3));
  m.node("a", "Relu", {"x"}, {"a"}).node("b", "Sigmoid", {"x"}, {"b"}).shape("a", {-1, 3, 4, 4}).shape("b", {-1, 3, 4, 4});
  build(m);
  return m.build();
}

struct ConcatRow {
  std::string name;
  std::function<void(ModelMaker&)> build;  // to "y"
  int concats, inputs;                     // afterwards; inputs of the one that gives y
};

TEST(MergeConcats, TheNetworkStaysTheSameBitForBit) {
  const auto cat = [](ModelMaker& m, const std::string& name, std::vector<std::string> from,
                      std::int64_t axis = 1) -> ModelMaker& {
    return m.node(name, "Concat", std::move(from), {name}, {{"axis", axis}});
  };
  const ConcatRow rows[] = {
      {"nested",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "y", {"c", "b"}).output("y");
       },
       1, 3},
      {"order",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "y", {"b", "c", "x"}).output("y");
       },
       1, 4},
      {"deep",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "d", {"c", "b"});
         cat(m, "y", {"b", "d"}).output("y");
       },
       1, 4},
      {"two_inside",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "d", {"x", "b"});
         cat(m, "y", {"c", "d"}).output("y");
       },
       1, 4},
      {"from_the_back",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"}, -3).shape("c", {-1, 6, 4, 4});
         cat(m, "y", {"c", "b"}).output("y");
       },
       1, 3},
      {"constants",
       [&](ModelMaker& m) {
         cat(m, "y", {"k1", "x", "k2", "k3"}).output("y");
       },
       1, 3},
      {"constants_of_both",
       [&](ModelMaker& m) {
         cat(m, "c", {"x", "k1"});
         cat(m, "y", {"c", "k2"}).output("y");
       },
       1, 2},
      // Left as they are.
      {"two_readers",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"}).node("r", "Relu", {"c"}, {"r"});
         cat(m, "y", {"c", "r"}).output("y");
       },
       2, 2},
      {"read_twice",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "y", {"c", "c"}).output("y");
       },
       2, 2},
      {"an_output",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"});
         cat(m, "y", {"c", "b"}).output("y").output("c");
       },
       2, 2},
      {"other_axis",
       [&](ModelMaker& m) {
         cat(m, "c", {"a", "x"}, 2);
         cat(m, "d", {"b", "b"}, 2);
         cat(m, "y", {"c", "d"}).output("y");
       },
       3, 2},
      {"apart",
       [&](ModelMaker& m) {
         cat(m, "y", {"k1", "x", "k2"}).output("y");
       },
       1, 3},
  };
  for (const ConcatRow& row : rows) {
    SCOPED_TRACE(row.name);
    const ModelPtr model = concats(row.build);
    const auto done = pass("merge-concats", model);
    ASSERT_TRUE(done) << done.error().text();
    EXPECT_EQ(count(done->model, "Concat"), row.concats) << done->text;
    const Graph& g = *done->model->graph;
    EXPECT_EQ(g.find("y")->inputs.size(), static_cast<std::size_t>(row.inputs)) << done->text;
    const at::Tensor x = noise({2, 3, 4, 4}, 9);
    EXPECT_TRUE(testing::same_bits(testing::run_one(done->model, x), testing::run_one(model, x)));
    const bool changes =
        count(model, "Concat") != row.concats || model->graph->find("y")->inputs.size() != static_cast<std::size_t>(row.inputs);
    EXPECT_EQ(done->model != model, changes);
    const auto again = pass("merge-concats", done->model);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->model, done->model) << "a second time there is nothing to do";
  }
}

TEST(Relu6ToRelu, OnlyClipsFromZeroUpwards) {
  ModelMaker m(13);
  m.weight("zero", at::tensor({0.0f}).reshape({}))
      .weight("six", at::tensor({6.0f}).reshape({}))
      .weight("one", at::tensor({1.0f}).reshape({}));
  m.weight("low", at::tensor({-1.0f}).reshape({})).input("x", {-1, 3, 4, 4});
  m.node("relu6", "Clip", {"x", "zero", "six"}, {"a"})
      .node("unit", "Clip", {"x", "zero", "one"}, {"b"})
      .node("band", "Clip", {"x", "low", "six"}, {"c"});
  m.node("open", "Clip", {"x", "zero"}, {"d"}).node("sum", "Sum", {"a", "b", "c", "d"}, {"y"}).output("y");
  const ModelPtr model = m.build();
  const auto done = pass("relu6-to-relu", model);
  ASSERT_TRUE(done) << done.error().text();
  const Graph& g = *done->model->graph;
  EXPECT_EQ(g.find("relu6")->op, "Relu");
  EXPECT_EQ(g.find("open")->op, "Relu");
  EXPECT_EQ(g.find("unit")->op, "Clip");
  EXPECT_EQ(g.find("band")->op, "Clip");
  EXPECT_THAT(done->text, HasSubstr("2 of 4 clips"));
  EXPECT_THAT(done->text, HasSubstr("'unit' (its limit is lower)"));
  EXPECT_THAT(done->text, HasSubstr("'band' (its lower limit is not 0)"));
  EXPECT_THAT(done->text, HasSubstr("the float network changes"));
  const at::Tensor small = noise({2, 3, 4, 4}, 3) * 5;
  EXPECT_TRUE(testing::same_bits(testing::run_one(done->model, small), testing::run_one(model, small)))
      << "below the limits nothing changes";
  EXPECT_FALSE(testing::same_bits(testing::run_one(done->model, small * 3), testing::run_one(model, small * 3)));
  const auto all = pass("relu6-to-relu", model, {{"limit", 1.0}});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->model->graph->find("unit")->op, "Relu");
}

// Equalization passes what it could not before.
TEST(Relu6ToRelu, LetsFactorsPass) {
  for (const testing::Net& net : testing::nets()) {
    if (net.name != "relu6") continue;
    const ModelPtr model = testing::made(net);
    const auto done = pass("relu6-to-relu", model);
    ASSERT_TRUE(done);
    const auto before = testing::run_pass("equalize", model, json::object(), testing::samples_of(net));
    const auto after = testing::run_pass("equalize", done->model, json::object(), testing::samples_of(net));
    ASSERT_TRUE(before && after);
    EXPECT_EQ(before->model, model);
    EXPECT_NE(after->model, done->model) << after->text;
    return;
  }
  FAIL();
}

}  // namespace
}  // namespace quanvas
