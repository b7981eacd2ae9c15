// AWQ: weights that read large activations are made larger before they are rounded, and the activations smaller, so that
// the rounding of the weights that matter is finer (Lin et al. 2024, arXiv 2306.00978, section 3.2). The float network
// computes the same but for rounding.
#include <algorithm>
#include <cmath>

#include "plugins/passes/channel_scaling.h"

namespace quanvas {
namespace {

constexpr double kLeast = 1e-4;  // of a factor

// (mean magnitude)^ratio, brought about 1 by the root of the least times the largest.
std::vector<double> factors_of(const std::vector<double>& means, double ratio) {
  std::vector<double> out(means.size(), 1.0);
  double least = HUGE_VAL, most = 0;
  for (std::size_t c = 0; c < out.size(); ++c) {
    if (means[c] <= 0) continue;  // nothing passes here
    out[c] = std::max(std::pow(means[c], ratio), kLeast);
    least = std::min(least, out[c]), most = std::max(most, out[c]);
  }
  if (most <= 0) return out;
  const double middle = std::sqrt(least * most);
  for (std::size_t c = 0; c < out.size(); ++c)
    if (means[c] > 0) out[c] = std::clamp(out[c] / middle, kLeast, 1 / kLeast);
  return out;
}

class Awq final : public Pass {
 public:
  PluginInfo info() const override {
    return {"awq", "AWQ: activation-aware weight scales",
            "Scales the channels that carry large activations so that their weights are rounded more finely, and takes of a grid of scales the one with the least error of "
            "the layers' outputs in the recipe's formats (Lin et al. 2024, AWQ, section 3.2). For weights of few bits, of transformers above all."};
  }
  Schema schema() const override {
    return {{scaling::method_field(),
             integer_field("candidates", "Candidates", "Exponents that are tried, evenly from 0 to 1; no scaling at all is always among them.", 20, 1, 200)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext&) const override {
    const int candidates = options.at("candidates").get<int>();
    scaling::Regions regions = scaling::find_regions(*ctx.model, options.at("method").get<std::string>());
    QUANVAS_TRY(const Plan plan, ctx.plan());
    scaling::Objective objective(ctx, regions, plan, nullptr);
    std::vector<scaling::Choice> choices;
    const bool any = std::any_of(regions.regions.begin(), regions.regions.end(), [&](const auto& r) { return objective.knows(r); });
    if (any) {
      QUANVAS_TRY(const std::string bytes, ctx.measured(options.dump() + objective.key(), [&](JobContext& job) -> Result<std::string> {
        QUANVAS_TRY(const auto inputs, scaling::measure_inputs(ctx, regions, job));
        std::vector<scaling::Choice> found(regions.regions.size());
        QUANVAS_CHECK(objective.visit(job, [&](std::size_t r) -> Status {
          const scaling::Region& region = regions.regions[r];
          scaling::Choice& best = found[r];
          QUANVAS_TRY(best.before, objective.error(region, std::vector<double>(region.channels.size(), 1.0), job.stop_token()));
          best.after = best.before;
          const auto means = scaling::of_classes(regions, region, inputs, &scaling::ChannelMoments::mean);
          for (int i = 1; i <= candidates; ++i) {
            QUANVAS_CHECK(job.check());
            const double ratio = static_cast<double>(i) / candidates;
            std::vector<double> factors = factors_of(means, ratio);
            QUANVAS_TRY(const double error, objective.error(region, factors, job.stop_token()));
            if (error < best.after) best = {std::move(factors), ratio, best.before, error};
          }
          return {};
        }));
        return scaling::to_bytes(found);
      }, [&](const std::string& known) { return scaling::from_bytes(known, regions).has_value(); }));
      auto read = scaling::from_bytes(bytes, regions);
      if (!read) return fail(ErrorCode::kCorrupt, "What AWQ has measured is damaged.", "Run the recipe again.");
      choices = std::move(*read);
    }
    if (std::any_of(choices.begin(), choices.end(), [](const auto& c) { return !c.factors.empty(); })) {
      QUANVAS_TRY(ctx.model, scaling::apply(*ctx.model, regions, choices));
    }
    std::size_t changed = 0;
    for (std::size_t r = 0; r < choices.size(); ++r) {
      const scaling::Choice& c = choices[r];
      if (!objective.knows(regions.regions[r])) {
        ctx.layers.push_back({scaling::name_of(regions, regions.regions[r]), std::nan(""), std::nan(""), "left as it is: " + objective.why_not(regions.regions[r])});
        continue;
      }
      changed += c.factors.empty() ? 0 : 1;
      char note[96] = "left as it is: no scale is better";
      if (c.overflows) std::snprintf(note, sizeof note, "left as it is: its weights would be too large for their type in the file");
      if (!c.factors.empty())
        std::snprintf(note, sizeof note, "%s, exponent %.2f", regions.regions[r].input == kNoTensor ? "into the layers before" : "a multiplication in front", c.parameter);
      ctx.layers.push_back({scaling::name_of(regions, regions.regions[r]), c.before, c.overflows ? c.before : c.after, note});
    }
    ctx.measure = "error / output, both squared";
    std::string text = "Scaled " + std::to_string(changed) + " of " + std::to_string(regions.regions.size()) + (regions.regions.size() == 1 ? " region" : " regions");
    if (!any && !regions.regions.empty()) text += "; the recipe gives no format to the weights that read them";
    if (!regions.left.empty()) text += "; left: " + join_some(regions.left);
    return text + ".";
  }
};

QUANVAS_PLUGIN(Pass, Awq)

}  // namespace
}  // namespace quanvas
