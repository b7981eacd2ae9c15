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
  bool antialias = false;    // the kernel is as wide as what an output stands for
  double extrapolation = 0;  // beyond the crop of tf_crop_and_resize
};

struct AxisPlan {
  std::int64_t axis, in, out;
  double scale;
  double start = 0, end = 1;  // of the crop, in parts of the axis
};

double source_coordinate(const ResizeRule& rule, const AxisPlan& p, std::int64_t o) {
  const double x = static_cast<double>(o), n = static_cast<double>(p.out), last = static_cast<double>(p.in - 1);
  if (rule.coordinate == "asymmetric") return x / p.scale;
  if (rule.coordinate == "align_corners") return p.out <= 1 ? 0 : x * last / (n - 1);
  if (rule.coordinate == "pytorch_half_pixel") return p.out <= 1 ? 0 : (x + 0.5) / p.scale - 0.5;
  if (rule.coordinate == "tf_half_pixel_for_nn") return (x + 0.5) / p.scale;
  if (rule.coordinate == "half_pixel_symmetric") {
    const double middle = static_cast<double>(p.in) / 2, fitted = n / (p.scale * static_cast<double>(p.in));
    return middle * (1 - fitted) + (x + 0.5) / p.scale - 0.5;
  }
  if (rule.coordinate == "tf_crop_and_resize")
    return p.out <= 1 ? 0.5 * (p.start + p.end) * last : p.start * last + x * (p.end - p.start) * last / (n - 1);
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
  // The kernel reaches 1 (linear) or 2 (cubic) steps of the coarser of both grids.
  const double stretch = rule.antialias ? std::min(p.scale, 1.0) : 1.0;
  const double reach = rule.mode == "linear" ? 1 : 2;
  const auto first = static_cast<std::int64_t>(std::floor(-reach / stretch)) + 1;
  const std::size_t count = rule.mode == "nearest" ? 1 : static_cast<std::size_t>(2 - 2 * first);
  Taps taps{std::vector<Ints>(count), std::vector<std::vector<float>>(count)};
  for (std::int64_t o = 0; o < p.out; ++o) {
    const double x = source_coordinate(rule, p, o);
    if (rule.mode == "nearest") {
      add_tap(taps, 0, nearest_index(rule.nearest, x), 1, p.in);
      continue;
    }
    const double base = std::floor(x), t = x - base;
    std::vector<double> weights(count);
    double total = 0;
    for (std::size_t k = 0; k < count; ++k) {
      const std::int64_t step = first + static_cast<std::int64_t>(k), at = static_cast<std::int64_t>(base) + step;
      const double distance = (static_cast<double>(step) - t) * stretch;
      weights[k] =
          rule.mode == "linear" ? std::max(0.0, 1 - std::abs(distance)) : cubic_weight(distance, rule.cubic_a);
      if (rule.exclude_outside && (at < 0 || at >= p.in)) weights[k] = 0;
      total += weights[k];
    }
    const bool normalized = rule.exclude_outside || stretch < 1;
    for (std::size_t k = 0; k < count; ++k)
      add_tap(taps, k, static_cast<std::int64_t>(base) + first + static_cast<std::int64_t>(k),
              weights[k] / (normalized && total != 0 ? total : 1), p.in);
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
    if (rule.mode != "nearest") part = part * at::tensor(taps.weight[k], at::kFloat).to(x.device()).reshape(shape);
    y = y.defined() ? y + part : part;
  }
  if (rule.coordinate != "tf_crop_and_resize") return y;
  at::Tensor outside = at::zeros({p.out}, at::kBool);
  for (std::int64_t o = 0; o < p.out; ++o) {
    const double at_source = source_coordinate(rule, p, o);
    outside.data_ptr<bool>()[o] = at_source < 0 || at_source > static_cast<double>(p.in - 1);
  }
  return y.masked_fill(outside.reshape(shape).to(y.device()), rule.extrapolation);
}

// Sizes that keep the ratio of the data's: as large as fits into those asked for, or as small as covers them.
Ints kept_ratio(const at::Tensor& x, const Ints& sizes, const Ints& axes, bool not_larger, double& scale) {
  scale = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const double own =
        static_cast<double>(sizes[i]) / static_cast<double>(std::max<std::int64_t>(1, x.size(axes[i])));
    scale = i == 0 ? own : not_larger ? std::min(scale, own) : std::max(scale, own);
  }
  Ints out;
  for (const auto a : axes)
    out.push_back(static_cast<std::int64_t>(std::floor(scale * static_cast<double>(x.size(a)) + 0.5)));
  return out;
}

struct Target {
  std::vector<double> scales;  // or sizes
  Ints sizes, axes;
  std::vector<double> crop;  // starts and ends of the axes; may be empty
};

OpResult resize_to(const OpCall& call, const ResizeRule& rule, Target t) {
  at::Tensor y = call.x();
  const std::size_t n = t.axes.size();
  if ((t.sizes.empty() ? t.scales.size() : t.sizes.size()) != n)
    return bad_node("scales or sizes do not have one value per axis of " + sizes_text(y) + ".");
  if (rule.coordinate == "tf_crop_and_resize" && t.crop.size() != 2 * n)
    return bad_node("'roi' does not have two values per axis.");
  for (auto& a : t.axes) {
    QUANVAS_TRY(a, resolve_axis(a, y.dim()));
  }
  const std::string policy = call.node.text("keep_aspect_ratio_policy", "stretch");
  double kept = 0;
  const bool keeps = policy != "stretch" && !t.sizes.empty();
  if (keeps) t.sizes = kept_ratio(y, t.sizes, t.axes, policy == "not_larger", kept);
  const bool sized = !t.sizes.empty();
  for (std::size_t i = 0; i < n; ++i) {
    AxisPlan p{t.axes[i], y.size(t.axes[i]), 0, 1};
    // In float32, as the scales are: 7 * (11 / 7) is 11 there.
    p.out = sized
                ? t.sizes[i]
                : static_cast<std::int64_t>(std::floor(static_cast<float>(p.in) * static_cast<float>(t.scales[i])));
    p.scale = keeps ? kept : !sized ? t.scales[i] : static_cast<double>(p.out) / static_cast<double>(p.in);
    if (!t.crop.empty()) p.start = t.crop[i], p.end = t.crop[i + n];
    // The batch of the data, not the one in the file.
    const auto& declared = call.graph.tensor(call.node.inputs[0]).shape;
    if (sized && p.axis == 0 && declared && !declared->empty() && declared->front() == p.out) continue;
    if (p.in < 1 || p.out < 1 || p.out > (std::int64_t{1} << 24) || !(p.scale > 0))
      return bad_node("axis " + std::to_string(p.axis) + " would get size " + std::to_string(p.out) + ".");
    const bool whole = rule.coordinate != "tf_crop_and_resize" || (p.start == 0 && p.end == 1);
    if (p.out == p.in && p.scale == 1 && whole) continue;
    y = resize_axis(y, rule, p);
  }
  return one(y.to(call.x().scalar_type()));
}

Ints every_axis(const at::Tensor& x) {
  Ints axes(static_cast<std::size_t>(x.dim()));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

OpResult resize(const OpCall& call) {
  const bool old = call.opset() < 11;
  const Node& node = call.node;
  ResizeRule rule{node.text("mode", "nearest"),
                  node.text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
                  node.text("nearest_mode", old ? "floor" : "round_prefer_floor"),
                  node.real("cubic_coeff_a", -0.75f),
                  node.integer("exclude_outside", 0) != 0,
                  node.integer("antialias", 0) != 0,
                  node.real("extrapolation_value", 0)};
  const std::size_t scales_at = old ? 1 : 2;
  const bool sized = call.has(3) && call.x(3).numel() > 0;
  if (!sized && !(call.has(scales_at) && call.x(scales_at).numel() > 0))
    return bad_node("neither scales nor sizes are given.");
  Target t;
  t.axes = node.integers("axes", every_axis(call.x()));
  if (sized)
    t.sizes = int_values(call.x(3));
  else
    t.scales = real_values(call.x(scales_at));
  if (!old && call.has(1) && rule.coordinate == "tf_crop_and_resize") t.crop = real_values(call.x(1));
  return resize_to(call, rule, std::move(t));
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
  return resize_to(call, {mode, "asymmetric", "floor"}, {scales, {}, every_axis(call.x()), {}});
}

std::string refuse_resize(const Node& node) {
  const std::string mode = node.text("mode", "nearest"),
                    rule = node.text("coordinate_transformation_mode", "half_pixel");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") return "Resize with mode '" + mode + "'";
  for (const char* known : {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                            "tf_half_pixel_for_nn", "tf_crop_and_resize", "half_pixel_symmetric"})
    if (rule == known) return {};
  return "Resize with coordinate_transformation_mode '" + rule + "'";
}

}  // namespace

const std::vector<OpRow>& resize_ops() {
  static const std::vector<OpRow> rows = {{"Resize", 1, resize, refuse_resize}, {"Upsample", 1, upsample}};
  return rows;
}

}  // namespace quanvas::exec
