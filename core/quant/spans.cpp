#include "core/quant/spans.h"

#include <algorithm>

namespace quanvas::quant {

SpanPlan::SpanPlan(const BlockLayout& layout) : layout_(layout) {
  const std::int64_t n = layout.elements();
  if (n <= 0) return;
  const std::int64_t groups = (layout.dim + layout.group - 1) / std::max<std::int64_t>(1, layout.group);
  switch (layout.granularity) {
    case Granularity::kTensor:
      length_ = last_ = n;
      break;
    case Granularity::kChannel:
      vector_ = layout.inner == 1 && layout.dim > 1;
      rows_ = vector_ ? layout.outer : layout.outer * layout.dim;
      length_ = last_ = vector_ ? layout.dim : layout.inner;
      period_ = layout.dim;
      break;
    case Granularity::kGroup:
    case Granularity::kRow:
      ragged_ = layout.dim % layout.group != 0;
      vector_ = layout.inner > 1;
      period_ = layout.parameters();
      if (vector_) {
        blocks_ = layout.outer * groups;
        rows_ = layout.group;
        length_ = last_ = layout.inner;
      } else {
        blocks_ = ragged_ ? layout.outer : 1;
        rows_ = ragged_ ? groups : layout.outer * groups;
        length_ = layout.group;
        last_ = ragged_ ? layout.dim - (groups - 1) * layout.group : layout.group;
      }
      break;
  }
  pieces_ = (length_ + kTile - 1) / kTile;
  rows_per_span_ = pieces_ > 1 ? 1 : std::max<std::int64_t>(1, kTile / length_);
  spans_per_block_ = (rows_ + rows_per_span_ - 1) / rows_per_span_ * pieces_;
  count_ = blocks_ * spans_per_block_;
}

std::int64_t SpanPlan::results() const {
  return vector_ ? count_ * std::min(length_, kTile) : blocks_ * rows_ * pieces_;
}

bool SpanPlan::whole() const {
  if (pieces_ > 1) return false;
  if (vector_) return spans_per_block_ == 1;
  return layout_.granularity == Granularity::kTensor || blocks_ * rows_ == layout_.parameters();
}

Span SpanPlan::part(const Span& span, std::int64_t row, std::int64_t rows) const {
  Span s = span;
  s.offset += row * span.length;
  s.rows = rows;
  s.last = row + rows == span.rows ? span.last : span.length;
  if (rows == 1) s.length = s.last;
  if (!vector_) {
    s.param = (span.param + row) % period_;
    s.result += row;
  }
  return s;
}

Span SpanPlan::span(std::int64_t index) const {
  const std::int64_t block = index / spans_per_block_, within = index % spans_per_block_;
  const std::int64_t row = within / pieces_ * rows_per_span_, piece = within % pieces_;
  Span s;
  std::int64_t block_rows = rows_;
  if (vector_ && layout_.granularity == Granularity::kGroup) {
    const std::int64_t groups = (layout_.dim + layout_.group - 1) / layout_.group;
    const std::int64_t o = block / groups, g = block % groups;
    s.offset = (o * layout_.dim + g * layout_.group) * layout_.inner;
    s.param = block * layout_.inner;
    block_rows = std::min(layout_.group, layout_.dim - g * layout_.group);
  } else if (ragged_) {
    s.offset = block * layout_.dim;
    s.param = block * rows_;
  }
  s.rows = std::max<std::int64_t>(0, std::min(rows_per_span_, block_rows - row));
  const bool has_last_row = row + s.rows == rows_;
  const std::int64_t row_length = pieces_ > 1 && has_last_row ? last_ : length_;
  s.offset += row * length_ + piece * kTile;
  s.length = pieces_ > 1 ? std::max<std::int64_t>(0, std::min(kTile, row_length - piece * kTile)) : length_;
  s.last = pieces_ > 1 ? s.length : (has_last_row ? last_ : length_);
  if (s.length == 0) s.rows = 0;
  if (vector_) {
    s.param += piece * kTile;
    s.result = index * std::min(length_, kTile);
  } else {
    s.param = (s.param + row) % period_;
    s.result = (block * rows_ + row) * pieces_ + piece;
  }
  return s;
}

}  // namespace quanvas::quant
