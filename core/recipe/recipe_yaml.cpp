// Recipe files: YAML and JSON in, YAML out without the fields that have their default value.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <stdexcept>

#include "core/recipe/recipe.h"
#include "core/recipe/yaml.h"

namespace quanvas {
namespace {

// Whole numbers of a recipe are int but for the seed.
constexpr std::int64_t kMaxWhole = 2147483647;

void check_whole_numbers(const json& j, const std::string& path) {
  if (j.is_number_integer() && path != "calibration.seed") {
    const bool fits = j.is_number_unsigned() ? j.get<std::uint64_t>() <= static_cast<std::uint64_t>(kMaxWhole)
                                             : j.get<std::int64_t>() >= -kMaxWhole && j.get<std::int64_t>() <= kMaxWhole;
    if (!fits) throw std::out_of_range("'" + path + "' is " + j.dump() + "; no whole number here is that large.");
  }
  if (j.is_array())
    for (std::size_t i = 0; i < j.size(); ++i) check_whole_numbers(j[i], path + "[" + std::to_string(i) + "]");
  if (j.is_object())
    for (const auto& [key, value] : j.items()) check_whole_numbers(value, path.empty() ? key : path + "." + key);
}

Failure prefixed(const Error& error, const std::string& where) {
  std::string message = error.message;
  if (const auto at = message.find("'set"); at != std::string::npos) message.insert(at + 1, where + ".");
  return fail(error.code, message, error.hint);
}

// What reading the values alone does not see: fields inside "set", words, presets that do not exist.
Status check_rule(const Rule& rule, const std::string& where) {
  if (!is_position(rule.select.position))
    return fail(ErrorCode::kInvalidArgument,
                "'" + where + ".select.position' is '" + rule.select.position + "'.",
                "Use one of: first, last, not-first, not-last, inner.");
  Rule fields = rule;
  fields.preset.clear();
  if (auto spec = rule_spec(fields, {}); !spec) return prefixed(spec.error(), where);
  const PresetLibrary& presets = PresetLibrary::builtin();
  if (!rule.preset.empty() && !presets.all().empty() && !presets.find(rule.preset))
    return fail(ErrorCode::kNotFound, "'" + where + ".preset' is '" + rule.preset + "'; there is no such preset.",
                rule_spec(rule, presets).error().hint);
  if (rule.is_float && (!rule.preset.empty() || !rule.override_fields.empty()))
    return fail(ErrorCode::kInvalidArgument,
                "'" + where + ".float' is true beside a preset or 'set'; a site is float or has a format.");
  if (rule.is_float && !rule.share.empty())
    return fail(ErrorCode::kInvalidArgument, "'" + where + ".share' is '" + rule.share + "' beside float; there is nothing to share.");
  if (rule.share.starts_with("#"))
    return fail(ErrorCode::kInvalidArgument, "'" + where + ".share' is '" + rule.share + "'; a name does not begin with '#'.");
  return {};
}

Result<Recipe> recipe_from(const json& j) {
  try {
    check_whole_numbers(j, "");
  } catch (const std::out_of_range& e) {
    return fail(ErrorCode::kInvalidArgument, e.what());
  }
  QUANVAS_TRY(Recipe recipe, from_json_value<Recipe>(j));
  for (std::size_t i = 0; i < recipe.rules.size(); ++i) {
    if (recipe.rules[i].override_fields.is_null()) recipe.rules[i].override_fields = json::object();
    QUANVAS_CHECK(check_rule(recipe.rules[i], "rules[" + std::to_string(i) + "]"));
  }
  for (std::size_t i = 0; i < recipe.passes.size(); ++i)
    if (recipe.passes[i].id.empty())
      return fail(ErrorCode::kInvalidArgument, "'passes[" + std::to_string(i) + "].id' is missing.");
    else if (const std::string& position = recipe.passes[i].select.position; !is_position(position))
      return fail(ErrorCode::kInvalidArgument, "'passes[" + std::to_string(i) + "].select.position' is '" + position +
                  "'; expected one of first, last, not-first, not-last, inner.");
    else if (const Selector& s = recipe.passes[i].select; !s.sites.empty() || s.operand >= 0)
      return fail(ErrorCode::kInvalidArgument, "'passes[" + std::to_string(i) + "].select' chooses layers; it takes no sites and no operand.");
  if (recipe.calibration.samples < 0)
    return fail(ErrorCode::kInvalidArgument,
                "'calibration.samples' is " + std::to_string(recipe.calibration.samples) + "; 0 takes all samples.");
  return recipe;
}

// -- writing

bool is_flat(const json& list) {
  return std::all_of(list.begin(), list.end(), [](const json& v) { return v.is_primitive(); });
}

void emit(YAML::Emitter& out, const json& j);

// Words and numbers that readers of YAML 1.1 take for something else than text.
bool is_ambiguous(const std::string& text) {
  static const std::set<std::string> words = {"yes", "no", "on", "off", "y", "n"};
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return words.count(lower) > 0 || (!text.empty() && text[0] >= '0' && text[0] <= '9');
}

void emit_text(YAML::Emitter& out, const std::string& text) {
  // Plain only where reading it back gives a text again and nothing in it means something to YAML.
  const bool plain = yaml_scalar(text).is_string() && yaml_scalar(text) == text && !text.empty() && !is_ambiguous(text) &&
                     text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./ ") ==
                         std::string::npos &&
                     text.front() != '-' && text.front() != '.' && text.front() != ' ' && text.back() != ' ';
  if (!plain) out << YAML::DoubleQuoted;
  out << text;
}

void emit_map(YAML::Emitter& out, const json& j) {
  if (j.empty()) out << YAML::Flow;
  out << YAML::BeginMap;
  for (const auto& [key, value] : j.items()) {
    out << YAML::Key;
    emit_text(out, key);
    out << YAML::Value;
    emit(out, value);
  }
  out << YAML::EndMap;
}

void emit(YAML::Emitter& out, const json& j) {
  if (j.is_object()) return emit_map(out, j);
  if (j.is_string()) return emit_text(out, j.get<std::string>());
  if (j.is_null()) {
    out << YAML::Null;
    return;
  }
  if (!j.is_array()) {
    out << j.dump();
    return;
  }
  if (is_flat(j)) out << YAML::Flow;
  out << YAML::BeginSeq;
  for (const auto& item : j) emit(out, item);
  out << YAML::EndSeq;
}

// nlohmann::json sorts keys; a recipe reads better in the order of its declaration.
struct OrderedPart {
  const char* key;
  json value, fallback;
};

void emit_parts(YAML::Emitter& out, const std::vector<OrderedPart>& parts) {
  const bool none = std::all_of(parts.begin(), parts.end(), [](const auto& p) { return p.value == p.fallback; });
  if (none) out << YAML::Flow;
  out << YAML::BeginMap;
  for (const auto& part : parts) {
    if (part.value == part.fallback) continue;
    out << YAML::Key << part.key << YAML::Value;
    emit(out, part.value);
  }
  out << YAML::EndMap;
}

json without_defaults(const json& value, const json& defaults) {
  json out = json::object();
  for (const auto& [key, v] : value.items())
    if (!defaults.contains(key) || defaults[key] != v) out[key] = v;
  return out;
}

json selector_parts(const Selector& s) { return without_defaults(to_json_value(s), to_json_value(Selector{})); }

void emit_rule(YAML::Emitter& out, const Rule& r) {
  emit_parts(out, {{"note", r.note, ""},
                   {"select", selector_parts(r.select), json::object()},
                   {"preset", r.preset, ""},
                   {"set", r.override_fields, json::object()},
                   {"float", r.is_float, false},
                   {"share", r.share, ""}});
}

void emit_pass(YAML::Emitter& out, const PassEntry& p) {
  emit_parts(out, {{"id", p.id, nullptr}, {"enabled", p.enabled, true}, {"options", p.options, json::object()},
                   {"select", selector_parts(p.select), json::object()}});
}

template <class T, class Fn>
void emit_list(YAML::Emitter& out, const char* key, const std::vector<T>& items, const Fn& item) {
  out << YAML::Key << key << YAML::Value;
  if (items.empty()) out << YAML::Flow;
  out << YAML::BeginSeq;
  for (const auto& i : items) item(out, i);
  out << YAML::EndSeq;
}

}  // namespace

Result<Recipe> parse_recipe(const std::string& text, const std::string& file_name) {
  QUANVAS_TRY(const YamlText document, parse_yaml(text, file_name, "recipe"));
  if (!document.value.is_object())
    return document.failure_at(1, ErrorCode::kInvalidArgument, "a recipe is a map with name, rules, passes, calibration.");
  auto recipe = recipe_from(document.value);
  if (!recipe) return document.failure(recipe.error());
  return recipe;
}

std::string recipe_to_yaml(const Recipe& recipe) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "name" << YAML::Value;
  emit_text(out, recipe.name);
  emit_list(out, "rules", recipe.rules, emit_rule);
  emit_list(out, "passes", recipe.passes, emit_pass);
  out << YAML::Key << "calibration" << YAML::Value;
  emit_parts(out, {{"samples", recipe.calibration.samples, nullptr}, {"seed", recipe.calibration.seed, nullptr}});
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

}  // namespace quanvas
