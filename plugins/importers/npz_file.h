// Quanvas - .npz files (archives of NumPy arrays) as tensors by name; for the importer and the audit of the npz exporter.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/graph/weights.h"

namespace quanvas::npz {

inline constexpr const char* kGraphArray = "quanvas.graph";  // uint8: the bytes of described::kGraphKey's JSON
inline constexpr const char* kNetworkArray = "quanvas.network";

// All arrays of the archive, read whole. kCorrupt, kUnsupported with the array's name; at most 8 GiB.
class File {
 public:
  static Result<std::shared_ptr<const File>> open(const std::string& path);
  const std::map<std::string, TensorData>& arrays() const { return arrays_; }
  // kNotFound when there is none of this name.
  Result<TensorData> tensor(const std::string& name) const;
  // The array's bytes as text; none: no such array of bytes.
  std::string text(const std::string& name) const;

 private:
  std::string path_;
  std::map<std::string, TensorData> arrays_;
};

}  // namespace quanvas::npz
