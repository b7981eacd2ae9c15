#include "core/plugin/registry.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/base/guarded.h"
#include "core/graph/canonical.h"

namespace quanvas {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : ", ") + w;
  return out;
}

template <class Kind>
json entries() {
  json out = json::array();
  for (const Kind* plugin : Registry<Kind>::instance().all()) {
    json entry = to_json_value(plugin->info());
    entry["schema"] = to_json_value(plugin->schema());
    if constexpr (std::is_same_v<Kind, Importer>) entry["extensions"] = plugin->extensions();
    if constexpr (std::is_same_v<Kind, Exporter>) {
      entry["extension"] = plugin->extension();
      entry["needs_quantizers"] = plugin->needs_quantizers();
      entry["unavailable"] = plugin->unavailable();
    }
    if constexpr (std::is_same_v<Kind, Pass>) {
      constexpr const char* kStages[] = {"graph", "weights", "training"};
      entry["stage"] = kStages[static_cast<int>(plugin->stage())];
    }
    out.push_back(std::move(entry));
  }
  return out;
}

// The nodes that the rules of a file's recipe name: its quantizers sit exactly there.
Kept kept_by(const std::optional<Recipe>& recipe) {
  Kept out;
  if (!recipe) return out;
  for (const Rule& rule : recipe->rules) {
    const auto& sites = rule.select.sites;
    const bool output = sites.empty() || std::find(sites.begin(), sites.end(), SiteKind::kOutput) != sites.end();
    for (std::string name : rule.select.names) {
      for (std::size_t i = 0; i < name.size(); ++i)
        if (name[i] == '\\') name.erase(i, 1);  // what it quotes stays
      if (output) out.outputs.insert(name);
      out.nodes.insert(std::move(name));
    }
  }
  return out;
}

Result<std::string> read_head(const std::string& path) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return fail(ErrorCode::kNotFound, "There is no file '" + path + "'.");
  if (std::filesystem::is_directory(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + path + "' is a folder, not a model file.");
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ErrorCode::kIo, "Cannot read '" + path + "'.", "Check the file's permissions.");
  std::string head(4096, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return head;
}

}  // namespace

template <class Kind>
Registry<Kind>& Registry<Kind>::instance() {
  static Registry registry;
  return registry;
}

template <class Kind>
std::vector<const Kind*> Registry<Kind>::all() const {
  std::vector<std::pair<std::string, const Kind*>> rows;
  for (const auto& p : plugins_) rows.emplace_back(p->info().id, p.get());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const Kind*> out;
  for (const auto& [id, plugin] : rows) out.push_back(plugin);
  return out;
}

template <class Kind>
Result<const Kind*> Registry<Kind>::get(const std::string& id, const std::string& what) const {
  if (const Kind* plugin = find(id)) return plugin;
  std::vector<std::string> ids;
  for (const Kind* plugin : all()) ids.push_back(plugin->info().id);
  return fail(ErrorCode::kNotFound, "There is no " + what + " '" + id + "'.",
              ids.empty() ? "None is installed." : "Known are: " + joined(ids) + ".");
}

// Here and nowhere else, so that the program and its modules share one registry of each kind.
template class Registry<Importer>;
template class Registry<DatasetReader>;
template class Registry<Pass>;
template class Registry<Exporter>;

json plugin_catalog() {
  json formats = json::array();
  for (const Choice& format : quant_spec_schema(SiteKind::kWeight).find("format")->choices)
    formats.push_back({{"id", format.value}, {"title", format.title}, {"doc", format.doc}});
  return {{"importers", entries<Importer>()},
          {"formats", std::move(formats)},
          {"passes", entries<Pass>()},
          {"exporters", entries<Exporter>()},
          {"datasets", entries<DatasetReader>()}};
}

Result<Imported> import_file(const std::string& path, const ImportOptions& options, JobContext& job) {
  QUANVAS_TRY(const std::string head, read_head(path));
  const Importer* best = nullptr;
  int best_score = 0;
  std::vector<std::string> known;
  for (const Importer* importer : Registry<Importer>::instance().all()) {
    known.push_back(importer->info().title + " (" + joined(importer->extensions()) + ")");
    const int score = importer->probe(path, head);
    if (score > best_score) {
      best = importer;
      best_score = score;
    }
  }
  if (head.empty()) return fail(ErrorCode::kCorrupt, "'" + path + "' is empty.", "Export or copy the model again.");
  if (!best)
    return fail(ErrorCode::kUnsupported, "'" + path + "' is not a model file of a known type.",
                known.empty() ? "" : "Known are: " + joined(known) + ".");
  return guarded(path, [&]() -> Result<Imported> {
    QUANVAS_TRY(Imported imported, best->load(path, options, job));
    QUANVAS_TRY(imported.model, canonical(std::move(imported.model), kept_by(imported.recipe)));
    return imported;
  });
}

Result<ReadBack> Exporter::read(const QuantizedModel&, const std::string& path, const json&, JobContext& job) const {
  QUANVAS_TRY(Model model, import_model(path, job));
  ReadBack back;
  back.model = std::make_shared<const Model>(std::move(model));
  return back;
}

Result<Model> import_model(const std::string& path, JobContext& job) {
  ImportOptions options;
  options.quantizers = FileQuantizers::kNodes;  // a recipe would be lost
  QUANVAS_TRY(Imported imported, import_file(path, options, job));
  return std::move(imported.model);
}

}  // namespace quanvas
