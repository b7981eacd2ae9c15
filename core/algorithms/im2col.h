// Quanvas - the columns that a convolution multiplies its weights with, made in tiles and never all at once.
#pragma once

#include <cstdint>
#include <vector>

namespace quanvas::algorithms {

// A convolution over any number of axes, channels first: x is [samples, groups * channels, size...].
struct ConvolutionShape {
  std::int64_t groups = 1;
  std::int64_t channels = 1;                   // of one group
  std::vector<std::int64_t> size, kernel;      // of the axes, >= 1
  std::vector<std::int64_t> stride, dilation;  // >= 1
  std::vector<std::int64_t> pad_begin, pad_end;

  // Inputs of one output: channels * kernel; columns of one sample: output positions, 0 when the kernel does not fit.
  std::int64_t inputs() const;
  std::int64_t positions() const;
  std::int64_t output_size(std::size_t axis) const;
};

// Columns [first, first + count) of one sample and group: out[input * stride + column], input = (channel * kernel +
// kernel position), zeros in the padding. x: the sample's group * channels ... planes, contiguous: that group's only.
// Reentrant. Cost: one write per element.
void im2col(const ConvolutionShape& shape, const float* x, std::int64_t first, std::int64_t count, float* out,
            std::int64_t stride);

}  // namespace quanvas::algorithms
