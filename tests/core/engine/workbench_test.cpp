// The verbs end to end on a small network with made-up data: everything real but the size.
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using testing::WorkbenchTest;

TEST_F(WorkbenchTest, QuickFactsBeforeAndAfterCalibration) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = uniform_recipe(4, 4);
  auto before = bench_->layer_facts(recipe, node("fc1"));
  ASSERT_TRUE(before) << before.error().text();
  bool weight = false, input_missing = false;
  for (const auto& site : before->sites) {
    if (site.site.kind == SiteKind::kWeight) weight = site.missing.empty() && site.error.sqnr_db > 10 && site.codes_total == 15;
    if (site.site.kind == SiteKind::kInput) input_missing = !site.missing.empty();
  }
  EXPECT_TRUE(weight);
  EXPECT_TRUE(input_missing);
  EXPECT_FALSE(before->output);

  ASSERT_TRUE(bench_->set_recipe(recipe, "W4A4"));
  auto state = bench_->calibrate(job_);
  ASSERT_TRUE(state) << state.error().text();
  EXPECT_TRUE(state->calibrated);
  auto after = bench_->layer_facts(recipe, node("fc1"));
  ASSERT_TRUE(after) << after.error().text();
  ASSERT_TRUE(after->output);
  EXPECT_GT(after->output->sqnr_db, 5);
  EXPECT_LT(after->output->sqnr_db, 60);
  auto finer = bench_->layer_facts(uniform_recipe(8, 8), node("fc1"));
  ASSERT_TRUE(finer && finer->output);
  EXPECT_GT(finer->output->sqnr_db, after->output->sqnr_db + 10) << "four more bits of both are some 24 dB";

  auto histogram = bench_->histogram(recipe, {node("fc1"), SiteKind::kWeight, 0}, 64);
  ASSERT_TRUE(histogram) << histogram.error().text();
  double sum = 0;
  for (const double c : histogram->counts) sum += c;
  EXPECT_EQ(sum, histogram->total);
  EXPECT_EQ(histogram->total, 3 * 64);
  EXPECT_EQ(histogram->grid.size(), 15u);
}

TEST_F(WorkbenchTest, CalibrationSurvivesReopening) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(bench_->calibrate(job_));
  bench_.reset();
  ASSERT_NO_FATAL_FAILURE(open());
  EXPECT_TRUE(bench_->state().calibrated);
}

TEST_F(WorkbenchTest, RunsAreBitEqualForAnyNumberOfThreads) {
  Recipe recipe = uniform_recipe(4, 4);
  recipe.passes.push_back({"bias-correction", true, json::object()});
  recipe.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 16}}});
  std::string artifact;
  for (const int threads : {1, 2, 7}) {
    ASSERT_NO_FATAL_FAILURE(open(threads));
    const quanvas::Run r = run(recipe);
    ASSERT_FALSE(r.artifact.empty());
    if (artifact.empty()) artifact = r.artifact;
    EXPECT_EQ(r.artifact, artifact) << threads << " threads";
  }
}

TEST_F(WorkbenchTest, PassesKeepToTheirLayers) {
  ASSERT_NO_FATAL_FAILURE(open());
  const auto with = [&](const char* id, const char* layer) {
    Recipe recipe = uniform_recipe(3, 8);
    recipe.passes.push_back({id, true, json::object()});
    recipe.passes.back().select.names = {layer};
    return recipe;
  };
  EXPECT_NE(run(with("bias-correction", "*")).passes.back().summary.find("2 layers"), std::string::npos);
  EXPECT_NE(run(with("bias-correction", "fc*")).passes.back().summary.find("1 layer"), std::string::npos);
  EXPECT_EQ(run(with("bias-correction", "nowhere")).passes.back().summary, "Nothing: no layer is selected.");
  for (const char* id : {"qat", "equalize"}) {
    RunRequest request;
    request.recipe = with(id, "fc");
    const auto refused = bench_->run_recipe(request, job_);
    ASSERT_FALSE(refused) << id;
    EXPECT_NE(refused.error().message.find("cannot be limited to layers"), std::string::npos) << refused.error().text();
  }
}

TEST_F(WorkbenchTest, GraphPassesReportEachLayer) {
  ASSERT_NO_FATAL_FAILURE(open());
  Recipe recipe = uniform_recipe(4, 8);
  recipe.passes.push_back({"equalize", true, json::object()});
  const quanvas::Run r = run(recipe);
  ASSERT_EQ(r.passes.size(), 2u);
  EXPECT_EQ(r.passes[1].id, "equalize");
  ASSERT_EQ(r.passes[1].layers.size(), 2u);
  EXPECT_EQ(r.passes[1].layers[0].layer, "conv1");
  EXPECT_GT(r.passes[1].layers[0].before, r.passes[1].layers[0].after);
  EXPECT_FALSE(r.passes[1].measure.empty());
  const auto stored = bench_->runs();
  ASSERT_TRUE(stored);
  EXPECT_EQ(to_json_text(stored->back().passes), to_json_text(r.passes));
}

TEST_F(WorkbenchTest, StoredNetworksEvaluateAsTheyDid) {
  ASSERT_NO_FATAL_FAILURE(open());
  const quanvas::Run first = run(uniform_recipe(3, 4));
  ASSERT_TRUE(first.accuracy);
  EXPECT_EQ(first.accuracy->samples, 96);
  EXPECT_EQ(first.layers.size(), 2u);
  bench_.reset();
  ASSERT_NO_FATAL_FAILURE(open());
  auto again = bench_->evaluate_run(first.id, 0, job_);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->accuracy->top1, first.accuracy->top1);
  EXPECT_EQ(again->accuracy->output_sqnr_db, first.accuracy->output_sqnr_db);
}

TEST_F(WorkbenchTest, AFullDiskLosesNoRun) {
  ASSERT_NO_FATAL_FAILURE(open());
  std::vector<std::string> issues;
  JobContext job({}, {}, [&](const Issue& issue) { issues.push_back(issue.message); });
  Recipe recipe = uniform_recipe(4, 4);
  recipe.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 16}}});
  quanvas::Run trained;
  {
    const testing::FullDisk full;
    RunRequest request;
    request.recipe = recipe;
    const auto result = bench_->run_recipe(request, job);
    if (result) trained = *result;
    EXPECT_EQ(bench_->runs()->size(), 0u);
  }
  EXPECT_EQ(trained.id, 0);
  ASSERT_TRUE(trained.accuracy);
  EXPECT_EQ(trained.name, "W4A4, QAT");
  const auto about_run = std::count_if(issues.begin(), issues.end(), [](const std::string& m) { return m.rfind("The run was not stored: ", 0) == 0; });
  EXPECT_EQ(about_run, 1);
  const auto runs = bench_->runs();
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 1u) << "there is space again";
  ASSERT_FALSE(runs->front().artifact.empty());
  const auto again = bench_->evaluate_run(runs->front().id, 0, job_);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->accuracy->output_sqnr_db, trained.accuracy->output_sqnr_db);
}

TEST_F(WorkbenchTest, ARecipeThatQuantizesNothingSaysSo) {
  ASSERT_NO_FATAL_FAILURE(open());
  Recipe recipe = uniform_recipe(4, 4);
  for (auto& rule : recipe.rules) rule.select.names = {"nobody"};
  const auto r = run(recipe);
  EXPECT_TRUE(std::any_of(r.issues.begin(), r.issues.end(), [](const Issue& i) { return i.message.rfind("Nothing is quantized", 0) == 0; }));
}

TEST_F(WorkbenchTest, UnreadableDataIsRefusedWithItsKindAndOnlyWhereItChanged) {
  ASSERT_NO_FATAL_FAILURE(open());
  DataSettings data = testing::data_settings();
  std::ofstream(dir_ / "short.raw") << "short";
  for (const auto& [file, code] : {std::pair{"missing.raw", ErrorCode::kNotFound}, {"short.raw", ErrorCode::kCorrupt}}) {
    for (DataSource* source : {&data.calibrate, &data.train, &data.evaluate}) source->options["data"] = file;
    const auto status = bench_->check_data(data);
    ASSERT_FALSE(status) << file;
    EXPECT_EQ(status.error().code, code) << status.error().text();
    EXPECT_EQ(status.error().message.rfind("Data for calibration, training, evaluation: ", 0), 0u) << status.error().text();
    ASSERT_TRUE(bench_->set_data(data));
    const auto run = bench_->evaluate_float(0, job_);
    ASSERT_FALSE(run);
    EXPECT_EQ(run.error().code, code) << run.error().text();
    EXPECT_EQ(run.error().text().find("Declare a data set for"), std::string::npos) << run.error().text();
  }
  data.calibrate = testing::data_settings().calibrate;
  EXPECT_TRUE(bench_->check_data(data)) << "the others are as they were";
}

TEST_F(WorkbenchTest, WiderIsNoWorseOnTheWhole) {
  ASSERT_NO_FATAL_FAILURE(open());
  double last = -100;
  for (const int bits : {2, 4, 8}) {
    const quanvas::Run r = run(uniform_recipe(bits, 8));
    ASSERT_TRUE(r.accuracy);
    EXPECT_GT(r.accuracy->output_sqnr_db, last) << bits;
    last = r.accuracy->output_sqnr_db;
    EXPECT_LT(r.bytes, r.bytes_float);
  }
}

TEST_F(WorkbenchTest, SweepCanBeStoppedAndResumed) {
  ASSERT_NO_FATAL_FAILURE(open());
  SweepSettings settings;
  settings.bits = {8, 4, 2};
  std::stop_source stop;
  int cells = 0;
  JobContext stopping(stop.get_token(), {}, {}, [&](const std::string& kind, const std::string&) {
    if (kind == "sweep-cell" && ++cells == 2) stop.request_stop();
  });
  auto stopped = bench_->sweep(settings, 0, stopping);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  auto runs = bench_->runs();
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_FALSE(runs->front().sweep->complete);
  EXPECT_EQ(runs->front().sweep->cells.size(), 2u);
  auto resumed = bench_->sweep({}, runs->front().id, job_);
  ASSERT_TRUE(resumed) << resumed.error().text();
  EXPECT_TRUE(resumed->sweep->complete);
  ASSERT_EQ(resumed->sweep->cells.size(), 6u);

  auto whole = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(whole);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(resumed->sweep->cells[i].output_sqnr_db, whole->sweep->cells[i].output_sqnr_db);
    EXPECT_EQ(resumed->sweep->cells[i].top1, whole->sweep->cells[i].top1);
  }
}

TEST_F(WorkbenchTest, AStoppedTrainingIsStoredBeforeItIsMeasured) {
  ASSERT_NO_FATAL_FAILURE(open());
  RunRequest request;
  request.recipe = uniform_recipe(4, 4);
  request.recipe->passes.push_back({"qat", true, {{"epochs", 1000}, {"batch", 16}, {"validation_samples", 16}}});
  std::stop_source stop;
  std::vector<quanvas::Run> at_measuring;
  JobContext stopping(
      stop.get_token(),
      [&](const Progress& p) {
        if (p.phase != "evaluate" || !at_measuring.empty()) return;
        if (const auto runs = bench_->runs()) at_measuring = *runs;
      },
      {},
      [&](const std::string& kind, const std::string&) {
        if (kind == "train-step") stop.request_stop();
      });
  const auto run = bench_->run_recipe(request, stopping);
  ASSERT_TRUE(run) << run.error().text();
  ASSERT_EQ(at_measuring.size(), 1u) << "whatever ends the measuring, the network is kept";
  EXPECT_FALSE(at_measuring[0].artifact.empty());
  EXPECT_FALSE(at_measuring[0].accuracy);
  EXPECT_TRUE(bench_->evaluate_run(at_measuring[0].id, 0, job_));
  const auto runs = bench_->runs();
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 2u) << "that run and its evaluation";
  EXPECT_EQ(runs->front().id, run->id);
  EXPECT_TRUE(runs->front().accuracy);
  EXPECT_FALSE(runs->front().layers.empty());
}

TEST_F(WorkbenchTest, ExportedFileComputesWhatTheScreenShows) {
  ASSERT_NO_FATAL_FAILURE(open());
  for (const auto& [w, a] : {std::pair{8, 8}, {4, 4}, {3, 8}}) {
    const quanvas::Run r = run(uniform_recipe(w, a));
    ExportRequest request;
    request.target = "onnx-qdq";
    request.path = (dir_ / "tiny_qdq.onnx").string();
    request.run = r.id;
    auto report = bench_->export_model(request, job_);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_TRUE(report->refusals.empty());
    EXPECT_EQ(report->checked_samples, 96);
    EXPECT_EQ(report->equal_predictions, 1.0);
    EXPECT_LT(report->max_output_difference, 1e-4);
    EXPECT_EQ(report->screen.top1, r.accuracy->top1) << "all samples of the evaluation";
    EXPECT_EQ(report->file.top1, r.accuracy->top1);
    EXPECT_EQ(report->audit.size(), r.layers.size() * 3) << "weight, bias and input of each layer";
    for (const auto& row : report->audit) EXPECT_TRUE(row.equal) << row.layer << " " << row.quantizer;
  }
}

TEST_F(WorkbenchTest, AsManySamplesAreComparedAsAreAskedFor) {
  ASSERT_NO_FATAL_FAILURE(open());
  const quanvas::Run r = run(uniform_recipe(8, 8));
  for (const auto& [asked, compared] : {std::pair{0, 96}, {10, 10}, {5000, 96}}) {
    ExportRequest request;
    request.target = "onnx-qdq";
    request.path = (dir_ / "tiny_qdq.onnx").string();
    request.run = r.id;
    request.samples = asked;
    auto report = bench_->export_model(request, job_);
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_EQ(report->checked_samples, compared);
    EXPECT_EQ(report->screen.samples, compared);
    EXPECT_EQ(report->file.samples, compared);
  }
}

TEST_F(WorkbenchTest, RefusedExportWritesNothing) {
  ASSERT_NO_FATAL_FAILURE(open());
  const quanvas::Run r = run(uniform_recipe(12, 8));
  ExportRequest request;
  request.target = "onnx-qdq";
  request.options = {{"opset", 13}};  // 12 bits came later
  request.path = (dir_ / "refused.onnx").string();
  request.run = r.id;
  auto report = bench_->export_model(request, job_);
  ASSERT_TRUE(report) << report.error().text();
  ASSERT_FALSE(report->refusals.empty());
  EXPECT_NE(report->refusals[0].text().find("conv1"), std::string::npos) << report->refusals[0].text();
  EXPECT_FALSE(fs::exists(request.path));
}

TEST_F(WorkbenchTest, FloatTrainingLearnsAndIsRepeatable) {
  ASSERT_NO_FATAL_FAILURE(open());
  std::string first;
  for (const int threads : {1, 2}) {
    ASSERT_NO_FATAL_FAILURE(open(threads));
    TrainRequest request;
    request.options = {{"epochs", 8}, {"batch", 16}, {"learning_rate", 0.01}, {"validation_samples", 24}};
    request.output = (dir_ / "trained.onnx").string();
    auto curve = bench_->train_float(request, job_);
    ASSERT_TRUE(curve) << curve.error().text();
    EXPECT_LT(curve->back().loss, curve->front().loss);
    std::ifstream in(request.output, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads << " threads";
  }
}

TEST_F(WorkbenchTest, WhatAProjectIsMadeOfIsNotWrittenOver) {
  ASSERT_NO_FATAL_FAILURE(open());
  fs::create_directory_symlink(dir_, dir_ / "link");
  const auto bytes_of = [](const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  struct Row {
    fs::path path;
    ErrorCode code;
    const char* says;
  };
  const Row rows[] = {
      {dir_ / "tiny.net.yaml", ErrorCode::kInvalidArgument, "is not replaced"},
      {dir_ / "link" / "tiny.net.yaml", ErrorCode::kInvalidArgument, "is not replaced"},
      {dir_ / "tiny.quanvas", ErrorCode::kInvalidArgument, "is not replaced"},
      {dir_ / "link", ErrorCode::kInvalidArgument, "is a folder"},
      {dir_ / "nowhere" / "a.onnx", ErrorCode::kNotFound, "nowhere"},
      {"", ErrorCode::kInvalidArgument, "No file"},
  };
  for (const auto& row : rows) {
    const std::string before = row.path.has_filename() && fs::is_regular_file(row.path) ? bytes_of(row.path) : "";
    ExportRequest request;
    request.target = "onnx";
    request.path = row.path.string();
    const auto report = bench_->export_model(request, job_);
    TrainRequest training;
    training.options = {{"epochs", 1000}};
    training.output = row.path.string();
    bool stepped = false;
    JobContext watched({}, {}, {}, [&](const std::string&, const std::string&) { stepped = true; });
    const auto trained = bench_->train_float(training, watched);
    ASSERT_FALSE(report) << row.path;
    ASSERT_FALSE(trained) << row.path;
    EXPECT_FALSE(stepped) << "known before the training";
    for (const Error& error : {report.error(), trained.error()}) {
      EXPECT_EQ(error.code, row.code) << row.path;
      EXPECT_NE(error.message.find(row.says), std::string::npos) << error.message;
    }
    if (!before.empty()) EXPECT_TRUE(bytes_of(row.path) == before) << row.path;
  }
}

TEST_F(WorkbenchTest, AFloatTrainingStoppedAtOnceWritesNothing) {
  ASSERT_NO_FATAL_FAILURE(open());
  TrainRequest request;
  request.options = {{"epochs", 1000}, {"batch", 16}, {"learning_rate", 1e-8}, {"validation_samples", 0}};
  request.output = (dir_ / "good.onnx").string();
  std::ofstream(request.output) << "a good network";
  std::stop_source stop;
  JobContext stopping(stop.get_token(), {}, {}, [&](const std::string&, const std::string&) { stop.request_stop(); });
  const auto curve = bench_->train_float(request, stopping);
  ASSERT_FALSE(curve);
  EXPECT_EQ(curve.error().code, ErrorCode::kCancelled);
  std::ifstream in(request.output);
  EXPECT_EQ((std::string{std::istreambuf_iterator<char>(in), {}}), "a good network");
}

TEST_F(WorkbenchTest, MissingThingsAreNamed) {
  EngineOptions options;
  auto none = Workbench::open((dir_ / "absent.onnx").string(), options, job_);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("absent.onnx"), std::string::npos);
  ASSERT_NO_FATAL_FAILURE(open());
  DataSettings no_data;
  ASSERT_TRUE(bench_->set_data(no_data));
  auto calibrated = bench_->calibrate(job_);
  ASSERT_FALSE(calibrated);
  EXPECT_NE(calibrated.error().text().find("data"), std::string::npos);
  auto run = bench_->evaluate_run(77, 0, job_);
  ASSERT_FALSE(run);
  EXPECT_NE(run.error().text().find("77"), std::string::npos);
}

}  // namespace
}  // namespace quanvas
