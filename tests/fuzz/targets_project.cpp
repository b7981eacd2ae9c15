// Targets: the project file, and what lies in it and beside it.
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>

#include "core/graph/layers.h"
#include "core/project/project.h"
#include "core/project/sqlite.h"
#include "core/quant/dynamic.h"
#include "core/quant/statistics.h"
#include "core/recipe/plan.h"
#include "core/report/import_options.h"
#include "core/workflow/artifact.h"
#include "tests/fuzz/parts.h"

namespace quanvas::fuzz {
namespace {

namespace fs = std::filesystem;

void read_project(const std::string& bytes) {
  const std::string path = scratch_file("p.quanvas", bytes);
  if (const auto project = Project::open(path)) {
    (void)(*project)->recipe();
    (void)(*project)->runs();
    (void)(*project)->edits(10);
    (void)(*project)->data();
  }
  for (const char* rest : {"-wal", "-shm", ".lock"}) fs::remove(path + rest);
}

Run small_run() {
  Run run;
  run.name = "r";
  run.recipe = uniform_recipe(4, 8);
  run.versions = {{"quanvas", "1"}};
  run.layers.resize(1);
  run.curve.resize(1);
  run.sweep.emplace();
  run.issues.push_back({Severity::kWarning, "conv", "text", ""});
  return run;
}

// Small pages, so that a mutation is one of something.
Bytes project_seeds() {
  const std::string path = scratch_file("seed.quanvas", "");
  fs::remove(path);
  if (const auto made = Project::create(path, "m.onnx"); !made || !(*made)->add_run(small_run()) || !(*made)->set_recipe(Recipe{}, "x")) std::abort();
  {
    const auto db = sqlite::Database::open(path, sqlite::OpenMode::kReadWrite, path);
    if (!db || !(*db)->run("PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM;")) std::abort();
  }
  return {contents(path)};
}

// The texts that the tables hold.
void read_stored_text(const std::string& bytes) {
  (void)from_json_text<Run>(bytes, "run");
  (void)from_json_text<Recipe>(bytes, "recipe");
  (void)from_json_text<DataSettings>(bytes, "data set declaration");
  (void)from_json_text<ImportOptions>(bytes);
}
Bytes stored_text_seeds() {
  DataSettings data;
  data.train.reader = "idx";
  data.preprocessing.mean = {0.5, 0.25};
  ImportOptions import;
  import.shapes["x"] = {1, -1, 3};
  return {to_json_text(small_run()), to_json_text(uniform_recipe(4, 4)), to_json_text(data), to_json_text(import)};
}

// The tensor behind a weight's site; null: none.
const TensorData* weight_of(const QuantizedModel& network, const Site& site) {
  const Graph& graph = *network.model->graph;
  const std::vector<Layer> layers = find_layers(graph);
  const Layer* const layer = site.kind == SiteKind::kWeight ? find_layer(layers, site.node) : nullptr;
  const TensorId id = layer ? site_tensor(*layer, site) : kNoTensor;
  return id == kNoTensor ? nullptr : network.model->weights->find(graph.tensor(id).name);
}

// What is accepted is used as the executor does.
void read_network(const std::string& bytes) {
  const auto network = unpack_artifact(bytes, small_model());
  if (!network) return;
  for (const auto& [name, tensor] : network->model->weights->all()) (void)tensor.to_floats();
  for (const auto& [site, params] : network->quantizers) {
    const TensorData* const data = weight_of(*network, site);
    if (!data || quant::is_dynamic(params)) continue;
    std::vector<float> values = data->to_floats();
    if (params.layout.elements() == static_cast<std::int64_t>(values.size()))
      quant::fake_quantize(params, params.layout, values.data(), values.data());
  }
}

QuantizedModel small_network(int bits) {
  QuantizedModel out{small_model(), {}, {}};
  const Graph& graph = *out.model->graph;
  const auto plan = resolve(graph, uniform_recipe(bits, 8), PresetLibrary::builtin());
  if (!plan) std::abort();
  out.plan = *plan;
  for (const SitePlan& site : plan->sites) {
    const TensorData* const data = weight_of(out, site.site);
    if (!data || !site.spec) continue;
    auto params = quant::find_params(*site.spec, data->shape, data->to_floats().data(), 0);
    if (params) out.quantizers[site.site] = std::move(*params);
  }
  return out;
}

Bytes network_seeds() {
  const QuantizedModel network = small_network(4);
  const Model without_weights{network.model->graph, std::make_shared<WeightStore>(), {}};
  QuantizedModel bare = small_network(2);
  bare.plan = {};
  bare.quantizers.erase(std::next(bare.quantizers.begin()), bare.quantizers.end());
  return {pack_artifact(network, without_weights), pack_artifact(bare, *network.model)};
}

quant::TensorStatistics small_statistics() {
  quant::TensorStatistics out;
  const float values[] = {-1.5f, 0, 0.25f, 3, 1e-3f, 7};
  out.add(values, {1, 2, 3});
  out.close_batch();
  return out;
}

// Whatever is accepted must be usable.
void use(const quant::TensorStatistics& s) {
  (void)s.rebin(s.minimum(), s.maximum(), 16);
  for (const bool absolute : {false, true}) (void)s.at_rank(static_cast<std::int64_t>(s.count()), absolute);
  (void)s.stddev();
}

void read_statistics(const std::string& bytes) {
  if (const auto one = quant::TensorStatistics::deserialize(bytes)) use(*one);
}
Bytes statistics_seeds() { return {small_statistics().serialize(), quant::TensorStatistics().serialize()}; }

void read_statistics_file(const std::string& bytes) {
  if (const auto all = unpack_statistics(bytes))
    for (const auto& [name, one] : all->tensors) use(one);
}
Bytes statistics_file_seeds() {
  quant::Statistics all;
  all.key = "0123";
  all.samples = 4;
  all.tensors["x"] = small_statistics();
  return {pack_statistics(all)};
}

}  // namespace

std::vector<Target> project_targets() {
  return {{"project", read_project, project_seeds},
          {"stored-text", read_stored_text, stored_text_seeds},
          {"network", read_network, network_seeds},
          {"statistics", read_statistics, statistics_seeds},
          {"statistics-file", read_statistics_file, statistics_file_seeds}};
}

}  // namespace quanvas::fuzz
