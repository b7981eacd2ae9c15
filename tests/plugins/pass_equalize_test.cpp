// Cross-layer equalization: the float network stays the same, ranges meet, and what must not be scaled is left with a reason.
#include <gtest/gtest.h>

#include <fstream>

#include "core/base/json.h"
#include "core/exec/pass_context.h"
#include "tests/plugins/scaling_nets.h"

namespace quanvas {
namespace {

using testing::all_outputs;
using testing::L;
using testing::made;
using testing::ModelMaker;
using testing::Net;
using testing::nets;
using testing::noise;
using testing::weight;

struct Equalized {
  ModelPtr model;
  std::string text;
  std::vector<PassLayer> layers;
};

Result<Equalized> equalized(const ModelPtr& model, const json& options = json::object()) {
  PassContext ctx;
  ctx.model = model;
  JobContext job;
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("equalize", "pass"));
  QUANVAS_TRY(const json all, pass->schema().complete(options, "equalize"));
  QUANVAS_TRY(const std::string text, pass->apply(ctx, all, job));
  return Equalized{ctx.model, text, ctx.layers};
}

TEST(Equalize, TheNetworkStaysTheSame) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto result = equalized(model);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_NE(result->text.find(" of " + std::to_string(net.regions) + " region"), std::string::npos) << result->text;
    EXPECT_NE(result->text.find(net.left), std::string::npos) << result->text;
    EXPECT_EQ(result->model == model, net.regions == 0);
    const at::Tensor x = noise(net.input, 30);
    EXPECT_LT(testing::relative_difference(all_outputs(result->model, x), all_outputs(model, x)), 1e-5);
  }
}

TEST(Equalize, PowersOfTwoChangeNoBitOfTheOutput) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto result = equalized(model, {{"powers_of_two", true}});
    ASSERT_TRUE(result) << result.error().text();
    const at::Tensor x = noise(net.input, 31);
    // A tensor of other numbers may be summed up in another order by the library, not one scaled by powers of two.
    EXPECT_TRUE(at::equal(all_outputs(result->model, x), all_outputs(model, x)));
  }
}

// After one round between two layers both ranges are the root of their product (Nagel et al. 2019, equation 11).
TEST(Equalize, RangesMeetInTheMiddle) {
  const Net net = nets()[1];
  const ModelPtr model = made(net);
  const auto result = equalized(model, {{"iterations", 1}});
  ASSERT_TRUE(result);
  const auto rows = [](const at::Tensor& w) { return w.abs().flatten(1).amax(1); };
  const auto columns = [&](const at::Tensor& w) { return rows(w.transpose(0, 1)); };
  const at::Tensor middle = (rows(weight(model, "a.w")) * columns(weight(model, "b.w"))).sqrt();
  EXPECT_LT(testing::relative_difference(rows(weight(result->model, "a.w")), middle), 1e-6);
  EXPECT_LT(testing::relative_difference(columns(weight(result->model, "b.w")), middle), 1e-6);
  // It is a fixed point.
  const auto again = equalized(result->model, {{"iterations", 1}});
  EXPECT_LT(testing::relative_difference(weight(again->model, "a.w"), weight(result->model, "a.w")), 1e-6);
  ASSERT_EQ(result->layers.size(), 2u);
  EXPECT_LT(result->layers[0].after, result->layers[0].before);
  EXPECT_EQ(result->layers[0].layer, "a");
}

TEST(Equalize, ABiasCountsAsPartOfItsChannel) {
  const Net net = nets()[0];
  const ModelPtr model = made(net);
  const auto with = equalized(model), without = equalized(model, {{"merge_bias", false}});
  const auto largest = [](const ModelPtr& m) { return weight(m, "a.b").abs().max().item<float>(); };
  EXPECT_LE(largest(with->model), largest(without->model));
}

TEST(Equalize, AgreesWithTheReference) {
  struct Row {
    const char* file;
    json options;
  };
  const Row rows[] = {{"alg_weight_equalization_mlp", {{"iterations", 10}}},
                      {"alg_weight_equalization_conv", {{"iterations", 10}}},
                      {"alg_weight_equalization_mlp_nobias_1iter", {{"iterations", 1}, {"merge_bias", false}}}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.file);
    std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/" + row.file + ".json");
    const json golden = json::parse(file);
    const auto value = [&](const char* when, const std::string& name) {
      const json& t = golden.at(when).at(name);
      return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>());
    };
    const bool mlp = golden.at("weights_before").contains("fc1.weight");
    const std::vector<std::string> names = mlp ? std::vector<std::string>{"fc1", "fc2"} : std::vector<std::string>{"conv1", "conv2"};
    ModelMaker m(17);
    m.input("x", mlp ? Shape{-1, 32} : Shape{-1, 4, 8, 8});
    for (const auto& n : names) m.weight(n + ".weight", value("weights_before", n + ".weight")).weight(n + ".bias", value("weights_before", n + ".bias"));
    const Attributes attributes = mlp ? Attributes{{"transB", std::int64_t{1}}} : Attributes{{"pads", L{1, 1, 1, 1}}};
    const std::string op = mlp ? "Gemm" : "Conv";
    m.node("one", op, {"x", names[0] + ".weight", names[0] + ".bias"}, {"h"}, attributes).node("relu", "Relu", {"h"}, {"r"});
    m.node("two", op, {"r", names[1] + ".weight", names[1] + ".bias"}, {"y"}, attributes).output("y");
    const auto result = equalized(m.build(), row.options);
    ASSERT_TRUE(result) << result.error().text();
    for (const auto& n : names)
      for (const char* part : {".weight", ".bias"})
        EXPECT_LT(testing::relative_difference(weight(result->model, n + part), value("weights_after", n + part)), 1e-5) << n << part;
  }
}

TEST(Equalize, OptionsOutOfRangeAreRefused) {
  const ModelPtr model = made(nets()[0]);
  for (const json& options : {json{{"iterations", 0}}, json{{"alpha", 2}}, json{{"range", "median"}}, json{{"rounds", 3}}})
    EXPECT_FALSE(equalized(model, options)) << options.dump();
}

}  // namespace
}  // namespace quanvas
