// The packings of weights, taken apart. Sources: compressed-tensors (compressors/pack_quantized, nvfp4, mx*), AutoGPTQ
// (nn_modules/qlinear), AutoAWQ (modules/linear/gemm.py); the plain ones are our own.
#include <cmath>
#include <limits>

#include "core/quant/params.h"
#include "plugins/importers/described_network.h"

namespace quanvas::described {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 48;

Failure bad(const Weight& w, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "The weight '" + w.tensor.substr(0, 200) + "' " + what + ".", "Export it again.");
}

// A tensor of the type and shape that the packing has there.
Result<TensorData> part(const Source& source, const Weight& w, const std::string& suffix, DataType type,
                        const Shape& shape) {
  QUANVAS_TRY(TensorData data, source(w.tensor + suffix));
  if (data.type != type || data.shape != shape)
    return bad(w, "has '" + suffix + "' as " + type_name(data.type) + " " + shape_text(data.shape) + " instead of " +
                      type_name(type) + " " + shape_text(shape));
  return data;
}

template <class T>
T element(const TensorData& data, std::int64_t i) {
  T v;
  std::memcpy(&v, data.data + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
  return v;
}

// `bits` bits from bit `at` on of words that lie `stride` apart, the lowest first; there are `words` of them.
std::uint32_t bits_at(const TensorData& data, std::int64_t first, std::int64_t stride, std::int64_t words, std::int64_t at,
                      int bits) {
  const std::int64_t word = at / 32, shift = at % 32;
  std::uint64_t v = element<std::uint32_t>(data, first + word * stride);
  if (word + 1 < words) v |= static_cast<std::uint64_t>(element<std::uint32_t>(data, first + (word + 1) * stride)) << 32;
  return static_cast<std::uint32_t>(v >> shift) & (0xffffffffu >> (32 - bits));
}

std::int64_t position(std::int64_t i, int bits, bool padded) {
  const std::int64_t per_word = 32 / bits;
  return padded ? i / per_word * 32 + i % per_word * bits : i * bits;
}
std::int64_t words_of(std::int64_t n, int bits, bool padded) {
  const std::int64_t per_word = 32 / bits;
  return padded ? (n + per_word - 1) / per_word : (n * bits + 31) / 32;
}

// Sign, exponent, mantissa from the highest bit down.
float minifloat(const QuantSpec& s, std::int32_t code) {
  const int exponent = (code >> s.mantissa_bits) & ((1 << s.exponent_bits) - 1),
            mantissa = code & ((1 << s.mantissa_bits) - 1);
  const bool fnuz = s.specials == FloatSpecials::kFnuz;
  const int top = (1 << s.exponent_bits) - 1,
            bias = s.exponent_bias.value_or((1 << (s.exponent_bits - 1)) - (fnuz ? 0 : 1));
  const bool negative = s.is_signed && (code >> (s.exponent_bits + s.mantissa_bits) & 1) != 0;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  if (s.specials == FloatSpecials::kNan && exponent == top && mantissa == (1 << s.mantissa_bits) - 1) return nan;
  if (s.specials == FloatSpecials::kIeee && exponent == top) return mantissa ? nan : negative ? -HUGE_VALF : HUGE_VALF;
  if (fnuz && negative && exponent == 0 && mantissa == 0) return nan;
  const float v =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - bias - s.mantissa_bits)
                    : std::ldexp(static_cast<float>(mantissa + (1 << s.mantissa_bits)), exponent - bias - s.mantissa_bits);
  return negative ? -v : v;
}

// What codes of the spec stand for, in units of the scale, and which there are.
class Meaning {
 public:
  explicit Meaning(const QuantSpec& spec) : spec_(spec), book_(find_codebook(spec.format)), range_(code_range(spec)) {
    if (book_) range_ = {0, static_cast<std::int64_t>(book_->values.size()) - 1};
    if (spec.format == "ternary" || spec.format == "binary") range_ = {-1, 1};
  }
  bool has(std::int32_t code) const {
    const std::int64_t c = range_.lo >= 0 ? static_cast<std::int64_t>(static_cast<std::uint32_t>(code)) : code;
    return c >= range_.lo && c <= range_.hi && !(spec_.format == "binary" && c == 0);
  }
  float value(std::int32_t code, float scale, float zero) const {
    if (book_) return book_->values[static_cast<std::size_t>(code)] * scale;
    if (spec_.format == "float") return minifloat(spec_, code) * scale;
    const double q = range_.lo >= 0 ? static_cast<double>(static_cast<std::uint32_t>(code)) : static_cast<double>(code);
    if (spec_.zero_point == ZeroPointType::kOffset) return static_cast<float>(q) * scale + zero;
    return static_cast<float>(q - static_cast<double>(zero)) * scale;
  }

 private:
  const QuantSpec& spec_;
  const Codebook* book_;
  CodeRange range_;
};

// Which scale an element of the initializer has.
class Where {
 public:
  Where(const quant::BlockLayout& l) : l_(l), groups_((l.dim + l.group - 1) / l.group) {}
  std::size_t operator()(std::int64_t element) const {
    const std::int64_t i = element % l_.inner, d = element / l_.inner % l_.dim, o = element / l_.inner / l_.dim;
    if (l_.granularity == Granularity::kTensor) return 0;
    if (l_.granularity == Granularity::kChannel) return static_cast<std::size_t>(d);
    return static_cast<std::size_t>((o * groups_ + d / l_.group) * l_.inner + i);
  }

 private:
  quant::BlockLayout l_;
  std::int64_t groups_;
};

Status fill_values(const Weight& w, const quant::BlockLayout& layout, Held& out) {
  const Meaning meaning(*w.spec);
  const Where where(layout);
  const bool nothing = layout.granularity != Granularity::kTensor && (layout.dim < 1 || layout.inner < 1);
  out.values.resize(out.codes.size());
  for (std::size_t e = 0; e < out.codes.size() && !nothing; ++e) {
    if (!meaning.has(out.codes[e]))
      return bad(w, "has the code " + std::to_string(out.codes[e]) + ", which its format lacks");
    const std::size_t p = where(static_cast<std::int64_t>(e));
    if (p >= out.scale.size()) return bad(w, "has too few scales");
    out.values[e] = meaning.value(out.codes[e], out.scale[p], out.zero_point.empty() ? 0.0f : out.zero_point[p]);
  }
  return {};
}

// --- linear layers: [out, in] ---

struct Matrix {
  std::int64_t out = 0, in = 0, groups = 1;
  std::vector<std::int32_t> codes;  // [out, in], as the file counts them
  std::vector<float> scale, zero;   // [out, groups]; zero empty: there are none
  double bytes = 0;
};

struct Reader {
  const Source& source;
  const Weight& w;
  Matrix m;

  Result<TensorData> take(const std::string& suffix, DataType type, const Shape& shape) {
    QUANVAS_TRY(TensorData data, part(source, w, suffix, type, shape));
    m.bytes += static_cast<double>(data.bytes);
    return data;
  }
  template <class F>
  void each_code(const F& f) {
    m.codes.resize(static_cast<std::size_t>(m.out * m.in));
    for (std::int64_t o = 0; o < m.out; ++o)
      for (std::int64_t i = 0; i < m.in; ++i) m.codes[static_cast<std::size_t>(o * m.in + i)] = f(o, i);
  }
  template <class F>
  void each_group(std::vector<float>& to, const F& f) {
    to.resize(static_cast<std::size_t>(m.out * m.groups));
    for (std::int64_t o = 0; o < m.out; ++o)
      for (std::int64_t g = 0; g < m.groups; ++g) to[static_cast<std::size_t>(o * m.groups + g)] = f(o, g);
  }
  // weight_scale [1], [out, 1] or [out, groups].
  Status scales(DataType type, const std::function<float(const TensorData&, std::int64_t)>& value) {
    const bool one = w.spec->granularity == Granularity::kTensor && w.form != "pack-quantized";
    QUANVAS_TRY(const TensorData s, take(".weight_scale", type, one ? Shape{1} : Shape{m.out, m.groups}));
    each_group(m.scale, [&](std::int64_t o, std::int64_t g) { return value(s, one ? 0 : o * m.groups + g); });
    return {};
  }
  Status float_scales() {
    return scales(DataType::kFloat, [](const TensorData& t, std::int64_t i) { return element<float>(t, i); });
  }
  Status power_scales() {
    return scales(DataType::kUint8,
                  [](const TensorData& t, std::int64_t i) { return std::ldexp(1.0f, element<std::uint8_t>(t, i) - 127); });
  }

  Status int_quantized() {
    QUANVAS_TRY(const TensorData q, take(".weight", DataType::kInt8, {m.out, m.in}));
    each_code([&](std::int64_t o, std::int64_t i) { return element<std::int8_t>(q, o * m.in + i); });
    QUANVAS_CHECK(float_scales());
    if (!w.zero_points) return {};
    const bool one = w.spec->granularity == Granularity::kTensor;
    QUANVAS_TRY(const TensorData z, take(".weight_zero_point", DataType::kInt8, one ? Shape{1} : Shape{m.out, m.groups}));
    each_group(m.zero, [&](std::int64_t o, std::int64_t g) {
      return static_cast<float>(element<std::int8_t>(z, one ? 0 : o * m.groups + g));
    });
    return {};
  }
  Status pack_quantized() {
    const std::int64_t words = words_of(m.in, w.bits, w.padded);
    const int half = 1 << (w.bits - 1);
    QUANVAS_TRY(const TensorData q, take(".weight_packed", DataType::kInt32, {m.out, words}));
    QUANVAS_TRY(const TensorData shape, take(".weight_shape", DataType::kInt64, {2}));
    if (element<std::int64_t>(shape, 0) != m.out || element<std::int64_t>(shape, 1) != m.in)
      return bad(w, "has another weight_shape");
    each_code([&](std::int64_t o, std::int64_t i) {
      return static_cast<std::int32_t>(bits_at(q, o * words, 1, words, position(i, w.bits, w.padded), w.bits)) - half;
    });
    QUANVAS_CHECK(float_scales());
    if (!w.zero_points) return {};
    const std::int64_t rows = words_of(m.out, w.bits, w.padded);
    QUANVAS_TRY(const TensorData z, take(".weight_zero_point", DataType::kInt32, {rows, m.groups}));
    each_group(m.zero, [&](std::int64_t o, std::int64_t g) {
      return static_cast<float>(
          static_cast<std::int32_t>(bits_at(z, g, m.groups, rows, position(o, w.bits, w.padded), w.bits)) - half);
    });
    return {};
  }
  Status float8() {
    QUANVAS_TRY(const TensorData q, take(".weight", DataType::kFloat8E4M3Fn, {m.out, m.in}));
    each_code([&](std::int64_t o, std::int64_t i) { return element<std::uint8_t>(q, o * m.in + i); });
    return w.form == "mxfp8-quantized" ? power_scales() : float_scales();
  }
  Status float4() {
    QUANVAS_TRY(const TensorData q, take(".weight_packed", DataType::kUint8, {m.out, m.in / 2}));
    each_code([&](std::int64_t o, std::int64_t i) {
      return element<std::uint8_t>(q, o * (m.in / 2) + i / 2) >> (i % 2 * 4) & 15;
    });
    if (w.form == "mxfp4-pack-quantized") return power_scales();
    QUANVAS_TRY(const TensorData g, take(".weight_global_scale", DataType::kFloat, {1}));
    const float whole = element<float>(g, 0);
    return scales(DataType::kFloat8E4M3Fn, [whole](const TensorData& t, std::int64_t i) {
      return small_value(DataType::kFloat8E4M3Fn, element<std::uint8_t>(t, i)) / whole;
    });
  }
  Status half_scales() {
    QUANVAS_TRY(const TensorData s, take(".scales", DataType::kFloat16, {m.groups, m.out}));
    each_group(m.scale,
               [&](std::int64_t o, std::int64_t g) { return half_to_float(element<std::uint16_t>(s, g * m.out + o)); });
    return {};
  }
  Status gptq() {
    const std::int64_t rows = m.in * w.bits / 32, columns = m.out * w.bits / 32;
    QUANVAS_TRY(const TensorData q, take(".qweight", DataType::kInt32, {rows, m.out}));
    QUANVAS_TRY(const TensorData z, take(".qzeros", DataType::kInt32, {m.groups, columns}));
    QUANVAS_TRY(const TensorData group_of, take(".g_idx", DataType::kInt32, {m.in}));
    for (std::int64_t i = 0; i < m.in; ++i)
      if (element<std::int32_t>(group_of, i) != i / (m.in / m.groups))
        return bad(w, "has groups whose columns are not neighbours (g_idx)");
    each_code([&](std::int64_t o, std::int64_t i) {
      return static_cast<std::int32_t>(bits_at(q, o, m.out, rows, i * w.bits, w.bits));
    });
    const std::uint32_t one = w.form == "gptq" ? 1 : 0;  // the first version stores z - 1
    each_group(m.zero, [&](std::int64_t o, std::int64_t g) {
      return static_cast<float>(bits_at(z, g * columns, 1, columns, o * w.bits, w.bits) + one);
    });
    return half_scales();
  }
  Status awq() {
    constexpr int kNibbleOf[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // of column i in its word
    QUANVAS_TRY(const TensorData q, take(".qweight", DataType::kInt32, {m.in, m.out / 8}));
    QUANVAS_TRY(const TensorData z, take(".qzeros", DataType::kInt32, {m.groups, m.out / 8}));
    const auto nibble = [&](const TensorData& t, std::int64_t row, std::int64_t o) {
      return static_cast<std::int32_t>(element<std::uint32_t>(t, row * (m.out / 8) + o / 8) >> (4 * kNibbleOf[o % 8]) & 15);
    };
    each_code([&](std::int64_t o, std::int64_t i) { return nibble(q, i, o); });
    each_group(m.zero, [&](std::int64_t o, std::int64_t g) { return static_cast<float>(nibble(z, g, o)); });
    return half_scales();
  }
};

// What is added to the file's codes and zero points for those of the spec.
int shift_of(const Weight& w) {
  if (w.spec->format != "int") return 0;
  const bool counts_from_0 = w.form == "gptq" || w.form == "gptq_v2" || w.form == "awq";
  const int half = 1 << (w.bits - 1);
  return counts_from_0 == !w.spec->is_signed ? 0 : counts_from_0 ? -half : half;
}

// [out, in] as the graph has it, scales in the order of the layout.
Status arrange(const Weight& w, const Matrix& m, const quant::BlockLayout& layout, Held& out) {
  const int shift = shift_of(w);
  out.codes.resize(m.codes.size());
  const Where where(layout);
  const auto count = static_cast<std::size_t>(layout.parameters());
  const bool zeros = w.spec->zero_point != ZeroPointType::kNone;
  std::vector<bool> seen(count, false);
  if (count == 0 || count > m.scale.size()) return bad(w, "has another number of scales than its quantizer");
  out.scale.assign(count, 0);
  if (zeros) out.zero_point.assign(count, 0);
  for (std::int64_t o = 0; o < m.out; ++o)
    for (std::int64_t i = 0; i < m.in; ++i) {
      const std::int64_t e = w.transposed ? i * m.out + o : o * m.in + i;
      const auto from = static_cast<std::size_t>(o * m.in + i), p = where(e);
      const auto g = static_cast<std::size_t>(o * m.groups + i / (m.in / m.groups));
      out.codes[static_cast<std::size_t>(e)] = m.codes[from] + shift;
      if (p >= count) return bad(w, "has another number of scales than its quantizer");
      const float zero = m.zero.empty() ? 0.0f : m.zero[g] + static_cast<float>(shift);
      if (!zeros && zero != 0) return bad(w, "has zero points where its quantizer has none");
      // One scale of the quantizer may stand in the file several times.
      if (seen[p] && (out.scale[p] != m.scale[g] || (zeros && out.zero_point[p] != zero)))
        return bad(w, "has more scales than its quantizer");
      seen[p] = true;
      out.scale[p] = m.scale[g];
      if (zeros) out.zero_point[p] = zero;
    }
  return {};
}

// Of the packings whose words end with the rows or columns: else the last codes would lie behind the data.
bool fills_words(const Weight& w, const Matrix& m) {
  if (w.form == "gptq" || w.form == "gptq_v2") return m.in * w.bits % 32 == 0 && m.out * w.bits % 32 == 0;
  if (w.form == "awq") return m.out % 8 == 0;
  if (w.form == "nvfp4-pack-quantized" || w.form == "mxfp4-pack-quantized") return m.in % 2 == 0;
  return true;
}

Result<Held> decode_linear(const Source& source, const Weight& w, const quant::BlockLayout& layout) {
  Reader r{source, w, {}};
  if (w.shape.size() != 2) return bad(w, "is no matrix");
  r.m.out = w.shape[w.transposed ? 1 : 0];
  r.m.in = w.shape[w.transposed ? 0 : 1];
  if (layout.granularity == Granularity::kGroup) r.m.groups = layout.parameters() / std::max<std::int64_t>(1, r.m.out);
  if (r.m.out < 1 || r.m.in < 1 || r.m.groups < 1 || r.m.in % r.m.groups != 0)
    return bad(w, "has no elements, or groups that do not divide it");
  if (layout.granularity == Granularity::kGroup && layout.dim != r.m.in) return bad(w, "has groups along the wrong axis");
  const bool is_int = w.spec->format == "int";
  const auto run = [&]() -> Status {
    if (is_int && (w.bits < 1 || w.bits > 8 || w.spec->bits != w.bits))
      return bad(w, "has codes of " + std::to_string(w.bits) + " bits");
    if (!fills_words(w, r.m)) return bad(w, "is " + shape_text(w.shape) + ", which fills no whole words");
    if (is_int && w.form == "int-quantized") return r.int_quantized();
    if (is_int && w.form == "pack-quantized") return r.pack_quantized();
    if (is_int && (w.form == "gptq" || w.form == "gptq_v2")) return r.gptq();
    if (is_int && w.form == "awq" && w.bits == 4) return r.awq();
    if (!is_int && (w.form == "float-quantized" || w.form == "mxfp8-quantized")) return r.float8();
    if (!is_int && (w.form == "nvfp4-pack-quantized" || w.form == "mxfp4-pack-quantized")) return r.float4();
    return bad(w, "is packed as '" + w.form.substr(0, 40) + "', which is not known for its format");
  };
  QUANVAS_CHECK(run());
  Held out;
  out.shape = w.shape;
  out.bytes = r.m.bytes;
  QUANVAS_CHECK(arrange(w, r.m, layout, out));
  QUANVAS_CHECK(fill_values(w, layout, out));
  return out;
}

// --- as they are ---

// Least significant bit first, without gaps.
std::int32_t dense_code(const std::byte* data, std::int64_t at, int bits) {
  std::uint64_t v = 0;
  for (int b = 0; b < bits; ++b, ++at)
    v |= static_cast<std::uint64_t>(std::to_integer<unsigned>(data[at / 8]) >> (at % 8) & 1) << b;
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(v));
}

Result<std::vector<std::int32_t>> plain_codes(const TensorData& data, const Weight& w, std::int64_t count) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(count));
  const auto read = [&]<class T>(T) {
    for (std::int64_t i = 0; i < count; ++i)
      out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(element<T>(data, i));
  };
  switch (data.type) {
    case DataType::kInt8: read(std::int8_t{}); break;
    case DataType::kUint8: read(std::uint8_t{}); break;
    case DataType::kInt16: read(std::int16_t{}); break;
    case DataType::kInt32: read(std::int32_t{}); break;
    default: return bad(w, std::string("has codes of type ") + type_name(data.type));
  }
  return out;
}

Result<Held> decode_plain(const Source& source, const Weight& w, const quant::BlockLayout& layout) {
  const std::int64_t count = element_count(w.shape);
  QUANVAS_TRY(const TensorData q, source(w.tensor + ".codes"));
  Held out;
  out.shape = w.shape;
  out.bytes = static_cast<double>(q.bytes);
  if (w.form == "dense") {
    const int bits = code_bits(*w.spec);
    const bool is_binary = w.spec->format == "binary";
    const bool sign = is_binary ? false : w.spec->format == "ternary" || (w.spec->format == "int" && w.spec->is_signed);
    if (w.bits != bits || q.type != DataType::kUint8 || static_cast<std::int64_t>(q.bytes) != (count * bits + 7) / 8)
      return bad(w, "has " + std::to_string(q.bytes) + " bytes of packed codes for " + std::to_string(count) + " elements");
    out.codes.resize(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
      std::int32_t c = dense_code(q.data, i * bits, bits);
      if (sign && bits < 32 && (c >> (bits - 1) & 1) != 0) c -= static_cast<std::int32_t>(std::int64_t{1} << bits);
      out.codes[static_cast<std::size_t>(i)] = is_binary ? 2 * c - 1 : c;
    }
  } else {
    if (q.shape != w.shape) return bad(w, "has codes of shape " + shape_text(q.shape));
    QUANVAS_TRY(out.codes, plain_codes(q, w, count));
  }
  const std::int64_t parameters = layout.parameters();
  QUANVAS_TRY(const TensorData scale, part(source, w, ".scale", DataType::kFloat, {parameters}));
  out.bytes += static_cast<double>(scale.bytes);
  out.scale = scale.to_floats();
  if (w.spec->zero_point != ZeroPointType::kNone) {
    const bool whole = w.spec->zero_point == ZeroPointType::kInteger;
    QUANVAS_TRY(const TensorData zero,
                part(source, w, ".zero_point", whole ? DataType::kInt32 : DataType::kFloat, {parameters}));
    out.bytes += static_cast<double>(zero.bytes);
    out.zero_point = zero.to_floats();
  }
  QUANVAS_CHECK(fill_values(w, layout, out));
  return out;
}

Result<Held> decode_float(const Source& source, const Weight& w) {
  QUANVAS_TRY(const TensorData data, source(w.tensor));
  const Shape there = w.transposed && w.shape.size() == 2 ? Shape{w.shape[1], w.shape[0]} : w.shape;
  if (data.shape != there) return bad(w, "has the shape " + shape_text(data.shape) + " instead of " + shape_text(there));
  Held out;
  out.shape = w.shape;
  out.bytes = static_cast<double>(data.bytes);
  out.values = data.to_floats();
  if (w.transposed && w.shape.size() == 2) {
    const std::vector<float> from = std::move(out.values);
    out.values.assign(from.size(), 0);
    const auto in = static_cast<std::size_t>(w.shape[0]), columns = static_cast<std::size_t>(w.shape[1]);
    for (std::size_t o = 0; o < columns; ++o)
      for (std::size_t i = 0; i < in; ++i) out.values[i * columns + o] = from[o * in + i];
  }
  return out;
}

}  // namespace

Result<Held> decode(const Source& source, const Weight& w) {
  std::int64_t count = 1;
  for (const std::int64_t d : w.shape)
    if (d < 0 || __builtin_mul_overflow(count, d, &count) || d > kMostElements) return bad(w, "has a shape that cannot be");
  if (count > kMostElements) return bad(w, "has a shape that cannot be");
  if (w.form == "float") return decode_float(source, w);
  if (!w.spec) return bad(w, "has codes, but nothing says what they mean");
  if (const std::string problem = check(*w.spec); !problem.empty()) return bad(w, "has an illegal quantizer: " + problem);
  QUANVAS_TRY(const quant::BlockLayout layout, quant::make_layout(*w.spec, w.shape, w.spec->axis.value_or(0)));
  return w.form == "codes" || w.form == "dense" ? decode_plain(source, w, layout) : decode_linear(source, w, layout);
}

}  // namespace quanvas::described
