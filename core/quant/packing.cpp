#include "core/quant/packing.h"

#include <algorithm>
#include <vector>

#include "core/quant/apply.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {
namespace {

// Eight codes of any width fill whole bytes, so tiles do not share one.
static_assert(kTile % 8 == 0 && kPiece % 8 == 0);

std::uint32_t mask_of(int bits) { return 0xffffffffu >> (32 - bits); }

// Any width: codes are put above the bits that wait, whole bytes leave below.
void pack_any(const std::int32_t* codes, std::int64_t n, int bits, std::uint8_t* out) {
  const std::uint32_t mask = mask_of(bits);
  std::uint64_t waiting = 0;
  int filled = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    waiting |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(codes[i]) & mask) << filled;
    for (filled += bits; filled >= 8; filled -= 8, waiting >>= 8) *out++ = static_cast<std::uint8_t>(waiting);
  }
  if (filled > 0) *out = static_cast<std::uint8_t>(waiting);
}

void unpack_any(const std::uint8_t* in, std::int64_t n, int bits, bool is_signed, std::int32_t* codes) {
  const std::uint32_t mask = mask_of(bits), sign = is_signed ? 1u << (bits - 1) : 0;
  std::uint64_t waiting = 0;
  int filled = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    for (; filled < bits; filled += 8) waiting |= static_cast<std::uint64_t>(*in++) << filled;
    codes[i] = static_cast<std::int32_t>(((static_cast<std::uint32_t>(waiting) & mask) ^ sign) - sign);
    waiting >>= bits;
    filled -= bits;
  }
}

// Whole groups of eight by the kernel for the width, the rest bit by bit.
void pack_tile(const std::int32_t* codes, std::int64_t n, int bits, std::uint8_t* out) {
  const std::int64_t even = n / 8 * 8;
  const std::int64_t done = kernels().pack(codes, even, bits, out) ? even : 0;
  if (done < n) pack_any(codes + done, n - done, bits, out + done / 8 * bits);
}
void unpack_tile(const std::uint8_t* in, std::int64_t n, int bits, bool is_signed, std::int32_t* codes) {
  const std::int64_t even = n / 8 * 8;
  const std::int64_t done = kernels().unpack(in, even, bits, is_signed, codes) ? even : 0;
  if (done < n) unpack_any(in + done / 8 * bits, n - done, bits, is_signed, codes + done);
}

std::int64_t tiles_of(std::int64_t n) { return (n + kTile - 1) / kTile; }

// Whether each span begins with a byte of its own.
bool starts_bytes(const SpanPlan& plan) {
  for (std::int64_t i = 0; i < plan.count(); ++i)
    if (const Span s = plan.span(i); s.rows > 0 && s.offset % 8 != 0) return false;
  return true;
}

}  // namespace

std::int64_t packed_bytes(std::int64_t n, int bits) { return n / 8 * bits + (n % 8 * bits + 7) / 8; }

void pack(const std::int32_t* codes, std::int64_t n, int bits, std::uint8_t* out) {
  parallel_for(tiles_of(n), threads_for(n), [&](std::int64_t t) {
    const std::int64_t begin = t * kTile;
    pack_tile(codes + begin, std::min(kTile, n - begin), bits, out + begin / 8 * bits);
  });
}

void unpack(const std::uint8_t* in, std::int64_t n, int bits, bool is_signed, std::int32_t* codes) {
  const bool streams = n >= kStreamElements;
  parallel_stripes(tiles_of(n), threads_for(n), [&](std::int64_t, std::int64_t first, std::int64_t last) {
    alignas(64) std::int32_t buffer[kPiece];
    for (std::int64_t i = first * kTile; i < std::min(n, last * kTile); i += kPiece) {
      const std::int64_t count = std::min(kPiece, n - i);
      unpack_tile(in + i / 8 * bits, count, bits, is_signed, streams ? buffer : codes + i);
      // The copy looks at bits only.
      if (streams)
        kernels().stream(reinterpret_cast<const float*>(buffer), reinterpret_cast<float*>(codes + i), count, nullptr, 0);
    }
    if (streams) stream_fence();
  });
}

void quantize_packed(const QuantParams& params, const BlockLayout& layout, const float* x, std::uint8_t* out) {
  const int bits = code_bits(params.spec);
  const std::int64_t n = layout.elements();
  const Applier applier(params, layout);
  const SpanPlan& plan = applier.plan();
  if (!applier.integer_kernel() || !starts_bytes(plan)) {
    std::vector<std::int32_t> codes(static_cast<std::size_t>(std::max<std::int64_t>(0, n)));
    quantize_codes(params, layout, x, codes.data());
    return pack(codes.data(), n, bits, out);
  }
  parallel_stripes(plan.count(), threads_for(n), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    std::vector<std::int32_t> codes(static_cast<std::size_t>(std::min(kTile, n)));
    for (std::int64_t i = begin; i < end; ++i) {
      const Span span = plan.span(i);
      if (span.rows == 0) continue;
      kernels().codes(applier.rows(span), x + span.offset, codes.data());
      pack_tile(codes.data(), span.elements(), bits, out + span.offset / 8 * bits);
    }
  });
}

}  // namespace quanvas::quant
