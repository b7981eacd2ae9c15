// Learns for each weight whether it goes up or down, all weights of a layer together (Nagel et al. 2020).
#include "core/algorithms/learned_ranges.h"

#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

using algorithms::LearnedMethod;

class AdaRound final : public Pass {
 public:
  PluginInfo info() const override {
    return {"adaround", "Learned rounding",
            "Learns for each weight whether it is rounded up or down so that the layer's output stays, from rounding to nearest or from "
            "what an earlier pass has found; the error never grows (Nagel et al. 2020, AdaRound, arXiv 2004.10568; Cheng et al. 2023, "
            "AutoRound, arXiv 2309.05516)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(choice_field("method", "Method", "How the choices are learned.", "adaround",
                                         {{"adaround", "AdaRound",
                                           "Gates between both values that a regularizer closes in the end (Nagel et al. 2020), by Adam."},
                                          {"autoround", "AutoRound",
                                           "A shift of at most half a step before the rounding (Cheng et al. 2023), by the sign of the gradient."}}));
    schema.fields.push_back(bool_field("learn_range", "Learn the ranges",
                                       "Both ends of each scale's range shrink to learned parts, to a half at most (AutoRound). Needs whole codes and "
                                       "free scales for each output or group; other layers keep theirs.", false));
    schema.fields.push_back(integer_field("iterations", "Iterations", "Steps of the descent; 0: 1000 of AdaRound, 200 of AutoRound.", 0, 0, 1000000));
    const algorithms::LearnedOptions defaults;
    schema.fields.push_back(real_field("rate", "Rate", "Step of Adam (AdaRound).", defaults.rate, 1e-6, 1));
    schema.fields.push_back(real_field("regularization", "Regularization",
                                       "Weight of the term that decides the gates, in units of the layer's own rounding error (AdaRound).",
                                       defaults.regularization, 0, 1000));
    schema.fields.push_back(real_field("warm_up", "Warm-up", "Part of the iterations before that term begins (AdaRound).", defaults.warm_up, 0, 1));
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override {
    std::vector<Issue> out = rounding::check(question, "Learned rounding", rounding::networks_of(options));
    if (options.is_object() && options.value("learn_range", false) && options.value("method", "adaround") != "autoround")
      out.push_back({Severity::kWarning, "", "Ranges are learned by AutoRound alone: scales stay.", "Choose the method AutoRound, or switch the learned ranges off."});
    return out;
  }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    algorithms::LearnedOptions learned;
    const bool signs = options["method"] == "autoround";
    learned.method = signs ? LearnedMethod::kSigns : LearnedMethod::kGates;
    learned.iterations = options["iterations"];
    if (learned.iterations == 0) learned.iterations = signs ? 200 : 1000;
    learned.rate = options["rate"];
    learned.regularization = options["regularization"];
    learned.warm_up = options["warm_up"];
    rounding::Method method;
    method.id = "adaround";
    method.title = "Learned rounding";
    method.both_inputs = true;
    method.measure = "the output error at the start";
    method.table = "squared error of the output over the samples: at the start, now";
    method.moves_scales = signs && options["learn_range"].get<bool>();
    method.round = [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
      if (!g.shared->has_value()) {
        QUANVAS_TRY(auto made, algorithms::moments_of(*g.gram, algorithms::natural_order(g.n), g.stop));
        *g.shared = std::make_shared<const algorithms::Moments>(std::move(made));
      }
      const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Moments>&>(*g.shared);
      learned.stop = g.stop;
      algorithms::LearnedReport done;
      const std::string fixed = g.params ? algorithms::range_problem(*g.params, g.view) : "";
      if (g.params && fixed.empty()) {
        QUANVAS_TRY(done, algorithms::learn_ranges(g.m, g.n, g.original, g.w, shared, *g.params, g.view, learned));
      } else {
        QUANVAS_TRY(done, algorithms::learn_rounding(g.m, g.n, g.original, g.w, shared, *g.quantizer, learned));
        if (!fixed.empty()) g.note = "its range stays: " + fixed;
      }
      algorithms::RoundingReport report;
      report.before = done.before;
      report.after = done.after;
      report.dead = done.dead;
      return report;
    };
    return rounding::run(ctx, options, job, method);
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, AdaRound)

}  // namespace quanvas
