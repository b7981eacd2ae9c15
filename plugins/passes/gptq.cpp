// Rounds weights one input after the other and lets the rest of each row make up for what is lost (Frantar et al. 2023).
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class Gptq final : public Pass {
 public:
  PluginInfo info() const override {
    return {"gptq", "GPTQ",
            "Rounds the weights of each layer one input after the other; those that are still float make up for the error at "
            "the layer's output (Frantar et al. 2023, GPTQ, arXiv 2210.17323)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(real_field("damping", "Damping", "Added to the diagonal of the inputs' second moments, in parts of its mean.", 0.01, 0, 10));
    schema.fields.push_back(bool_field("act_order", "Large inputs first", "Inputs in the order of their second moments (act-order), in each group of a convolution its own.", false));
    schema.fields.push_back(integer_field("block", "Block", "Inputs between two updates of the rest; changes the speed only.", 128, 1, 65536, "inputs"));
    rounding::add_accumulator_fields(schema);
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override {
    return rounding::check(question, "GPTQ", 1, true, rounding::accumulator_options(options));
  }
  int accumulator_bits(const json& options) const override { return rounding::accumulator_options(options).bits; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const algorithms::FactorOptions factor{options["damping"], false, options["act_order"]};
    const std::int64_t block = options["block"];
    return rounding::run(ctx, options, job,
                         {"gptq", "GPTQ", false, true, "the output error of rounding to nearest",
                          "squared error of the output over the samples: rounded to nearest, now",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            if (!g.shared->has_value()) {
                              QUANVAS_TRY(auto made, algorithms::factorize(*g.gram, factor, g.stop));
                              *g.shared = std::make_shared<const algorithms::Factor>(std::move(made));
                            }
                            const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Factor>&>(*g.shared);
                            return algorithms::gptq(g.m, g.n, g.w, shared, *g.quantizer, {block, true, g.stop, g.accumulator});
                          },
                          rounding::accumulator_options(options), rounding::factor_key(factor)});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Gptq)

}  // namespace quanvas
