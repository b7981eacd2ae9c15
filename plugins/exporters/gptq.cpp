// Quanvas - GPTQ files as AutoGPTQ, GPTQModel and vLLM read them: integers of 2, 3, 4 and 8 bits packed along the inputs,
// scales as float16. Sources: AutoGPTQ, nn_modules/qlinear; GPTQModel, quantization/config.py.
#include "core/base/guarded.h"
#include "plugins/exporters/half_scales.h"
#include "plugins/exporters/hf_file.h"
#include "plugins/exporters/packed_audit.h"
#include "plugins/exporters/packed_mend.h"

namespace quanvas {
namespace {

using namespace weight_file;

bool is_first_version(const json& options) {
  return options.value("checkpoint_format", std::string("gptq")) == "gptq";
}

// Codes and zero points fill 32-bit words: inputs and outputs are multiples of this.
std::int64_t words_hold(int bits) {
  return bits == 3 ? 32 : 32 / std::clamp(bits, 1, 32);
}
bool fills_words(const LinearLayer& l, int bits) {
  return l.in % words_hold(bits) == 0 && l.out % words_hold(bits) == 0;
}
// The same quantizer with the next width that does.
std::optional<QuantSpec> with_width(const LinearLayer& l, QuantSpec spec) {
  for (const int bits : {2, 3, 4, 8})
    if (bits >= spec.bits && fills_words(l, bits)) {
      spec.bits = bits;
      return spec;
    }
  return std::nullopt;
}

// What the configuration says of a layer.
json setting_of(const LinearLayer& l) {
  const QuantSpec& s = l.quantizer->spec;
  return {{"bits", s.bits}, {"group_size", group_setting(l)}, {"sym", s.is_signed && s.zero_point == ZeroPointType::kNone}};
}
// That of the most layers, the first of them; readers are told of others by name.
json common_setting(const std::vector<LinearLayer>& layers) {
  std::vector<std::pair<json, int>> counts;
  for (const LinearLayer& l : layers) {
    if (!l.quantizer) continue;
    const json setting = setting_of(l);
    auto at = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == setting; });
    if (at == counts.end()) at = counts.emplace(at, setting, 0);
    ++at->second;
  }
  if (counts.empty()) return {{"bits", 4}, {"group_size", -1}, {"sym", false}};
  return std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
}
// A module's name as a regular expression that matches nothing else.
std::string pattern_of(const LinearLayer& l) {
  std::string out = "^";
  for (const char c : l.module)
    out += std::string(std::string(".^$*+?()[]{}|\\").find(c) == std::string::npos ? "" : "\\") + c;
  return out + "$";
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
        "Inputs must fill whole words: a multiple of 32 / bits (3 bit: of 32); so must outputs, for the zero points.");
    t.notes.push_back(
        "Layers whose width, group size or zero points are not those of the most are named under 'dynamic', which GPTQModel "
        "and vLLM read, and AutoGPTQ does not.");
    t.notes.push_back(
        "Groups are neighbours (desc_act is false, g_idx ascends): rounding in another order of columns leaves them so.");
    return t;
  }

  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return files_with_config(path, options);
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_linear(model, table(options));
    for (Refusal& r : check_config(options)) out.push_back(std::move(r));
    const std::vector<LinearLayer> layers = linear_layers(model);
    const auto mended = mended_layers(layers, table(options), {with_width, false});
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const LinearLayer& l = layers[i];
      if (!l.quantizer || l.quantizer->spec.format != "int") continue;
      const QuantSpec& s = l.quantizer->spec;
      const std::int64_t whole = words_hold(s.bits);
      for (const auto& [what, n] : {std::pair("inputs", l.in), std::pair("outputs", l.out)})
        if (n % whole != 0)
          out.push_back(at_weight(l, "size", std::to_string(n) + " " + what, "a multiple of " + std::to_string(whole),
                                  mended[i] && mended[i]->bits != s.bits
                                      ? "Use " + std::to_string(mended[i]->bits) + " bits, or leave it float."
                                      : "Leave it float: no width of this target has room for it."));
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
    add_fixes(layers, mended, out);
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
    json out = common_setting(file.layers), dynamic = json::object();
    for (const LinearLayer& l : file.layers) {
      if (!l.quantizer) {
        dynamic["-:" + pattern_of(l)] = json::object();  // GPTQModel: modules that stay float
        continue;
      }
      json changes = json::object();
      const json setting = setting_of(l);
      for (const auto& [key, value] : setting.items())
        if (value != out[key]) changes[key] = value;
      if (!changes.empty()) dynamic["+:" + pattern_of(l)] = changes;
    }
    out["quant_method"] = "gptq";
    out["desc_act"] = false;
    out["checkpoint_format"] = form;
    out["lm_head"] = std::any_of(file.layers.begin(), file.layers.end(),
                                 [](const LinearLayer& l) { return l.module == "lm_head" && l.quantizer; });
    if (!dynamic.empty()) out["dynamic"] = dynamic;
    return out;
  }
};
QUANVAS_PLUGIN(Exporter, GptqExporter)

}  // namespace
}  // namespace quanvas
