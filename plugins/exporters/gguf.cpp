// Quanvas - GGUF: weights in ggml's blocks. A Llama with its tokenizer runs in llama.cpp; other networks are a container of
// tensors, which Quanvas opens again by the graph that the file carries.
#include <set>

#include "core/base/guarded.h"
#include "plugins/exporters/gguf_audit.h"
#include "plugins/exporters/gguf_write.h"

namespace quanvas {
namespace {

using namespace gguf_file;

class GgufExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"gguf", "GGUF (ggml, llama.cpp)",
            "Weights in ggml's block formats, each in the smallest that holds its quantizer exactly. Networks of the "
            "architecture llama with their "
            "tokenizer run in llama.cpp; others are a container of tensors."};
  }
  std::string extension() const override { return ".gguf"; }

  Schema schema() const override {
    return {
        {choice_field("scales", "Scales", "What becomes of scales and offsets that are no float16.", "exact",
                      {{"exact", "Exact", "They are refused, so that every weight is the very float of the network."},
                       {"round", "Rounded", "They are rounded to float16; the report says how far weights move."}}),
         choice_field("float_type", "Float matrices", "Type of float weights with rows and columns; vectors stay F32.", "f32",
                      {{"f32", "F32", "As they are."},
                       {"f16", "F16", "Half precision."},
                       {"bf16", "BF16", "The upper half of a float32."}}),
         when(bool_field("round_floats", "Round float matrices",
                         "Round values that the type does not hold; without it they are refused.", false),
              "float_type", {"f16", "bf16"}),
         choice_field(
             "conv", "Convolutions", "What becomes of quantized kernels with more than two axes.", "refuse",
             {{"refuse", "Refused", "ggml multiplies by matrices."},
              {"rows", "As rows", "Matrices with a row of kernel positions x input channels for each output channel."}}),
         choice_field(
             "form", "Form", "What the file is.", "auto",
             {{"auto", "Llama if possible", "A Llama where a tokenizer is given and the network is one, else a container."},
              {"llama", "Llama", "Refused where the network is none."},
              {"container", "Container", "Tensors under the graph's own names; llama.cpp cannot run it."}}),
         text_field("tokenizer", "Tokenizer", "Of a Llama: a SentencePiece model (.model), or a tokenizer.bin of llama2.c.",
                    ""),
         bool_field("graph", "Network's graph", "Put the graph into the metadata, so that Quanvas can open the file again.",
                    true)}};
  }

  TargetTable table(const json& options) const override { return gguf_table(options_of(options)); }

  std::vector<Refusal> check(const QuantizedModel& model, const json& given) const override {
    const Options options = options_of(given);
    std::vector<Refusal> out = check_quantizers(model, gguf_table(options));
    std::set<Site> refused;
    for (const Refusal& r : out)
      if (r.site) refused.insert(*r.site);
    const auto planned = guarded("GGUF", [&] { return plan(model, options); });
    if (!planned) {
      out.push_back({{},
                     {},
                     "network",
                     planned.error().message,
                     "a network whose weights are there",
                     "Open the model again.",
                     {},
                     {},
                     false});
      return out;
    }
    for (const Refusal& r : planned->refusals) {
      const bool known = r.site && refused.count(*r.site) > 0;
      const bool never = known && r.rule == gguf_file::kRowLength && !r.fix;
      // No other quantizer fits rows that no block fits.
      if (never)
        for (Refusal& other : out)
          if (other.site == r.site) other.fix.reset();
      if (!known || never) out.push_back(r);
    }
    for (Refusal& r : check_tokenizer(*planned, options)) out.push_back(std::move(r));
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& given, JobContext& job) const override {
    return guarded("Export to GGUF", [&]() -> Status {
      const Options options = options_of(given);
      QUANVAS_TRY(const FilePlan planned, plan(model, options));
      return write_plan(model, planned, options, path, job);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_gguf(model, path, options_of(options).graph); });
  }

  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext&) const override {
    return guarded(path, [&] { return read_gguf(model, path); });
  }
};
QUANVAS_PLUGIN(Exporter, GgufExporter)

}  // namespace
}  // namespace quanvas
