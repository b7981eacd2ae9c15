#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Interpolation is separable: each axis is a weighted sum of index_selects, for any rank and any coordinate rule.
struct ResizeRule {
  std::string mode;        // nearest, linear, cubic
  std::string coordinate;  // half_pixel ...
  std::string nearest;     // round_prefer_floor ...
  double cubic_a = -0.75;
  bool exclude_outside = false;
};

struct AxisPlan {
  std::int64_t axis, in, out;
  double scale;
};

double source_coordinate(const ResizeRule& rule, const AxisPlan& p, std::int64_t o) {
  const double x = static_cast<double>(o), n = static_cast<double>(p.out);
  if (rule.coordinate == "asymmetric") return x / p.scale;
  if (rule.coordinate == "align_corners") return p.out <= 1 ? 0 : x * static_cast<double>(p.in - 1) / (n - 1);
  if (rule.coordinate == "pytorch_half_pixel") return p.out <= 1 ? 0 : (x + 0.5) / p.scale - 0.5;
  return (x + 0.5) / p.scale - 0.5;
}

std::int64_t nearest_index(const std::string& rule, double x) {
  if (rule == "floor") return static_cast<std::int64_t>(std::floor(x));
  if (rule == "ceil") return static_cast<std::int64_t>(std::ceil(x));
  if (rule == "round_prefer_ceil") return static_cast<std::int64_t>(std::floor(x + 0.5));
  return static_cast<std::int64_t>(std::ceil(x - 0.5));
}

double cubic_weight(double t, double a) {  // Keys 1981
  t = std::abs(t);
  if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
  return 0;
}

// taps[k][o]: source index and weight of output o.
struct Taps {
  std::vector<Ints> index;
  std::vector<std::vector<float>> weight;
};

void add_tap(Taps& taps, std::size_t k, std::int64_t index, double weight, std::int64_t n) {
  taps.index[k].push_back(std::clamp<std::int64_t>(index, 0, n - 1));
  taps.weight[k].push_back(static_cast<float>(weight));
}

Taps make_taps(const ResizeRule& rule, const AxisPlan& p) {
  const std::size_t count = rule.mode == "nearest" ? 1 : rule.mode == "linear" ? 2 : 4;
  Taps taps{std::vector<Ints>(count), std::vector<std::vector<float>>(count)};
  for (std::int64_t o = 0; o < p.out; ++o) {
    double x = source_coordinate(rule, p, o);
    if (rule.mode == "nearest") {
      add_tap(taps, 0, nearest_index(rule.nearest, x), 1, p.in);
      continue;
    }
    if (rule.mode == "linear") x = std::clamp(x, 0.0, static_cast<double>(p.in - 1));
    const double base = std::floor(x), t = x - base;
    const auto first = static_cast<std::int64_t>(base);
    if (rule.mode == "linear") {
      add_tap(taps, 0, first, 1 - t, p.in);
      add_tap(taps, 1, first + 1, t, p.in);
      continue;
    }
    double weights[4], total = 0;
    for (int k = 0; k < 4; ++k) {
      const std::int64_t at = first - 1 + k;
      weights[k] = rule.exclude_outside && (at < 0 || at >= p.in) ? 0 : cubic_weight(t + 1 - k, rule.cubic_a);
      total += weights[k];
    }
    for (int k = 0; k < 4; ++k)
      add_tap(taps, static_cast<std::size_t>(k), first - 1 + k, weights[k] / (rule.exclude_outside ? total : 1), p.in);
  }
  return taps;
}

at::Tensor resize_axis(const at::Tensor& x, const ResizeRule& rule, const AxisPlan& p) {
  const Taps taps = make_taps(rule, p);
  at::Tensor y;
  Ints shape(static_cast<std::size_t>(x.dim()), 1);
  shape[static_cast<std::size_t>(p.axis)] = p.out;
  for (std::size_t k = 0; k < taps.index.size(); ++k) {
    at::Tensor part = x.index_select(p.axis, at::tensor(taps.index[k], at::kLong).to(x.device()));
    if (rule.mode == "nearest") return part;
    part = part * at::tensor(taps.weight[k], at::kFloat).to(x.device()).reshape(shape);
    y = y.defined() ? y + part : part;
  }
  return y;
}

std::vector<double> real_values(const at::Tensor& t) {
  const at::Tensor c = t.to(at::kCPU, at::kDouble).contiguous();
  const auto* p = c.data_ptr<double>();
  return {p, p + c.numel()};
}

OpResult resize_to(const OpCall& call, const ResizeRule& rule, const std::vector<double>& scales, const Ints& sizes,
                   const Ints& axes) {
  at::Tensor y = call.x();
  if ((sizes.empty() ? scales.size() : sizes.size()) != axes.size())
    return bad_node("scales or sizes do not have one value per axis of " + sizes_text(y) + ".");
  for (std::size_t i = 0; i < axes.size(); ++i) {
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(axes[i], y.dim()));
    AxisPlan p{axis, y.size(axis), 0, 1};
    p.out = sizes.empty() ? static_cast<std::int64_t>(std::floor(static_cast<double>(p.in) * scales[i])) : sizes[i];
    p.scale = sizes.empty() ? scales[i] : static_cast<double>(p.out) / static_cast<double>(p.in);
    // The batch of the data, not the one in the file.
    const auto& declared = call.graph.tensor(call.node.inputs[0]).shape;
    if (!sizes.empty() && axis == 0 && declared && !declared->empty() && declared->front() == p.out) continue;
    if (p.in < 1 || p.out < 1 || p.out > (std::int64_t{1} << 24)) return bad_node("axis " + std::to_string(axis) + " would get size " + std::to_string(p.out) + ".");
    if (p.out == p.in && p.scale == 1) continue;
    y = resize_axis(y, rule, p);
  }
  return one(y);
}

Ints every_axis(const at::Tensor& x) {
  Ints axes(static_cast<std::size_t>(x.dim()));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

OpResult resize(const OpCall& call) {
  const bool old = call.opset() < 11;
  const Node& node = call.node;
  ResizeRule rule{node.text("mode", "nearest"), node.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
                  node.text("nearest_mode", old ? "floor" : "round_prefer_floor"), node.real("cubic_coeff_a", -0.75f),
                  node.integer("exclude_outside", 0) != 0};
  const std::size_t scales_at = old ? 1 : 2;
  const bool sized = call.has(3) && call.x(3).numel() > 0;
  if (!sized && !(call.has(scales_at) && call.x(scales_at).numel() > 0)) return bad_node("neither scales nor sizes are given.");
  return resize_to(call, rule, sized ? std::vector<double>{} : real_values(call.x(scales_at)),
                   sized ? int_values(call.x(3)) : Ints{}, node.integers("axes", every_axis(call.x())));
}

OpResult upsample(const OpCall& call) {
  std::string mode = call.node.text("mode", "nearest");
  if (mode == "bilinear") mode = "linear";
  std::vector<double> scales;
  if (call.has(1)) {
    scales = real_values(call.x(1));
  } else if (const auto it = call.node.attributes.find("scales"); it != call.node.attributes.end()) {
    if (const auto* v = std::get_if<std::vector<float>>(&it->second)) scales.assign(v->begin(), v->end());
  } else {
    scales = {1, 1, call.node.real("height_scale", 1), call.node.real("width_scale", 1)};
  }
  return resize_to(call, {mode, "asymmetric", "floor"}, scales, {}, every_axis(call.x()));
}

std::string refuse_resize(const Node& node) {
  const std::string mode = node.text("mode", "nearest"), rule = node.text("coordinate_transformation_mode", "half_pixel");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") return "Resize with mode '" + mode + "'";
  if (rule != "half_pixel" && rule != "asymmetric" && rule != "align_corners" && rule != "pytorch_half_pixel")
    return "Resize with coordinate_transformation_mode '" + rule + "'";
  if (node.integer("antialias", 0)) return "Resize with antialias";
  if (node.text("keep_aspect_ratio_policy", "stretch") != "stretch") return "Resize that keeps the aspect ratio";
  return {};
}

}  // namespace

const std::vector<OpRow>& resize_ops() {
  static const std::vector<OpRow> rows = {{"Resize", 1, resize, refuse_resize}, {"Upsample", 1, upsample}};
  return rows;
}

}  // namespace quanvas::exec
