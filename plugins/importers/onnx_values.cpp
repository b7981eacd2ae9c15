// Small helpers of the draft, and tensors as lists of cells.
#include <algorithm>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

constexpr std::int64_t kMostCells = std::int64_t{1} << 20;

template <class T>
TensorData packed(const Value& value, T (*convert)(const Cell&)) {
  std::vector<T> out;
  out.reserve(value.cells.size());
  for (const Cell& c : value.cells) out.push_back(convert(c));
  return TensorData::copy_of(value.type, value.shape, out.data(), out.size() * sizeof(T));
}

template <class T>
TensorData packed_integers(const Value& value) {
  return packed<T>(value, [](const Cell& c) { return static_cast<T>(c.integer); });
}

}  // namespace

const std::string& DraftNode::input(std::size_t i) const {
  static const std::string none;
  return i < inputs.size() ? inputs[i] : none;
}

std::int64_t DraftNode::integer(const std::string& key, std::int64_t fallback) const {
  const auto it = attributes.find(key);
  const auto* v = it == attributes.end() ? nullptr : std::get_if<std::int64_t>(&it->second);
  return v ? *v : fallback;
}

std::optional<std::vector<std::int64_t>> DraftNode::integers(const std::string& key) const {
  const auto it = attributes.find(key);
  const auto* v = it == attributes.end() ? nullptr : std::get_if<std::vector<std::int64_t>>(&it->second);
  return v ? std::optional(*v) : std::nullopt;
}

std::vector<float> DraftNode::reals(const std::string& key) const {
  const auto it = attributes.find(key);
  const auto* v = it == attributes.end() ? nullptr : std::get_if<std::vector<float>>(&it->second);
  return v ? *v : std::vector<float>{};
}

std::string DraftNode::text(const std::string& key) const {
  const auto it = attributes.find(key);
  const auto* v = it == attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  return v ? *v : std::string();
}

std::string DraftNode::label() const {
  return !name.empty() ? name : outputs.empty() ? op : op + " of " + outputs[0];
}

const TensorData* Draft::constant(const std::string& tensor) const {
  const auto it = constants.find(tensor);
  return it == constants.end() ? nullptr : &it->second;
}

const TensorFacts* Draft::known(const std::string& tensor) const {
  const auto it = facts.find(tensor);
  return it == facts.end() ? nullptr : &it->second;
}

bool Value::is_number() const {
  return std::all_of(cells.begin(), cells.end(), [](const Cell& c) { return c.symbol == 0; });
}

bool is_floating(DataType type) {
  return type == DataType::kFloat || type == DataType::kDouble || type == DataType::kFloat16 ||
         type == DataType::kBfloat16;
}

std::optional<Value> value_of(const TensorData& data) {
  const std::int64_t n = data.count();
  if (n > kMostCells || element_size(data.type) == 0) return std::nullopt;
  Value value{data.type, data.shape, std::vector<Cell>(static_cast<std::size_t>(n))};
  if (data.type == DataType::kDouble) {
    if (data.bytes != static_cast<std::size_t>(n) * sizeof(double)) return std::nullopt;
    for (std::size_t i = 0; i < value.cells.size(); ++i)
      std::memcpy(&value.cells[i].real, data.data + i * sizeof(double), sizeof(double));
    return value;
  }
  if (is_floating(data.type)) {
    const auto numbers = data.to_floats();
    if (numbers.size() != value.cells.size()) return std::nullopt;
    for (std::size_t i = 0; i < numbers.size(); ++i) value.cells[i].real = numbers[i];
    return value;
  }
  const auto numbers = data.to_int64();
  if (numbers.size() != value.cells.size()) return std::nullopt;
  for (std::size_t i = 0; i < numbers.size(); ++i) value.cells[i].integer = numbers[i];
  return value;
}

std::optional<TensorData> data_of(const Value& value) {
  if (!value.is_number()) return std::nullopt;
  switch (value.type) {
    case DataType::kFloat:
      return packed<float>(value, [](const Cell& c) { return static_cast<float>(c.real); });
    case DataType::kDouble:
      return packed<double>(value, [](const Cell& c) { return c.real; });
    case DataType::kFloat16:
      return packed<std::uint16_t>(value, [](const Cell& c) { return float_to_half(static_cast<float>(c.real)); });
    case DataType::kInt64:
      return packed_integers<std::int64_t>(value);
    case DataType::kInt32:
      return packed_integers<std::int32_t>(value);
    case DataType::kInt16:
      return packed_integers<std::int16_t>(value);
    case DataType::kInt8:
      return packed_integers<std::int8_t>(value);
    case DataType::kUint32:
      return packed_integers<std::uint32_t>(value);
    case DataType::kUint16:
      return packed_integers<std::uint16_t>(value);
    case DataType::kUint8:
      return packed_integers<std::uint8_t>(value);
    case DataType::kBool:
      return packed<std::uint8_t>(value, [](const Cell& c) -> std::uint8_t { return c.integer != 0; });
    default:
      return std::nullopt;
  }
}

std::optional<Value> Knowledge::value(const std::string& tensor) const {
  if (tensor.empty()) return std::nullopt;
  if (const auto it = values.find(tensor); it != values.end()) return it->second;
  const TensorData* data = draft.constant(tensor);
  return data ? value_of(*data) : std::nullopt;
}

const Shape* Knowledge::shape(const std::string& tensor) const {
  if (const auto it = values.find(tensor); it != values.end()) return &it->second.shape;
  const TensorFacts* facts = draft.known(tensor);
  return facts && facts->shape ? &*facts->shape : nullptr;
}

DataType Knowledge::type(const std::string& tensor) const {
  const TensorFacts* facts = draft.known(tensor);
  return facts ? facts->type : DataType::kUndefined;
}

}  // namespace quanvas::onnx_import
