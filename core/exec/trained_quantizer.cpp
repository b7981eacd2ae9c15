#include "core/exec/trained_quantizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/quant/gradient.h"

namespace quanvas::exec {
namespace {

constexpr float kLowestTheta = -33, kHighestTheta = 60;  // scales of about 1e-10 and 1e18
constexpr float kLowestShare = 1.0f / 1024;              // of its starting value
constexpr float kLn2 = 0.69314718f;

}  // namespace

TrainedQuantizer::Source TrainedQuantizer::source_of(const quant::QuantParams& params, const TrainSettings& settings) {
  const QuantSpec& spec = params.spec;
  if (spec.clip_min || spec.clip_max) return Source::kFixed;
  if (spec.source == ScaleSource::kConstant || spec.source == ScaleSource::kDynamic || spec.source == ScaleSource::kStored)
    return Source::kFixed;
  QuantSpec as_learned = spec;
  as_learned.source = ScaleSource::kLearned;
  // A scale for codes that no length belongs to, or one that is the offset's neighbour, follows from the statistic.
  const bool one_scale = params.code_scale.empty() || spec.decoupled != Decoupling::kNone;
  const bool possible = check(as_learned).empty() && one_scale && spec.zero_point != ZeroPointType::kOffset;
  if (possible && settings.learn_scales && (settings.force_learned || spec.source == ScaleSource::kLearned)) return Source::kLearned;
  // Searching for percentiles or the least squared error at each step costs more than the step.
  const bool cheap = spec.statistic == Statistic::kAbsMax || spec.statistic == Statistic::kMinMax;
  return cheap ? Source::kRecomputed : Source::kFixed;
}

void TrainedQuantizer::begin(std::vector<float> lengths) {
  length_ = std::move(lengths);
  // What the recipe does not ask to learn is learned as its logarithm.
  logarithmic_ = params.spec.scale_domain == ScaleDomain::kLog || params.spec.source != ScaleSource::kLearned;
  start_ = params.scale;
  theta_.clear();
  for (const float s : params.scale) theta_.push_back(logarithmic_ ? std::log2(s) : 1.0f);
  zero_unit_ = std::max(1.0, static_cast<double>(params.hi - params.lo) / 16);
  zero_.clear();
  if (learns_zero_point())
    for (const float z : params.zero_point) zero_.push_back(static_cast<float>(static_cast<double>(z) / zero_unit_));
  offset_ = static_cast<float>(std::max(2, params.spec.bits) - 2);
  scale_moments_ = zero_moments_ = length_moments_ = offset_moments_ = Moments();
}

void TrainedQuantizer::step(const StepRule& rule, const QuantizerGradients& gradients, std::int64_t elements) {
  // LSQ's factor 1/sqrt(N * hi) balances scale and weight gradients for SGD; Adam does not see it.
  const auto per_scale = static_cast<double>(elements) / static_cast<double>(std::max<std::size_t>(1, theta_.size()));
  const double hi = static_cast<double>(std::max<std::int64_t>({1, params.hi, -params.lo}));
  const float factor = rule.adam ? 1.0f : static_cast<float>(1 / std::sqrt(std::max(1.0, per_scale * hi)));
  std::vector<float> gradient(theta_.size());
  for (std::size_t i = 0; i < theta_.size(); ++i)
    gradient[i] = gradients.scale[i] * (logarithmic_ ? params.scale[i] * kLn2 : start_[i]) * factor;
  scale_moments_.update(rule, gradient.data(), theta_.data(), static_cast<std::int64_t>(theta_.size()));
  for (float& t : theta_)
    t = logarithmic_ ? std::clamp(t, kLowestTheta, kHighestTheta) : std::max(t, kLowestShare);
  if (!zero_.empty()) {
    for (std::size_t i = 0; i < zero_.size(); ++i)
      gradient[i] = gradients.zero_point[i] * static_cast<float>(zero_unit_) * factor;
    zero_moments_.update(rule, gradient.data(), zero_.data(), static_cast<std::int64_t>(zero_.size()));
  }
  if (!length_.empty()) {
    for (std::size_t i = 0; i < length_.size(); ++i) gradient[i] = gradients.length[i] * factor;
    length_moments_.update(rule, gradient.data(), length_.data(), static_cast<std::int64_t>(length_.size()));
    for (float& t : length_) t = std::clamp(t, kLowestTheta, kHighestTheta);
  }
  if (learns_bits()) {
    const float slope = static_cast<float>(gradients.bits * quant::learned_bits_slope(static_cast<double>(offset_))) * factor;
    offset_moments_.update(rule, &slope, &offset_, 1);
    offset_ = std::clamp(offset_, -14.0f, 14.0f);
  }
  write_params();
}

void TrainedQuantizer::write_params() {
  const bool power_of_two = params.spec.scale == ScaleType::kPowerOfTwo;
  for (std::size_t i = 0; i < theta_.size(); ++i) {
    const float exponent = logarithmic_ ? theta_[i] : std::log2(start_[i] * theta_[i]);
    if (power_of_two) params.scale[i] = std::exp2(std::nearbyint(exponent));
    else params.scale[i] = logarithmic_ ? std::exp2(exponent) : start_[i] * theta_[i];
  }
  if (learns_bits()) quant::set_bits(params, quant::learned_bits(static_cast<double>(offset_)));
  const bool whole = params.spec.zero_point == ZeroPointType::kInteger;
  for (std::size_t i = 0; i < zero_.size(); ++i) {
    const auto lo = static_cast<float>(params.lo), hi = static_cast<float>(params.hi);
    const auto unit = static_cast<float>(zero_unit_);
    zero_[i] = std::clamp(zero_[i], lo / unit, hi / unit);
    params.zero_point[i] = std::clamp(whole ? std::nearbyint(zero_[i] * unit) : zero_[i] * unit, lo, hi);
  }
}

}  // namespace quanvas::exec
