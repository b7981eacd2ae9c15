#include "plugins/exporters/onnx_storage.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/quant/dynamic.h"
#include "core/quant/packing.h"

namespace quanvas::onnx_file {

static_assert(std::endian::native == std::endian::little, "raw_data is little endian");

namespace {

constexpr int kFloat8Opset = 19, kBlockOpset = 21, kFloat4Opset = 23, kExponentOpset = 24, kTwoBitOpset = 25;

bool is_power_of_two(float v) {
  int exponent = 0;
  return v >= 0x1p-126f && std::frexp(v, &exponent) == 0.5f;
}

// lo .. hi of an integer type.
struct Range {
  std::int64_t lo, hi;
};
Range range_of(DataType type) {
  const int bits = bits_of(type);
  const bool is_signed = type == DataType::kInt8 || type == DataType::kInt16 || type == DataType::kInt4 || type == kInt2;
  if (is_signed) return {-(std::int64_t{1} << (bits - 1)), (std::int64_t{1} << (bits - 1)) - 1};
  return {0, (std::int64_t{1} << bits) - 1};
}

bool holds_zero_points(DataType type, const quant::QuantParams& p) {
  const Range r = range_of(type);
  return std::all_of(p.zero_point.begin(), p.zero_point.end(),
                     [&](float z) { return z >= static_cast<float>(r.lo) && z <= static_cast<float>(r.hi); });
}

// A type of 4 or 2 bits, where it says the same. Codes of constants need only fit; what is computed at run time must have
// all of the type's codes, because Clip does not know these types.
bool set_narrow(Storage& s, const quant::QuantParams& p, bool constant, std::int64_t lo, std::int64_t hi) {
  const bool is_signed = lo < 0;
  for (const bool two : {true, false}) {
    const DataType type = two ? (is_signed ? kInt2 : kUint2) : (is_signed ? DataType::kInt4 : DataType::kUint4);
    const Range r = range_of(type);
    if (constant ? lo < r.lo || hi > r.hi : lo != r.lo || hi != r.hi) continue;
    if (!holds_zero_points(type, p)) continue;
    s.codes = type;
    s.since = two ? kTwoBitOpset : kBlockOpset;
    return true;
  }
  return false;
}

void set_integer(Storage& s, const quant::QuantParams& p, bool constant, const QdqOptions& options) {
  const bool signs = p.spec.format != "int";  // ternary, binary: -1, 0, 1
  const std::int64_t lo = signs ? -1 : p.lo, hi = signs ? 1 : p.hi;
  const int newest = options.opset == 0 ? kNewestOpset : options.opset;
  Storage narrow = s;
  if (options.native && set_narrow(narrow, p, constant, lo, hi) && narrow.since <= newest) {
    s = narrow;
    return;
  }
  const bool wide = p.spec.format == "int" && p.spec.bits > 8;
  const bool is_signed = signs || p.spec.is_signed;
  s.codes = wide ? (is_signed ? DataType::kInt16 : DataType::kUint16) : is_signed ? DataType::kInt8 : DataType::kUint8;
  s.since = wide ? kBlockOpset : kQdqOpset;
  const Range r = range_of(s.codes);
  s.clips = !constant && (lo != r.lo || hi != r.hi);
}

void set_minifloat(Storage& s, const std::string& format) {
  s.codes = format == "e4m3fn"     ? DataType::kFloat8E4M3Fn
            : format == "e4m3fnuz" ? DataType::kFloat8E4M3Fnuz
            : format == "e5m2"     ? DataType::kFloat8E5M2
            : format == "e5m2fnuz" ? DataType::kFloat8E5M2Fnuz
                                   : DataType::kFloat4E2M1;
  s.since = s.codes == DataType::kFloat4E2M1 ? kFloat4Opset : kFloat8Opset;
}

}  // namespace

QdqOptions qdq_options(const json& options) {
  QdqOptions out;
  out.opset = options.value("opset", 0);
  out.native = options.value("native", false);
  out.external = options.value("external_data", std::string("auto")) == "always";
  return out;
}

Storage storage_of(const PlacedQuantizer& placed, const QdqOptions& options) {
  const quant::QuantParams& p = *placed.params;
  Storage s;
  if (placed.site.kind == SiteKind::kBias) {
    s.codes = DataType::kInt32;
    return s;
  }
  if (quant::is_dynamic(p)) {
    s.codes = DataType::kUint8;
    return s;
  }
  const bool constant = placed.site.kind == SiteKind::kWeight;
  const bool minifloat = p.spec.format == "float";
  if (minifloat)
    set_minifloat(s, format_name(p.spec));
  else
    set_integer(s, p, constant, options);
  if (p.spec.granularity != Granularity::kGroup) return s;
  s.since = std::max(s.since, kBlockOpset);
  const int newest = options.opset == 0 ? kNewestOpset : options.opset;
  const bool exponents = minifloat && options.native && newest >= kExponentOpset && p.spec.scale == ScaleType::kPowerOfTwo &&
                         std::all_of(p.scale.begin(), p.scale.end(), is_power_of_two);
  if (exponents) {
    s.scales = DataType::kFloat8E8M0;
    s.since = kExponentOpset;
  }
  return s;
}

int opset_of(const QuantizedModel& model, const QdqOptions& options) {
  if (options.opset != 0) return options.opset;
  int opset = std::max(model.model->graph->opset(), kQdqOpset);
  for (const PlacedQuantizer& q : place(model).quantizers) opset = std::max(opset, storage_of(q, options).since);
  return opset;
}

int bits_of(DataType type) {
  if (type == kUint2 || type == kInt2) return 2;
  if (is_four_bit_type(type)) return 4;
  const std::size_t bytes = element_size(type);
  return bytes == 0 ? 8 : static_cast<int>(8 * bytes);
}

std::string pack_codes(DataType type, const std::vector<std::int32_t>& codes) {
  const auto n = static_cast<std::int64_t>(codes.size());
  std::string raw(static_cast<std::size_t>(quant::packed_bytes(n, bits_of(type))), '\0');
  quant::pack(codes.data(), n, bits_of(type), reinterpret_cast<std::uint8_t*>(raw.data()));
  return raw;
}

std::string pack_floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string pack_exponents(const std::vector<float>& values) {
  std::string raw;
  for (const float v : values) raw.push_back(static_cast<char>(std::bit_cast<std::uint32_t>(v) >> 23));
  return raw;
}

}  // namespace quanvas::onnx_file
