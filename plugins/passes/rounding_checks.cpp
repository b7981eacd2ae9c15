#include "plugins/passes/rounding_checks.h"

#include <cstdio>

#include "core/exec/chunks.h"
#include "core/graph/memory.h"
#include "core/quant/half_quadratic.h"
#include "core/recipe/pool_sum.h"

namespace quanvas::rounding {

// Why sums of codes of a layer with this input and these weights cannot be bounded; empty: they can.
std::string sums_problem(const QuantSpec* input, const QuantSpec& weight) {
  if (!input) return "its input is float, so that there is no accumulator of whole numbers";
  if (input->format != "int") return "its input is " + input->format + ", whose codes are no whole numbers";
  if (input->source == ScaleSource::kDynamic) return "its input's scale is found anew from each sample";
  if (input->granularity != Granularity::kTensor) return "its input has more than one scale, and sums of codes with different scales are no sums";
  if (weight.format != "int") return "its weights are " + weight.format + ", whose codes are no whole numbers";
  if (weight.zero_point == ZeroPointType::kOffset || weight.zero_point == ZeroPointType::kFloat) return "its weights' zero point is no whole number";
  if (code_bits(weight) > 22) return "its weights have codes of more than 22 bits";
  return {};
}
const char* const kSumsHint = "Give its input and its weights integer formats, choose other layers, or switch the accumulator's bound off.";

std::string scale_problem(const QuantSpec& spec, const std::string& share) {
  if (!share.empty()) return "its weight has one scale together with others";
  return quant::half_quadratic_problem(spec);
}

void leave_fixed_scales(Targets& found, const QuantizerOf& quantizer_of) {
  std::vector<Target> kept;
  for (Target& target : found.targets) {
    const auto [spec, share] = quantizer_of(target.weight_site());
    std::string why = spec ? scale_problem(*spec, share) : "its weight has no format";
    if (why.empty()) kept.push_back(std::move(target));
    else found.left.emplace_back(target.name, std::move(why));
  }
  found.targets = std::move(kept);
}

std::vector<Field> common_fields(bool with_inputs) {
  std::vector<Field> fields;
  if (with_inputs)
    fields.push_back(choice_field("inputs", "Inputs", "What the layers see of the calibration samples.", "quantized",
                                  {{"quantized", "Quantized network", "What the layers before, already rounded, give; later layers make up for them."},
                                   {"float", "Float network", "Each layer for itself on float inputs."}}));
  fields.push_back(integer_field("samples", "Samples", "Of the calibration samples; 0: all.", 0, 0, 1e9, "samples"));
  return fields;
}

void add_accumulator_fields(Schema& schema, bool with_spread) {
  schema.fields.push_back(integer_field("accumulator_bits", "Accumulator",
                                        "Codes whose sums no input can make overflow a signed accumulator of so many bits (Colbert et al. "
                                        "2024, AXE, arXiv 2409.17092); 0: no bound.", 0, 0, 32, "bits"));
  schema.fields.push_back(integer_field("accumulator_tile", "Accumulator's tile",
                                        "Inputs that one accumulator sums up, in the order of the weight; 0: all of an output.", 0, 0, 1e9, "inputs"));
  if (!with_spread) return;
  schema.fields.push_back(choice_field("accumulator_spread", "Under the bound", "What inputs that are not yet rounded make up for.", "total",
                                       {{"total", "All that is lost", "By rounding and by the bound."},
                                        {"rounding", "Rounding alone",
                                         "Not what the bound has taken from a weight (as in the paper); for bounds that take most of the weights."},
                                        {"best", "The better of both", "Each output for itself; twice the time."}}));
}

algorithms::AccumulatorOptions accumulator_options(const json& options) {
  algorithms::AccumulatorOptions out;
  if (!options.is_object()) return out;
  out.bits = options.value("accumulator_bits", 0);
  out.tile = options.value("accumulator_tile", std::int64_t{0});
  using Spread = algorithms::AccumulatorOptions::Spread;
  const std::string spread = options.value("accumulator_spread", "total");
  out.spread = spread == "rounding" ? Spread::kRounding : spread == "best" ? Spread::kBest : Spread::kTotal;
  return out;
}

std::vector<Issue> problems(const Graph& graph, bool calibration_data, const Targets& found, const std::string& title) {
  std::vector<Issue> out;
  if (!calibration_data)
    out.push_back({Severity::kError, "", "It needs calibration data, and none are declared.", "Declare calibration data, or switch the pass off."});
  if (const std::size_t inputs = graph.inputs().size(); inputs != 1)
    out.push_back({Severity::kError, "", "It feeds one input; the model has " + std::to_string(inputs) + ".", "Switch the pass off."});
  if (found.targets.empty())
    out.push_back({Severity::kError, "", "No layer has a quantized weight that can be rounded.",
                   "Give weights of convolutions or matrix products a format, choose other layers, or switch the pass off."});
  for (const auto& [name, why] : found.left) out.push_back({Severity::kInfo, name, title + " leaves its weights as they are: " + why + ".", ""});
  return out;
}

// Why weights of this format cannot be rounded one by one; empty: they can.
std::string format_problem(const QuantSpec& spec) {
  switch (spec.rounding) {
    case Rounding::kCeil: case Rounding::kFloor: case Rounding::kTowardZero: case Rounding::kStochastic: case Rounding::kLearned:
      return "its weights are rounded " + std::string(enum_text(spec.rounding)) + ", which moves values that were rounded already";
    default: break;
  }
  if (spec.decoupled != Decoupling::kNone) return "its weights have one scale for rounding and another one for clipping";
  if (spec.zero_point == ZeroPointType::kFloat) return "its zero point is no whole number";
  if (spec.accumulator_bits) return "its format bounds the accumulator, and new codes would not keep the bound";
  return {};
}

namespace {

// Why a tile would hold weights of several scales; empty: none does.
std::string tile_problem(const QuantSpec& weight, const Target& target, std::int64_t tile) {
  if (weight.granularity != Granularity::kGroup) return {};
  const auto layout = quant::make_layout(weight, target.shape, target.layer.reduction_axis);
  if (!layout) return {};  // said elsewhere
  quant::QuantParams params;
  params.spec = weight;
  params.layout = *layout;
  params.scale.assign(static_cast<std::size_t>(layout->parameters()), 1.0f);
  params.zero_point.assign(params.scale.size(), 0.0f);
  const auto quantizer = quant::ColumnQuantizer::create(params, target.view(0));
  if (!quantizer) return {};
  algorithms::AccumulatorOptions options{16, tile};
  const auto made = algorithms::Accumulator::create(options, *quantizer);
  return made ? "" : "its weights have groups with scales of their own inside a tile";
}

}  // namespace

std::string factor_key(const algorithms::FactorOptions& options) {
  char damping[32];
  std::snprintf(damping, sizeof damping, "%.17g", options.damping);
  return std::string("factor ") + damping + (options.spectral ? " spectral" : " mean") + (options.act_order ? " large first" : "");
}

bool wants_quantized(const json& options) { return options.is_object() && options.value("inputs", "float") == "quantized"; }

namespace {

std::string megabytes(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g MB", static_cast<double>(bytes) / 1e6);
  return text;
}

// What the walk will keep at once, as an info: activations between two layers, the moments of the layer with the most inputs and
// what is made of them.
std::vector<Issue> memory_note(const PassQuestion& question, const std::vector<Target>& targets, int networks) {
  const std::string activations = kept_activations(question, networks);
  const Target* largest = nullptr;
  std::int64_t moments = 0;
  for (const Target& target : targets) {
    const std::int64_t bytes = target.groups * target.n * target.n * (networks > 1 ? 24 + 16 : 8 + 8);
    if (bytes > moments) moments = bytes, largest = &target;
  }
  if (!largest || activations.empty() || networks == 0) return {};
  return {{Severity::kInfo, "",
           "It will keep up to " + activations + " and " + megabytes(moments) + " of second moments ('" + largest->name + "', " +
               std::to_string(largest->n) + " inputs" +
               (largest->groups > 1 ? " in each of " + std::to_string(largest->groups) + " groups" : "") + ") in memory.",
           ""}};
}

}  // namespace

std::string kept_activations(const PassQuestion& question, int networks) {
  if (question.samples <= 0 || networks <= 0) return {};
  const std::int64_t one = std::max<std::int64_t>(1, networks * live_bytes(*question.model.graph));
  const std::int64_t samples = std::min(question.samples, std::max<std::int64_t>(exec::kChunkSize, kKeptActivations / one));
  return megabytes(samples * one) + " of activations (" + std::to_string(samples) + " samples)";
}

std::vector<Issue> broken_bound(const PassQuestion& question, int own_bits) {
  const int bits = question.accumulator_bits;
  if (bits == 0 || (own_bits > 0 && own_bits <= bits)) return {};
  return {{Severity::kWarning, "", "It moves weights that a pass before it keeps within accumulators of " + std::to_string(bits) + " bits: that bound no longer holds.",
           "Put it before that pass, or give it the same accumulator where it has one."}};
}

std::vector<Issue> check_scales(const PassQuestion& question, const std::string& title) {
  const auto plan_of = [&](const Site& site) {
    const SitePlan* plan = question.plan.find(site);
    return plan && plan->spec ? plan : nullptr;
  };
  Targets found = find_targets(question.model, question.nodes, [&](const Site& site) { return plan_of(site) != nullptr; });
  leave_fixed_scales(found, [&](const Site& site) -> std::pair<const QuantSpec*, std::string> {
    const SitePlan* plan = plan_of(site);
    return plan ? std::pair{&*plan->spec, plan->share} : std::pair<const QuantSpec*, std::string>{nullptr, ""};
  });
  std::vector<Issue> out = problems(*question.model.graph, question.calibration_data, found, title);
  for (Issue& issue : broken_bound(question)) out.push_back(std::move(issue));
  for (Issue& issue : memory_note(question, found.targets, 1)) out.push_back(std::move(issue));
  return out;
}

std::vector<Issue> check(const PassQuestion& question, const std::string& title, int networks, bool on_grid, const algorithms::AccumulatorOptions& accumulator) {
  const auto has_format = [&](const Site& site) {
    const SitePlan* plan = question.plan.find(site);
    return plan && plan->spec;
  };
  const Targets found = find_targets(question.model, question.nodes, has_format);
  std::vector<Issue> out = problems(*question.model.graph, question.calibration_data, found, title);
  for (Issue& issue : broken_bound(question, accumulator.bits)) out.push_back(std::move(issue));
  for (Issue& issue : memory_note(question, found.targets, networks)) out.push_back(std::move(issue));
  if (accumulator.bits == 1) out.push_back({Severity::kError, "", "accumulator_bits is 1; no sum fits one bit.", "Choose 2 to 32, or 0 for no bound."});
  for (const Target& target : found.targets) {
    const QuantSpec& weight = *question.plan.find(target.weight_site())->spec;
    if (const std::string why = on_grid ? format_problem(weight) : ""; !why.empty())
      out.push_back({Severity::kError, target.name, why + ".",
                     accumulator.bits > 0 && weight.accumulator_bits
                         ? "Choose a format without a bound of its own, the pass keeps to the accumulator, or leave the layer out of the pass."
                         : "Choose another format for it, or leave the layer out of the pass."});
    if (accumulator.bits == 0) continue;
    const Site from = quantized_input(*question.model.graph, target.layer, has_format);
    if (const std::string why = sums_problem(from.node == kNoNode ? nullptr : &*question.plan.find(from)->spec, weight); !why.empty())
      out.push_back({Severity::kError, target.name, "sums of codes cannot be bounded: " + why + ".", kSumsHint});
    else if (const std::string groups = tile_problem(weight, target, accumulator.tile); !groups.empty())
      out.push_back({Severity::kError, target.name, groups + ".", "Choose tiles that lie inside the groups."});
  }
  return out;
}

}  // namespace quanvas::rounding
