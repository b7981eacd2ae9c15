#include "plugins/exporters/packed_mend.h"

#include <algorithm>
#include <set>

namespace quanvas::weight_file {
namespace {

constexpr int kGroups[] = {256, 128, 64, 32, 16};  // what readers have kernels for, the largest first
constexpr int kByRow = -1;

// The largest size up to `most` that divides all of these.
int common_group(const std::vector<std::int64_t>& inputs, int most) {
  for (const int g : kGroups)
    if (g <= most && std::all_of(inputs.begin(), inputs.end(), [&](std::int64_t n) { return n % g == 0; })) return g;
  return kByRow;
}

QuantSpec with_group(QuantSpec spec, int group) {
  spec.axis.reset();
  spec.granularity = group == kByRow ? Granularity::kChannel : Granularity::kGroup;
  if (group != kByRow) spec.group_size = group;
  return spec;
}

bool takes(const TargetTable& table, const LinearLayer& l, const QuantSpec& spec) {
  return check(spec, SiteKind::kWeight).empty() && judge(table, l.node->op, SiteKind::kWeight, spec).row;
}

// Scales along another axis than that of the layer's outputs, or groups along another than its inputs.
bool is_askew(const LinearLayer& l, const QuantSpec& spec) {
  if (!spec.axis) return false;
  const int axis = *spec.axis + (*spec.axis < 0 ? 2 : 0);
  return (spec.granularity == Granularity::kChannel && axis != l.channel_axis) ||
         (spec.granularity == Granularity::kGroup && axis != l.reduction_axis);
}

bool divides(const LinearLayer& l, const QuantSpec& spec) {
  const int group = group_setting(l, spec);
  return group == kByRow || (group > 0 && l.in % group == 0);
}

}  // namespace

int group_setting(const LinearLayer& l, const QuantSpec& spec) {
  if (spec.granularity != Granularity::kGroup) return kByRow;
  return static_cast<int>(std::min<std::int64_t>(spec.group_size, l.in));
}

std::vector<std::optional<QuantSpec>> mended_layers(const std::vector<LinearLayer>& layers, const TargetTable& table,
                                                    const PackedLimits& limits) {
  std::vector<std::optional<QuantSpec>> out(layers.size());
  std::set<int> settings;
  std::vector<std::int64_t> inputs;
  bool all_divide = true;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LinearLayer& l = layers[i];
    if (!l.quantizer) continue;
    std::optional<QuantSpec> spec = l.quantizer->spec;
    if (const TargetVerdict verdict = judge(table, l.node->op, SiteKind::kWeight, *spec); !verdict.row) spec = verdict.fix;
    if (spec && limits.width && spec->format == "int") spec = limits.width(l, *spec);
    if (!spec) continue;
    if (is_askew(l, *spec)) spec->axis.reset();
    out[i] = spec;
    settings.insert(group_setting(l, *spec));
    inputs.push_back(l.in);
    all_divide = all_divide && divides(l, *spec);
  }
  const bool is_fine = all_divide && settings.size() <= 1;
  const int common = settings.empty() ? kByRow : common_group(inputs, *settings.rbegin());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!out[i]) continue;
    const int own = group_setting(layers[i], *out[i]);
    int wanted = divides(layers[i], *out[i]) ? own : common_group({layers[i].in}, own);
    if (limits.one_group && !is_fine) wanted = common;
    if (wanted != own) out[i] = with_group(*out[i], wanted);
    if (*out[i] != layers[i].quantizer->spec && !takes(table, layers[i], *out[i])) out[i].reset();
  }
  return out;
}

void add_fixes(const std::vector<LinearLayer>& layers, const std::vector<std::optional<QuantSpec>>& mended,
               std::vector<Refusal>& refusals) {
  for (Refusal& r : refusals) {
    if (!r.site || r.site->kind != SiteKind::kWeight) continue;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!layers[i].quantizer || layers[i].site != *r.site) continue;
      if (!mended[i])
        r.fix.reset();
      else if (*mended[i] != layers[i].quantizer->spec)
        r.fix = mended[i];
    }
  }
}

}  // namespace quanvas::weight_file
