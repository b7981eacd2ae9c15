#include <cstring>

#include <ATen/ATen.h>

#include "core/exec/ops.h"
#include "core/exec/tensors.h"

namespace quanvas::exec {
namespace {

// Unsigned types that LibTorch lacks, widened.
template <class From, class To>
at::Tensor widened(const TensorData& data, at::ScalarType type) {
  at::Tensor t = at::empty(data.shape, type);
  auto* out = t.data_ptr<To>();
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    From value;
    std::memcpy(&value, data.data + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    out[i] = static_cast<To>(value);
  }
  return t;
}

at::ScalarType stored_type(DataType type) {
  if (type == DataType::kFloat16) return at::kHalf;
  if (type == DataType::kBfloat16) return at::kBFloat16;
  return *scalar_type(type);
}

DataType data_type(at::ScalarType type) {
  switch (type) {
    case at::kByte: return DataType::kUint8;
    case at::kChar: return DataType::kInt8;
    case at::kShort: return DataType::kInt16;
    case at::kInt: return DataType::kInt32;
    case at::kLong: return DataType::kInt64;
    case at::kBool: return DataType::kBool;
    case at::kHalf: return DataType::kFloat16;
    case at::kBFloat16: return DataType::kBfloat16;
    case at::kDouble: return DataType::kDouble;
    default: return DataType::kFloat;
  }
}

// Tensors of the file that hold what they say; anything else is left undefined and reported when it is used.
bool is_complete(const TensorData& data) {
  for (const auto d : data.shape)
    if (d < 0) return false;
  const bool known = element_size(data.type) > 0 || is_four_bit_type(data.type);
  return known && scalar_type(data.type) && data.bytes >= bytes_of(data.type, data.count()) &&
         (data.data || data.count() == 0);
}

template <class T, class From>
TensorData narrowed(const at::Tensor& c, DataType type) {
  std::vector<T> values;
  values.reserve(static_cast<std::size_t>(c.numel()));
  const From* p = c.data_ptr<From>();
  for (std::int64_t i = 0; i < c.numel(); ++i) values.push_back(static_cast<T>(p[i]));
  return TensorData::copy_of(type, c.sizes().vec(), values.data(), values.size() * sizeof(T));
}

TensorData small_data(const at::Tensor& c, DataType type) {
  std::vector<std::uint8_t> codes(bytes_of(type, c.numel()), 0);
  const float* p = c.data_ptr<float>();
  for (std::int64_t i = 0; i < c.numel(); ++i) {
    const std::uint8_t code = small_code(type, p[i]);
    if (!is_four_bit_type(type)) codes[static_cast<std::size_t>(i)] = code;
    else codes[static_cast<std::size_t>(i / 2)] |= static_cast<std::uint8_t>((code & 15) << (i % 2 ? 4 : 0));
  }
  return TensorData::copy_of(type, c.sizes().vec(), codes.data(), codes.size());
}

}  // namespace

at::Tensor to_tensor(const TensorData& data) {
  if (!is_complete(data)) return {};
  if (data.type == DataType::kUint16) return widened<std::uint16_t, std::int32_t>(data, at::kInt);
  if (data.type == DataType::kUint32) return widened<std::uint32_t, std::int64_t>(data, at::kLong);
  if (is_small_type(data.type)) {
    const std::vector<float> values = data.to_floats();
    return at::tensor(values, at::kFloat).reshape(data.shape).to(*scalar_type(data.type));
  }
  at::Tensor t = at::empty(data.shape, stored_type(data.type));
  if (t.numel() > 0) std::memcpy(t.data_ptr(), data.data, static_cast<std::size_t>(t.numel()) * t.element_size());
  return t;
}

at::Tensor shared_tensor(const TensorData& data) {
  const bool in_place = (data.type == DataType::kFloat || data.type == DataType::kInt64) && data.owner && data.count() > 0 &&
                        reinterpret_cast<std::uintptr_t>(data.data) % element_size(data.type) == 0;
  if (!in_place || !is_complete(data)) return to_tensor(data);
  // Nothing in the executor writes into weights.
  return at::from_blob(const_cast<std::byte*>(data.data), data.shape, [owner = data.owner](void*) {},
                       at::TensorOptions().dtype(stored_type(data.type)));
}

TensorData to_data(const at::Tensor& tensor) {
  const at::Tensor c = tensor.detach().to(at::kCPU).contiguous();
  return TensorData::copy_of(data_type(c.scalar_type()), c.sizes().vec(), c.data_ptr(),
                             static_cast<std::size_t>(c.numel()) * c.element_size());
}

TensorData to_data(const at::Tensor& tensor, DataType type) {
  const at::Tensor c = tensor.detach().to(at::kCPU).contiguous();
  const auto computed_type = scalar_type(type);
  if (!computed_type) return to_data(c);
  if (is_small_type(type)) return small_data(c.to(at::kFloat), type);
  if (type == DataType::kUint16) return narrowed<std::uint16_t, std::int32_t>(c.to(at::kInt), type);
  if (type == DataType::kUint32) return narrowed<std::uint32_t, std::int64_t>(c.to(at::kLong), type);
  TensorData data = to_data(c.to(stored_type(type)));
  data.type = type;  // uint64 has the bits of int64
  return data;
}

}  // namespace quanvas::exec
