// Quanvas - tick positions and their texts for charts drawn by hand. Pure functions.
#pragma once

#include <vector>

#include <QString>

namespace quanvas {

// Multiples of 1, 2 or 5 times a power of ten inside [lo, hi], about `wanted` of them. Empty when lo >= hi or
// a bound is not finite.
std::vector<double> nice_ticks(double lo, double hi, int wanted);
// As few decimals as the spacing of the ticks needs; "−" for minus; powers of ten for very small or large ones.
QString tick_text(double value, const std::vector<double>& ticks);
// 1, 10, 100, 1k, 1M for counts.
QString count_tick_text(double value);

}  // namespace quanvas
