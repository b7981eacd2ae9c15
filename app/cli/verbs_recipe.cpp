// recipe, and how the other verbs choose one.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/cli/verbs.h"
#include "core/base/files.h"
#include "core/plugin/registry.h"

namespace quanvas::cli {
namespace {

Failure option_error(const std::string& owner, const Field& field, const std::string& text, const char* expected) {
  return fail(ErrorCode::kInvalidArgument,
              owner + ": '" + field.key + "' must be " + expected + ", not '" + text + "'.");
}

Result<json> typed(const Field& field, const std::string& text, const std::string& owner) {
  const json parsed = json::parse(text, nullptr, false);
  switch (field.type) {
    case FieldType::kBool:
      if (!parsed.is_boolean()) return option_error(owner, field, text, "true or false");
      return parsed;
    case FieldType::kInteger:
      if (!parsed.is_number_integer()) return option_error(owner, field, text, "a whole number");
      return parsed;
    case FieldType::kReal:
      if (!parsed.is_number()) return option_error(owner, field, text, "a number");
      return parsed;
    case FieldType::kChoice:
    case FieldType::kText: break;
  }
  return json(text);
}

std::string keys_of(const Schema& schema) {
  std::string out;
  for (const auto& field : schema.fields) out += (out.empty() ? "" : ", ") + field.key;
  return out.empty() ? "none" : out;
}

// "gptq:act_order=true,block=64"
Result<PassEntry> pass_from(const std::string& text) {
  const auto colon = text.find(':');
  PassEntry entry{text.substr(0, colon), true, json::object()};
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry.id, "pass"));
  if (colon == std::string::npos) return entry;
  std::vector<std::string> pairs(1);
  for (const char c : text.substr(colon + 1)) {
    if (c == ',') pairs.emplace_back();
    else pairs.back() += c;
  }
  QUANVAS_TRY(entry.options, options_from(pairs, pass->schema(), "The pass '" + entry.id + "'", "--pass " + entry.id + ":"));
  QUANVAS_CHECK(pass->schema().complete(entry.options, "The pass '" + entry.id + "'"));
  return entry;
}

}  // namespace

Result<json> options_from(const std::vector<std::string>& given, const Schema& schema, const std::string& owner, const std::string& flag) {
  json out = json::object();
  for (const auto& pair : given) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorCode::kInvalidArgument, "'" + flag + pair + "' is not of the form key=value.");
    const std::string key = pair.substr(0, equals);
    const Field* field = schema.find(key);
    if (!field)
      return fail(ErrorCode::kInvalidArgument, owner + " has no option '" + key + "'.",
                  "Its options: " + keys_of(schema) + ".");
    QUANVAS_TRY(out[key], typed(*field, pair.substr(equals + 1), owner));
  }
  return out;
}

Result<std::vector<PassEntry>> passes_from(const std::vector<std::string>& texts) {
  std::vector<PassEntry> out;
  for (const std::string& text : texts) {
    QUANVAS_TRY(out.emplace_back(), pass_from(text));
  }
  return out;
}

Result<Recipe> named_recipe(const std::string& file_or_id) {
  std::error_code ec;
  if (!std::filesystem::exists(file_or_id, ec)) {
    for (const auto& id : builtin_recipe_ids())
      if (id == file_or_id) return builtin_recipe(id);
    std::string known;
    for (const auto& id : builtin_recipe_ids()) known += (known.empty() ? "" : ", ") + id;
    return fail(ErrorCode::kNotFound, "There is no recipe file and no built-in recipe '" + file_or_id + "'.",
                "Built in: " + known + ".");
  }
  QUANVAS_TRY(const auto text, read_file(file_or_id, std::uint64_t{64} << 20));
  return parse_recipe(text, file_or_id);
}

Result<Recipe> chosen_recipe(const Options& options, const Recipe& current) {
  Recipe recipe = current;
  if (!options.recipe.empty()) {
    QUANVAS_TRY(recipe, named_recipe(options.recipe));
  } else if (options.weight_bits || options.activation_bits) {
    recipe = uniform_recipe(options.weight_bits.value_or(0), options.activation_bits.value_or(0));
    recipe.calibration = current.calibration;
  }
  QUANVAS_TRY(const auto added, passes_from(options.passes));
  recipe.passes.insert(recipe.passes.end(), added.begin(), added.end());
  if (!options.name.empty()) recipe.name = options.name;
  if (options.calibration_samples) recipe.calibration.samples = *options.calibration_samples;
  if (options.seed) recipe.calibration.seed = *options.seed;
  return recipe;
}

Status recipe(Work& work) {
  if (!work.options.set_recipe.empty()) {
    QUANVAS_TRY(const Recipe fresh, named_recipe(work.options.set_recipe));
    QUANVAS_TRY(const Plan plan, resolve(*work.bench->graph(), fresh, PresetLibrary::builtin()));
    for (const auto& warning : plan.warnings) work.job.issue({Severity::kWarning, fresh.name, warning, {}});
    QUANVAS_CHECK(work.bench->set_recipe(fresh, "Use recipe " + fresh.name));
  }
  const Recipe current = work.bench->state().recipe;
  if (!work.options.out.empty()) {
    QUANVAS_CHECK(write_file_atomically(work.options.out, recipe_to_yaml(current)));
    print("Wrote " + work.options.out + "\n");
  } else if (work.options.json) {
    print_json(to_json_value(current));
  } else {
    print(recipe_to_yaml(current));
  }
  return {};
}

Status check(Work& work) {
  QUANVAS_TRY(const Recipe asked, chosen_recipe(work.options, work.bench->state().recipe));
  QUANVAS_TRY(const auto issues, work.bench->check_recipe(asked));
  const auto errors = std::count_if(issues.begin(), issues.end(), [](const RecipeIssue& i) { return i.issue.severity == Severity::kError; });
  if (work.options.json) {
    print_json(to_json_value(issues));
  } else {
    for (const auto& [index, issue, is_pending] : issues) {
      const bool known = index >= 0 && index < static_cast<int>(asked.passes.size());
      print(std::string(enum_text(issue.severity)) + ": " + (known ? asked.passes[static_cast<std::size_t>(index)].id : "recipe") +
            (issue.where.empty() ? "" : ", " + issue.where) + ": " + issue.message + (issue.hint.empty() ? "" : " " + issue.hint) + "\n");
    }
    if (issues.empty()) print("Nothing is in the way.\n");
  }
  if (errors == 0) return {};
  return fail(ErrorCode::kInvalidArgument, "The recipe '" + asked.name + "' cannot run on this network as it is.", "The list above says why, pass by pass.");
}

}  // namespace quanvas::cli
