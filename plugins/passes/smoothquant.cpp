// SmoothQuant: channels of activations that are much larger than the others are divided by a factor, and the weights that
// read them multiplied by it, so that the range of the activation shrinks and that of the weights grows (Xiao et al. 2023,
// arXiv 2211.10438, eq. 4). What the network computes stays the same but for rounding.
#include <algorithm>
#include <cmath>

#include "plugins/passes/channel_scaling.h"

namespace quanvas {
namespace {

constexpr double kNothing = 1e-9;  // a channel below this is left alone
constexpr double kLeast = 1e-5;    // of a factor, as the paper's code has it; none is larger than 1 / kLeast
constexpr int kCandidates = 20;    // of alpha, 0.05 apart

std::vector<double> factors_of(const std::vector<double>& activations, const std::vector<double>& weights, double alpha, bool powers_of_two) {
  std::vector<double> out(activations.size(), 1.0);
  for (std::size_t c = 0; c < out.size(); ++c) {
    if (activations[c] <= kNothing || weights[c] <= kNothing) continue;
    const double f = std::pow(activations[c], alpha) / std::pow(weights[c], 1 - alpha);
    if (!std::isfinite(f)) continue;
    out[c] = std::clamp(f, kLeast, 1 / kLeast);
    if (powers_of_two) out[c] = std::exp2(std::round(std::log2(out[c])));
  }
  return out;
}

// Largest by mean maximum of the channels.
double spread(const std::vector<double>& maxima) {
  double most = 0, sum = 0;
  for (const double m : maxima) most = std::max(most, m), sum += m;
  return sum > 0 ? most * static_cast<double>(maxima.size()) / sum : 1;
}

class SmoothQuant final : public Pass {
 public:
  PluginInfo info() const override {
    return {"smoothquant", "SmoothQuant",
            "Moves the large channels of activations into the weights that read them; the float network computes the same (Xiao et "
            "al. 2023, SmoothQuant, eq. 4). For activations with one scale, of transformers above all."};
  }
  Schema schema() const override {
    return {{scaling::method_field(),
             real_field("alpha", "Alpha", "How much of the range goes into the weights: factors are (range of the activation)^alpha / (range of the weights)^(1 - alpha). "
                                          "0.5 for most networks, 0.8 to 0.9 for language models with large outliers.", 0.5, 0, 1),
             bool_field("search", "Search alpha", "Tries 21 values for each region and none at all, and takes the one with the least error of weights and activations in the recipe's formats; Alpha is not used then.", false),
             bool_field("powers_of_two", "Powers of two", "Rounds the factors to powers of two: the float network stays the same bit for bit.", false)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext&) const override {
    const double alpha = options.at("alpha").get<double>();
    const bool search = options.at("search").get<bool>(), powers_of_two = options.at("powers_of_two").get<bool>();
    scaling::Regions regions = scaling::find_regions(*ctx.model, options.at("method").get<std::string>());
    std::optional<Plan> plan;
    std::optional<scaling::Objective> formats;  // of the search
    std::string what = options.dump();
    if (search) {
      QUANVAS_TRY(plan, ctx.plan());
      what += formats.emplace(ctx, regions, *plan, &kNoMoments).key();
    }
    std::vector<scaling::Choice> choices;
    if (!regions.regions.empty()) {
      QUANVAS_TRY(const std::string bytes, ctx.measured(what, [&](JobContext& job) -> Result<std::string> {
        QUANVAS_TRY(const auto inputs, scaling::measure_inputs(ctx, regions, job));
        std::vector<scaling::Choice> found;
        for (const scaling::Region& region : regions.regions) {
          const auto activations = scaling::of_classes(regions, region, inputs, &scaling::ChannelMoments::absmax);
          scaling::Choice choice;
          choice.parameter = alpha;
          if (!search) choice.factors = factors_of(activations, scaling::weight_maxima(regions, region), alpha, powers_of_two);
          choice.before = choice.after = spread(activations);
          if (!search) choice.after = spread(divided(activations, choice.factors));
          found.push_back(std::move(choice));
        }
        if (search) QUANVAS_CHECK(this->search(ctx, regions, *plan, inputs, powers_of_two, job, found));
        return scaling::to_bytes(found);
      }, [&](const std::string& known) { return scaling::from_bytes(known, regions).has_value(); }));
      auto read = scaling::from_bytes(bytes, regions);
      if (!read) return fail(ErrorCode::kCorrupt, "What SmoothQuant has measured is damaged.", "Run the recipe again.");
      choices = std::move(*read);
    }
    if (std::any_of(choices.begin(), choices.end(), [](const auto& c) { return !c.factors.empty(); })) {
      QUANVAS_TRY(ctx.model, scaling::apply(*ctx.model, regions, choices));
    }
    std::size_t channels = 0, changed = 0;
    for (std::size_t r = 0; r < choices.size(); ++r) {
      const scaling::Choice& c = choices[r];
      if (!c.factors.empty()) ++changed, channels += c.factors.size();
      std::string note = regions.regions[r].input == kNoTensor ? "into the layers before" : "a multiplication in front";
      if (c.overflows) note = "left as it is: its weights would be too large for their type in the file";
      else if (search && !formats->knows(regions.regions[r])) note = "left as it is: " + formats->why_not(regions.regions[r]);
      else if (c.factors.empty()) note = "left as it is: nothing is better in these formats";
      else if (search) note += ", alpha " + short_number(c.parameter);
      ctx.layers.push_back({scaling::name_of(regions, regions.regions[r]), c.before, c.overflows ? c.before : c.after, note});
    }
    ctx.measure = search ? "estimated error / output, both squared" : "largest / mean channel maximum of its input";
    std::string text = "Smoothed " + std::to_string(channels) + " channels of " + std::to_string(changed) + (changed == 1 ? " region" : " regions");
    if (!regions.left.empty()) text += "; left: " + join_some(regions.left);
    return text + ".";
  }

 private:
  static const inline std::map<TensorId, scaling::ChannelMoments> kNoMoments;

  static std::string short_number(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", v);
    return text;
  }
  static std::vector<double> divided(std::vector<double> values, const std::vector<double>& factors) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] /= factors[i];
    return values;
  }
  Status search(const PassContext& ctx, const scaling::Regions& regions, const Plan& plan, const std::map<TensorId, scaling::ChannelMoments>& inputs,
                bool powers_of_two, JobContext& job, std::vector<scaling::Choice>& found) const {
    scaling::Objective objective(ctx, regions, plan, &inputs);
    for (std::size_t r = 0; r < found.size(); ++r) found[r].before = found[r].after = std::nan("");
    QUANVAS_CHECK(objective.visit(job, [&](std::size_t r) -> Status {
      const scaling::Region& region = regions.regions[r];
      scaling::Choice& best = found[r];
      QUANVAS_TRY(best.before, objective.error(region, std::vector<double>(region.channels.size(), 1.0), job.stop_token()));
      best.after = best.before;
      const auto activations = scaling::of_classes(regions, region, inputs, &scaling::ChannelMoments::absmax);
      const auto weights = scaling::weight_maxima(regions, region);
      for (int i = 0; i <= kCandidates; ++i) {
        QUANVAS_CHECK(job.check());
        const double a = static_cast<double>(i) / kCandidates;
        std::vector<double> factors = factors_of(activations, weights, a, powers_of_two);
        QUANVAS_TRY(const double error, objective.error(region, factors, job.stop_token()));
        if (error < best.after) best = {std::move(factors), a, best.before, error};
      }
      return {};
    }));
    return {};
  }
};

QUANVAS_PLUGIN(Pass, SmoothQuant)

}  // namespace
}  // namespace quanvas
