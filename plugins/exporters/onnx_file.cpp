#include "plugins/exporters/onnx_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include <google/protobuf/io/coded_stream.h>

#include "core/base/files.h"
#include "core/plugin/placement.h"

namespace quanvas::onnx_file {
namespace {

// By number, as onnx.proto has them.
enum Type : int {
  kTypeFloat = 1,
  kTypeUint8 = 2,
  kTypeInt8 = 3,
  kTypeUint16 = 4,
  kTypeInt16 = 5,
  kTypeInt32 = 6,
  kTypeE4M3Fn = 17,
  kTypeE5M2Fnuz = 20,
  kTypeUint4 = 21,
  kTypeInt4 = 22,
  kTypeE2M1 = 23,
  kTypeE8M0 = 24,
  kTypeUint2 = 25,
  kTypeInt2 = 26
};

int bits_in_file(int type) {
  switch (type) {
    case kTypeFloat:
    case kTypeInt32:
      return 32;
    case kTypeUint16:
    case kTypeInt16:
      return 16;
    case kTypeUint4:
    case kTypeInt4:
    case kTypeE2M1:
      return 4;
    case kTypeUint2:
    case kTypeInt2:
      return 2;
    default:
      return type == kTypeUint8 || type == kTypeInt8 || (type >= kTypeE4M3Fn && type <= kTypeE5M2Fnuz) || type == kTypeE8M0 ? 8
                                                                                                                            : 0;
  }
}

bool is_signed_type(int type) {
  return type == kTypeInt8 || type == kTypeInt16 || type == kTypeInt32 || type == kTypeInt4 || type == kTypeInt2;
}

std::optional<std::uint64_t> elements_of(const onnx::TensorProto& t) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
  std::uint64_t n = 1;
  for (const std::int64_t d : t.dims()) {
    if (d < 0 || static_cast<std::uint64_t>(d) > kMost) return std::nullopt;
    n *= static_cast<std::uint64_t>(d);
    if (n > kMost) return std::nullopt;
  }
  return n;
}

std::optional<std::uint64_t> number(const std::string& text) {
  if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoull(text);
}

}  // namespace

Result<OnnxFile> OnnxFile::open(const std::string& path) {
  QUANVAS_TRY(const std::string bytes, read_file(path, std::uint64_t{1} << 31));
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  auto proto = std::make_shared<onnx::ModelProto>();
  if (!proto->ParseFromCodedStream(&in) || !in.ConsumedEntireMessage() || !proto->has_graph() ||
      proto->opset_import_size() == 0)
    return fail(ErrorCode::kCorrupt, "'" + path + "' is not a complete ONNX file.", "Export it again.");
  OnnxFile file;
  file.path_ = path;
  file.proto_ = std::move(proto);
  for (const auto& node : file.graph().node()) {
    file.nodes_.emplace(node.name(), &node);
    for (const auto& out : node.output()) file.producers_.emplace(out, &node);
  }
  for (const auto& t : file.graph().initializer()) file.tensors_.emplace(t.name(), &t);
  return file;
}

std::string OnnxFile::bytes(const onnx::TensorProto& t) const {
  const auto elements = elements_of(t);
  const auto bits = static_cast<std::uint64_t>(bits_in_file(t.data_type()));
  if (!elements || bits == 0) return {};
  const std::uint64_t need = (*elements * bits + 7) / 8;
  if (t.data_location() != onnx::TensorProto::EXTERNAL) return t.raw_data().size() == need ? t.raw_data() : std::string();
  std::string location;
  std::uint64_t offset = 0, length = need;
  for (const auto& e : t.external_data()) {
    if (e.key() == "location") location = e.value();
    if (e.key() == "offset") offset = number(e.value()).value_or(~std::uint64_t{0});
    if (e.key() == "length") length = number(e.value()).value_or(0);
  }
  namespace fs = std::filesystem;
  // Our files name one beside the model, without a folder.
  if (location.empty() || location != fs::path(location).filename().string() || location == "..") return {};
  const fs::path data = fs::path(path_).parent_path() / location;
  std::error_code ec;
  const std::uint64_t size = fs::file_size(data, ec);
  if (ec || length != need || offset > size || need > size - offset) return {};
  std::string out(need, '\0');
  std::ifstream in(data, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  if (!in.read(out.data(), static_cast<std::streamsize>(need))) return {};
  return out;
}

std::vector<std::int64_t> OnnxFile::codes(const onnx::TensorProto& t) const {
  const int type = t.data_type(), bits = bits_in_file(type);
  if (type == kTypeFloat || bits == 0) return {};
  const auto elements = elements_of(t);
  const std::string raw = bytes(t);
  if (raw.empty()) {
    if (t.has_raw_data() || t.data_location() == onnx::TensorProto::EXTERNAL || bits < 8) return {};
    return {t.int32_data().begin(), t.int32_data().end()};
  }
  std::vector<std::int64_t> out;
  out.reserve(*elements);
  for (std::uint64_t i = 0; i < *elements; ++i) {
    const std::uint64_t at = i * static_cast<std::uint64_t>(bits);
    std::uint64_t value = 0;
    for (int b = 0; b < std::max(1, bits / 8); ++b)
      value |= std::uint64_t{static_cast<std::uint8_t>(raw[at / 8 + static_cast<std::uint64_t>(b)])} << (8 * b);
    if (bits < 8) value = value >> (at % 8) & ((std::uint64_t{1} << bits) - 1);
    auto code = static_cast<std::int64_t>(value);
    if (is_signed_type(type) && code >> (bits - 1)) code -= std::int64_t{1} << bits;
    out.push_back(code);
  }
  return out;
}

std::vector<float> OnnxFile::reals(const onnx::TensorProto& t) const {
  const std::string raw = bytes(t);
  if (t.data_type() == kTypeE8M0) {
    std::vector<float> out;
    for (const char c : raw) {
      const int e = static_cast<std::uint8_t>(c);
      out.push_back(e == 255 ? NAN : std::ldexp(1.0f, e - 127));
    }
    return out;
  }
  if (t.data_type() != kTypeFloat) return {};
  if (!t.has_raw_data() && t.data_location() != onnx::TensorProto::EXTERNAL)
    return {t.float_data().begin(), t.float_data().end()};
  std::vector<float> out(raw.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), raw.data(), out.size() * sizeof(float));
  return out;
}

std::optional<FileQuantizer> OnnxFile::quantizer(const std::string& tensor) const {
  const onnx::NodeProto* dequantize = producer(tensor);
  if (dequantize == nullptr || dequantize->op_type() != "DequantizeLinear" || dequantize->input_size() < 2) return std::nullopt;
  if (const onnx::NodeProto* run = producer(dequantize->input(1)); run && run->op_type() == "DynamicQuantizeLinear")
    return dynamic(*dequantize, *run);
  FileQuantizer q;
  if (!read_parameters(*dequantize, 1, 2, q)) return std::nullopt;
  // Values of another type than float32 are another network's.
  const bool real = operand(*dequantize, 1)->data_type() == kTypeFloat;
  if (integer_attribute(*dequantize, "output_dtype", real ? kTypeFloat : 0) != kTypeFloat) return std::nullopt;
  const std::string codes = dequantize->input(0);
  if (q.codes = this->tensor(codes); q.codes != nullptr) {
    q.type = q.codes->data_type();
    q.source = codes;
    q.bytes += static_cast<double>(bytes(*q.codes).size());
    if (const auto range = code_range_of(q.type)) std::tie(q.lo, q.hi) = *range;
    return q;
  }
  return read_activation(codes, q) ? std::optional(q) : std::nullopt;
}

bool OnnxFile::read_parameters(const onnx::NodeProto& node, int scale_at, int zero_at, FileQuantizer& q) const {
  const onnx::TensorProto* scale = operand(node, scale_at);
  if (scale == nullptr) return false;
  q.scale = reals(*scale);
  if (q.scale.empty()) return false;
  q.scale_shape.assign(scale->dims().begin(), scale->dims().end());
  q.bytes = static_cast<double>(bytes(*scale).size());
  q.zero_point.assign(q.scale.size(), 0);
  q.axis = integer_attribute(node, "axis", 1);
  q.block = integer_attribute(node, "block_size", 0);
  q.saturates = integer_attribute(node, "saturate", 1) != 0;
  q.type = static_cast<int>(integer_attribute(node, "output_dtype", kTypeUint8));  // ONNX's default without a zero point
  if (zero_at < node.input_size() && !node.input(zero_at).empty()) {
    const onnx::TensorProto* zero = operand(node, zero_at);
    if (zero == nullptr) return false;
    q.zero_point = codes(*zero);
    q.type = zero->data_type();
    q.bytes += static_cast<double>(bytes(*zero).size());
    if (q.zero_point.size() != q.scale.size()) return false;
  }
  return true;
}

void OnnxFile::follow_clips(std::string& codes, std::int64_t& lo, std::int64_t& hi) const {
  std::size_t steps = 0;
  for (const onnx::NodeProto* n = producer(codes); n && n->op_type() == "Clip" && n->input_size() > 0 && steps < nodes_.size();
       n = producer(codes), ++steps) {
    const auto bound = [&](int i, std::int64_t fallback) {
      const onnx::TensorProto* t = operand(*n, i);
      const auto values = t ? this->codes(*t) : std::vector<std::int64_t>{};
      return values.size() == 1 ? values[0] : fallback;
    };
    lo = std::max(lo, bound(1, lo));
    hi = std::min(hi, bound(2, hi));
    codes = n->input(0);
  }
}

bool OnnxFile::read_activation(std::string codes, FileQuantizer& q) const {
  if (const auto range = code_range_of(q.type)) std::tie(q.lo, q.hi) = *range;
  follow_clips(codes, q.lo, q.hi);
  const onnx::NodeProto* node = producer(codes);
  if (node == nullptr || node->op_type() != "QuantizeLinear" || node->input_size() == 0) return false;
  FileQuantizer forward;
  if (!read_parameters(*node, 1, 2, forward)) return false;
  q.source = node->input(0);
  q.saturates = forward.saturates;
  read_limits(q);
  return forward.scale == q.scale && forward.zero_point == q.zero_point && forward.type == q.type &&
         forward.scale_shape == q.scale_shape && (q.scale.size() == 1 || forward.axis == q.axis) && forward.block == q.block;
}

void OnnxFile::read_limits(FileQuantizer& q) const {
  const onnx::NodeProto* clip = producer(q.source);
  if (!clip || clip->op_type() != "Clip" || clip->input_size() != 3 || q.scale.size() != 1 || !code_range_of(q.type)) return;
  std::int64_t codes[2];
  for (const int i : {0, 1}) {
    const onnx::TensorProto* t = operand(*clip, i + 1);
    const std::vector<float> limit = t ? reals(*t) : std::vector<float>();
    if (limit.size() != 1 || !(std::fabs(limit[0] / q.scale[0]) < 131072)) return;
    codes[i] = std::llrint(limit[0] / q.scale[0]);
    if (static_cast<float>(codes[i]) * q.scale[0] != limit[0]) return;
    codes[i] += q.zero_point[0];
  }
  q.limited = FileQuantizer::Limited{clip->input(0), std::max(codes[0], q.lo), std::min(codes[1], q.hi)};
}

// All three of what one DynamicQuantizeLinear gives.
std::optional<FileQuantizer> OnnxFile::dynamic(const onnx::NodeProto& dequantize, const onnx::NodeProto& quantize) const {
  if (quantize.input_size() != 1 || quantize.output_size() != 3 || dequantize.input_size() != 3) return std::nullopt;
  for (int i = 0; i < 3; ++i)
    if (dequantize.input(i) != quantize.output(i)) return std::nullopt;
  FileQuantizer q;
  q.type = kTypeUint8;
  q.hi = 255;
  q.dynamic = true;
  q.source = quantize.input(0);
  return q;
}

std::int64_t integer_attribute(const onnx::NodeProto& node, const char* name, std::int64_t fallback) {
  for (const auto& a : node.attribute())
    if (a.name() == name) return a.i();
  return fallback;
}

std::optional<std::pair<std::int64_t, std::int64_t>> code_range_of(int type) {
  const int bits = bits_in_file(type);
  if (is_signed_type(type)) return std::pair{-(std::int64_t{1} << (bits - 1)), (std::int64_t{1} << (bits - 1)) - 1};
  if (type == kTypeUint8 || type == kTypeUint16 || type == kTypeUint4 || type == kTypeUint2)
    return std::pair{std::int64_t{0}, (std::int64_t{1} << bits) - 1};
  return std::nullopt;
}

std::string code_type_name(int type) {
  if (type == kTypeUint2) return "uint2";
  if (type == kTypeInt2) return "int2";
  return type_name(static_cast<DataType>(type));
}

std::string file_quantizer_text(const FileQuantizer& q) {
  if (q.dynamic) return "uint8, scale and zero point found at run time";
  const auto scales = std::to_string(q.scale.size());
  if (code_range_of(q.type) && !q.in_blocks())
    return quantizer_text(is_signed_type(q.type), q.lo, q.hi, q.per_channel(), q.scale.size(), q.zero_point);
  std::string text = code_type_name(q.type);
  if (q.in_blocks())
    text += ", in blocks of " + std::to_string(q.block) + " (" + scales + " scales)";
  else
    text += q.per_channel() ? ", per channel (" + scales + ")" : ", per tensor";
  const bool zero = std::all_of(q.zero_point.begin(), q.zero_point.end(), [](std::int64_t z) { return z == 0; });
  return zero ? text : text + ", zero points";
}

}  // namespace quanvas::onnx_file
