// Quanvas - compressed-tensors files, as vLLM and transformers read them: linear layers in one of its forms, config.json
// with the schemes, all else float.
#include <algorithm>
#include <cmath>

#include "core/base/guarded.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/compressed_forms.h"
#include "plugins/exporters/hf_file.h"
#include "plugins/exporters/packed_audit.h"
#include "plugins/exporters/packed_mend.h"

namespace quanvas {
namespace {

using namespace weight_file;
using namespace compressed;

bool rounds(const json& options) {
  return options.value("scales", std::string("exact")) == "round";
}
std::string packing(const json& options) {
  return options.value("packing", std::string("refuse"));
}
bool straddles(int bits) {
  return bits == 3 || bits == 5 || bits == 6 || bits == 7;
}

class CompressedTensorsExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"compressed-tensors", "compressed-tensors (safetensors)",
            "Linear layers as integers or minifloats with their schemes in config.json, as vLLM and transformers load "
            "them; all else float."};
  }
  std::string extension() const override { return ".safetensors"; }
  Schema schema() const override {
    Schema s{{choice_field("format", "Form", "How weights are stored.", "auto",
                           {{"auto", "By layer", "What readers expect for the layer's quantizers."},
                            {kInt, "int8 tensors", "One byte for each weight, for integer products."},
                            {kPack, "Packed integers", "Integers of 1 to 8 bits in 32-bit words, inputs float."},
                            {kFloat, "float8", "e4m3 with float32 scales."},
                            {kNvfp4, "NVFP4", "e2m1 in groups of 16 with float8 scales."},
                            {kMxfp4, "MXFP4", "e2m1 in groups of 32 with powers of two."},
                            {kMxfp8, "MXFP8", "e4m3 in groups of 32 with powers of two."}}),
              choice_field("packing", "Widths of 3, 5, 6 and 7 bits",
                           "Versions of the library pack them in two ways and read the other one wrongly.", "refuse",
                           {{"refuse", "Refuse", "Only widths that all versions read alike: 1, 2, 4 and 8 bits."},
                            {"dense", "Dense", "Codes go on in the next word: newer versions."},
                            {"padded", "Padded", "Whole codes in each word: up to version 0.9.4."}}),
              choice_field("scales", "Scales of NVFP4", "They are float8 divided by one float32.", "exact",
                           {{"exact", "Exact", "Scales that no such quotient gives are refused."},
                            {"round", "Rounded",
                             "The nearest quotients; the audit says what that changes, and no such row is equal then."}})}};
    for (Field& f : config_fields()) s.fields.push_back(std::move(f));
    return s;
  }

  TargetTable table(const json& options) const override {
    TargetTable t = compressed::table(options);
    if (rounds(options)) t.exactness = Exactness::kNear;
    return t;
  }
  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return files_with_config(path, options);
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_linear(model, table(options));
    for (Refusal& r : check_config(options)) out.push_back(std::move(r));
    const std::vector<LinearLayer> layers = linear_layers(model);
    for (const LinearLayer& l : layers) {
      if (!l.quantizer) continue;
      const std::string form = form_of(l, options);
      const QuantSpec& s = l.quantizer->spec;
      if (form.empty() &&
          std::none_of(out.begin(), out.end(), [&](const Refusal& r) { return r.site && r.site->node == l.node->id; })) {
        const std::string format = options.value("format", std::string("auto"));
        out.push_back(at_weight(l, "form", describe(s) + (l.input ? " with quantized inputs" : ""),
                                format == "auto" ? "the forms of this target" : "what '" + format + "' holds",
                                "Choose the option format=auto, or leave the inputs float."));
      }
      if (form == kPack && straddles(s.bits) && packing(options) == "refuse")
        out.push_back(at_weight(
            l, "packing", std::to_string(s.bits) + " bit", "1, 2, 4 or 8 bit, which all versions of the reader take alike",
            "Choose the reader's version with the option packing (dense or padded), or another width."));
      if ((form == kNvfp4 || form == kMxfp4) && l.in % 2 != 0)
        out.push_back(at_weight(l, "size", std::to_string(l.in) + " inputs", "an even number", "Leave it float."));
      if (form == kNvfp4 && !rounds(options) && !two_levels(l.quantizer->scale).exact)
        out.push_back(at_weight(l, "scale", "scales that are no float8 divided by one float32, bit for bit", "such scales",
                                "Choose the option scales=round: they differ in their last bits."));
    }
    add_fixes(layers, mended_layers(layers, table(options), {}), out);
    for (const PlacedQuantizer& q : place(model).quantizers) {
      const auto rank = static_cast<std::int64_t>(shape_of(model, q.tensor).size());
      const std::int64_t axis = q.params->spec.axis.value_or(-1);
      if (q.site.kind == SiteKind::kInput && q.params->spec.granularity == Granularity::kRow && rank > 0 && axis != -1 &&
          axis != rank - 1)
        out.push_back({q.node->name,
                       q.name,
                       "axis of scales",
                       "axis " + std::to_string(axis),
                       "the last axis: a scale for each token",
                       "Leave the axis to the layer.",
                       q.site,
                       {},
                       true});
      if (q.site.kind != SiteKind::kInput || quant::is_dynamic(*q.params) || q.params->spec.format != "int" ||
          q.params->spec.bits > 8)
        continue;
      const double lowest = lowest_code(q.params->spec), highest = lowest + (1 << q.params->spec.bits) - 1;
      for (const float z : q.params->zero_point)
        if (!(z >= lowest && z <= highest))
          out.push_back({q.node->name,
                         q.name,
                         "zero point",
                         std::to_string(static_cast<std::int64_t>(z)),
                         "a zero point that is a code itself",
                         "Widen the range so that it contains 0.",
                         q.site,
                         {},
                         true});
    }
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to compressed-tensors", [&]() -> Status {
      HfFile file(model);
      std::vector<std::pair<json, std::vector<std::string>>> schemes;  // with their form, and their modules
      json ignore = json::array();
      std::size_t done = 0;
      for (const LinearLayer& l : file.layers) {
        QUANVAS_CHECK(job.check());
        if (l.quantizer) {
          const std::string form = form_of(l, options);
          QUANVAS_CHECK(add(file, l, form, options));
          json scheme = scheme_of(l, form);
          scheme["format"] = form;
          auto at = std::find_if(schemes.begin(), schemes.end(), [&](const auto& s) { return s.first == scheme; });
          if (at == schemes.end()) {
            schemes.emplace_back(scheme, std::vector<std::string>());
            at = std::prev(schemes.end());
          }
          at->second.push_back(l.module);
        } else {
          ignore.push_back(l.module);
        }
        job.progress("export", static_cast<double>(++done) / static_cast<double>(file.layers.size()), l.node->name);
      }
      return file.finish(path, options, config(schemes, ignore), job);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'",
                   [&] { return audit_packed(model, path, config_path(path, options), "compressed-tensors"); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json& options,
                        JobContext&) const override {
    return guarded("Reading '" + path + "'",
                   [&] { return read_packed(model, path, config_path(path, options), "compressed-tensors"); });
  }

 private:
  static json config(const std::vector<std::pair<json, std::vector<std::string>>>& schemes, const json& ignore) {
    json groups = json::object();
    std::string format;
    for (const auto& [scheme, modules] : schemes) {
      const std::string form = scheme["format"];
      format = format.empty() || format == form ? form : "mixed-precision";
    }
    for (std::size_t i = 0; i < schemes.size(); ++i) {
      json group = schemes[i].first;
      // Older versions know no form of a group.
      if (format != "mixed-precision") group.erase("format");
      group["targets"] = schemes.size() == 1 ? json::array({"Linear"}) : json(schemes[i].second);
      groups["group_" + std::to_string(i)] = std::move(group);
    }
    return {{"quant_method", "compressed-tensors"},
            {"format", format.empty() ? std::string(kInt) : format},
            {"quantization_status", "compressed"},
            {"config_groups", groups},
            {"ignore", ignore},
            {"kv_cache_scheme", json()},
            {"global_compression_ratio", json()}};
  }

  static Status add(HfFile& file, const LinearLayer& l, const std::string& form, const json& options) {
    QUANVAS_TRY(const MatrixCodes m, matrix_codes(file.model, l));
    const QuantSpec& s = l.quantizer->spec;
    described::Weight& w = file.describe(l, form);
    const bool is_int = s.format == "int";
    w.zero_points = is_int && !(s.is_signed && s.zero_point == ZeroPointType::kNone);
    w.padded = form == kPack && packing(options) == "padded";
    if (form == kInt) QUANVAS_CHECK(add_int8(file.writer, l, m));
    if (form == kPack) QUANVAS_CHECK(add_packed(file.writer, l, m, w.zero_points, w.padded));
    if (form == kFloat || form == kMxfp8) {
      std::string bytes(m.codes.begin(), m.codes.end());
      QUANVAS_CHECK(file.writer.add(l.module + ".weight", DataType::kFloat8E4M3Fn, {l.out, l.in}, std::move(bytes)));
    }
    if (form == kNvfp4 || form == kMxfp4) {
      std::string bytes(static_cast<std::size_t>(l.out * (l.in / 2)), '\0');
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(m.codes[2 * i] | m.codes[2 * i + 1] << 4);
      QUANVAS_CHECK(file.writer.add(l.module + ".weight_packed", DataType::kUint8, {l.out, l.in / 2}, std::move(bytes)));
    }
    QUANVAS_CHECK(add_scales(file.writer, l, m, form));
    return l.input && !quant::is_dynamic(*l.input) ? add_input(file.writer, l) : Status{};
  }

  static Status add_int8(safetensors::Writer& writer, const LinearLayer& l, const MatrixCodes& m) {
    const std::int32_t shift = shift_of(l.quantizer->spec);
    std::vector<std::int8_t> codes, zeros;
    for (const std::int32_t c : m.codes) codes.push_back(static_cast<std::int8_t>(c + shift));
    for (const std::int32_t z : m.zero) zeros.push_back(static_cast<std::int8_t>(z + shift));
    QUANVAS_CHECK(writer.add_values(l.module + ".weight", DataType::kInt8, {l.out, l.in}, codes));
    const QuantSpec& s = l.quantizer->spec;
    if (s.is_signed && s.zero_point == ZeroPointType::kNone) return {};
    if (s.granularity == Granularity::kTensor) zeros.resize(1);
    const Shape shape = s.granularity == Granularity::kTensor ? Shape{1} : Shape{l.out, m.groups};
    return writer.add_values(l.module + ".weight_zero_point", DataType::kInt8, shape, zeros);
  }

  static Status add_packed(safetensors::Writer& writer, const LinearLayer& l, const MatrixCodes& m, bool zero_points,
                           bool padded) {
    // In the words codes count from 0.
    const std::int32_t lowest = lowest_code(l.quantizer->spec);
    const int bits = l.quantizer->spec.bits;
    WordPacker codes(l.out, l.in, bits, padded), zeros(m.groups, l.out, bits, padded);
    for (std::int64_t o = 0; o < l.out; ++o) {
      for (std::int64_t i = 0; i < l.in; ++i)
        codes.put(o, i, static_cast<std::uint32_t>(m.codes[static_cast<std::size_t>(o * l.in + i)] - lowest));
      for (std::int64_t g = 0; g < m.groups; ++g)
        zeros.put(g, o, static_cast<std::uint32_t>(m.zero[static_cast<std::size_t>(o * m.groups + g)] - lowest));
    }
    QUANVAS_CHECK(writer.add_values(l.module + ".weight_packed", DataType::kInt32, {l.out, codes.words()}, codes.rows()));
    QUANVAS_CHECK(
        writer.add_values(l.module + ".weight_shape", DataType::kInt64, {2}, std::vector<std::int64_t>{l.out, l.in}));
    if (!zero_points) return {};
    return writer.add_values(l.module + ".weight_zero_point", DataType::kInt32, {zeros.words(), m.groups}, zeros.columns());
  }

  static Status add_scales(safetensors::Writer& writer, const LinearLayer& l, const MatrixCodes& m,
                           const std::string& form) {
    const std::string name = l.module + ".weight_scale";
    const Shape shape{l.out, m.groups};
    if (form == kMxfp4 || form == kMxfp8) {
      std::string exponents;
      for (const float s : m.scale) exponents += static_cast<char>(std::ilogb(s) + 127);
      return writer.add(name, DataType::kUint8, shape, std::move(exponents));
    }
    if (form == kNvfp4) {
      const TwoLevels t = two_levels(m.scale);
      QUANVAS_CHECK(writer.add_values(name, DataType::kFloat8E4M3Fn, shape, t.codes));
      return writer.add_values(l.module + ".weight_global_scale", DataType::kFloat, {1}, std::vector<float>{t.divisor});
    }
    if (l.quantizer->spec.granularity == Granularity::kTensor && form != kPack)
      return writer.add_values(name, DataType::kFloat, {1}, std::vector<float>{m.scale.front()});
    return writer.add_values(name, DataType::kFloat, shape, m.scale);
  }

  static Status add_input(safetensors::Writer& writer, const LinearLayer& l) {
    const quant::QuantParams& p = *l.input;
    QUANVAS_CHECK(writer.add_values(l.module + ".input_scale", DataType::kFloat, {1}, p.scale));
    const bool symmetric = p.spec.format != "int" || (p.spec.is_signed && p.spec.zero_point == ZeroPointType::kNone);
    if (symmetric) return {};
    const auto zero = static_cast<std::int8_t>(zero_points(p).front() + shift_of(p.spec));
    return writer.add_values(l.module + ".input_zero_point", DataType::kInt8, {1}, std::vector<std::int8_t>{zero});
  }
};
QUANVAS_PLUGIN(Exporter, CompressedTensorsExporter)

}  // namespace
}  // namespace quanvas
