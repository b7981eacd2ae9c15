// Preset files and what a rule makes of them.
#include <algorithm>
#include <filesystem>
#include <map>

#include "core/base/files.h"
#include "core/recipe/preset_names.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMaxPresetBytes = 1 << 20;

Failure in_file(const fs::path& file, const Error& error) {
  return fail(error.code, file.string() + ": " + error.message, error.hint);
}

// The names that other tools have for the same fields.
const std::map<std::string, std::string>& aliases() {
  static const std::map<std::string, std::string> names = {
      {"bit_width", "bits"},           {"narrow_range", "narrow"},
      {"group_dim", "axis"},           {"exponent_bit_width", "exponent_bits"},
      {"mantissa_bit_width", "mantissa_bits"}, {"saturating", "saturate"},
      {"accumulator_bit_width", "accumulator_bits"}, {"quant_delay_steps", "delay"},
      {"scaling_const", "scale_value"}};
  return names;
}

// `changes` laid over a spec; null takes an optional field (axis, clip limits) away.
Result<QuantSpec> layered(const QuantSpec& base, const json& changes, const std::string& owner) {
  json merged = to_json_value(base);
  for (const auto& [given, value] : changes.items()) {
    const auto alias = aliases().find(given);
    const std::string& key = alias == aliases().end() ? given : alias->second;
    if (value.is_null()) merged.erase(key);
    else merged[key] = value;
  }
  return from_json_value<QuantSpec>(merged, owner);
}

// A file as it stands, before its base is known.
struct PresetFile {
  fs::path path;
  json content;
};

class PresetLoader {
 public:
  explicit PresetLoader(const std::vector<PresetFile>& files) {
    for (const PresetFile& file : files) files_[file.path.stem().string()] = &file;
  }

  Result<Preset> load(const std::string& id, int depth = 0) {
    const PresetFile& file = *files_.at(id);
    json content = file.content;
    Preset base;
    if (content.contains("base")) {
      if (!content["base"].is_string() || !files_.count(content["base"].get<std::string>()))
        return refused(file, "'base' names no preset.");
      if (depth > 8) return refused(file, "'base' is nested more than 8 deep, or leads back to the preset itself.");
      QUANVAS_TRY(base, load(content["base"].get<std::string>(), depth + 1));
      content.erase("base");
      for (const char* key : {"sites", "group"})
        if (!content.contains(key)) content[key] = to_json_value(base)[key];
    }
    const json changes = content.value("spec", json::object());
    if (!changes.is_object()) return refused(file, "'spec' must be a map of fields.");
    content.erase("spec");
    auto parsed = from_json_value<Preset>(content, "");
    if (!parsed) return in_file(file.path, parsed.error());
    Preset preset = std::move(*parsed);
    auto spec = layered(base.spec, changes, "spec");
    if (!spec) return in_file(file.path, spec.error());
    preset.spec = std::move(*spec);
    if (!preset.id.empty() && preset.id != id)
      return refused(file, "'id' is '" + preset.id + "'; it must be the file's name, '" + id + "'.");
    preset.id = id;
    if (preset.title.empty() || preset.sites.empty())
      return refused(file, "a preset needs 'title' and at least one of 'sites'.");
    if (const std::string why = check(preset.spec); !why.empty()) return refused(file, "'spec' is not legal: " + why);
    for (const SiteKind site : preset.sites)
      if (const std::string why = check(preset.spec, site); !why.empty())
        return refused(file, std::string("'spec' is not legal on a site of kind ") + enum_text(site) + ": " + why);
    return preset;
  }

 private:
  static Failure refused(const PresetFile& file, const std::string& why) {
    return fail(ErrorCode::kInvalidArgument, file.path.string() + ": " + why);
  }
  std::map<std::string, const PresetFile*> files_;
};

}  // namespace

bool fits(const Preset& preset, SiteKind kind) {
  const SiteKind like = kind == SiteKind::kInternal ? SiteKind::kOutput : kind;
  return std::find(preset.sites.begin(), preset.sites.end(), like) != preset.sites.end();
}

Result<PresetLibrary> PresetLibrary::load(const std::string& directory) {
  std::error_code ec;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(directory, ec), end; !ec && it != end; it.increment(ec))
    if (it->path().extension() == ".json") files.push_back(it->path());
  if (ec) return fail(ErrorCode::kIo, "Cannot read the folder of presets '" + directory + "': " + ec.message() + ".");
  std::sort(files.begin(), files.end());
  PresetLibrary library;
  std::vector<PresetFile> contents;
  for (const auto& file : files) {
    QUANVAS_TRY(const std::string text, read_file(file, kMaxPresetBytes));
    auto parsed = parse_json(text, "The preset");
    if (!parsed) return in_file(file, parsed.error());
    json& content = *parsed;
    if (!content.is_object()) return fail(ErrorCode::kInvalidArgument, file.string() + ": a preset is a map of fields.");
    contents.push_back({file, std::move(content)});
  }
  PresetLoader loader(contents);
  for (const auto& file : files) {
    QUANVAS_TRY(Preset preset, loader.load(file.stem().string()));
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
    if (!preset)
      return fail(ErrorCode::kNotFound, "There is no preset '" + rule.preset + "'.", preset_hint(rule.preset, presets));
    base = preset->spec;
  }
  if (rule.override_fields.is_null() || (rule.override_fields.is_object() && rule.override_fields.empty())) return base;
  if (!rule.override_fields.is_object()) return json_type_error("set", "a map of fields", rule.override_fields);
  return layered(base, rule.override_fields, "set");
}

}  // namespace quanvas
