// The two stages of the question what an export target takes, what is kept between questions, and repairs of layers
// that graph passes make.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "core/report/target_lens.h"
#include "core/workflow/found_quantizers.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using quanvas::testing::WorkbenchTest;
using ::testing::Contains;
using ::testing::IsEmpty;

Rule rule(std::vector<SiteKind> sites, json fields, std::vector<std::string> names = {},
          const std::string& share = {}) {
  Rule r;
  r.select.sites = std::move(sites);
  r.select.names = std::move(names);
  r.override_fields = std::move(fields);
  r.share = share;
  return r;
}

class TargetQuestionTest : public WorkbenchTest {
 protected:
  static constexpr const char* kTarget = "onnx-qdq";

  // Scales of least squared error; conv1's zero point is a fraction, which the target refuses.
  static Recipe searched(int bits = 4) {
    Recipe r;
    r.rules.push_back(
        rule({SiteKind::kWeight}, {{"bits", bits}, {"granularity", "channel"}, {"statistic", "mse"}}));
    r.rules.push_back(rule({SiteKind::kInput}, {{"bits", 8}, {"statistic", "mse"}}));
    r.rules.push_back(rule({SiteKind::kBias}, {{"bits", 32}, {"scale_from_accumulator", true}}));
    r.rules.push_back(rule(
        {SiteKind::kWeight},
        {{"bits", 4}, {"zero_point", "float"}, {"zero_point_inside", true}, {"statistic", "minmax"}}, {"conv1"}));
    r.calibration.samples = 16;
    return r;
  }
  void calibrate(const Recipe& recipe) {
    ASSERT_TRUE(bench_->set_recipe(recipe, "test"));
    const auto state = bench_->calibrate(job_);
    ASSERT_TRUE(state) << state.error().text();
  }
  std::vector<Refusal> whole(const Recipe& recipe, const std::string& target = kTarget) {
    const auto answer = bench_->check_export(recipe, target, json::object());
    EXPECT_TRUE(answer) << answer.error().text();
    return answer.value_or(std::vector<Refusal>{});
  }
  std::vector<Refusal> declared(const Recipe& recipe, const std::string& target = kTarget) {
    const auto answer = bench_->check_declarations(recipe, target, json::object());
    EXPECT_TRUE(answer) << answer.error().text();
    return answer.value_or(std::vector<Refusal>{});
  }
  static std::set<std::string> words(const std::vector<Refusal>& refusals) {
    std::set<std::string> out;
    for (const Refusal& r : refusals) out.insert(r.layer + " " + r.quantizer + ": " + r.rule);
    return out;
  }
};

TEST_F(TargetQuestionTest, DeclarationsSayTheirPartBeforeAndAfterCalibration) {
  open();
  const Recipe recipe = searched();
  EXPECT_THAT(words(declared(recipe)), ::testing::ElementsAre("conv1 weight: zero point"));
  EXPECT_THAT(words(whole(recipe)), ::testing::UnorderedElementsAre("conv1 weight: zero point", " : calibration"));
  ASSERT_NO_FATAL_FAILURE(calibrate(recipe));
  EXPECT_THAT(words(declared(recipe)), ::testing::ElementsAre("conv1 weight: zero point"));
  EXPECT_THAT(words(whole(recipe)), Contains("conv1 weight: zero point"));
  // Every target: what declarations say is said with numbers, too.
  for (const Exporter* e : Registry<Exporter>::instance().all()) {
    const std::string id = e->info().id;
    const auto all = words(whole(recipe, id));
    for (const std::string& w : words(declared(recipe, id))) EXPECT_EQ(all.count(w), 1u) << id << ": " << w;
  }
  EXPECT_FALSE(bench_->check_declarations(recipe, "nowhere", json::object()));
  EXPECT_FALSE(bench_->check_declarations(recipe, kTarget, {{"no such option", 1}}));
}

// What is kept from one question to the next changes no answer, of refusals, facts and histograms alike.
TEST_F(TargetQuestionTest, AnswersAreThoseOfAFreshWorkbench) {
  open();
  std::vector<Recipe> recipes;
  for (const int bits : {4, 2, 4, 8}) {
    recipes.push_back(searched(bits));
    recipes.push_back(searched(bits));
    recipes.back().rules.push_back(
        rule({SiteKind::kInput}, {{"bits", bits}, {"statistic", "percentile"}}, {"fc1"}));
    recipes.push_back(searched(bits));
    recipes.back().rules.push_back(rule({SiteKind::kWeight}, {{"bits", bits}}, {}, "tied"));
    recipes.push_back(searched(bits));
    recipes.back().rules.push_back(rule({SiteKind::kWeight}, {{"bits", bits}}, {"fc1"}, "tied"));
    recipes.push_back(searched(bits));
    recipes.back().passes.push_back({"fold-bn"});
    recipes.push_back(searched(bits));
    recipes.back().calibration.samples = 8;
  }
  ASSERT_NO_FATAL_FAILURE(calibrate(recipes[0]));
  const auto answers = [&](const Recipe& r) {
    std::string out;
    for (const char* target : {"onnx-qdq", "gguf", "pyxir"}) out += to_json_text(whole(r, target)) + "\n";
    for (const char* layer : {"conv1", "fc1"}) {
      const auto facts = bench_->layer_facts(r, node(layer));
      EXPECT_TRUE(facts) << facts.error().text();
      out += to_json_text(*facts) + "\n";
      const auto histogram = bench_->histogram(r, {node(layer), SiteKind::kWeight, 0}, 32);
      EXPECT_TRUE(histogram) << histogram.error().text();
      out += to_json_text(*histogram) + "\n";
    }
    return out;
  };
  std::vector<std::string> kept;
  for (const Recipe& r : recipes) kept.push_back(answers(r));
  std::set<std::string> different(kept.begin(), kept.end());
  EXPECT_GT(different.size(), 8u) << "the recipes are not alike";
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    bench_.reset();
    auto again = Workbench::open((dir_ / "tiny.quanvas").string(), EngineOptions{}, job_);
    ASSERT_TRUE(again) << again.error().text();
    bench_ = std::move(*again);
    EXPECT_EQ(answers(recipes[i]), kept[i]) << "recipe " << i;
  }
}

TEST_F(TargetQuestionTest, AStoppedQuestionEnds) {
  open();
  std::stop_source stop;
  stop.request_stop();
  const auto answer = bench_->check_export(searched(), kTarget, json::object(), stop.get_token());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(whole(searched()).empty()) << "the next one is answered";
}

// pool-to-conv makes a convolution of an average pool: its weight is a site that the imported network does not
// have.
constexpr const char* kPools = R"(name: pools
seed: 3
input: [1, 8, 8]
layers:
  - {op: conv, name: conv1, out: 4, kernel: 3, pad: 1}
  - {op: avgpool, name: pool1, kernel: 2}
  - {op: conv, name: conv2, out: 4, kernel: 3, pad: 1}
  - {op: avgpool, name: pool2, kernel: 2}
  - {op: flatten, name: flat}
  - {op: linear, name: fc1, out: 3}
)";

TEST_F(TargetQuestionTest, LayersThatPassesMakeAreMendedWithThoseThatShareTheirQuantizer) {
  std::ofstream(dir_ / "pools.net.yaml") << kPools;
  open_file(dir_ / "pools.net.yaml", quanvas::testing::data_settings(), 2);
  ASSERT_FALSE(HasFatalFailure());
  Recipe recipe;
  recipe.passes.push_back({"pool-to-conv"});
  const json odd = {{"bits", 4}, {"zero_point", "float"}, {"zero_point_inside", true}, {"statistic", "minmax"}};
  recipe.rules.push_back(rule({SiteKind::kWeight}, odd, {"pool1", "pool2"}, "pools"));
  const auto before = declared(recipe);
  ASSERT_THAT(words(before),
              ::testing::UnorderedElementsAre("pool1 weight: zero point", "pool2 weight: zero point"));
  const auto mended = bench_->mend_recipe(recipe, before, "pool2");
  ASSERT_TRUE(mended) << mended.error().text();
  EXPECT_THAT(declared(*mended), IsEmpty()) << "pool1 shares the quantizer, so it has the new one, too";
  bool is_shared = false;
  for (const Rule& r : mended->rules) is_shared = is_shared || (r.share == "pools" && r.select.names.size() == 2);
  EXPECT_TRUE(is_shared) << recipe_to_yaml(*mended);
  // The layer of another network has no rule.
  Refusal foreign = before[0];
  foreign.layer = "nowhere";
  const auto same = bench_->mend_recipe(recipe, {foreign}, {});
  ASSERT_TRUE(same);
  EXPECT_EQ(*same, recipe);
}

TEST(FoundQuantizers, KeepTheNewestOfASiteOfTheSameValues) {
  FoundQuantizers found;
  QuantSpec four, five;
  four.bits = 4;
  five.bits = 5;
  quant::QuantParams p;
  p.scale = {0.5f};
  const Site a{1, SiteKind::kWeight, 0}, b{2, SiteKind::kWeight, 0};
  using Question = FoundQuantizers::Question;
  EXPECT_FALSE(found.find({"v", a, four, {}}));
  found.keep({"v", a, four, {b, a}}, p);
  ASSERT_TRUE(found.find({"v", a, four, {a, b}})) << "in any order";
  EXPECT_EQ(found.find({"v", a, four, {a, b}})->scale, p.scale);
  for (const Question& other : {Question{"w", a, four, {a, b}}, Question{"v", b, four, {a, b}},
                                Question{"v", a, five, {a, b}}, Question{"v", a, four, {}}})
    EXPECT_FALSE(found.find(other));
  found.keep({"v", a, five, {}}, p);
  EXPECT_FALSE(found.find({"v", a, four, {a, b}})) << "the newest only";
  EXPECT_TRUE(found.find({"v", a, five, {}}));
  found.keep({"w", b, five, {}}, p);
  EXPECT_FALSE(found.find({"v", a, five, {}})) << "of other values nothing is kept";
}

TEST(FoundQuantizers, AnswerManyAtOnce) {
  FoundQuantizers found;
  std::vector<std::jthread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const FoundQuantizers::Question q{"v" + std::to_string(i / 500 % 2), {i % 7, SiteKind::kWeight, 0}, {}, {}};
        quant::QuantParams p;
        p.scale = {static_cast<float>(i % 7)};
        if (t % 2)
          found.keep(q, p);
        else if (const auto known = found.find(q))
          wrong += known->scale != p.scale;
      }
    });
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace quanvas
