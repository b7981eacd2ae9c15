// Quanvas - GGUF files as they are read: by the importer and by the audit of the exporter, which shares nothing with the
// writer. Source: ggml/docs/gguf.md, versions 2 and 3, little endian.
//
// Nothing in a file is believed: counts, lengths and offsets are held against what is left of it before memory is taken.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/result.h"

namespace quanvas::gguf_in {

// An array keeps its bytes; of texts it keeps the texts.
struct Array {
  std::uint32_t type = 0;
  std::uint64_t count = 0;
  std::string_view bytes;
  std::vector<std::string_view> texts;
};
using Value = std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, Array>;

struct Tensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // the fastest first; 1 to 4
  std::uint32_t type = 0;           // ggml_type
  std::string_view bytes;           // all of them
  std::uint64_t offset = 0;         // in the file
  std::uint64_t columns() const { return dims.empty() ? 1 : dims[0]; }
  std::uint64_t rows() const;
};

struct File {
  std::uint32_t version = 0;
  std::map<std::string, Value> values;
  std::vector<Tensor> tensors;
  std::shared_ptr<const void> owner;  // of everything that the views look at

  const Tensor* find(const std::string& name) const;
  // Empty when the key is missing or no text.
  std::string_view text(const std::string& key) const;
};

// kCorrupt with what is wrong and where; kUnsupported for other versions, big endian, and tensor types that are not known.
Result<File> parse(std::string_view bytes, const std::string& path);
Result<File> read(const std::string& path);

}  // namespace quanvas::gguf_in
