// Quanvas - the rule of affine.h for many ranges at once, without its choices per range. Private to core/quant.
#pragma once

#include <cstdint>

#include "core/quant/affine.h"

namespace quanvas::quant {

// For statistics that are the extremes. Every scale has the bits that affine() gives.
class ScaleRule {
 public:
  // Keeps references.
  ScaleRule(const QuantSpec& spec, const Grid& grid);

  // Whether the largest magnitudes are all that is asked for.
  bool absolute() const { return absolute_; }
  // From bits of the largest magnitudes, finite.
  void from_magnitudes(const std::int32_t* bits, std::int64_t n, float* scale) const;
  // From order keys of the extremes, finite; zero may be null when the quantizer is symmetric.
  void from_extremes(const std::int32_t* lowest, const std::int32_t* highest, std::int64_t n, float* scale,
                     float* zero) const;

 private:
  enum class Form { kAny, kQuotient, kExponent };
  const QuantSpec& spec_;
  const Grid& grid_;
  bool absolute_ = false;
  Form form_ = Form::kAny;
  float full_ = 1;
  std::int32_t round_up_ = 0;   // added to the bits before the exponent is taken
  std::int32_t exponent_ = 0;   // added to the exponent
};

}  // namespace quanvas::quant
