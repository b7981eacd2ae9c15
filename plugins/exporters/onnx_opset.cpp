#include "plugins/exporters/onnx_opset.h"

#include <utility>

namespace quanvas::onnx_file {

namespace {

using Constant = NodeDraft::Constant;

void put_input(NodeDraft& draft, std::size_t index, const std::string& role, TensorData data) {
  if (draft.inputs.size() <= index) draft.inputs.resize(index + 1);
  const std::string name = draft.name + "_" + role;
  draft.inputs[index] = name;
  draft.constants.push_back(Constant{name, std::move(data)});
}

// The attribute becomes input `index`: integers as int64[n], a float as float32 scalar.
void attribute_to_input(NodeDraft& draft, const std::string& key, std::size_t index) {
  const auto it = draft.attributes.find(key);
  if (it == draft.attributes.end()) return;
  if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&it->second)) {
    put_input(draft, index, key, TensorData::of_int64({static_cast<std::int64_t>(ints->size())}, *ints));
  } else if (const auto* one = std::get_if<std::int64_t>(&it->second)) {
    put_input(draft, index, key, TensorData::of_int64({1}, {*one}));
  } else if (const auto* value = std::get_if<float>(&it->second)) {
    put_input(draft, index, key, TensorData::of_floats({}, {*value}));
  } else if (const auto* values = std::get_if<std::vector<float>>(&it->second)) {
    put_input(draft, index, key, TensorData::of_floats({static_cast<std::int64_t>(values->size())}, *values));
  }
  draft.attributes.erase(it);
}

std::string drop_ratio(NodeDraft& draft, const Graph&) {
  draft.attributes.erase("ratio");  // without training_mode the operator is the identity
  return {};
}

std::string clip(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "min", 1);
  attribute_to_input(draft, "max", 2);
  return {};
}

std::string pad(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "pads", 1);
  attribute_to_input(draft, "value", 2);
  return {};
}

std::string slice(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "starts", 1);
  attribute_to_input(draft, "ends", 2);
  attribute_to_input(draft, "axes", 3);
  return {};
}

std::string top_k(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "k", 1);
  return {};
}

std::string axes(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "axes", 1);
  return {};
}

std::string split(NodeDraft& draft, const Graph&) {
  attribute_to_input(draft, "split", 1);
  return {};
}

std::string spatial(NodeDraft& draft, const Graph&) {
  const auto it = draft.attributes.find("spatial");
  if (it == draft.attributes.end()) return {};
  const auto* value = std::get_if<std::int64_t>(&it->second);
  if (value == nullptr || *value != 1) return "BatchNormalization with spatial = 0 exists up to opset 8 only";
  draft.attributes.erase(it);
  return {};
}

std::string scatter(NodeDraft& draft, const Graph&) {
  draft.op = "ScatterElements";
  return {};
}

std::string upsample(NodeDraft& draft, const Graph&) {
  draft.op = "Resize";
  attribute_to_input(draft, "scales", 1);
  return {};
}

// Resize 10 has the inputs X, scales and samples at floor(x / scale).
std::string resize(NodeDraft& draft, const Graph&) {
  if (draft.inputs.size() == 2) draft.inputs.insert(draft.inputs.begin() + 1, std::string());
  draft.attributes["coordinate_transformation_mode"] = std::string("asymmetric");
  draft.attributes["nearest_mode"] = std::string("floor");
  return {};
}

// Until opset 12 the input was seen as a matrix, all dimensions from `axis` (default 1) on in its columns.
std::string softmax(NodeDraft& draft, const Graph& graph) {
  std::int64_t axis = 1;
  if (const auto it = draft.attributes.find("axis"); it != draft.attributes.end())
    if (const auto* value = std::get_if<std::int64_t>(&it->second)) axis = *value;
  const TensorId input = draft.inputs.empty() ? kNoTensor : graph.tensor(draft.inputs[0]);
  const auto shape = input == kNoTensor ? std::nullopt : graph.tensor(input).shape;
  if (axis != -1) {
    if (!shape) return draft.op + " over several dimensions at once (the rank of its input is unknown)";
    const auto rank = static_cast<std::int64_t>(shape->size());
    const std::int64_t first = axis < 0 ? axis + rank : axis;
    for (std::int64_t d = first + 1; d < rank; ++d)
      if ((*shape)[static_cast<std::size_t>(d)] != 1) return draft.op + " over several dimensions at once";
    axis = first;
  }
  draft.attributes["axis"] = axis;
  return {};
}

// From opset 18 on the number of parts must be said where their sizes are not.
std::string split_parts(NodeDraft& draft, const Graph&) {
  const bool has_sizes = draft.inputs.size() > 1 && !draft.inputs[1].empty();
  if (!has_sizes && !draft.attributes.count("num_outputs"))
    draft.attributes["num_outputs"] = static_cast<std::int64_t>(draft.outputs.size());
  return {};
}

std::string grid_sample(NodeDraft& draft, const Graph&) {
  const auto it = draft.attributes.find("mode");
  auto* mode = it == draft.attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  if (mode && *mode == "bilinear") *mode = "linear";
  if (mode && *mode == "bicubic") *mode = "cubic";
  return {};
}

std::string no_dft(NodeDraft&, const Graph&) {
  return "the axis of DFT, which became an input at opset 20";
}
std::string no_group_norm(NodeDraft&, const Graph&) {
  return "GroupNormalization with one scale per group, which has one per channel from opset 21 on";
}

struct Upgrade {
  const char* op;
  int since;  // the first opset with the new form
  std::string (*apply)(NodeDraft&, const Graph&);
};
// In the order of versions: a node may need several.
constexpr Upgrade kUpgrades[] = {
    {"BatchNormalization", 9, spatial},
    {"Slice", 10, slice},
    {"TopK", 10, top_k},
    {"Upsample", 10, upsample},
    {"Clip", 11, clip},
    {"Pad", 11, pad},
    {"Resize", 11, resize},
    {"Scatter", 11, scatter},
    {"Dropout", 12, drop_ratio},
    {"Squeeze", 13, axes},
    {"Unsqueeze", 13, axes},
    {"ReduceSum", 13, axes},
    {"Split", 13, split},
    {"Softmax", 13, softmax},
    {"LogSoftmax", 13, softmax},
    {"Hardmax", 13, softmax},
    {"ReduceL1", 18, axes},
    {"ReduceL2", 18, axes},
    {"ReduceLogSum", 18, axes},
    {"ReduceLogSumExp", 18, axes},
    {"ReduceMax", 18, axes},
    {"ReduceMean", 18, axes},
    {"ReduceMin", 18, axes},
    {"ReduceProd", 18, axes},
    {"ReduceSumSquare", 18, axes},
    {"Split", 18, split_parts},
    {"DFT", 20, no_dft},
    {"GridSample", 20, grid_sample},
    {"GroupNormalization", 21, no_group_norm},
};

}  // namespace

NodeDraft draft_of(const Graph& graph, const Node& node) {
  NodeDraft draft{node.name, node.op, node.domain, {}, {}, node.attributes, {}};
  const auto name = [&](TensorId id) { return id == kNoTensor ? std::string() : graph.tensor(id).name; };
  for (const TensorId id : node.inputs) draft.inputs.push_back(name(id));
  for (const TensorId id : node.outputs) draft.outputs.push_back(name(id));
  return draft;
}

std::string upgrade(NodeDraft& draft, const Graph& graph, int from, int to) {
  if (!draft.domain.empty() || from >= to) return {};
  if (from < kOldestOpset) return "opset " + std::to_string(from) + " of the model";
  for (const Upgrade& step : kUpgrades) {
    if (draft.op != step.op || from >= step.since || to < step.since) continue;
    if (std::string problem = step.apply(draft, graph); !problem.empty()) return problem;
  }
  return {};
}

}  // namespace quanvas::onnx_file
