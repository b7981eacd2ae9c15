// Quanvas - GPTQ files as AutoGPTQ, GPTQModel and vLLM read them: integers of 2, 3, 4 and 8 bits packed along the inputs,
// scales as float16. Sources: AutoGPTQ, nn_modules/qlinear; GPTQModel, quantization/config.py.
#include "core/base/guarded.h"
#include "plugins/exporters/half_scales.h"
#include "plugins/exporters/hf_file.h"
#include "plugins/exporters/packed_audit.h"

namespace quanvas {
namespace {

using namespace weight_file;

bool is_first_version(const json& options) {
  return options.value("checkpoint_format", std::string("gptq")) == "gptq";
}

// One setting for all layers: the first one's.
const LinearLayer* first_of(const std::vector<LinearLayer>& layers) {
  for (const LinearLayer& l : layers)
    if (l.quantizer) return &l;
  return nullptr;
}
std::int64_t group_of(const LinearLayer& l) {
  return l.quantizer->layout.granularity == Granularity::kGroup ? l.quantizer->layout.group : -1;
}

class GptqExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"gptq", "GPTQ (safetensors)",
            "Linear layers as integers of 2, 3, 4 or 8 bits with float16 scales, as AutoGPTQ, GPTQModel and vLLM load "
            "them; all else float."};
  }
  std::string extension() const override { return ".safetensors"; }
  Schema schema() const override {
    Schema s{{choice_field("checkpoint_format", "Version",
                           "How zero points are stored. Readers that take one for the other compute garbage.", "gptq",
                           {{"gptq", "1 (zero point less one)",
                             "What AutoGPTQ writes and every reader knows; a zero point of 0 has no place."},
                            {"gptq_v2", "2 (zero point)", "GPTQModel's own."}}),
              scales_field()}};
    for (Field& f : config_fields()) s.fields.push_back(std::move(f));
    return s;
  }

  TargetTable table(const json& options) const override {
    TargetTable t = half_table(options);
    const TargetRow base = t.rows.front();
    t.rows.clear();
    const auto add = [&](int least, int most, bool is_signed) {
      TargetRow r = base;
      r.least_bits = least;
      r.most_bits = most;
      r.is_signed = is_signed;
      r.zero_points = is_signed ? std::vector{ZeroPointType::kNone, ZeroPointType::kInteger}
                                : std::vector{ZeroPointType::kInteger, ZeroPointType::kNone};
      r.form = std::string(is_signed ? "signed, " : "unsigned, ") +
               (least == most ? std::to_string(least) : std::to_string(least) + " to " + std::to_string(most)) + " bit";
      if (is_signed)
        r.why =
            "Codes count from 0 in the file: a signed quantizer is stored with its zero point at half the range, which is "
            "exact.";
      t.rows.push_back(std::move(r));
    };
    add(2, 4, false);
    add(8, 8, false);
    add(2, 4, true);
    add(8, 8, true);
    t.notes.push_back(
        "One width, one group size and one sign for all layers. Inputs must fill whole words: a multiple of 32 / bits (3 "
        "bit: of 32); so must outputs, for the zero points.");
    t.notes.push_back("Groups are neighbours (desc_act is false): rounding in another order of columns leaves them so.");
    return t;
  }

  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return files_with_config(path, options);
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_linear(model, table(options));
    for (Refusal& r : check_config(options)) out.push_back(std::move(r));
    const std::vector<LinearLayer> layers = linear_layers(model);
    const LinearLayer* first = first_of(layers);
    for (const LinearLayer& l : layers) {
      if (!l.quantizer || l.quantizer->spec.format != "int") continue;
      const QuantSpec& s = l.quantizer->spec;
      const std::int64_t whole = s.bits == 3 ? 32 : 32 / std::clamp(s.bits, 1, 32);
      for (const auto& [what, n] : {std::pair("inputs", l.in), std::pair("outputs", l.out)})
        if (whole > 0 && n % whole != 0)
          out.push_back(at_weight(l, "size", std::to_string(n) + " " + what, "a multiple of " + std::to_string(whole),
                                  "Leave it float."));
      const QuantSpec& f = first->quantizer->spec;
      if (s.bits != f.bits || group_of(l) != group_of(*first) || s.is_signed != f.is_signed || s.zero_point != f.zero_point)
        out.push_back(at_weight(l, "one setting for all layers", describe(s),
                                "what '" + first->node->name + "' has: " + describe(f),
                                "Give all layers the same format, or leave it float."));
      check_half_scales(l, options, out);
      if (is_first_version(options))
        for (const float z : l.quantizer->zero_point)
          if (static_cast<std::int32_t>(z) - lowest_code(s) == 0) {
            out.push_back(at_weight(l, "zero point", "zero point at the lowest code",
                                    "one above it: version 1 stores the zero point less one",
                                    "Use checkpoint_format gptq_v2."));
            break;
          }
      if (is_first_version(options) && !s.is_signed && s.zero_point == ZeroPointType::kNone)
        out.push_back(at_weight(l, "zero point", "zero point 0", "one above it: version 1 stores the zero point less one",
                                "Use checkpoint_format gptq_v2."));
    }
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to GPTQ", [&]() -> Status {
      HfFile file(model);
      const std::string form = is_first_version(options) ? "gptq" : "gptq_v2";
      std::size_t done = 0;
      for (const LinearLayer& l : file.layers) {
        QUANVAS_CHECK(job.check());
        if (l.quantizer) QUANVAS_CHECK(add(file, l, form));
        job.progress("export", static_cast<double>(++done) / static_cast<double>(file.layers.size()), l.node->name);
      }
      return file.finish(path, options, config(file, form), job);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'",
                   [&] { return audit_packed(model, path, config_path(path, options), "gptq"); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json& options,
                        JobContext&) const override {
    return guarded("Reading '" + path + "'", [&] { return read_packed(model, path, config_path(path, options), "gptq"); });
  }

 private:
  static Status add(HfFile& file, const LinearLayer& l, const std::string& form) {
    QUANVAS_TRY(const MatrixCodes m, matrix_codes(file.model, l));
    const int bits = l.quantizer->spec.bits;
    const std::int32_t lowest = lowest_code(l.quantizer->spec), less = form == "gptq" ? 1 : 0;
    WordPacker codes(l.out, l.in, bits), zeros(m.groups, l.out, bits);
    std::vector<std::uint16_t> scales(static_cast<std::size_t>(l.out * m.groups));
    std::vector<std::int32_t> group(static_cast<std::size_t>(l.in));
    for (std::int64_t o = 0; o < l.out; ++o) {
      for (std::int64_t i = 0; i < l.in; ++i)
        codes.put(o, i, static_cast<std::uint32_t>(m.codes[static_cast<std::size_t>(o * l.in + i)] - lowest));
      for (std::int64_t g = 0; g < m.groups; ++g) {
        const auto at = static_cast<std::size_t>(o * m.groups + g);
        zeros.put(g, o, static_cast<std::uint32_t>(m.zero[at] - lowest - less));
        scales[static_cast<std::size_t>(g * l.out + o)] = float_to_half(m.scale[at]);
      }
    }
    for (std::int64_t i = 0; i < l.in; ++i)
      group[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / (l.in / m.groups));
    file.describe(l, form).zero_points = true;
    QUANVAS_CHECK(file.writer.add_values(l.module + ".qweight", DataType::kInt32, {codes.words(), l.out}, codes.columns()));
    QUANVAS_CHECK(file.writer.add_values(l.module + ".qzeros", DataType::kInt32, {m.groups, zeros.words()}, zeros.rows()));
    QUANVAS_CHECK(file.writer.add_values(l.module + ".scales", DataType::kFloat16, {m.groups, l.out}, scales));
    return file.writer.add_values(l.module + ".g_idx", DataType::kInt32, {l.in}, group);
  }

  static json config(const HfFile& file, const std::string& form) {
    json dynamic = json::object();
    const LinearLayer* first = first_of(file.layers);
    for (const LinearLayer& l : file.layers) {
      if (l.quantizer) continue;
      std::string pattern;
      for (const char c : l.module)
        pattern += std::string(std::string(".^$*+?()[]{}|\\").find(c) == std::string::npos ? "" : "\\") + c;
      dynamic["-:^" + pattern + "$"] = json::object();  // GPTQModel: modules that stay float
    }
    json out = {
        {"quant_method", "gptq"},
        {"desc_act", false},
        {"checkpoint_format", form},
        {"bits", first ? first->quantizer->spec.bits : 4},
        {"group_size", first ? group_of(*first) : -1},
        {"sym", first && first->quantizer->spec.is_signed && first->quantizer->spec.zero_point == ZeroPointType::kNone}};
    out["lm_head"] = std::any_of(file.layers.begin(), file.layers.end(),
                                 [](const LinearLayer& l) { return l.module == "lm_head" && l.quantizer; });
    if (!dynamic.empty()) out["dynamic"] = dynamic;
    return out;
  }
};
QUANVAS_PLUGIN(Exporter, GptqExporter)

}  // namespace
}  // namespace quanvas
