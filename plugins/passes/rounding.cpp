#include "plugins/passes/rounding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/exec/chunks.h"
#include "core/exec/rebuild.h"
#include "core/graph/memory.h"
#include "core/recipe/pool_sum.h"
#include "plugins/passes/edit.h"
#include "plugins/passes/rounding_layers.h"

namespace quanvas::rounding {
namespace {

using algorithms::Gram;
using algorithms::RoundingReport;
using exec::Environment;

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
constexpr const char* kSumsHint = "Give its input and its weights integer formats, choose other layers, or switch the accumulator's bound off.";
constexpr std::int64_t kMemory = std::int64_t{2} << 30;  // for the activations kept between layers

// The activations of all samples in one network, which advance from layer to layer together.
class Front {
 public:
  Front(std::shared_ptr<const exec::Runner> runner, const PassContext& ctx, const std::vector<std::int64_t>& samples)
      : runner_(std::move(runner)), ctx_(ctx), samples_(samples),
        envs_((samples.size() + exec::kChunkSize - 1) / static_cast<std::size_t>(exec::kChunkSize)) {}

  // Runs the nodes up to position `end`, which it leaves out. weights: those that replace the runner's.
  Status advance(std::size_t end, const Environment& weights, JobContext& job) {
    const Graph& graph = runner_->graph();
    std::vector<NodeId> nodes;
    for (std::size_t n = done_; n < end; ++n) nodes.push_back(graph.nodes()[n].id);
    exec::RunHooks hooks;
    hooks.weights = &weights;
    JobContext quiet(job.stop_token());
    QUANVAS_CHECK(exec::parallel_ordered(
        static_cast<std::int64_t>(envs_.size()), quiet, true,
        [&](std::int64_t c) -> Result<std::shared_ptr<void>> {
          Environment& env = envs_[static_cast<std::size_t>(c)];
          if (env.empty()) QUANVAS_CHECK(load(env, c));
          QUANVAS_CHECK(runner_->run_nodes(nodes, env, hooks));
          return std::shared_ptr<void>();
        },
        [](std::int64_t, void*) -> Status { return {}; }));
    done_ = std::max(done_, end);
    for (std::size_t id = 0; id < graph.tensors().size(); ++id) {
      const auto& consumers = graph.tensors()[id].consumers;
      if (!consumers.empty() && graph.position(consumers.back()) >= done_) continue;
      for (Environment& env : envs_) env[id].reset();
    }
    return {};
  }
  std::size_t chunks() const { return envs_.size(); }
  const at::Tensor& tensor(std::size_t chunk, TensorId id) const { return envs_[chunk][static_cast<std::size_t>(id)]; }

 private:
  Status load(Environment& env, std::int64_t c) const {
    const Graph& graph = runner_->graph();
    const auto size = static_cast<std::int64_t>(samples_.size());
    const auto begin = samples_.begin() + c * exec::kChunkSize, end = samples_.begin() + std::min<std::int64_t>(size, (c + 1) * exec::kChunkSize);
    QUANVAS_TRY(exec::Chunk chunk, exec::read_chunk(*ctx_.calibration_data, {begin, end}, c, ctx_.device));
    env.resize(graph.tensors().size());
    env[static_cast<std::size_t>(graph.inputs()[0])] = chunk.input;
    return {};
  }

  std::shared_ptr<const exec::Runner> runner_;
  const PassContext& ctx_;
  const std::vector<std::int64_t>& samples_;
  std::vector<Environment> envs_;
  std::size_t done_ = 0;
};

class Walk {
 public:
  Walk(PassContext& ctx, const json& options, JobContext& job, const Method& method)
      : ctx_(ctx), job_(job), method_(method), quantized_inputs_(wants_quantized(options)),
        both_(method.both_inputs && quantized_inputs_) {}

  Result<std::string> run(const json& options) {
    Targets found = find_targets(ctx_);
    targets_ = std::move(found.targets);
    const std::size_t wanted = choose(options["samples"]);
    original_ = original_model(ctx_);
    if (quantized_inputs_) {
      QUANVAS_TRY(auto runner, exec::Runner::create(ctx_.quantized.model, &ctx_.quantized.quantizers, ctx_.device));
      quantized_.emplace(std::move(runner), ctx_, samples_);
    }
    if (!quantized_inputs_ || both_) {
      QUANVAS_TRY(auto runner, exec::Runner::create(original_, nullptr, ctx_.device));
      float_.emplace(std::move(runner), ctx_, samples_);
    }
    overrides_.resize(ctx_.quantized.model->graph->tensors().size());
    std::vector<char> done(targets_.size());
    std::size_t count = 0;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (done[i]) continue;
      QUANVAS_CHECK(job_.check());
      std::vector<const Target*> together;
      for (std::size_t k = i; k < targets_.size(); ++k)
        if (!done[k] && same_columns(ctx_, targets_[i], targets_[k])) together.push_back(&targets_[k]), done[k] = 1;
      if (!take_finished(together)) QUANVAS_CHECK(round(together));
      count += together.size();
      job_.progress(method_.title, static_cast<double>(count) / static_cast<double>(targets_.size()), targets_[i].name);
    }
    QUANVAS_CHECK(store());
    ctx_.measure = method_.table;
    for (const auto& [name, r] : reports_) ctx_.layers.push_back({name, r.before, r.after, note(r)});
    for (const auto& [name, why] : found.left) ctx_.layers.push_back({name, std::nan(""), std::nan(""), "left as it is: " + why});
    return summary(wanted);
  }

 private:
  std::size_t choose(std::int64_t samples) {
    samples_ = ctx_.calibration_samples;
    if (samples_.empty()) samples_ = choose_samples(ctx_.calibration_data->size(), 0, 0);
    if (samples > 0 && static_cast<std::int64_t>(samples_.size()) > samples) samples_.resize(static_cast<std::size_t>(samples));
    const std::size_t wanted = samples_.size();
    const std::int64_t networks = both_ ? 2 : 1;
    const std::int64_t fits = std::max<std::int64_t>(exec::kChunkSize, kMemory / networks / live_bytes(*ctx_.quantized.model->graph));
    if (static_cast<std::int64_t>(wanted) > fits) samples_.resize(static_cast<std::size_t>(fits));
    return wanted;
  }

  // As the layer's weight sees it.
  at::Tensor seen(const Target& target, const at::Tensor& x) const {
    const auto q = ctx_.quantized.quantizers.find(target.input_site());
    return q == ctx_.quantized.quantizers.end() ? x : exec::fake_quantize(x, q->second);
  }

  using Grams = std::shared_ptr<const std::vector<Gram>>;  // of each group; empty: no column came
  using Shared = std::vector<std::any>;                     // likewise

  // Under which what follows from the float network's inputs of this layer is kept; empty: it is not.
  std::string kept_key(const Target& target) const {
    if (!ctx_.kept || quantized_inputs_ || original_->graph != ctx_.model->graph) return {};
    const Graph& graph = *original_->graph;
    Hasher hasher;
    hasher.text(ctx_.kept_key).text(graph.tensor(target.input).name).number(static_cast<std::int64_t>(samples_.size()));
    hasher.number(target.n).number(target.groups).number(target.convolution);
    if (target.convolution) {
      const Node& node = *graph.find(target.layer.node);
      const auto list = [&](const Shape& values) {
        hasher.number(static_cast<std::int64_t>(values.size()));
        for (const std::int64_t v : values) hasher.number(v);
      };
      list(Shape(target.shape.begin() + 1, target.shape.end()));
      for (const char* name : {"strides", "pads", "dilations"}) list(node.integers(name));
      hasher.text(node.text("auto_pad", "NOTSET"));
    }
    return hasher.hex();
  }

  Result<Grams> grams_of(const Target& target) {
    const std::string key = kept_key(target);
    if (!key.empty())
      if (Grams known = ctx_.kept->find<std::vector<Gram>>(key)) return known;
    const std::size_t end = ctx_.quantized.model->graph->position(target.layer.node);
    if (quantized_) QUANVAS_CHECK(quantized_->advance(end, overrides_, job_));
    if (float_) QUANVAS_CHECK(float_->advance(end, none_, job_));
    ColumnSums sums(*ctx_.quantized.model->graph, target, both_);
    const std::size_t chunks = quantized_ ? quantized_->chunks() : float_->chunks();
    for (std::size_t c = 0; c < chunks; ++c) {
      QUANVAS_CHECK(job_.check());
      const at::Tensor x = quantized_ ? seen(target, quantized_->tensor(c, target.input)) : float_->tensor(c, target.input);
      QUANVAS_CHECK(sums.add(x, both_ ? float_->tensor(c, target.input) : at::Tensor(), job_.stop_token()));
    }
    if (sums.is_empty()) return std::make_shared<const std::vector<Gram>>();
    QUANVAS_TRY(auto made, sums.finish(job_.stop_token()));
    Grams grams = std::make_shared<const std::vector<Gram>>(std::move(made));
    if (!key.empty()) ctx_.kept->keep(key, grams, target.groups * target.n * target.n * static_cast<std::int64_t>(sizeof(double)));
    return grams;
  }

  // Layers that multiply the same columns.
  Status round(const std::vector<const Target*>& targets) {
    QUANVAS_TRY(const Grams grams, grams_of(*targets[0]));
    if (grams->empty()) {
      for (const Target* target : targets) ctx_.layers.push_back({target->name, std::nan(""), std::nan(""), "left as it is: it reads nothing on these samples"});
      return {};
    }
    std::string key = method_.shared_key.empty() ? std::string() : kept_key(*targets[0]);
    if (!key.empty()) key += "/" + method_.shared_key;
    const auto known = key.empty() ? nullptr : ctx_.kept->find<Shared>(key);
    Shared shared = known ? *known : Shared(grams->size());
    for (const Target* target : targets)
      if (auto done = round(*target, *grams, shared); !done) {
        if (done.error().code != ErrorCode::kCancelled && done.error().context.empty()) done.error().context = target->name;
        return done;
      }
    // A factor and its moments, each of 4 bytes.
    if (!key.empty() && !known) ctx_.kept->keep(key, std::make_shared<const Shared>(std::move(shared)), 8 * targets[0]->groups * targets[0]->n * targets[0]->n);
    return {};
  }

  // What bounds the codes of a group; none: nothing does.
  Result<std::optional<algorithms::Accumulator>> accumulator_of(const Target& target, const quant::ColumnQuantizer& quantizer) const {
    if (method_.accumulator.bits == 0) return std::optional<algorithms::Accumulator>();
    const auto& quantizers = ctx_.quantized.quantizers;
    const Site from = quantized_input(*ctx_.quantized.model->graph, target.layer, [&](const Site& site) { return quantizers.count(site) > 0; });
    const quant::QuantParams* input = from.node == kNoNode ? nullptr : &quantizers.at(from);
    if (const std::string why = sums_problem(input ? &input->spec : nullptr, quantizers.at(target.weight_site()).spec); !why.empty())
      return fail(ErrorCode::kUnsupported, "Sums of '" + target.name + "' cannot be bounded: " + why + ".", kSumsHint);
    algorithms::AccumulatorOptions options = method_.accumulator;
    options.low = std::min<std::int64_t>(input->lo, 0);
    options.high = std::max<std::int64_t>(input->hi, 0);
    auto made = algorithms::Accumulator::create(options, quantizer);
    if (!made) {
      made.error().context = target.name;
      return Failure(made.error());
    }
    return std::optional<algorithms::Accumulator>(std::move(*made));
  }

  Status round(const Target& target, const std::vector<Gram>& grams, Shared& shared) {
    const std::string& name = ctx_.quantized.model->graph->tensor(target.layer.weight).name;
    const quant::QuantParams& params = ctx_.quantized.quantizers.at(target.weight_site());
    std::vector<float> now = ctx_.quantized.model->weights->find(name)->to_floats();
    const std::vector<float> before = original_->weights->find(name)->to_floats();
    RoundingReport total;
    for (std::int64_t g = 0; g < target.groups; ++g) {
      QUANVAS_CHECK(job_.check());
      const quant::MatrixView view = target.view(g);
      std::vector<float> w = matrix(now, view), original = matrix(before, view);
      std::optional<quant::ColumnQuantizer> quantizer;
      if (method_.on_grid) {
        QUANVAS_TRY(quantizer, quant::ColumnQuantizer::create(params, view));
      }
      Group group{target.m, target.n, w.data(), original.data(), &grams[static_cast<std::size_t>(g)],
                  quantizer ? &*quantizer : nullptr, &shared[static_cast<std::size_t>(g)], job_.stop_token()};
      std::optional<algorithms::Accumulator> accumulator;
      if (quantizer) {
        QUANVAS_TRY(accumulator, accumulator_of(target, *quantizer));
      }
      if (accumulator) group.accumulator = &*accumulator, outer_bits_ = std::max(outer_bits_, accumulator->outer_bits());
      QUANVAS_TRY(const RoundingReport report, method_.round(group));
      total.before += report.before;
      total.after += report.after;
      total.dead += report.dead;
      total.retries = std::max(total.retries, report.retries);
      total.used = std::max(total.used, report.used);
      total.bounded += report.bounded;
      for (std::int64_t r = 0; r < view.rows; ++r)
        for (std::int64_t c = 0; c < view.columns; ++c)
          now[static_cast<std::size_t>(view.element(r, c))] = w[static_cast<std::size_t>(r * view.columns + c)];
    }
    if (method_.on_grid) QUANVAS_CHECK(check_kept(target, params, now));
    if (ctx_.finish_part) ctx_.finish_part(target.name, pack(total, now));
    take(target, total, now);
    return {};
  }

  void take(const Target& target, const RoundingReport& report, const std::vector<float>& weights) {
    reports_.push_back({target.name, report});
    const at::Tensor values = at::tensor(weights, at::kFloat).reshape(target.shape);
    overrides_[static_cast<std::size_t>(target.layer.weight)] = values.to(ctx_.device);
    results_[target.layer.weight] = values;
  }

  // A layer's report and weights, in this machine's byte order: a part of a run is for the run after it.
  static constexpr std::size_t kReportNumbers = 7;
  std::string pack(const RoundingReport& r, const std::vector<float>& weights) const {
    const double numbers[kReportNumbers] = {r.before, r.after, static_cast<double>(r.retries), static_cast<double>(r.dead),
                                            r.used, static_cast<double>(r.bounded), static_cast<double>(outer_bits_)};
    std::string bytes(sizeof numbers + weights.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), numbers, sizeof numbers);
    std::memcpy(bytes.data() + sizeof numbers, weights.data(), weights.size() * sizeof(float));
    return bytes;
  }

  // Whether a run that was stopped has finished all of these, with values that their quantizers keep. Then they are taken.
  bool take_finished(const std::vector<const Target*>& targets) {
    if (!ctx_.finished_part) return false;
    std::vector<std::pair<RoundingReport, std::vector<float>>> found;
    int outer_bits = 0;
    for (const Target* target : targets) {
      const auto bytes = ctx_.finished_part(target->name);
      double numbers[kReportNumbers] = {};
      std::vector<float> weights(static_cast<std::size_t>(element_count(target->shape)));
      if (!bytes || bytes->size() != sizeof numbers + weights.size() * sizeof(float)) return false;
      std::memcpy(numbers, bytes->data(), sizeof numbers);
      std::memcpy(weights.data(), bytes->data() + sizeof numbers, weights.size() * sizeof(float));
      const auto is_number = [](double v) { return std::abs(v) < 1e15; };
      if (!std::all_of(weights.begin(), weights.end(), is_number) || !std::all_of(numbers, numbers + kReportNumbers, is_number)) return false;
      if (method_.on_grid && !check_kept(*target, ctx_.quantized.quantizers.at(target->weight_site()), weights)) return false;
      RoundingReport r;
      r.before = numbers[0], r.after = numbers[1], r.retries = static_cast<int>(numbers[2]), r.dead = static_cast<std::int64_t>(numbers[3]);
      r.used = numbers[4], r.bounded = static_cast<std::int64_t>(numbers[5]), outer_bits = std::max(outer_bits, static_cast<int>(numbers[6]));
      found.emplace_back(r, std::move(weights));
    }
    for (std::size_t i = 0; i < targets.size(); ++i) take(*targets[i], found[i].first, found[i].second);
    outer_bits_ = std::max(outer_bits_, outer_bits);
    resumed_ += targets.size();
    return true;
  }

  static std::vector<float> matrix(const std::vector<float>& tensor, const quant::MatrixView& view) {
    std::vector<float> out;
    out.reserve(static_cast<std::size_t>(view.rows * view.columns));
    for (std::int64_t r = 0; r < view.rows; ++r)
      for (std::int64_t c = 0; c < view.columns; ++c) out.push_back(tensor[static_cast<std::size_t>(view.element(r, c))]);
    return out;
  }

  // The network quantizes its weights again: they must be values that the quantizer leaves alone.
  static Status check_kept(const Target& target, const quant::QuantParams& params, const std::vector<float>& values) {
    std::vector<float> again(values.size());
    quant::fake_quantize(params, params.layout, values.data(), again.data());
    for (std::size_t i = 0; i < values.size(); ++i)
      if (again[i] != values[i])
        return fail(ErrorCode::kUnsupported,
                    "The weight quantizer of '" + target.name + "' does not keep the values that it has made (" + describe(params.spec) + ").",
                    "Choose a format that rounds to nearest, with whole zero points and without decoupled scales, or leave the layer out.");
    return {};
  }

  Status store() {
    const ModelPtr before = ctx_.quantized.model;
    auto weights = std::make_shared<WeightStore>(*before->weights);
    for (const auto& [id, tensor] : results_) {
      const std::string& name = before->graph->tensor(id).name;
      const at::Tensor wide = tensor.to(at::kDouble).contiguous();
      const TensorData* old = weights->find(name);
      weights->set(name, make_data(old->type, old->shape, {wide.data_ptr<double>(), wide.data_ptr<double>() + wide.numel()}));
    }
    ctx_.quantized.model = std::make_shared<const Model>(Model{before->graph, weights, before->source});
    if (method_.on_grid) return {};
    for (const Target& target : targets_) {
      QUANVAS_CHECK(exec::rebuild_weight(*ctx_.quantized.model, target.layer, ctx_.quantized.quantizers));
    }
    // Of all layers: those that share a scale with one of these have a new one, too.
    for (const Layer& layer : find_layers(*ctx_.quantized.model->graph))
      if (layer.bias != kNoTensor) QUANVAS_CHECK(exec::rebuild_bias(*ctx_.quantized.model, layer, ctx_.quantized.quantizers));
    return {};
  }

  std::string note(const RoundingReport& r) const {
    std::string text = r.dead > 0 ? counted(r.dead, "input was 0 on all samples", "inputs were 0 on all samples") : "";
    if (r.retries > 0) text += (text.empty() ? "" : "; ") + std::string("damping 10^") + std::to_string(r.retries) + " times as asked";
    if (method_.accumulator.bits > 0) {
      char share[96];
      std::snprintf(share, sizeof share, "%.1f %% of the %d bit accumulator used", 100 * r.used, method_.accumulator.bits);
      text += (text.empty() ? "" : "; ") + std::string(share);
      if (r.bounded > 0) text += ", " + counted(r.bounded, "weight held back", "weights held back");
    }
    return text;
  }
  static std::string counted(std::int64_t n, const char* one, const char* more) { return std::to_string(n) + " " + (n == 1 ? one : more); }

  std::string summary(std::size_t wanted) const {
    double logs = 0;
    int measured = 0;
    std::int64_t dead = 0, damped = 0;
    const std::pair<std::string, RoundingReport>* worst = nullptr;
    const auto ratio = [](const RoundingReport& r) { return r.after / r.before; };
    for (const auto& entry : reports_) {
      const RoundingReport& r = entry.second;
      dead += r.dead;
      damped += r.retries > 0;
      if (!(r.before > 0) || !(r.after > 0)) continue;
      logs += std::log(ratio(r));
      ++measured;
      if (!worst || ratio(r) > ratio(worst->second)) worst = &entry;
    }
    std::string text = std::to_string(reports_.size()) + (reports_.size() == 1 ? " layer" : " layers") + " on " +
                       std::to_string(samples_.size()) + " samples";
    if (resumed_ > 0) text += ", " + std::to_string(resumed_) + " of them finished before a stop";
    if (samples_.size() < wanted) text += " (of " + std::to_string(wanted) + ", to bound the memory)";
    if (measured > 0) {
      char numbers[64];
      std::snprintf(numbers, sizeof numbers, ": %.3g of ", std::exp(logs / measured));
      text += numbers + method_.measure;
      std::snprintf(numbers, sizeof numbers, " (most %.3g, ", ratio(worst->second));
      text += (measured > 1 ? " on average" : "") + std::string(numbers) + worst->first + ")";
    }
    if (method_.accumulator.bits > 0) {
      double used = 0;
      for (const auto& entry : reports_) used = std::max(used, entry.second.used);
      char numbers[160];
      std::snprintf(numbers, sizeof numbers, "; no input overflows accumulators of %d bits (%.1f %% used at most)", method_.accumulator.bits, 100 * used);
      text += numbers;
      if (outer_bits_ > method_.accumulator.bits) text += ", nor those of their sums of " + std::to_string(outer_bits_);
    }
    if (dead > 0) text += "; " + counted(dead, "input was 0 on all samples", "inputs were 0 on all samples");
    if (damped > 0) text += "; " + counted(damped, "layer needed more damping", "layers needed more damping");
    return text + ".";
  }

  PassContext& ctx_;
  JobContext& job_;
  const Method& method_;
  const bool quantized_inputs_, both_;
  std::vector<Target> targets_;
  std::vector<std::int64_t> samples_;
  ModelPtr original_;
  std::optional<Front> quantized_, float_;
  Environment overrides_, none_;
  std::map<TensorId, at::Tensor> results_;
  int outer_bits_ = 0;  // of the sums of tiles, the most of all layers
  std::size_t resumed_ = 0;  // layers that a stopped run had finished
  std::vector<std::pair<std::string, RoundingReport>> reports_;
};

}  // namespace

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

namespace {

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

}  // namespace

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

std::vector<Issue> broken_bound(const PassQuestion& question, int own_bits) {
  const int bits = question.accumulator_bits;
  if (bits == 0 || (own_bits > 0 && own_bits <= bits)) return {};
  return {{Severity::kWarning, "", "It moves weights that a pass before it keeps within accumulators of " + std::to_string(bits) + " bits: that bound no longer holds.",
           "Put it before that pass, or give it the same accumulator where it has one."}};
}

bool wants_quantized(const json& options) { return options.value("inputs", "float") == "quantized"; }

namespace {

// What the walk will keep at once: activations between two layers, the moments of the layer with the most inputs and what is
// made of them. Empty: unknown.
std::vector<Issue> memory_note(const PassQuestion& question, const std::vector<Target>& targets, bool both) {
  if (question.samples <= 0) return {};
  const Target* largest = nullptr;
  std::int64_t moments = 0;
  for (const Target& target : targets) {
    const std::int64_t bytes = target.groups * target.n * target.n * (both ? 24 + 16 : 8 + 8);
    if (bytes > moments) moments = bytes, largest = &target;
  }
  if (!largest) return {};
  const std::int64_t networks = both ? 2 : 1, one = std::max<std::int64_t>(1, networks * live_bytes(*question.model.graph));
  const std::int64_t samples = std::min(question.samples, std::max<std::int64_t>(exec::kChunkSize, kMemory / one));
  const auto mega = [](std::int64_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g MB", static_cast<double>(bytes) / 1e6);
    return std::string(text);
  };
  return {{Severity::kInfo, "",
           "It will keep up to " + mega(samples * one) + " of activations (" + std::to_string(samples) + " samples) and " + mega(moments) +
               " of second moments ('" + largest->name + "', " + std::to_string(largest->n) + " inputs" +
               (largest->groups > 1 ? " in each of " + std::to_string(largest->groups) + " groups" : "") + ") in memory.",
           ""}};
}

}  // namespace

std::vector<Issue> check(const PassQuestion& question, const std::string& title, bool both, bool on_grid, const algorithms::AccumulatorOptions& accumulator) {
  const auto has_format = [&](const Site& site) {
    const SitePlan* plan = question.plan.find(site);
    return plan && plan->spec;
  };
  const Targets found = find_targets(question.model, question.nodes, has_format);
  std::vector<Issue> out = problems(*question.model.graph, question.calibration_data, found, title);
  for (Issue& issue : broken_bound(question, accumulator.bits)) out.push_back(std::move(issue));
  for (Issue& issue : memory_note(question, found.targets, both)) out.push_back(std::move(issue));
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

Result<std::string> run(PassContext& ctx, const json& options, JobContext& job, const Method& method) {
  // A recipe was asked before; passes since then may have changed the graph.
  for (const Issue& issue : problems(*ctx.quantized.model->graph, ctx.calibration_data != nullptr, find_targets(ctx), method.title))
    if (issue.severity == Severity::kError) return fail(ErrorCode::kInvalidArgument, method.title + ": " + issue.message, issue.hint);
  return guarded(method.title, [&]() -> Result<std::string> { return Walk(ctx, options, job, method).run(options); });
}

}  // namespace quanvas::rounding
