// Quanvas - a quantizer in training: which of its parameters are learned, in which domain, and their steps. Internal
// to core/exec; used by one thread at a time.
#pragma once

#include <vector>

#include "core/exec/optimizer.h"
#include "core/exec/train.h"
#include "core/quant/params.h"

namespace quanvas::exec {

// d loss / d parameter, summed over the shards and over all tensors that the quantizer is used on.
struct QuantizerGradients {
  std::vector<float> scale, zero_point;  // one for each scale; zero_point empty: not learned
  double bits = 0;
  std::vector<float> length = {};  // one for each scale, of what is learned; empty: not learned
};

// What is trained of it, each in a unit in which a step of 0.01 is a small one:
//   scale       theta = log2 s (domain log), or s / its starting value (linear): steps do not depend on the
//   magnitude
//               and s stays positive. Power-of-two scales are 2^rint(log2 s), straight through.
//   zero point  in sixteenths of the codes' range; an integer one is rounded, straight through
//   length      log2 g of a quantizer with two scales (weight_norm.h)
//   width       the offset o in b = round(|o| + 2) (gradient.h)
struct TrainedQuantizer {
  enum class Source { kFixed, kRecomputed, kLearned };
  Site site;  // one of those that it is for
  quant::QuantParams params;
  Source source = Source::kFixed;

  // Chooses the source of a quantizer's scale; a spec whose scale cannot be learned keeps its own.
  static Source source_of(const quant::QuantParams& params, const TrainSettings& settings);

  bool learned() const { return source == Source::kLearned; }
  bool learns_zero_point() const { return learned() && params.spec.learn_zero_point && !params.zero_point.empty(); }
  bool learns_length() const { return learned() && params.spec.decoupled != Decoupling::kNone; }
  bool learns_bits() const { return learned() && params.spec.learn_bits; }
  // Whether it quantizes after so many optimizer steps.
  bool active(std::int64_t steps) const { return steps >= params.spec.delay; }
  // Whether clipped values keep their gradient; fallback: what the kind of its site does.
  bool passes_clipped(bool fallback) const { return params.spec.clip_gradient ? !*params.spec.clip_gradient : fallback; }

  // Starts learning from the parameters as they are; lengths: log2 g of each scale when it learns them. Forgets
  // earlier steps.
  void begin(std::vector<float> lengths = {});
  const std::vector<float>& lengths() const { return length_; }
  // elements: values that the quantizer is used on, for LSQ's factor. Writes the parameters.
  void step(const StepRule& rule, const QuantizerGradients& gradients, std::int64_t elements);

 private:
  void write_params();
  bool logarithmic_ = true;
  double zero_unit_ = 1;
  std::vector<float> theta_, start_, zero_, length_;
  float offset_ = 0;
  Moments scale_moments_, zero_moments_, length_moments_, offset_moments_;
};

}  // namespace quanvas::exec
