#include "core/base/json.h"

#include <algorithm>

namespace quanvas {

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
  json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded())
    return fail(ErrorCode::kCorrupt, (where.empty() ? std::string("The text") : where) + " is not valid JSON.");
  return j;
}

}  // namespace quanvas
