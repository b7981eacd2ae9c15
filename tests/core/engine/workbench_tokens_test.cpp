// Perplexity: against figures that follow from the network by hand, for float, quantized and swept networks, and for
// windows of every length.
#include <gmock/gmock.h>

#include "tests/core/engine/exec_support.h"
#include "tests/core/engine/text_files.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kVocabulary = 8;

// The row of a table that a token chooses is multiplied by a matrix: the scores of the next token depend on it alone.
ModelPtr bigram(const at::Tensor& table, const at::Tensor& matrix, bool softmax = false, Shape input = {-1, -1}) {
  ModelMaker m;
  m.input("ids", std::move(input), DataType::kInt64).weight("table", table).weight("w", matrix);
  m.node("emb", "Gather", {"table", "ids"}, {"e"}).node("out", "MatMul", {"e", "w"}, {"y"});
  if (softmax) m.node("softmax", "Softmax", {"y"}, {"p"}, {{"axis", std::int64_t{-1}}});
  return m.output(softmax ? "p" : "y").build();
}

class Tokens : public WorkbenchTest {
 protected:
  void write_ids(const std::vector<std::int32_t>& ids) {
    std::ofstream out(dir_ / "ids.bin", std::ios::binary);
    out.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(std::int32_t)));
  }
  void open_bigram(const ModelPtr& model, const json& more, int threads = 2) {
    const Exporter* exporter = Registry<Exporter>::instance().find("onnx");
    QuantizedModel network;
    network.model = model;
    ASSERT_TRUE(exporter->write(network, (dir_ / "model.onnx").string(), exporter->schema().defaults(), job_));
    fs::remove(dir_ / "tiny.quanvas");
    DataSettings data;
    data.calibrate = data.evaluate = {"tokens", {{"data", "ids.bin"}}, 0, -1};
    for (DataSource* source : {&data.calibrate, &data.evaluate}) source->options.update(more);
    open_file(dir_ / "model.onnx", data, threads);
  }
  Accuracy measure() {
    const auto run = bench_->evaluate_float(0, job_);
    EXPECT_TRUE(run) << run.error().text();
    return run && run->accuracy ? *run->accuracy : Accuracy{};
  }
};

Rule rule_for(const char* op, std::optional<SiteKind> site, json fields) {
  Rule out;
  out.select.ops = {op};
  if (site) out.select.sites = {*site};
  out.override_fields = std::move(fields);
  return out;
}

std::vector<std::int32_t> some_ids(std::size_t n) {
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(static_cast<std::int32_t>((i * i + i / 3) % kVocabulary));
  return out;
}

// -log softmax of the scores behind `from`, at `to`.
double loss(const at::Tensor& scores, std::int32_t from, std::int32_t to) {
  double sum = 0;
  const auto at = [&](std::int64_t k) { return scores[from][k].item<double>(); };
  for (std::int64_t k = 0; k < kVocabulary; ++k) sum += std::exp(at(k));
  return std::log(sum) - at(to);
}

TEST_F(Tokens, ANetworkThatKnowsNothingHasTheVocabularyAsPerplexity) {
  write_ids(some_ids(20));
  for (const bool softmax : {false, true})
    for (const int bos : {-1, 5}) {
      ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(noise({kVocabulary, 4}, 1), at::zeros({4, kVocabulary}), softmax), {{"window", 6}, {"bos", bos}}));
      const Accuracy a = measure();
      EXPECT_NEAR(a.perplexity, static_cast<double>(kVocabulary), 1e-12 * kVocabulary);
      EXPECT_NEAR(a.loss_stderr, 0, 1e-7);
      EXPECT_EQ(a.tokens, bos < 0 ? 16 : 20) << "without BOS the first of each of the 4 windows is not scored";
      EXPECT_EQ(a.samples, 4);
      EXPECT_TRUE(std::isnan(a.top1));
      EXPECT_TRUE(std::isnan(a.top5));
    }
}

// Loss, standard error over windows or tokens, and perplexity, from the definition.
TEST_F(Tokens, FiguresAreThoseOfTheDefinition) {
  const at::Tensor table = noise({kVocabulary, 4}, 1) * 2, matrix = noise({4, kVocabulary}, 2) * 2;
  const at::Tensor scores = table.to(at::kDouble).matmul(matrix.to(at::kDouble));
  const auto ids = some_ids(23);
  write_ids(ids);
  struct Row {
    int window, stride;
  };
  for (const Row row : {Row{6, 0}, Row{6, 2}, Row{64, 0}}) {
    const int held = row.window - 1, stride = row.stride ? row.stride : held;
    std::vector<std::vector<double>> windows;
    std::size_t next = 0;
    for (std::size_t begin = 0; next < ids.size(); begin += static_cast<std::size_t>(stride)) {
      auto& losses = windows.emplace_back();
      for (; next < std::min(ids.size(), begin + static_cast<std::size_t>(held)); ++next)
        losses.push_back(loss(scores, next == begin ? 5 : ids[next - 1], ids[next]));
    }
    double sum = 0, count = 0, square = 0;
    for (const auto& w : windows)
      for (const double l : w) sum += l, ++count;
    const double mean = sum / count, k = static_cast<double>(windows.size());
    for (const auto& w : windows) {
      double of_window = 0;
      for (const double l : w) of_window += l - mean;
      square += of_window * of_window;
    }
    double error = std::sqrt(k / (k - 1) * square) / count;
    if (windows.size() == 1) {
      double spread = 0;
      for (const double l : windows[0]) spread += (l - mean) * (l - mean);
      error = std::sqrt(spread / (count - 1) / count);
    }
    ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(table, matrix), {{"window", row.window}, {"stride", row.stride}, {"bos", 5}}));
    const Accuracy a = measure();
    EXPECT_EQ(a.samples, k);
    EXPECT_EQ(a.tokens, count);
    EXPECT_NEAR(a.loss, mean, 1e-5);
    EXPECT_NEAR(a.loss_stderr, error, 1e-5);
    EXPECT_NEAR(a.perplexity, std::exp(mean), 1e-4);
    EXPECT_NEAR(a.perplexity_stderr, std::exp(mean) * error, 1e-4);
    EXPECT_TRUE(std::isnan(a.agreement));
  }
}

// What fills a short window up plays no part: with a mean over the window in the network it would.
TEST_F(Tokens, WhatFillsAWindowUpIsNotComputedWith) {
  const at::Tensor table = noise({kVocabulary, 4}, 3), matrix = noise({4, kVocabulary}, 4);
  ModelMaker m;
  m.input("ids", {-1, -1}, DataType::kInt64).weight("table", table).weight("w", matrix);
  m.node("emb", "Gather", {"table", "ids"}, {"e"});
  m.node("mean", "ReduceMean", {"e"}, {"m"}, {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", std::int64_t{1}}});
  m.node("add", "Add", {"e", "m"}, {"a"}).node("out", "MatMul", {"a", "w"}, {"y"});
  const ModelPtr model = m.output("y").build();
  write_ids({1, 2, 3});
  ASSERT_NO_FATAL_FAILURE(open_bigram(model, {{"window", 3}}));
  const Accuracy exact = measure();
  ASSERT_NO_FATAL_FAILURE(open_bigram(model, {{"window", 64}}));
  EXPECT_EQ(measure().loss, exact.loss);
  Recipe recipe;
  recipe.rules = {rule_for("MatMul", std::nullopt, {{"bits", 8}})};
  const quanvas::Run filled = run(recipe);
  ASSERT_NO_FATAL_FAILURE(open_bigram(model, {{"window", 3}}));
  const quanvas::Run alone = run(recipe);
  ASSERT_TRUE(filled.accuracy && alone.accuracy);
  EXPECT_EQ(filled.accuracy->loss, alone.accuracy->loss) << "calibration too";
  ASSERT_FALSE(alone.layers.empty());
  EXPECT_EQ(filled.layers[0].cumulative->sqnr_db, alone.layers[0].cumulative->sqnr_db);
}

TEST_F(Tokens, QuantizedAndSweptNetworksAreMeasuredAlike) {
  write_ids(some_ids(60));
  const ModelPtr model = bigram(noise({kVocabulary, 4}, 1) * 2, noise({4, kVocabulary}, 2) * 2);
  ASSERT_NO_FATAL_FAILURE(open_bigram(model, {{"window", 9}, {"bos", 5}}));
  const Accuracy original = measure();
  Recipe recipe;
  recipe.rules = {rule_for("MatMul", SiteKind::kWeight, {{"bits", 4}})};
  const quanvas::Run quantized = run(recipe);
  ASSERT_TRUE(quantized.accuracy);
  EXPECT_GT(std::abs(quantized.accuracy->loss - original.loss), 1e-4);
  EXPECT_NEAR(quantized.accuracy->loss, original.loss, 0.5);
  EXPECT_GT(quantized.accuracy->output_sqnr_db, 10);
  EXPECT_GT(quantized.accuracy->agreement, 0.5);
  EXPECT_EQ(quantized.accuracy->tokens, 60);
  const auto again = bench_->evaluate_run(quantized.id, 0, job_);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->accuracy->perplexity, quantized.accuracy->perplexity);
  const auto stored = bench_->runs();
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->at(1).accuracy->perplexity_stderr, quantized.accuracy->perplexity_stderr);

  ASSERT_TRUE(bench_->set_recipe(recipe, "r"));
  SweepSettings settings;
  settings.bits = {8, 4};
  const auto sweep = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(sweep) << sweep.error().text();
  EXPECT_NEAR(sweep->sweep->float_perplexity, original.perplexity, 1e-12);
  ASSERT_EQ(sweep->sweep->cells.size(), 2u);
  const SweepCell& cell = sweep->sweep->cells[1];
  EXPECT_NEAR(cell.perplexity, quantized.accuracy->perplexity, 1e-9);
  EXPECT_NEAR(cell.perplexity_rise, quantized.accuracy->perplexity / original.perplexity - 1, 1e-9);
  EXPECT_EQ(cell_loss(cell), cell.perplexity_rise);
  EXPECT_TRUE(std::isnan(cell.top1));

  const Comparison c = compare(stored->at(0), stored->at(1));
  EXPECT_EQ(c.perplexity_delta, quantized.accuracy->perplexity - original.perplexity);
  EXPECT_TRUE(std::isnan(c.top1_delta));
}

TEST_F(Tokens, FiguresDoNotDependOnTheNumberOfThreads) {
  write_ids(some_ids(700));
  std::vector<Accuracy> all;
  for (const int threads : {1, 3}) {
    ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(noise({kVocabulary, 4}, 1), noise({4, kVocabulary}, 2)), {{"window", 6}}, threads));
    all.push_back(measure());
  }
  EXPECT_EQ(to_json_text(all[0]), to_json_text(all[1]));
}

// Ids are numbers of words: a rule for every input leaves them as they are.
TEST_F(Tokens, InputsThatAreIdsStayAsTheyAre) {
  write_ids(some_ids(60));
  ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(noise({kVocabulary, 4}, 1), noise({4, kVocabulary}, 2)), {{"window", 9}}));
  const Accuracy original = measure();
  for (const char* source : {"statistics", "dynamic"}) {
    Recipe recipe;
    recipe.rules = {rule_for("Gather", SiteKind::kInput, {{"bits", 2}, {"source", source}})};
    const quanvas::Run r = run(recipe);
    ASSERT_TRUE(r.accuracy) << source;
    EXPECT_EQ(r.accuracy->perplexity, original.perplexity) << source;
  }
}

TEST_F(Tokens, WhatCannotBeMeasuredIsASentence) {
  const auto error = [&](const ModelPtr& model, const json& more) {
    EXPECT_NO_FATAL_FAILURE(open_bigram(model, more));
    const auto run = bench_->evaluate_float(0, job_);
    return run ? std::string() : run.error().text();
  };
  write_ids({1, 2, 9, 1});
  ModelPtr wide = bigram(noise({16, 4}, 1), noise({4, kVocabulary}, 2));
  EXPECT_THAT(error(wide, {{"window", 4}}), HasSubstr("holds the token 9, but the network has scores for 8 tokens only"));
  write_ids({1, 2, 3, 1});
  ModelMaker m;
  m.input("ids", {-1, -1}, DataType::kInt64).weight("table", noise({8, 4}, 1)).node("emb", "Gather", {"table", "ids"}, {"e"});
  m.node("mean", "ReduceMean", {"e"}, {"y"}, {{"axes", std::vector<std::int64_t>{1}}, {"keepdims", std::int64_t{0}}});
  EXPECT_THAT(error(m.output("y").build(), {{"window", 4}}), HasSubstr("A perplexity needs scores for every token of a window"));
  // Training needs labels.
  ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(noise({8, 4}, 1), noise({4, 8}, 2)), {{"window", 4}}));
  DataSettings data = bench_->state().data;
  data.train = data.evaluate;
  ASSERT_TRUE(bench_->set_data(data));
  EXPECT_FALSE(bench_->state().data_status.can_train);
  EXPECT_TRUE(bench_->state().data_status.has_tokens);
  TrainRequest request;
  request.options = train_schema().defaults();
  request.output = (dir_ / "trained.onnx").string();
  const auto trained = bench_->train_float(request, job_);
  ASSERT_FALSE(trained);
  EXPECT_THAT(trained.error().text(), HasSubstr("labels"));
}

// Fixed length of the network's input: a short window is filled up, which a causal network does not see.
TEST_F(Tokens, ANetworkOfOneLengthTakesFilledWindows) {
  const auto ids = some_ids(10);
  write_ids(ids);
  const at::Tensor table = noise({kVocabulary, 4}, 1), matrix = noise({4, kVocabulary}, 2);
  ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(table, matrix, false, {-1, 6}), json::object()));
  const Accuracy fixed = measure();
  EXPECT_EQ(fixed.samples, 2) << "the window is that of the network";
  ASSERT_NO_FATAL_FAILURE(open_bigram(bigram(table, matrix), {{"window", 6}}));
  EXPECT_NEAR(fixed.loss, measure().loss, 1e-6);
}

TEST(PerplexityText, ShowsFourDigits) {
  struct Row {
    double perplexity, error;
    const char* expected;
  };
  for (const Row& row : {Row{3.5481, 0.2769, "3.548 ± 0.277 ppl"}, Row{12.3456, 0.5, "12.35 ± 0.50 ppl"}, Row{512, 0, "512.0 ± 0.0 ppl"},
                         Row{54321.4, 12.7, "54321 ± 13 ppl"}, Row{1, NAN, "1.000 ppl"}, Row{2.5e9, 1e8, "2.500e+09 ± 1.000e+08 ppl"}}) {
    Accuracy a;
    a.perplexity = row.perplexity;
    a.perplexity_stderr = row.error;
    EXPECT_EQ(perplexity_text(a), row.expected);
  }
  EXPECT_EQ(perplexity_digits(NAN), "-");
}

}  // namespace
}  // namespace quanvas::testing
