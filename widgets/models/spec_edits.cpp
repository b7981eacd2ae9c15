#include "widgets/models/spec_edits.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <QCoreApplication>

#include "core/recipe/plan.h"

namespace quanvas {
namespace {

QString tr(const char* text) {
  return QCoreApplication::translate("SpecEdits", text);
}
QString qs(const std::string& s) {
  return QString::fromStdString(s);
}

// A choice of another range or granularity replaces limits that were dragged.
void drop_replaced_limits(json& spec, const std::string& key) {
  if (key != "statistic" && key != "granularity" && key != "percentile") return;
  spec.erase("clip_min");
  spec.erase("clip_max");
}

// Another format has no scale in the model file.
void drop_stored_scale(json& spec, const std::string& key) {
  static const std::set<std::string> kKept = {"source", "rounding", "seed", "delay", "clip_gradient"};
  if (spec.value("source", std::string()) == enum_text(ScaleSource::kStored) && !kKept.count(key))
    spec["source"] = enum_text(ScaleSource::kStatistics);
}

// Takes away what only the value that `key` had can have: of a minifloat the narrow range and the zero point.
void drop_dependents(json& spec, SiteKind kind, const std::string& key) {
  static const json plain = to_json_value(QuantSpec{});
  for (const Field& field : quant_spec_schema(kind).fields) {
    if (!field.enabled_if || field.enabled_if->key != key) continue;
    const auto& values = field.enabled_if->values;
    if (std::find(values.begin(), values.end(), spec[key]) != values.end()) continue;
    if (plain.contains(field.key))
      spec[field.key] = plain[field.key];
    else
      spec.erase(field.key);
    drop_dependents(spec, kind, field.key);
  }
}

bool is_static_activation(const QuantSpec& spec, SiteKind kind) {
  return is_activation(kind) && spec.source != ScaleSource::kDynamic;
}

QString with_minus(int v) {
  return QString::number(v).replace(u'-', QChar(0x2212));
}

QString axis_problem(const QuantSpec& spec, const SpecSurroundings& where) {
  if (!spec.axis || spec.granularity == Granularity::kTensor || !where.shape) return {};
  const int rank = static_cast<int>(where.shape->size());
  const int axis = *spec.axis < 0 ? *spec.axis + rank : *spec.axis;
  if (axis < 0 || axis >= rank)
    return tr("axis is %1; this tensor has %2 axes: 0 … %3, or −%2 … −1 from the end.")
        .arg(with_minus(*spec.axis))
        .arg(rank)
        .arg(rank - 1);
  if (is_static_activation(spec, where.kind) && axis != 1)
    return tr("axis is %1; of an activation calibration keeps the channels of axis 1 only.")
        .arg(with_minus(*spec.axis));
  return {};
}

}  // namespace

QuantSpec default_spec(SiteKind kind) {
  const auto spec = from_json_value<QuantSpec>(quant_spec_schema(kind).defaults());
  return spec ? *spec : QuantSpec{};
}

Result<QuantSpec> edited_spec(const QuantSpec& from, SiteKind kind, const std::string& key, const json& value) {
  json j = to_json_value(from);
  drop_replaced_limits(j, key);
  drop_stored_scale(j, key);
  j[key] = value;
  const auto spec = from_json_value<QuantSpec>(j);
  if (!spec || check(*spec, kind).empty()) return spec;
  drop_dependents(j, kind, key);
  const auto without = from_json_value<QuantSpec>(j);
  return without && check(*without, kind).empty() ? without : spec;
}

QString why_not(const QuantSpec& spec, const SpecSurroundings& where) {
  if (const std::string problem = check(spec, where.kind); !problem.empty()) return qs(problem);
  if (const QString problem = axis_problem(spec, where); !problem.isEmpty()) return problem;
  if (!where.shared) return {};
  const std::string problem = sharing_problem(spec, where.kind);
  return problem.empty() ? QString() : tr("%1: the quantizer is shared. Unshare it first.").arg(qs(problem));
}

QString why_closed(const QuantSpec& spec, const SpecSurroundings& where, const std::string& key) {
  const Field* field = quant_spec_schema(where.kind).find(key);
  if (!field || !field->default_value.is_null() || to_json_value(spec).contains(key)) return {};
  if (key == "axis" && is_static_activation(spec, where.kind))
    return tr("Calibration keeps the channels of axis 1 only; another axis needs a dynamic scale.");
  // Closed is what takes neither its ends nor what lies between them.
  const double lo = field->minimum.value_or(0), hi = field->maximum.value_or(lo);
  QString why;
  for (const double v : {lo, hi, std::floor((lo + hi) / 2)}) {
    const auto edited = edited_spec(spec, where.kind, key,
                                    field->type == FieldType::kInteger ? json(static_cast<int>(v)) : json(v));
    SpecSurroundings any_shape = where;
    any_shape.shape.reset();  // an end of the range may be no axis of this tensor, while others are
    why = edited ? why_not(*edited, any_shape) : qs(edited.error().text());
    if (why.isEmpty()) return {};
  }
  return why;
}

QString value_text(const Field& field, const json& value) {
  if (value.is_null()) return tr("automatic");
  if (value.is_boolean()) return value.get<bool>() ? tr("on") : tr("off");
  if (!value.is_string()) return qs(value.dump());
  for (const auto& c : field.choices)
    if (c.value == value) return qs(c.title);
  return qs(value.get<std::string>());
}

}  // namespace quanvas
