#include "core/base/schema.h"

#include <algorithm>
#include <cmath>

namespace quanvas {
namespace {

std::string number_text(double v) {
  constexpr double kWhole = 9007199254740992.0;  // 2^53
  if (!std::isfinite(v)) return real(v).get<std::string>();
  return std::abs(v) <= kWhole && v == std::trunc(v) ? std::to_string(static_cast<std::int64_t>(v)) : json(v).dump();
}

Failure wrong(const std::string& owner, const Field& f, const std::string& expected, const json& got) {
  return fail(ErrorCode::kInvalidArgument,
              "Option '" + f.key + "' of " + owner + " must be " + expected + ", not " +
                  got.dump(-1, ' ', false, json::error_handler_t::replace) + ".");
}

Status check_range(const std::string& owner, const Field& f, double v) {
  if ((f.minimum && v < *f.minimum) || (f.maximum && v > *f.maximum) || v != v)
    return fail(ErrorCode::kInvalidArgument,
                "Option '" + f.key + "' of " + owner + " is " + number_text(v) + "; it must lie between " +
                    number_text(f.minimum.value_or(-INFINITY)) + " and " + number_text(f.maximum.value_or(INFINITY)) + ".");
  return {};
}

Status check_value(const std::string& owner, const Field& f, const json& v) {
  switch (f.type) {
    case FieldType::kBool:
      if (!v.is_boolean()) return wrong(owner, f, "true or false", v);
      return {};
    case FieldType::kInteger:
      if (!v.is_number_integer()) return wrong(owner, f, "a whole number", v);
      return check_range(owner, f, v.get<double>());
    case FieldType::kReal:
      if (!v.is_number()) return wrong(owner, f, "a number", v);
      return check_range(owner, f, v.get<double>());
    case FieldType::kText:
      if (!v.is_string()) return wrong(owner, f, "a text", v);
      return {};
    case FieldType::kChoice: {
      std::string legal;
      for (const auto& c : f.choices) {
        if (v == c.value) return {};
        legal += (legal.empty() ? "" : ", ") + c.value;
      }
      return wrong(owner, f, "one of " + legal, v);
    }
  }
  return {};
}

Field make(FieldType type, std::string key, std::string title, std::string doc, json value) {
  Field f;
  f.type = type;
  f.key = std::move(key);
  f.title = std::move(title);
  f.doc = std::move(doc);
  f.default_value = std::move(value);
  return f;
}

Field ranged(Field f, double minimum, double maximum, std::string unit) {
  f.minimum = minimum;
  f.maximum = maximum;
  f.unit = std::move(unit);
  return f;
}

}  // namespace

const Field* Schema::find(const std::string& key) const {
  const auto it = std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.key == key; });
  return it == fields.end() ? nullptr : &*it;
}

json Schema::defaults() const {
  json out = json::object();
  for (const auto& f : fields) out[f.key] = f.default_value;
  return out;
}

Result<json> Schema::complete(const json& given, const std::string& owner) const {
  json out = defaults();
  if (given.is_null()) return out;
  if (!given.is_object()) return json_type_error(owner, "a map of options", given);
  for (const auto& [key, value] : given.items()) {
    const Field* f = find(key);
    if (!f) {
      std::string legal;
      for (const auto& k : fields) legal += (legal.empty() ? "" : ", ") + k.key;
      return fail(ErrorCode::kInvalidArgument, "Unknown option '" + key + "' of " + owner + ".",
                  legal.empty() ? "It has no options." : "Known: " + legal + ".");
    }
    QUANVAS_CHECK(check_value(owner, *f, value));
    out[key] = value;
  }
  return out;
}

Field bool_field(std::string key, std::string title, std::string doc, bool value) {
  return make(FieldType::kBool, std::move(key), std::move(title), std::move(doc), value);
}
Field integer_field(std::string key, std::string title, std::string doc, std::int64_t value, double minimum,
                    double maximum, std::string unit) {
  return ranged(make(FieldType::kInteger, std::move(key), std::move(title), std::move(doc), value), minimum,
                maximum, std::move(unit));
}
Field real_field(std::string key, std::string title, std::string doc, double value, double minimum,
                 double maximum, std::string unit) {
  return ranged(make(FieldType::kReal, std::move(key), std::move(title), std::move(doc), value), minimum, maximum,
                std::move(unit));
}
Field choice_field(std::string key, std::string title, std::string doc, std::string value,
                   std::vector<Choice> choices) {
  Field f = make(FieldType::kChoice, std::move(key), std::move(title), std::move(doc), std::move(value));
  f.choices = std::move(choices);
  return f;
}
Field text_field(std::string key, std::string title, std::string doc, std::string value) {
  return make(FieldType::kText, std::move(key), std::move(title), std::move(doc), std::move(value));
}
Field when(Field field, std::string key, std::vector<json> values) {
  field.enabled_if = EnabledIf{std::move(key), std::move(values)};
  return field;
}

}  // namespace quanvas
