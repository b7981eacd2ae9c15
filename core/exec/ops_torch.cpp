#include <limits>
#include <set>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "core/base/guarded.h"
#include "core/exec/ops.h"
#include "core/exec/torch_call.h"

namespace quanvas::exec {
namespace {

c10::optional<c10::OperatorHandle> find_operator(const TorchCall& call) {
  return c10::Dispatcher::singleton().findSchema({call.op, call.overload});
}

std::string refusal(const TorchCall& call, const c10::FunctionSchema& schema) {
  // Whose result does not follow from the arguments alone, or that reach beyond them.
  static const std::set<std::string> refused = {
      "aten::from_file",         "aten::empty",     "aten::empty_like",    "aten::empty_strided", "aten::new_empty",
      "aten::new_empty_strided", "aten::bernoulli", "aten::multinomial",   "aten::normal",        "aten::poisson",
      "aten::binomial",          "aten::dropout",   "aten::record_stream", "aten::set_data"};
  if (call.op.rfind("aten::", 0) != 0) return "operator '" + call.op + "' is not one of LibTorch's own";
  if (schema.is_mutable()) return "operator '" + call.op + "' writes to its arguments";
  if (refused.count(call.op) || call.op.rfind("aten::rand", 0) == 0)
    return "operator '" + call.op + "' does not compute its result from its inputs alone";
  for (const auto& argument : schema.arguments())
    if (argument.name() == "generator") return "operator '" + call.op + "' draws random numbers";
  if (call.arguments.size() != schema.arguments().size())
    return "operator '" + call.op + "' takes " + std::to_string(schema.arguments().size()) + " arguments, " +
           std::to_string(call.arguments.size()) + " are given";
  return {};
}

const at::Tensor& input_of(const json& entry, const char* kind, const std::vector<at::Tensor>& inputs) {
  const auto i = entry.at(kind).get<std::size_t>();
  if (i >= inputs.size() || !inputs[i].defined())
    throw std::runtime_error("an argument stands for an input that is not there");
  return inputs[i];
}

double special(const json& entry) {
  const auto text = entry.at("real").get<std::string>();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  return text == "inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
}

c10::IValue number_in(const at::Tensor& t, const c10::TypePtr& type) {
  if (type->kind() == c10::TypeKind::TensorType) return t;
  if (t.numel() != 1) throw std::runtime_error("an argument is " + sizes_text(t) + ", expected one number");
  const at::Scalar s = t.item();
  if (type->kind() == c10::TypeKind::BoolType || s.isBoolean()) return s.toBool();
  return s.isFloatingPoint() ? c10::IValue(s.toDouble()) : c10::IValue(s.toLong());
}

c10::IValue argument(const json& entry, const c10::TypePtr& type, const std::vector<at::Tensor>& inputs) {
  if (const auto optional = type->cast<c10::OptionalType>())
    return entry.is_null() ? c10::IValue() : argument(entry, optional->getElementType(), inputs);
  if (entry.is_null()) return type->kind() == c10::TypeKind::TensorType ? c10::IValue(at::Tensor()) : c10::IValue();
  if (entry.is_object() && entry.contains("tensor")) return input_of(entry, "tensor", inputs);
  if (entry.is_object() && entry.contains("number")) return number_in(input_of(entry, "number", inputs), type);
  if (entry.is_object()) return special(entry);
  if (entry.is_array()) {
    const auto list = type->cast<c10::ListType>();
    if (!list) throw std::runtime_error("a list stands where one value is needed");
    c10::impl::GenericList items(list->getElementType());
    for (const json& item : entry) items.push_back(argument(item, list->getElementType(), inputs));
    return items;
  }
  if (entry.is_string())
    return type->kind() == c10::TypeKind::DeviceObjType ? c10::IValue(c10::Device(c10::kCPU))
                                                        : c10::IValue(entry.get<std::string>());
  if (entry.is_boolean()) return entry.get<bool>();
  if (type->kind() == c10::TypeKind::TensorType) return at::scalar_tensor(entry.get<double>());
  if (type->kind() == c10::TypeKind::ListType) return argument(json::array({entry}), type, inputs);
  if (entry.is_number_integer() && type->kind() != c10::TypeKind::FloatType) return entry.get<std::int64_t>();
  return entry.get<double>();
}

std::string refuse(const Node& node) {
  const auto call = torch_call_of(node);
  return call ? torch_refusal(*call) : call.error().message;
}

OpResult run(const OpCall& call) {
  QUANVAS_TRY(const TorchCall torch, torch_call_of(call.node));
  return run_torch(torch, call.in, call.node.outputs.size());
}

}  // namespace

Result<TorchCall> torch_call_of(const Node& node) {
  TorchCall call{node.text("operator", ""), node.text("overload", ""),
                 json::parse(node.text("arguments", ""), nullptr, false)};
  if (!call.arguments.is_array()) return bad_node("its arguments cannot be read.");
  return call;
}

std::string torch_refusal(const TorchCall& call) {
  const auto op = find_operator(call);
  if (!op)
    return "this LibTorch has no operator '" + call.op + (call.overload.empty() ? "" : "." + call.overload) + "'";
  return refusal(call, op->schema());
}

Result<std::vector<at::Tensor>> run_torch(const TorchCall& call, const std::vector<at::Tensor>& inputs,
                                          std::size_t outputs) {
  if (const std::string why = torch_refusal(call); !why.empty()) return fail(ErrorCode::kUnsupported, why + ".");
  return guarded(call.op, [&]() -> Result<std::vector<at::Tensor>> {
    const auto op = find_operator(call);
    torch::jit::Stack stack;
    for (std::size_t i = 0; i < call.arguments.size(); ++i)
      stack.push_back(argument(call.arguments[i], op->schema().arguments()[i].type(), inputs));
    op->callBoxed(stack);
    Tensors out;
    for (const c10::IValue& v : stack) {
      if (v.isTensor())
        out.push_back(v.toTensor());
      else if (v.isTensorList())
        for (const at::Tensor& t : v.toTensorVector()) out.push_back(t);
      else if (v.isScalar())
        out.push_back(at::scalar_tensor(v.toScalar(), v.isDouble() ? at::kFloat
                                                      : v.isInt()  ? at::kLong
                                                                   : at::kBool));
      else
        return bad_node("'" + call.op + "' gives something else than tensors.");
    }
    if (out.size() != outputs)
      return bad_node("'" + call.op + "' gives " + std::to_string(out.size()) + " results, expected " +
                      std::to_string(outputs) + ".");
    return out;
  });
}

const std::vector<OpRow>& torch_ops() {
  static const std::vector<OpRow> rows = {{"TorchScript", 0, run, refuse}};
  return rows;
}

}  // namespace quanvas::exec
