// Quanvas - the network that a file of weights carries beside its tensors: the graph without data, where each initializer
// lies and in which packing, and what the quantizers are. Written by the exporters of such files as JSON, read by their
// audits and the importers; docs/export-targets.md, "What files of weights carry".
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "core/graph/weights.h"
#include "core/plugin/registry.h"

namespace quanvas::described {

inline constexpr const char* kGraphKey = "quanvas.graph";      // graph_to_json()
inline constexpr const char* kNetworkKey = "quanvas.network";  // Network as JSON
inline constexpr int kVersion = 1;

// A tensor of the file that stands for an initializer.
struct Weight {
  std::string initializer;
  std::string tensor;  // its name in the file, or what the names of its parts begin with
  // "float" (as it is), "codes", "dense", or of linear layers, [out, in]: int-quantized, pack-quantized, float-quantized,
  // nvfp4-pack-quantized, mxfp4-pack-quantized, mxfp8-quantized, gptq, gptq_v2, awq.
  std::string form = "float";
  bool transposed = false;  // the graph has [in, out] where the file has [out, in]
  int bits = 0;             // of a code
  bool padded = false;      // pack-quantized: codes do not go on in the next word
  bool zero_points = false;
  int type = 0;                   // DataType of the initializer, where the file cannot say it
  Shape shape;                    // of the initializer
  std::optional<QuantSpec> spec;  // of codes: what they mean; source is stored
};
template <class V>
void visit_fields(V& v, Weight& w) {
  v("initializer", w.initializer);
  v("tensor", w.tensor);
  v("form", w.form);
  v("transposed", w.transposed);
  v("bits", w.bits);
  v("padded", w.padded);
  v("zero_points", w.zero_points);
  v("type", w.type);
  v("shape", w.shape);
  v("spec", w.spec);
}

struct Quantizer {
  std::string node;  // of the layer
  SiteKind kind = SiteKind::kWeight;
  int operand = 0;
  QuantSpec spec;  // as a rule says it: source is stored, or dynamic, or of biases statistics where the accumulator gives
                   // the scale
  std::vector<float> scale, zero_point;  // of activations
  std::string tensor;                    // of weights and biases: which Weight
};
template <class V>
void visit_fields(V& v, Quantizer& q) {
  v("node", q.node);
  v("kind", q.kind);
  v("operand", q.operand);
  v("spec", q.spec);
  v("scale", q.scale);
  v("zero_point", q.zero_point);
  v("tensor", q.tensor);
}

// Initializers of a few numbers that are no parameters: shapes, axes.
struct Constant {
  std::string name;
  int type = 0;  // int32, int64, bool or float32
  Shape shape;
  std::vector<double> values;  // whole numbers below 2^53
};
template <class V>
void visit_fields(V& v, Constant& c) {
  v("name", c.name);
  v("type", c.type);
  v("shape", c.shape);
  v("values", c.values);
}

struct Network {
  int version = kVersion;
  std::vector<Weight> weights;
  std::vector<Quantizer> quantizers;
  std::vector<Constant> constants;
  std::vector<std::string> notes;  // what of the network the file does not carry
};
template <class V>
void visit_fields(V& v, Network& n) {
  v("version", n.version);
  v("weights", n.weights);
  v("quantizers", n.quantizers);
  v("constants", n.constants);
  v("notes", n.notes);
}

// The tensor of a name; kNotFound when the file has none.
using Source = std::function<Result<TensorData>(const std::string&)>;

// What a file holds of one initializer. Codes, values: in the order of the initializer. scale, zero_point: in the order of
// the quantizer's layout (core/quant/params.h); zero_point empty where the spec has none.
struct Held {
  Shape shape;
  std::vector<std::int32_t> codes;
  std::vector<float> scale, zero_point, values;
  double bytes = 0;
};
// kCorrupt: tensors that are missing, of another type or of another shape, codes that the spec does not have.
Result<Held> decode(const Source& source, const Weight& weight);

// kCorrupt: no such JSON, another version, sizes that cannot be.
Result<Network> parse(const std::string& text, const std::string& path);
// The network of a file: graph with the values that the file holds, and its quantizers as a recipe unless the options want
// none.
Result<Imported> load(const Source& source, const std::string& graph, const std::string& network, const std::string& path,
                      const ImportOptions& options, JobContext& job);

}  // namespace quanvas::described
