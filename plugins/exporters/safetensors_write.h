// Quanvas - writes safetensors files: header as JSON, padded with spaces to a multiple of 8, tensors without gaps, the
// widest elements first so that each lies at a multiple of its width. Source: huggingface/safetensors, README.md, "Format".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/graph/weights.h"

namespace quanvas::safetensors {

class Writer {
 public:
  // kUnsupported: a type that the format has no name for; kInternal: bytes that do not fit the shape, a name that is taken.
  Status add(const std::string& name, DataType type, Shape shape, std::string bytes);
  template <class T>
  Status add_values(const std::string& name, DataType type, Shape shape, const std::vector<T>& values) {
    return add(name, type, std::move(shape),
               std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
  }
  void metadata(const std::string& key, std::string text) { metadata_[key] = std::move(text); }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  // Atomically. Names that are no UTF-8 are refused: JSON has no place for them.
  Status save(const std::string& path) const;

 private:
  struct Tensor {
    DataType type;
    Shape shape;
    std::string bytes;
  };
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_ = {{"format", "pt"}};
};

}  // namespace quanvas::safetensors
