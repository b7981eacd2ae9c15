// Quanvas - files for Xilinx' DPU through PyXIR: the layers of ai.onnx in the domain "pyxir", with whole numbers as weights
// and positions of binary points as attributes, as Brevitas wrote them (0.2 to 0.7; READ in pyxir 0.3.5, frontend/onnx).
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <utility>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/onnx_write.h"
#include "plugins/exporters/pyxir_audit.h"
#include "plugins/exporters/pyxir_plan.h"
#include "plugins/exporters/qonnx_read.h"

namespace quanvas {
namespace {

using namespace onnx_file;
using Ints = std::vector<std::int64_t>;

constexpr int kBits = 8, kDpuOpset = 13;

bool pads_apart(const json& options) {
  return !options.contains("generation") || options["generation"] != "1";
}
std::string domain_of(const json& options) {
  return options.contains("domain") ? options["domain"].get<std::string>() : std::string("pyxir");
}

std::string text_path(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.parent_path() / (p.stem().string() + "_quantize_info.txt")).string();
}

// A layer's name as PyXIR makes it of a tensor's.
std::string layer_name(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && std::string("_.-/").find(c) == std::string::npos) c = '-';
  const bool number = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); });
  return number ? name + "_" : name;
}

class DpuWriter {
 public:
  DpuWriter(const QuantizedModel& model, const json& options)
      : model_(model),
        graph_(*model.model->graph),
        apart_(pads_apart(options)),
        domain_(domain_of(options)),
        placement_(place(model)),
        plan_(model, placement_, apart_),
        writer_(*model.model, std::max(graph_.opset(), kDpuOpset)) {}

  Status write(const std::string& path, JobContext& job) {
    writer_.set_domain(domain_, 1);
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    for (const PlacedQuantizer& q : placement_.quantizers) {
      if (!is_activation(q.site.kind) || q.params->spec.rounding != Rounding::kDpu) continue;
      onnx::StringStringEntryProto* entry = writer_.proto().add_metadata_props();
      entry->set_key("vai_quant_rounding");
      entry->set_value("DPU");
      break;
    }
    writer_.finish();
    // PyXIR reads dimensions as numbers, and the DPU takes one picture at a time.
    for (auto* ends : {writer_.proto().mutable_graph()->mutable_input(), writer_.proto().mutable_graph()->mutable_output()})
      for (auto& value : *ends) {
        auto* shape = value.mutable_type()->mutable_tensor_type()->mutable_shape();
        if (shape->dim_size() > 0 && !shape->dim(0).has_dim_value()) shape->mutable_dim(0)->set_dim_value(1);
      }
    const std::string text = text_path(path);
    const auto before = read_file(text);
    QUANVAS_CHECK(write_file_atomically(text, text_));
    const Status saved = writer_.save(path);
    if (saved) return saved;
    // The text that stood there belongs to the model that still does.
    std::error_code ec;
    if (before) (void)write_file_atomically(text, *before);
    else std::filesystem::remove(text, ec);
    return saved;
  }

 private:
  std::string seen(TensorId t) const {
    const auto it = seen_.find(t);
    return t == kNoTensor ? std::string() : it == seen_.end() ? graph_.tensor(t).name : it->second;
  }

  Status add(const Node& node) {
    if (plan_.is_dropped(node)) {
      seen_[node.outputs[0]] = seen(node.inputs[0]);
      return {};
    }
    NodeDraft draft = draft_of(graph_, node);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) draft.inputs[i] = seen(node.inputs[i]);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const TensorId t = node.outputs[i];
      if (t == kNoTensor || !plan_.is_early(t)) continue;
      seen_[t] = draft.outputs[i] = writer_.tensor_name(graph_.tensor(t).name + "_quantized");
    }
    const bool is_layer = plan_.is_layer(node) && plan_.seen(node, 0) && plan_.held(node.outputs[0]);
    return is_layer ? layer(node, std::move(draft)) : writer_.copy(std::move(draft));
  }

  struct Quantized {
    std::vector<std::string> kinds;
    std::vector<Ints> numbers;
    void add(const char* kind, Ints list) { kinds.emplace_back(kind), numbers.push_back(std::move(list)); }
  };

  Status layer(const Node& node, NodeDraft draft) {
    Quantized q;
    Ints in;
    const std::size_t operands = node.op == "Add" ? 2 : 1;
    for (std::size_t i = 0; i < operands; ++i) in.insert(in.end(), {kBits, *plan_.seen(node, i)});
    q.add("vai_quant_in", in);
    q.add("vai_quant_out", {kBits, *plan_.held(node.outputs[0])});
    const bool product = node.op == "Gemm" || node.op == "MatMul", weighted = product || node.op == "Conv";
    if (product) {
      draft.op = "Gemm";
      draft.attributes = {{"transB", std::int64_t{1}}};
    }
    if (weighted) {
      const bool turns = node.op == "MatMul" || (node.op == "Gemm" && node.integer("transB", 0) == 0);
      QUANVAS_TRY(draft.inputs[1], constant(node, SiteKind::kWeight, turns, q, "vai_quant_weights"));
      if (node.input(2) != kNoTensor) {
        QUANVAS_TRY(draft.inputs[2], constant(node, SiteKind::kBias, false, q, "vai_quant_biases"));
      }
    }
    Ints padding = plan_.pads(node);
    const bool padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t v) { return v != 0; });
    const bool windowed = node.op == "Conv" || node.op == "MaxPool" || node.op == "AveragePool";
    if (windowed) windows(node, draft);
    if (apart_ && windowed) {
      if (padded) {
        QUANVAS_TRY(draft.inputs[0], pad(node, draft.inputs[0], padding, in));
      }
      draft.attributes.erase("pads");
      draft.attributes["auto_pad"] = std::string("VALID");
    }
    if (node.op == "AveragePool" && covers_all(node)) {
      draft.op = "GlobalAveragePool";
      draft.attributes.clear();
    }
    return add_node(draft.op, draft.name, draft.inputs, draft.outputs[0], draft.attributes, q, node.input(2) != kNoTensor);
  }

  // Every number that PyXIR asks for, said or not.
  void windows(const Node& node, NodeDraft& draft) {
    auto& a = draft.attributes;
    if (node.op == "Conv") {
      const Shape w = shape_of(model_, node.input(1));
      a.emplace("kernel_shape", Ints(w.begin() + 2, w.end()));
      a.emplace("dilations", Ints{1, 1});
      a.emplace("group", std::int64_t{1});
    } else if (node.op == "MaxPool") {
      a.emplace("dilations", Ints{1, 1});
      a.emplace("ceil_mode", std::int64_t{0});
    }
    a.emplace("strides", Ints{1, 1});
    a.erase("auto_pad");
    a["pads"] = plan_.pads(node);
  }

  bool covers_all(const Node& node) const {
    const Shape x = shape_of(model_, node.inputs[0]);
    const Ints kernel = node.integers("kernel_shape"), p = plan_.pads(node);
    return x.size() == 4 && kernel.size() == 2 && x[2] == kernel[0] && x[3] == kernel[1] &&
           std::all_of(p.begin(), p.end(), [](std::int64_t v) { return v == 0; });
  }

  Result<std::string> pad(const Node& node, const std::string& source, const Ints& p, const Ints& in) {
    const std::string result = writer_.tensor_name(source + "_padded");
    Quantized q;
    q.add("vai_quant_in", in);
    q.add("vai_quant_out", in);
    QUANVAS_CHECK(add_node(
        "Pad", node.name + "_pad", {source}, result,
        {{"mode", std::string("constant")}, {"pads", Ints{0, 0, p[0], p[1], 0, 0, p[2], p[3]}}, {"value", 0.0f}}, q, false));
    return result;
  }

  Status add_node(const std::string& op, const std::string& name, std::vector<std::string> inputs, const std::string& result,
                  const Attributes& attributes, const Quantized& q, bool biased) {
    while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
    NodeDraft draft{op == "Pad" ? writer_.node_name(name) : name, op, domain_, std::move(inputs), {result}, attributes, {}};
    draft.attributes["vai_quant"] = q.kinds;
    for (std::size_t i = 0; i < q.kinds.size(); ++i) draft.attributes[q.kinds[i]] = q.numbers[i];
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    if (op == "Relu") return {};  // PyXIR makes no line of it
    Quantized first = q, bias;
    const bool apart = op == "Gemm" && biased;
    if (apart) bias.add("", first.numbers.back()), first.numbers.pop_back();
    line(layer_name(apart ? result + "_Dense" : op == "Conv" && biased ? result + "_Conv" : result), first);
    if (apart) line(layer_name(result), bias);
    return {};
  }

  void line(const std::string& name, const Quantized& q) {
    text_ += (text_.empty() ? "" : "\n") + std::to_string(++lines_) + " " + name;
    for (const Ints& list : q.numbers)
      for (const std::int64_t v : list) text_ += " " + std::to_string(v);
  }

  Result<std::string> constant(const Node& node, SiteKind kind, bool turns, Quantized& quantized, const char* key) {
    for (const PlacedQuantizer& q : placement_.quantizers) {
      if (q.node != &node || q.site.kind != kind) continue;
      QUANVAS_TRY(StoredTensor stored, stored_tensor(model_, q));
      std::vector<float> values(stored.codes.begin(), stored.codes.end());
      Shape shape = stored.shape;
      if (turns) {
        for (std::int64_t r = 0; r < shape[0]; ++r)
          for (std::int64_t c = 0; c < shape[1]; ++c)
            values[static_cast<std::size_t>(c * shape[0] + r)] =
                static_cast<float>(stored.codes[static_cast<std::size_t>(r * shape[1] + c)]);
        std::swap(shape[0], shape[1]);
      }
      if (kind == SiteKind::kBias) shape = {static_cast<std::int64_t>(values.size())};
      const std::string name = writer_.tensor_name(graph_.tensor(q.tensor).name + "_codes");
      writer_.initializer(name, DataType::kFloat, shape, pack_floats(values));
      quantized.add(key, {kBits, *fix_position(*q.params)});
      return name;
    }
    return fail(ErrorCode::kInternal, "'" + node.name + "' has no quantizer at its " + std::string(enum_text(kind)) + ".");
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const bool apart_;
  const std::string domain_;
  Placement placement_;
  DpuPlan plan_;
  ModelWriter writer_;
  std::map<TensorId, std::string> seen_;
  std::string text_;
  int lines_ = 0;
};

TargetTable dpu_table() {
  TargetTable table;
  TargetRow weight;
  weight.form = "whole numbers + vai_quant_weights";
  weight.sites = {SiteKind::kWeight};
  weight.ops = {"Conv", "Gemm", "MatMul"};
  weight.least_bits = weight.most_bits = kBits;
  weight.is_signed = true;
  weight.narrow.reset();
  weight.roundings.clear();
  weight.scales = {ScaleType::kPowerOfTwo};
  weight.why = "The DPU shifts: 8 signed bits, one power of two for the tensor, no zero point.";
  TargetRow bias = weight;
  bias.form = "whole numbers + vai_quant_biases";
  bias.sites = {SiteKind::kBias};
  bias.why = "8 bits, too, with a position of its own.";
  TargetRow act = weight;
  act.form = "vai_quant_in, vai_quant_out";
  act.sites = {SiteKind::kInput, SiteKind::kOutput};
  act.ops = {"Conv", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Relu", "Clip", "Concat"};
  act.narrow = false;
  act.roundings = {Rounding::kHalfEven, Rounding::kDpu};
  act.decoupled = false;
  act.why = "Which way the DPU rounds ties is not in the file; all quantizers round alike.";
  table.rows = {weight, bias, act};
  table.notes = {
      "PyXIR has no arithmetic of the DPU, so what is proven is the network of the file: whole numbers and shifts.",
      "A text with the positions is written beside the file, for the compiler that asks for it."};
  return table;
}

class PyxirExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"pyxir", "Xilinx DPU (PyXIR)",
            "8 bit layers with powers of two as scales for Xilinx' deep learning processing units, as ONNX for PyXIR and as "
            "the text "
            "quantize_info beside it."};
  }
  std::string extension() const override { return ".onnx"; }
  Schema schema() const override {
    return {
        {choice_field("generation", "DPU", "How padding is said.", "2",
                      {{"2", "DPUv2", "A layer Pad before layers without padding"}, {"1", "DPUv1", "Layers with padding"}}),
         choice_field("domain", "Domain", "The name of the operators' domain; PyXIR reads both.", "pyxir",
                      {{"pyxir", "pyxir", "Brevitas 0.2 to 0.6"}, {"pyxir.onnx", "pyxir.onnx", "Brevitas 0.7"}})}};
  }
  TargetTable table(const json&) const override { return dpu_table(); }
  std::vector<std::string> files(const std::string& path, const json&) const override { return {path, text_path(path)}; }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    const Graph& graph = *model.model->graph;
    std::vector<Refusal> out = check_graph(*model.model, std::max(graph.opset(), kDpuOpset));
    for (Refusal& r : check_quantizers(model, dpu_table())) out.push_back(std::move(r));
    const Placement placement = place(model);
    std::optional<Rounding> rounding;
    for (const PlacedQuantizer& q : placement.quantizers) {
      const auto add = [&](const char* rule, std::string got, std::string allowed, std::string suggestion) {
        out.push_back(
            {q.node->name, q.name, rule, std::move(got), std::move(allowed), std::move(suggestion), q.site, {}, false});
      };
      if (out.empty() && !fix_position(*q.params))
        add("scale", "scale " + std::to_string(q.params->scale.empty() ? 0 : q.params->scale[0]), "a power of two",
            "Choose the scale type power-of-two.");
      if (!is_activation(q.site.kind)) continue;
      if (rounding && *rounding != q.params->spec.rounding)
        add("rounding", enum_text(q.params->spec.rounding), std::string(enum_text(*rounding)) + ", as the quantizers before",
            "Let all quantizers round alike.");
      rounding = q.params->spec.rounding;
    }
    if (!out.empty()) return out;
    return DpuPlan(model, placement, pads_apart(options)).refusals();
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to PyXIR", [&] { return DpuWriter(model, options).write(path, job); });
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_dpu(model, path, text_path(path), domain_of(options)); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return read_with_sites(model, path, job);
  }
};
QUANVAS_PLUGIN(Exporter, PyxirExporter)

}  // namespace
}  // namespace quanvas
