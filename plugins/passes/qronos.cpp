// As GPTQ, but the weights also make up for what the layers before do to the inputs (Zhang et al. 2025).
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class Qronos final : public Pass {
 public:
  PluginInfo info() const override {
    return {"qronos", "Qronos",
            "Rounds the weights of each layer so that its output on the quantized network's inputs comes close to the float "
            "layer's on float inputs (Zhang et al. 2025, Qronos, arXiv 2505.11695)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(real_field("damping", "Damping", "Added to the diagonal of the inputs' second moments, in parts of their largest eigenvalue.", 1e-6, 0, 1));
    schema.fields.push_back(bool_field("act_order", "Large inputs first", "Inputs in the order of their second moments (act-order), in each group of a convolution its own.", true));
    rounding::add_accumulator_fields(schema);
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override {
    return rounding::check(question, "Qronos", rounding::networks_of(options), true, rounding::accumulator_options(options));
  }
  int accumulator_bits(const json& options) const override { return rounding::accumulator_options(options).bits; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const algorithms::FactorOptions factor{options["damping"], true, options["act_order"]};
    return rounding::run(ctx, options, job,
                         {"qronos", "Qronos", true, true, "the output error of rounding to nearest",
                          "squared error of the output over the samples: rounded to nearest, now",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            if (!g.shared->has_value()) {
                              QUANVAS_TRY(auto made, algorithms::factorize(*g.gram, factor, g.stop));
                              *g.shared = std::make_shared<const algorithms::Factor>(std::move(made));
                            }
                            const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Factor>&>(*g.shared);
                            return algorithms::qronos(g.m, g.n, g.w, shared, *g.quantizer, {128, true, g.stop, g.accumulator});
                          },
                          rounding::accumulator_options(options), rounding::factor_key(factor)});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Qronos)

}  // namespace quanvas
