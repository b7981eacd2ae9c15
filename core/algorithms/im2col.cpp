#include "core/algorithms/im2col.h"

#include <algorithm>

namespace quanvas::algorithms {

std::int64_t ConvolutionShape::inputs() const {
  std::int64_t n = channels;
  for (const std::int64_t k : kernel) n *= k;
  return n;
}

std::int64_t ConvolutionShape::output_size(std::size_t axis) const {
  const std::int64_t room = size[axis] + pad_begin[axis] + pad_end[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
  return room < 0 ? 0 : room / stride[axis] + 1;
}

std::int64_t ConvolutionShape::positions() const {
  std::int64_t n = 1;
  for (std::size_t a = 0; a < size.size(); ++a) n *= output_size(a);
  return n;
}

void im2col(const ConvolutionShape& shape, const float* x, std::int64_t first, std::int64_t count, float* out,
            std::int64_t stride) {
  const std::size_t axes = shape.size.size(), last = axes - 1;
  std::int64_t plane = 1, taps = 1;
  for (std::size_t a = 0; a < axes; ++a) plane *= shape.size[a], taps *= shape.kernel[a];
  const std::int64_t width = shape.output_size(last);
  std::vector<std::int64_t> tap(axes), place(axes);
  for (std::int64_t input = 0; input < shape.inputs(); ++input) {
    const float* channel = x + input / taps * plane;
    for (std::int64_t rest = input % taps, a = static_cast<std::int64_t>(last); a >= 0; --a) {
      tap[static_cast<std::size_t>(a)] = rest % shape.kernel[static_cast<std::size_t>(a)];
      rest /= shape.kernel[static_cast<std::size_t>(a)];
    }
    float* to = out + input * stride;
    // Runs along the last axis of the output.
    for (std::int64_t c = first; c < first + count;) {
      const std::int64_t begin = c % width, run = std::min(width - begin, first + count - c);
      std::int64_t offset = 0, scale = 1;
      bool inside = true;
      std::int64_t rest = c / width;
      for (std::int64_t a = static_cast<std::int64_t>(last) - 1; a >= 0; --a) {
        const auto i = static_cast<std::size_t>(a);
        place[i] = rest % shape.output_size(i) * shape.stride[i] - shape.pad_begin[i] + tap[i] * shape.dilation[i];
        rest /= shape.output_size(i);
        inside &= place[i] >= 0 && place[i] < shape.size[i];
      }
      for (std::int64_t a = static_cast<std::int64_t>(last); a >= 0; --a) {
        const auto i = static_cast<std::size_t>(a);
        if (i != last) offset += place[i] * scale;
        scale *= shape.size[i];
      }
      const std::int64_t start = tap[last] * shape.dilation[last] - shape.pad_begin[last];
      // The part of the run that lies inside the input.
      const std::int64_t step = shape.stride[last], size = shape.size[last];
      const auto reach = [&](std::int64_t v) { return v <= 0 ? 0 : (v + step - 1) / step; };  // least k >= 0, k step >= v
      const std::int64_t from = inside ? std::clamp<std::int64_t>(reach(-start) - begin, 0, run) : run;
      const std::int64_t until = inside ? std::clamp<std::int64_t>(reach(size - start) - begin, from, run) : run;
      float* out_run = to + (c - first);
      std::fill(out_run, out_run + from, 0.0f);
      const float* in = channel + offset + (begin + from) * step + start;
      if (step == 1)
        std::copy(in, in + (until - from), out_run + from);
      else
        for (std::int64_t i = 0; i < until - from; ++i) out_run[from + i] = in[i * step];
      std::fill(out_run + until, out_run + run, 0.0f);
      c += run;
    }
  }
}

}  // namespace quanvas::algorithms
