// Targets: texts that people write and send: recipes, declarations of data and quantizers, shapes.
#include "core/data/preprocess.h"
#include "core/plugin/registry.h"
#include "core/recipe/plan.h"
#include "core/recipe/yaml.h"
#include "core/report/report.h"
#include "core/report/shape_entry.h"
#include "tests/fuzz/parts.h"

namespace quanvas::fuzz {
namespace {

// What was read is written again and applied to a network.
void read_recipe(const std::string& bytes) {
  const auto recipe = parse_recipe(bytes, "recipe.yaml");
  if (!recipe) return;
  (void)parse_recipe(recipe_to_yaml(*recipe), "again.yaml");
  (void)resolve(*small_model()->graph, *recipe, PresetLibrary::builtin());
}
Bytes recipe_seeds() {
  return {contents(QUANVAS_SOURCE_DIR "/resources/recipes/w4a4-qat.yaml"), contents(QUANVAS_SOURCE_DIR "/resources/recipes/w8a8.yaml"),
          R"({"name":"r","rules":[{"select":{"name":"conv*"},"set":{"weight":{"bits":4}}}]})",
          R"({"name":"r","rules":[{"select":{"ops":["Conv"],"sites":["weight"],"names":["c*"]},"set":{"bits":4,"group_size":8}},)"
          R"({"select":{"position":"first"},"float":true},{"share":"a"}],"passes":[{"id":"fold-bn","options":{"x":1.5}}]})"};
}

// The declaration of a quantizer as the command line, the window and model files give it.
void read_quant_spec(const std::string& bytes) {
  const auto fields = parse_json(bytes, "The declaration");
  if (!fields) return;
  Rule rule;
  rule.override_fields = *fields;
  const auto spec = rule_spec(rule, PresetLibrary::builtin());
  if (!spec) return;
  for (const SiteKind site : {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput}) (void)check(*spec, site);
  if (check(*spec).empty()) (void)describe(*spec);
}
Bytes quant_spec_seeds() {
  Bytes out = {R"({"format":"float","exponent_bits":4,"mantissa_bits":3,"specials":"nan","scale":"float"})", R"({"clip_min":-1e3,"clip_max":"inf"})"};
  for (const Preset& preset : PresetLibrary::builtin().all()) out.push_back(to_json_text(preset.spec));
  return out;
}

void read_data_declaration(const std::string& bytes) {
  const auto document = parse_yaml(bytes, "data.yaml", "data declaration");
  if (!document) return;
  const auto settings = from_json_value<DataSettings>(document->value);
  if (!settings) {
    (void)document->failure(settings.error());
    return;
  }
  for (const DataSource* source : {&settings->calibrate, &settings->train, &settings->evaluate})
    if (const auto* reader = Registry<DatasetReader>::instance().find(source->reader)) (void)reader->schema().complete(source->options, "it");
  constexpr int kMostSide = 64;  // larger pictures are slow and large because somebody wants them
  if (!check_preprocessing(settings->preprocessing) || settings->preprocessing.resize > kMostSide) return;
  RawSample sample{{4, 5, 3}, std::vector<float>(60, 7.0f), 1};
  (void)preprocess(std::move(sample), true, settings->preprocessing);
}
Bytes data_declaration_seeds() {
  return {R"(name: pictures
calibrate: {reader: images, options: {folder: calibration, labels: labels.csv}, begin: 0, end: 100}
evaluate:
  reader: images
  options:
    folder: pictures
preprocessing: {scale: 0.0039, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], resize: 8, crop_height: 4, crop_width: 4}
)",
          R"({"name":"d","train":{"reader":"idx","options":{"images":"a.gz"}},"preprocessing":{"channels":"grey","layout":"nhwc"}})",
          R"({"train":{"reader":"raw","options":{"data":"x","shape":"2x3","offset":16,"scale":1e300,"zero_point":-3.5}}})"};
}

void read_shape(const std::string& bytes) {
  if (const auto shape = parse_shape(bytes)) (void)parse_shape(shape_entry(*shape));
}
Bytes shape_seeds() { return {"1,3,224,224", "?x7", "1×28×28", ""}; }

}  // namespace

std::vector<Target> text_targets() {
  return {{"recipe", read_recipe, recipe_seeds},
          {"quant-spec", read_quant_spec, quant_spec_seeds},
          {"data-declaration", read_data_declaration, data_declaration_seeds},
          {"shape", read_shape, shape_seeds}};
}

}  // namespace quanvas::fuzz
