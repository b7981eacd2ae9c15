// Files of the export targets for the fuzz targets: small networks with their quantizers, written by the exporters,
// and what reads them again.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/plugin/registry.h"
#include "tests/fuzz/parts.h"

namespace quanvas::fuzz {

// What is written: a network by one target with these options (those that are not given have their defaults).
struct Exported {
  const char* target;
  json options;
  QuantizedModel model;
};

const Exporter& exporter(const char* id);
json options_of(const Exported& e);
// Ends the program with the reasons where the target refuses the network: seeds are files that are right.
void write(const Exported& e, const std::string& path);
Bytes written(const std::vector<Exported>& all, const char* name);
// What the target's audit finds in the file, and the file as a network.
void audit_file(const Exported& e, const std::string& path);
void read_file_again(const Exported& e, const std::string& path);

// x[N,1,4,4] -> conv1 -> relu1 -> pool -> conv2 (depthwise) -> add (with pool) -> flatten -> fc -> logits.
ModelPtr picture_model();
// x[N,inputs] -> fc (Gemm with a bias, [outputs, inputs]) -> relu -> head (MatMul [outputs, 8]) -> y.
ModelPtr linear_model(std::int64_t inputs, std::int64_t outputs);

struct Specs {
  QuantSpec weight, activation;
  bool made = false;   // outputs of all layers, too, but those in front of a Relu
  bool biases = true;  // where the accumulator gives their scale
  bool limits = true;  // inputs of Relu and MaxPool
};
// Weights from their values, activations from a range of two; no activations where there is no spec.
QuantizedModel with_specs(const ModelPtr& model, const Specs& specs);
QuantizedModel with_weights(const ModelPtr& model, const QuantSpec& weight);

QuantSpec ints(int bits, bool is_signed, Granularity granularity, int group = 32);
QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials, Granularity granularity);
QuantSpec preset(const std::string& id);

}  // namespace quanvas::fuzz
