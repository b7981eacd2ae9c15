// Recipe files and presets: what is read, what is refused with which line, and that writing loses nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/recipe/preset_names.h"
#include "core/report/report.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

Recipe parsed(const std::string& text) {
  auto recipe = parse_recipe(text, "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  return recipe.value_or(Recipe{});
}

struct BadRow {
  const char* name;
  std::string text;
  const char* error;
};
class BadRecipes : public ::testing::TestWithParam<BadRow> {};
TEST_P(BadRecipes, AreRefusedWithTheirLine) {
  const auto recipe = parse_recipe(GetParam().text, "r.yaml");
  ASSERT_FALSE(recipe);
  EXPECT_THAT(recipe.error().text(), HasSubstr(GetParam().error));
}
const std::string kRule = "name: x\nrules:\n  - select: {sites: [weight]}\n    set:\n";
INSTANTIATE_TEST_SUITE_P(
    Rows, BadRecipes,
    ::testing::Values(
        BadRow{"empty", "", "r.yaml: the recipe is empty."}, BadRow{"only_comment", "# nothing\n", "the recipe is empty."},
        BadRow{"a_list", "- 1\n", "r.yaml:1: a recipe is a map"},
        BadRow{"binary", std::string("name: \0x", 8), "binary data"},
        BadRow{"no_utf8", "name: x\nrules:\n  - note: \"\x80\"\n", "r.yaml:3: this is no text in UTF-8"},
        BadRow{"broken_yaml", "name: [1, 2\nrules: {", "r.yaml:"},
        BadRow{"broken_json", "{\"name\": \"x\",\n \"rules\": [", "neither YAML nor JSON"},
        BadRow{"unknown_key", "name: x\nlayers: []\n", "r.yaml:2: Unknown key 'layers'"},
        BadRow{"unknown_key_below", "name: x\nrules:\n  - select:\n      op: Conv\n",
               "r.yaml:4: Unknown key 'rules[0].select.op'"},
        BadRow{"wrong_type", "name: x\nrules: 3\n", "r.yaml:2: 'rules' must be a list, not 3."},
        BadRow{"bits_text", kRule + "      bits: four\n", "r.yaml:5: 'rules[0].set.bits' must be a whole number"},
        BadRow{"bits_huge", kRule + "      bits: 4294967300\n", "r.yaml:5: 'rules[0].set.bits' is 4294967300"},
        BadRow{"unknown_field", kRule + "      bit: 4\n", "r.yaml:5: Unknown key 'rules[0].set.bit'"},
        BadRow{"bad_word", kRule + "      statistic: median\n", "Use one of: absmax, minmax, percentile, mse, mean, mean-sigma, max-mean, l1, l2, he, kl, hqo, max-rms, signed-max."},
        BadRow{"bad_site", "rules:\n  - select:\n      sites:\n        - weight\n        - gradient\n",
               "r.yaml:5: 'rules[0].select.sites[1]' is 'gradient'"},
        BadRow{"bad_pass_position", "passes:\n  - id: gptq\n    select: {position: middle}\n", "'passes[0].select.position' is 'middle'"},
        BadRow{"sites_of_a_pass", "passes:\n  - id: gptq\n    select: {sites: [weight]}\n", "'passes[0].select' chooses layers; it takes no sites"},
        BadRow{"bad_position", "rules:\n  - select: {position: middle}\n", "r.yaml:2: 'rules[0].select.position' is 'middle'"},
        BadRow{"no_preset", "rules:\n  - preset: int9\n", "r.yaml:2: 'rules[0].preset' is 'int9'"},
        BadRow{"float_and_set", "rules:\n  - float: true\n    set: {bits: 4}\n", "r.yaml:2: 'rules[0].float' is true"},
        BadRow{"twice", "name: x\nname: y\n", "r.yaml:2: the key 'name' stands here a second time."},
        BadRow{"two_documents", "name: x\n---\nname: y\n", "a second document"},
        // Once taken for documents without end, until memory was.
        BadRow{"more_behind_its_end", R"({"name":"r","rulese":"conv*"},"set":{"weight":{"bits":4}}}]}":[{"select":{"name":"conv*"}}]})",
               "a second document"},
        BadRow{"pass_without_id", "passes:\n  - enabled: true\n", "r.yaml:2: 'passes[0].id' is missing."},
        BadRow{"negative_samples", "calibration:\n  samples: -1\n", "r.yaml:2: 'calibration.samples' is -1"},
        BadRow{"deep", std::string(100, '[') + std::string(100, ']'), "nesting is deeper than 32"},
        BadRow{"very_deep", std::string(200000, '['), "r.yaml:"}),
    [](const auto& row) { return row.param.name; });

TEST(BadRecipe, AliasesThatExplodeAreRefused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) text += (k ? ", *a" : "*a") + std::to_string(i - 1);
    text += "]\n";
  }
  const auto recipe = parse_recipe(text, "r.yaml");
  ASSERT_FALSE(recipe);
  EXPECT_THAT(recipe.error().message, HasSubstr("more than 400,000 values"));
}

TEST(RecipeFile, CutAnywhereNeverCrashes) {
  const std::string text = recipe_to_yaml(uniform_recipe(4, 4));
  for (std::size_t n = 0; n < text.size(); ++n)
    if (const auto recipe = parse_recipe(text.substr(0, n), "cut.yaml"); !recipe)
      EXPECT_THAT(recipe.error().message, HasSubstr("cut.yaml:")) << n;
}

TEST(RecipeFile, YamlAndJsonSayTheSame) {
  const Recipe yaml = parsed(
      "name: 'on'\nrules:\n  - select: {kinds: [compute], sites: [weight], names: ['conv*', \"123\"]}\n"
      "    set: {bits: 4, percentile: 99.5, clip_min: null}\n  - select: {position: last}\n    float: true\n"
      "passes: [{id: fold-bn}]\ncalibration: {samples: 64, seed: 9007199254740993}\n");
  EXPECT_EQ(yaml.name, "on");
  ASSERT_EQ(yaml.rules.size(), 2u);
  EXPECT_EQ(yaml.rules[0].select.names[1], "123");
  EXPECT_EQ(yaml.rules[0].override_fields["bits"], 4);
  EXPECT_TRUE(yaml.rules[1].is_float);
  EXPECT_EQ(yaml.calibration.seed, 9007199254740993);
  EXPECT_EQ(parsed(to_json_text(yaml, 2)), yaml);
}

struct RoundTrip {
  const char* name;
  Recipe recipe;
};
Recipe awkward() {
  Recipe r = uniform_recipe(3, 5);
  r.name = "true";
  for (const char* text : {"", "null", "~", "4", "1e3", " lead", "a: b", "# no", "line\nbreak", "tab\t", "\"q\" 'q'", "−7 … 7",
                           "- x", "{a}", "*star", "&and", "!bang", "%", "a\\*b", "0x10", ".5", "yes"}) {
    Rule rule;
    rule.note = text;
    rule.select.names = {text, "x"};
    rule.select.scope = text;
    rule.select.operand = 1;
    rule.override_fields = {{"percentile", 99.99999999999999}, {"clip_max", 1e-7}, {"axis", nullptr}};
    r.rules.push_back(rule);
  }
  Rule plain;
  plain.is_float = true;
  r.rules.push_back(plain);
  r.passes.push_back({"qat", false, {{"epochs", 3}, {"name", "12"}, {"list", {1, 2.5, "x"}}, {"empty", json::array()}}});
  PassEntry limited{"bias-correction"};
  limited.select.names = {"*conv", "yes"};
  limited.select.position = "not-last";
  r.passes.push_back(limited);
  r.calibration = {0, -5};
  return r;
}
class RoundTrips : public ::testing::TestWithParam<RoundTrip> {};
TEST_P(RoundTrips, LoseNothing) {
  const std::string text = recipe_to_yaml(GetParam().recipe);
  const auto again = parse_recipe(text, "again.yaml");
  ASSERT_TRUE(again) << again.error().text() << "\n" << text;
  EXPECT_EQ(to_json_text(*again), to_json_text(GetParam().recipe)) << text;
}
INSTANTIATE_TEST_SUITE_P(Rows, RoundTrips,
                         ::testing::Values(RoundTrip{"none", Recipe{}}, RoundTrip{"w8a8", uniform_recipe(8, 8)},
                                           RoundTrip{"w4a4", uniform_recipe(4, 4)}, RoundTrip{"awkward", awkward()}),
                         [](const auto& row) { return row.param.name; });

TEST(UniformRecipe, IsLegalAtEveryWidth) {
  for (int bits = 1; bits <= 16; ++bits)
    for (const Rule& rule : uniform_recipe(bits, bits).rules) {
      const auto spec = rule_spec(rule, {});
      ASSERT_TRUE(spec) << spec.error().text();
      EXPECT_EQ(check(*spec, rule.select.sites.at(0)), "") << bits;
    }
}
TEST(UniformRecipe, KeepsTheInputAtEightBits) {
  EXPECT_EQ(uniform_recipe(4, 4).rules.size(), 4u);
  EXPECT_EQ(uniform_recipe(8, 8).rules.size(), 3u);
  EXPECT_EQ(uniform_recipe(4, 32).rules.size(), 1u);
}

TEST(BuiltinRecipes, AllParseAndNameTheirPresets) {
  const auto ids = builtin_recipe_ids();
  EXPECT_THAT(ids, ::testing::IsSupersetOf({"w8a8", "w4a8", "w4a4", "w3a4", "w2a2", "w8a8-per-tensor", "w4-weight-only",
                                            "w4a4-qat", "w2a2-qat", "w4a8-bias-correction", "w4a8-gptq", "w8a8-integer", "w4a8-integer", "cnn-w8a8", "cnn-w4a8", "cnn-w4a4",
                                            "llm-w4", "llm-w4a4", "mxfp4"}));
  for (const auto& id : ids) {
    const auto recipe = builtin_recipe(id);
    ASSERT_TRUE(recipe) << recipe.error().text();
    EXPECT_FALSE(recipe->rules.empty()) << id;
    for (const Rule& rule : recipe->rules) {
      const auto spec = rule_spec(rule, PresetLibrary::builtin());
      ASSERT_TRUE(spec) << id << ": " << spec.error().text();
      for (const SiteKind site : rule.select.sites) EXPECT_EQ(check(*spec, site), "") << id;
    }
  }
  EXPECT_THAT(builtin_recipe("w9").error().text(), HasSubstr("Known: "));
}

TEST(Presets, AllAreLegalAndHaveTexts) {
  const auto library = PresetLibrary::load(QUANVAS_SOURCE_DIR "/resources/presets");
  ASSERT_TRUE(library) << library.error().text();
  EXPECT_GE(library->all().size(), 40u);
  for (const Preset& preset : library->all()) {
    EXPECT_FALSE(preset.doc.empty()) << preset.id;
    EXPECT_FALSE(preset.group.empty()) << preset.id;
    EXPECT_EQ(library->find(preset.id), &preset);
  }
  EXPECT_EQ(library->find("int9"), nullptr);
}

class PresetFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-presets-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string problem_of(const std::string& text) {
    std::ofstream(folder_ / "mine.json") << text;
    const auto library = PresetLibrary::load(folder_.string());
    return library ? "" : library.error().text();
  }
  fs::path folder_;
};
TEST_F(PresetFolder, BrokenFilesAreNamed) {
  EXPECT_EQ(problem_of(R"({"title":"T","sites":["weight"],"spec":{"bits":5}})"), "");
  EXPECT_THAT(problem_of(""), HasSubstr("mine.json: "));
  EXPECT_THAT(problem_of("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem_of(R"({"title":"T","sites":["weight"],"spec":{"bits":50}})"), HasSubstr("bits is 50"));
  EXPECT_THAT(problem_of(R"({"title":"T","spec":{}})"), HasSubstr("at least one of 'sites'"));
  EXPECT_THAT(problem_of(R"({"id":"other","title":"T","sites":["weight"]})"), HasSubstr("'id' is 'other'"));
  EXPECT_THAT(problem_of(R"({"titel":"T"})"), HasSubstr("Unknown key 'titel'"));
  EXPECT_THAT(PresetLibrary::load("/nowhere/at/all").error().message, HasSubstr("/nowhere/at/all"));
}

TEST(RuleSpec, OverridesThePreset) {
  Rule rule;
  rule.preset = "int4-weight-per-channel";
  rule.override_fields = {{"bits", 5}, {"axis", nullptr}};
  const auto spec = rule_spec(rule, PresetLibrary::builtin());
  ASSERT_TRUE(spec) << spec.error().text();
  EXPECT_EQ(spec->bits, 5);
  EXPECT_EQ(spec->granularity, Granularity::kChannel);
  EXPECT_TRUE(spec->narrow);
  rule.preset = "nothing";
  EXPECT_THAT(rule_spec(rule, PresetLibrary::builtin()).error().text(), HasSubstr("There is no preset 'nothing'. Closest: "));
}

// Every key that files may hold is explained where people look for it.
template <class T>
void expect_documented(const std::string& page, const T& value) {
  const json fields = to_json_value(value);
  for (const auto& [key, ignored] : fields.items())
    EXPECT_THAT(page, HasSubstr("`" + key + "`"));
}
TEST(FileFormats, PageExplainsEveryKey) {
  std::ifstream in(QUANVAS_SOURCE_DIR "/docs/file-formats.md");
  const std::string page(std::istreambuf_iterator<char>(in), {});
  QuantSpec spec;
  spec.axis = 0;
  spec.clip_min = spec.clip_max = 0;
  expect_documented(page, spec);
  expect_documented(page, Selector{});
  expect_documented(page, Preprocessing{});
}

struct PatternRow {
  const char *pattern, *name;
  bool matches;
};
class Patterns : public ::testing::TestWithParam<PatternRow> {};
TEST_P(Patterns, MatchWholeNames) {
  EXPECT_EQ(matches_pattern(GetParam().pattern, GetParam().name), GetParam().matches)
      << GetParam().pattern << " " << GetParam().name;
}
INSTANTIATE_TEST_SUITE_P(
    Rows, Patterns,
    ::testing::Values(PatternRow{"conv1", "conv1", true}, PatternRow{"conv1", "conv10", false},
                      PatternRow{"conv*", "conv10", true}, PatternRow{"*", "", true}, PatternRow{"", "", true},
                      PatternRow{"", "a", false}, PatternRow{"?", "a", true}, PatternRow{"?", "", false},
                      PatternRow{"*1*", "a1b1c", true}, PatternRow{"*.conv", "layer1.0.conv", true},
                      PatternRow{"*.conv", "layer1.0.conv2", false}, PatternRow{"a\\*b", "a*b", true},
                      PatternRow{"a\\*b", "axb", false}, PatternRow{"a\\\\b", "a\\b", true}, PatternRow{"a\\", "a\\", true},
                      PatternRow{"[x]", "[x]", true}, PatternRow{"[x]", "x", false}));
TEST(Patterns, QuotedNamesMatchOnlyThemselves) {
  for (const char* name : {"plain", "a*b", "what?", "back\\slash", "\\*", "/a/b[0]:1"}) {
    EXPECT_TRUE(matches_pattern(quote_pattern(name), name)) << name;
    EXPECT_FALSE(matches_pattern(quote_pattern(name), std::string(name) + "x")) << name;
  }
  EXPECT_FALSE(matches_pattern(quote_pattern("a*b"), "axb"));
}
TEST(Patterns, ManyStarsStayFast) {
  std::string pattern;
  for (int i = 0; i < 500; ++i) pattern += "a*";
  EXPECT_FALSE(matches_pattern(pattern + "b", std::string(5000, 'a')));
}

TEST(PresetNames, TheClosestComeFirst) {
  const auto& all = PresetLibrary::builtin();
  ASSERT_GT(all.all().size(), 100u);
  for (const auto& [given, meant] : {std::pair{"int8-weight-per-tenser", "int8-weight-per-tensor"}, {"GGUF-Q4K", "gguf-q4_k"},
                                     {"Int8WeightPerChanelFloat", "Int8WeightPerChannelFloat"}}) {
    const auto closest = closest_presets(given, all);
    ASSERT_EQ(closest.size(), 3u);
    EXPECT_EQ(closest[0], meant) << given;
  }
  EXPECT_EQ(closest_presets("nf4-weight-grp-64", all, 1), std::vector<std::string>{"nf4-weight-group-64"});
  EXPECT_EQ(closest_presets(std::string(1 << 20, 'x'), all).size(), 3u);
  EXPECT_TRUE(closest_presets("x", PresetLibrary()).empty());
  EXPECT_THAT(preset_hint("nothing", PresetLibrary()), HasSubstr("cannot be read"));
  Rule rule;
  rule.preset = "int8-weight-per-tenser";
  const std::string text = rule_spec(rule, all).error().text();
  EXPECT_THAT(text, HasSubstr("Closest: int8-weight-per-tensor, "));
  EXPECT_LT(text.size(), 250u);
}

}  // namespace
}  // namespace quanvas
