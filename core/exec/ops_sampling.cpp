// Grids, and operators that put elements at computed places.
#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

std::int64_t grid_mode(const std::string& mode) {
  if (mode == "nearest") return 1;
  return mode == "bicubic" || mode == "cubic" ? 2 : 0;
}

OpResult grid_sample(const OpCall& call) {
  const std::string mode = call.node.text("mode", "bilinear"), padding = call.node.text("padding_mode", "zeros");
  const std::int64_t pad = padding == "border" ? 1 : padding == "reflection" ? 2 : 0;
  const bool align = call.node.integer("align_corners", 0) != 0;
  const at::Tensor &x = call.x(), grid = call.x(1).to(x.scalar_type());
  if (x.dim() != 4 && x.dim() != 5)
    return bad_node("the input is " + sizes_text(x) + ", expected 2 or 3 spatial axes.");
  if (x.dim() == 5 && grid_mode(mode) == 2)
    return bad_node("cubic interpolation is there for pictures only, the input is " + sizes_text(x) + ".");
  return one(at::grid_sampler(x, grid, grid_mode(mode), pad, align));
}
std::string refuse_grid(const Node& node) {
  const std::string mode = node.text("mode", "bilinear"), padding = node.text("padding_mode", "zeros");
  for (const char* known : {"bilinear", "linear", "nearest", "bicubic", "cubic"})
    if (mode == known)
      return padding == "zeros" || padding == "border" || padding == "reflection"
                 ? std::string()
                 : "its padding_mode is '" + padding + "'";
  return "its mode is '" + mode + "'";
}

OpResult affine_grid(const OpCall& call) {
  const Ints size = int_values(call.x(1));
  QUANVAS_CHECK(check_sizes(size));
  return one(at::affine_grid_generator(call.x(), size, call.node.integer("align_corners", 0) != 0));
}

// Indices count over the whole tensor that was pooled; a larger output_shape adds zeros at the ends.
OpResult max_unpool(const OpCall& call) {
  const at::Tensor& x = call.x();
  const Ints kernel = call.node.integers("kernel_shape");
  const std::size_t rank = kernel.size();
  if (rank == 0 || x.dim() != static_cast<std::int64_t>(rank) + 2 || x.sizes() != call.x(1).sizes())
    return bad_node("input " + sizes_text(x) + ", indices " + sizes_text(call.x(1)) +
                    " and 'kernel_shape' do not fit together.");
  const Ints stride = call.node.integers("strides", Ints(rank, 1)),
             pads = call.node.integers("pads", Ints(2 * rank, 0));
  if (stride.size() != rank || pads.size() != 2 * rank) return bad_node("'strides' or 'pads' have a wrong length.");
  Ints sizes = {x.size(0), x.size(1)};
  for (std::size_t i = 0; i < rank; ++i)
    sizes.push_back((x.size(static_cast<std::int64_t>(i) + 2) - 1) * stride[i] - pads[i] - pads[i + rank] +
                    kernel[i]);
  QUANVAS_CHECK(check_sizes(sizes));
  at::Tensor y = at::zeros(sizes, x.options());
  const at::Tensor index = call.x(1).to(at::kLong).reshape({-1});
  if (index.numel() > 0 && (index.min().item().toLong() < 0 || index.max().item().toLong() >= y.numel()))
    return bad_node("an index lies outside the result " + sizes_text(y) + ".");
  y = y.reshape({-1}).scatter(0, index, x.reshape({-1})).reshape(sizes);
  if (!call.has(2)) return one(y);
  const Ints target = int_values(call.x(2));
  QUANVAS_CHECK(check_sizes(target));
  if (target.size() != sizes.size())
    return bad_node("'output_shape' has " + std::to_string(target.size()) + " values.");
  Ints begin(sizes.size(), 0), end;
  for (std::size_t i = 0; i < sizes.size(); ++i) end.push_back(target[i] - sizes[i]);
  return one(pad_spatial(y, begin, end, 0));
}

// Sums the columns of blocks back into the picture they were cut from; any number of spatial axes.
OpResult col2im(const OpCall& call) {
  const at::Tensor& x = call.x();
  const Ints image = int_values(call.x(1)), block = int_values(call.x(2));
  const std::size_t rank = image.size();
  const Ints dilation = call.node.integers("dilations", Ints(rank, 1)),
             stride = call.node.integers("strides", Ints(rank, 1));
  const Ints pads = call.node.integers("pads", Ints(2 * rank, 0));
  if (rank == 0 || block.size() != rank || dilation.size() != rank || stride.size() != rank ||
      pads.size() != 2 * rank || x.dim() != 3)
    return bad_node("its input must have rank 3 and its lists one entry per axis of the picture.");
  QUANVAS_CHECK(check_sizes(image));
  QUANVAS_CHECK(check_sizes(block));
  // Place of every (tap, block) in the padded picture, axis by axis.
  at::Tensor place = at::zeros({1, 1}, at::kLong);
  Ints padded;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::int64_t whole = image[i] + pads[i] + pads[i + rank], reach = (block[i] - 1) * dilation[i] + 1;
    if (stride[i] < 1 || dilation[i] < 1 || block[i] < 1 || whole < reach)
      return bad_node("a block does not fit the picture.");
    const std::int64_t blocks = (whole - reach) / stride[i] + 1;
    const at::Tensor own =
        at::arange(block[i], at::kLong).unsqueeze(1) * dilation[i] + at::arange(blocks, at::kLong) * stride[i];
    const std::int64_t taps = place.size(0) * block[i], count = place.size(1) * blocks;
    place = (place.unsqueeze(1).unsqueeze(3) * whole + own.unsqueeze(0).unsqueeze(2)).reshape({taps, count});
    padded.push_back(whole);
  }
  if (x.size(2) != place.size(1) || x.size(1) % place.size(0) != 0)
    return bad_node("columns " + sizes_text(x) + " do not fit " + std::to_string(place.size(0)) + " taps and " +
                    std::to_string(place.size(1)) + " blocks.");
  const std::int64_t channels = x.size(1) / place.size(0);
  at::Tensor y = at::zeros({x.size(0) * channels, element_count(padded)}, x.options());
  y = y.index_add(1, place.reshape({-1}), x.reshape({x.size(0) * channels, -1}));
  Ints sizes = {x.size(0), channels}, begin, end;
  sizes.insert(sizes.end(), padded.begin(), padded.end());
  for (std::size_t i = 0; i < rank; ++i) {
    begin.push_back(-pads[i]);
    end.push_back(-pads[i + rank]);
  }
  return one(pad_spatial(y.reshape(sizes), begin, end, 0));
}

OpResult center_crop_pad(const OpCall& call) {
  at::Tensor y = call.x();
  const Ints target = int_values(call.x(1));
  Ints axes = call.node.integers("axes");
  if (axes.empty())
    for (std::int64_t i = 0; i < y.dim(); ++i) axes.push_back(i);
  if (axes.size() != target.size())
    return bad_node("'shape' has " + std::to_string(target.size()) + " values for " + std::to_string(axes.size()) +
                    " axes.");
  QUANVAS_CHECK(check_sizes(target));
  Ints begin(static_cast<std::size_t>(y.dim()), 0), end = begin;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(axes[i], y.dim()));
    const std::int64_t more = target[i] - y.size(axis);
    const std::int64_t first = more >= 0 ? more / 2 : -((-more) / 2);
    begin[static_cast<std::size_t>(axis)] = first;
    end[static_cast<std::size_t>(axis)] = more - first;
  }
  return one(pad_spatial(y, begin, end, 0));
}

// Writes `update` into the cache along an axis, per batch entry at its own place.
OpResult tensor_scatter(const OpCall& call) {
  const at::Tensor &cache = call.x(0), update = call.x(1);
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -2), cache.dim()));
  const bool circular = call.node.text("mode", "linear") == "circular";
  if (axis == 0 || update.dim() != cache.dim())
    return bad_node("the batch axis cannot be written along, and both tensors need one rank.");
  const std::int64_t batch = cache.size(0), n = cache.size(axis), count = update.size(axis);
  const Ints at_batch = call.has(2) ? int_values(call.x(2)) : Ints(static_cast<std::size_t>(batch), 0);
  if (static_cast<std::int64_t>(at_batch.size()) != batch)
    return bad_node("'write_indices' must have one entry per batch entry.");
  at::Tensor y = cache.clone();
  for (std::int64_t b = 0; b < batch; ++b) {
    at::Tensor index = at::arange(count, at::kLong) + at_batch[static_cast<std::size_t>(b)];
    if (circular) index = index.remainder(std::max<std::int64_t>(n, 1));
    if (count > 0 && (index.min().item().toLong() < 0 || index.max().item().toLong() >= n))
      return bad_node("a place to write to lies outside the cache of " + std::to_string(n) + ".");
    y.select(0, b).index_copy_(axis - 1, index.to(y.device()), update.select(0, b));
  }
  return one(y);
}

}  // namespace

const std::vector<OpRow>& sampling_ops() {
  static const std::vector<OpRow> rows = {{"GridSample", 2, grid_sample, refuse_grid},
                                          {"AffineGrid", 2, affine_grid},
                                          {"MaxUnpool", 2, max_unpool},
                                          {"Col2Im", 3, col2im},
                                          {"CenterCropPad", 2, center_crop_pad},
                                          {"TensorScatter", 2, tensor_scatter}};
  return rows;
}

}  // namespace quanvas::exec
