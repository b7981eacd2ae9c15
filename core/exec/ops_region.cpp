// Boxes and regions of interest, and convolution at displaced places.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

struct Box {
  float y1, x1, y2, x2;
  float area() const { return (y2 - y1) * (x2 - x1); }
};

Box box_of(const float* p, bool center) {
  if (center) return {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2};
  return {std::min(p[0], p[2]), std::min(p[1], p[3]), std::max(p[0], p[2]), std::max(p[1], p[3])};
}

float overlap(const Box& a, const Box& b) {
  const float h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1), w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (h <= 0 || w <= 0 || a.area() <= 0 || b.area() <= 0) return 0;
  return h * w / (a.area() + b.area() - h * w);
}

OpResult suppress(const OpCall& call) {
  const at::Tensor boxes = call.x(0).to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor scores = call.x(1).to(at::kCPU, at::kFloat).contiguous();
  if (boxes.dim() != 3 || scores.dim() != 3 || boxes.size(2) != 4 || boxes.size(0) != scores.size(0) ||
      boxes.size(1) != scores.size(2))
    return bad_node("boxes " + sizes_text(boxes) + " and scores " + sizes_text(scores) + " do not fit together.");
  std::int64_t most = 0;
  double iou = 0, least = -std::numeric_limits<double>::infinity();
  if (call.has(2)) {
    QUANVAS_TRY(most, one_integer(call.x(2), "max_output_boxes_per_class"));
  }
  if (call.has(3)) {
    QUANVAS_TRY(iou, one_real(call.x(3), "iou_threshold"));
  }
  if (call.has(4)) {
    QUANVAS_TRY(least, one_real(call.x(4), "score_threshold"));
  }
  const bool center = call.node.integer("center_point_box", 0) != 0;
  const std::int64_t n = boxes.size(1);
  Ints found;
  for (std::int64_t b = 0; b < boxes.size(0); ++b) {
    std::vector<Box> all;
    for (std::int64_t i = 0; i < n; ++i) all.push_back(box_of(boxes.data_ptr<float>() + (b * n + i) * 4, center));
    for (std::int64_t c = 0; c < scores.size(1); ++c) {
      const float* s = scores.data_ptr<float>() + (b * scores.size(1) + c) * n;
      Ints order;
      for (std::int64_t i = 0; i < n; ++i)
        if (static_cast<double>(s[i]) > least) order.push_back(i);
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) { return s[i] > s[j]; });
      Ints kept;
      for (const std::int64_t i : order) {
        if (static_cast<std::int64_t>(kept.size()) >= most) break;
        const bool hidden = std::any_of(kept.begin(), kept.end(), [&](std::int64_t k) {
          return overlap(all[static_cast<std::size_t>(k)], all[static_cast<std::size_t>(i)]) >
                 static_cast<float>(iou);
        });
        if (!hidden) kept.push_back(i);
      }
      for (const std::int64_t i : kept) found.insert(found.end(), {b, c, i});
    }
  }
  return one(at::tensor(found, at::kLong).reshape({-1, 3}));
}

// Weights of the four neighbours of a point; all zero outside.
struct Corners {
  std::int64_t at[4] = {0, 0, 0, 0};
  float weight[4] = {0, 0, 0, 0};
};

// Points up to one step outside count as on the border.
Corners border_corners(float y, float x, std::int64_t h, std::int64_t w) {
  Corners c;
  if (!(y >= -1 && y <= static_cast<float>(h) && x >= -1 && x <= static_cast<float>(w))) return c;
  const auto place = [](float& v, std::int64_t n, std::int64_t& low, std::int64_t& high) {
    v = std::max(v, 0.0f);
    low = static_cast<std::int64_t>(v);
    if (low >= n - 1) v = static_cast<float>(low = n - 1);
    high = std::min(low + 1, n - 1);
  };
  std::int64_t y0, y1, x0, x1;
  place(y, h, y0, y1);
  place(x, w, x0, x1);
  const float ly = y - static_cast<float>(y0), lx = x - static_cast<float>(x0);
  const std::int64_t at[] = {y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1};
  const float weight[] = {(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx};
  std::copy_n(at, 4, c.at);
  std::copy_n(weight, 4, c.weight);
  return c;
}

// Zero outside the picture.
Corners zero_corners(float y, float x, std::int64_t h, std::int64_t w) {
  Corners c;
  if (!(y > -1 && y < static_cast<float>(h) && x > -1 && x < static_cast<float>(w))) return c;
  const auto y0 = static_cast<std::int64_t>(std::floor(y)), x0 = static_cast<std::int64_t>(std::floor(x));
  const float ly = y - static_cast<float>(y0), lx = x - static_cast<float>(x0);
  for (int k = 0; k < 4; ++k) {
    const std::int64_t yy = y0 + k / 2, xx = x0 + k % 2;
    if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
    c.at[k] = yy * w + xx;
    c.weight[k] = (k / 2 ? ly : 1 - ly) * (k % 2 ? lx : 1 - lx);
  }
  return c;
}

Result<at::Tensor> picture(const OpCall& call) {
  if (call.x().dim() != 4) return bad_node("the input is " + sizes_text(call.x()) + ", expected rank 4.");
  if (call.x().numel() == 0) return bad_node("the input is empty.");
  return call.x().to(at::kCPU, at::kFloat).contiguous();
}

// Region align (He et al. 2017). The largest of the weighted neighbours in mode "max", as the standard's own
// implementation has it.
OpResult roi_align(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor x, picture(call));
  const at::Tensor rois = call.x(1).to(at::kCPU, at::kFloat).contiguous();
  const Ints batch = int_values(call.x(2));
  const std::string mode = call.node.text("mode", "avg");
  const std::string rule =
      call.node.text("coordinate_transformation_mode", call.opset() < 16 ? "output_half_pixel" : "half_pixel");
  const bool half = rule == "half_pixel";
  const std::int64_t oh = call.node.integer("output_height", 1), ow = call.node.integer("output_width", 1);
  const std::int64_t ratio = call.node.integer("sampling_ratio", 0);
  const float scale = call.node.real("spatial_scale", 1);
  if (rois.dim() != 2 || rois.size(1) != 4 || static_cast<std::int64_t>(batch.size()) != rois.size(0))
    return bad_node("regions " + sizes_text(rois) + " do not fit " + std::to_string(batch.size()) +
                    " batch indices.");
  if (oh < 1 || ow < 1 || ratio < 0 || ratio > 1024)
    return bad_node("its output size or sampling ratio makes no sense.");
  QUANVAS_CHECK(check_sizes({rois.size(0), x.size(1), oh, ow}));
  const std::int64_t channels = x.size(1), h = x.size(2), w = x.size(3);
  at::Tensor y = at::zeros({rois.size(0), channels, oh, ow}, at::kFloat);
  float* out = y.data_ptr<float>();
  for (std::int64_t r = 0; r < rois.size(0); ++r) {
    const std::int64_t b = batch[static_cast<std::size_t>(r)];
    if (b < 0 || b >= x.size(0)) return bad_node("a batch index is " + std::to_string(b) + ".");
    const float* roi = rois.data_ptr<float>() + r * 4;
    const float shift = half ? 0.5f : 0.0f;
    const float x0 = roi[0] * scale - shift, y0 = roi[1] * scale - shift;
    float rw = roi[2] * scale - shift - x0, rh = roi[3] * scale - shift - y0;
    if (!half) rw = std::max(rw, 1.0f), rh = std::max(rh, 1.0f);
    const float bh = rh / static_cast<float>(oh), bw = rw / static_cast<float>(ow);
    const auto samples = [&](float bin) {
      return ratio > 0 ? ratio : static_cast<std::int64_t>(std::clamp(std::ceil(bin), 0.0f, 4096.0f));
    };
    const std::int64_t gh = samples(bh), gw = samples(bw);
    for (std::int64_t cell = 0; cell < oh * ow; ++cell) {
      std::vector<Corners> points;
      for (std::int64_t i = 0; i < gh * gw; ++i) {
        const float sy = y0 + static_cast<float>(cell / ow) * bh +
                         (static_cast<float>(i / gw) + 0.5f) * bh / static_cast<float>(gh);
        const float sx = x0 + static_cast<float>(cell % ow) * bw +
                         (static_cast<float>(i % gw) + 0.5f) * bw / static_cast<float>(gw);
        points.push_back(border_corners(sy, sx, h, w));
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const float* plane = x.data_ptr<float>() + (b * channels + c) * h * w;
        float sum = 0, most = points.empty() ? 0 : -std::numeric_limits<float>::infinity();
        for (const Corners& p : points)
          for (int k = 0; k < 4; ++k) {
            const float v = p.weight[k] * plane[p.at[k]];
            sum += v;
            most = std::max(most, v);
          }
        out[(r * channels + c) * oh * ow + cell] =
            mode == "max" ? most : sum / static_cast<float>(std::max<std::int64_t>(1, gh * gw));
      }
    }
  }
  return one(y);
}

// Region pooling (Girshick 2015): regions are rounded to whole cells and cut into bins.
OpResult max_roi_pool(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor x, picture(call));
  const at::Tensor rois = call.x(1).to(at::kCPU, at::kFloat).contiguous();
  const Ints pooled = call.node.integers("pooled_shape");
  const float scale = call.node.real("spatial_scale", 1);
  if (rois.dim() != 2 || rois.size(1) != 5 || pooled.size() != 2 || pooled[0] < 1 || pooled[1] < 1)
    return bad_node("regions " + sizes_text(rois) +
                    " must have 5 numbers each, and 'pooled_shape' two positive ones.");
  QUANVAS_CHECK(check_sizes({rois.size(0), x.size(1), pooled[0], pooled[1]}));
  const std::int64_t h = x.size(2), w = x.size(3);
  at::Tensor y = at::zeros({rois.size(0), x.size(1), pooled[0], pooled[1]}, at::kFloat);
  for (std::int64_t r = 0; r < rois.size(0); ++r) {
    const float* roi = rois.data_ptr<float>() + r * 5;
    const auto whole = [&](float v) {
      return static_cast<std::int64_t>(std::round(std::clamp(v * scale, -1e6f, 1e6f)));
    };
    const auto b = static_cast<std::int64_t>(roi[0]);
    if (!(roi[0] >= 0) || b >= x.size(0)) return bad_node("a batch index is " + std::to_string(roi[0]) + ".");
    const std::int64_t x0 = whole(roi[1]), y0 = whole(roi[2]);
    const std::int64_t rw = std::max<std::int64_t>(whole(roi[3]) - x0 + 1, 1),
                       rh = std::max<std::int64_t>(whole(roi[4]) - y0 + 1, 1);
    for (std::int64_t cell = 0; cell < pooled[0] * pooled[1]; ++cell) {
      const auto edge = [](std::int64_t k, std::int64_t n, std::int64_t size, std::int64_t start,
                           std::int64_t limit, bool end) {
        const double v =
            static_cast<double>(k + (end ? 1 : 0)) * static_cast<double>(size) / static_cast<double>(n);
        return std::clamp<std::int64_t>(static_cast<std::int64_t>(end ? std::ceil(v) : std::floor(v)) + start, 0,
                                        limit);
      };
      const std::int64_t i = cell / pooled[1], j = cell % pooled[1];
      const std::int64_t top = edge(i, pooled[0], rh, y0, h, false), bottom = edge(i, pooled[0], rh, y0, h, true);
      const std::int64_t left = edge(j, pooled[1], rw, x0, w, false), right = edge(j, pooled[1], rw, x0, w, true);
      if (bottom <= top || right <= left) continue;
      const at::Tensor part = x.select(0, b).slice(1, top, bottom).slice(2, left, right);
      y.select(0, r).select(1, i).select(1, j).copy_(at::amax(part, {1, 2}));
    }
  }
  return one(y);
}

// Deformable convolution (Dai et al. 2017, with masks: Zhu et al. 2019) of pictures.
OpResult deform_conv(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor x, picture(call));
  const at::Tensor w = call.x(1).to(at::kCPU, at::kFloat), offset = call.x(2).to(at::kCPU, at::kFloat).contiguous();
  if (w.dim() != 4 || offset.dim() != 4) return bad_node("weight and offset must have rank 4.");
  QUANVAS_TRY(const Window win, window_of(call, w.sizes().slice(2).vec()));
  const std::int64_t n = x.size(0), c = x.size(1), h = x.size(2), wd = x.size(3), kh = win.kernel[0],
                     kw = win.kernel[1];
  const std::int64_t groups = call.node.integer("group", 1), parts = call.node.integer("offset_group", 1);
  const std::int64_t oh = offset.size(2), ow = offset.size(3), taps = kh * kw;
  if (parts < 1 || groups < 1 || c % parts != 0 || c % groups != 0 || w.size(0) % groups != 0 ||
      w.size(1) != c / groups)
    return bad_node("its groups do not divide the channels.");
  const at::Tensor mask =
      call.has(4) ? call.x(4).to(at::kCPU, at::kFloat).contiguous() : at::ones({n, parts * taps, oh, ow});
  const Ints offset_sizes = {n, parts * taps * 2, oh, ow}, mask_sizes = {n, parts * taps, oh, ow};
  if (offset.sizes() != at::IntArrayRef(offset_sizes) || mask.sizes() != at::IntArrayRef(mask_sizes))
    return bad_node("offset or mask do not fit the kernel and the offset groups.");
  at::Tensor columns = at::zeros({n, c, taps, oh * ow}, at::kFloat);
  const float *px = x.data_ptr<float>(), *po = offset.data_ptr<float>(), *pm = mask.data_ptr<float>();
  float* out = columns.data_ptr<float>();
  const std::int64_t per = c / parts, cells = oh * ow;
  for (std::int64_t b = 0; b < n; ++b)
    for (std::int64_t g = 0; g < parts; ++g)
      for (std::int64_t k = 0; k < taps; ++k)
        for (std::int64_t i = 0; i < cells; ++i) {
          const std::int64_t o = ((b * parts + g) * taps + k) * cells + i;
          const std::int64_t at_offset = (((b * parts + g) * taps + k) * 2) * cells + i;
          const float y = static_cast<float>((i / ow) * win.stride[0] - win.begin[0] + (k / kw) * win.dilation[0]) +
                          po[at_offset];
          const float xx =
              static_cast<float>((i % ow) * win.stride[1] - win.begin[1] + (k % kw) * win.dilation[1]) +
              po[at_offset + cells];
          const Corners p = zero_corners(y, xx, h, wd);
          for (std::int64_t ch = g * per; ch < (g + 1) * per; ++ch) {
            const float* plane = px + (b * c + ch) * h * wd;
            float v = 0;
            for (int q = 0; q < 4; ++q) v += p.weight[q] * plane[p.at[q]];
            out[((b * c + ch) * taps + k) * cells + i] = v * pm[o];
          }
        }
  at::Tensor y =
      at::matmul(w.reshape({1, groups, w.size(0) / groups, -1}), columns.reshape({n, groups, -1, cells}));
  y = y.reshape({n, w.size(0), oh, ow});
  if (call.has(3)) y = y + call.x(3).reshape({1, -1, 1, 1});
  return one(y);
}

std::string refuse_roi(const Node& node) {
  const std::string mode = node.text("mode", "avg");
  return mode == "avg" || mode == "max" ? std::string() : "its mode is '" + mode + "'";
}

}  // namespace

const std::vector<OpRow>& region_ops() {
  static const std::vector<OpRow> rows = {{"NonMaxSuppression", 2, suppress},
                                          {"RoiAlign", 3, roi_align, refuse_roi},
                                          {"MaxRoiPool", 2, max_roi_pool},
                                          {"DeformConv", 3, deform_conv}};
  return rows;
}

}  // namespace quanvas::exec
