// Quanvas - files that TVM's frontends take: what another target writes, held to the operators and types of those frontends.
// Relay (TVM 0.8 to 0.19): python/tvm/relay/frontend/pytorch.py, qnn_torch.py and onnx.py. Relax (from 0.20 on):
// python/tvm/relax/frontend/onnx/onnx_frontend.py.
#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "core/base/guarded.h"
#include "core/graph/rotation_node.h"
#include "core/plugin/placement.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_scan.h"

namespace quanvas {
namespace {

using Names = std::set<std::string>;

constexpr int kOpset = 13;

// What Relax makes of ONNX's float operators and of those that quantize.
const Names& relax_operators() {
  static const Names ops = {"Abs",
                            "Acos",
                            "Acosh",
                            "Add",
                            "And",
                            "ArgMax",
                            "ArgMin",
                            "Asin",
                            "Asinh",
                            "Atan",
                            "Atanh",
                            "Attention",
                            "AveragePool",
                            "BatchNormalization",
                            "Cast",
                            "Ceil",
                            "Clip",
                            "Compress",
                            "Concat",
                            "Constant",
                            "ConstantOfShape",
                            "Conv",
                            "ConvTranspose",
                            "Cos",
                            "Cosh",
                            "CumSum",
                            "DepthToSpace",
                            "DequantizeLinear",
                            "Div",
                            "DynamicQuantizeLinear",
                            "Einsum",
                            "Elu",
                            "Equal",
                            "Erf",
                            "Exp",
                            "Expand",
                            "EyeLike",
                            "Flatten",
                            "Floor",
                            "Gather",
                            "GatherElements",
                            "GatherND",
                            "Gelu",
                            "Gemm",
                            "GlobalAveragePool",
                            "GlobalLpPool",
                            "GlobalMaxPool",
                            "Greater",
                            "GreaterOrEqual",
                            "GridSample",
                            "HardSigmoid",
                            "HardSwish",
                            "Hardmax",
                            "Identity",
                            "InstanceNormalization",
                            "IsInf",
                            "IsNaN",
                            "LRN",
                            "LayerNormalization",
                            "LeakyRelu",
                            "Less",
                            "LessOrEqual",
                            "Log",
                            "LogSoftmax",
                            "LpPool",
                            "MatMul",
                            "MatMulInteger",
                            "Max",
                            "MaxPool",
                            "MaxUnpool",
                            "Mean",
                            "MeanVarianceNormalization",
                            "Min",
                            "Mish",
                            "Mod",
                            "Mul",
                            "Neg",
                            "NonMaxSuppression",
                            "NonZero",
                            "Not",
                            "OneHot",
                            "Or",
                            "PRelu",
                            "Pad",
                            "Pow",
                            "QuantizeLinear",
                            "Range",
                            "Reciprocal",
                            "ReduceL1",
                            "ReduceL2",
                            "ReduceLogSum",
                            "ReduceLogSumExp",
                            "ReduceMax",
                            "ReduceMean",
                            "ReduceMin",
                            "ReduceProd",
                            "ReduceSum",
                            "ReduceSumSquare",
                            "Relu",
                            "Reshape",
                            "Resize",
                            "Round",
                            "Scatter",
                            "ScatterElements",
                            "ScatterND",
                            "Selu",
                            "Shape",
                            "Shrink",
                            "Sigmoid",
                            "Sign",
                            "Sin",
                            "Sinh",
                            "Size",
                            "Slice",
                            "Softmax",
                            "Softplus",
                            "Softsign",
                            "SpaceToDepth",
                            "Split",
                            "Sqrt",
                            "Squeeze",
                            "Sub",
                            "Sum",
                            "Tan",
                            "Tanh",
                            "ThresholdedRelu",
                            "Tile",
                            "TopK",
                            "Transpose",
                            "Trilu",
                            "Unique",
                            "Unsqueeze",
                            "Upsample",
                            "Where",
                            "Xor"};
  return ops;
}

// Of Relay's, those that operators on codes and what stands around them need.
const Names& relay_operators() {
  static const Names ops = [] {
    Names all = relax_operators();
    for (const char* fresh : {"MaxUnpool", "Unique", "Attention", "Gelu", "Mish", "GridSample", "Compress"}) all.erase(fresh);
    for (const char* own :
         {"QLinearConv", "QLinearMatMul", "ConvInteger", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid",
          "QLinearSoftmax", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "QAttention"})
      all.insert(own);
    return all;
  }();
  return ops;
}

// Layers whose quantized form Relay's PyTorch frontend knows: no 1-d and no 3-d convolutions.
const Names& relay_torch_layers() {
  static const Names ops = {"Conv",      "ConvTranspose", "Gemm",    "MatMul",      "Add",
                            "Mul",       "Concat",        "Relu",    "Clip",        "LeakyRelu",
                            "HardSwish", "Sigmoid",       "MaxPool", "AveragePool", "GlobalAveragePool",
                            "ReduceMean"};
  return ops;
}

enum class Kind { kRelaxQdq, kRelayQOperator, kRelayTorch };

struct Profile {
  const char *id, *title, *doc, *extension, *writes;  // writes: the target that does
  Kind kind;
  std::vector<std::string> notes;
};

class TvmProfile : public Exporter {
 public:
  explicit TvmProfile(Profile profile) : profile_(std::move(profile)) {}
  PluginInfo info() const override { return {profile_.id, profile_.title, profile_.doc}; }
  std::string extension() const override { return profile_.extension; }

  std::string unavailable() const override {
    const Exporter* writer = other();
    if (writer == nullptr)
      return std::string("It writes what the target ") + profile_.writes +
             " writes, which is not installed; use tvm-relax-qdq or onnx-qdq.";
    return writer->unavailable();
  }

  TargetTable table(const json&) const override {
    const Exporter* writer = other();
    if (writer == nullptr) return {};
    TargetTable table = writer->table(their_options(*writer));
    std::vector<TargetRow> kept;
    for (TargetRow& row : table.rows)
      if (restrict(row)) kept.push_back(std::move(row));
    table.rows = std::move(kept);
    table.notes.insert(table.notes.end(), profile_.notes.begin(), profile_.notes.end());
    return table;
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    const Exporter* writer = other();
    if (writer == nullptr)
      return {{"", "", "target", profile_.writes, "a target that is installed", unavailable(), {}, {}, false}};
    std::vector<Refusal> out = writer->check(model, their_options(*writer));
    TargetTable own = table(options);
    own.needs.clear();  // the writer has looked: an output may take the quantizer of what reads it
    for (Refusal& r : check_quantizers(model, own))
      if (std::none_of(out.begin(), out.end(), [&](const Refusal& o) {
            return o.layer == r.layer && o.quantizer == r.quantizer && o.rule == r.rule;
          }))
        out.push_back(std::move(r));
    for (const Node& node : model.model->graph->nodes()) operators(model, node, out);
    return out;
  }

  // Written beside the target by the other exporter, looked through, and only then given its name.
  Status write(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded(profile_.title, [&]() -> Status {
      const Exporter* writer = other();
      if (writer == nullptr)
        return fail(ErrorCode::kUnsupported, std::string("'") + profile_.id + "' is not available.", unavailable());
      if (profile_.kind == Kind::kRelayTorch) return writer->write(model, path, their_options(*writer), job);
      const std::string draft = path + ".checking" + profile_.extension;
      struct Removed {
        const std::string& file;
        ~Removed() {
          std::error_code ec;
          std::filesystem::remove(file, ec);
        }
      } const removed{draft};
      QUANVAS_CHECK(writer->write(model, draft, their_options(*writer), job));
      if (const std::string why = foreign(draft); !why.empty())
        return fail(ErrorCode::kUnsupported,
                    std::string("TVM does not take what ") + profile_.writes + " wrote: " + why + ".",
                    "Leave the layer float, or export for another target.");
      std::error_code ec;
      std::filesystem::rename(draft, path, ec);
      if (ec) return fail(ErrorCode::kIo, "'" + path + "' cannot be written: " + ec.message() + ".", "Choose another name.");
      return {};
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path, const json&) const override {
    const Exporter* writer = other();
    if (writer == nullptr)
      return fail(ErrorCode::kUnsupported, std::string("'") + profile_.id + "' is not available.", unavailable());
    QUANVAS_TRY(std::vector<AuditRow> rows, writer->audit(model, path, their_options(*writer)));
    if (profile_.kind == Kind::kRelayTorch) return rows;
    const std::string why = foreign(path);
    for (AuditRow& row : rows) {
      row.equal = row.equal && why.empty();
      if (!why.empty()) row.written += " (" + why + ")";
    }
    return rows;
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    const Exporter* writer = other();
    if (writer == nullptr)
      return fail(ErrorCode::kUnsupported, std::string("'") + profile_.id + "' is not available.", unavailable());
    return writer->read(model, path, their_options(*writer), job);
  }

 private:
  const Exporter* other() const { return Registry<Exporter>::instance().find(profile_.writes); }

  // The other target's defaults, at the opset of this profile where it lets one choose.
  static json their_options(const Exporter& writer) {
    const Schema schema = writer.schema();
    json given = json::object();
    if (const Field* opset = schema.find("opset")) {
      if (opset->type == FieldType::kInteger) given["opset"] = kOpset;
      for (const Choice& c : opset->choices)
        if (c.value == std::to_string(kOpset)) given["opset"] = c.value;
    }
    auto all = schema.complete(given, writer.info().id);
    return all ? *all : schema.defaults();
  }

  // Eight bits, one scale or one for each channel; false: the frontend has nothing for the row.
  bool restrict(TargetRow& row) const {
    const bool bias = row.sites == std::vector{SiteKind::kBias};
    if (std::find(row.formats.begin(), row.formats.end(), "int") == row.formats.end() && !row.formats.empty()) return false;
    row.formats = {"int"};
    const int bits = bias ? 32 : 8;
    if (row.most_bits < bits || (!bias && row.least_bits > 8) || row.dynamic == std::optional(true)) return false;
    row.least_bits = row.most_bits = bits;
    row.dynamic = false;
    std::erase_if(row.granularities, [](Granularity g) { return g == Granularity::kGroup || g == Granularity::kRow; });
    if (row.granularities.empty()) row.granularities = {Granularity::kTensor, Granularity::kChannel};
    const bool activation = std::any_of(row.sites.begin(), row.sites.end(), [](SiteKind k) { return is_activation(k); });
    if (activation) {
      if (row.narrow && *row.narrow) return false;
      row.narrow = false;  // a Clip of codes is more than the frontends say of themselves
      row.truncation = false;
      if (profile_.kind != Kind::kRelaxQdq) row.granularities = {Granularity::kTensor};
    } else if (profile_.kind == Kind::kRelayTorch) {
      row.zero_points = {ZeroPointType::kNone};
    }
    row.why = row.why.empty() ? "TVM's quantized operators are of 8 bits." : row.why;
    return true;
  }

  void operators(const QuantizedModel& model, const Node& node, std::vector<Refusal>& out) const {
    const auto add = [&](std::string got, std::string allowed) {
      out.push_back({node.name,
                     {},
                     "operator",
                     std::move(got),
                     std::move(allowed),
                     "Replace the operator, or export for another target.",
                     {},
                     {},
                     false});
    };
    if (!node.opaque_reason.empty()) return;
    if (profile_.kind == Kind::kRelayTorch) {
      bool quantized = false;
      for (const auto& [site, params] : model.quantizers) quantized = quantized || site.node == node.id;
      const std::size_t rank = node.input(1) == kNoTensor ? 0 : shape_of(model, node.input(1)).size();
      if (quantized && !relay_torch_layers().count(node.op))
        add("a quantized " + node.op, "the quantized layers of Relay's PyTorch frontend");
      else if (quantized && node.op.starts_with("Conv") && rank != 4)
        add("a quantized convolution over other than 2 axes", "2 axes");
      return;
    }
    const Names& known = profile_.kind == Kind::kRelaxQdq ? relax_operators() : relay_operators();
    // What ONNX at this opset does not have is written as what it consists of.
    static const Names written_apart = {"LayerNormalization", "RMSNormalization", "Gelu"};
    if (is_hadamard(node.domain, node.op)) return;  // written as a product
    if (!node.domain.empty())
      add(node.domain + "." + node.op, "operators of ai.onnx");
    else if (node.domain.empty() && !known.count(node.op) && !written_apart.count(node.op))
      add(node.op, "the operators of TVM's ONNX frontend");
  }

  // Why the frontend would not take the file, as a clause; empty: it does.
  std::string foreign(const std::string& path) const {
    const auto proto = onnx_scan::read(path);
    if (!proto) return proto.error().message;
    const Names& known = profile_.kind == Kind::kRelaxQdq ? relax_operators() : relay_operators();
    if (profile_.kind == Kind::kRelaxQdq && onnx_scan::version_of(*proto, "") > 23)
      return "its opset is " + std::to_string(onnx_scan::version_of(*proto, ""));
    for (const auto& n : proto->graph().node()) {
      if (!known.count(n.op_type())) return "the operator " + n.op_type() + " of '" + n.name() + "'";
      for (const char* key : {"block_size", "precision"})
        if (onnx_scan::integer(n, key, 0) != 0) return std::string("the attribute ") + key + " of '" + n.name() + "'";
    }
    for (const auto& t : proto->graph().initializer())
      if (t.data_type() > onnx::TensorProto::BFLOAT16) return "the element type of '" + t.name() + "'";
    return {};
  }

  Profile profile_;
};

class RelaxQdq final : public TvmProfile {
 public:
  RelaxQdq()
      : TvmProfile({"tvm-relax-qdq",
                    "TVM Relax (ONNX QDQ)",
                    "8 bit QuantizeLinear and DequantizeLinear at opset 13 for the ONNX frontend of TVM 0.20 and newer.",
                    ".onnx",
                    "onnx-qdq",
                    Kind::kRelaxQdq,
                    {"Proven is the file, as onnx-qdq proves it; TVM itself was not there to run it."}}) {}
};
QUANVAS_PLUGIN(Exporter, RelaxQdq)

class RelayQOperator final : public TvmProfile {
 public:
  RelayQOperator()
      : TvmProfile({"tvm-relay-qoperator",
                    "TVM Relay (ONNX QOperator)",
                    "8 bit operators on codes for the ONNX frontend of TVM 0.8 to 0.19.",
                    ".onnx",
                    "onnx-qoperator",
                    Kind::kRelayQOperator,
                    {"Relay rounds ties upward where it requantizes, ONNX to even: at most one step there.",
                     "Proven is the file; TVM itself was not there to run it."}}) {}
};
QUANVAS_PLUGIN(Exporter, RelayQOperator)

class RelayPytorch final : public TvmProfile {
 public:
  RelayPytorch()
      : TvmProfile(
            {"tvm-relay-pytorch",
             "TVM Relay (PyTorch)",
             "TorchScript with quantized operators for the PyTorch frontend of TVM 0.8 to 0.19.",
             ".pt",
             "torchscript-quantized",
             Kind::kRelayTorch,
             {"Weights have no zero points there, and convolutions are over 2 axes.",
              "Relay rounds ties upward where it requantizes; proven is the file, TVM itself was not there to run it."}}) {}
};
QUANVAS_PLUGIN(Exporter, RelayPytorch)

}  // namespace
}  // namespace quanvas
