// Quanvas - what the files of our exporter say of themselves beside the tensors: which initializer of the graph each one is
// (key quanvas.tensors), and the graph (quanvas.graph).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/graph/weights.h"
#include "plugins/importers/gguf_read.h"

namespace quanvas::gguf_in {

// One initializer: a tensor of the file, or bytes among its metadata.
struct Held {
  std::string tensor;  // its name in the file's graph
  std::string of;      // not empty: a copy of this one of the exported network, for `readers` only
  std::vector<NodeId> readers;
  Shape shape;
  DataType type = DataType::kFloat;
  const Tensor* in_file = nullptr;
  std::vector<int> order;  // axes in the file, slowest first
  int heads = 0;           // > 0: the rows of each of so many heads are paired anew
  std::string key;         // of the metadata, where in_file is null

  std::int64_t columns() const { return in_file ? static_cast<std::int64_t>(in_file->columns()) : element_count(shape); }
  std::int64_t rows() const;
  // Where the elements of a row of the file stand in the initializer.
  std::vector<std::size_t> positions(std::int64_t row) const;
};

// kCorrupt where the list does not fit the tensors. The file must outlive the result. Empty: the file has no such list.
Result<std::vector<Held>> contents(const File& file);
// The initializer as the file has it, dequantized. kNotFound for a constant that the file was written without.
Result<TensorData> data_of(const File& file, const Held& held);
// The network that the file carries; empty: it carries none.
Result<std::optional<Model>> network(const File& file, const std::string& path);

}  // namespace quanvas::gguf_in
