// Quanvas - which GGUF type holds a quantized weight, and its rows in that type.
//
// A row of a GGUF tensor lies along the layer's reduction axis, the way ggml multiplies: a weight is seen as rows of
// output channels whatever order its tensor has. Of the types that hold a quantizer's values the one with the fewest
// bits is taken. All functions are reentrant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/plugin/placement.h"
#include "plugins/exporters/gguf_blocks.h"

namespace quanvas::gguf_file {

// A tensor as rows: its axes in the order of the file, slowest first; the last one, or all but the first, is a row.
class View {
 public:
  Shape shape;             // of the tensor
  std::vector<int> order;  // axes of the tensor, slowest of the file first
  std::int64_t rows = 1, columns = 1;
  // Rows of each so many are paired: row 2j of a head is its row j, row 2j + 1 its row heads_rows/2 + j (rotary
  // embedding of halves, written as that of neighbours); 0: as they are.
  int heads = 0;

  // Positions in the tensor of the row's elements.
  std::vector<std::int64_t> row(std::int64_t index) const;

 private:
  std::int64_t source_row(std::int64_t index, std::int64_t count) const;
};
// The whole last axis of `order` is a row; merged: all but the first axis.
View view_of(const Shape& shape, std::vector<int> order, bool merged = false);

inline constexpr const char* kRowLength = "row length";  // the rule of rows that are no whole blocks
struct Misfit {
  std::string rule, got, allowed, suggestion;
};
class Fitter {
 public:
  // round: scales and offsets that are no float16 are rounded to one. The arguments must outlive the object.
  Fitter(const quant::QuantParams& params, const StoredTensor& stored, const View& view, bool round)
      : params_(params), stored_(stored), view_(view), round_(round) {}

  // The type; else why the last one that came into question does not hold the values.
  tl::expected<Type, Misfit> find() const;
  // One row in a type that find() has found.
  tl::expected<Row, Misfit> row(Type type, std::int64_t index) const;

 private:
  std::vector<Type> candidates() const;
  bool holds(Type type, Misfit& why) const;
  std::size_t parameter(std::int64_t element) const;
  std::size_t super_block(std::int64_t element) const;
  std::optional<Misfit> one_level(const Form& form, std::size_t p, std::size_t sub, Row& out) const;
  std::optional<Misfit> two_levels(const Form& form, std::int64_t element, std::size_t sub, Row& out) const;

  const quant::QuantParams& params_;
  const StoredTensor& stored_;
  const View& view_;
  bool round_;
};

// What ggml makes of element e of the row, in its order of float32 operations.
float value_in(const Form& form, const Row& row, std::size_t e);

}  // namespace quanvas::gguf_file
