// ResNet-18 (He et al. 2016) of random weights, twice: as a model for the Runner and as direct calls of LibTorch, with
// the same tensors. Batch normalization is not folded.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/graph/weights.h"

namespace quanvas::benchmarks {

struct ConvBn {
  std::string name;
  at::Tensor weight, gamma, beta, mean, variance;
  int stride = 1, pad = 1;
};
struct BasicBlock {
  ConvBn first, second;
  std::vector<ConvBn> shortcut;  // none or one
};
struct Resnet18 {
  ConvBn stem;
  std::vector<BasicBlock> blocks;
  at::Tensor weight, bias;  // of the classifier
};

Resnet18 make_resnet18(int seed);
ModelPtr as_model(const Resnet18& net);
at::Tensor run_directly(const Resnet18& net, const at::Tensor& x);  // as torchvision's module computes it, ReLU in place

}  // namespace quanvas::benchmarks
