#include "core/report/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quanvas {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// inf - inf is nan, but two lossless layers do not differ.
double difference(double a, double b) { return a == b ? 0 : b - a; }

double cumulative_delta(const LayerDelta& d) {
  if (!d.a || !d.b || !d.a->cumulative || !d.b->cumulative) return kUnknown;
  return difference(d.a->cumulative->sqnr_db, d.b->cumulative->sqnr_db);
}

std::vector<LayerDelta> layer_deltas(const Run& a, const Run& b) {
  std::map<NodeId, const LayerResult*> of_b;
  for (const auto& l : b.layers) of_b[l.node] = &l;
  std::vector<LayerDelta> out;
  for (const auto& l : a.layers) {
    LayerDelta d{l.node, l.name, l, std::nullopt, 0};
    if (const auto it = of_b.find(l.node); it != of_b.end()) {
      d.b = *it->second;
      of_b.erase(it);
    }
    out.push_back(std::move(d));
  }
  for (const auto& l : b.layers)
    if (of_b.count(l.node)) out.push_back({l.node, l.name, std::nullopt, l, 0});
  for (auto& d : out) d.cumulative_delta_db = cumulative_delta(d);
  return out;
}

double top1_delta(const Run& a, const Run& b) {
  return a.accuracy && b.accuracy ? b.accuracy->top1 - a.accuracy->top1 : kUnknown;
}

double perplexity_delta(const Run& a, const Run& b) {
  return a.accuracy && b.accuracy ? b.accuracy->perplexity - a.accuracy->perplexity : kUnknown;
}

// 0 stands for "not measured" in bytes and bops.
double known_difference(double a, double b) { return a > 0 && b > 0 ? b - a : kUnknown; }

std::string value_text(const json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); }

// "bits 8 → 4, statistic mse → absmax"; keys that only one side has read "(default)" on the other.
std::string changed_keys(const json& a, const json& b) {
  std::string out;
  const auto add = [&](const std::string& key, const std::string& from, const std::string& to) {
    out += (out.empty() ? "" : ", ") + key + " " + from + " → " + to;
  };
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key)) add(key, value_text(value), "(default)");
    else if (b[key] != value) add(key, value_text(value), value_text(b[key]));
  }
  for (const auto& [key, value] : b.items())
    if (!a.contains(key)) add(key, "(default)", value_text(value));
  return out;
}

std::string format_text(const Rule& r) {
  if (r.is_float) return "float";
  std::string out = r.preset.empty() ? "defaults" : r.preset;
  std::string set;
  for (const auto& [key, value] : r.override_fields.items())
    set += (set.empty() ? "" : ", ") + key + " " + value_text(value);
  return set.empty() ? out : out + " with " + set;
}

std::string rule_change(const Rule& a, const Rule& b) {
  if (a.is_float != b.is_float || a.preset != b.preset) return format_text(a) + " → " + format_text(b);
  return changed_keys(a.override_fields, b.override_fields);
}

std::string rule_label(std::size_t index, const Rule& r) {
  return "rule " + std::to_string(index + 1) + " (" + describe(r.select) + ")";
}

void compare_rules(const Recipe& a, const Recipe& b, std::vector<std::string>& out) {
  std::vector<bool> used(b.rules.size());
  std::size_t last = 0;
  for (std::size_t i = 0; i < a.rules.size(); ++i) {
    std::size_t found = b.rules.size();
    for (std::size_t k = 0; k < b.rules.size() && found == b.rules.size(); ++k)
      if (!used[k] && b.rules[k].select == a.rules[i].select) found = k;
    if (found == b.rules.size()) {
      out.push_back(rule_label(i, a.rules[i]) + " removed: " + format_text(a.rules[i]));
      continue;
    }
    used[found] = true;
    if (const auto change = rule_change(a.rules[i], b.rules[found]); !change.empty())
      out.push_back(rule_label(i, a.rules[i]) + ": " + change);
    if (found < last)
      out.push_back(rule_label(i, a.rules[i]) + " moved to place " + std::to_string(found + 1));
    last = std::max(last, found);
  }
  for (std::size_t k = 0; k < b.rules.size(); ++k)
    if (!used[k]) out.push_back(rule_label(k, b.rules[k]) + " added: " + format_text(b.rules[k]));
}

// A pass that is switched off does the same as one that is absent.
std::vector<PassEntry> enabled_passes(const Recipe& r) {
  std::vector<PassEntry> out;
  std::copy_if(r.passes.begin(), r.passes.end(), std::back_inserter(out), [](const auto& p) { return p.enabled; });
  return out;
}

void compare_passes(const Recipe& a, const Recipe& b, std::vector<std::string>& out) {
  const auto from = enabled_passes(a);
  const auto to = enabled_passes(b);
  std::vector<bool> used(to.size());
  std::size_t last = 0;
  for (const auto& p : from) {
    std::size_t found = to.size();
    for (std::size_t k = 0; k < to.size() && found == to.size(); ++k)
      if (!used[k] && to[k].id == p.id) found = k;
    if (found == to.size()) {
      out.push_back("pass " + p.id + " removed");
      continue;
    }
    used[found] = true;
    if (const auto change = changed_keys(p.options, to[found].options); !change.empty())
      out.push_back("pass " + p.id + ": " + change);
    if (found < last) out.push_back("pass " + p.id + " moved to place " + std::to_string(found + 1));
    last = std::max(last, found);
  }
  for (std::size_t k = 0; k < to.size(); ++k)
    if (!used[k]) out.push_back("pass " + to[k].id + " added");
}

}  // namespace

std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b) {
  std::vector<std::string> out;
  compare_rules(a, b, out);
  compare_passes(a, b, out);
  if (const auto change = changed_keys(to_json_value(a.calibration), to_json_value(b.calibration)); !change.empty())
    out.push_back("calibration: " + change);
  return out;
}

Comparison compare(const Run& a, const Run& b) {
  Comparison c;
  c.a = a.id;
  c.b = b.id;
  c.top1_delta = top1_delta(a, b);
  c.perplexity_delta = perplexity_delta(a, b);
  c.bytes_delta = known_difference(a.bytes, b.bytes);
  c.bops_delta = known_difference(a.bops, b.bops);
  c.layers = layer_deltas(a, b);
  c.recipe_differences = recipe_differences(a.recipe, b.recipe);
  return c;
}

}  // namespace quanvas
