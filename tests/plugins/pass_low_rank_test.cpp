// Low-rank branches: the float network stays the same, the branch is the best of its rank, and what it leaves rounds better.
#include <gtest/gtest.h>

#include "core/quant/params.h"
#include "tests/plugins/graph_pass_support.h"

namespace quanvas {
namespace {

using testing::all_outputs;
using testing::Kept;
using testing::made;
using testing::ModelMaker;
using testing::Net;
using testing::nets;
using testing::noise;
using testing::recipe_of;
using testing::run_pass;
using testing::samples_of;
using testing::weight;

ModelPtr one_layer(const at::Tensor& w, bool outputs_first) {
  ModelMaker m(17);
  const std::int64_t n = w.size(outputs_first ? 1 : 0);
  m.input("x", {-1, n}).weight("w", w);
  if (outputs_first) m.node("fc", "Gemm", {"x", "w"}, {"y"}, {{"transB", std::int64_t{1}}});
  else m.node("fc", "MatMul", {"x", "w"}, {"y"});
  return m.output("y").build();
}
at::Tensor product_of(const ModelPtr& model) { return weight(model, "fc.low_rank_a").to(at::kDouble).matmul(weight(model, "fc.low_rank_b").to(at::kDouble)); }
at::Tensor quantized(const at::Tensor& w, int bits, int axis) {
  QuantSpec spec;
  spec.bits = bits;
  spec.granularity = Granularity::kChannel;
  const at::Tensor x = w.to(at::kFloat).contiguous();
  const auto params = *quant::find_params(spec, Shape(x.sizes().begin(), x.sizes().end()), x.data_ptr<float>(), axis);
  at::Tensor y = at::empty_like(x);
  quant::fake_quantize(params, params.layout, x.data_ptr<float>(), y.data_ptr<float>());
  return y;
}

TEST(LowRank, TheNetworkStaysTheSame) {
  for (const Net& net : nets())
    for (const json& options : {json{{"rank", 2}}, json{{"rank", 3}, {"method", "loftq"}, {"iterations", 3}}, json{{"rank", 4096}}}) {
      SCOPED_TRACE(net.name + " " + options.dump());
      const ModelPtr model = made(net);
      const auto result = run_pass("low-rank", model, options, samples_of(net), nullptr, recipe_of(3, 8));
      ASSERT_TRUE(result) << result.error().text();
      EXPECT_LT(testing::relative_difference(all_outputs(result->model, samples_of(net)), all_outputs(model, samples_of(net))), 1e-5) << result->text;
      // The branch is no layer: the recipe's rules say nothing of it.
      EXPECT_EQ(find_layers(*result->model->graph).size() - result->layers.size(), find_layers(*model->graph).size());
    }
}

// |W - A B|^2 is the sum of the squares of the singular values that are left (Eckart and Young 1936).
TEST(LowRank, TheBranchIsTheBestOfItsRank) {
  for (const bool outputs_first : {false, true}) {
    const at::Tensor w = noise({24, 40}, 3);
    const at::Tensor s = at::linalg_svdvals(w.to(at::kDouble));
    for (const int rank : {1, 5, 24, 100}) {
      SCOPED_TRACE(rank);
      const auto result = run_pass("low-rank", one_layer(w, outputs_first), {{"rank", rank}}, noise({2, outputs_first ? 40 : 24}, 1));
      ASSERT_TRUE(result) << result.error().text();
      const double left = weight(result->model, "w").to(at::kDouble).square().sum().item<double>();
      const double expected = s.narrow(0, std::min(rank, 24), 24 - std::min(rank, 24)).square().sum().item<double>();
      EXPECT_NEAR(left, expected, 1e-5 * s.square().sum().item<double>());
      const at::Tensor product = product_of(result->model), whole = outputs_first ? w.transpose(0, 1) : w;
      const at::Tensor rest = weight(result->model, "w");
      EXPECT_LT(testing::relative_difference((outputs_first ? rest.transpose(0, 1) : rest).to(at::kDouble) + product, whole), 1e-6);
    }
  }
}

// Where the smaller side is large only the wanted singular values are computed.
TEST(LowRank, LargeMatricesAreApproximatedAsWell) {
  const at::Tensor low = noise({1100, 6}, 1).matmul(noise({6, 1200}, 2)), w = low + 0.01 * noise({1100, 1200}, 3);
  const auto result = run_pass("low-rank", one_layer(w, false), {{"rank", 6}}, noise({2, 1100}, 1));
  ASSERT_TRUE(result) << result.error().text();
  const double left = weight(result->model, "w").square().sum().item<double>(), noise_squares = (w - low).square().sum().item<double>();
  EXPECT_LT(left, noise_squares);  // the best of this rank leaves less than the noise has
  EXPECT_GT(left, 0.9 * noise_squares);
}

TEST(LowRank, OutlierColumnsRoundBetterAndRoundsNeverMakeItWorse) {
  at::Tensor w = noise({48, 32}, 5);
  w.select(0, 3).mul_(40);
  w.select(0, 17).mul_(25);
  const auto error = [&](const json& options) {
    const auto result = run_pass("low-rank", one_layer(w, false), options, noise({2, 48}, 1), nullptr, recipe_of(3, 0));
    EXPECT_TRUE(result) << result.error().text();
    return (w - quantized(weight(result->model, "w"), 3, 1) - product_of(result->model)).square().sum().item<double>();
  };
  const double nearest = (w - quantized(w, 3, 1)).square().sum().item<double>();
  EXPECT_LT(error({{"rank", 8}}), 0.2 * nearest);
  for (const char* method : {"svdquant", "loftq"}) {
    double before = HUGE_VAL;
    for (const int iterations : {1, 2, 5}) {
      const double now = error({{"rank", 4}, {"method", method}, {"iterations", iterations}});
      EXPECT_LE(now, before * (1 + 1e-6)) << method << iterations;
      before = now;
    }
  }
  EXPECT_LT(error({{"rank", 4}, {"method", "loftq"}}), nearest);
}

TEST(LowRank, DamagedBytesAndOddWeightsAreSentences) {
  const at::Tensor w = noise({6, 5}, 5);
  Kept kept;
  ASSERT_TRUE(run_pass("low-rank", one_layer(w, false), {{"rank", 2}}, noise({2, 6}, 1), &kept));
  kept.keeps_damaged = true;
  for (auto& [what, bytes] : kept.bytes)
    for (const std::string& bad : {std::string(), bytes.substr(1), bytes + "x", std::string(bytes.size(), '\xff')}) {
      bytes = bad;
      const auto damaged = run_pass("low-rank", one_layer(w, false), {{"rank", 2}}, noise({2, 6}, 1), &kept);
      ASSERT_FALSE(damaged);
      EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
    }
  at::Tensor odd = w.clone();
  odd[1][1] = std::numeric_limits<float>::quiet_NaN();
  const auto result = run_pass("low-rank", one_layer(odd, false), {{"rank", 2}}, noise({2, 6}, 1));
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_NE(result->text.find("'fc': its weight is not finite"), std::string::npos) << result->text;
  const auto none = run_pass("low-rank", one_layer(w, false), {{"layers", "other*"}}, noise({2, 6}, 1));
  ASSERT_TRUE(none);
  EXPECT_NE(none->text.find("beside 0 layers"), std::string::npos) << none->text;
}

}  // namespace
}  // namespace quanvas
