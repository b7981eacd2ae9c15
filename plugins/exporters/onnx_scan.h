// Quanvas - ONNX files as their audits read them: nodes and initializers by name, numbers whose count is what the
// dimensions say. Shares nothing with the writers (onnx_write.h).
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <onnx/onnx_pb.h>

#include "core/base/result.h"
#include "core/graph/graph.h"

namespace quanvas::onnx_scan {

// kCorrupt when the file is no complete ONNX file.
Result<onnx::ModelProto> read(const std::string& path);

// Row-major float32 values of an initializer; none for other types and where dimensions and data do not agree.
std::optional<std::vector<float>> floats(const onnx::TensorProto* tensor);
Shape dims(const onnx::TensorProto& tensor);

const onnx::AttributeProto* attribute(const onnx::NodeProto& node, const std::string& name);
std::int64_t integer(const onnx::NodeProto& node, const std::string& name, std::int64_t fallback);
float real(const onnx::NodeProto& node, const std::string& name, float fallback);
std::string text(const onnx::NodeProto& node, const std::string& name);
std::vector<std::int64_t> integers(const onnx::NodeProto& node, const std::string& name);
std::vector<std::string> texts(const onnx::NodeProto& node, const std::string& name);
const std::string& input(const onnx::NodeProto& node, int i);  // empty when there is none

int version_of(const onnx::ModelProto& model, const std::string& domain);  // 0: not imported

// Points into the model.
class Index {
 public:
  explicit Index(const onnx::GraphProto& graph);
  const onnx::NodeProto* node(const std::string& name) const;  // null: none
  const onnx::NodeProto* producer(const std::string& tensor) const;
  const onnx::TensorProto* initializer(const std::string& name) const;
  std::vector<const onnx::NodeProto*> readers(const std::string& tensor) const;

 private:
  std::unordered_map<std::string, const onnx::NodeProto*> nodes_, producers_;
  std::unordered_map<std::string, const onnx::TensorProto*> initializers_;
  std::unordered_multimap<std::string, const onnx::NodeProto*> readers_;
};

}  // namespace quanvas::onnx_scan
