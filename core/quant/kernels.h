// Quanvas - the inner loops, compiled once per instruction set and chosen at run time. Element by element all
// sets give the same bits (true division, no fused multiply-add); sums may differ in the last places of a double.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace quanvas::quant {

// Quantizer of a span's rows; see Span. zero is never null for vector rows, null for "all 0" in uniform rows.
struct Rows {
  std::int64_t rows = 0, length = 0, last = 0, param = 0, period = 1;
  bool vector = false;
  const float* scale = nullptr;
  const float* zero = nullptr;
  float lo = 0, hi = 0;  // codes; |lo - zero| and |hi - zero| at most kMaxSteps
};
inline constexpr float kMaxSteps = 4194304;  // 2^22: rounding by adding 1.5 * 2^23 is exact up to here

// A minifloat that rounds half to even, as bits of float32.
struct FloatGrid {
  std::int32_t lowest_bits = 0;  // exponent of the smallest normal number
  std::int32_t shift_bits = 0;   // from the exponent of a value to 1.5 * 2^23 of its units
  float largest = 0, overflow = 0, nan = 0;
  bool is_signed = true, negative_zero = true;
  bool finite = false;  // fake_float: no element is NaN or infinite
  // Codes: exponent, mantissa and sign bits, the reciprocal of the smallest unit, and the code of what is no
  // number.
  std::int32_t mantissa_bits = 3, sign_code = 128, special_code = 127;
  float lowest = 0, per_unit = 0;  // smallest normal number; 1 / distance of subnormals
  float clip = 0;                  // beyond this magnitude a value counts as clipped
  // No infinities, and the code of NaN, if there is one, is special_code.
  bool has_codes() const { return overflow == largest && (negative_zero || !is_signed); }
};

// Whole steps, signs or a list of values, where kernels of their own do not hold (kernels_general.inc).
struct GeneralGrid {
  int rounding = 0;  // the number of a Rounding that looks at v alone: not stochastic, not learned
  bool inside = false, offset = false;  // of the zero point, see Grid
  bool signs = false;                   // ternary or binary
  float threshold = -1;                 // of |x| in units of the scale: ternary; negative: binary
  const float* values = nullptr;        // a codebook's, ascending, two or more
  const float* limits = nullptr;        // and from where on each but the first is the nearest, see limits_of()
  std::int32_t values_count = 0;
  const float* step = nullptr;    // scales of the codes where those have their own; null: the scales of the values
  const float* center = nullptr;  // taken off x; null: nothing
};

struct PairSums {
  double xx = 0, yy = 0, xy = 0, dd = 0;
  float max_abs = 0;
};

// One candidate of the search for the least squared error: steps from the zero point between a and b.
struct Candidate {
  float inverse_scale = 1, a = 0, b = 0;
};
inline constexpr std::int64_t kSplitBlock = 256;  // values
inline constexpr int kHistogramSumBits = 40;      // of the sum in a slot; the count is above
inline constexpr std::uint32_t kHistogramZeroSlots = 8;

// Which keys of the histogram are in use: bits of the smallest and the largest magnitude but 0 of each sign (positive,
// negative). least is one less, so that 0 counts as the largest; highest 0: none.
struct KeyRange {
  std::uint32_t least[2] = {0xffffffffu, 0xffffffffu};
  std::int32_t most[2] = {0, 0};
};
inline constexpr std::int64_t kRankBlock = 1024;  // elements whose squared errors are summed in float32

struct Kernels {
  const char* name;
  void (*fake)(const Rows&, const float* x, float* y);
  void (*fake_float)(const Rows&, const FloatGrid&, const float* x, float* y);
  void (*codes)(const Rows&, const float* x, std::int32_t* q);
  // Of minifloats that codes can be made of by the bits alone: FloatGrid::has_codes().
  void (*codes_float)(const Rows&, const FloatGrid&, const float* x, std::int32_t* q);
  void (*decode)(const Rows&, const std::int32_t* q, float* y);
  // table[q & mask] times the scale.
  void (*look_up)(const Rows&, const float* table, std::int32_t mask, const std::int32_t* q, float* y);
  // y and the code counted from lo; returns the number of clipped elements.
  std::int64_t (*measure)(const Rows&, const float* x, float* y, std::int32_t* index);
  std::int64_t (*measure_float)(const Rows&, const FloatGrid&, const float* x, float* y, std::int32_t* index);
  // y, and unless null the code counted from lo (of signs from -1); returns the number of clipped elements, as far
  // as there is an index.
  std::int64_t (*general)(const Rows&, const GeneralGrid&, const float* x, float* y, std::int32_t* index);
  // dx may be dy. sums: null, or one slot per row (uniform) or column (vector), added to.
  void (*backward)(const Rows&, const float* x, const float* dy, float* dx, double* sums, bool pass_clipped);
  // The same for minifloats; sums not null.
  void (*backward_float)(const Rows&, const FloatGrid&, const float* x, const float* dy, float* dx, double* sums,
                         bool pass_clipped);
  PairSums (*pair_sums)(const float* x, const float* y, std::int64_t n);
  // Smallest and largest order key (see order_key) per row, overwritten, or per column, with what is there already.
  void (*range)(const Rows&, const float* x, std::int32_t* lowest, std::int32_t* highest);
  // Bits of the largest magnitude, likewise; above kLargestFiniteKey: not finite.
  void (*absmax)(const Rows&, const float* x, std::int32_t* largest);
  // Sums of squared errors of `count` candidates on at most kRankBlock finite elements, in units of each one's
  // step, by reciprocal and in float32: for ranking them. Each candidate's bits do not depend on the others.
  void (*rank_errors)(const float* x, std::int64_t n, const Candidate*, int count, float* sums);
  // Sum of squared errors as fake() makes them.
  double (*exact_error)(const float* x, std::int64_t n, float scale, float a, float b);
  // Keys (order keys, or with `absolute` bits of the magnitude) from lo to hi, in order, into `out` (room for n);
  // returns their number and adds to `below` that of those below lo.
  std::int64_t (*between)(const float* x, std::int64_t n, bool absolute, std::int32_t lo, std::int32_t hi,
                          std::int32_t* out, std::int64_t* below);
  // What the histogram adds for each value: see KeyTable::Slot. n is at most kSplitBlock. Widens `range`.
  void (*split)(const float* x, std::int64_t n, std::uint32_t* slots, std::uint64_t* adds, KeyRange* range);
  // Copies n floats past the caches and asks for `ahead` floats at `next`, which need not exist, to be brought in.
  // stream_fence() before another thread may look.
  void (*stream)(const float* from, float* to, std::int64_t n, const float* next, std::int64_t ahead);
  // See packing.h; n codes of a multiple of 8 bits in all. False, and nothing done: a width without a loop of its
  // own.
  bool (*pack)(const std::int32_t* codes, std::int64_t n, int bits, std::uint8_t* out);
  bool (*unpack)(const std::uint8_t* in, std::int64_t n, int bits, bool is_signed, std::int32_t* codes);
};
void stream_fence();

const Kernels& kernels();                         // the best set that this processor has
void use_kernels(const Kernels* set);             // this one from now on, null: the best again; for tests
std::vector<const Kernels*> available_kernels();  // all that it has, plainest first (tests compare them)

// Float32 bits as an integer of the same order: NaN and infinities lie outside the keys of finite values.
inline std::int32_t order_key(std::int32_t bits) {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
inline constexpr std::int32_t kLargestFiniteKey = 0x7f7fffff;
inline constexpr std::int32_t kSmallestFiniteKey = ~kLargestFiniteKey;
float from_order_key(std::int32_t key);

}  // namespace quanvas::quant
