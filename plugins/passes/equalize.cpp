// Cross-layer equalization: the ranges of the channels that one layer makes and the next one reads are brought together,
// so that one scale per tensor fits all of them (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
// Bias Correction", section 4.1). What the network computes stays the same but for rounding.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "plugins/passes/channel_regions.h"

namespace quanvas {
namespace {

constexpr double kNothing = 1e-9;  // a channel below this is left alone: its factor would be huge

struct Options {
  int iterations = 20;
  double threshold = 0.05, alpha = 0.5, bias_shrinkage = 0;
  bool merge_bias = true, width = false, powers_of_two = false;
};

// Largest magnitude, or highest minus lowest, of each channel.
class Ranges {
 public:
  Ranges(std::size_t channels, bool width) : width_(width), low_(channels, HUGE_VAL), high_(channels, -HUGE_VAL) {}
  void add(std::size_t c, double v) {
    low_[c] = std::min(low_[c], v);
    high_[c] = std::max(high_[c], v);
  }
  std::vector<double> take() const {
    std::vector<double> out(low_.size(), 0.0);
    for (std::size_t c = 0; c < out.size(); ++c)
      if (low_[c] <= high_[c]) out[c] = width_ ? high_[c] - low_[c] : std::max(std::fabs(low_[c]), std::fabs(high_[c]));
    return out;
  }

 private:
  bool width_;
  std::vector<double> low_, high_;
};

// By how much a bias counts less than the weights of its channel, from how much larger biases are: the larger, the less.
// The rule of the quantizer of Vitis AI, as Brevitas takes it over.
double shrinkage_of(const ChannelWeight& w) {
  std::vector<double> ratios;
  double most_bias = 0, most_weight = 0, mean = 0;
  for (std::size_t e = 0; e < w.values().size(); ++e) {
    const double weight = std::max(std::fabs(w.values()[e]), kNothing);
    const double bias = std::fabs(w.bias()[static_cast<std::size_t>(w.output_of(static_cast<std::int64_t>(e)))]);
    most_weight = std::max(most_weight, weight);
    most_bias = std::max(most_bias, bias);
    ratios.push_back(bias / weight);
    mean += ratios.back() / static_cast<double>(w.values().size());
  }
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>((ratios.size() - 1) / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  const double median = *middle;
  if (most_bias < 10 && most_bias / most_weight < 20) return median > 100 || mean > 1000 ? 5 : 2;
  if (median > 30 || mean > 500) return 20;
  return median > 15 || mean > 250 ? 10 : 5;
}

std::vector<double> output_ranges(const ChannelWeight& w, const Options& o, bool with_bias) {
  Ranges ranges(static_cast<std::size_t>(w.outputs()), o.width);
  for (std::size_t e = 0; e < w.values().size(); ++e)
    ranges.add(static_cast<std::size_t>(w.output_of(static_cast<std::int64_t>(e))), w.values()[e]);
  if (with_bias && o.merge_bias && !w.bias().empty()) {
    const double shrinkage = o.bias_shrinkage > 0 ? o.bias_shrinkage : shrinkage_of(w);
    for (std::size_t c = 0; c < w.bias().size(); ++c) ranges.add(c, w.bias()[c] / shrinkage);
  }
  return ranges.take();
}

std::vector<double> input_ranges(const ChannelWeight& w, const Options& o) {
  Ranges ranges(static_cast<std::size_t>(w.inputs()), o.width);
  for (std::size_t e = 0; e < w.values().size(); ++e)
    ranges.add(static_cast<std::size_t>(w.input_of(static_cast<std::int64_t>(e))), w.values()[e]);
  return ranges.take();
}

// Largest by smallest range of a layer's channels; those without a weight are not asked.
double spread(const ChannelWeight& w, const Options& o) {
  double least = HUGE_VAL, most = 0;
  for (const double r : output_ranges(w, o, false)) {
    most = std::max(most, r);
    if (r > kNothing) least = std::min(least, r);
  }
  return most > 0 ? most / least : 1;
}

class Equalization {
 public:
  Equalization(const Model& model, const Options& options) : model_(model), options_(options), found_(find_channel_regions(model)) {}

  Result<std::string> run(JobContext& job, std::vector<PassLayer>& report) {
    std::set<std::size_t> changed;
    std::size_t channels = 0;
    for (const ChannelRegion& region : found_.regions) {
      channels += region.channels.size();
      changed.insert(region.sources.begin(), region.sources.end());
      changed.insert(region.sinks.begin(), region.sinks.end());
    }
    for (const std::size_t layer : changed) report.push_back({found_.layers[layer].node().name, spread(found_.layers[layer], options_), 0, {}});
    int iterations = 0;
    double farthest = HUGE_VAL;
    while (!found_.regions.empty() && iterations < options_.iterations && farthest >= options_.threshold) {
      QUANVAS_CHECK(job.check());
      farthest = 0;
      for (const ChannelRegion& region : found_.regions) farthest = std::max(farthest, equalize(region));
      ++iterations;
    }
    std::size_t row = 0;
    for (const std::size_t layer : changed) report[row++].after = spread(found_.layers[layer], options_);
    std::string text = "Equalized " + counted(channels, "channel") + " of " + counted(found_.regions.size(), "region") + " in " +
                       counted(static_cast<std::size_t>(iterations), "round");
    if (!found_.left.empty()) text += "; left: " + join_some(found_.left);
    return text + ".";
  }
  bool changed() const { return !found_.regions.empty(); }
  Result<ModelPtr> finish() const {
    ModelEdit edit(model_);
    for (const ChannelWeight& w : found_.layers) w.write(model_, edit);
    return edit.finish();
  }

 private:
  static std::string counted(std::size_t n, const std::string& what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

  // The largest distance of a factor from 1.
  double equalize(const ChannelRegion& region) {
    std::map<std::size_t, std::vector<double>> made, read, source_factors, sink_factors;
    for (const std::size_t layer : region.sources) {
      made[layer] = output_ranges(found_.layers[layer], options_, true);
      source_factors[layer].assign(made[layer].size(), 1.0);
    }
    for (const std::size_t layer : region.sinks) {
      read[layer] = input_ranges(found_.layers[layer], options_);
      sink_factors[layer].assign(read[layer].size(), 1.0);
    }
    double farthest = 0;
    for (const ChannelClass& channel : region.channels) {
      double source = 0, sink = 0;
      for (const ChannelUse& u : channel.sources) source = std::max(source, made[u.layer][static_cast<std::size_t>(u.channel)]);
      for (const ChannelUse& u : channel.sinks) sink = std::max(sink, read[u.layer][static_cast<std::size_t>(u.channel)]);
      if (source <= kNothing || sink <= kNothing) continue;
      double factor = std::pow(sink, 1 - options_.alpha) / std::pow(source, options_.alpha);
      if (options_.powers_of_two) factor = std::exp2(std::round(std::log2(factor)));
      if (!std::isfinite(factor) || factor <= 0) continue;
      farthest = std::max(farthest, std::fabs(1 - factor));
      for (const ChannelUse& u : channel.sources) source_factors[u.layer][static_cast<std::size_t>(u.channel)] = factor;
      for (const ChannelUse& u : channel.sinks) sink_factors[u.layer][static_cast<std::size_t>(u.channel)] = 1 / factor;
    }
    // A layer can be both, of a region that feeds itself.
    for (const auto& [layer, factors] : source_factors) found_.layers[layer].scale(factors, {});
    for (const auto& [layer, factors] : sink_factors) found_.layers[layer].scale({}, factors);
    return farthest;
  }

  const Model& model_;
  Options options_;
  ChannelRegions found_;
};

class Equalize final : public Pass {
 public:
  PluginInfo info() const override {
    return {"equalize", "Equalize weights across layers",
            "Scales the channels between layers so that their ranges agree; the float network computes the same (Nagel et al. 2019, "
            "Data-Free Quantization, section 4.1). For weights with one scale per tensor, and for depthwise convolutions."};
  }
  Schema schema() const override {
    return {{integer_field("iterations", "Iterations", "Rounds over all regions; fewer when nothing changes any more.", 20, 1, 1000),
             real_field("threshold", "Threshold", "Ends when no factor is farther from 1 than this.", 0.05, 0, 1),
             real_field("alpha", "Alpha", "The layers that make a channel are multiplied by (range behind)^(1 - alpha) / (range before)^alpha: 0.5 meets in the middle, at 1 all ranges before become 1.", 0.5, 0, 1),
             choice_field("range", "Range", "What of a channel is compared.", "absmax",
                          {{"absmax", "Largest magnitude", "For symmetric formats."}, {"width", "Highest minus lowest", "For formats with a zero point."}}),
             bool_field("merge_bias", "Biases count", "The bias belongs to its channel's range, so that none grows too large for its format.", true),
             when(real_field("bias_shrinkage", "Bias shrinkage", "Biases are divided by it before they count; 0: from 2 to 20, by how large they are.", 0, 0, 1e6),
                  "merge_bias", {true}),
             bool_field("powers_of_two", "Powers of two", "Rounds the factors to powers of two: the float network stays the same bit for bit.", false)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    Options o;
    o.iterations = options.at("iterations").get<int>();
    o.threshold = options.at("threshold").get<double>();
    o.alpha = options.at("alpha").get<double>();
    o.width = options.at("range").get<std::string>() == "width";
    o.merge_bias = options.at("merge_bias").get<bool>();
    o.bias_shrinkage = options.at("bias_shrinkage").get<double>();
    o.powers_of_two = options.at("powers_of_two").get<bool>();
    Equalization equalization(*ctx.model, o);
    QUANVAS_TRY(std::string text, equalization.run(job, ctx.layers));
    ctx.measure = "largest / smallest range of its output channels";
    if (equalization.changed()) {
      QUANVAS_TRY(ctx.model, equalization.finish());
    }
    return text;
  }
};

QUANVAS_PLUGIN(Pass, Equalize)

}  // namespace
}  // namespace quanvas
