// The Runner's way of nodes that take or give sequences and optionals or hold subgraphs, and of element types that
// LibTorch lacks.
#include <ATen/ATen.h>

#include <unordered_set>

#include "core/base/guarded.h"
#include "core/exec/ops.h"
#include "core/exec/runner_parts.h"

namespace quanvas::exec {
namespace {

constexpr int kDeepest = 64;  // subgraphs in subgraphs

// Operators whose 64-bit results are right whether the highest bit is a sign or not.
bool ignores_sign(const std::string& op) {
  static const std::unordered_set<std::string> ops = {"Add",           "Sub",
                                                      "Mul",           "Sum",
                                                      "BitShift",      "BitwiseAnd",
                                                      "BitwiseOr",     "BitwiseXor",
                                                      "BitwiseNot",    "Equal",
                                                      "Where",         "Reshape",
                                                      "Flatten",       "Squeeze",
                                                      "Unsqueeze",     "Transpose",
                                                      "Concat",        "Split",
                                                      "Slice",         "Pad",
                                                      "Expand",        "Tile",
                                                      "Shape",         "Size",
                                                      "Gather",        "GatherElements",
                                                      "GatherND",      "ScatterElements",
                                                      "Scatter",       "ScatterND",
                                                      "Compress",      "ReverseSequence",
                                                      "DepthToSpace",  "SpaceToDepth",
                                                      "Identity",      "NonZero",
                                                      "CastLike",      "ReduceSum",
                                                      "CumSum",        "Trilu",
                                                      "EyeLike",       "SequenceConstruct",
                                                      "SequenceInsert"};
  return ops.count(op) > 0;
}

bool is_integer_type(std::int64_t type) {
  const auto t = static_cast<DataType>(type);
  return t != DataType::kFloat && t != DataType::kDouble && t != DataType::kFloat16 && t != DataType::kBfloat16;
}

}  // namespace

void Runner::find_types() {
  const Graph& g = graph();
  for (std::size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& node = g.nodes()[i];
    NodeTypes types;
    for (std::size_t k = 0; k < node.outputs.size(); ++k) {
      if (node.outputs[k] == kNoTensor) continue;
      const DataType type = g.tensor(node.outputs[k]).type;
      if (type == DataType::kUint16) types.wrapped.emplace_back(k, 16);
      if (type == DataType::kUint32) types.wrapped.emplace_back(k, 32);
    }
    const bool exact = ignores_sign(node.op) || (node.op == "Cast" && is_integer_type(node.integer("to", 1)));
    for (std::size_t k = 0; k < node.inputs.size() && !exact; ++k)
      if (node.inputs[k] != kNoTensor && g.tensor(node.inputs[k]).type == DataType::kUint64)
        types.below_2_63.push_back(k);
    if (!types.wrapped.empty() || !types.below_2_63.empty()) types_.emplace(i, std::move(types));
  }
}

Status Runner::fit_types(std::size_t index, const std::vector<at::Tensor>& in) const {
  for (const std::size_t k : types_.at(index).below_2_63)
    if (in[k].defined() && in[k].scalar_type() == at::kLong && in[k].lt(0).any().item().toBool())
      return fail(ErrorCode::kUnsupported,
                  "an input of type uint64 holds values of 2^63 and more, which this operator "
                  "cannot be computed with here.");
  return {};
}

at::Tensor Runner::fit_type(std::size_t index, std::size_t output, at::Tensor y) const {
  for (const auto& [k, bits] : types_.at(index).wrapped)
    if (k == output && y.defined() && !y.is_floating_point() && y.scalar_type() != at::kBool)
      y = y.to(bits == 16 ? at::kInt : at::kLong).bitwise_and((std::int64_t{1} << bits) - 1);
  return y;
}

Status Runner::make_bodies(int depth) {
  const Graph& g = graph();
  for (std::size_t i = 0; i < g.nodes().size(); ++i) {
    for (const auto& [key, attribute] : g.nodes()[i].attributes) {
      const auto* body = std::get_if<GraphPtr>(&attribute);
      if (!body || !*body || !refusals_[i].empty()) continue;
      if (depth >= kDeepest)
        return fail(ErrorCode::kUnsupported, label(g.nodes()[i]) + ": subgraphs stand in each other more than " +
                                                 std::to_string(kDeepest) + " deep.");
      auto model =
          std::make_shared<const Model>(Model{*body, std::make_shared<const WeightStore>(), model_->source});
      QUANVAS_TRY(bodies_[i][key], make(std::move(model), nullptr, device_, depth + 1));
    }
  }
  return {};
}

Result<Values> Runner::gather_values(std::size_t index, const Environment& env, const RunHooks& hooks) const {
  const Node& node = graph().nodes()[index];
  Values in;
  for (const TensorId id : node.inputs) {
    in.emplace_back();
    if (id == kNoTensor) continue;
    if (const auto it = env.others.find(id); it != env.others.end())
      in.back() = it->second;
    else
      in.back().tensor = value(index, id, env, hooks);
    if (!in.back().defined())
      return fail(ErrorCode::kInvalidArgument,
                  label(node) + ": its input '" + graph().tensor(id).name + "' has no value" +
                      (graph().tensor(id).is_initializer ? " (the model holds no usable data for it)." : "."));
  }
  return in;
}

Status Runner::run_value_node(std::size_t index, Environment& env, const RunHooks& hooks) const {
  const Node& node = graph().nodes()[index];
  static const Bodies none;
  const auto bodies = bodies_.find(index);
  std::vector<at::Tensor> tensors;  // for messages
  auto done = guarded(label(node), [&]() -> Result<Values> {
    QUANVAS_TRY(const Values in, gather_values(index, env, hooks));
    for (const Value& v : in) tensors.push_back(v.tensor);
    if (types_.count(index)) QUANVAS_CHECK(fit_types(index, tensors));
    return find_op(node)->run_values({graph(), node, hooks, in, bodies == bodies_.end() ? none : bodies->second});
  });
  if (!done) return Failure(describe_failure(node, tensors, std::move(done).error()));
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    const TensorId id = node.outputs[i];
    if (id == kNoTensor) continue;
    if (i >= done->size() || !(*done)[i].defined())
      return fail(ErrorCode::kUnsupported,
                  label(node) + ": output " + std::to_string(i + 1) + " is not computed here.");
    Value& v = (*done)[i];
    if (v.tensor.defined()) {
      env[at_index(id)] = v.tensor;
      env.others.erase(id);
      if (hooks.tap) hooks.tap(id, v.tensor);
    } else {
      env[at_index(id)].reset();
      env.others[id] = std::move(v);
    }
  }
  return {};
}

Status Runner::start_values(const Values& inputs, Environment& env, const RunHooks& hooks) const {
  const Graph& g = graph();
  if (inputs.size() != g.inputs().size())
    return fail(ErrorCode::kInvalidArgument, "The model has " + std::to_string(g.inputs().size()) + " input(s), " +
                                                 std::to_string(inputs.size()) + " were given.");
  return guarded("inputs", [&]() -> Status {
    env.resize(g.tensors().size());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const TensorId id = g.inputs()[i];
      if (!inputs[i].defined())
        return fail(ErrorCode::kInvalidArgument, "Input '" + g.tensor(id).name + "' was not given.");
      if (!inputs[i].tensor.defined())
        env.others[id] = inputs[i];
      else if (is_body_)
        env[at_index(id)] = inputs[i].tensor;
      else
        QUANVAS_CHECK(place(i, inputs[i].tensor, env, hooks));
    }
    return {};
  });
}

Result<Values> Runner::run_values(const Values& inputs, const RunHooks& hooks) const {
  Environment env;
  QUANVAS_CHECK(start_values(inputs, env, hooks));
  QUANVAS_CHECK(run_rest(env, hooks));
  Values outputs;
  for (const TensorId id : graph().outputs()) {
    outputs.emplace_back();
    if (const auto it = env.others.find(id); it != env.others.end())
      outputs.back() = it->second;
    else
      outputs.back().tensor = value(graph().nodes().size(), id, env, hooks);
    if (!outputs.back().defined())
      return fail(ErrorCode::kInvalidArgument, "Output '" + graph().tensor(id).name + "' has no value.");
  }
  return outputs;
}

}  // namespace quanvas::exec
