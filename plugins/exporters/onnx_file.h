// Quanvas - reads exported ONNX files again, for audits: what a quantizer in the file is, whoever wrote it. Shares no code
// with the writers. Values; const functions are reentrant. Sizes that a file claims are held against its bytes before
// memory is taken; what does not fit reads as nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <onnx/onnx_pb.h>

#include "core/base/result.h"
#include "core/graph/graph.h"

namespace quanvas::onnx_file {

// What stands before a tensor in the file.
struct FileQuantizer {
  int type = 0;                          // of the codes, as TensorProto.DataType
  std::int64_t lo = 0, hi = 0;           // integers: of the type, narrowed by a Clip
  std::vector<float> scale;              // empty: found at run time
  std::vector<std::int64_t> zero_point;  // as many
  Shape scale_shape;                     // {}: one for all; one dimension: along the axis; in blocks that of the tensor
  std::int64_t axis = 1, block = 0;      // block 0: not in blocks
  bool dynamic = false, saturates = true;
  std::string source;  // tensor that enters QuantizeLinear, or the initializer of codes
  const onnx::TensorProto* codes = nullptr;
  double bytes = 0;  // of codes (when constant), scales and zero points
  // A Clip of real numbers before the QuantizeLinear whose limits are codes of it: what it reads, and the codes that it
  // leaves. It may be the quantizer's or one of the network.
  struct Limited {
    std::string source;
    std::int64_t lo = 0, hi = 0;
  };
  std::optional<Limited> limited;

  bool per_channel() const { return scale_shape.size() == 1 && block == 0; }
  bool in_blocks() const { return block != 0; }
};

class OnnxFile {
 public:
  // kCorrupt for what is no whole ONNX file.
  static Result<OnnxFile> open(const std::string& path);

  const onnx::GraphProto& graph() const { return proto_->graph(); }
  const onnx::ModelProto& model() const { return *proto_; }
  // Null when there is none.
  const onnx::NodeProto* node(const std::string& name) const { return find(nodes_, name); }
  const onnx::NodeProto* producer(const std::string& tensor) const { return find(producers_, tensor); }
  const onnx::TensorProto* tensor(const std::string& name) const { return find(tensors_, name); }
  const onnx::TensorProto* operand(const onnx::NodeProto& node, int i) const {
    return i < node.input_size() ? tensor(node.input(i)) : nullptr;
  }

  // The tensor's bytes, wherever they are; empty when they are not as many as its type and dimensions say.
  std::string bytes(const onnx::TensorProto& t) const;
  // One code per element: integers, bit patterns of float8 and float4. Empty for other types.
  std::vector<std::int64_t> codes(const onnx::TensorProto& t) const;
  // float32 and float8e8m0; empty for other types.
  std::vector<float> reals(const onnx::TensorProto& t) const;

  // The quantizer whose DequantizeLinear makes `tensor`; none when something else does or it is incomplete.
  std::optional<FileQuantizer> quantizer(const std::string& tensor) const;
  // The range of codes behind Clip nodes: of `lo` .. `hi` what is left. `codes` becomes what enters the first of them.
  void follow_clips(std::string& codes, std::int64_t& lo, std::int64_t& hi) const;
  // Scale, zero point and type from the inputs `scale` and `zero` of a node. False when the scale is not constant.
  bool read_parameters(const onnx::NodeProto& node, int scale, int zero, FileQuantizer& q) const;

 private:
  template <class Map>
  static typename Map::mapped_type find(const Map& map, const std::string& key) {
    const auto it = map.find(key);
    return it == map.end() ? nullptr : it->second;
  }
  bool read_activation(std::string codes, FileQuantizer& q) const;
  void read_limits(FileQuantizer& q) const;
  std::optional<FileQuantizer> dynamic(const onnx::NodeProto& dequantize, const onnx::NodeProto& quantize) const;

  std::string path_;
  std::shared_ptr<const onnx::ModelProto> proto_;
  std::unordered_map<std::string, const onnx::NodeProto*> nodes_, producers_;
  std::unordered_map<std::string, const onnx::TensorProto*> tensors_;
};

std::int64_t integer_attribute(const onnx::NodeProto& node, const char* name, std::int64_t fallback);
// lo .. hi of an integer type; none for others.
std::optional<std::pair<std::int64_t, std::int64_t>> code_range_of(int type);
// "uint4", "float8e5m2" ...
std::string code_type_name(int type);
// "int8 narrow, per channel (16)", "float8e4m3fn, in blocks of 32 (64 scales)".
std::string file_quantizer_text(const FileQuantizer& q);

}  // namespace quanvas::onnx_file
