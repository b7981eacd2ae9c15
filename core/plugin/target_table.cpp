#include "core/plugin/target_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace quanvas {
namespace {

template <class T>
bool has(const std::vector<T>& list, const T& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool is_last = i + 1 == words.size();
    out += (i == 0 ? "" : is_last ? " or " : ", ") + words[i];
  }
  return out;
}

template <class E>
std::string names_of(const std::vector<E>& values) {
  std::vector<std::string> words;
  for (const E v : values) words.push_back(enum_text(v));
  return joined(words);
}

bool is_int(const QuantSpec& s) {
  return s.format == "int";
}
std::string bits_text(int bits) {
  return std::to_string(bits) + " bit";
}

// One question about a quantizer: whether the row takes it, what it is, what the row would take, the change that
// makes it so. The order is that of the sentences and of the repairs.
struct Axis {
  const char* name;
  bool (*takes)(const TargetRow&, SiteKind, const QuantSpec&);
  std::string (*got)(const QuantSpec&);
  std::string (*allowed)(const TargetRow&);
  const char* suggestion;
  void (*mend)(const TargetRow&, QuantSpec&);
};

// --- number format ---
bool takes_format(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return has(r.formats, format_name(s));
}
std::string allowed_formats(const TargetRow& r) {
  return joined(r.formats);
}
void set_minifloat(QuantSpec& s, int e, int m, FloatSpecials specials) {
  s.format = "float";
  s.exponent_bits = e;
  s.mantissa_bits = m;
  s.exponent_bias.reset();
  s.specials = specials;
  s.is_signed = true;
}
void mend_format(const TargetRow& r, QuantSpec& s) {
  const int bits = code_bits(s);
  const std::string& wanted = r.formats.front();
  s.narrow = false;
  s.zero_point = wanted == "int" ? s.zero_point : ZeroPointType::kNone;
  if (wanted == "int") {
    s.format = "int";
    s.bits = std::max(r.least_bits, std::min(std::max(bits, 2), r.most_bits));
  } else if (wanted == "e4m3fn") {
    set_minifloat(s, 4, 3, FloatSpecials::kNan);
  } else if (wanted == "e5m2") {
    set_minifloat(s, 5, 2, FloatSpecials::kIeee);
  } else if (wanted == "e2m1") {
    set_minifloat(s, 2, 1, FloatSpecials::kNone);
  } else if (wanted == "e2m3") {
    set_minifloat(s, 2, 3, FloatSpecials::kNone);
  } else if (wanted == "e3m2") {
    set_minifloat(s, 3, 2, FloatSpecials::kNone);
  } else if (wanted == "e4m3fnuz") {
    set_minifloat(s, 4, 3, FloatSpecials::kFnuz);
  } else if (wanted == "e5m2fnuz") {
    set_minifloat(s, 5, 2, FloatSpecials::kFnuz);
  } else if (wanted == "ternary" || wanted == "binary" || find_codebook(wanted)) {
    s.format = wanted;
    s.is_signed = true;
  }
}

// --- bit width ---
bool takes_bits(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return !is_int(s) || (s.bits >= r.least_bits && s.bits <= r.most_bits);
}
std::string got_bits(const QuantSpec& s) {
  return bits_text(code_bits(s));
}
std::string allowed_bits(const TargetRow& r) {
  return r.least_bits == r.most_bits ? bits_text(r.least_bits)
                                     : std::to_string(r.least_bits) + " to " + bits_text(r.most_bits);
}
void mend_bits(const TargetRow& r, QuantSpec& s) {
  s.bits = std::max(r.least_bits, std::min(s.bits, r.most_bits));
}

// --- sign ---
bool takes_sign(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return !r.is_signed || !is_int(s) || s.is_signed == *r.is_signed;
}
std::string sign_text(bool is_signed) {
  return is_signed ? "signed" : "unsigned";
}
void mend_sign(const TargetRow& r, QuantSpec& s) {
  s.is_signed = *r.is_signed;
  // Codes from 0 on hold numbers below 0 only with a zero point.
  if (!s.is_signed && s.zero_point == ZeroPointType::kNone && has(r.zero_points, ZeroPointType::kInteger) &&
      !r.zero_points.empty())
    s.zero_point = ZeroPointType::kInteger;
}

// --- narrow range ---
bool takes_narrow(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return !r.narrow || !is_int(s) || s.narrow == *r.narrow;
}
std::string narrow_text(bool narrow) {
  return narrow ? "narrow range" : "full range";
}

// --- zero point ---
bool takes_zero(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return has(r.zero_points, s.zero_point);
}
std::string zero_text(ZeroPointType z) {
  switch (z) {
    case ZeroPointType::kNone:
      return "none";
    case ZeroPointType::kInteger:
      return "an integer";
    case ZeroPointType::kFloat:
      return "a fraction";
    default:
      return "an offset";
  }
}
std::string allowed_zero(const TargetRow& r) {
  std::vector<std::string> words;
  for (const ZeroPointType z : r.zero_points) words.push_back(zero_text(z));
  return joined(words);
}
void mend_zero(const TargetRow& r, QuantSpec& s) {
  const bool integer =
      std::find(r.zero_points.begin(), r.zero_points.end(), ZeroPointType::kInteger) != r.zero_points.end();
  s.zero_point = s.zero_point != ZeroPointType::kNone && integer ? ZeroPointType::kInteger : r.zero_points.front();
  s.zero_point_inside = false;
  // Codes from 0 on would cut off what is below 0.
  if (s.zero_point == ZeroPointType::kNone && r.is_signed.value_or(true)) s.is_signed = true;
}
bool takes_place(const TargetRow& r, SiteKind, const QuantSpec& s) {
  const bool placed = s.zero_point == ZeroPointType::kInteger || s.zero_point == ZeroPointType::kFloat;
  return !placed || !r.zero_point_inside || s.zero_point_inside == *r.zero_point_inside;
}
std::string place_text(bool inside) {
  return inside ? "added before the rounding" : "added after the rounding";
}

// --- granularity ---
bool takes_granularity(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return has(r.granularities, s.granularity);
}
std::string granularity_text(Granularity g) {
  return std::string("per ") + enum_text(g);
}
std::string allowed_granularity(const TargetRow& r) {
  std::vector<std::string> words;
  for (const Granularity g : r.granularities) words.push_back(granularity_text(g));
  return joined(words);
}
void mend_granularity(const TargetRow& r, QuantSpec& s) {
  // Of weights the finest that the target has loses least; an activation has one scale in nearly every runtime.
  const bool activation = is_activation(r.sites.front());
  if (activation && has(r.granularities, Granularity::kTensor)) {
    s.granularity = Granularity::kTensor;
    s.axis.reset();
    return;
  }
  const Granularity order[] = {Granularity::kGroup, Granularity::kChannel, Granularity::kRow, Granularity::kTensor};
  for (const Granularity g : order)
    if (has(r.granularities, g)) {
      s.granularity = g;
      break;
    }
  s.axis.reset();
  if (s.granularity == Granularity::kGroup && !r.group_sizes.empty()) s.group_size = r.group_sizes.front();
}
bool takes_group(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return s.granularity != Granularity::kGroup ||
         (has(r.group_sizes, s.group_size) && (r.group_multiple == 0 || s.group_size % r.group_multiple == 0));
}
std::string allowed_group(const TargetRow& r) {
  std::vector<std::string> words;
  for (const int g : r.group_sizes) words.push_back(std::to_string(g));
  if (r.group_multiple) words.push_back("a multiple of " + std::to_string(r.group_multiple));
  return joined(words);
}
void mend_group(const TargetRow& r, QuantSpec& s) {
  if (r.group_sizes.empty()) {
    s.group_size = std::max(1, s.group_size / r.group_multiple) * r.group_multiple;
    return;
  }
  // The next smaller one, or the smallest there is.
  int best = *std::min_element(r.group_sizes.begin(), r.group_sizes.end());
  for (const int g : r.group_sizes)
    if (g <= s.group_size) best = std::max(best, g);
  s.group_size = best;
}
bool takes_axis(const TargetRow& r, SiteKind, const QuantSpec& s) {
  if (s.granularity == Granularity::kTensor || !s.axis || r.axes.empty()) return true;
  return *s.axis >= 0 && has(r.axes, *s.axis);  // counted from the last end: of an unknown rank
}
std::string allowed_axis(const TargetRow& r) {
  std::vector<std::string> words = {"the layer's own"};
  for (const int a : r.axes)
    if (a != kOwnAxis) words.push_back(std::to_string(a));
  return joined(words);
}

// --- rounding, scales ---
bool takes_rounding(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return !is_int(s) && s.format != "float" ? true : has(r.roundings, s.rounding);
}
bool takes_scale(const TargetRow& r, SiteKind site, const QuantSpec& s) {
  if (site == SiteKind::kBias && s.scale_from_accumulator) return true;  // it is that of the input and the weight
  return has(r.scales, s.scale);
}
bool takes_source(const TargetRow& r, SiteKind site, const QuantSpec& s) {
  return !r.dynamic || !is_activation(site) || (s.source == ScaleSource::kDynamic) == *r.dynamic;
}
std::string source_text(bool dynamic) {
  return dynamic ? "found from each sample at run time" : "known beforehand";
}
bool takes_accumulator(const TargetRow& r, SiteKind site, const QuantSpec& s) {
  return !r.accumulator || site != SiteKind::kBias || s.scale_from_accumulator == *r.accumulator;
}
bool takes_truncation(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return r.truncation || s.truncation == Truncation::kNone;
}
bool takes_decoupled(const TargetRow& r, SiteKind, const QuantSpec& s) {
  return r.decoupled || s.decoupled == Decoupling::kNone;
}

const std::vector<Axis>& axes() {
  static const std::vector<Axis> list = {
      {"number format", takes_format, format_name, allowed_formats,
       "Choose one of these formats, or leave it float.", mend_format},
      {"bit width", takes_bits, got_bits, allowed_bits, "Use a width that the target has.", mend_bits},
      {"sign", takes_sign, [](const QuantSpec& s) { return sign_text(s.is_signed); },
       [](const TargetRow& r) { return sign_text(*r.is_signed); }, "Change the sign of the format.", mend_sign},
      {"range of codes", takes_narrow, [](const QuantSpec& s) { return narrow_text(s.narrow); },
       [](const TargetRow& r) { return narrow_text(*r.narrow); }, "Change narrow.",
       [](const TargetRow& r, QuantSpec& s) { s.narrow = *r.narrow; }},
      {"zero point", takes_zero, [](const QuantSpec& s) { return zero_text(s.zero_point); }, allowed_zero,
       "Choose another zero point.", mend_zero},
      {"place of the zero point", takes_place, [](const QuantSpec& s) { return place_text(s.zero_point_inside); },
       [](const TargetRow& r) { return place_text(*r.zero_point_inside); }, "Change zero_point_inside.",
       [](const TargetRow& r, QuantSpec& s) { s.zero_point_inside = *r.zero_point_inside; }},
      {"granularity", takes_granularity, [](const QuantSpec& s) { return granularity_text(s.granularity); },
       allowed_granularity, "Choose another granularity.", mend_granularity},
      {"group size", takes_group, [](const QuantSpec& s) { return std::to_string(s.group_size); }, allowed_group,
       "Choose another group size.", mend_group},
      {"axis of scales", takes_axis,
       [](const QuantSpec& s) { return "axis " + std::to_string(s.axis.value_or(0)); }, allowed_axis,
       "Leave the axis to the layer.", [](const TargetRow&, QuantSpec& s) { s.axis.reset(); }},
      {"rounding", takes_rounding, [](const QuantSpec& s) { return std::string(enum_text(s.rounding)); },
       [](const TargetRow& r) { return names_of(r.roundings); }, "Choose another rounding.",
       [](const TargetRow& r, QuantSpec& s) { s.rounding = r.roundings.front(), s.soft_rounding = false; }},
      {"scale type", takes_scale, [](const QuantSpec& s) { return std::string(enum_text(s.scale)); },
       [](const TargetRow& r) { return names_of(r.scales); }, "Choose another type of scale.",
       [](const TargetRow& r, QuantSpec& s) { s.scale = r.scales.front(); }},
      {"scale source", takes_source,
       [](const QuantSpec& s) { return source_text(s.source == ScaleSource::kDynamic); },
       [](const TargetRow& r) { return source_text(*r.dynamic); }, "Choose another source of scales.",
       [](const TargetRow& r, QuantSpec& s) {
         s.source = *r.dynamic ? ScaleSource::kDynamic : ScaleSource::kStatistics;
       }},
      {"scale of a bias", takes_accumulator,
       [](const QuantSpec& s) {
         return std::string(s.scale_from_accumulator ? "input scale x weight scale" : "one of its own");
       },
       [](const TargetRow& r) {
         return std::string(*r.accumulator ? "input scale x weight scale" : "one of its own");
       },
       "Change scale_from_accumulator.",
       [](const TargetRow& r, QuantSpec& s) { s.scale_from_accumulator = *r.accumulator; }},
      {"truncation", takes_truncation, [](const QuantSpec& s) { return std::string(enum_text(s.truncation)); },
       [](const TargetRow&) { return std::string("none"); }, "Quantize the output anew, or leave it float.",
       [](const TargetRow&, QuantSpec& s) { s.truncation = Truncation::kNone; }},
      {"two scales", takes_decoupled, [](const QuantSpec& s) { return std::string(enum_text(s.decoupled)); },
       [](const TargetRow&) { return std::string("one scale"); }, "Set decoupled to none.",
       [](const TargetRow&, QuantSpec& s) {
         s.decoupled = Decoupling::kNone, s.accumulator_bits.reset(), s.zero_centered = false;
       }},
  };
  return list;
}

bool is_for(const TargetRow& row, const std::string& op, SiteKind site) {
  return std::find(row.sites.begin(), row.sites.end(), site) != row.sites.end() && has(row.ops, op);
}

std::vector<const Axis*> broken(const TargetRow& row, SiteKind site, const QuantSpec& spec) {
  std::vector<const Axis*> out;
  for (const Axis& axis : axes())
    if (!axis.takes(row, site, spec)) out.push_back(&axis);
  return out;
}

// What the changes have left without a meaning, one thing after the other until nothing illegal is left.
void settle(QuantSpec& spec, SiteKind site) {
  const auto drop_limits = [](QuantSpec& s) { s.clip_min.reset(), s.clip_max.reset(); };
  using Change = void (*)(QuantSpec&);
  const Change changes[] = {
      [](QuantSpec& s) { s.learn_zero_point = s.learn_zero_point && s.zero_point != ZeroPointType::kNone; },
      [](QuantSpec& s) { s.statistic = s.zero_point == ZeroPointType::kNone ? Statistic::kAbsMax : Statistic::kMinMax; },
      drop_limits,
      [](QuantSpec& s) { s.batches = BatchStatistic::kAll; },
      [](QuantSpec& s) {
        if (s.format != "int" && s.format != "float") s.rounding = Rounding::kHalfEven, s.soft_rounding = false;
      },
      [](QuantSpec& s) {
        if (s.scale == ScaleType::kFloat8 || s.scale == ScaleType::kQuantized) s.scale = ScaleType::kFloat32;
      },
      [](QuantSpec& s) { s.granularity = Granularity::kTensor, s.axis.reset(); },
  };
  for (const Change change : changes) {
    if (check(spec, site).empty()) return;
    change(spec);
  }
}

// Steps of input scale x weight scale are so fine that a bias needs many bits of them; narrow codes need wider steps.
void fit_bias(const TargetRow& row, const QuantSpec& before, QuantSpec& spec) {
  if (spec.scale_from_accumulator && spec.bits < before.bits && !row.accumulator) {
    spec.scale_from_accumulator = false;
    if (!has(row.scales, spec.scale)) spec.scale = row.scales.front();
  }
  if (spec.scale_from_accumulator && !before.scale_from_accumulator) spec.bits = row.most_bits;
}

// From the first axis on, where that is known; none where it is the one that scales lie on anyway.
QuantSpec without_own_axis(QuantSpec spec, const OwnAxis& own) {
  if (!spec.axis) return spec;
  const auto from_first = [&](int axis) { return axis < 0 ? axis + static_cast<int>(own.rank) : axis; };
  if (own.rank > 0) spec.axis = from_first(*spec.axis);
  if (own.axis && *spec.axis == (own.rank > 0 ? from_first(*own.axis) : *own.axis)) spec.axis.reset();
  return spec;
}

std::optional<QuantSpec> mended(const TargetTable& table, const TargetRow& row, const std::string& op,
                                SiteKind site, QuantSpec spec) {
  const QuantSpec before = spec;
  // A change can bring another one about (a format without zero point); two rounds settle all there are.
  for (int round = 0; round < 2; ++round)
    for (const Axis* axis : broken(row, site, spec)) axis->mend(row, spec);
  if (site == SiteKind::kBias) fit_bias(row, before, spec);
  settle(spec, site);
  if (!check(spec, site).empty()) return std::nullopt;
  for (const TargetRow& other : table.rows)
    if (is_for(other, op, site) && broken(other, site, spec).empty()) return spec;
  return std::nullopt;
}

}  // namespace

std::string format_name(const QuantSpec& spec) {
  if (spec.format != "float") return spec.format;
  struct Known {
    const char* name;
    int exponent, mantissa;
    FloatSpecials specials;
  };
  constexpr Known kKnown[] = {{"e4m3fn", 4, 3, FloatSpecials::kNan},    {"e5m2", 5, 2, FloatSpecials::kIeee},
                              {"e4m3fnuz", 4, 3, FloatSpecials::kFnuz}, {"e5m2fnuz", 5, 2, FloatSpecials::kFnuz},
                              {"e2m1", 2, 1, FloatSpecials::kNone},     {"e2m3", 2, 3, FloatSpecials::kNone},
                              {"e3m2", 3, 2, FloatSpecials::kNone}};
  const int usual = (1 << (spec.exponent_bits - 1)) - (spec.specials == FloatSpecials::kFnuz ? 0 : 1);
  const int bias = spec.exponent_bias.value_or(usual);
  const std::string sign = spec.is_signed ? "" : "u";
  for (const Known& k : kKnown)
    if (k.exponent == spec.exponent_bits && k.mantissa == spec.mantissa_bits && k.specials == spec.specials &&
        bias == usual)
      return sign + k.name;
  return sign + "float e" + std::to_string(spec.exponent_bits) + "m" + std::to_string(spec.mantissa_bits) +
         ", bias " + std::to_string(bias) + ", specials " + enum_text(spec.specials);
}

std::string describe(const TargetRow& row) {
  const bool integers =
      row.formats.empty() || std::find(row.formats.begin(), row.formats.end(), "int") != row.formats.end();
  std::vector<std::string> parts = {row.formats.empty() ? "any format" : joined(row.formats)};
  if (integers) {
    parts.push_back(allowed_bits(row));
    if (row.is_signed) parts.push_back(sign_text(*row.is_signed));
    if (row.narrow) parts.push_back(narrow_text(*row.narrow));
    parts.push_back(row.zero_points.empty() ? "any zero point" : "zero point " + allowed_zero(row));
    if (row.zero_point_inside && has(row.zero_points, ZeroPointType::kInteger) &&
        row.zero_points != std::vector{ZeroPointType::kNone})
      parts.push_back(place_text(*row.zero_point_inside));
  }
  parts.push_back(row.granularities.empty() ? "any granularity" : allowed_granularity(row));
  if (has(row.granularities, Granularity::kGroup) && (!row.group_sizes.empty() || row.group_multiple))
    parts.push_back("groups of " + allowed_group(row));
  const bool activations =
      std::any_of(row.sites.begin(), row.sites.end(), [](SiteKind k) { return is_activation(k); });
  if (!row.roundings.empty()) parts.push_back("rounding " + names_of(row.roundings));
  if (!row.scales.empty()) parts.push_back("scales " + names_of(row.scales));
  if (activations && row.dynamic) parts.push_back("scales " + source_text(*row.dynamic));
  if (row.accumulator && has(row.sites, SiteKind::kBias))
    parts.push_back(*row.accumulator ? "input scale x weight scale" : "a scale of its own");
  if (row.truncation) parts.push_back("truncation");
  if (!row.axes.empty()) parts.push_back("scales on axis " + allowed_axis(row));
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : ", ") + p;
  return out;
}

TargetVerdict judge(const TargetTable& table, const std::string& op, SiteKind site, const QuantSpec& spec) {
  return judge(table, op, site, spec, {});
}

TargetVerdict judge(const TargetTable& table, const std::string& op, SiteKind site, const QuantSpec& given, const OwnAxis& own) {
  const QuantSpec spec = without_own_axis(given, own);
  TargetVerdict verdict;
  std::vector<const TargetRow*> nearest;
  std::size_t least = axes().size() + 1;
  for (const TargetRow& row : table.rows) {
    if (!is_for(row, op, site)) continue;
    const std::size_t count = broken(row, site, spec).size();
    if (count == 0) {
      verdict.row = &row;
      return verdict;
    }
    if (count < least) nearest.clear(), least = count;
    if (count == least) nearest.push_back(&row);
  }
  if (nearest.empty()) {
    std::vector<std::string> places;
    for (const TargetRow& row : table.rows)
      for (const SiteKind kind : row.sites) {
        const std::string text =
            std::string(enum_text(kind)) + (row.ops.empty() ? " of any layer" : " of " + joined(row.ops));
        if (std::find(places.begin(), places.end(), text) == places.end()) places.push_back(text);
      }
    Refusal r;
    r.rule = "place of a quantizer";
    r.got = std::string(enum_text(site)) + " of " + op;
    r.allowed = places.empty() ? "none" : joined(places);
    r.suggestion = "Leave it float.";
    verdict.refusals.push_back(std::move(r));
    return verdict;
  }
  for (const Axis* axis : broken(*nearest.front(), site, spec)) {
    std::vector<std::string> allowed;
    for (const TargetRow* row : nearest)
      if (!axis->takes(*row, site, spec))
        if (const std::string text = axis->allowed(*row);
            std::find(allowed.begin(), allowed.end(), text) == allowed.end())
          allowed.push_back(text);
    Refusal r;
    r.rule = axis->name;
    r.got = axis->got(spec);
    r.allowed = joined(allowed);
    r.suggestion = axis->suggestion;
    verdict.refusals.push_back(std::move(r));
  }
  for (const TargetRow* row : nearest)
    if ((verdict.fix = mended(table, *row, op, site, spec))) break;
  for (const TargetRow& row : table.rows) {
    if (verdict.fix) break;
    if (is_for(row, op, site)) verdict.fix = mended(table, row, op, site, spec);
  }
  return verdict;
}

json table_json(const TargetTable& table) {
  json rows = json::array();
  for (const TargetRow& row : table.rows) {
    json sites = json::array();
    for (const SiteKind k : row.sites) sites.push_back(enum_text(k));
    rows.push_back(
        {{"form", row.form}, {"sites", sites}, {"ops", row.ops}, {"takes", describe(row)}, {"why", row.why}});
  }
  json needs = json::array();
  for (const TargetNeed& n : table.needs)
    needs.push_back({{"ops", n.ops}, {"site", enum_text(n.site)}, {"why", n.why}});
  return {{"rows", rows}, {"needs", needs}, {"exactness", enum_text(table.exactness)}, {"notes", table.notes}};
}

}  // namespace quanvas
