// Quanvas - a frozen quantizer of a weight, applied to pieces of columns of the weight seen as a matrix: what
// algorithms need that round one input after another. The values are those of fake_quantize(), bit for bit.
#pragma once

#include <cstdint>
#include <vector>

#include "core/quant/kernels.h"
#include "core/quant/params.h"

namespace quanvas::quant {

// Where element (r, c) of a matrix lies in a tensor: offset + r * row_stride + c * column_stride. Each dimension of the
// tensor belongs to the rows, to the columns or to the offset.
struct MatrixView {
  std::int64_t rows = 0, columns = 0;
  std::int64_t offset = 0, row_stride = 0, column_stride = 1;
  std::int64_t element(std::int64_t r, std::int64_t c) const { return offset + r * row_stride + c * column_stride; }
};

// The parameter of the element at a flat index; see BlockLayout.
std::int64_t parameter_of(const BlockLayout& layout, std::int64_t element);

// Immutable after create(); fake() may be called from several threads at once.
class ColumnQuantizer {
 public:
  // Copies what it needs of `params`, at most one float per row and kind of parameter for each group of columns.
  // kUnsupported: learned rounding, whose parameters belong to the weights that they were trained with.
  // kInvalidArgument: the view does not lie in params.layout.
  static Result<ColumnQuantizer> create(const QuantParams& params, const MatrixView& view);

  std::int64_t rows() const { return view_.rows; }
  std::int64_t columns() const { return view_.columns; }
  // y[i] = dequantize(quantize(x[i])) as element (row + i, column) has it, i < count; y may be x.
  void fake(std::int64_t column, std::int64_t row, std::int64_t count, const float* x, float* y) const;
  // The same for a whole row-major matrix [rows, columns]; y may be x.
  void fake_matrix(const float* x, float* y) const;

  // Whether all values are (code - zero point) * scale with whole codes and whole zero points.
  bool has_whole_codes() const;
  std::int64_t low_code() const { return low_code_; }
  std::int64_t high_code() const { return high_code_; }
  // Of the elements of a column, one for each row; columns of the same set have the same.
  std::int64_t set_of(std::int64_t column) const { return set_[static_cast<std::size_t>(column)]; }
  const float* scales(std::int64_t column) const { return scale_.data() + set_of(column) * view_.rows; }
  const float* zeros(std::int64_t column) const { return zero_.data() + set_of(column) * view_.rows; }

 private:
  enum class Way { kInteger, kFloat, kGeneral, kElement };
  void fake_elements(std::int64_t column, std::int64_t row, std::int64_t count, const float* x, float* y) const;

  QuantSpec spec_;
  MatrixView view_;
  Way way_ = Way::kElement;
  FloatGrid float_grid_;
  GeneralGrid general_grid_;
  float lo_ = 0, hi_ = 0;
  std::int64_t low_code_ = 0, high_code_ = 0;
  std::optional<TruncationInput> truncated_;
  std::vector<std::int64_t> set_;  // of a column: which parameters
  // [set][row]; code_scale_ and center_ are empty unless decoupled.
  std::vector<float> scale_, zero_, code_scale_, center_;
};

}  // namespace quanvas::quant
