// Targets of Reshape: with symbols, and freed from the batch size that the exporter happened to use.
#include <algorithm>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

bool is_number(const Cell& c, std::int64_t v) {
  return c.symbol == 0 && c.integer == v;
}

// Product of the known dimensions from `begin`; none when one is not known.
std::optional<std::int64_t> known_product(const Shape& s, std::size_t begin) {
  std::int64_t n = 1;
  for (std::size_t i = begin; i < s.size(); ++i) {
    if (s[i] < 0 || (s[i] > 0 && n > (std::int64_t{1} << 40) / s[i])) return std::nullopt;
    n *= s[i];
  }
  return n;
}

}  // namespace

std::optional<std::vector<std::int64_t>> batch_free_target(const Shape& data, const Value& target,
                                                           std::int64_t batch_symbol, std::int64_t fixed_batch,
                                                           bool allow_zero) {
  std::vector<std::int64_t> out;
  bool has_open = false, has_zero = false;
  for (const Cell& c : target.cells) {
    has_open = has_open || is_number(c, -1);
    has_zero = has_zero || is_number(c, 0);
  }
  if (allow_zero && has_zero) return std::nullopt;
  for (std::size_t i = 0; i < target.cells.size(); ++i) {
    const Cell& c = target.cells[i];
    if (c.symbol == 0) {
      out.push_back(c.integer);
    } else if (c.symbol < kUnknownDim && i < data.size() && data[i] == c.symbol) {
      out.push_back(0);
    } else if (!has_open) {
      has_open = true;
      out.push_back(-1);
    } else {
      return std::nullopt;
    }
  }
  const bool leads = batch_symbol && !out.empty() && out[0] == fixed_batch && target.cells[0].symbol == 0 &&
                     !data.empty() && data[0] == batch_symbol;
  if (!leads) return out;
  std::int64_t rest = 1;
  bool is_open = false;
  for (std::size_t i = 1; i < out.size(); ++i) {
    const std::int64_t d = out[i] == 0 && i < data.size() ? data[i] : out[i];
    if (d == -1 && !is_open)
      is_open = true;
    else if (d <= 0 || rest > (std::int64_t{1} << 40) / d)
      return out;
    else
      rest *= d;
  }
  const auto sample = known_product(data, 1);
  if (sample ? (is_open ? *sample % rest == 0 : *sample == rest) : is_open) out[0] = 0;
  return out;
}

std::optional<Shape> reshaped(const Shape& data, const Value& target, bool allow_zero, Draft& draft) {
  Shape out;
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < target.cells.size(); ++i) {
    const Cell& c = target.cells[i];
    const bool copies = is_number(c, 0) && !allow_zero;
    if (copies && i >= data.size()) return std::nullopt;
    if (is_number(c, -1) && !open)
      open = i;
    else if (c.symbol == 0 && c.integer < 0)
      return std::nullopt;
    out.push_back(copies ? data[i] : c.symbol ? c.symbol : c.integer);
  }
  if (!open) return out;
  // Equal symbols on both sides cancel; what is left of the data must fit in the open dimension.
  Shape left = data;
  std::int64_t divisor = 1, product = 1, symbol = 0;
  bool is_unknown = false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i == *open) continue;
    if (out[i] >= 0) {
      if (out[i] == 0 || divisor > (std::int64_t{1} << 40) / out[i]) return std::nullopt;
      divisor *= out[i];
      continue;
    }
    const auto same = std::find(left.begin(), left.end(), out[i]);
    if (same != left.end())
      left.erase(same);
    else
      is_unknown = true;
  }
  for (const std::int64_t d : left) {
    if (d < 0) {
      is_unknown = is_unknown || symbol != 0;
      symbol = d;
    } else if (d > 0 && product > (std::int64_t{1} << 40) / d) {
      return std::nullopt;
    } else {
      product *= d;
    }
  }
  if (!symbol && !is_unknown && product % divisor != 0) return std::nullopt;
  if (is_unknown || (symbol && product != divisor))
    out[*open] = draft.new_symbol();
  else
    out[*open] = symbol ? symbol : product / divisor;
  return out;
}

}  // namespace quanvas::onnx_import
