// Quantized ONNX files made in memory, opened as a float network with a recipe and as the nodes that they hold.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <random>

#include "core/exec/rebuild.h"
#include "core/exec/runner.h"
#include "core/exec/tensors.h"
#include "core/quant/dynamic.h"
#include "core/quant/stored.h"
#include "core/recipe/plan.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {

using Names = std::vector<std::string>;

inline onnx::AttributeProto text_attribute(const std::string& name, const std::string& v) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(onnx::AttributeProto::STRING);
  a.set_s(v);
  return a;
}
inline onnx::AttributeProto real_attribute(const std::string& name, float v) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(onnx::AttributeProto::FLOAT);
  a.set_f(v);
  return a;
}

// Numbers between -amplitude and amplitude, the same each time.
inline std::vector<float> random_values(std::int64_t count, std::uint32_t seed, float amplitude = 1) {
  std::mt19937 generator(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& v : out) v = amplitude * (static_cast<float>(generator() >> 8) / 8388608.0f - 1.0f);
  return out;
}

struct QuantizedProto : Proto {
  explicit QuantizedProto(std::int64_t opset = 21, const Shape& x = {2, 4, 6, 6}) : Proto(opset) {
    model.set_ir_version(10);
    std::vector<std::string> dims = {"N"};
    for (std::size_t i = 1; i < x.size(); ++i) dims.push_back(std::to_string(x[i]));
    input("x", dims);
    shape = x;
  }
  Shape shape;  // of x in the tests

  std::string raw(const std::string& name, DataType type, const Shape& dims, const std::string& bytes) {
    auto& t = *graph.add_initializer();
    t.set_name(name);
    t.set_data_type(static_cast<int>(type));
    for (const auto d : dims) t.add_dims(d);
    t.set_raw_data(bytes);
    return name;
  }
  std::string reals(const std::string& name, const Shape& dims, const std::vector<float>& values) {
    return raw(name, DataType::kFloat, dims, {reinterpret_cast<const char*>(values.data()), values.size() * 4});
  }
  std::string real(const std::string& name, float v) { return reals(name, {}, {v}); }
  std::string noise(const std::string& name, const Shape& dims, std::uint32_t seed, float amplitude = 1) {
    return reals(name, dims, random_values(element_count(dims), seed, amplitude));
  }
  // Codes lo..hi, one after the other with a stride, so that the ends occur.
  std::string codes(const std::string& name, DataType type, const Shape& dims, std::int64_t lo, std::int64_t hi) {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 0; i < element_count(dims); ++i) values.push_back(lo + i * 7 % (hi - lo + 1));
    return codes(name, type, dims, values);
  }
  std::string codes(const std::string& name, DataType type, const Shape& dims, const std::vector<std::int64_t>& values) {
    std::string bytes;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t v = values[i];
      if (is_four_bit_type(type)) {
        if (i % 2 == 0) bytes.push_back(static_cast<char>(v & 15));
        else bytes.back() = static_cast<char>(static_cast<unsigned char>(bytes.back()) | (v & 15) << 4);
      } else {
        bytes.append(reinterpret_cast<const char*>(&v), std::max<std::size_t>(1, element_size(type)));
      }
    }
    return raw(name, type, dims, bytes);
  }
  std::string code(const std::string& name, DataType type, std::int64_t v) {
    return codes(name, type, {}, std::vector<std::int64_t>{v});
  }
  onnx::NodeProto& own(const std::string& op, const Names& in, const Names& out,
                       const std::vector<onnx::AttributeProto>& attributes = {},
                       const std::string& domain = "qonnx.custom_op.general") {
    auto& n = node(op, in, out, attributes);
    n.set_domain(domain);
    bool known = domain.empty();
    for (const auto& o : model.opset_import()) known |= o.domain() == domain;
    if (!known) {
      auto* import = model.add_opset_import();
      import->set_domain(domain);
      import->set_version(1);
    }
    return n;
  }
  // QuantizeLinear, DequantizeLinear; gives the result's name.
  std::string qdq(const std::string& x, float scale, DataType type, std::int64_t zero) {
    real(x + "_s", scale);
    code(x + "_z", type, zero);
    node("QuantizeLinear", {x, x + "_s", x + "_z"}, {x + "_q"});
    node("DequantizeLinear", {x + "_q", x + "_s", x + "_z"}, {x + "_d"});
    return x + "_d";
  }
  std::string quant(const std::string& x, float scale, float zero, float bits, bool is_signed, bool narrow,
                    const std::string& mode = "ROUND", const std::string& domain = "qonnx.custom_op.general") {
    real(x + "_s", scale);
    real(x + "_z", zero);
    real(x + "_b", bits);
    own("Quant", {x, x + "_s", x + "_z", x + "_b"}, {x + "_d"},
        {attribute("signed", std::int64_t{is_signed}), attribute("narrow", std::int64_t{narrow}), text_attribute("rounding_mode", mode)}, domain);
    return x + "_d";
  }
  // A convolution of x's four channels to three.
  void conv(const std::string& x, const std::string& w, const std::string& y, const std::string& bias = {}) {
    Names in = {x, w};
    if (!bias.empty()) in.push_back(bias);
    node("Conv", in, {y}, {attribute("kernel_shape", std::vector<std::int64_t>{3, 3}), attribute("pads", std::vector<std::int64_t>{1, 1, 1, 1})});
  }
  std::string conv_weight() { return noise("w", {3, 4, 3, 3}, 7, 0.4f); }
};

struct Opened {
  Result<quanvas::Imported> file = fail(ErrorCode::kInternal, "not run");
  std::vector<Issue> issues;
  const Graph& graph() const { return *file->model.graph; }
  std::string all_issues() const {
    std::string out;
    for (const Issue& i : issues) out += i.message + "\n";
    return out;
  }
  std::multiset<std::string> ops() const {
    std::multiset<std::string> out;
    for (const Node& n : graph().nodes()) out.insert(n.op);
    return out;
  }
};

inline Opened open_file(const std::string& path, FileQuantizers how) {
  Opened out;
  JobContext job({}, {}, [&](const Issue& i) { out.issues.push_back(i); });
  ImportOptions options;
  options.quantizers = how;
  out.file = quanvas::import_file(path, options, job);
  return out;
}

inline Opened open_bytes(const std::string& bytes, FileQuantizers how) {
  const Folder folder;
  return open_file(folder.file("net.onnx", bytes), how);
}

// The quantizers of the recipe, all of which must have their numbers in the file or find them at run time.
inline Result<exec::QuantizerMap> quantizers_of(const quanvas::Imported& file) {
  exec::QuantizerMap out;
  if (!file.recipe) return out;
  const Graph& graph = *file.model.graph;
  QUANVAS_TRY(const Plan plan, resolve(graph, *file.recipe, PresetLibrary::builtin()));
  for (const std::string& warning : plan.warnings) return fail(ErrorCode::kInternal, warning);
  const std::vector<Layer> layers = find_layers(graph);
  for (const bool biases : {false, true}) {
    for (const SitePlan& s : plan.sites) {
      if (!s.spec || s.spec->scale_from_accumulator != biases) continue;
      const Layer& layer = *find_layer(layers, s.site.node);
      const Node& node = *graph.find(s.site.node);
      const TensorInfo& tensor = graph.tensor(site_tensor(layer, s.site));
      if (biases) {
        QUANVAS_TRY(out[s.site], exec::accumulator_bias(file.model, layer, *s.spec, out));
        continue;
      }
      if (s.spec->source == ScaleSource::kDynamic) {
        QUANVAS_TRY(out[s.site], quant::dynamic_params(*s.spec, exec::site_axis(layer, node, *s.spec, s.site.kind)));
        continue;
      }
      const auto stored = quant::find_stored(*file.model.weights, quant::stored_key(node.name, s.site));
      if (!stored) return fail(ErrorCode::kInternal, "nothing is stored for " + node.name + " " + enum_text(s.site.kind));
      const TensorData* data = tensor.is_initializer ? file.model.weights->find(tensor.name) : nullptr;
      QUANVAS_TRY(out[s.site], quant::stored_params(*s.spec, data ? data->shape : tensor.shape.value_or(Shape{}),
                                                    data ? data->content_hash() : std::string(),
                                                    exec::site_axis(layer, node, *s.spec, s.site.kind), *stored));
    }
  }
  return out;
}

inline Result<std::vector<at::Tensor>> run(const Opened& opened, const std::vector<at::Tensor>& inputs) {
  const c10::InferenceMode no_gradient;
  if (!opened.file) return Failure(opened.file.error());
  QUANVAS_TRY(const exec::QuantizerMap quantizers, quantizers_of(*opened.file));
  QUANVAS_TRY(const auto runner, exec::Runner::create(std::make_shared<const Model>(opened.file->model), &quantizers));
  return runner->run(inputs);
}

// max |a - b| / max |b|
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return 1e9;
  const double scale = b.abs().max().item<double>();
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / std::max(scale, 1e-30);
}

inline at::Tensor input_of(const Shape& shape, std::uint32_t seed = 11, float amplitude = 2) {
  const std::vector<float> values = random_values(element_count(shape), seed, amplitude);
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat).clone();
}

// "conv weight W4": what the recipe says, site by site.
inline std::set<std::string> formats_of(const quanvas::Imported& file) {
  std::set<std::string> out;
  if (!file.recipe) return out;
  const auto plan = resolve(*file.model.graph, *file.recipe, PresetLibrary::builtin());
  if (!plan) return {plan.error().text()};
  for (const SitePlan& s : plan->sites)
    if (s.spec)
      out.insert(file.model.graph->find(s.site.node)->op + " " + enum_text(s.site.kind) +
                 (s.site.operand ? " " + std::to_string(s.site.operand) : "") + " " + chip_text(*s.spec, s.site.kind));
  return out;
}

}  // namespace quanvas::import_test
