// Quanvas - GGUF, version 3, as it is written: metadata, tensor infos, tensors. Source: ggml/docs/gguf.md.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace quanvas::gguf_file {

inline constexpr std::uint64_t kAlignment = 32;  // bytes, of tensors

// Keys with values, in the order of their calls. A key is written once; the caller sees to it.
class Metadata {
 public:
  void u32(std::string_view key, std::uint32_t v);
  void f32(std::string_view key, float v);
  void boolean(std::string_view key, bool v);
  void text(std::string_view key, std::string_view v);
  void texts(std::string_view key, const std::vector<std::string>& v);
  void f32s(std::string_view key, const std::vector<float>& v);
  void i32s(std::string_view key, const std::vector<std::int32_t>& v);
  void bytes(std::string_view key, std::string_view v);  // an array of u8

  std::uint64_t count() const { return count_; }
  const std::string& encoded() const { return encoded_; }

 private:
  void key(std::string_view name, std::uint32_t type);
  template <class T>
  void number(T v);
  void string(std::string_view v);

  std::uint64_t count_ = 0;
  std::string encoded_;
};

struct TensorInfoOut {
  std::string name;
  std::vector<std::uint64_t> dims;  // the fastest first
  std::uint32_t type = 0;
  std::uint64_t bytes = 0;
};

// Everything before the first tensor's bytes, padded; tensors follow in this order, each padded to kAlignment.
std::string head(const Metadata& metadata, const std::vector<TensorInfoOut>& tensors);
// Bytes between the end of something and the next tensor.
inline std::uint64_t padding(std::uint64_t bytes) {
  return (kAlignment - bytes % kAlignment) % kAlignment;
}

}  // namespace quanvas::gguf_file
