// Shapes that the user gives to inputs which the file leaves open.
#include <algorithm>
#include <limits>

#include "core/report/shape_entry.h"
#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

Failure refused(const std::string& input, const Shape& given, const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "The input '" + input + "' cannot be " + shape_text(given) + ": " + what + ".",
              "Give a shape that fits, ? for a dimension that stays open.");
}

std::string inputs_text(const Draft& draft) {
  std::string out;
  for (const std::string& name : draft.inputs) {
    const TensorFacts* const facts = draft.known(name);
    out += (out.empty() ? "" : ", ") + name + (facts && facts->shape ? " (" + shape_entry(*facts->shape) + ")" : "");
  }
  return out;
}

// A dimension of the same name has the same size everywhere.
void give(Draft& draft, std::int64_t symbol, std::int64_t size) {
  for (auto* const facts : {&draft.facts, &draft.declared})
    for (auto& [name, f] : *facts)
      if (f.shape) std::replace(f.shape->begin(), f.shape->end(), symbol, size);
}

// An input that is one integer, like a sampling rate, takes a number instead of a shape: a constant from then on, so that
// branches which ask for it are decided.
bool is_number(const TensorFacts& facts) {
  return facts.shape && facts.shape->empty() && (facts.type == DataType::kInt64 || facts.type == DataType::kInt32);
}

void fix(Draft& draft, const std::string& input, std::int64_t value) {
  const DataType type = draft.facts[input].type;
  const auto narrow = static_cast<std::int32_t>(value);
  draft.constants[input] = type == DataType::kInt64 ? TensorData::of_int64({}, {value}) : TensorData::copy_of(type, {}, &narrow, sizeof narrow);
  std::erase(draft.inputs, input);
}

}  // namespace

Status bind_shapes(Draft& draft, const std::map<std::string, Shape>& shapes) {
  for (const auto& [input, given] : shapes) {
    const bool open = std::all_of(given.begin(), given.end(), [](std::int64_t d) { return d < 0; });
    if (std::find(draft.inputs.begin(), draft.inputs.end(), input) == draft.inputs.end()) {
      if (open) continue;
      return fail(ErrorCode::kNotFound, "The model has no input '" + input + "'.", "Its inputs are: " + inputs_text(draft) + ".");
    }
    if (is_number(draft.facts[input]) && given.size() == 1) {
      if (!open && draft.facts[input].type == DataType::kInt32 && given[0] > std::numeric_limits<std::int32_t>::max())
        return refused(input, given, "it is an int32");
      if (!open) fix(draft, input, given[0]);
      continue;
    }
    std::optional<Shape>& shape = draft.facts[input].shape;
    if (!shape) {
      if (!open) shape = given;
      for (std::size_t i = 0; !open && i < given.size(); ++i)
        if (given[i] < 0) (*shape)[i] = draft.new_symbol();
      continue;
    }
    if (shape->size() != given.size())
      return refused(input, given, "the file gives it " + std::to_string(shape->size()) + " dimensions");
    for (std::size_t i = 0; i < given.size(); ++i) {
      const std::int64_t d = (*shape)[i];
      if (given[i] < 0 || given[i] == d) continue;
      if (d >= 0)
        return refused(input, given, "dimension " + std::to_string(i + 1) + " is " + std::to_string(d) + " in the file or by another input");
      if (d == kUnknownDim) (*shape)[i] = given[i];
      else give(draft, d, given[i]);
    }
  }
  return {};
}

}  // namespace quanvas::onnx_import
