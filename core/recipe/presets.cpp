// Preset files and what a rule makes of them.
#include <algorithm>
#include <filesystem>

#include "core/base/files.h"
#include "core/recipe/recipe.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMaxPresetBytes = 1 << 20;

Failure in_file(const fs::path& file, const Error& error) {
  return fail(error.code, file.string() + ": " + error.message, error.hint);
}

Result<Preset> load_preset(const fs::path& file) {
  QUANVAS_TRY(const std::string text, read_file(file, kMaxPresetBytes));
  auto parsed = from_json_text<Preset>(text, "");
  if (!parsed) return in_file(file, parsed.error());
  Preset preset = std::move(*parsed);
  const std::string id = file.stem().string();
  if (!preset.id.empty() && preset.id != id)
    return fail(ErrorCode::kInvalidArgument,
                file.string() + ": 'id' is '" + preset.id + "'; it must be the file's name, '" + id + "'.");
  preset.id = id;
  if (preset.title.empty() || preset.sites.empty())
    return fail(ErrorCode::kInvalidArgument, file.string() + ": a preset needs 'title' and at least one of 'sites'.");
  for (const SiteKind site : preset.sites)
    if (const std::string why = check(preset.spec, site); !why.empty())
      return fail(ErrorCode::kInvalidArgument,
                  file.string() + ": 'spec' is not legal on a site of kind " + enum_text(site) + ": " + why);
  return preset;
}

}  // namespace

Result<PresetLibrary> PresetLibrary::load(const std::string& directory) {
  std::error_code ec;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(directory, ec), end; !ec && it != end; it.increment(ec))
    if (it->path().extension() == ".json") files.push_back(it->path());
  if (ec) return fail(ErrorCode::kIo, "Cannot read the folder of presets '" + directory + "': " + ec.message() + ".");
  std::sort(files.begin(), files.end());
  PresetLibrary library;
  for (const auto& file : files) {
    QUANVAS_TRY(Preset preset, load_preset(file));
    library.presets_.push_back(std::move(preset));
  }
  return library;
}

const PresetLibrary& PresetLibrary::builtin() {
  static const PresetLibrary library = load((resource_dir() / "presets").string()).value_or(PresetLibrary{});
  return library;
}

const Preset* PresetLibrary::find(const std::string& id) const {
  const auto it = std::lower_bound(presets_.begin(), presets_.end(), id,
                                   [](const Preset& p, const std::string& key) { return p.id < key; });
  if (it != presets_.end() && it->id == id) return &*it;
  // File names are sorted with their extension, which can differ from the order of the ids.
  const auto any = std::find_if(presets_.begin(), presets_.end(), [&](const Preset& p) { return p.id == id; });
  return any == presets_.end() ? nullptr : &*any;
}

Result<QuantSpec> rule_spec(const Rule& rule, const PresetLibrary& presets) {
  QuantSpec base;
  if (!rule.preset.empty()) {
    const Preset* preset = presets.find(rule.preset);
    if (!preset) {
      std::string known;
      for (const auto& p : presets.all()) known += (known.empty() ? "" : ", ") + p.id;
      return fail(ErrorCode::kNotFound, "There is no preset '" + rule.preset + "'.",
                  known.empty() ? "The folder of presets is empty or cannot be read." : "Known: " + known + ".");
    }
    base = preset->spec;
  }
  if (rule.override_fields.is_null() || (rule.override_fields.is_object() && rule.override_fields.empty())) return base;
  if (!rule.override_fields.is_object()) return json_type_error("set", "a map of fields", rule.override_fields);
  json merged = to_json_value(base);
  for (const auto& [key, value] : rule.override_fields.items()) {
    // null takes an optional field (axis, clip limits) of the preset away.
    if (value.is_null())
      merged.erase(key);
    else
      merged[key] = value;
  }
  return from_json_value<QuantSpec>(merged, "set");
}

}  // namespace quanvas
