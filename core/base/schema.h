// Quanvas - options of plug-ins, declared once. From a Schema come the form in the window, the JSON of the
// recipe, the flags of the command line, the page in the docs and the conformance test.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace quanvas {

enum class FieldType { kBool, kInteger, kReal, kChoice, kText };
inline const EnumNames<FieldType>& enum_names(FieldType) {
  static const EnumNames<FieldType> names = {{FieldType::kBool, "bool"},
                                             {FieldType::kInteger, "integer"},
                                             {FieldType::kReal, "real"},
                                             {FieldType::kChoice, "choice"},
                                             {FieldType::kText, "text"}};
  return names;
}

// A field is shown and read only while the field `key` has one of the `values` (as JSON).
struct EnabledIf {
  std::string key;
  std::vector<json> values;
};
template <class V>
void visit_fields(V& v, EnabledIf& e) {
  v("key", e.key);
  v("values", e.values);
}

struct Choice {
  std::string value;  // persisted
  std::string title;  // shown
  std::string doc;
};
template <class V>
void visit_fields(V& v, Choice& c) {
  v("value", c.value);
  v("title", c.title);
  v("doc", c.doc);
}

struct Field {
  std::string key;    // persisted, never renamed
  std::string title;  // shown
  std::string doc;    // tooltip: what it does, formula or paper
  FieldType type = FieldType::kText;
  std::string unit;   // "dB", "samples", "%" ...; empty for none
  json default_value;
  std::optional<double> minimum, maximum;  // inclusive
  std::vector<Choice> choices;             // kChoice only
  std::optional<EnabledIf> enabled_if;
};
template <class V>
void visit_fields(V& v, Field& f) {
  v("key", f.key);
  v("title", f.title);
  v("doc", f.doc);
  v("type", f.type);
  v("unit", f.unit);
  v("default", f.default_value);
  v("minimum", f.minimum);
  v("maximum", f.maximum);
  v("choices", f.choices);
  v("enabled_if", f.enabled_if);
}

struct Schema {
  std::vector<Field> fields;

  const Field* find(const std::string& key) const;
  json defaults() const;
  // Fills in defaults; refuses unknown keys, wrong types, values out of range: the sentence names `owner`,
  // the key, what was given and what is legal.
  Result<json> complete(const json& given, const std::string& owner) const;
};
template <class V>
void visit_fields(V& v, Schema& s) {
  v("fields", s.fields);
}

// Builder so that a plug-in's declaration reads as a table.
Field bool_field(std::string key, std::string title, std::string doc, bool value);
Field integer_field(std::string key, std::string title, std::string doc, std::int64_t value, double minimum,
                    double maximum, std::string unit = {});
Field real_field(std::string key, std::string title, std::string doc, double value, double minimum,
                 double maximum, std::string unit = {});
Field choice_field(std::string key, std::string title, std::string doc, std::string value,
                   std::vector<Choice> choices);
Field text_field(std::string key, std::string title, std::string doc, std::string value);
Field when(Field field, std::string key, std::vector<json> values);

}  // namespace quanvas
