#include "core/recipe/plan_settle.h"

#include <algorithm>
#include <functional>
#include <map>

#include "core/recipe/plan_edges.h"
#include "core/recipe/pool_sum.h"

namespace quanvas {

std::string site_text(const Graph& graph, const Site& site) {
  const Node* node = graph.find(site.node);
  return (node ? node->name : std::to_string(site.node)) + " " + enum_text(site.kind) +
         (site.operand > 0 ? " " + std::to_string(site.operand + 1) : "");
}

std::string list_text(std::vector<std::string> names) {
  constexpr std::size_t kShown = 4;
  const std::size_t more = names.size() > kShown ? names.size() - kShown : 0;
  if (more) names.resize(kShown);
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + name;
  return out + (more ? " and " + std::to_string(more) + " more" : "");
}

namespace {

// A bias that takes its scale from the accumulator stays float where there is no such scale.
void settle_bias(std::vector<SitePlan>& sites, std::size_t begin, std::size_t end, const std::function<const QuantSpec*(NodeId)>& given) {
  const QuantSpec *weight = nullptr, *input = nullptr;
  bool several = false;
  for (std::size_t i = begin; i < end; ++i) {
    const QuantSpec* spec = sites[i].spec ? &*sites[i].spec : nullptr;
    if (sites[i].site.kind == SiteKind::kWeight && sites[i].site.operand == 0) weight = spec;
    several |= sites[i].site.kind == SiteKind::kWeight && sites[i].site.operand > 0;
    if (sites[i].site.kind == SiteKind::kInput && sites[i].site.operand == 0) input = spec;
  }
  for (std::size_t i = begin; i < end; ++i) {
    SitePlan& s = sites[i];
    if (s.site.kind != SiteKind::kBias || !s.spec || !s.spec->scale_from_accumulator) continue;
    if (!input) input = given(s.site.node);
    const std::string problem = several ? kSeveralProducts : accumulator_problem(input, weight);
    if (problem.empty()) continue;
    s.spec.reset();
    s.why += "; float, because its scale would be input scale × weight scale and " + problem;
  }
}

// Why these sites cannot have one quantizer, as a clause; empty: they can.
std::string problem_between(const std::vector<const SitePlan*>& sites) {
  const SiteKind kind = sites[0]->site.kind;
  for (const SitePlan* s : sites) {
    if (s->site.kind == SiteKind::kBias) return "a bias shares nothing";
    if (is_activation(s->site.kind) != is_activation(kind)) return "weights and activations do not share";
    if (!(*s->spec == *sites[0]->spec)) return "their formats differ";
  }
  return sharing_problem(*sites[0]->spec, kind);
}

// Sites of rules with one name get one quantizer, or stay float where that cannot be.
void settle_shares(const Graph& graph, const Recipe& recipe, Plan& plan) {
  std::map<std::string, std::vector<SitePlan*>> groups;
  for (SitePlan& s : plan.sites) {
    if (!s.spec || s.rule < 0 || recipe.rules[static_cast<std::size_t>(s.rule)].share == kEdgeShare) continue;
    s.share = share_key(recipe, s);
    if (!s.share.empty()) groups[s.share].push_back(&s);
  }
  for (auto& [key, sites] : groups) {
    if (sites.size() == 1) {
      sites[0]->share.clear();
      continue;
    }
    std::vector<std::string> names;
    for (const SitePlan* s : sites) names.push_back(site_text(graph, s->site));
    const std::string shown = key.starts_with("#") ? "node" : key;
    const std::string problem = problem_between({sites.begin(), sites.end()});
    for (SitePlan* s : sites) {
      s->why += "; shares '" + shown + "' with " + std::to_string(sites.size() - 1) + " other" + (sites.size() > 2 ? "s" : "");
      if (problem.empty()) continue;
      s->why += "; float, because " + problem;
      s->share.clear();
      s->spec.reset();
    }
    if (!problem.empty())
      plan.warnings.push_back(list_text(names) + " are to share '" + shown + "', but " + problem +
                              ", so they stay float. Give them one format, or another name.");
  }
}

// What quantizes the first input of a layer: its own site, or that of the layer before; null: nothing does.
const SitePlan* input_of(const Graph& graph, const Plan& plan, const Layer& layer) {
  const Site from = quantized_input(graph, layer, [&](const Site& site) {
    const SitePlan* found = plan.find(site);
    return found && found->spec;
  });
  return from.node == kNoNode ? nullptr : plan.find(from);
}

// The bound of an accumulator holds for inputs within the declared codes only.
void check_accumulators(const Graph& graph, Plan& plan) {
  std::vector<Layer> layers;
  for (const SitePlan& weight : plan.sites) {
    if (weight.site.kind != SiteKind::kWeight || !weight.spec || !weight.spec->accumulator_bits) continue;
    if (layers.empty()) layers = find_layers(graph);
    const SitePlan* input = input_of(graph, plan, *find_layer(layers, weight.site.node));
    const std::string layer = graph.find(weight.site.node)->name;
    if (!input || !input->spec || input->spec->format != "int") {
      plan.warnings.push_back(layer + ": accumulator_bits is " + std::to_string(*weight.spec->accumulator_bits) +
                              ", but the layer's input is " + (input && input->spec ? input->spec->format : "float") +
                              ", so nothing is added up in integers. Give the input an integer format.");
      continue;
    }
    QuantSpec declared;
    declared.bits = weight.spec->accumulator_input_bits;
    declared.is_signed = weight.spec->accumulator_input_signed;
    const CodeRange allowed = code_range(declared), codes = code_range(*input->spec);
    if (codes.lo >= allowed.lo && codes.hi <= allowed.hi) continue;
    const bool sign = input->spec->is_signed != declared.is_signed;
    plan.warnings.push_back(layer + ": the bound of accumulator_bits holds for input codes " + std::to_string(allowed.lo) + " to " +
                            std::to_string(allowed.hi) + " (accumulator_input_bits " + std::to_string(declared.bits) +
                            ", accumulator_input_signed " + (declared.is_signed ? "true" : "false") + "), and the input has " +
                            std::to_string(codes.lo) + " to " + std::to_string(codes.hi) + ". Set accumulator_input_bits to " +
                            std::to_string(input->spec->bits) +
                            (sign ? std::string(" and accumulator_input_signed to ") + (input->spec->is_signed ? "true" : "false") : "") +
                            ", or give the input fewer bits.");
  }
}

void settle_biases(const Graph& graph, Plan& plan) {
  std::vector<SitePlan>& sites = plan.sites;
  // The format that the layer before has given to what the layer reads.
  std::vector<Layer> layers;
  const auto given = [&](NodeId node) -> const QuantSpec* {
    if (layers.empty()) layers = find_layers(graph);
    const Layer* layer = find_layer(layers, node);
    const SitePlan* from = layer ? input_of(graph, plan, *layer) : nullptr;
    return from ? &*from->spec : nullptr;
  };
  for (std::size_t begin = 0; begin < sites.size();) {
    std::size_t end = begin + 1;
    while (end < sites.size() && sites[end].site.node == sites[begin].site.node) ++end;
    settle_bias(sites, begin, end, given);
    begin = end;
  }
}

// Outputs that are truncated need the integers of an average pool; the sign of the sum is that of its input. In
// graph order: a truncated output may be the input of the next pool.
void settle_truncations(const Graph& graph, Plan& plan) {
  if (std::none_of(plan.sites.begin(), plan.sites.end(),
                   [](const SitePlan& s) { return s.spec && s.spec->truncation != Truncation::kNone; }))
    return;
  const std::vector<Layer> layers = find_layers(graph);
  auto layer = layers.begin();                              // the sites stand in their order
  std::map<std::string, std::vector<std::string>> refused;  // by reason
  for (SitePlan& s : plan.sites) {
    if (!s.spec || s.spec->truncation == Truncation::kNone) continue;
    while (layer != layers.end() && layer->node != s.site.node) ++layer;
    if (layer == layers.end()) break;
    const SitePlan* input = input_of(graph, plan, *layer);
    std::string problem = truncation_problem(graph, *layer, input ? &*input->spec : nullptr);
    if (problem.empty()) {
      if (s.spec->is_signed == input->spec->is_signed) continue;
      s.spec->is_signed = input->spec->is_signed;
      problem = check(*s.spec, s.site.kind);
      if (!problem.empty()) problem = "with the sign of its input " + problem.substr(0, problem.find_last_not_of('.') + 1);
    }
    if (problem.empty()) {
      s.why += s.spec->is_signed ? "; signed, as its input is" : "; unsigned, as its input is";
      continue;
    }
    refused[problem].push_back(site_text(graph, s.site));
    s.spec.reset();
    s.why += "; float, because it would be truncated and " + problem;
  }
  for (const auto& [problem, names] : refused)
    plan.warnings.push_back(
        list_text(names) +
        (names.size() > 1 ? " are to be truncated and stay float: " : " is to be truncated and stays float: ") +
        problem + ".");
}

}  // namespace

std::string share_key(const Recipe& recipe, const SitePlan& site) {
  if (site.rule < 0 || recipe.rules[static_cast<std::size_t>(site.rule)].is_float) return {};
  const std::string& name = recipe.rules[static_cast<std::size_t>(site.rule)].share;
  if (name == kEdgeShare) return site.share;  // a matter of the whole graph, see settle_edges()
  if (name != "node") return name;
  return site.site.kind == SiteKind::kInput ? "#" + std::to_string(site.site.node) : std::string();
}

std::vector<Site> sharing_sites(const Recipe& recipe, const Plan& plan, const Site& site) {
  const SitePlan* own = plan.find(site);
  const std::string key = own ? share_key(recipe, *own) : std::string();
  std::vector<Site> out;
  if (key.empty()) return out;
  for (const SitePlan& s : plan.sites)
    if (share_key(recipe, s) == key) out.push_back(s.site);
  return out;
}

std::string sharing_problem(const QuantSpec& spec, SiteKind kind) {
  if (kind == SiteKind::kBias) return "a bias shares nothing";
  if (spec.granularity != Granularity::kTensor)
    return std::string("granularity is ") + enum_text(spec.granularity) + ", which must be tensor";
  if (spec.truncation != Truncation::kNone) return "a truncation's scale follows from its own layer's input";
  if (spec.source == ScaleSource::kDynamic) return "source is dynamic, which finds a scale in each tensor alone";
  if (spec.source == ScaleSource::kStored) return "source is stored, and the model file has a scale for each tensor";
  if (spec.decoupled != Decoupling::kNone) return "decoupled codes have a scale for each tensor";
  if (!is_activation(kind) && (spec.statistic == Statistic::kMaxMean || spec.statistic == Statistic::kMaxRms ||
                                   spec.statistic == Statistic::kHe))
    return std::string("statistic is ") + enum_text(spec.statistic) + ", which looks at the shape of one tensor";
  return {};
}

void settle(const Graph& graph, const Recipe& recipe, Plan& plan) {
  settle_edges(graph, recipe, plan);
  settle_shares(graph, recipe, plan);
  settle_truncations(graph, plan);
  settle_biases(graph, plan);
  check_accumulators(graph, plan);
}

}  // namespace quanvas
