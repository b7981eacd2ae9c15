// Quanvas - a network's numbers as a C99 and C++ header: codes, scales, zero points, biases, and what an integer
// implementation needs between layers (docs/export-targets.md).
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/quant/dynamic.h"
#include "core/quant/grid.h"
#include "plugins/exporters/c_header_read.h"
#include "plugins/exporters/c_names.h"
#include "plugins/exporters/dump.h"

namespace quanvas {
namespace {

using namespace weight_file;
using namespace c_header;

constexpr int kColumns = 100;

// Text that may stand in a comment.
std::string quoted(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < 32 || c == '*' || c == '/' ? (c == '/' ? '/' : '?') : c;
  for (std::size_t at; (at = out.find("*/")) != std::string::npos;) out[at] = '?';
  for (std::size_t at; (at = out.find("/*")) != std::string::npos;) out[at + 1] = '?';
  return "'" + out + "'";
}

std::string hex(float v) {
  if (std::isnan(v)) return "NAN";
  if (std::isinf(v)) return v > 0 ? "HUGE_VALF" : "-HUGE_VALF";
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, std::fabs(v), std::chars_format::hex);
  return std::string(std::signbit(v) ? "-0x" : "0x") + std::string(digits, end.ptr) + "f";
}
std::string decimal(float v) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, v);
  return std::string(digits, end.ptr);
}

class HeaderText {
 public:
  void line(const std::string& text = {}) { out_ += text + "\n"; }
  template <class F>
  void array(const char* type, const std::string& name, std::size_t count, const F& text) {
    if (count == 0) return;
    out_ += std::string("static const ") + type + " " + name + "[" + std::to_string(count) + "] = {\n ";
    std::size_t column = 1;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string v = text(i) + (i + 1 < count ? "," : "");
      if (column + v.size() + 1 > kColumns) out_ += "\n ", column = 1;
      out_ += " " + v;
      column += v.size() + 1;
    }
    out_ += "};\n";
  }
  void integers(const char* type, const std::string& name, const std::vector<std::int32_t>& values) {
    array(type, name, values.size(), [&](std::size_t i) {
      return values[i] == INT32_MIN ? std::string("(-2147483647 - 1)") : std::to_string(values[i]);
    });
  }
  // Scales also as decimals, for people.
  void floats(const std::string& name, const std::vector<float>& values, bool both = false) {
    array("float", name, values.size(),
          [&](std::size_t i) { return hex(values[i]) + (both ? " /* " + decimal(values[i]) + " */" : ""); });
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

const char* c_type(DataType type) {
  switch (type) {
    case DataType::kInt8: return "int8_t";
    case DataType::kUint8: return "uint8_t";
    case DataType::kInt16: return "int16_t";
    default: return "int32_t";
  }
}

const char* const kRequantize =
    R"(/* A sum of codes (x - z_x) * (w - z_w), plus the bias, as a code of the next quantizer: sum * m0 * 2^(shift - 31),
 * rounded to nearest with ties upward, plus zero_lo_hi[0], kept between zero_lo_hi[1] and zero_lo_hi[2].
 * m0 has 31 bits: the code is the one of real arithmetic but where that lies next to a tie; then it is one step off. */
#ifndef QUANVAS_REQUANTIZE
#define QUANVAS_REQUANTIZE
static inline int32_t quanvas_requantize(int32_t sum, int32_t m0, int32_t shift, const int32_t zero_lo_hi[3]) {
  const int32_t right = 31 - shift;
  const int64_t product = (int64_t)sum * m0 + ((int64_t)1 << (right - 1));
  const int64_t floor = product >= 0 ? product >> right : -((-product + (((int64_t)1 << right) - 1)) >> right);
  const int64_t code = floor + zero_lo_hi[0];
  return (int32_t)(code < zero_lo_hi[1] ? zero_lo_hi[1] : code > zero_lo_hi[2] ? zero_lo_hi[2] : code);
}
#endif
)";

std::string prefix_of(const json& options) {
  return options.value("prefix", std::string());
}

class CHeaderExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"c-header", "C header",
            "Codes, scales and biases as constant arrays for C99 and C++, with fixed-point multipliers between integer "
            "layers."};
  }
  std::string extension() const override { return ".h"; }
  Schema schema() const override {
    return {
        {packing_field(), text_field("prefix", "Prefix", "Stands before every name: several headers in one program.", "")}};
  }
  TargetTable table(const json&) const override { return dump_table(); }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_dump(model);
    for (const char c : prefix_of(options))
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') {
        out.push_back({{},
                       {},
                       "prefix",
                       "'" + prefix_of(options) + "'",
                       "letters, digits and underscores",
                       "Choose another prefix.",
                       {},
                       {},
                       false});
        break;
      }
    for (const TensorId id : contents_of(model).plain) {
      const TensorInfo& t = model.model->graph->tensor(id);
      if (t.type != DataType::kFloat && t.type != DataType::kInt64 && t.type != DataType::kInt32 &&
          t.type != DataType::kBool)
        out.push_back({t.name,
                       {},
                       "element type",
                       type_name(t.type),
                       "float32, int32, int64 or bool",
                       "Convert the model's constants to float32.",
                       {},
                       {},
                       false});
    }
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to a C header", [&]() -> Status {
      const Contents contents = contents_of(model);
      const Identifiers ids = identifiers(model, contents, prefix_of(options));
      HeaderText text;
      const std::string guard = begin(text, model, prefix_of(options));
      for (const Coded& c : contents.coded) {
        QUANVAS_CHECK(job.check());
        QUANVAS_CHECK(coded(text, model, c, ids.coded.at(c.name), is_dense(options)));
      }
      for (const TensorId id : contents.plain) plain(text, model, id, ids.plain.at(id));
      for (const PlacedQuantizer& q : place(model).quantizers)
        if (is_activation(q.site.kind)) activation(text, q, ids.sites.at(q.site));
      requantize(text, model, ids);
      text.line();
      text.line("#endif /* " + guard + " */");
      QUANVAS_CHECK(job.check());
      return write_file_atomically(path, text.take());
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'",
                   [&] { return audit_header(model, path, prefix_of(options), is_dense(options)); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json& options,
                        JobContext&) const override {
    return guarded("Reading '" + path + "'",
                   [&] { return read_header(model, path, prefix_of(options), is_dense(options)); });
  }

 private:
  static std::string begin(HeaderText& text, const QuantizedModel& model, const std::string& prefix) {
    Names names;
    std::string guard = names.give(prefix + model.model->graph->name() + "_quanvas_h");
    for (char& c : guard) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    text.line("/* The network " + quoted(model.model->graph->name()) + " as integers, written by Quanvas. C99, C++17.");
    text.line(
        " * <tensor>_codes is row-major in the order of the shape beside it; value = (code - zero_point) * scale, in "
        "float32. */");
    text.line("#ifndef " + guard);
    text.line("#define " + guard);
    text.line();
    text.line("#include <math.h>");
    text.line("#include <stdint.h>");
    return guard;
  }

  static std::string layout_text(const quant::QuantParams& p, const Shape& shape) {
    const std::string axis = std::to_string(channel_axis(p, shape.size()));
    switch (p.layout.granularity) {
      case Granularity::kTensor: return "one scale";
      case Granularity::kChannel: return "scale[i], i the index on axis " + axis;
      default:
        return "scale[(o * " + std::to_string((p.layout.dim + p.layout.group - 1) / p.layout.group) + " + d / " +
               std::to_string(p.layout.group) + ") * " + std::to_string(p.layout.inner) + " + i], d the index on axis " +
               axis + ", o and i the ones before and behind it as one";
    }
  }

  static Status coded(HeaderText& text, const QuantizedModel& model, const Coded& c, const std::string& id, bool dense) {
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model, c.sites.front()));
    const quant::QuantParams& p = c.params();
    text.line();
    text.line("/* " + quoted(c.initializer) + " [" + shape_text(stored.shape) + "], " + quoted(c.sites.front().node->name) +
              ": " + describe(p.spec) + ";");
    text.line(
        " * " + layout_text(p, stored.shape) +
        (dense ? "; codes of " + std::to_string(code_bits(p.spec)) + " bits without gaps, the lowest bits first" : "") +
        ". */");
    if (dense) {
      const std::string bytes = dense_bytes(p, stored.codes);
      std::vector<std::int32_t> shown;
      for (const char b : bytes) shown.push_back(static_cast<unsigned char>(b));
      text.integers("uint8_t", id + "_codes", shown);
    } else {
      text.integers(c_type(code_type(p)), id + "_codes", stored.codes);
    }
    text.floats(id + "_scale", p.scale, true);
    if (p.spec.zero_point == ZeroPointType::kInteger) {
      std::vector<std::int32_t> zeros;
      for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z));
      text.integers("int32_t", id + "_zero_point", zeros);
    } else if (p.spec.zero_point != ZeroPointType::kNone) {
      text.floats(id + "_zero_point", p.zero_point, true);
      if (p.spec.zero_point == ZeroPointType::kOffset) text.line("/* An offset: value = code * scale + zero_point. */");
    }
    const std::vector<float> lut = table_of(p.spec);
    if (!lut.empty()) {
      text.line("/* value = lut[code] * scale */");
      text.floats(id + "_lut", lut);
    }
    return {};
  }

  // What codes of minifloats and codebooks stand for; empty: the codes themselves.
  static std::vector<float> table_of(const QuantSpec& spec) {
    if (const Codebook* book = find_codebook(spec.format)) return book->values;
    std::vector<float> out;
    if (spec.format != "float" || code_bits(spec) > 8) return out;
    const quant::Grid grid = quant::grid_of(spec);
    for (std::int32_t code = 0; code < 1 << code_bits(spec); ++code) out.push_back(quant::float_value(grid, code));
    return out;
  }

  static void plain(HeaderText& text, const QuantizedModel& model, TensorId id, const std::string& name) {
    const TensorInfo& info = model.model->graph->tensor(id);
    const TensorData& data = *model.model->weights->find(info.name);
    text.line();
    text.line("/* " + quoted(info.name) + " [" + shape_text(data.shape) + "], not quantized */");
    if (data.type == DataType::kFloat) return text.floats(name + "_values", data.to_floats());
    const std::vector<std::int64_t> values = data.to_int64();
    text.array("int64_t", name + "_values", values.size(), [&](std::size_t i) {
      return values[i] == INT64_MIN ? std::string("INT64_MIN") : "INT64_C(" + std::to_string(values[i]) + ")";
    });
  }

  static void activation(HeaderText& text, const PlacedQuantizer& q, const std::string& name) {
    const quant::QuantParams& p = *q.params;
    text.line();
    text.line("/* " + quoted(q.node->name) + ", " + q.name + ": " + describe(p.spec) + " */");
    if (quant::is_dynamic(p)) return text.line("/* Its scale is found from each sample at run time. */");
    text.floats(name + "_scale", p.scale, true);
    if (p.spec.format != "int") return;
    if (p.spec.zero_point == ZeroPointType::kFloat || p.spec.zero_point == ZeroPointType::kOffset)
      return text.floats(name + "_zero_point", p.zero_point, true);
    if (p.hi > INT32_MAX) {  // codes that no int32 holds
      if (!p.zero_point.empty()) text.floats(name + "_zero_point", p.zero_point, true);
      return;
    }
    std::vector<std::int32_t> values;
    for (const std::int64_t z : zero_points(p)) {
      values.push_back(static_cast<std::int32_t>(z));
      values.push_back(static_cast<std::int32_t>(p.lo));
      values.push_back(static_cast<std::int32_t>(p.hi));
    }
    text.integers("int32_t", name + "_zero_lo_hi", values);
  }

  static void requantize(HeaderText& text, const QuantizedModel& model, const Identifiers& ids) {
    const std::vector<Requantization> all = requantizations(model);
    if (all.empty()) return;
    text.line();
    text.line(std::string(kRequantize).substr(0, std::string(kRequantize).size() - 1));
    for (const Requantization& r : all) {
      const std::string& name = ids.layers.at(r.node->id);
      std::vector<std::int32_t> m0, shift;
      for (const Multiplier& m : r.channels) m0.push_back(m.m0), shift.push_back(m.shift);
      text.line();
      text.line("/* " + quoted(r.node->name) + ": s_x s_w / s_y of its output" + (r.relu ? ", behind a Relu" : "") +
                "; a bias has the scale s_x s_w */");
      text.integers("int32_t", name + "_multiplier", m0);
      text.integers("int32_t", name + "_shift", shift);
      const std::int64_t zero = zero_points(*r.output)[0];
      const std::int64_t lo = r.relu ? std::max<std::int64_t>(zero, r.output->lo) : r.output->lo;
      if (r.output->hi <= INT32_MAX)
        text.integers(
            "int32_t", name + "_zero_lo_hi",
            {static_cast<std::int32_t>(zero), static_cast<std::int32_t>(lo), static_cast<std::int32_t>(r.output->hi)});
    }
  }
};
QUANVAS_PLUGIN(Exporter, CHeaderExporter)

}  // namespace
}  // namespace quanvas
