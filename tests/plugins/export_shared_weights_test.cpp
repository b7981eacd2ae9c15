// Matrices that several nodes read: tied embeddings, and layers that share a weight.
#include "core/plugin/placement.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
constexpr auto kChannel = Granularity::kChannel;

class SharedWeightsTest : public WeightFileTest {};

// Embeddings that are also the head's weight: the table stays float for its own reader, the head has codes.
TEST_F(SharedWeightsTest, TiedWeightsStandThereTwice) {
  GraphBuilder b;
  b.set_name("tied");
  b.set_opset(17);
  auto weights = std::make_shared<WeightStore>();
  b.tensor("ids", DataType::kInt64, Shape{-1});
  b.input("ids");
  b.initializer("embed.weight", DataType::kFloat, {32, 16});
  weights->set("embed.weight", random_floats({32, 16}, 3));
  b.tensor("e", DataType::kFloat, Shape{-1, 16});
  b.tensor("y", DataType::kFloat, Shape{-1, 32});
  b.node("gather", "Gather", {"embed.weight", "ids"}, {"e"});
  b.node("head", "Gemm", {"e", "embed.weight"}, {"y"}, {{"transB", std::int64_t{1}}});
  b.output("y");
  auto graph = b.build();
  ASSERT_TRUE(graph);
  const QuantizedModel model =
      linear_net::quantize(std::make_shared<const Model>(Model{*graph, weights, ""}), half(ints(4, true, kChannel)));
  for (const char* target : {"gptq", "awq", "compressed-tensors", "safetensors"}) {
    SCOPED_TRACE(target);
    ASSERT_NO_FATAL_FAILURE(write(target, model));
    EXPECT_TRUE(all_equal(audit(target, model))) << text_of(audit(target, model));
    EXPECT_EQ(values<float>("embed.weight"), weights->find("embed.weight")->to_floats());
    expect_reopens(model);
    JobContext job;
    const auto back = exporter(target).read(model, path(), options(target, {}), job);
    ASSERT_TRUE(back) << back.error().text();
    const Graph& g = *back->model->graph;
    EXPECT_EQ(g.tensor(g.find("gather")->inputs[0]).name, "embed.weight");
    EXPECT_NE(g.find("head")->inputs[1], g.find("gather")->inputs[0]);
  }
}

// One matrix in two layers: with one quantizer it stands in the file once or, under two modules, twice; with two also as
// floats.
TEST_F(SharedWeightsTest, SharedMatricesKeepTheirQuantizers) {
  GraphBuilder b;
  b.set_name("shared");
  b.set_opset(17);
  auto weights = std::make_shared<WeightStore>();
  b.tensor("x", DataType::kFloat, Shape{-1, 32});
  b.input("x");
  b.initializer("w.weight", DataType::kFloat, {32, 32});
  weights->set("w.weight", random_floats({32, 32}, 3));
  b.tensor("a", DataType::kFloat, Shape{-1, 32});
  b.tensor("y", DataType::kFloat, Shape{-1, 32});
  b.node("first", "Gemm", {"x", "w.weight"}, {"a"}, {{"transB", std::int64_t{1}}});
  b.node("second", "Gemm", {"a", "w.weight"}, {"y"}, {{"transB", std::int64_t{1}}});
  b.output("y");
  auto graph = b.build();
  ASSERT_TRUE(graph);
  QuantizedModel model =
      linear_net::quantize(std::make_shared<const Model>(Model{*graph, weights, ""}), half(ints(4, true, kChannel)));
  for (const bool differ : {false, true}) {
    if (differ)
      for (float& s : std::prev(model.quantizers.end())->second.scale) s *= 2;
    for (const char* target : {"gptq", "awq", "compressed-tensors", "safetensors", "npz", "c-header"}) {
      SCOPED_TRACE(std::string(target) + (differ ? ", two quantizers" : ", one quantizer"));
      const std::string name = std::string("out.") + (target == std::string("npz")        ? "npz"
                                                      : target == std::string("c-header") ? "h"
                                                                                          : "safetensors");
      ASSERT_NO_FATAL_FAILURE(write(target, model, {}, name));
      const auto rows = audit(target, model, {}, name);
      EXPECT_EQ(rows.size(), 2u);
      EXPECT_TRUE(all_equal(rows)) << text_of(rows);
      if (target != std::string("c-header")) expect_reopens(model, name);
      if (target == std::string("gptq")) {
        const auto file = safetensors::File::open(path());
        EXPECT_TRUE((*file)->tensor("first.qweight"));
        EXPECT_TRUE((*file)->tensor("second.qweight"));
        EXPECT_EQ((*file)->tensor("w.weight").has_value(), differ);
      }
      JobContext job;
      const auto back = exporter(target).read(model, path(name), options(target, {}), job);
      ASSERT_TRUE(back) << back.error().text();
      for (const PlacedQuantizer& q : place(model).quantizers) {
        const Graph& g = *back->model->graph;
        const std::string& own = g.tensor(g.find(q.node->name)->inputs[1]).name;
        EXPECT_EQ(back->model->weights->find(own)->to_floats(), stored_tensor(model, q)->values);
      }
    }
  }
}

}  // namespace
}  // namespace quanvas
