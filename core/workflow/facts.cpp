// Quanvas - quick questions: what does this recipe do to this layer, and how are its values distributed?
// Exact for weights; for activations on the kept calibration sample. No run, no stored result.
#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/base/guarded.h"
#include "core/graph/canonical.h"
#include "core/quant/dynamic.h"
#include "core/recipe/pool_sum.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

// Multiply-accumulates that the output error of one layer may cost: some 10 ms.
constexpr double kMacBudget = 4e8;

Plan plan_of(const Plan& plan, NodeId node) {
  Plan out;
  for (const auto& site : plan.sites)
    if (site.site.node == node) out.sites.push_back(site);
  return out;
}

// The plan of one node, with the sites that its quantizers follow from: those that share one with it and, of an
// output that is truncated, the one before its input.
Plan with_mates(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan, const Plan& own) {
  Plan out = own;
  const NodeId node = own.sites.empty() ? kNoNode : own.sites[0].site.node;
  const auto has_quantizer = [&](const Site& site) {
    const SitePlan* found = plan.find(site);
    return found && found->spec;
  };
  for (NodeId at = node; at != kNoNode;) {
    const SitePlan* output = plan.find({at, SiteKind::kOutput, 0});
    const Layer* layer = find_layer(layers, at);
    if (!layer || !output || !output->spec || output->spec->truncation == Truncation::kNone) break;
    const Site from = quantized_input(graph, *layer, has_quantizer);
    if (from.node != kNoNode && from.node != node) out.sites.insert(out.sites.begin(), *plan.find(from));
    at = from.kind == SiteKind::kOutput ? from.node : kNoNode;
  }
  std::set<std::string> shared;
  std::set<Site> known;
  for (const auto& site : out.sites) {
    known.insert(site.site);
    if (!site.share.empty()) shared.insert(site.share);
  }
  for (const auto& site : plan.sites)
    if (shared.count(site.share) && !known.count(site.site)) out.sites.push_back(site);
  return out;
}

Shape shape_of(const at::Tensor& t) { return Shape(t.sizes().begin(), t.sizes().end()); }

Result<SiteFacts> measure_site(const Site& site, const quant::QuantParams& params, const at::Tensor& values,
                               bool from_sample) {
  SiteFacts facts;
  if (quant::is_dynamic(params)) {
    QUANVAS_TRY(facts, quant::measure_samples(params, shape_of(values), values.data_ptr<float>()));
  } else {
    QUANVAS_TRY(const auto layout, quant::rebatch(params, shape_of(values)));
    facts = quant::measure(params, layout, values.data_ptr<float>());
  }
  facts.site = site;
  facts.from_sample = from_sample;
  if (from_sample) {  // no place in the file
    facts.bytes_float = facts.bytes_quantized = 0;
    facts.bits_per_element = code_bits(params.spec);
  }
  return facts;
}

// First rows of a batch, so that a layer of many operations still answers within a click.
at::Tensor first_rows(const at::Tensor& x, std::int64_t rows) {
  return x.defined() && x.dim() > 0 && x.size(0) > rows ? x.narrow(0, 0, rows) : x;
}

}  // namespace

Result<LayerFacts> WorkbenchState::layer_facts(const Recipe& recipe, NodeId node_id) {
  return guarded("layer facts", [&]() -> Result<LayerFacts> {
    c10::InferenceMode inference;
    JobContext quiet;
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    const Graph& graph = *prepared->model->graph;
    const Node* node = graph.find(node_id);
    LayerFacts facts;
    facts.node = node_id;
    if (!node) return facts;  // folded away by a graph pass
    const Layer* layer = find_layer(prepared->layers, node_id);
    if (!layer) return facts;
    const Plan own = plan_of(*plan, node_id);
    const auto statistics = known_statistics(*prepared, recipe.calibration);
    QUANVAS_TRY(const auto quantizers, this->quantizers(*prepared, with_mates(graph, prepared->layers, *plan, own),
                                                        statistics.get(), quiet, &found_));
    SamplePtr sample;
    if (statistics) {
      QUANVAS_TRY(sample, sample_for(prepared, recipe.calibration));
    }
    bool complete = sample != nullptr;
    for (const auto& site_plan : own.sites) {
      if (!site_plan.spec) continue;
      const Site& site = site_plan.site;
      const TensorId id = site_tensor(*layer, site);
      const bool is_weight = id != kNoTensor && graph.tensor(id).is_initializer;
      const auto found = quantizers.find(site);
      if (found == quantizers.end()) {
        SiteFacts missing;
        missing.site = site;
        missing.from_sample = !is_weight;
        missing.missing = statistics ? "Stays float here; see the issues of a run." : "Calibrate first.";
        facts.sites.push_back(missing);
        if (!is_weight) complete = false;
        continue;
      }
      at::Tensor values = is_weight ? weight_values(*prepared, id)
                          : sample  ? sample->tensors[static_cast<std::size_t>(id)]
                                    : at::Tensor();
      if (!values.defined()) {
        SiteFacts missing;
        missing.site = site;
        missing.from_sample = !is_weight;
        missing.missing = sample ? "Calibration never saw this tensor." : "Calibrate first.";
        facts.sites.push_back(missing);
        continue;
      }
      values = values.to(at::kCPU, at::kFloat).contiguous();
      QUANVAS_TRY(SiteFacts measured, measure_site(site, found->second, values, !is_weight));
      facts.sites.push_back(std::move(measured));
    }
    if (!complete || quantizers.empty() || !exec::unsupported_reason(*node).empty()) return facts;

    const double macs = std::max(1.0, node_cost(graph, *node).macs);
    const auto rows = std::clamp<std::int64_t>(static_cast<std::int64_t>(kMacBudget / macs), 1, sample->samples);
    exec::Environment env(graph.tensors().size());
    // A sequence is not cut, and of attention the mask would have to be cut with it.
    const bool is_whole = is_recurrent(*node) || node->op == "Attention";
    const auto cut = [&](TensorId id) {
      const at::Tensor& x = sample->tensors[static_cast<std::size_t>(id)];
      // A bias or a limit that is computed has no rows of samples.
      const bool has_rows = id == layer->output || std::count(layer->inputs.begin(), layer->inputs.end(), id) > 0;
      return is_whole || !has_rows ? x : first_rows(x, rows);
    };
    const LayerRun run = run_of(graph, *layer);
    for (const TensorId id : run.reads) env[static_cast<std::size_t>(id)] = cut(id);
    exec::Environment weights = prepared->runner->weights();
    for (const Site& own_site : layer->sites())
      if (const auto q = quantizers.find(own_site); q != quantizers.end() && !is_activation(own_site.kind)) {
        const auto id = static_cast<std::size_t>(site_tensor(*layer, q->first));
        weights[id] = exec::fake_quantize(weights[id], q->second);
      }
    exec::RunHooks hooks;
    const std::set<NodeId> exact = {node_id};
    if (const auto q = quantizers.find({node_id, SiteKind::kOutput, 0});
        q != quantizers.end() && q->second.truncated)
      hooks.exact = &exact;
    hooks.weights = &weights;
    hooks.quantize = [&](const Site& site, const at::Tensor& x) {
      const auto q = quantizers.find(site);
      return q == quantizers.end() ? x : exec::fake_quantize(x, q->second);
    };
    const at::Tensor reference = cut(layer->output);
    if (!reference.defined()) return facts;
    QUANVAS_CHECK(prepared->runner->run_nodes(run.nodes, env, hooks));
    facts.output = tensor_error(reference, env[static_cast<std::size_t>(layer->output)]);
    return facts;
  });
}

Result<Histogram> WorkbenchState::histogram(const Recipe& recipe, const Site& site, int bins) {
  return guarded("histogram", [&]() -> Result<Histogram> {
    JobContext quiet;
    bins = std::clamp(bins, 8, 4096);
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    const Graph& graph = *prepared->model->graph;
    const Layer* layer = find_layer(prepared->layers, site.node);
    const TensorId id = layer ? site_tensor(*layer, site) : kNoTensor;
    Histogram h;
    h.site = site;
    if (id == kNoTensor) {
      h.missing = "This layer has no such tensor.";
      return h;
    }
    const auto statistics = known_statistics(*prepared, recipe.calibration);
    quant::TensorStatistics own;
    const quant::TensorStatistics* source = nullptr;
    if (graph.tensor(id).is_initializer) {
      const at::Tensor values = weight_values(*prepared, id);
      own.add(values.data_ptr<float>(), {values.numel()});
      source = &own;
    } else if (statistics) {
      const auto it = statistics->tensors.find(graph.tensor(id).name);
      if (it != statistics->tensors.end()) source = &it->second;
      h.from_sample = true;
    }
    if (!source) {
      h.missing = "Calibrate first: activations are known only from data.";
      return h;
    }
    h.total = source->count();
    h.minimum = source->minimum();
    h.maximum = source->maximum();
    h.mean = source->mean();
    h.stddev = source->stddev();
    h.lo = h.minimum;
    h.hi = h.maximum > h.minimum ? h.maximum : h.minimum + 1;
    // Symmetric around zero when the values are, so that the grid reads well.
    if (h.minimum < 0 && h.maximum > 0) {
      h.hi = std::max(-h.minimum, h.maximum);
      h.lo = -h.hi;
    }
    h.counts = source->rebin(h.lo, h.hi, bins);
    QUANVAS_TRY(const auto quantizers,
                this->quantizers(*prepared, with_mates(graph, prepared->layers, *plan, plan_of(*plan, site.node)),
                                 statistics.get(), quiet, &found_));
    if (const auto q = quantizers.find(site); q != quantizers.end()) {
      const auto& p = q->second;
      const auto widest = std::max_element(p.scale.begin(), p.scale.end()) - p.scale.begin();
      h.grid = quant::grid_points(p, widest);
      if (!h.grid.empty()) {
        h.clip_lo = h.grid.front();
        h.clip_hi = h.grid.back();
      }
      if (quant::is_dynamic(p)) h.grid_note = "scales are found from each sample at run time";
      if (p.scale.size() > 1)
        h.grid_note = "grid of the largest of " + std::to_string(p.scale.size()) + " scales";
    }
    return h;
  });
}

}  // namespace quanvas
