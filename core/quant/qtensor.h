// Quanvas - a quantized tensor: integer codes with what they stand for, and the arithmetic that keeps it exact. Torch-free.
//
// Every operation gives a tensor whose values are exactly what the operation on the operands' real values gives, or says
// why there is none with one scale per block: nothing is rounded again. Real value of a code q: (q - z) * s.
#pragma once

#include <cstdint>
#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant {

class QTensor {
 public:
  // x quantized.
  static Result<QTensor> quantize(const QuantParams& params, const Shape& shape, const float* x);
  // Values that are on the grid of params already, as a file or a network gives them: refused with the first that is
  // not (index, value, nearest grid point).
  static Result<QTensor> from_values(const QuantParams& params, const Shape& shape, const std::vector<float>& values);
  // Codes as they are stored; refused when one is out of range.
  static Result<QTensor> from_codes(const QuantParams& params, const Shape& shape, std::vector<std::int32_t> codes);
  // Dense codes, LSB first, of code_bits() bits each (core/quant/packing.h); a binary code is 1 for the positive value.
  static Result<QTensor> from_packed(const QuantParams& params, const Shape& shape, const std::vector<std::uint8_t>& bytes);

  const Shape& shape() const { return shape_; }
  const QuantParams& params() const { return params_; }
  const BlockLayout& layout() const { return layout_; }
  const std::vector<std::int32_t>& codes() const { return codes_; }  // row-major; unsigned 32-bit codes by their bits
  bool is_signed() const { return params_.lo < 0; }
  int bits() const { return code_bits(params_.spec); }
  std::vector<float> values() const;
  std::vector<std::uint8_t> packed() const;
  // Empty when the tensor is consistent: sizes, finite scales other than 0, whole zero points of an integer zero point
  // type, codes in range; else the sentence that says what is not. What the functions here return always is.
  std::string problem() const;

  // Integers with the same scales: codes and zero points are added, one bit more. Other formats and scales: refused.
  Result<QTensor> add(const QTensor& other) const;
  // Integers, `other` with one scale: codes without zero points are multiplied, scales too (float32 product), zero point
  // 0; refused beyond 32 bits.
  Result<QTensor> multiply(const QTensor& other) const;
  Result<QTensor> negate() const;
  Result<QTensor> relu() const;
  // Along an axis, both with the same one scale and zero point; the same codes.
  Result<QTensor> concat(const QTensor& other, int axis) const;
  Result<QTensor> reshape(const Shape& shape) const;  // tensors with one scale

 private:
  QTensor(QuantParams params, BlockLayout layout, Shape shape, std::vector<std::int32_t> codes)
      : params_(std::move(params)), layout_(layout), shape_(std::move(shape)), codes_(std::move(codes)) {}
  QTensor with_codes(const std::vector<std::int64_t>& codes, QuantParams params) const;
  float zero_at(std::int64_t element) const;
  std::size_t parameter(std::int64_t element) const;

  QuantParams params_;
  BlockLayout layout_;
  Shape shape_;
  std::vector<std::int32_t> codes_;
};

}  // namespace quanvas::quant
