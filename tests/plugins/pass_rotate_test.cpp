// Rotations: the float network stays the same, what cannot be rotated is left with a reason, and rounding gets easier.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "core/algorithms/hadamard.h"
#include "core/base/json.h"
#include "core/exec/pass_context.h"
#include "core/graph/layers.h"
#include "core/graph/rotation_node.h"
#include "tests/plugins/transformer_nets.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using testing::NetMaker;
using testing::noise;
using testing::all_outputs_of;
using testing::relative_difference;

struct Rotated {
  ModelPtr model;
  std::string text;
  std::vector<PassLayer> layers;
  std::string note(const std::string& layer) const {
    for (const PassLayer& l : layers)
      if (l.layer == layer) return l.note;
    return "no such layer";
  }
};
Result<Rotated> rotated(const ModelPtr& model, const json& options = json::object()) {
  PassContext ctx;
  ctx.model = model;
  JobContext job;
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("rotate", "pass"));
  QUANVAS_TRY(const json all, pass->schema().complete(options, "rotate"));
  QUANVAS_TRY(const std::string text, pass->apply(ctx, all, job));
  return Rotated{ctx.model, text, ctx.layers};
}

std::size_t count(const ModelPtr& model, const std::string& op) {
  std::size_t n = 0;
  for (const Node& node : model->graph->nodes()) n += node.op == op;
  return n;
}

const json kEverything = {{"online", "rest"}, {"expand", true}};
std::vector<json> kinds() {
  return {{{"kind", "hadamard"}}, {{"kind", "signs"}, {"seed", 7}}, {{"kind", "orthogonal"}}, {{"block", 4}}, {{"online", "products"}}, kEverything,
          {{"online", "rest"}, {"residual", false}, {"heads", false}}, {{"kind", "none"}, {"online", "rest"}, {"block", 4}, {"expand", true}},
          {{"online", "rest"}, {"expand", true}, {"expand_step", 3}}};
}

const Shape kS = {2, 5, 16};
struct Net {
  std::string name;
  std::function<void(NetMaker&)> build;
  std::string text;  // part of the report without options
};

std::vector<Net> nets() {
  const std::string none = "Rotated 0 streams of features and 0 groups of heads";
  const std::string one = "Rotated 1 stream of features and 0 groups of heads";
  return {
      {"two_layers", [](NetMaker& n) { n.in({2, 5, 6}).linear("a", "x", 6, kS, true).linear("b", "a", 16, {2, 5, 3}, true).out("b"); }, one},
      {"gemm_forms", [](NetMaker& n) {
         n.in({5, 6}).weight("w", {16, 6}).weight("c", {16}).weight("v", {16, 3});
         n.op("a", "Gemm", {"x", "w", "c"}, {5, 16}, {{"transB", std::int64_t{1}}, {"alpha", 2.0f}, {"beta", 0.5f}});
         n.op("b", "Gemm", {"a", "v"}, {5, 3}, {{"alpha", -1.0f}}).out("b");
       }, one},
      {"residual", [](NetMaker& n) {
         n.in(kS).linear("a", "x", 16, kS).rms("n", "a", kS).gated("f.", "n", 16, 24).add("r", "a", "f.down", kS).rms("m", "r", kS).linear("h", "m", 16, {2, 5, 7}).out("h");
       }, one + " (5 layers"},
      {"attention", [](NetMaker& n) {
         n.in(kS).linear("e", "x", 16, kS).rms("n", "e", kS).attention("a.", "n", 16, 4, 4, 8, true).add("r", "e", "a.o", kS).rms("m", "r", kS).linear("h", "m", 16, {2, 5, 7}).out("h");
       }, "Rotated 1 stream of features and 1 group of heads"},
      {"shared_heads", [](NetMaker& n) {
         n.in(kS).linear("e", "x", 16, kS).rms("n", "e", kS).attention("a.", "n", 16, 4, 2, 8).add("r", "e", "a.o", kS).rms("m", "r", kS).linear("h", "m", 16, {2, 5, 7}).out("h");
       }, "Rotated 1 stream of features and 1 group of heads"},
      {"attention_operator", [](NetMaker& n) {
         n.in(kS).linear("q", "x", 16, {2, 5, 32}).linear("k", "x", 16, kS).linear("v", "x", 16, kS);
         n.op("a", "Attention", {"q", "k", "v"}, {2, 5, 32}, {{"q_num_heads", std::int64_t{4}}, {"kv_num_heads", std::int64_t{2}}}).linear("o", "a", 32, {2, 5, 7}).out("o");
       }, "Rotated 0 streams of features and 1 group of heads (2 layers"},
      {"layer_norms_and_positions", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("e", "x", 6, kS, true).weight("pos", {1, 5, 16}).add("p", "e", "pos", kS).layer_norm("n", "p", kS).gated("f.", "n", 16, 24);
         n.add("r", "p", "f.down", kS).layer_norm("m", "r", kS).linear("h", "m", 16, {2, 5, 7}, true).out("h");
       }, one},
      {"class_token_and_mean", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("e", "x", 6, kS).weight("cls", {2, 1, 16}).op("cat", "Concat", {"cls", "e"}, {2, 6, 16}, {{"axis", std::int64_t{1}}});
         n.op("mean", "ReduceMean", {"cat"}, {2, 16}, {{"axes", NetMaker::L{1}}, {"keepdims", std::int64_t{0}}}).linear("h", "mean", 16, {2, 3}).out("h");
       }, one + " (2 layers, 1 table or constant)"},
      {"rows_moved", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("e", "x", 6, kS).op("t", "Transpose", {"e"}, {5, 2, 16}, {{"perm", NetMaker::L{1, 0, 2}}});
         n.m.weight("i", testing::ints({4, 0}));
         n.m.weight("lo", testing::ints({1})).weight("hi", testing::ints({2})).weight("ax", testing::ints({1})).weight("pads", testing::ints({1, 0, 0, 0, 2, 0}));
         n.op("g", "Gather", {"t", "i"}, {2, 2, 16}).op("s", "Slice", {"g", "lo", "hi", "ax"}, {2, 1, 16}).op("p", "Pad", {"s", "pads"}, {3, 3, 16});
         n.op("id", "Identity", {"p"}, {3, 3, 16}).linear("h", "id", 16, {3, 3, 7}).out("h");
       }, one},
      {"rows_weighed", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("e", "x", 6, kS).weight("mask", {1, 5, 1}).op("k", "Mul", {"mask", "e"}, kS).weight("c", {5, 5}).op("mix", "MatMul", {"c", "k"}, kS);
         n.linear("h", "mix", 16, {2, 5, 7}).out("h");
       }, one},
      {"shared_weight", [](NetMaker& n) {
         n.in(kS).weight("w", {16, 16}).op("a", "MatMul", {"x", "w"}, kS).op("b", "MatMul", {"a", "w"}, kS).op("c", "MatMul", {"b", "w"}, kS).out("c");
       }, "Rotated 2 streams of features"},
      // Not to be touched.
      {"relu_between", [](NetMaker& n) { n.in({2, 5, 6}).linear("a", "x", 6, kS).op("r", "Relu", {"a"}, kS).linear("b", "r", 16, {2, 5, 3}).out("b"); },
       none + " (0 layers, 0 tables or constants); left: 'a': 'r' (Relu) does not treat all features alike"},
      {"output_in_the_stream", [](NetMaker& n) { n.in({2, 5, 6}).linear("a", "x", 6, kS).linear("b", "a", 16, {2, 5, 3}).out("b").out("a"); }, none},
      {"input_in_the_stream", [](NetMaker& n) { n.in(kS).linear("a", "x", 16, kS).add("s", "a", "x", kS).linear("b", "s", 16, {2, 5, 3}).out("b"); },
       none + " (0 layers, 0 tables or constants); left: 'a': it is an input of the network"},
      {"norm_of_channels", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("a", "x", 6, kS).layer_norm("n", "a", kS).op("t", "Tanh", {"n"}, kS).linear("b", "n", 16, {2, 5, 3}).out("b").out("t");
       }, none},
      {"split_features", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("a", "x", 6, kS);
         n.m.node("split", "Split", {"a"}, {"s1", "s2"}, {{"axis", std::int64_t{2}}}).shape("s1", {2, 5, 8}).shape("s2", {2, 5, 8});
         n.linear("b", "s1", 8, {2, 5, 3}).linear("c", "s2", 8, {2, 5, 3}).out("b").out("c");
       }, none + " (0 layers, 0 tables or constants); left: 'a': 'split' (Split)"},
      {"transposed_features", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("a", "x", 6, kS).op("t", "Transpose", {"a"}, {2, 16, 5}, {{"perm", NetMaker::L{0, 2, 1}}}).linear("b", "t", 5, {2, 16, 3}).out("b");
       }, none},
      {"stretched_bias", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("a", "x", 6, kS).weight("c", {1}).add("s", "a", "c", kS).linear("b", "s", 16, {2, 5, 3}).out("b");
       }, none + " (0 layers, 0 tables or constants); left: 'a': 's' (Add)"},
      {"single_features", [](NetMaker& n) {
         n.in({2, 5, 6}).linear("a", "x", 6, kS).m.weight("s", testing::ints({2, 80, 1}));
         n.op("r", "Reshape", {"a", "s"}, {2, 80, 1}).linear("b", "r", 1, {2, 80, 3}).out("b");
       }, none + " (0 layers, 0 tables or constants); left: 'a': its features are regrouped one by one"},
  };
}

ModelPtr made(const Net& net) {
  NetMaker n;
  net.build(n);
  return n.m.build();
}
at::Tensor input_of(const ModelPtr& model) { return noise(*model->graph->tensor(model->graph->inputs()[0]).shape, 30); }

TEST(Rotate, TheNetworkStaysTheSame) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto plain = rotated(model);
    ASSERT_TRUE(plain) << plain.error().text();
    EXPECT_NE(plain->text.find(net.text), std::string::npos) << plain->text;
    for (const json& options : kinds()) {
      SCOPED_TRACE(options.dump());
      const auto result = rotated(model, options);
      ASSERT_TRUE(result) << result.error().text();
      const at::Tensor x = input_of(model);
      EXPECT_LT(relative_difference(all_outputs_of(result->model, x), all_outputs_of(model, x)), 1e-5) << result->text;
    }
  }
}

TEST(Rotate, ALanguageModelStaysTheSame) {
  for (const bool tied : {true, false}) {
    const ModelPtr model = testing::small_llama(tied);
    const at::Tensor x = testing::tokens({2, 5}, 40);
    for (const json& options : kinds()) {
      SCOPED_TRACE(options.dump());
      const auto result = rotated(model, options);
      ASSERT_TRUE(result) << result.error().text();
      EXPECT_LT(relative_difference(all_outputs_of(result->model, x), all_outputs_of(model, x)), 1e-5) << result->text;
    }
    const auto result = rotated(model);
    EXPECT_NE(result->text.find("Rotated 1 stream of features and 1 group of heads"), std::string::npos) << result->text;
    EXPECT_EQ(result->note("a.v"), "input in blocks of 32; output in blocks of 8");
    EXPECT_EQ(result->note("a.o"), "input in blocks of 8; output in blocks of 32");
    EXPECT_EQ(result->note("head"), "input in blocks of 32; its output is left: it is an output of the network");
    EXPECT_NE(result->note("f.gate").find("'f.sig' (Sigmoid)"), std::string::npos);
    // What two layers read as one is not one any more: only the head holds the scale of its normalization.
    if (tied) {
      EXPECT_NE(result->model->graph->find("head")->input(1), result->model->graph->find("tok")->input(0));
    }
  }
}

TEST(Rotate, NoRotationIsNoChange) {
  const ModelPtr model = testing::small_llama();
  const auto merged = rotated(model, {{"kind", "none"}});
  for (const json& options : {json{{"kind", "none"}, {"merge", false}}, json{{"block", 1}, {"merge", false}}, json{{"residual", false}, {"heads", false}, {"merge", false}}}) {
    const auto result = rotated(model, options);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->model, model) << options.dump();
  }
  // A block of one feature after merging: the weights of the merged network, bit for bit.
  const auto one = rotated(model, {{"block", 1}});
  EXPECT_EQ(one->model->weights->hash(), merged->model->weights->hash());
}

TEST(Rotate, NormsInTheWayAreNamed) {
  const auto result = rotated(testing::small_llama(), {{"merge", false}});
  ASSERT_TRUE(result);
  EXPECT_NE(result->note("a.o").find("'an' (RMSNormalization) has a scale for each feature"), std::string::npos) << result->note("a.o");
  EXPECT_NE(result->text.find("Rotated 0 streams of features and 1 group of heads"), std::string::npos) << result->text;
}

TEST(Rotate, WhatIsAskedIsWhatIsDone) {
  const ModelPtr model = testing::small_llama();
  EXPECT_NE(rotated(model, {{"heads", false}})->text.find("1 stream of features and 0 groups"), std::string::npos);
  EXPECT_NE(rotated(model, {{"residual", false}})->text.find("0 streams of features and 1 group"), std::string::npos);
  const auto products = rotated(model, {{"online", "products"}});
  EXPECT_EQ(count(products->model, kHadamardOp), 1u);
  EXPECT_EQ(products->note("f.down"), "online; output in blocks of 32");
  // q, k and v read one rotated tensor, as do gate and up.
  const auto rest = rotated(model, {{"online", "rest"}, {"residual", false}, {"heads", false}});
  EXPECT_EQ(count(rest->model, kHadamardOp), 5u);
  EXPECT_NE(rest->text.find("put 5 online rotations in front of 8 layers"), std::string::npos) << rest->text;
  EXPECT_EQ(count(rotated(model, {{"online", "rest"}, {"residual", false}, {"heads", false}, {"layers", "f.*,head"}})->model, kHadamardOp), 3u);
  EXPECT_EQ(count(rotated(model, {{"online", "rest"}, {"residual", false}, {"heads", false}, {"layers", " a.?; head "}})->model, kHadamardOp), 3u);
  EXPECT_EQ(count(rotated(model, {{"online", "rest"}, {"residual", false}, {"heads", false}, {"layers", ""}})->model, kHadamardOp), 0u);
  EXPECT_EQ(count(rotated(model, {{"online", "rest"}, {"residual", false}, {"heads", false}, {"layers", "nothing"}})->model, kHadamardOp), 0u);
  // The whole product behind the activation is rotated in blocks where they divide it.
  const auto blocks = rotated(model, {{"online", "products"}, {"block", 16}});
  EXPECT_EQ(blocks->note("f.down"), "online in blocks of 16; output in blocks of 16");
  const auto odd = rotated(model, {{"online", "products"}, {"block", 32}});
  EXPECT_NE(odd->note("f.down").find("blocks of 32 do not divide its 48 inputs"), std::string::npos) << odd->note("f.down");
  EXPECT_NE(rotated(model, {{"online", "products"}, {"block", 32}, {"expand", true}})->note("f.down").find("padded from 48 to 64"), std::string::npos);
}

TEST(Rotate, SizesWithoutAHadamardMatrixAreLeftOrPadded) {
  const ModelPtr model = testing::small_llama(true, 172);
  const auto left = rotated(model, {{"online", "products"}});
  ASSERT_TRUE(left);
  EXPECT_NE(left->note("f.down").find("No Hadamard matrix of 172 rows"), std::string::npos) << left->note("f.down");
  EXPECT_NE(left->note("f.down").find("168 and 176"), std::string::npos);
  EXPECT_EQ(count(left->model, kHadamardOp), 0u);
  const auto parameters = [](const ModelPtr& m) { return testing::read_by(m, "f.down").numel(); };
  for (const auto& [step, size] : {std::pair{0, 176}, {1, 180}, {2, 192}, {3, 196}}) {
    const auto padded = rotated(model, {{"online", "products"}, {"expand", true}, {"expand_step", step}});
    EXPECT_EQ(parameters(padded->model), size * 32) << step;  // n' / n times as many, exactly
    const Node* node = padded->model->graph->find("f.down_rotation");
    ASSERT_NE(node, nullptr);
    EXPECT_EQ(hadamard_node(*node)->outputs(), size);
    EXPECT_EQ(describe(*padded->model->graph, *node), "Hadamard 172 → " + std::to_string(size));
    EXPECT_EQ(padded->model->graph->tensor(node->outputs[0]).shape->back(), size);
  }
  // A stream of 20 x 3 features: no Hadamard matrix of 172 either, but a random orthogonal one.
  NetMaker n;
  n.in({2, 5, 6}).linear("a", "x", 6, {2, 5, 172}).linear("b", "a", 172, {2, 5, 3}).out("b");
  const ModelPtr wide = n.m.build();
  const auto none = rotated(wide);
  EXPECT_EQ(none->model, wide);
  EXPECT_NE(none->text.find("No Hadamard matrix of 172 rows is known here; the nearest sizes are 168 and 176"), std::string::npos) << none->text;
  EXPECT_NE(rotated(wide, {{"kind", "orthogonal"}})->text.find("1 stream"), std::string::npos);
  EXPECT_NE(rotated(wide, {{"block", 4}})->text.find("1 stream"), std::string::npos);
  EXPECT_NE(rotated(wide, {{"block", 8}})->text.find("blocks of 8 do not divide 172 features"), std::string::npos);
}

TEST(Rotate, WeightsThatAreNotFiniteAreLeft) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const char* where : {"a.w", "b.w", "pos"}) {
      NetMaker n;
      at::Tensor values[3] = {noise({6, 16}, 1), noise({16, 3}, 2), noise({5, 16}, 3)};
      at::Tensor& t = values[where[0] == 'a' ? 0 : where[0] == 'b' ? 1 : 2];
      t[1][2] = bad;
      n.in({2, 5, 6}).m.weight("a.w", values[0]).weight("b.w", values[1]).weight("pos", values[2]);
      n.op("a", "MatMul", {"x", "a.w"}, kS).add("s", "a", "pos", kS).op("b", "MatMul", {"s", "b.w"}, {2, 5, 3}).out("b");
      const ModelPtr model = n.m.build();
      for (const json& options : {json::object(), json{{"online", "rest"}}}) {
        const auto result = rotated(model, options);
        ASSERT_TRUE(result) << result.error().text();
        EXPECT_NE(result->text.find("not finite"), std::string::npos) << result->text;
        for (const char* name : {"a.w", "b.w", "pos"})
          if (!options.contains("online")) {
            EXPECT_EQ(result->model->weights->find(name)->content_hash(), model->weights->find(name)->content_hash());
          }
      }
    }
}

// Halves are read and written as halves; those that would overflow are left, and so is what misses bytes.
TEST(Rotate, HalfPrecisionAndMissingBytesAreLookedAt) {
  const auto net = [](double scale, bool whole) {
    NetMaker n;
    n.in({2, 5, 6}).m.weight("a.w", (noise({6, 16}, 1) * scale).to(at::kHalf)).weight("b.w", noise({16, 3}, 2).to(at::kDouble)).weight("c.w", noise({3, 2}, 3));
    n.op("a", "MatMul", {"x", "a.w"}, kS).op("b", "MatMul", {"a", "b.w"}, {2, 5, 3}).op("c", "MatMul", {"b", "c.w"}, {2, 5, 2}).out("c");
    ModelPtr model = n.m.build();
    auto weights = std::make_shared<WeightStore>(*model->weights);
    TensorData cut = *weights->find("b.w");
    if (!whole) cut.bytes -= 8;
    weights->set("b.w", cut);
    return std::make_shared<const Model>(Model{model->graph, weights, "test"});
  };
  const auto fine = rotated(net(1, true));
  ASSERT_TRUE(fine) << fine.error().text();
  EXPECT_EQ(fine->note("a"), "its input is left: it is an input of the network; output in blocks of 16");
  EXPECT_EQ(fine->model->weights->find("a.w")->type, DataType::kFloat16);
  EXPECT_EQ(fine->model->weights->find("b.w")->type, DataType::kDouble);
  const auto large = rotated(net(60000, true));
  EXPECT_NE(large->note("a").find("the weights of 'a' are too large to be rotated as float16"), std::string::npos) << large->note("a");
  const auto cut = rotated(net(1, false), {{"online", "rest"}});
  ASSERT_TRUE(cut) << cut.error().text();
  EXPECT_EQ(cut->note("b"), "no such layer");
}

TEST(Rotate, SeedsAndThreadsDecideWhatTheyShould) {
  const ModelPtr model = testing::small_llama();
  const auto hash = [&](const json& options) { return rotated(model, options)->model->weights->hash(); };
  EXPECT_EQ(hash({{"seed", 1}}), hash({{"seed", 1}}));
  EXPECT_NE(hash({{"seed", 1}}), hash({{"seed", 2}}));
  EXPECT_EQ(hash({{"kind", "hadamard"}, {"seed", 1}}), hash({{"kind", "hadamard"}, {"seed", 2}}));
  EXPECT_NE(hash({{"kind", "orthogonal"}, {"seed", 1}}), hash({{"kind", "orthogonal"}, {"seed", 2}}));
  quant::set_kernel_threads(1);
  const std::string one = hash({{"kind", "orthogonal"}});
  quant::set_kernel_threads(3);
  EXPECT_EQ(hash({{"kind", "orthogonal"}}), one);
  quant::set_kernel_threads(1);
}

// y = x W with a few inputs that are 20 times as large as the others: the weights that read them are small, those that make
// them are large.
TEST(Rotate, RoundingLosesLessWhereFeaturesStandOut) {
  NetMaker n;
  const Shape s = {64, 64};
  at::Tensor make = noise({32, 64}, 1), read = noise({64, 48}, 2);
  for (const std::int64_t c : {3, 17, 40}) {
    make.select(1, c).mul_(20);
    read[c].mul_(12);
  }
  n.in({64, 32}).m.weight("a.w", make).weight("b.w", read);
  n.op("a", "MatMul", {"x", "a.w"}, s).op("b", "MatMul", {"a", "b.w"}, {64, 48}).out("b");
  const ModelPtr model = n.m.build();
  const at::Tensor x = noise({64, 32}, 9), wanted = testing::run_one(model, x);
  const auto error = [&](const ModelPtr& m, int weight_bits, int input_bits) {
    const auto quantizers = testing::quantize_all(m, x, weight_bits, input_bits);
    return ((testing::run_one(m, x, &quantizers) - wanted).norm() / wanted.norm()).item<double>();
  };
  for (const char* kind : {"hadamard", "signs", "orthogonal"}) {
    const ModelPtr other = rotated(model, {{"kind", kind}})->model;
    EXPECT_LT(error(other, 4, 12), 0.8 * error(model, 4, 12)) << kind;
    EXPECT_LT(error(other, 4, 4), 0.8 * error(model, 4, 4)) << kind;
  }
  const ModelPtr online = rotated(model, {{"online", "rest"}, {"residual", false}, {"layers", "b"}})->model;
  EXPECT_LT(error(online, 4, 4), 0.8 * error(model, 4, 4));
  // The report says so, too.
  const auto rows = rotated(model)->layers;
  EXPECT_LT(rows[1].after, 0.7 * rows[1].before) << rows[1].layer;
}

TEST(Rotate, AgreesWithTheReferenceOnline) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_layerwise_rotation_mlp.json");
  const json golden = json::parse(file);
  const auto value = [](const json& t) { return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>()); };
  const json &before = golden.at("weights_before"), &after = golden.at("weights_after");
  testing::ModelMaker m(17);
  m.input("x", {-1, 32});
  for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) m.weight(name, value(before.at(name)));
  m.node("fc1", "Gemm", {"x", "fc1.weight", "fc1.bias"}, {"h"}, {{"transB", std::int64_t{1}}}).shape("h", {-1, 16});
  m.node("relu", "Relu", {"h"}, {"r"}).shape("r", {-1, 16});
  m.node("fc2", "Gemm", {"r", "fc2.weight", "fc2.bias"}, {"y"}, {{"transB", std::int64_t{1}}}).shape("y", {-1, 8}).output("y");
  const auto result = rotated(m.build(), {{"online", "rest"}});
  ASSERT_TRUE(result) << result.error().text();
  for (const char* layer : {"fc1", "fc2"})
    for (const char* part : {"weight", "bias"})
      EXPECT_LT(relative_difference(testing::weight_of(result->model, std::string(layer) + "." + part),
                                    value(after.at(std::string(layer) + ".layer." + part))), 1e-5) << layer << part;
  EXPECT_LT(relative_difference(testing::run_one(result->model, value(golden.at("x"))), value(golden.at("y"))), 1e-5);
}

// --- the operator ---

ModelPtr with_node(const Attributes& attributes, std::int64_t width = 12, DataType type = DataType::kFloat) {
  GraphBuilder b;
  b.set_opset(17);
  b.tensor("x", type, Shape{-1, width});
  b.input("x");
  b.tensor("y", type, std::nullopt);
  b.node("h", kHadamardOp, {"x"}, {"y"}, attributes, kOwnDomain);
  b.output("y");
  return std::make_shared<const Model>(Model{*b.build(), std::make_shared<WeightStore>(), "test"});
}

TEST(Rotate, TheOperatorIsTheDenseProduct) {
  for (const HadamardNode h : {HadamardNode{12, 12, 12}, {12, 4, 1}, {10, 12, 12}, {10, 4, 1}, {5, 8, 1}, {1, 1, 1}}) {
    const auto t = algorithms::HadamardTransform::create(h.size, h.core);
    const at::Tensor one = at::tensor(t->matrix(), at::kDouble).reshape({h.size, h.size});
    const at::Tensor dense = at::kron(at::eye(h.blocks(), at::kDouble), one).narrow(0, 0, h.width);
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      const ModelPtr model = with_node(hadamard_attributes(h), h.width, type == at::kFloat ? DataType::kFloat : DataType::kDouble);
      at::Tensor x = noise({7, h.width}, 4).to(type);
      const at::Tensor y = testing::run_one(model, x);
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_LT(relative_difference(y, at::matmul(x.to(at::kDouble), dense)), type == at::kFloat ? 1e-6 : 1e-14);
      // Training differentiates it.
      x.set_requires_grad(true);
      const at::Tensor z = testing::run_one(model, x);
      z.pow(2).sum().backward();
      EXPECT_LT(relative_difference(x.grad(), 2 * x.detach()), 1e-5);  // orthogonal rows: |y| = |x|
    }
    const Node& node = with_node(hadamard_attributes(h), h.width)->graph->nodes()[0];
    EXPECT_EQ(hadamard_node(node)->outputs(), dense.size(1));
  }
}

TEST(Rotate, AnOperatorThatCannotBeIsRefused) {
  for (const Attributes& attributes : {Attributes{}, hadamard_attributes({12, 24, 28}), hadamard_attributes({12, 92, 92}), hadamard_attributes({12, 0, 1}),
                                       hadamard_attributes({0, 4, 1}), hadamard_attributes({12, 4, -1}), hadamard_attributes({std::int64_t{1} << 40, 4, 1})}) {
    const auto runner = exec::Runner::create(with_node(attributes), nullptr);
    if (!runner) continue;
    EXPECT_FALSE((*runner)->run({noise({3, 12}, 1)}));
  }
  const auto runner = exec::Runner::create(with_node(hadamard_attributes({16, 16, 1})), nullptr);
  ASSERT_TRUE(runner);
  const auto wrong = (*runner)->run({noise({3, 12}, 1)});
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().text().find("16 features"), std::string::npos) << wrong.error().text();
}

TEST(Rotate, TheOperatorKeepsItsPlaceInJson) {
  const ModelPtr model = rotated(testing::small_llama(true, 172), {{"online", "products"}, {"expand", true}})->model;
  const auto again = graph_from_json(graph_to_json(*model->graph));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ((*again)->hash(), model->graph->hash());
  const Node* node = (*again)->find("f.down_rotation");
  ASSERT_NE(node, nullptr);
  const auto h = hadamard_node(*node);
  ASSERT_TRUE(h);
  EXPECT_EQ(h->core, 44);
  EXPECT_GT(node_cost(**again, *node).macs, 0);
}

// --- files ---

TEST(Rotate, ExportedFilesComputeTheSame) {
  const ModelPtr model = rotated(testing::small_llama(true, 172), {{"online", "rest"}, {"expand", true}})->model;
  ASSERT_GT(count(model, kHadamardOp), 0u);
  const at::Tensor x = testing::tokens({2, 5}, 40);
  const at::Tensor wanted = all_outputs_of(model, x);
  const fs::path path = fs::temp_directory_path() / ("quanvas-rotate-" + std::to_string(getpid()) + ".onnx");
  for (const char* target : {"onnx", "onnx-qdq"}) {
    SCOPED_TRACE(target);
    QuantizedModel quantized{model, {}, {}};
    const Exporter& exporter = **Registry<Exporter>::instance().get(target, "target");
    const auto refusals = exporter.check(quantized, json::object());
    EXPECT_TRUE(refusals.empty()) << (refusals.empty() ? "" : refusals[0].got);
    JobContext job;
    const Status written = exporter.write(quantized, path.string(), json::object(), job);
    ASSERT_TRUE(written) << written.error().text();
    const auto rows = exporter.audit(quantized, path.string(), json::object());
    ASSERT_TRUE(rows) << rows.error().text();
    for (const AuditRow& row : *rows) EXPECT_TRUE(row.equal) << row.layer;
    const auto back = import_model(path.string(), job);
    ASSERT_TRUE(back) << back.error().text();
    const auto read = std::make_shared<const Model>(*back);
    EXPECT_EQ(count(read, kHadamardOp), 0u);
    EXPECT_LT(relative_difference(all_outputs_of(read, x), wanted), 1e-5);
  }
  fs::remove(path);
}

TEST(Rotate, FilesWithoutRoomForTheMatrixAreRefused) {
  for (const auto& [attributes, type] : {std::pair{hadamard_attributes({32768, 32768, 1}), DataType::kFloat}, {hadamard_attributes({12, 12, 12}), DataType::kDouble}}) {
    const QuantizedModel quantized{with_node(attributes, attributes.at("width").index() == 0 ? std::get<std::int64_t>(attributes.at("width")) : 0, type), {}, {}};
    const Exporter& exporter = **Registry<Exporter>::instance().get("onnx", "target");
    const auto refusals = exporter.check(quantized, json::object());
    ASSERT_FALSE(refusals.empty());
    EXPECT_EQ(refusals[0].layer, "h");
  }
}

// --- a real network ---

class RotateTinyStories : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path file = fs::path(QUANVAS_SHARED_DIR) / "models/tinystories260k/tinystories260k.onnx";
    if (!fs::exists(file)) GTEST_SKIP() << "no reference model at " << file;
    JobContext job;
    auto model = import_model(file.string(), job);
    ASSERT_TRUE(model) << model.error().text();
    model_ = std::make_shared<const Model>(*model);
  }
  ModelPtr model_;
};

TEST_F(RotateTinyStories, LogitsStayTheSame) {
  const at::Tensor ids = testing::tokens({2, 40}, 512);
  const at::Tensor wanted = testing::run_one(model_, ids);
  for (const json& options : kinds()) {
    SCOPED_TRACE(options.dump());
    const auto result = rotated(model_, options);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_LT(relative_difference(testing::run_one(result->model, ids), wanted), 1e-5) << result->text;
  }
  const auto result = rotated(model_);
  EXPECT_NE(result->text.find("Rotated 1 stream of features and 5 groups of heads (36 layers, 1 table or constant)"), std::string::npos) << result->text;
  EXPECT_NE(result->text.find("merged 11 of 11 normalizations"), std::string::npos) << result->text;
}

// Whatever a file holds: what can be rotated is, and the network stays the same.
TEST(RotateReferences, NetworksOfEveryKindStayTheSame) {
  struct Row {
    const char* file;
    Shape input;
    std::int64_t vocabulary = 0;  // of integers; 0: reals
    DataType type = DataType::kFloat;
  };
  const Row rows[] = {{"magika/model.onnx", {1, 2048}, 257, DataType::kInt32},
                      {"squeezenet1.1/squeezenet1.1.onnx", {1, 3, 224, 224}},
                      {"kws/kws_dscnn.onnx", {1, 49, 10, 1}},
                      {"resnet20/resnet20.onnx", {1, 3, 32, 32}},
                      {"tinystories260k/tinystories260k.onnx", {1, 17}, 512, DataType::kInt64}};
  int tried = 0;
  for (const Row& row : rows) {
    const fs::path file = fs::path(QUANVAS_SHARED_DIR) / "models" / row.file;
    if (!fs::exists(file)) continue;
    SCOPED_TRACE(file.string());
    ++tried;
    JobContext job;
    auto model = import_model(file.string(), job);
    ASSERT_TRUE(model) << model.error().text();
    const auto before = std::make_shared<const Model>(*model);
    at::Tensor x = row.vocabulary > 0 ? testing::tokens(row.input, row.vocabulary) : noise(row.input, 5);
    if (row.type == DataType::kInt32) x = x.to(at::kInt);
    const at::Tensor wanted = all_outputs_of(before, x);
    for (const json& options : {json::object(), kEverything, json{{"kind", "orthogonal"}, {"online", "rest"}, {"block", 8}, {"expand", true}}}) {
      const auto result = rotated(before, options);
      ASSERT_TRUE(result) << result.error().text();
      EXPECT_LT(relative_difference(all_outputs_of(result->model, x), wanted), 1e-5) << result->text;
      if (options.empty()) std::printf("%s: %s\n", row.file, result->text.c_str());
    }
  }
  if (tried == 0) GTEST_SKIP() << "no reference models";
}

}  // namespace
}  // namespace quanvas
