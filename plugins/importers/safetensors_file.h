// Quanvas - safetensors files, read: 8 bytes with the length of a header, the header as JSON, the bytes of the tensors
// without gaps. For audits and the importer; the writer (plugins/exporters/safetensors_write.h) shares nothing with it.
// Source: the format's description in huggingface/safetensors, README.md, "Format".
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/graph/weights.h"

namespace quanvas::safetensors {

// "F32" as the type of that name; kUndefined: there is none here.
DataType type_of(const std::string& dtype);
const char* dtype_of(DataType type);  // null: safetensors has none

struct Entry {
  DataType type = DataType::kUndefined;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // in the data
};

// Immutable; thread-safe. Tensors are looked at where they lie.
class File {
 public:
  // kNotFound, kIo; kCorrupt with what is wrong: lengths beyond the file, JSON that is none or deep or names a key twice,
  // offsets that overlap, leave gaps or do not fit type and shape.
  static Result<std::shared_ptr<const File>> open(const std::string& path);

  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string* metadata(const std::string& key) const;  // null: absent
  // kNotFound when the file has no such tensor.
  Result<TensorData> tensor(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  Status read(const char* bytes, std::uint64_t size);
  Status read_entry(const std::string& name, const json& value, std::uint64_t data_size);
  Status check_gaps(std::uint64_t data_size) const;

  std::string path_;
  std::map<std::string, Entry> tensors_;
  std::map<std::string, std::string> metadata_;
  const std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
};

// Whether a file begins as one of these does.
bool looks_like_safetensors(const std::string& head);

}  // namespace quanvas::safetensors
