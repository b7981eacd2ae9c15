// Quanvas - ONNX QOperator: which nodes of a quantized network become operators on codes (QLinearConv ...), and what keeps
// the others from it. For the target's check, writer and audit.
//
// A tensor is held as codes when its maker has an output quantizer, or when everything that reads it quantizes it in the
// same way: then the maker rounds its sums to those codes at once. Operators that only move values, and those that are
// monotone (Relu, Clip, MaxPool), commute with rounding and run on the codes.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/graph/layers.h"
#include "core/plugin/placement.h"
#include "plugins/exporters/code_limits.h"
#include "plugins/exporters/onnx_file.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas::onnx_file {

inline constexpr const char* kMicrosoftDomain = "com.microsoft";

struct QOperatorOptions {
  std::string gemm = "qlinearconv";  // how products with a weight and a bias are written: qlinearconv, qgemm, qlinearmatmul
  bool mixed = false;     // layers that lack a quantizer are computed in float from their codes instead of being refused
  bool external = false;  // weights in a second file
};
QOperatorOptions qoperator_options(const json& options);
TargetTable qoperator_table();

enum class CodeForm {
  kFloat,
  kConv,
  kRows,
  kRowsTransposed,
  kQGemm,
  kMatMul,
  kAdd,
  kMul,
  kConcat,
  kAveragePool,
  kGlobalAveragePool,
  kSigmoid,
  kLeakyRelu,
  kSoftmax,
  kConvInteger,   // of a dynamic input: whole sums, which are scaled in float
  kMatMulInteger
};

// One scale and zero point for the whole tensor, the same codes.
bool same_codes(const quant::QuantParams& a, const quant::QuantParams& b);
// Whether the operator may run on codes: its value at quantized inputs is the quantized value.
bool runs_on_codes(const Graph& graph, const Node& node);

struct CodeLayer {
  CodeForm form = CodeForm::kFloat;
  const PlacedQuantizer *weight = nullptr, *bias = nullptr;
  std::vector<const quant::QuantParams*> inputs;  // by the node's inputs; null: float, or a constant
  const quant::QuantParams* output = nullptr;     // of the codes that it gives
};

// Points into the model.
class CodePlan {
 public:
  CodePlan(const QuantizedModel& model, const QOperatorOptions& options);

  // The layer's integer form; kFloat: it has none.
  const CodeLayer& at(NodeId node) const;
  // Quantizers of the model; null: none there.
  const quant::QuantParams* input(const Node& node, std::size_t index) const;
  const quant::QuantParams* output(const Node& node) const;
  // Whether the node's result is rounded to these codes before anyone sees it.
  bool is_seen_as(const Node& node, const quant::QuantParams& p) const;
  const std::vector<PlacedQuantizer>& constants(NodeId reader) const;  // weights and biases that the node reads
  // Layers with weights that have some quantizers and no integer form.
  const std::vector<Refusal>& refusals() const { return refusals_; }

 private:
  const quant::QuantParams* exact(TensorId tensor, int depth = 0) const;
  bool demanded(TensorId tensor, const quant::QuantParams*& all, int depth = 0) const;
  const quant::QuantParams* result(const Node& node) const;
  CodeLayer plan(const Layer& layer, const Node& node);
  CodeForm form_of(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const;
  CodeForm product_form(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const;
  CodeForm dynamic_form(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const;
  void check_numbers(const Node& node, CodeLayer& codes);
  void missing(const Layer& layer, const Node& node, const CodeLayer& codes, const std::string& why);

  const QuantizedModel& model_;
  const Graph& graph_;
  QOperatorOptions options_;
  TargetTable table_;
  std::vector<PlacedQuantizer> placed_;
  std::map<std::pair<NodeId, std::size_t>, const quant::QuantParams*> inputs_;
  std::map<NodeId, const quant::QuantParams*> outputs_;
  std::map<NodeId, std::vector<PlacedQuantizer>> constants_;
  std::map<NodeId, CodeLayer> layers_;
  std::vector<Refusal> refusals_;
};

std::vector<Refusal> check_qoperator(const QuantizedModel& model, const QOperatorOptions& options);
Status write_qoperator(const QuantizedModel& model, const QOperatorOptions& options, const std::string& path, JobContext& job);

// The parts of a layer whose input finds its scale at run time (onnx_qoperator_dynamic.cpp):
//   codes, x_scale, x_zero = DynamicQuantizeLinear(x)
//   result = Cast(MatMulInteger(codes, weight, x_zero, zero)) * (x_scale * scale) [+ bias]          or ConvInteger
// ConvInteger's weight is uint8, a signed one with 128 added to codes and zero point: onnxruntime long had no other kernel.
// The layer's node keeps its name; the last node has it with kResult behind it.
struct DynamicCodes {
  std::string codes, scale, zero_point;
};
struct DynamicLayer {
  const Node& node;
  const PlacedQuantizer& weight;
  StoredTensor stored;  // the weight
  DynamicCodes input;
  std::string result;   // float32
};
// Adds an initializer, or finds an equal one: name that is wanted, type, shape, bytes; gives the name that it has.
using MakeConstant = std::function<std::string(const std::string&, DataType, const Shape&, const std::string&)>;
Status write_dynamic_layer(const QuantizedModel& model, const DynamicLayer& layer, const MakeConstant& constant,
                           ModelWriter& writer);

// The reader of its own: see onnx_audit.h.
Result<std::vector<AuditRow>> audit_qoperator(const QuantizedModel& model, const std::string& path);
Status find_codes(const QuantizedModel& model, const std::string& path, ReadBack& back);
// Whether the site's layer computes whole sums of codes whose scale is found at run time, and the row of its input or
// weight.
bool has_dynamic_sums(const OnnxFile& file, const PlacedQuantizer& placed);
AuditRow dynamic_row(const QuantizedModel& model, const OnnxFile& file, const PlacedQuantizer& placed);
// The DynamicQuantizeLinear whose codes this node reads, or what DequantizeLinear makes of them; null: none.
const onnx::NodeProto* quantizes_at_run_time(const OnnxFile& file, const onnx::NodeProto& node, const PlacedQuantizer& placed);

}  // namespace quanvas::onnx_file
