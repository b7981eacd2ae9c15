// What runs, sweeps and exports measure on networks with a twist: tied weights, a Softmax at the end, one number per
// sample, biases of unusual shapes, data and passes that change in between.
#include <cstring>
#include <limits>

#include <c10/core/InferenceMode.h>

#include "core/exec/rebuild.h"
#include "core/exec/train.h"
#include "core/workflow/state.h"
#include "tests/core/engine/data_files.h"
#include "tests/core/engine/exec_support.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using testing::ints;
using testing::ModelMaker;
using testing::noise;
using testing::tensor;

class Measures : public testing::WorkbenchTest {
 protected:
  static Rule rule(const std::string& name, SiteKind site, const json& spec) {
    Rule r;
    r.select.names = {name};
    r.select.sites = {site};
    r.override_fields = spec;
    return r;
  }
  static Rule weight_rule(const std::string& name, int bits) {
    return rule(name, SiteKind::kWeight, {{"bits", bits}, {"narrow", true}, {"granularity", "channel"}});
  }
  static const LayerResult* layer(const quanvas::Run& run, const std::string& name) {
    for (const LayerResult& l : run.layers)
      if (l.name == name) return &l;
    return nullptr;
  }
};

TEST_F(Measures, TiedWeightsAreMeasuredWhereTheyAreRead) {
  ModelMaker m;
  m.input("x", {-1, 64}).weight("w", noise({64, 64}, 1) * 0.2).weight("v", noise({64, 3}, 2));
  m.node("one", "MatMul", {"x", "w"}, {"a"}).node("relu", "Relu", {"a"}, {"r"});
  m.node("two", "MatMul", {"r", "w"}, {"b"}).node("head", "MatMul", {"b", "v"}, {"y"}).output("y");
  ASSERT_NO_FATAL_FAILURE(open_model(m.build(), "64"));
  Recipe recipe;
  recipe.rules = {weight_rule("one", 4), weight_rule("two", 8)};
  const quanvas::Run both = run(recipe);
  ASSERT_TRUE(layer(both, "one") && layer(both, "two"));
  EXPECT_NEAR(layer(both, "one")->weight->sqnr_db, 20 * std::log10(14.0), 1);
  EXPECT_NEAR(layer(both, "two")->weight->sqnr_db, 20 * std::log10(254.0), 1);
  EXPECT_EQ(both.bytes_float, 4 * (64 * 64 + 64 * 3)) << "stored once";
  EXPECT_EQ(both.bytes, 64 * 64 / 2 + 64 * 4 + 64 * 64 + 64 * 4 + 64 * 3 * 4) << "once in each format";
  recipe.rules = {weight_rule("one", 8), weight_rule("two", 8)};
  EXPECT_EQ(run(recipe).bytes, 64 * 64 + 64 * 4 + 64 * 3 * 4);

  // A cell of a sweep is a run in which nothing else is quantized.
  ASSERT_TRUE(bench_->set_recipe(recipe, "8 bit"));
  SweepSettings settings;
  settings.layers = {node("one"), node("two")};
  settings.bits = {2};
  settings.samples = 0;
  const auto sweep = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(sweep) << sweep.error().text();
  ASSERT_EQ(sweep->sweep->cells.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    recipe.rules = {weight_rule(i == 0 ? "one" : "two", 2)};
    const quanvas::Run alone = run(recipe);
    EXPECT_DOUBLE_EQ(sweep->sweep->cells[static_cast<std::size_t>(i)].output_sqnr_db, alone.accuracy->output_sqnr_db) << i;
    EXPECT_EQ(sweep->sweep->cells[static_cast<std::size_t>(i)].top1, alone.accuracy->top1) << i;
  }
}

TEST_F(Measures, TheLossOfAQuantizedSoftmaxIsThatOfItsProbabilities) {
  const auto begin = [] {
    ModelMaker m;
    m.input("x", {-1, 64}).weight("w", noise({64, 3}, 1)).node("fc", "MatMul", {"x", "w"}, {"a"});
    return m;
  };
  ASSERT_NO_FATAL_FAILURE(open_model(begin().output("a").build(), "64"));
  const auto of_logits = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(of_logits) << of_logits.error().text();
  for (const bool reshaped : {false, true}) {
    ModelMaker m = begin();
    m.node("softmax", "Softmax", {"a"}, {"p"}, {{"axis", std::int64_t{1}}});
    if (reshaped) m.node("flat", "Flatten", {"p"}, {"y"});
    const ModelPtr model = m.output(reshaped ? "y" : "p").build();
    EXPECT_EQ(model->graph->tensor(exec::logits_of(*model->graph)).name, "a");
    ASSERT_NO_FATAL_FAILURE(open_model(model, "64"));
    const auto original = bench_->evaluate_float(0, job_);
    ASSERT_TRUE(original) << original.error().text();
    EXPECT_NEAR(original->accuracy->loss, of_logits->accuracy->loss, 1e-5);
    Recipe recipe;
    recipe.rules = {rule("softmax", SiteKind::kOutput, {{"bits", 8}, {"signed", false}})};
    EXPECT_NEAR(run(recipe).accuracy->loss, original->accuracy->loss, 0.02);
  }
}

TEST_F(Measures, OneNumberPerSampleIsOneRowPerSample) {
  ModelMaker m;
  m.input("x", {-1, 64}).weight("w", noise({64, 1}, 1)).weight("axes", ints({1}));
  m.node("fc", "MatMul", {"x", "w"}, {"a"}).node("squeeze", "Squeeze", {"a", "axes"}, {"y"}).output("y");
  ASSERT_NO_FATAL_FAILURE(open_model(m.build(), "64"));
  const auto original = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(original) << original.error().text();
  EXPECT_EQ(original->accuracy->samples, 96);
  EXPECT_NEAR(original->accuracy->top1, 1.0 / 3, 1e-12);
  Recipe recipe;
  recipe.rules = {weight_rule("fc", 4)};
  ASSERT_TRUE(bench_->set_recipe(recipe, ""));
  const quanvas::Run r = run(recipe);
  EXPECT_EQ(r.accuracy->samples, 96);
  EXPECT_EQ(r.accuracy->agreement, 1);
  SweepSettings settings;
  settings.bits = {4};
  settings.samples = 0;
  const auto sweep = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(sweep) << sweep.error().text();
  EXPECT_NEAR(sweep->sweep->float_top1, 1.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(sweep->sweep->cells.at(0).output_sqnr_db, r.accuracy->output_sqnr_db);
}

TEST_F(Measures, LabelsBelowZeroAreRefusedByName) {
  ASSERT_NO_FATAL_FAILURE(open());
  std::ifstream raw(dir_ / "x.raw", std::ios::binary);
  const std::string pixels{std::istreambuf_iterator<char>(raw), {}};
  std::string labels(96 * 8, '\0');
  const std::int64_t none = -1;
  std::memcpy(labels.data() + 5 * 8, &none, 8);
  std::ofstream(dir_ / "x.npy", std::ios::binary) << testing_data::npy("'<f4'", "(96, 1, 8, 8)", pixels);
  std::ofstream(dir_ / "y.npy", std::ios::binary) << testing_data::npy("'<i8'", "(96,)", labels);
  DataSettings data;
  data.evaluate.reader = "npy";
  data.evaluate.options = {{"data", "x.npy"}, {"labels", "y.npy"}};
  const auto state = bench_->set_data(data);
  ASSERT_TRUE(state && state->data_status.can_evaluate) << state->data_status.problem;
  const auto run = bench_->evaluate_float(0, job_);
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(run.error().message.find("A label of the evaluation data is -1"), std::string::npos) << run.error().text();
}

bool said(const quanvas::Run& r, const std::string& text) {
  return std::any_of(r.issues.begin(), r.issues.end(), [&](const Issue& i) { return i.message.find(text) != std::string::npos; });
}

TEST_F(Measures, LabelsThatAreNoClassAreSaid) {
  ASSERT_NO_FATAL_FAILURE(open());
  std::string labels(96, '\0');
  labels[5] = 7;
  std::ofstream(dir_ / "y.raw", std::ios::binary) << labels;
  ASSERT_TRUE(bench_->set_data(testing::data_settings()));
  const auto run = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(run) << run.error().text();
  EXPECT_TRUE(said(*run, "1 of 96 samples have a label that is no class of the network, up to 7; it has 3 classes"));
  EXPECT_FALSE(said(*run, "NaN"));
}

TEST_F(Measures, OutputsThatAreNoNumbersAreSaid) {
  ModelMaker m;
  m.input("x", {-1, 64}).weight("w", at::ones({64, 3}) * -1.0);
  m.node("fc", "MatMul", {"x", "w"}, {"a"}).node("last", "Log", {"a"}, {"y"}).output("y");
  ASSERT_NO_FATAL_FAILURE(open_model(m.build(), "64"));
  const auto strange = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(strange) << strange.error().text();
  EXPECT_TRUE(said(*strange, "The output holds NaN for 96 of 96 samples"));
}

TEST_F(Measures, BiasesAtTheAccumulatorsScaleHaveTheRightOne) {
  ModelMaker m;
  m.input("x", {-1, 1, 8, 8}).weight("w1", noise({2, 1, 3, 3}, 1)).weight("b1", noise({2}, 2));
  m.weight("w2", noise({2, 2, 2, 2}, 3)).weight("b2", noise({4}, 4)).weight("w3", noise({4, 3}, 5)).weight("b3", noise({1, 3}, 6));
  m.node("conv", "Conv", {"x", "w1", "b1"}, {"a"});
  m.node("grouped", "ConvTranspose", {"a", "w2", "b2"}, {"b"},
         {{"group", std::int64_t{2}}, {"strides", std::vector<std::int64_t>{2, 2}}});
  m.node("pool", "GlobalAveragePool", {"b"}, {"c"}).node("flat", "Flatten", {"c"}, {"d"});
  m.node("row", "Gemm", {"d", "w3", "b3"}, {"y"}).output("y");
  ASSERT_NO_FATAL_FAILURE(open_model(m.build(), "1x8x8"));
  const Recipe recipe = uniform_recipe(8, 8);
  const quanvas::Run r = run(recipe);
  for (const char* name : {"conv", "grouped", "row"}) {
    const auto facts = bench_->layer_facts(recipe, node(name));
    ASSERT_TRUE(facts) << name << ": " << facts.error().text();
    int biases = 0;
    for (const SiteFacts& site : facts->sites)
      if (site.site.kind == SiteKind::kBias && site.missing.empty()) {
        ++biases;
        EXPECT_GT(site.error.sqnr_db, 60) << name;
      }
    EXPECT_EQ(biases, 1) << name;
    EXPECT_GT(layer(r, name)->isolated->sqnr_db, 25) << name;
  }
  ExportRequest request;
  request.target = "onnx-qdq";
  request.path = (dir_ / "biases.onnx").string();
  request.run = r.id;
  const auto report = bench_->export_model(request, job_);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_TRUE(report->refusals.empty());
  EXPECT_EQ(report->audit.size(), 9u);
  for (const AuditRow& row : report->audit) EXPECT_TRUE(row.equal) << row.layer << " " << row.quantizer;
  EXPECT_LT(report->max_output_difference, 1e-4);
}

TEST(AccumulatorBias, FollowsTheAxisOnWhichTheWeightWorks) {
  struct Case {
    const char* what;
    bool weight_right;
    Shape bias;
    Granularity granularity;
    std::size_t scales;  // 0: stays float
  };
  for (const Case& c : std::vector<Case>{{"right, row", true, {6}, Granularity::kChannel, 6},
                                         {"right, matrix row", true, {1, 6}, Granularity::kChannel, 6},
                                         {"right, one number", true, {1}, Granularity::kChannel, 0},
                                         {"right, one number, one scale", true, {1}, Granularity::kTensor, 1},
                                         {"right, groups", true, {6}, Granularity::kGroup, 0},
                                         {"left, column", false, {6, 1}, Granularity::kChannel, 6},
                                         {"left, row", false, {6}, Granularity::kChannel, 0},
                                         {"left, row, one scale", false, {6}, Granularity::kTensor, 1}}) {
    ModelMaker m;
    m.input("x", {6, 6}).weight("w", noise({6, 6}, 1)).weight("b", noise(c.bias, 2));
    m.node("fc", "Gemm", c.weight_right ? std::vector<std::string>{"x", "w", "b"} : std::vector<std::string>{"w", "x", "b"}, {"y"});
    const ModelPtr model = m.output("y").build();
    const Layer layer = find_layers(*model->graph).at(0);
    QuantSpec spec, bias;
    spec.granularity = c.granularity;
    spec.group_size = 2;
    bias.bits = 32;
    bias.scale_from_accumulator = true;
    const TensorData* w = model->weights->find("w");
    exec::QuantizerMap quantizers;
    quantizers[{layer.node, SiteKind::kWeight, 0}] =
        *quant::find_params(spec, w->shape, w->to_floats().data(), exec::site_axis(layer, spec, SiteKind::kWeight));
    quantizers[{layer.node, SiteKind::kInput, 0}] = quant::params_from_range({}, *quant::make_layout({}, {6, 6}, 1), {}, {1});
    quantizers[{layer.node, SiteKind::kBias, 0}].spec = bias;
    ASSERT_TRUE(exec::rebuild_bias(*model, layer, quantizers)) << c.what;
    const auto made = quantizers.find({layer.node, SiteKind::kBias, 0});
    EXPECT_EQ(made == quantizers.end() ? 0 : made->second.scale.size(), c.scales) << c.what;
  }
}

TEST_F(Measures, ASweepIsNotContinuedOnAnotherModelOrOtherData) {
  ASSERT_NO_FATAL_FAILURE(open());
  SweepSettings settings;
  settings.bits = {8, 4};
  std::stop_source stop;
  JobContext stopping(stop.get_token(), {}, {}, [&](const std::string&, const std::string&) { stop.request_stop(); });
  ASSERT_FALSE(bench_->sweep(settings, 0, stopping));
  const std::int64_t id = bench_->runs()->front().id;
  DataSettings less = testing::data_settings();
  less.evaluate.begin = 10;
  ASSERT_TRUE(bench_->set_data(less));
  auto resumed = bench_->sweep({}, id, job_);
  ASSERT_FALSE(resumed);
  EXPECT_NE(resumed.error().message.find("another version of the data"), std::string::npos) << resumed.error().text();
  bench_.reset();
  std::string text = testing::kNetwork;
  text.replace(text.find("seed: 3"), 7, "seed: 4");
  std::ofstream(dir_ / "tiny.net.yaml") << text;
  ASSERT_NO_FATAL_FAILURE(open());
  resumed = bench_->sweep({}, id, job_);
  ASSERT_FALSE(resumed);
  EXPECT_NE(resumed.error().message.find("another version of the model"), std::string::npos) << resumed.error().text();
  EXPECT_EQ(bench_->runs()->front().sweep->cells.size(), 1u) << "nothing was added";
}

TEST_F(Measures, EvaluatingAgainNotesTheDataOfNow) {
  ASSERT_NO_FATAL_FAILURE(open());
  const quanvas::Run first = run(uniform_recipe(3, 8));
  DataSettings less = testing::data_settings();
  less.evaluate.begin = 10;
  const auto state = bench_->set_data(less);
  ASSERT_TRUE(state);
  const auto again = bench_->evaluate_run(first.id, 0, job_);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->accuracy->samples, 86);
  EXPECT_NE(again->data_hash, first.data_hash);
  EXPECT_EQ(again->data_hash, state->data_hash);
  // What the float network gave on the old data is not used for the new.
  ASSERT_NO_FATAL_FAILURE(open_file(dir_ / "tiny.net.yaml", less, 2));
  EXPECT_EQ(bench_->evaluate_run(first.id, 0, job_)->accuracy->output_sqnr_db, again->accuracy->output_sqnr_db);
}

TEST_F(Measures, ThePlainFileHoldsTheGraphAndWeightsOfTheRecipe) {
  ASSERT_NO_FATAL_FAILURE(open());
  Recipe trained = uniform_recipe(4, 8);
  trained.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 0}}});
  struct Case {
    const char* what;
    Recipe recipe;
    bool of_run;
    bool folded, changed;  // against the imported model, and against the folded one
  };
  Recipe plain;
  for (const Case& c : std::vector<Case>{{"no passes", plain, false, false, false},
                                         {"graph passes", uniform_recipe(3, 4), false, true, false},
                                         {"training", trained, false, true, true},
                                         {"a run", uniform_recipe(3, 4), true, true, false},
                                         {"a trained run", trained, true, true, true}}) {
    ASSERT_TRUE(bench_->set_recipe(c.recipe, c.what));
    ExportRequest request;
    request.target = "onnx";
    request.path = (dir_ / "plain.onnx").string();
    if (c.of_run) request.run = run(c.recipe).id;
    const auto report = bench_->export_model(request, job_);
    ASSERT_TRUE(report) << c.what << ": " << report.error().text();
    EXPECT_EQ(report->equal_predictions, 1) << c.what;
    EXPECT_LT(report->max_output_difference, 1e-5) << c.what << ": the file is float, so is what it is compared with";
    const auto written = import_model(request.path, job_);
    ASSERT_TRUE(written) << written.error().text();
    EXPECT_EQ(written->graph->find("bn1") == nullptr, c.folded) << c.what;
    const auto original = import_model((dir_ / "tiny.net.yaml").string(), job_);
    const TensorId weight = written->graph->find("fc1")->input(1), before = original->graph->find("fc1")->input(1);
    EXPECT_EQ(written->weights->find(written->graph->tensor(weight).name)->to_floats() !=
                  original->weights->find(original->graph->tensor(before).name)->to_floats(),
              c.changed)
        << c.what;
  }
}

TEST_F(Measures, OutputsThatAreNoNumbersAreNotTakenForEqual) {
  // x > 0, so x w is negative and its logarithm is none, or its exponential is infinite in both networks.
  for (const auto& [op, factor] : {std::pair{"Log", -1.0}, {"Exp", 1e4}}) {
    ModelMaker m;
    m.input("x", {-1, 64}).weight("w", at::ones({64, 3}) * factor);
    m.node("fc", "MatMul", {"x", "w"}, {"a"}).node("last", op, {"a"}, {"y"}).output("y");
    ASSERT_NO_FATAL_FAILURE(open_model(m.build(), "64"));
    ExportRequest request;
    request.target = "onnx";
    request.path = (dir_ / "strange.onnx").string();
    const auto report = bench_->export_model(request, job_);
    ASSERT_TRUE(report) << report.error().text();
    if (factor < 0) {
      EXPECT_TRUE(std::isnan(report->max_output_difference));
    } else {
      EXPECT_EQ(report->max_output_difference, 0);
    }
  }
}

TEST_F(Measures, WarningsDoNotDependOnWhatIsCached) {
  {
    std::fstream raw(dir_ / "x.raw", std::ios::binary | std::ios::in | std::ios::out);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    raw.write(reinterpret_cast<const char*>(&nan), 4);
  }
  ASSERT_NO_FATAL_FAILURE(open());
  const auto messages = [](const quanvas::Run& r) {
    std::vector<std::string> out;
    for (const Issue& issue : r.issues) out.push_back(issue.where + ": " + issue.message);
    return out;
  };
  const auto first = messages(run(uniform_recipe(8, 8)));
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(messages(run(uniform_recipe(8, 8))), first);
  ASSERT_NO_FATAL_FAILURE(open());
  EXPECT_EQ(messages(run(uniform_recipe(8, 8))), first) << "from the project";
}

TEST_F(Measures, WeightOnlyTrainingNeedsNoCalibration) {
  DataSettings data = testing::data_settings();
  data.calibrate = {};
  ASSERT_NO_FATAL_FAILURE(open_file(dir_ / "tiny.net.yaml", data, 2));
  Recipe recipe = uniform_recipe(4, 0);
  recipe.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 0}}});
  const quanvas::Run r = run(recipe);
  EXPECT_FALSE(r.curve.empty());
  EXPECT_TRUE(r.statistics_hash.empty());
}

TEST(NetworkSize, ProductsOfActivationsCountBothOfThem) {
  ModelMaker m;
  m.input("x", {-1, 4, 5}).input("z", {-1, 5, 6}).weight("w", noise({6, 3}, 1));
  m.shape("a", {-1, 4, 6}).shape("y", {-1, 4, 3});
  m.node("product", "MatMul", {"x", "z"}, {"a"}).node("fc", "MatMul", {"a", "w"}, {"y"}).output("y");
  m.shape("a", {-1, 4, 6}).shape("y", {-1, 4, 3});
  const ModelPtr model = m.build();
  const auto params = [](int bits) {
    quant::QuantParams p;
    p.spec.bits = bits;
    p.scale = {1};
    return p;
  };
  const double product = 4 * 5 * 6, fc = 4 * 6 * 3;
  const Site left{m.id("product"), SiteKind::kInput, 0}, right{m.id("product"), SiteKind::kInput, 1},
      weight{m.id("fc"), SiteKind::kWeight, 0}, input{m.id("fc"), SiteKind::kInput, 0};
  struct Case {
    exec::QuantizerMap quantizers;
    double bops;
  };
  for (const Case& c : std::vector<Case>{{{}, product * 32 * 32 + fc * 32 * 32},
                                         {{{left, params(8)}}, product * 8 * 32 + fc * 32 * 32},
                                         {{{left, params(8)}, {right, params(4)}}, product * 8 * 4 + fc * 32 * 32},
                                         {{{weight, params(4)}, {input, params(8)}}, product * 32 * 32 + fc * 4 * 8}})
    EXPECT_EQ(network_size(*model->graph, find_layers(*model->graph), c.quantizers).bops, c.bops);
}

TEST(Artifact, UnusableQuantizersAreRefused) {
  const ModelPtr model = testing::small_cnn();
  const auto pack = [&](const std::function<void(quant::QuantParams&)>& change) {
    QuantizedModel network;
    network.model = model;
    QuantSpec spec;
    spec.granularity = Granularity::kGroup;
    spec.group_size = 16;
    spec.axis = 1;
    spec.zero_point = ZeroPointType::kInteger;
    const Layer layer = find_layers(*model->graph).back();
    const TensorData* w = model->weights->find("fc.w");
    quant::QuantParams q = *quant::find_params(spec, w->shape, w->to_floats().data(), 1);
    change(q);
    network.quantizers[{layer.node, SiteKind::kWeight, 0}] = q;
    return unpack_artifact(pack_artifact(network, *model), model);
  };
  const auto good = pack([](quant::QuantParams&) {});
  ASSERT_TRUE(good) << good.error().text();
  ASSERT_EQ(good->quantizers.size(), 1u);
  using Q = quant::QuantParams&;
  const std::vector<std::pair<const char*, std::function<void(Q)>>> cases = {
      {"groups of none", [](Q q) { q.layout.group = 0; }},
      {"a negative dimension", [](Q q) { q.layout.dim = -96; }},
      {"dimensions that overflow", [](Q q) { q.layout.outer = q.layout.inner = std::int64_t{1} << 40; }},
      {"no zero points", [](Q q) { q.zero_point.clear(); }},
      {"a scale too few", [](Q q) { q.scale.pop_back(), q.zero_point.pop_back(); }},
      {"a scale of 0", [](Q q) { q.scale[2] = 0; }},
      {"a negative scale", [](Q q) { q.scale[2] = -1; }},
      {"an infinite scale", [](Q q) { q.scale[2] = INFINITY; }},
      {"no number", [](Q q) { q.scale[2] = NAN; }},
      {"a zero point beyond the codes", [](Q q) { q.zero_point[2] = 1e6f; }},
      {"half a zero point", [](Q q) { q.zero_point[2] = 0.5f; }},
      {"codes the wrong way round", [](Q q) { std::swap(q.lo, q.hi); }},
      {"no bits", [](Q q) { q.spec.bits = 0; }},
  };
  for (const auto& [what, change] : cases) {
    const auto network = pack(change);
    ASSERT_FALSE(network) << what;
    EXPECT_EQ(network.error().code, ErrorCode::kCorrupt) << what;
  }
}

TEST(Memory, IsMeasuredWhereTheFileDoesNotSayShapes) {
  const ModelPtr model = testing::small_cnn();
  const auto runner = exec::Runner::create(model, nullptr);
  const testing::PatternData data({1, 8, 8}, 4, 8);
  const Graph& g = *model->graph;
  EXPECT_EQ(*bytes_per_sample(**runner, data, {}), 0);
  EXPECT_EQ(*bytes_per_sample(**runner, data, {g.tensor("c"), g.tensor("y")}), 4 * (6 * 8 * 8 + 4));
  c10::InferenceMode inference;
  const auto kept = run_keeping(**runner, noise({3, 1, 8, 8}, 1), {g.tensor("p")});
  ASSERT_TRUE(kept) << kept.error().text();
  for (std::size_t id = 0; id < kept->size(); ++id)
    EXPECT_EQ((*kept)[id].defined(), static_cast<TensorId>(id) == g.tensor("p")) << g.tensors()[id].name;
  EXPECT_EQ(chunk_size_for(0), 32);
  EXPECT_EQ(chunk_size_for(1e6), 32);
  EXPECT_EQ(chunk_size_for(100e6), 2);
  EXPECT_EQ(chunk_size_for(1e12), 1);
}

TEST(OutputRows, OneRowPerSample) {
  struct Case {
    Shape shape;
    std::int64_t samples;
    Shape rows;  // empty: refused
  };
  for (const Case& c : std::vector<Case>{{{4, 10}, 4, {4, 10}}, {{4}, 4, {4, 1}}, {{4, 3, 1, 1}, 4, {4, 3}},
                                         {{1, 8}, 4, {4, 2}}, {{5}, 4, {}}, {{4, 2}, 0, {}}}) {
    const auto rows = output_rows(at::zeros(c.shape), c.samples);
    ASSERT_EQ(static_cast<bool>(rows), !c.rows.empty()) << shape_text(c.shape);
    if (rows) {
      EXPECT_EQ(rows->sizes().vec(), c.rows) << shape_text(c.shape);
    }
  }
}

}  // namespace
}  // namespace quanvas
