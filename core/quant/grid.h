// Quanvas - the values that codes stand for, in units of the scale: the one place where the number formats stand
// numerically. Sources: integers Jacob et al. 2018; minifloats OCP 8-bit Floating Point Specification 1.0, OCP
// Microscaling Formats 1.0, IEEE 754; FNUZ Micikevicius et al. 2022 and Sun et al. 2019. Torch-free.
#pragma once

#include <cstdint>

#include "core/recipe/quant_spec.h"

namespace quanvas::quant {

enum class Family { kInteger, kFloat, kTernary, kBinary, kCodebook };

struct Grid {
  Family family = Family::kInteger;
  Rounding rounding = Rounding::kHalfEven;
  bool inside = false;            // integers: z is added before the rounding
  bool offset = false;            // integers: "zero" is a real number, x~ = q s + zero
  LearnedRounding learned = LearnedRounding::kHardSigmoid;
  bool soft = false;              // learned rounding: what is added to floor(v) is not rounded itself
  double lo = -128, hi = 127;     // integers: codes
  // Minifloats
  int exponent_bits = 4, mantissa_bits = 3, bias = 7;
  bool is_signed = true, saturate = true, has_nan = true, negative_zero = true;
  float largest = 448;            // finite
  float overflow = 0;             // what values beyond it become, when they do not saturate
  float threshold = 0.5f;         // ternary
  const std::vector<float>* values = nullptr;  // codebook: ascending, lives as long as the program
  std::uint32_t seed = 0;         // stochastic rounding

  // Exponent of the leading bit of the smallest normal number.
  int lowest_exponent() const { return 1 - bias; }
};

Grid grid_of(const QuantSpec& spec);

// What the threshold is divided by for the scale: the magnitude of the lowest signed or highest unsigned code, the
// largest minifloat, the nearer end of a codebook, 1.
double full_scale(const Grid& grid);
// The same for power-of-two scales: the exponent e in threshold = 2^e. Of an integer the number of magnitude bits.
int full_exponent(const Grid& grid, const QuantSpec& spec);

// Exponents from the bits; log2f is off by one just below powers of two. v > 0, finite.
int floor_log2(float v);
int ceil_log2(float v);

// Index of the value nearest to v; of two equally near the lower one. NaN counts as 0.
std::int32_t nearest_in(const std::vector<float>& values, float v);
// The least v whose nearest_in() is i + 1, for each i: one fewer than the values, which are those of codebooks(). Lives
// as long as the program.
const std::vector<float>& limits_of(const std::vector<float>& values);
// v rounded as the parameter p of its element says (see LearnedRounding); soft: not to a whole number. p NaN: to the
// nearest.
double learned_round(LearnedRounding kind, bool soft, float v, float p);
// v rounded to a whole number; `random` in [0, 1) is used by stochastic rounding only.
double round_to_whole(Rounding rounding, double v, double random);
// Uniform in [0, 1), a function of seed and element: 24 bits of a mixed counter (splitmix64, Steele et al. 2014).
double element_random(std::uint32_t seed, std::int64_t element);

// The grid point of a minifloat for v = x / s.
float nearest_float(const Grid& grid, float v, std::int64_t element);
// Bit pattern and value of a minifloat: sign, exponent, mantissa from the highest bit down.
std::int32_t float_code(const Grid& grid, float value);
float float_value(const Grid& grid, std::int32_t code);
// Patterns that are finite numbers, +0 and -0 counted as two.
std::int64_t code_count(const Grid& grid);

}  // namespace quanvas::quant
