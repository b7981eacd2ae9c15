#include "widgets/charts/axis.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "widgets/common/format.h"

namespace quanvas {

std::vector<double> nice_ticks(double lo, double hi, int wanted) {
  if (!std::isfinite(lo) || !std::isfinite(hi) || !(lo < hi) || wanted < 1) return {};
  const double raw = (hi - lo) / wanted;
  if (!(raw > 0) || !std::isfinite(raw)) return {};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double f : {5.0, 2.0, 1.0})
    if (f * power >= raw * 0.999) step = f * power;
  std::vector<double> out;
  const double first = std::ceil(lo / step - 1e-9);
  for (int i = 0; i < 4 * wanted + 4; ++i) {
    const double v = (first + i) * step;
    if (v > hi + step * 1e-9) break;
    out.push_back(v == 0 ? 0 : v);
  }
  return out;
}

QString tick_text(double value, const std::vector<double>& ticks) {
  if (value == 0) return QStringLiteral("0");
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : std::fabs(value);
  const double largest = ticks.empty() ? std::fabs(value) : std::max(std::fabs(ticks.front()), std::fabs(ticks.back()));
  if (largest >= 1e6 || largest < 1e-3) return significant_text(value, 2);
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-6)), 0, 9);
  return number_text(value, decimals);
}

QString count_tick_text(double value) {
  static const std::pair<double, const char*> kPrefixes[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [factor, name] : kPrefixes)
    if (value >= factor) return QString::number(value / factor, 'g', 3) + QLatin1String(name);
  return QString::number(value, 'g', 3);
}

}  // namespace quanvas
