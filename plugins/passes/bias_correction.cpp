// Rounding weights shifts the mean of each output channel. The shift is measured on the calibration samples and
// taken from the bias (Nagel et al. 2019, section 4.2, the empirical form of appendix D), or, without data, computed from the batch
// normalizations before the layers (section 4.2.1).
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/exec/pass_context.h"
#include "core/exec/rebuild.h"
#include "core/graph/memory.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"
#include "plugins/passes/normalized_means.h"

namespace quanvas {
namespace {

using exec::Environment;
constexpr std::int64_t kMemory = std::int64_t{2} << 30;  // for the activations kept between layers

// A layer that gets a correction: where its output is measured and which initializer takes the correction.
struct Target {
  NodeId node = kNoNode;
  TensorId output = kNoTensor;  // ids of the graph with added biases
  TensorId bias = kNoTensor;
  bool channels_last = false;   // MatMul: channels are the last axis, else axis 1
  double factor = 1;            // Gemm adds beta * bias
};

// Sums per channel over the samples of one chunk.
struct ChannelSums {
  std::vector<double> sums;
  double count = 0;
};

ChannelSums channel_sums(const at::Tensor& y, bool channels_last) {
  const at::Tensor t = y.to(at::kCPU, at::kDouble);
  const at::Tensor rows = channels_last ? t.reshape({-1, t.size(-1)}) : t.transpose(1, -1).reshape({-1, t.size(1)});
  const at::Tensor s = rows.sum(0).contiguous();
  return {{s.data_ptr<double>(), s.data_ptr<double>() + s.numel()}, static_cast<double>(rows.size(0))};
}

void merge(ChannelSums& into, const ChannelSums& from) {
  if (into.sums.empty()) into.sums.assign(from.sums.size(), 0.0);
  for (std::size_t i = 0; i < from.sums.size(); ++i) into.sums[i] += from.sums[i];
  into.count += from.count;
}

at::Tensor per_channel(const std::vector<double>& values, const Target& target, const at::Tensor& like) {
  Shape shape(static_cast<std::size_t>(like.dim()), 1);
  shape[target.channels_last ? shape.size() - 1 : 1] = -1;
  return at::tensor(values, at::kDouble).to(like.scalar_type()).to(like.device()).reshape(shape);
}

// Adds zero biases to layers without one, so that the graph is final before anything is measured.
class BiasPlaces {
 public:
  explicit BiasPlaces(PassContext& ctx) : ctx_(ctx), edit_(*ctx.quantized.model) {}

  Result<std::vector<Target>> make(bool add_missing) {
    const Graph& before = *ctx_.quantized.model->graph;
    std::vector<std::pair<NodeId, std::string>> places;  // node, name of its bias
    for (const Layer& layer : find_layers(before)) {
      if (!ctx_.quantized.quantizers.count({layer.node, SiteKind::kWeight, 0})) continue;
      if (layer.kind != LayerKind::kCompute || !ctx_.may_change(layer.node)) continue;
      const std::string bias = place(before, layer, add_missing);
      if (!bias.empty()) places.emplace_back(layer.node, bias);
    }
    if (added_ > 0) {
      QUANVAS_TRY(ctx_.quantized.model, edit_.finish());
      add_bias_sites();
    }
    const Graph& graph = *ctx_.quantized.model->graph;
    std::vector<Target> targets;
    for (const auto& [id, bias] : places) {
      const Node* node = graph.find(id);
      targets.push_back({id, node->outputs[0], graph.tensor(bias), node->op == "MatMul",
                         node->op == "Gemm" ? static_cast<double>(node->real("beta", 1)) : 1.0});
    }
    return targets;
  }
  int added() const { return added_; }

 private:
  std::string place(const Graph& g, const Layer& layer, bool add_missing) {
    const Node& node = *g.find(layer.node);
    const TensorData* weight = initializer_data(*ctx_.quantized.model, layer.weight);
    if (!weight || weight->shape.size() < 2 || node.input(1) != layer.weight) return {};
    if (node.op == "MatMul" && weight->shape.size() != 2) return {};
    const std::int64_t channels = weight->shape[static_cast<std::size_t>(layer.channel_axis)] *
                                  (node.op == "ConvTranspose" ? layer.group : 1);
    if (layer.bias != kNoTensor) {
      const TensorInfo& bias = g.tensor(layer.bias);
      const bool own = bias.consumers.size() == 1 && bias.shape && element_count(*bias.shape) == channels &&
                       !(node.op == "Gemm" && node.real("beta", 1) == 0);
      return own ? bias.name : "";
    }
    if (node.input(2) != kNoTensor || !add_missing) return {};
    const std::string name = new_bias(node, *weight, channels);
    edit_.builder().replace_input_at(node.id, 2, name);
    if (node.op == "Gemm") edit_.builder().set_attribute(node.id, "beta", 1.0f);
    with_new_site_.push_back(node.id);
    return name;
  }

  std::string new_bias(const Node& node, const TensorData& weight, std::int64_t channels) {
    ++added_;
    return edit_.new_initializer(node.name + ".bias", weight.type, {channels},
                                 std::vector<double>(static_cast<std::size_t>(channels), 0.0));
  }

  // New biases follow the other biases of the plan: the same format, or float when those are float.
  void add_bias_sites() {
    QuantSpec spec;
    spec.bits = 32;
    spec.scale_from_accumulator = true;
    bool quantize = true;
    for (const SitePlan& p : ctx_.quantized.plan.sites)
      if (p.site.kind == SiteKind::kBias) {
        quantize = p.spec.has_value();
        if (p.spec) spec = *p.spec;
        if (p.spec) break;
      }
    for (const NodeId node : with_new_site_) {
      SitePlan plan{{node, SiteKind::kBias, 0}, std::nullopt, -1, "added by bias correction"};
      if (quantize) plan.spec = spec;
      auto& sites = ctx_.quantized.plan.sites;
      auto at = std::find_if(sites.begin(), sites.end(), [&](const SitePlan& p) { return p.site.node == node; });
      sites.insert(at == sites.end() ? at : at + 1, plan);
      if (quantize) ctx_.quantized.quantizers[plan.site].spec = spec;
    }
    const auto layers = find_layers(*ctx_.quantized.model->graph);
    for (const NodeId node : with_new_site_)
      if (const Layer* layer = find_layer(layers, node))
        if (!exec::rebuild_bias(*ctx_.quantized.model, *layer, ctx_.quantized.quantizers))
          ctx_.quantized.quantizers.erase({node, SiteKind::kBias, 0});
  }

  PassContext& ctx_;
  ModelEdit edit_;
  int added_ = 0;
  std::vector<NodeId> with_new_site_;
};

class Correction {
 public:
  Correction(PassContext& ctx, bool propagated, JobContext& job) : ctx_(ctx), propagated_(propagated), job_(job) {}

  Result<std::string> run(std::int64_t samples, bool add_missing) {
    BiasPlaces places(ctx_);
    QUANVAS_TRY(targets_, places.make(add_missing));
    if (targets_.empty()) return std::string("No layer with a quantized weight has a bias to correct.");
    const std::size_t wanted = choose(samples);
    const ModelPtr& model = ctx_.quantized.model;
    QUANVAS_TRY(float_, exec::Runner::create(original_model(ctx_), nullptr, ctx_.device));
    QUANVAS_TRY(quantized_, exec::Runner::create(model, &ctx_.quantized.quantizers, ctx_.device));
    overrides_.resize(model->graph->tensors().size());
    QUANVAS_CHECK(propagated_ ? propagate() : isolate());
    store();
    std::string text = "Corrected " + std::to_string(targets_.size()) + (targets_.size() == 1 ? " layer on " : " layers on ") + std::to_string(samples_.size()) +
                       " samples";
    if (samples_.size() < wanted) text += " (of " + std::to_string(wanted) + ", to bound the memory)";
    if (places.added() > 0) text += "; " + std::to_string(places.added()) + " of them got a bias";
    char number[48];
    std::snprintf(number, sizeof number, "; largest shift %.3g", largest_);
    return text + number + ".";
  }

  // Without data: the shift is the weights' rounding times the mean of the input that a batch normalization states.
  Result<std::string> run_analytic(bool add_missing) {
    const ModelPtr before = original_model(ctx_);
    std::vector<std::string> left;
    std::set<NodeId> chosen;
    std::map<NodeId, ChannelSums> shifts;
    QUANVAS_TRY(quantized_, exec::Runner::create(ctx_.quantized.model, &ctx_.quantized.quantizers, ctx_.device));
    for (const Layer& layer : find_layers(*ctx_.quantized.model->graph)) {
      QUANVAS_CHECK(job_.check());
      if (layer.kind != LayerKind::kCompute || !ctx_.may_change(layer.node) || !ctx_.quantized.quantizers.count({layer.node, SiteKind::kWeight, 0})) continue;
      const std::string& name = ctx_.quantized.model->graph->find(layer.node)->name;
      const std::string why = analytic_shift(*before, layer, shifts[layer.node]);
      if (why.empty()) chosen.insert(layer.node);
      else left.push_back("'" + name + "' (" + why + ")"), ctx_.layers.push_back({name, std::nan(""), std::nan(""), "left as it is: " + why});
    }
    if (!chosen.empty()) {
      const std::set<NodeId> wanted = std::exchange(ctx_.nodes, chosen);  // no biases for the others
      BiasPlaces places(ctx_);
      auto made = places.make(add_missing);
      ctx_.nodes = wanted;
      if (!made) return Failure(made.error());
      targets_ = std::move(*made);
      QUANVAS_TRY(quantized_, exec::Runner::create(ctx_.quantized.model, &ctx_.quantized.quantizers, ctx_.device));
      overrides_.resize(ctx_.quantized.model->graph->tensors().size());
      for (const Target& target : targets_) {
        const ChannelSums& shift = shifts.at(target.node);
        correct(target, shift, {std::vector<double>(shift.sums.size(), 0.0), 1});
      }
      store();
    }
    std::string text = "Corrected " + std::to_string(targets_.size()) + (targets_.size() == 1 ? " layer" : " layers") + " from batch normalizations";
    char number[48];
    std::snprintf(number, sizeof number, "; largest shift %.3g", largest_);
    return text + number + (left.empty() ? "." : "; left: " + join_some(left) + ".");
  }

 private:
  // - (Q(W) - W) E[x] for each output channel; else why not.
  std::string analytic_shift(const Model& original, const Layer& layer, ChannelSums& out) const {
    const Node& node = *ctx_.quantized.model->graph->find(layer.node);
    if (node.op != "Conv" && node.op != "Gemm" && node.op != "MatMul") return node.op + " is no convolution and no product with one weight";
    const TensorData* data = initializer_data(original, layer.weight);
    if (!data || node.input(1) != layer.weight || data->shape.size() < 2 || (node.op != "Conv" && data->shape.size() != 2))
      return "its weight is not the second operand, with data in the file";
    if (node.op == "Gemm" && node.integer("transA", 0) != 0) return "its input is transposed";
    const NormalizedMeans means = normalized_means(original, node.input(0));
    if (!means.why.empty()) return means.why;
    const at::Tensor w = exec::to_tensor(*data).to(at::kDouble);
    const at::Tensor q = quantized_->weights()[static_cast<std::size_t>(node.input(1))].to(at::kCPU, at::kDouble);
    at::Tensor error = q - w;  // [outputs, inputs of a group]
    const bool last = node.op == "MatMul" || (node.op == "Gemm" && node.integer("transB", 0) == 0);
    if (last) error = error.t();
    else if (node.op == "Conv") {
      const auto parts = inside_parts(*ctx_.quantized.model->graph, node, Shape(data->shape.begin() + 2, data->shape.end()));
      error = (error.flatten(2) * at::tensor(parts, at::kDouble)).sum(2);
    }
    const std::int64_t outputs = error.size(0), inputs = error.size(1), groups = node.op == "Conv" ? node.integer("group", 1) : 1;
    if (groups < 1 || inputs * groups != static_cast<std::int64_t>(means.means.size()))
      return "it reads " + std::to_string(inputs * groups) + " channels, the batch normalization makes " + std::to_string(means.means.size());
    const double alpha = node.op == "Gemm" ? static_cast<double>(node.real("alpha", 1)) : 1.0;
    const at::Tensor contiguous = error.contiguous();
    const double* e = contiguous.data_ptr<double>();
    out.count = 1;
    for (std::int64_t o = 0; o < outputs; ++o) {
      const std::int64_t first = o / std::max<std::int64_t>(1, outputs / groups) * inputs;
      double sum = 0;
      for (std::int64_t i = 0; i < inputs; ++i) sum -= e[o * inputs + i] * means.means[static_cast<std::size_t>(first + i)];
      out.sums.push_back(alpha * sum);
    }
    return {};
  }

  std::size_t choose(std::int64_t samples) {
    samples_ = ctx_.calibration_samples;
    if (samples_.empty()) samples_ = choose_samples(ctx_.calibration_data->size(), 0, 0);
    if (samples > 0 && static_cast<std::int64_t>(samples_.size()) > samples) samples_.resize(static_cast<std::size_t>(samples));
    const std::size_t wanted = samples_.size();
    const std::int64_t fits = std::max<std::int64_t>(exec::kChunkSize, kMemory / live_bytes(*ctx_.quantized.model->graph));
    if (propagated_ && static_cast<std::int64_t>(wanted) > fits) samples_.resize(static_cast<std::size_t>(fits));
    return wanted;
  }

  exec::RunHooks hooks(NodeId measured) const {
    exec::RunHooks h;
    h.weights = &overrides_;
    // The measured layer's own output quantizer would add its rounding to the mean.
    h.quantize = [this, measured](const Site& site, const at::Tensor& x) {
      if (site.kind == SiteKind::kOutput && site.node == measured) return x;
      const auto it = ctx_.quantized.quantizers.find(site);
      return it == ctx_.quantized.quantizers.end() ? x : exec::fake_quantize(x, it->second);
    };
    return h;
  }

  // Means of the float outputs of all targets, in one walk over the samples.
  Result<std::vector<ChannelSums>> float_means() {
    std::vector<ChannelSums> totals(targets_.size());
    QUANVAS_CHECK(exec::for_each_chunk<std::vector<ChannelSums>>(
        *ctx_.calibration_data, samples_, ctx_.device, job_, "bias correction: float means",
        [&](exec::Chunk& chunk) -> Result<std::vector<ChannelSums>> {
          std::vector<ChannelSums> sums(targets_.size());
          exec::RunHooks h;
          h.tap = [&](TensorId id, const at::Tensor& t) {
            for (std::size_t i = 0; i < targets_.size(); ++i)
              if (targets_[i].output == id) sums[i] = channel_sums(t, targets_[i].channels_last);
          };
          QUANVAS_CHECK(float_->run({chunk.input}, h));
          return sums;
        },
        [&](std::int64_t, std::vector<ChannelSums>& sums) -> Status {
          for (std::size_t i = 0; i < sums.size(); ++i) merge(totals[i], sums[i]);
          return {};
        }));
    return totals;
  }

  // Each layer on the float network's inputs: one walk, layers do not see each other's correction.
  Status isolate() {
    std::vector<ChannelSums> reference(targets_.size()), actual(targets_.size());
    struct Pair {
      std::vector<ChannelSums> reference, actual;
    };
    QUANVAS_CHECK(exec::for_each_chunk<Pair>(
        *ctx_.calibration_data, samples_, ctx_.device, job_, "bias correction",
        [&](exec::Chunk& chunk) -> Result<Pair> {
          QUANVAS_TRY(const Environment env, float_->run_all({chunk.input}));
          Pair p;
          for (const Target& t : targets_) {
            p.reference.push_back(channel_sums(env[static_cast<std::size_t>(t.output)], t.channels_last));
            Environment copy = env;
            QUANVAS_CHECK(quantized_->run_nodes({t.node}, copy, hooks(t.node)));
            p.actual.push_back(channel_sums(copy[static_cast<std::size_t>(t.output)], t.channels_last));
          }
          return p;
        },
        [&](std::int64_t, Pair& p) -> Status {
          for (std::size_t i = 0; i < targets_.size(); ++i) {
            merge(reference[i], p.reference[i]);
            merge(actual[i], p.actual[i]);
          }
          return {};
        }));
    for (std::size_t i = 0; i < targets_.size(); ++i) correct(targets_[i], reference[i], actual[i]);
    return {};
  }

  // Layer after layer on what the quantized network really feeds it. The activations of all samples advance
  // together from layer to layer, so each node runs once.
  Status propagate() {
    job_.progress("bias correction: float means", 0);
    QUANVAS_TRY(const std::vector<ChannelSums> reference, float_means());
    const Graph& graph = *ctx_.quantized.model->graph;
    const auto chunks = (static_cast<std::int64_t>(samples_.size()) + exec::kChunkSize - 1) / exec::kChunkSize;
    std::vector<Environment> envs(static_cast<std::size_t>(chunks));
    std::size_t begin = 0;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      const std::size_t end = graph.position(targets_[i].node) + 1;
      std::vector<NodeId> nodes;
      for (std::size_t n = begin; n < end; ++n) nodes.push_back(graph.nodes()[n].id);
      ChannelSums actual;
      QUANVAS_CHECK(advance(envs, nodes, targets_[i], begin == 0, actual));
      const std::vector<double> shift = correct(targets_[i], reference[i], actual);
      finish_output(envs, targets_[i], shift);
      drop_dead(envs, end);
      begin = end;
      job_.progress("bias correction", static_cast<double>(i + 1) / static_cast<double>(targets_.size()),
                    graph.find(targets_[i].node)->name);
    }
    return {};
  }

  Status advance(std::vector<Environment>& envs, const std::vector<NodeId>& nodes, const Target& target, bool first,
                 ChannelSums& total) {
    JobContext quiet(job_.stop_token());
    return exec::parallel_ordered(
        static_cast<std::int64_t>(envs.size()), quiet, true,
        [&](std::int64_t c) -> Result<std::shared_ptr<void>> {
          Environment& env = envs[static_cast<std::size_t>(c)];
          if (first) QUANVAS_CHECK(load(env, c));
          QUANVAS_CHECK(quantized_->run_nodes(nodes, env, hooks(target.node)));
          return std::shared_ptr<void>(std::make_shared<ChannelSums>(
              channel_sums(env[static_cast<std::size_t>(target.output)], target.channels_last)));
        },
        [&](std::int64_t, void* sums) -> Status {
          merge(total, *static_cast<ChannelSums*>(sums));
          return {};
        });
  }

  Status load(Environment& env, std::int64_t c) {
    const Graph& graph = *ctx_.quantized.model->graph;
    const auto begin = samples_.begin() + c * exec::kChunkSize;
    const auto end = samples_.begin() + std::min<std::int64_t>(static_cast<std::int64_t>(samples_.size()), (c + 1) * exec::kChunkSize);
    QUANVAS_TRY(exec::Chunk chunk, exec::read_chunk(*ctx_.calibration_data, {begin, end}, c, ctx_.device));
    env.resize(graph.tensors().size());
    env[static_cast<std::size_t>(graph.inputs()[0])] = chunk.input;
    return {};
  }

  // The correction also goes into the outputs that are already there; then their quantizer, if any.
  void finish_output(std::vector<Environment>& envs, const Target& target, const std::vector<double>& shift) {
    const auto q = ctx_.quantized.quantizers.find({target.node, SiteKind::kOutput, 0});
    for (Environment& env : envs) {
      at::Tensor& y = env[static_cast<std::size_t>(target.output)];
      y = y + per_channel(shift, target, y);
      if (q != ctx_.quantized.quantizers.end()) y = exec::fake_quantize(y, q->second);
    }
  }

  void drop_dead(std::vector<Environment>& envs, std::size_t done) const {
    const Graph& graph = *ctx_.quantized.model->graph;
    for (std::size_t id = 0; id < graph.tensors().size(); ++id) {
      const auto& consumers = graph.tensors()[id].consumers;
      if (!consumers.empty() && graph.position(consumers.back()) >= done) continue;
      for (Environment& env : envs) env[id].reset();
    }
  }

  // Sets the new bias; returns by how much the output really moves (the bias has its own quantizer).
  std::vector<double> correct(const Target& target, const ChannelSums& reference, const ChannelSums& actual) {
    const auto id = static_cast<std::size_t>(target.bias);
    // As the network has added it: the rounding of the bias so far is part of what was measured.
    const at::Tensor old = quantized_->weights()[id].to(at::kCPU, at::kDouble).reshape({-1});
    const auto n = static_cast<std::size_t>(old.numel());
    std::vector<double> moved(n, 0.0);
    at::Tensor fresh = old.clone();
    for (std::size_t c = 0; c < n && c < reference.sums.size(); ++c) {
      const double shift = reference.sums[c] / reference.count - actual.sums[c] / actual.count;
      if (!std::isfinite(shift)) continue;
      largest_ = std::max(largest_, std::abs(shift));
      fresh.data_ptr<double>()[c] += shift / target.factor;
    }
    const at::Tensor& like = quantized_->weights()[id];
    const at::Tensor master = fresh.to(at::kFloat).reshape(like.sizes());
    biases_[target.bias] = master;
    const auto q = ctx_.quantized.quantizers.find({target.node, SiteKind::kBias, 0});
    const bool has = q != ctx_.quantized.quantizers.end();
    at::Tensor after = master;
    if (has && q->second.spec.scale_from_accumulator) after = exec::fake_quantize(master, q->second);
    overrides_[id] = after.to(like.device());
    const at::Tensor delta = (after.to(at::kDouble).reshape({-1}) - old) * target.factor;
    for (std::size_t c = 0; c < n; ++c) moved[c] = delta.contiguous().data_ptr<double>()[c];
    return moved;
  }

  void store() {
    const ModelPtr before = ctx_.quantized.model;
    auto weights = std::make_shared<WeightStore>(*before->weights);
    for (const auto& [id, tensor] : biases_) {
      const std::string& name = before->graph->tensor(id).name;
      const at::Tensor wide = tensor.to(at::kDouble).contiguous();
      const TensorData* old = weights->find(name);
      weights->set(name, make_data(old->type, old->shape, {wide.data_ptr<double>(), wide.data_ptr<double>() + wide.numel()}));
    }
    ctx_.quantized.model = std::make_shared<const Model>(Model{before->graph, weights, before->source});
    const auto layers = find_layers(*before->graph);
    for (const Target& t : targets_)
      if (const Layer* layer = find_layer(layers, t.node))
        if (auto done = exec::rebuild_bias(*ctx_.quantized.model, *layer, ctx_.quantized.quantizers); !done)
          job_.issue({Severity::kWarning, before->graph->find(t.node)->name, done.error().text(), ""});
  }

  PassContext& ctx_;
  const bool propagated_;
  JobContext& job_;
  std::vector<Target> targets_;
  std::vector<std::int64_t> samples_;
  std::shared_ptr<const exec::Runner> float_, quantized_;
  Environment overrides_;
  std::map<TensorId, at::Tensor> biases_;
  double largest_ = 0;
};

class BiasCorrection final : public Pass {
 public:
  PluginInfo info() const override {
    return {"bias-correction", "Bias correction",
            "Takes the mean shift that quantization causes at each output channel from the bias, measured or from batch "
            "normalizations without data (Nagel et al. 2019, Data-free quantization, section 4.2)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    return {{
        choice_field("method", "Method", "Where the shift is known from.", "empirical",
                     {{"empirical", "Measured", "On the calibration samples."},
                      {"analytic", "From batch normalizations",
                       "Without data: mean and deviation of a layer's input are those of the batch normalization before it, through ReLU and Clip "
                       "(Nagel et al. 2019, section 4.2.1), folded into one layer or not."}}),
        choice_field("inputs", "Inputs", "What the layers are measured on.", "quantized",
                     {{"quantized", "Quantized network", "Layer after layer; later layers also correct what earlier ones left."},
                      {"float", "Float network", "Each layer for itself on float inputs."}}),
        bool_field("add_bias", "Add missing biases", "Layers without a bias get one, else they are skipped.", true),
        integer_field("samples", "Samples", "Of the calibration samples; 0: all.", 0, 0, 1e9, "samples"),
    }};
  }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    if (options["method"] == "analytic")
      return guarded("bias correction", [&] { return Correction(ctx, false, job).run_analytic(options["add_bias"]); });
    if (!ctx.calibration_data)
      return fail(ErrorCode::kInvalidArgument, "Bias correction needs calibration data, and none are declared.",
                  "Declare calibration data, or switch the pass 'bias-correction' off.");
    if (ctx.quantized.model->graph->inputs().size() != 1)
      return fail(ErrorCode::kUnsupported, "Bias correction feeds one input; the model has " +
                                               std::to_string(ctx.quantized.model->graph->inputs().size()) + ".");
    return guarded("bias correction", [&]() -> Result<std::string> {
      Correction correction(ctx, options["inputs"] == "quantized", job);
      return correction.run(options["samples"], options["add_bias"]);
    });
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, BiasCorrection)

}  // namespace quanvas
