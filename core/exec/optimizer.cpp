#include "core/exec/optimizer.h"

#include <cmath>

namespace quanvas::exec {

void Moments::update(const StepRule& rule, const float* gradient, float* value, std::int64_t n) {
  constexpr float kFirst = 0.9f, kSecond = 0.999f, kEpsilon = 1e-8f;
  first_.resize(static_cast<std::size_t>(n));
  float* m = first_.data();
  const auto rate = static_cast<float>(rule.learning_rate);
  const auto keep = static_cast<float>(1 - rule.learning_rate * rule.weight_decay);
  if (!rule.adam) {
    for (std::int64_t i = 0; i < n; ++i) {
      m[i] = kFirst * m[i] + gradient[i];
      value[i] = value[i] * keep - rate * m[i];
    }
    return;
  }
  second_.resize(static_cast<std::size_t>(n));
  float* v = second_.data();
  const double t = static_cast<double>(rule.step);
  const auto scale = static_cast<float>(rule.learning_rate / (1 - std::pow(0.9, t)));
  const auto correction = static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, t)));
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gradient[i];
    m[i] = kFirst * m[i] + (1 - kFirst) * g;
    v[i] = kSecond * v[i] + (1 - kSecond) * g * g;
    value[i] = value[i] * keep - scale * m[i] / (std::sqrt(v[i]) * correction + kEpsilon);
  }
}

}  // namespace quanvas::exec
