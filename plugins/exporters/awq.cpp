// Quanvas - AWQ files in the GEMM form, as AutoAWQ, vLLM and transformers read them: 4 bit, packed along the outputs in the
// order that its kernel unpacks. Source: AutoAWQ, modules/linear/gemm.py.
#include "core/base/guarded.h"
#include "plugins/exporters/half_scales.h"
#include "plugins/exporters/hf_file.h"
#include "plugins/exporters/packed_audit.h"
#include "plugins/exporters/packed_mend.h"

namespace quanvas {
namespace {

using namespace weight_file;

constexpr int kBits = 4, kPerWord = 8;
constexpr int kOrder[kPerWord] = {0, 2, 4, 6, 1, 3, 5, 7};  // which of eight columns nibble i holds

std::optional<QuantSpec> with_width(const LinearLayer& l, const QuantSpec& spec) {
  return l.out % kPerWord == 0 ? std::optional(spec) : std::nullopt;
}
std::string group_text(const LinearLayer& l, const QuantSpec& spec) {
  const int group = group_setting(l, spec);
  return group < 0 ? "a scale for each output" : "groups of " + std::to_string(group);
}

// Eight columns of a row: get(column).
template <class Get>
std::uint32_t word_of(const Get& get) {
  std::uint32_t word = 0;
  for (int i = 0; i < kPerWord; ++i) word |= (static_cast<std::uint32_t>(get(kOrder[i])) & 15u) << (kBits * i);
  return word;
}

class AwqExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"awq", "AWQ (safetensors, GEMM)",
            "Linear layers as 4 bit integers with float16 scales, as AutoAWQ, vLLM and transformers load them; all else "
            "float."};
  }
  std::string extension() const override { return ".safetensors"; }
  Schema schema() const override {
    Schema s{{scales_field()}};
    for (Field& f : config_fields()) s.fields.push_back(std::move(f));
    return s;
  }

  TargetTable table(const json& options) const override {
    TargetTable t = half_table(options);
    TargetRow r = t.rows.front();
    r.least_bits = r.most_bits = kBits;
    r.form = "unsigned, 4 bit";
    r.is_signed = false;
    r.zero_points = {ZeroPointType::kInteger, ZeroPointType::kNone};
    TargetRow s = r;
    s.form = "signed, 4 bit";
    s.is_signed = true;
    s.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
    s.why = "Codes count from 0 in the file: a signed quantizer is stored with zero point 8, which is exact.";
    t.rows = {r, s};
    t.notes.push_back("Outputs must be a multiple of 8 (AutoAWQ's own writer: of 32); one group size for all layers.");
    t.notes.push_back("Readers find layers that stay float by parts of their names (modules_to_not_convert).");
    return t;
  }

  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return files_with_config(path, options);
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_linear(model, table(options));
    for (Refusal& r : check_config(options)) out.push_back(std::move(r));
    const std::vector<LinearLayer> layers = linear_layers(model);
    const auto mended = mended_layers(layers, table(options), {with_width, true});
    const auto refused = [&](const LinearLayer& l, const char* rule) {
      return std::any_of(out.begin(), out.end(), [&](const Refusal& r) { return r.rule == rule && r.site == l.site; });
    };
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const LinearLayer& l = layers[i];
      if (!l.quantizer) continue;
      if (l.out % kPerWord != 0)
        out.push_back(at_weight(l, "size", std::to_string(l.out) + " outputs", "a multiple of 8",
                                "Leave it float: this target has no other width."));
      if (mended[i] && group_setting(l, *mended[i]) != group_setting(l) && !refused(l, "group size"))
        out.push_back(at_weight(l, "one setting for all layers", group_text(l, l.quantizer->spec),
                                group_text(l, *mended[i]) + ", which all layers of the file can have",
                                "Give all layers the same group size, or leave those float that cannot have it."));
      check_half_scales(l, options, out);
      for (const LinearLayer& other : layers)
        if (!other.quantizer && l.module.find(other.module) != std::string::npos)
          out.push_back(at_weight(l, "names of layers",
                                  "'" + l.module + "', which contains the float layer's name '" + other.module + "'",
                                  "names that are no part of each other: readers would take this one for float, too",
                                  "Quantize both or none of them."));
    }
    add_fixes(layers, mended, out);
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to AWQ", [&]() -> Status {
      HfFile file(model);
      std::size_t done = 0;
      json left = json::array();
      std::int64_t group = -1;
      for (const LinearLayer& l : file.layers) {
        QUANVAS_CHECK(job.check());
        if (l.quantizer) {
          QUANVAS_CHECK(add(file, l));
          group = group_setting(l);
        } else {
          left.push_back(l.module);
        }
        job.progress("export", static_cast<double>(++done) / static_cast<double>(file.layers.size()), l.node->name);
      }
      const json config = {{"quant_method", "awq"}, {"bits", kBits},
                           {"group_size", group},   {"zero_point", true},
                           {"version", "gemm"},     {"modules_to_not_convert", left.empty() ? json() : left}};
      return file.finish(path, options, config, job);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_packed(model, path, config_path(path, options), "awq"); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json& options,
                        JobContext&) const override {
    return guarded("Reading '" + path + "'", [&] { return read_packed(model, path, config_path(path, options), "awq"); });
  }

 private:
  static Status add(HfFile& file, const LinearLayer& l) {
    QUANVAS_TRY(const MatrixCodes m, matrix_codes(file.model, l));
    const std::int32_t lowest = lowest_code(l.quantizer->spec);
    const std::int64_t words = l.out / kPerWord;
    std::vector<std::uint32_t> codes(static_cast<std::size_t>(l.in * words)),
        zeros(static_cast<std::size_t>(m.groups * words));
    std::vector<std::uint16_t> scales(static_cast<std::size_t>(m.groups * l.out));
    for (std::int64_t w = 0; w < words; ++w) {
      for (std::int64_t i = 0; i < l.in; ++i)
        codes[static_cast<std::size_t>(i * words + w)] =
            word_of([&](int c) { return m.codes[static_cast<std::size_t>((w * kPerWord + c) * l.in + i)] - lowest; });
      for (std::int64_t g = 0; g < m.groups; ++g)
        zeros[static_cast<std::size_t>(g * words + w)] =
            word_of([&](int c) { return m.zero[static_cast<std::size_t>((w * kPerWord + c) * m.groups + g)] - lowest; });
    }
    for (std::int64_t o = 0; o < l.out; ++o)
      for (std::int64_t g = 0; g < m.groups; ++g)
        scales[static_cast<std::size_t>(g * l.out + o)] =
            float_to_half(m.scale[static_cast<std::size_t>(o * m.groups + g)]);
    file.describe(l, "awq").zero_points = true;
    QUANVAS_CHECK(file.writer.add_values(l.module + ".qweight", DataType::kInt32, {l.in, words}, codes));
    QUANVAS_CHECK(file.writer.add_values(l.module + ".qzeros", DataType::kInt32, {m.groups, words}, zeros));
    return file.writer.add_values(l.module + ".scales", DataType::kFloat16, {m.groups, l.out}, scales);
  }
};
QUANVAS_PLUGIN(Exporter, AwqExporter)

}  // namespace
}  // namespace quanvas
