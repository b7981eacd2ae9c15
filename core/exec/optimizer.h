// Quanvas - gradient steps on plain float arrays; deterministic, element by element. Internal to core/exec.
#pragma once

#include <cstdint>
#include <vector>

namespace quanvas::exec {

struct StepRule {
  bool adam = true;          // Adam (Kingma, Ba 2015; 0.9, 0.999, 1e-8), else SGD with momentum 0.9
  double learning_rate = 0;
  double weight_decay = 0;   // decoupled (Loshchilov, Hutter 2019)
  std::int64_t step = 1;     // 1, 2 ... for Adam's bias correction
};

// First and second moment of one parameter array.
class Moments {
 public:
  void update(const StepRule& rule, const float* gradient, float* value, std::int64_t n);

 private:
  std::vector<float> first_, second_;
};

}  // namespace quanvas::exec
