// Quanvas - what a file of weights has to hold of a network, whatever its packing: which initializers are codes, which stay
// as they are, which are constants of the graph; and the description that lets Quanvas open it again (described_network.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/plugin/placement.h"
#include "plugins/importers/described_network.h"

namespace quanvas::weight_file {

// One way in which an initializer is quantized, with all layers that read it so.
struct Coded {
  std::string initializer;
  std::string name;  // the initializer's, or "initializer@node" where another layer quantizes it in another way
  TensorId tensor = kNoTensor;
  std::vector<PlacedQuantizer> sites;  // not empty, of equal parameters
  const quant::QuantParams& params() const { return *sites.front().params; }
};
struct Contents {
  std::vector<Coded> coded;         // weights and biases
  std::vector<TensorId> plain;      // initializers that something reads as they are; among them some of the coded ones
  std::vector<TensorId> constants;  // small, no parameters: for the description
};
Contents contents_of(const QuantizedModel& model);

// The quantizer as a recipe can have it back: its format, with numbers that the file gives.
QuantSpec stored_spec(const quant::QuantParams& params, SiteKind kind);
// Constants, quantizers of activations, and quantizers of the coded tensors under the names that they have in the file;
// name_of: where that is not Coded::name.
using NameOf = std::function<std::string(const Coded&, const PlacedQuantizer&)>;
void describe_sites(const QuantizedModel& model, const Contents& contents, described::Network& network,
                    const NameOf& name_of = {});
// {kNetworkKey: ..., kGraphKey: ... if `graph`}
std::map<std::string, std::string> description_texts(const QuantizedModel& model, const described::Network& network,
                                                     bool graph);
Field graph_field();

// The screen's graph with the values that a file holds, by name of Coded and initializer; activations as `quantizers` says.
// A coded tensor that others read as it is becomes an initializer of its own.
struct FileValues {
  std::map<std::string, std::vector<float>> coded, plain;
};
Result<ReadBack> read_back(const QuantizedModel& model, const Contents& contents, const FileValues& values,
                           std::map<Site, quant::QuantParams> quantizers);

// Bit for bit, NaN included.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);
// As numbers: +0 and -0 are one.
bool same_numbers(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace quanvas::weight_file
