#include "core/base/json.h"

#include <algorithm>

namespace quanvas {
namespace {

// What is copied, compared and written again goes down level by level on the stack.
constexpr int kMostLevels = 1000;

bool is_too_deep(const std::string& text) {
  int levels = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    else if (c == '"') quoted = !quoted;
    else if (!quoted && (c == '[' || c == '{') && ++levels > kMostLevels) return true;
    else if (!quoted && (c == ']' || c == '}')) --levels;
  }
  return false;
}

}  // namespace

Status JsonReader::finish() const {
  if (!status) return status;
  for (const auto& [key, value] : in.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string legal;
    for (const auto& k : known) legal += (legal.empty() ? "" : ", ") + k;
    return fail(ErrorCode::kInvalidArgument,
                "Unknown key '" + (where.empty() ? key : where + "." + key) + "'.", "Known here: " + legal + ".");
  }
  return {};
}

Failure json_type_error(const std::string& where, const char* expected, const json& got) {
  std::string shown = got.dump(-1, ' ', false, json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return fail(ErrorCode::kInvalidArgument, "'" + where + "' must be " + expected + ", not " + shown + ".");
}

Result<json> parse_json(const std::string& text, const std::string& where) {
  if (is_too_deep(text))
    return fail(ErrorCode::kCorrupt, (where.empty() ? std::string("The text") : where) + " is nested more than " +
                                         std::to_string(kMostLevels) + " levels deep.");
  json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded())
    return fail(ErrorCode::kCorrupt, (where.empty() ? std::string("The text") : where) + " is not valid JSON.");
  return j;
}

}  // namespace quanvas
