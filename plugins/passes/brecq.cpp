// Learns the rounding of the weights of whole blocks on what they give (Li et al. 2021).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <ATen/ATen.h>

#include "core/algorithms/learned.h"
#include "core/base/guarded.h"
#include "core/exec/reconstruct.h"
#include "core/exec/train.h"
#include "core/graph/memory.h"
#include "core/plugin/registry.h"
#include "plugins/passes/blocks.h"
#include "plugins/passes/edit.h"
#include "plugins/passes/finished_part.h"
#include "plugins/passes/front.h"
#include "plugins/passes/rounding_checks.h"

namespace quanvas {
namespace {

using exec::Environment;
using rounding::BlockRange;
using rounding::Front;
using rounding::Target;

constexpr const char* kTitle = "Block reconstruction";

enum class Importance { kNone, kPrediction, kLabels };

struct Options {
  exec::ReconstructOptions learn;
  Importance importance = Importance::kNone;
  std::int64_t layers = 3, batch = 32, samples = 0;
};

Options read(const json& o) {
  Options out;
  out.learn.gates = o["method"] == "adaround";
  out.learn.iterations = o["iterations"];
  if (out.learn.iterations == 0) out.learn.iterations = out.learn.gates ? 1000 : 200;
  out.learn.rate = o["rate"];
  out.learn.regularization = o["regularization"];
  out.learn.warm_up = o["warm_up"];
  out.learn.mix = o["mix"];
  out.learn.seed = static_cast<std::uint64_t>(o["seed"].get<std::int64_t>());
  out.importance = o["importance"] == "labels"       ? Importance::kLabels
                   : o["importance"] == "prediction" ? Importance::kPrediction
                                                     : Importance::kNone;
  out.layers = o["layers"];
  out.batch = o["batch"];
  out.samples = o["samples"];
  return out;
}

class Blocks {
 public:
  Blocks(PassContext& ctx, const Options& options, JobContext& job) : ctx_(ctx), o_(options), job_(job) {}

  Result<std::string> run() {
    rounding::Targets found = rounding::find_targets(ctx_);
    targets_ = std::move(found.targets);
    const Graph& graph = *ctx_.quantized.model->graph;
    original_ = original_model(ctx_);
    const std::size_t wanted = choose();
    const std::int64_t piece = std::max<std::int64_t>(1, o_.batch / 2);
    QUANVAS_TRY(auto quantized,
                exec::Runner::create(ctx_.quantized.model, &ctx_.quantized.quantizers, ctx_.device));
    QUANVAS_TRY(auto exact, exec::Runner::create(original_, nullptr, ctx_.device));
    quantized_.emplace(std::move(quantized), ctx_, samples_, piece, true);
    float_.emplace(std::move(exact), ctx_, samples_, piece, true);
    overrides_.resize(graph.tensors().size());
    const std::vector<BlockRange> blocks = rounding::find_blocks(graph, o_.layers);
    std::size_t done = 0;
    for (const BlockRange& block : blocks) {
      QUANVAS_CHECK(job_.check());
      std::vector<const Target*> targets;
      for (const Target& target : targets_)
        if (const std::size_t p = graph.position(target.layer.node); p >= block.begin && p < block.end)
          targets.push_back(&target);
      if (!targets.empty() && !take_finished(targets)) {
        const Status status = learn(block, targets);
        if (!status && status.error().code != ErrorCode::kCancelled) {
          Error error = status.error();
          if (error.context.empty()) error.context = "block of '" + targets[0]->name + "'";
          return Failure(error);
        }
        QUANVAS_CHECK(status);
      }
      done += targets.size();
      job_.progress(kTitle, static_cast<double>(done) / static_cast<double>(targets_.size()),
                    targets.empty() ? "" : targets.back()->name + ", " + megabytes());
    }
    ctx_.quantized.model = rounding::with_weights(ctx_.quantized.model, results_);
    ctx_.measure = std::string("squared error of the block's output for each sample") +
                   (weighted_ ? ", by importance" : "") + ": rounded to nearest, now";
    for (const auto& [name, why] : found.left)
      ctx_.layers.push_back({name, std::nan(""), std::nan(""), "left as it is: " + why});
    return summary(wanted);
  }

 private:
  std::size_t choose() {
    samples_ = ctx_.calibration_samples;
    if (samples_.empty()) samples_ = choose_samples(ctx_.calibration_data->size(), 0, 0);
    if (o_.samples > 0 && static_cast<std::int64_t>(samples_.size()) > o_.samples)
      samples_.resize(static_cast<std::size_t>(o_.samples));
    const std::size_t wanted = samples_.size();
    // Of both networks, and the weights of the squares.
    const std::int64_t fits =
        std::max<std::int64_t>(o_.batch, rounding::kKeptActivations / 3 / live_bytes(*ctx_.quantized.model->graph));
    if (static_cast<std::int64_t>(wanted) > fits) samples_.resize(static_cast<std::size_t>(fits));
    return wanted;
  }
  std::string megabytes() const {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f MiB of activations kept", bytes_ / 1048576);
    return text;
  }

  Status learn(const BlockRange& range, const std::vector<const Target*>& targets) {
    const Graph& graph = *ctx_.quantized.model->graph;
    QUANVAS_CHECK(quantized_->advance(range.begin, overrides_, job_));
    QUANVAS_CHECK(float_->advance(range.begin, none_, job_));
    exec::Block block;
    for (std::size_t p = range.begin; p < range.end; ++p) block.nodes.push_back(graph.nodes()[p].id);
    for (const TensorId id : range.outputs)
      if (graph.tensor(id).type == DataType::kFloat || graph.tensor(id).type == DataType::kUndefined)
        block.outputs.push_back(id);
    if (block.outputs.empty()) return leave(targets, "the block has no output of real numbers");
    for (std::size_t c = 0; c < quantized_->chunks(); ++c) {
      exec::BlockPiece piece;
      piece.samples = quantized_->samples_in(c);
      for (const TensorId id : range.inputs) {
        piece.inputs.emplace_back(id, quantized_->tensor(c, id));
        if (o_.learn.mix > 0) piece.float_inputs.push_back(float_->tensor(c, id));
        if (!piece.inputs.back().second.defined())
          return leave(targets, "'" + graph.tensor(id).name + "' is no tensor");
      }
      block.pieces.push_back(std::move(piece));
    }
    QUANVAS_CHECK(float_->advance(range.end, none_, job_));
    for (std::size_t c = 0; c < block.pieces.size(); ++c)
      for (const TensorId id : block.outputs) block.pieces[c].targets.push_back(float_->tensor(c, id));
    if (o_.importance != Importance::kNone) QUANVAS_CHECK(find_importance(range, block));
    count_bytes(block);
    std::vector<exec::BlockWeight> weights;
    for (const Target* target : targets) {
      QUANVAS_TRY(exec::BlockWeight w, weight_of(*target));
      weights.push_back(std::move(w));
    }
    QUANVAS_TRY(const exec::ReconstructReport report,
                exec::reconstruct(quantized_->runner(), ctx_.quantized.quantizers, block, weights, o_.learn, job_));
    std::vector<std::vector<float>> values;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const at::Tensor result = weights[i].result.contiguous();
      values.emplace_back(result.data_ptr<float>(), result.data_ptr<float>() + result.numel());
      QUANVAS_CHECK(rounding::check_kept(targets[i]->name, ctx_.quantized.quantizers.at(targets[i]->weight_site()), values.back()));
    }
    if (ctx_.finish_part)
      ctx_.finish_part(part_name(targets), rounding::pack_part({report.nearest, report.after, static_cast<double>(report.changed), report.undecided,
                                                                static_cast<double>(weighted_)}, values));
    take(targets, report, values);
    return {};
  }

  static std::string part_name(const std::vector<const Target*>& targets) { return "block of " + targets[0]->name; }

  void take(const std::vector<const Target*>& targets, const exec::ReconstructReport& report, const std::vector<std::vector<float>>& values) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const at::Tensor tensor = at::tensor(values[i], at::kFloat).reshape(targets[i]->shape);
      overrides_[static_cast<std::size_t>(targets[i]->layer.weight)] = tensor.to(ctx_.device);
      results_[targets[i]->layer.weight] = tensor;
    }
    ctx_.layers.push_back({targets.back()->name, report.nearest, report.after, note(targets, report)});
    ++blocks_;
    if (report.nearest > 0 && report.after > 0) logs_ += std::log(report.after / report.nearest), ++measured_;
  }

  // Whether a run that was stopped has finished this block, with values that the quantizers keep. Then it is taken.
  bool take_finished(const std::vector<const Target*>& targets) {
    const auto bytes = ctx_.finished_part ? ctx_.finished_part(part_name(targets)) : std::nullopt;
    std::vector<double> numbers(5);
    std::vector<std::vector<float>> values;
    for (const Target* target : targets) values.emplace_back(static_cast<std::size_t>(element_count(target->shape)));
    if (!bytes || !rounding::unpack_part(*bytes, numbers, values)) return false;
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (!rounding::check_kept(targets[i]->name, ctx_.quantized.quantizers.at(targets[i]->weight_site()), values[i])) return false;
    exec::ReconstructReport report;
    report.nearest = numbers[0], report.after = numbers[1], report.undecided = numbers[3];
    report.changed = static_cast<std::int64_t>(numbers[2]);
    weighted_ = static_cast<decltype(weighted_)>(numbers[4]);
    take(targets, report, values);
    ++resumed_;
    return true;
  }

  Status leave(const std::vector<const Target*>& targets, const std::string& why) {
    for (const Target* target : targets)
      ctx_.layers.push_back({target->name, std::nan(""), std::nan(""), "left as it is: " + why});
    return {};
  }

  // A weight with the two values of its grid that each element has.
  Result<exec::BlockWeight> weight_of(const Target& target) const {
    const Graph& graph = *ctx_.quantized.model->graph;
    const std::string& name = graph.tensor(target.layer.weight).name;
    const quant::QuantParams& params = ctx_.quantized.quantizers.at(target.weight_site());
    const std::vector<float> now = ctx_.quantized.model->weights->find(name)->to_floats(),
                             before = original_->weights->find(name)->to_floats();
    exec::BlockWeight w;
    w.id = target.layer.weight;
    const auto tensor = [&](const std::vector<float>& v) {
      return at::tensor(v, at::kFloat).reshape(target.shape);
    };
    const auto rounded = [&](const std::vector<float>& v) {
      std::vector<float> q(v.size());
      quant::fake_quantize(params, params.layout, v.data(), q.data());
      return q;
    };
    w.original = tensor(before), w.start = tensor(rounded(now)), w.nearest = tensor(rounded(before));
    for (auto* part : {&w.lower, &w.upper, &w.h}) part->resize(now.size());
    for (std::int64_t g = 0; g < target.groups; ++g) {
      const quant::MatrixView view = target.view(g);
      QUANVAS_TRY(const auto quantizer, quant::ColumnQuantizer::create(params, view));
      const std::vector<float> own = rounding::matrix(now, view), aim = rounding::matrix(before, view);
      QUANVAS_TRY(const algorithms::Gates gates,
                  algorithms::gates_of(target.m, target.n, aim.data(), own.data(), quantizer));
      for (std::int64_t r = 0; r < view.rows; ++r)
        for (std::int64_t c = 0; c < view.columns; ++c) {
          const auto to = static_cast<std::size_t>(view.element(r, c)),
                     from = static_cast<std::size_t>(r * view.columns + c);
          w.lower[to] = gates.lower[from], w.upper[to] = gates.upper[from], w.h[to] = gates.h[from];
        }
    }
    // The grid's own bits: lower + gap may be a rounding beside them.
    w.lower = rounded(w.lower);
    w.upper = rounded(w.upper);
    return w;
  }

  // Squares of the gradient of the loss with respect to what the block gives (a diagonal of the Fisher matrix, eq.
  // 10), of mean 1.
  Status find_importance(const BlockRange& range, exec::Block& block) {
    const Graph& graph = *ctx_.quantized.model->graph;
    const TensorId logits = exec::logits_of(graph);
    std::vector<NodeId> rest;
    for (std::size_t p = range.end; p <= graph.position(graph.tensor(logits).producer) && p < graph.nodes().size();
         ++p)
      rest.push_back(graph.nodes()[p].id);
    JobContext quiet(job_.stop_token());
    bool usable = true;
    std::vector<double> sums(block.outputs.size()), counts(sums.size());
    QUANVAS_CHECK(exec::parallel_ordered(
        static_cast<std::int64_t>(block.pieces.size()), quiet, false,
        [&](std::int64_t c) -> Result<std::shared_ptr<void>> {
          const auto i = static_cast<std::size_t>(c);
          Environment env = float_->environment(i);
          std::vector<at::Tensor> leaves;
          for (const TensorId id : block.outputs)
            leaves.push_back(env[static_cast<std::size_t>(id)] =
                                 env[static_cast<std::size_t>(id)].detach().requires_grad_(true));
          QUANVAS_CHECK(float_->runner().run_nodes(rest, env));
          const at::Tensor loss = loss_of(env[static_cast<std::size_t>(logits)], float_->labels(i));
          auto out = std::make_shared<std::vector<at::Tensor>>();
          if (!loss.defined() || !loss.requires_grad()) return std::shared_ptr<void>(out);
          loss.backward();
          for (const at::Tensor& leaf : leaves)
            out->push_back(leaf.grad().defined() ? leaf.grad().pow(2).detach() : at::zeros_like(leaf).detach());
          return std::shared_ptr<void>(out);
        },
        [&](std::int64_t c, void* squares) -> Status {
          auto& own = *static_cast<std::vector<at::Tensor>*>(squares);
          usable = usable && !own.empty();
          for (std::size_t i = 0; i < own.size(); ++i) {
            sums[i] += own[i].sum(at::kDouble).item().toDouble();
            counts[i] += static_cast<double>(own[i].numel());
          }
          block.pieces[static_cast<std::size_t>(c)].weights = std::move(own);
          return {};
        }));
    for (std::size_t i = 0; i < sums.size(); ++i) usable = usable && sums[i] > 0 && std::isfinite(sums[i]);
    for (exec::BlockPiece& piece : block.pieces) {
      if (!usable) piece.weights.clear();
      for (std::size_t i = 0; i < piece.weights.size(); ++i)
        piece.weights[i] = piece.weights[i] * (counts[i] / sums[i]);
    }
    weighted_ += usable;
    return {};
  }
  // Cross-entropy against the labels, or the classes that the network itself finds; undefined where there are no
  // classes.
  at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& labels) const {
    if (!logits.defined() || !logits.is_floating_point() || logits.dim() < 2 || logits.dim() > 3 ||
        logits.size(-1) < 2)
      return {};
    const at::Tensor rows = logits.reshape({-1, logits.size(-1)});
    at::Tensor classes = rows.argmax(1).detach();
    if (o_.importance == Importance::kLabels && labels.defined() && labels.numel() == rows.size(0) &&
        labels.min().item().toLong() >= 0 && labels.max().item().toLong() < rows.size(1))
      classes = labels;
    return at::cross_entropy_loss(rows, classes, {}, at::Reduction::Sum);
  }

  void count_bytes(const exec::Block& block) {
    double sum = 0;
    for (const exec::BlockPiece& p : block.pieces) {
      for (const auto& [id, x] : p.inputs) sum += static_cast<double>(x.nbytes());
      for (const auto* tensors : {&p.float_inputs, &p.targets, &p.weights})
        for (const at::Tensor& x : *tensors) sum += x.defined() ? static_cast<double>(x.nbytes()) : 0;
    }
    bytes_ = std::max(bytes_, sum);
  }

  static std::string note(const std::vector<const Target*>& targets, const exec::ReconstructReport& r) {
    std::vector<std::string> names;
    for (const Target* target : targets) names.push_back(target->name);
    char text[96];
    std::snprintf(text, sizeof text, "; %lld weights moved, %.2g %% undecided", static_cast<long long>(r.changed),
                  100 * r.undecided);
    return (names.size() == 1 ? "alone" : "together: " + join_some(names, 8)) + text;
  }

  std::string summary(std::size_t wanted) const {
    std::string text = std::to_string(results_.size()) + (results_.size() == 1 ? " layer" : " layers") + " in " +
                       std::to_string(blocks_) + (blocks_ == 1 ? " block" : " blocks") + " on " +
                       std::to_string(samples_.size()) + " samples";
    if (resumed_ > 0) text += ", " + std::to_string(resumed_) + " of them finished before a stop";
    if (samples_.size() < wanted) text += " (of " + std::to_string(wanted) + ", to bound the memory)";
    char number[64];
    std::snprintf(number, sizeof number, ": %.3g of the blocks' error rounded to nearest",
                  measured_ > 0 ? std::exp(logs_ / measured_) : 1.0);
    text += number + std::string(measured_ > 1 ? " on average; " : "; ") + megabytes();
    if (o_.importance != Importance::kNone && weighted_ == 0)
      text += "; without importance, for the network's output is no scores of classes";
    return text + ".";
  }

  PassContext& ctx_;
  const Options& o_;
  JobContext& job_;
  std::vector<Target> targets_;
  std::vector<std::int64_t> samples_;
  ModelPtr original_;
  std::optional<Front> quantized_, float_;
  Environment overrides_, none_;
  std::map<TensorId, at::Tensor> results_;
  double bytes_ = 0, logs_ = 0;
  int blocks_ = 0, measured_ = 0, weighted_ = 0, resumed_ = 0;
};

class Brecq final : public Pass {
 public:
  PluginInfo info() const override {
    return {"brecq", kTitle,
            "Learns for each weight whether it is rounded up or down, for all layers of a block together, so that "
            "the block's output stays; "
            "the block's error never ends above rounding to nearest (Li et al. 2021, BRECQ, arXiv 2102.05426). "
            "Takes forward and "
            "backward passes of each block."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    const exec::ReconstructOptions d;
    return {
        {integer_field("samples", "Samples", "Of the calibration samples; 0: all.", 0, 0, 1e9, "samples"),
         integer_field(
             "layers", "Layers in a block",
             "Neighbours are taken together up to so many layers; residual blocks and branches always stay whole.",
             3, 1, 10000, "layers"),
         choice_field(
             "method", "Method", "How the choices are learned.", "adaround",
             {{"adaround", "AdaRound",
               "Gates between both values that a regularizer closes in the end (Nagel et al. 2020), by Adam."},
              {"autoround", "AutoRound",
               "A shift of at most half a step before the rounding (Cheng et al. 2023), by the sign of the "
               "gradient."}}),
         integer_field("iterations", "Iterations", "Steps for each block; 0: 1000 of AdaRound, 200 of AutoRound.",
                       0, 0, 1000000),
         integer_field("batch", "Batch", "Samples of a step.", 32, 1, 4096, "samples"),
         choice_field(
             "importance", "Importance of outputs",
             "What a block's squared errors are weighted with: squares of the loss's gradient in the float network "
             "(the Fisher information's diagonal).",
             "none",
             {{"none", "Equal", "Plain squared error."},
              {"prediction", "Own prediction", "Cross-entropy against the classes that the float network finds."},
              {"labels", "Labels",
               "Cross-entropy against the calibration data's labels; without them as the own prediction."}}),
         real_field("mix", "Float inputs",
                    "Probability with which a value of the block's input is the float network's in a step (Wei et "
                    "al. 2022, QDrop).",
                    d.mix, 0, 1),
         real_field("rate", "Rate", "Step of Adam (AdaRound).", d.rate, 1e-6, 1),
         real_field(
             "regularization", "Regularization",
             "Weight of the term that decides the gates, in units of the block's own rounding error (AdaRound).",
             d.regularization, 0, 1000),
         real_field("warm_up", "Warm-up", "Part of the iterations before that term begins (AdaRound).", d.warm_up,
                    0, 1),
         integer_field("seed", "Seed", "Of the order of samples and of the float inputs.", 0, 0, 1e9)}};
  }
  std::vector<Issue> check(const PassQuestion& question, const json&) const override {
    std::vector<Issue> out = rounding::check(question, kTitle, 0);
    // Of both networks, and the weights of the squares.
    const std::string kept = rounding::kept_activations(question, 3);
    if (!kept.empty()) out.push_back({Severity::kInfo, "", "It will keep up to " + kept + " in memory.", ""});
    return out;
  }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    for (const Issue& issue : rounding::problems(*ctx.quantized.model->graph, ctx.calibration_data != nullptr,
                                                 rounding::find_targets(ctx), kTitle))
      if (issue.severity == Severity::kError)
        return fail(ErrorCode::kInvalidArgument, std::string(kTitle) + ": " + issue.message, issue.hint);
    const Options o = read(options);
    return guarded(kTitle, [&] { return Blocks(ctx, o, job).run(); });
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Brecq)

}  // namespace quanvas
