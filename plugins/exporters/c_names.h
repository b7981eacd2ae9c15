// Quanvas - what things are called in a C header: shared by its writer and its audit, which must find them again.
#pragma once

#include <map>
#include <set>
#include <string>

#include "plugins/exporters/file_tensors.h"

namespace quanvas::c_header {

// Letters, digits and underscores; never a keyword (every use adds an ending), never reserved. Unique among those given
// out.
class Names {
 public:
  std::string give(const std::string& wanted);

 private:
  std::set<std::string> taken_;
};

struct Identifiers {
  std::map<std::string, std::string> coded;  // of Coded::name: <it>_codes, _scale, _zero_point, _lut
  std::map<TensorId, std::string> plain;     // <it>_values
  std::map<Site, std::string> sites;         // of activations: <it>_scale, <it>_zero_lo_hi
  std::map<NodeId, std::string> layers;      // <it>_multiplier, <it>_shift
};
// `prefix` stands before each.
Identifiers identifiers(const QuantizedModel& model, const weight_file::Contents& contents, const std::string& prefix);

// The fixed-point numbers that turn a layer's sums of codes into codes of the next quantizer: M = s_x s_w / s_y = m0
// 2^(shift - 31), m0 a whole number of 31 bits.
struct Multiplier {
  std::int32_t m0 = 0;
  int shift = 0;
};
// false: M is beyond 2^-31 .. 2^30.
bool multiplier_of(double m, Multiplier& out);

// Where the sums of a layer go: the quantizer of its output, or the one that all its readers have, behind operators that
// keep codes (Relu, MaxPool, Flatten, Reshape ...).
struct Requantization {
  const Node* node = nullptr;
  const quant::QuantParams *input = nullptr, *weight = nullptr, *output = nullptr;
  bool relu = false;                 // a Relu lies between: codes below the zero point become it
  std::vector<Multiplier> channels;  // one per scale of the weight
};
std::vector<Requantization> requantizations(const QuantizedModel& model);

}  // namespace quanvas::c_header
