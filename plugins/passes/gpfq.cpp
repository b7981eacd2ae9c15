// Rounds weights one input after the other, each against all that was lost before it (Lybrand and Saab 2021).
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class Gpfq final : public Pass {
 public:
  PluginInfo info() const override {
    return {"gpfq", "GPFQ",
            "Rounds the weights of each layer one input after the other, each against the error that the inputs before it have "
            "left at the layer's output (Zhang, Zhou and Saab 2023, arXiv 2201.11113). Needs no inverse."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(bool_field("act_order", "Large inputs first", "Inputs in the order of their second moments (act-order), in each group of a convolution its own.", false));
    rounding::add_accumulator_fields(schema);
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override {
    return rounding::check(question, "GPFQ", rounding::networks_of(options), true, rounding::accumulator_options(options));
  }
  int accumulator_bits(const json& options) const override { return rounding::accumulator_options(options).bits; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const bool act_order = options["act_order"];
    return rounding::run(ctx, options, job,
                         {"gpfq", "GPFQ", true, true, "the output error of rounding to nearest",
                          "squared error of the output over the samples: rounded to nearest, now",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            if (!g.shared->has_value()) {
                              auto order = act_order ? algorithms::order_by_moments(*g.gram) : algorithms::natural_order(g.n);
                              QUANVAS_TRY(auto made, algorithms::moments_of(*g.gram, std::move(order), g.stop));
                              *g.shared = std::make_shared<const algorithms::Moments>(std::move(made));
                            }
                            const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Moments>&>(*g.shared);
                            return algorithms::gpfq(g.m, g.n, g.w, shared, *g.quantizer, {128, true, g.stop, g.accumulator});
                          },
                          rounding::accumulator_options(options)});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Gpfq)

}  // namespace quanvas
