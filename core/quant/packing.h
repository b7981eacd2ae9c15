// Quanvas - codes without gaps. Element 0 is in the lowest bits of the first byte; codes that do not fit a byte go on
// in the lowest bits of the next; the bits behind the last code are zero. Torch-free; threads as in params.h.
#pragma once

#include <cstdint>

#include "core/quant/params.h"

namespace quanvas::quant {

// Bytes of n codes of 1 .. 32 bits each.
std::int64_t packed_bytes(std::int64_t n, int bits);

// out: packed_bytes(n, bits). Of each code the lowest `bits` bits are kept, so signed and unsigned ones are packed alike.
void pack(const std::int32_t* codes, std::int64_t n, int bits, std::uint8_t* out);
// is_signed: the highest bit of a code is its sign. Unsigned codes of 32 bits keep their bits.
void unpack(const std::uint8_t* in, std::int64_t n, int bits, bool is_signed, std::int32_t* codes);

// pack() of what quantize_codes() gives, code_bits(params.spec) wide, mostly without writing the codes themselves.
void quantize_packed(const QuantParams& params, const BlockLayout& layout, const float* x, std::uint8_t* out);

}  // namespace quanvas::quant
