// Quanvas - what a batch normalization says of an activation without data: its output has the mean beta and the
// deviation gamma in each channel, and what a clipping behind it leaves of the mean is that of a clipped normal
// distribution (Nagel et al. 2019, Data-free quantization, arXiv 1906.04721, section 4.2.1 and appendix C).
#pragma once

#include <string>
#include <vector>

#include "core/graph/weights.h"

namespace quanvas {

// E[min(max(z, low), high)] of a normal z; low and high may be infinite, deviation >= 0.
double clipped_normal_mean(double mean, double deviation, double low, double high);

// Mean of each channel of the tensor. Looks through operators that keep means (identity, dropout, average pools
// without padding and flattening behind global ones) and one ReLU or Clip at a batch normalization with stored
// parameters. Else `why`, as a clause, says what it has found.
struct NormalizedMeans {
  std::vector<double> means;
  std::string why;
};
NormalizedMeans normalized_means(const Model& model, TensorId tensor);

// Where 'fold-bn' keeps what a normalization has said of the tensor that its layer makes now: float32 [2, channels], means and deviations, under a
// name that no tensor of the graph has and that holds only for this weight and bias: channels that are scaled later have another one.
std::string folded_normalization(const std::string& tensor, const TensorData& weight, const TensorData& bias);

// Of each element of a convolution's kernel, the part of the output positions at which it does not lie on padding; 1 where shapes are not known.
std::vector<double> inside_parts(const Graph& graph, const Node& convolution, const Shape& kernel);

}  // namespace quanvas
