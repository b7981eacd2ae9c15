// Quanvas - YAML and JSON texts that people write: recipes, declarations of data.
#pragma once

#include <map>
#include <string>

#include "core/base/json.h"
#include "core/base/result.h"

namespace quanvas {

// A text as JSON that remembers on which line each key stands.
struct YamlText {
  std::string file_name;
  json value;
  std::map<std::string, int> lines;  // "rules[1].set.bits"; from 1

  // "recipe.yaml:7: ..." (line 0: without).
  Failure failure_at(int line, ErrorCode code, const std::string& message, std::string hint = {}) const;
  // The same at the line of the key that the message names in quotes, or of the nearest one above it.
  Failure failure(const Error& error) const;
};

// YAML 1.2 with its core schema, of which JSON is a part; one document of at most 16 MiB. what: of the sentences
// ("recipe"). kCorrupt for what is no YAML, kInvalidArgument for a key that stands twice and the like.
Result<YamlText> parse_yaml(const std::string& text, const std::string& file_name, const std::string& what);

// What a plain (not quoted) scalar means: null, a truth value, a number or a text.
json yaml_scalar(const std::string& text);

}  // namespace quanvas
