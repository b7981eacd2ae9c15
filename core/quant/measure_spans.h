// Quanvas - measuring a quantizer span by span, for measure() and for the pass that finds the quantizer as well.
// Private to core/quant.
#pragma once

#include <vector>

#include "core/quant/apply.h"

namespace quanvas::quant {

// More codes than this are not counted in a table.
inline constexpr std::int64_t kMaxCountedCodes = 65536;

struct SpanFacts {
  PairSums sums;
  std::int64_t clipped = 0;
};

// Codes that occur, one byte each so that a store marks them; `all` ends the marking early.
struct UsedCodes {
  std::vector<std::uint8_t> seen;
  bool all = false;
  void mark(const std::int32_t* index, std::int64_t n);
};

// Buffers of one thread: quantized values and codes of a span.
struct Scratch {
  Scratch(std::int64_t elements, std::int64_t codes);
  std::vector<float> y;
  std::vector<std::int32_t> index;
  UsedCodes used;
};

// For quantizers that a kernel holds for. The values are in scratch.y afterwards.
SpanFacts measure_span(const Applier& applier, const Span& span, const float* x, Scratch& scratch);
// Codes that any of the threads met; scratch is not empty.
double used_codes(const std::vector<Scratch>& scratch);
// Everything but codes_used, from the spans in their order.
void finish_facts(const QuantParams& params, std::int64_t n, const std::vector<SpanFacts>& parts, SiteFacts& facts);

}  // namespace quanvas::quant
