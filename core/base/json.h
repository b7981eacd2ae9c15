// Quanvas - values to JSON and back from one declaration of their fields.
//
//   struct Point { double x = 0; std::string name; };
//   template <class V> void visit_fields(V& v, Point& p) { v("x", p.x); v("name", p.name); }
//   json j = to_json_value(point);   QUANVAS_TRY(auto p, from_json_value<Point>(j, "point"));
//
// A field that is missing keeps its default; an unknown key is an error that names it and the legal ones.
// Non-finite doubles are the strings "inf", "-inf", "nan" (JSON has no such numbers).
// visit_fields lives in the value's header, in namespace quanvas; enums declare
//   inline const EnumNames<Color> kColorNames = {{Color::kRed, "red"}, ...}; and enum_names(Color) returning it.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"

namespace quanvas {

using json = nlohmann::json;

template <class E>
using EnumNames = std::vector<std::pair<E, const char*>>;

template <class E>
const char* enum_text(E value) {
  for (const auto& [v, name] : enum_names(value))
    if (v == value) return name;
  return "?";
}

template <class E>
std::optional<E> enum_value(const std::string& text) {
  for (const auto& [v, name] : enum_names(E{}))
    if (text == name) return v;
  return std::nullopt;
}

inline json real(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  return v;
}

inline std::optional<double> real_from(const json& j) {
  if (j.is_number()) return j.get<double>();
  if (j == "nan") return std::nan("");
  if (j == "inf") return INFINITY;
  if (j == "-inf") return -INFINITY;
  return std::nullopt;
}

namespace detail {

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_string_map : std::false_type {};
template <class T>
struct is_string_map<std::map<std::string, T>> : std::true_type {};

}  // namespace detail

template <class T>
json to_json_value(const T& value);
template <class T>
Status read_json_value(const json& j, T& value, const std::string& where);

struct JsonWriter {
  json out = json::object();
  template <class T>
  void operator()(const char* key, const T& value) {
    if constexpr (detail::is_optional<T>::value) {
      if (value) out[key] = to_json_value(*value);
    } else {
      out[key] = to_json_value(value);
    }
  }
};

struct JsonReader {
  const json& in;
  std::string where;
  Status status;
  std::vector<std::string> known;
  template <class T>
  void operator()(const char* key, T& value) {
    known.emplace_back(key);
    if (!status) return;
    if (const auto it = in.find(key); it != in.end() && !it->is_null())
      status = read_json_value(*it, value, where.empty() ? key : where + "." + key);
  }
  Status finish() const;
};

Failure json_type_error(const std::string& where, const char* expected, const json& got);

template <class T>
json to_json_value(const T& value) {
  if constexpr (std::is_same_v<T, json>) {
    return value;
  } else if constexpr (std::is_enum_v<T>) {
    return enum_text(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    return real(value);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (detail::is_vector<T>::value) {
    json out = json::array();
    for (const auto& v : value) out.push_back(to_json_value<typename T::value_type>(v));
    return out;
  } else if constexpr (detail::is_string_map<T>::value) {
    json out = json::object();
    for (const auto& [k, v] : value) out[k] = to_json_value(v);
    return out;
  } else if constexpr (detail::is_optional<T>::value) {
    return value ? to_json_value(*value) : json();
  } else {
    JsonWriter writer;
    visit_fields(writer, const_cast<T&>(value));
    return writer.out;
  }
}

template <class T>
Status read_json_value(const json& j, T& value, const std::string& where) {
  if constexpr (std::is_same_v<T, json>) {
    value = j;
  } else if constexpr (std::is_enum_v<T>) {
    if (!j.is_string()) return json_type_error(where, "a name", j);
    if (auto v = enum_value<T>(j.get<std::string>())) {
      value = *v;
    } else {
      std::string legal;
      for (const auto& [e, name] : enum_names(T{})) legal += (legal.empty() ? "" : ", ") + std::string(name);
      return fail(ErrorCode::kInvalidArgument, "'" + where + "' is '" + j.get<std::string>() + "'.",
                  "Use one of: " + legal + ".");
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!j.is_boolean()) return json_type_error(where, "true or false", j);
    value = j.get<bool>();
  } else if constexpr (std::is_floating_point_v<T>) {
    const auto v = real_from(j);
    if (!v) return json_type_error(where, "a number", j);
    value = static_cast<T>(*v);
  } else if constexpr (std::is_integral_v<T>) {
    if (!j.is_number_integer()) return json_type_error(where, "a whole number", j);
    const bool fits = j.is_number_unsigned() ? std::in_range<T>(j.get<std::uint64_t>()) : std::in_range<T>(j.get<std::int64_t>());
    if (!fits) return json_type_error(where, "a whole number of this field's range", j);
    value = j.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!j.is_string()) return json_type_error(where, "a text", j);
    value = j.get<std::string>();
  } else if constexpr (detail::is_vector<T>::value) {
    if (!j.is_array()) return json_type_error(where, "a list", j);
    value.clear();
    for (std::size_t i = 0; i < j.size(); ++i) {
      typename T::value_type item{};
      QUANVAS_CHECK(read_json_value(j[i], item, where + "[" + std::to_string(i) + "]"));
      value.push_back(std::move(item));
    }
  } else if constexpr (detail::is_string_map<T>::value) {
    if (!j.is_object()) return json_type_error(where, "a map", j);
    value.clear();
    for (const auto& [k, v] : j.items()) QUANVAS_CHECK(read_json_value(v, value[k], where + "." + k));
  } else if constexpr (detail::is_optional<T>::value) {
    value.emplace();
    return read_json_value(j, *value, where);
  } else {
    if (!j.is_object()) return json_type_error(where, "a map", j);
    JsonReader reader{j, where, {}, {}};
    visit_fields(reader, value);
    return reader.finish();
  }
  return {};
}

template <class T>
Result<T> from_json_value(const json& j, const std::string& where = {}) {
  T value{};
  QUANVAS_CHECK(read_json_value(j, value, where));
  return value;
}

// Text to a value, for payloads of the service and of the project file. kCorrupt: no JSON, or more than 1000 levels deep.
Result<json> parse_json(const std::string& text, const std::string& where);
template <class T>
Result<T> from_json_text(const std::string& text, const std::string& where = {}) {
  QUANVAS_TRY(const json j, parse_json(text, where));
  return from_json_value<T>(j, where);
}
template <class T>
std::string to_json_text(const T& value, int indent = -1) {
  return to_json_value(value).dump(indent, ' ', false, json::error_handler_t::replace);
}

}  // namespace quanvas
