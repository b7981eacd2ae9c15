// Makes scales and zero points of weights better without data (Badri and Shaji 2023).
#include "core/quant/half_quadratic.h"

#include <cmath>
#include <cstdio>

#include "core/base/guarded.h"
#include "core/exec/pass_context.h"
#include "core/exec/rebuild.h"
#include "core/graph/layers.h"
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

// The sites of weights among the nodes (empty: all) that have a quantizer, in graph order.
template <class F>
void for_each_weight(const Graph& graph, const std::set<NodeId>& nodes, const F& f) {
  for (const Layer& layer : find_layers(graph)) {
    if (!nodes.empty() && nodes.count(layer.node) == 0) continue;
    for (const Site& site : layer.sites())
      if (site.kind == SiteKind::kWeight) f(layer, site);
  }
}

std::string name_of(const Graph& graph, const Layer& layer) { return graph.find(layer.node)->name; }

// Why a weight's parameters stay; empty: they may change.
std::string problem(const QuantSpec& spec, const std::string& share) {
  if (!share.empty()) return "its weight has one scale together with others";
  return quant::half_quadratic_problem(spec);
}

class Hqq final : public Pass {
 public:
  PluginInfo info() const override {
    return {"hqq", "Half-quadratic quantization",
            "Makes the scales and zero points of weights better under a loss that forgives few large errors, without data, from "
            "where the format's statistic has put them; no scale's loss grows (Badri and Shaji 2023, HQQ)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    const quant::HalfQuadraticOptions defaults;
    return {{real_field("power", "Power",
                        "p of the loss, the sum of |error|^p: below 1 large errors count little, 2 is the squared error.", defaults.power, 0.1, 2),
             real_field("beta", "Beta",
                        "How little of an error counts as an outlier's in the first step, in units of the scale.", defaults.beta, 1e-3, 1e6),
             real_field("growth", "Growth", "Of beta with each step.", defaults.growth, 1, 10),
             integer_field("iterations", "Iterations",
                           "Steps of the scale, and as many of the zero point where there is one.", defaults.iterations, 1, 100000)}};
  }

  std::vector<Issue> check(const PassQuestion& question, const json&) const override {
    std::vector<Issue> out = rounding::broken_bound(question);
    int left = 0;
    for_each_weight(*question.model.graph, question.nodes, [&](const Layer& layer, const Site& site) {
      const SitePlan* plan = question.plan.find(site);
      if (!plan || !plan->spec) return;
      const std::string why = problem(*plan->spec, plan->share);
      if (why.empty()) ++left;
      else out.push_back({Severity::kInfo, name_of(*question.model.graph, layer), "HQQ leaves its scales as they are: " + why + ".", ""});
    });
    if (left == 0)
      out.push_back({Severity::kError, "", "No layer has a weight whose scales can be chosen.",
                     "Give weights a format with float32 scales of their own, choose other layers, or switch the pass off."});
    return out;
  }

  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    return guarded(info().title, [&]() -> Result<std::string> { return refine(ctx, options, job); });
  }

 private:
  static Result<std::string> refine(PassContext& ctx, const json& options, JobContext& job) {
    quant::HalfQuadraticOptions o;
    o.power = options["power"];
    o.beta = options["beta"];
    o.growth = options["growth"];
    o.iterations = options["iterations"];
    o.stop = job.stop_token();
    const Model& model = *ctx.quantized.model;
    std::vector<std::pair<Layer, Site>> sites;
    std::vector<PassLayer> left;
    for_each_weight(*model.graph, ctx.nodes, [&](const Layer& layer, const Site& site) {
      const auto at = ctx.quantized.quantizers.find(site);
      if (at == ctx.quantized.quantizers.end()) return;
      const std::string why = problem(at->second.spec, at->second.share);
      if (why.empty()) sites.emplace_back(layer, site);
      else left.push_back({name_of(*model.graph, layer), std::nan(""), std::nan(""), "left as it is: " + why});
    });
    if (sites.empty())
      return fail(ErrorCode::kInvalidArgument, "HQQ: No layer has a weight whose scales can be chosen.",
                  "Give weights a format with float32 scales of their own, choose other layers, or switch the pass off.");
    exec::QuantizerMap quantizers = ctx.quantized.quantizers;  // a stop leaves all as it was
    std::vector<PassLayer> layers;
    std::int64_t improved = 0, all = 0;
    double logs = 0;
    int measured = 0;
    for (std::size_t i = 0; i < sites.size(); ++i) {
      QUANVAS_CHECK(job.check());
      const auto& [layer, site] = sites[i];
      const std::string name = name_of(*model.graph, layer);
      quant::QuantParams& params = quantizers.at(site);
      const TensorData* data = model.weights->find(model.graph->tensor(site_tensor(layer, site)).name);
      if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for the weight of '" + name + "'.");
      const std::vector<float> values = data->to_floats();
      auto done = quant::refine_half_quadratic(params, values.data(), o);
      if (!done) {
        if (done.error().code != ErrorCode::kCancelled) done.error().context = name;
        return Failure(done.error());
      }
      const auto count = static_cast<std::int64_t>(params.scale.size());
      layers.push_back({name, done->before, done->after,
                        std::to_string(done->improved) + " of " + std::to_string(count) + (count == 1 ? " scale" : " scales") + " better"});
      improved += done->improved, all += count;
      if (done->before > 0 && done->after > 0) logs += std::log(done->after / done->before), ++measured;
      job.progress("HQQ", static_cast<double>(i + 1) / static_cast<double>(sites.size()), name);
    }
    // Biases at the accumulator's scale follow.
    for (const Layer& layer : find_layers(*model.graph))
      if (layer.bias != kNoTensor && ctx.may_change(layer.node)) QUANVAS_CHECK(exec::rebuild_bias(model, layer, quantizers));
    ctx.quantized.quantizers = std::move(quantizers);
    char power[32];
    std::snprintf(power, sizeof power, "%.3g", o.power);
    ctx.measure = std::string("error of the weights, (mean |error|^") + power + ")^(1/" + power + "): before, now";
    ctx.layers = std::move(layers);
    ctx.layers.insert(ctx.layers.end(), left.begin(), left.end());
    char text[128];
    std::snprintf(text, sizeof text, ": %.3g of the error in that loss on average; ", measured > 0 ? std::exp(logs / measured) : 1.0);
    return std::to_string(sites.size()) + (sites.size() == 1 ? " weight" : " weights") + text +
           std::to_string(improved) + " of " + std::to_string(all) + " scales better.";
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Hqq)

}  // namespace quanvas
