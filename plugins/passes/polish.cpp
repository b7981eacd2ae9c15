// Moves single weights to other values of their grids as long as that lowers the layers' output errors.
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class Polish final : public Pass {
 public:
  PluginInfo info() const override {
    return {"polish", "Coordinate descent",
            "Moves one weight after the other to the value of its grid that is best for the layer's output, from rounding to "
            "nearest or from what an earlier pass has found; the error never grows (as CDQuant, Nair and Suggala 2024, arXiv "
            "2406.17542, in sweeps)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(integer_field("sweeps", "Sweeps", "At most; ends when no weight moves.", 3, 1, 1000));
    rounding::add_accumulator_fields(schema, false);
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override {
    return rounding::check(question, "Coordinate descent", rounding::networks_of(options), true, rounding::accumulator_options(options));
  }
  int accumulator_bits(const json& options) const override { return rounding::accumulator_options(options).bits; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const int sweeps = options["sweeps"];
    return rounding::run(ctx, options, job,
                         {"polish", "Coordinate descent", true, true, "the output error at the start",
                          "squared error of the output over the samples: at the start, now",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            if (!g.shared->has_value()) {
                              QUANVAS_TRY(auto made, algorithms::moments_of(*g.gram, algorithms::natural_order(g.n), g.stop));
                              *g.shared = std::make_shared<const algorithms::Moments>(std::move(made));
                            }
                            const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Moments>&>(*g.shared);
                            g.quantizer->fake_matrix(g.w, g.w);
                            QUANVAS_TRY(const auto done, algorithms::polish(g.m, g.n, g.original, g.w, shared, *g.quantizer, {sweeps, g.stop, g.accumulator}));
                            algorithms::RoundingReport report;
                            report.before = done.before;
                            report.after = done.after;
                            report.dead = shared.dead_count;
                            report.used = done.used;
                            return report;
                          },
                          rounding::accumulator_options(options)});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Polish)

}  // namespace quanvas
