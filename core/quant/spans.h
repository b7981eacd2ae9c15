// Quanvas - how kernels walk a tensor: a BlockLayout cut into spans of at most about kTile elements. The cut
// depends on the layout only, never on the number of threads, so sums formed per span and then added in span
// order are the same for 1, 2 or 7 threads.
//
// A span is `rows` contiguous rows of `length` elements (the last one may be shorter). Either each row has one
// parameter (uniform rows), or each element of the row has its own and all rows share them (vector rows).
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/quant/params.h"

namespace quanvas::quant {

inline constexpr std::int64_t kTile = 16384;

struct Span {
  std::int64_t offset = 0;  // first element
  std::int64_t rows = 0, length = 0, last = 0;  // last: length of the last row
  std::int64_t param = 0;   // uniform: of the first row, next row + 1 modulo the plan's period; vector: of column 0
  std::int64_t result = 0;  // first result slot: one per row (uniform) or per column (vector)
  std::int64_t elements() const { return rows > 0 ? (rows - 1) * length + last : 0; }
};

class SpanPlan {
 public:
  explicit SpanPlan(const BlockLayout& layout);

  std::int64_t count() const { return count_; }
  Span span(std::int64_t index) const;
  // Spans of a block (a group in columns; else the whole tensor): none of its parameters is another block's.
  std::int64_t block_spans() const { return spans_per_block_; }
  bool vector_rows() const { return vector_; }
  std::int64_t period() const { return period_; }
  std::int64_t results() const;  // slots that all spans together need
  // Parameter of result slot `slot` of a span (slot counted from the span's first).
  std::int64_t parameter(const Span& span, std::int64_t slot) const {
    return vector_ ? span.param + slot : (span.param + slot) % period_;
  }
  std::int64_t slots(const Span& span) const { return vector_ ? span.length : span.rows; }
  // Whether all elements of each parameter lie in one span.
  bool whole() const;

  // Calls f(piece) with pieces of at most `most` elements; a row is cut unless `rows_only`. Their results begin at
  // the slots of the span.
  template <class F>
  void cut(const Span& span, std::int64_t most, bool rows_only, const F& f) const {
    if (span.elements() <= most) return f(span);
    if (span.length <= most || rows_only) {
      const std::int64_t together = std::max<std::int64_t>(1, most / span.length);
      for (std::int64_t r = 0; r < span.rows; r += together) f(part(span, r, std::min(together, span.rows - r)));
      return;
    }
    for (std::int64_t r = 0; r < span.rows; ++r) {
      const Span row = part(span, r, 1);
      for (std::int64_t i = 0; i < row.last; i += most) {
        Span piece = row;
        piece.offset += i;
        piece.length = piece.last = std::min(most, row.last - i);
        if (vector_) {
          piece.param += i;
          piece.result += i;
        }
        f(piece);
      }
    }
  }

 private:
  // `rows` rows of the span from the given one on.
  Span part(const Span& span, std::int64_t row, std::int64_t rows) const;

  BlockLayout layout_;
  bool vector_ = false, ragged_ = false;
  std::int64_t blocks_ = 1, rows_ = 1, length_ = 1, last_ = 1;  // per block
  std::int64_t period_ = 1;
  std::int64_t pieces_ = 1;         // a row longer than kTile is cut into so many
  std::int64_t rows_per_span_ = 1, spans_per_block_ = 1, count_ = 0;
};

}  // namespace quanvas::quant
