#include "core/exec/train.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <numeric>
#include <set>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/exec/train_state.h"
#include "core/exec/worker.h"

namespace quanvas::exec {
namespace {

using Samples = std::vector<std::int64_t>;

std::uint64_t mix(std::uint64_t z) {  // splitmix64
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void shuffle(Samples& samples, std::uint64_t seed) {
  for (std::size_t i = samples.size(); i > 1; --i)
    std::swap(samples[i - 1], samples[static_cast<std::size_t>(mix(seed + i) % i)]);
}

Status check_settings(const Model& model, const Dataset& data, const TrainSettings& s) {
  const auto refuse = [](const std::string& what) { return fail(ErrorCode::kInvalidArgument, what); };
  if (!data.has_labels())
    return fail(ErrorCode::kInvalidArgument, "Training needs labels, and the training data have none.",
                "Declare a labelled training split.");
  if (data.size() < 1) return refuse("The training data are empty.");
  if (model.graph->inputs().size() != 1)
    return refuse("Training feeds one input; the model has " + std::to_string(model.graph->inputs().size()) + ".");
  if (model.graph->outputs().empty()) return refuse("The model has no output to train.");
  if (s.epochs < 1 || s.batch < 1) return refuse("Training needs at least one epoch and one sample per batch.");
  if (!(s.learning_rate > 0) || !std::isfinite(s.learning_rate)) return refuse("The learning rate must be positive.");
  if (!(s.scale_learning_rate >= 0)) return refuse("The learning rate of scales must not be negative.");
  if (s.optimizer != "adam" && s.optimizer != "sgd")
    return refuse("Optimizer '" + s.optimizer + "' is unknown: use adam or sgd.");
  if (s.schedule != "cosine" && s.schedule != "constant")
    return refuse("Schedule '" + s.schedule + "' is unknown: use cosine or constant.");
  return {};
}

Result<at::Tensor> class_scores(const at::Tensor& logits, const at::Tensor& labels) {
  if (!logits.defined() || logits.dim() < 2 || logits.size(0) != labels.size(0))
    return fail(ErrorCode::kInvalidArgument, "Training needs one row of class scores per sample at the first output.");
  const at::Tensor scores = logits.flatten(1);
  const std::int64_t lo = labels.min().item().toLong(), hi = labels.max().item().toLong();
  if (lo < 0 || hi >= scores.size(1))
    return fail(ErrorCode::kInvalidArgument, "A label is " + std::to_string(lo < 0 ? lo : hi) + ", the network has " +
                                                 std::to_string(scores.size(1)) + " classes.");
  return scores;
}

struct Score {
  double top1 = 0, loss = 0;
};

struct BatchStatistics {
  const Node* node;
  at::Tensor mean, variance;
};
struct ShardResult {
  double loss = 0;
  Status status;
  std::vector<BatchStatistics> statistics;
};

class Training {
 public:
  Training(ModelPtr model, const QuantizerMap* quantizers, const Dataset& data, const TrainSettings& settings,
           const std::string& device, JobContext& job)
      : model_(std::move(model)), quantizers_(quantizers), data_(data), s_(settings), device_(device), job_(job),
        crew_(std::clamp(threads(), 1, kTrainShards)) {}

  Result<TrainResult> run();

 private:
  Status set_up();
  Result<bool> finish_epoch(int epoch, double loss, double rate);
  Result<bool> epoch(int epoch);
  Result<double> step(const Samples& batch);
  ShardResult shard(int index, const Samples& batch);
  Status shard_loss(int index, const Samples& samples, std::int64_t batch, ShardResult& result);
  at::Tensor quantize(int shard, const Site& site, const at::Tensor& x);
  void flip(Chunk& chunk) const;
  Result<Score> validate(const TrainState::Network& network);
  void report(const TrainPoint& point, bool always);
  double rate_at(std::int64_t step) const;

  ModelPtr model_;
  const QuantizerMap* quantizers_;
  const Dataset& data_;
  TrainSettings s_;
  std::string device_;
  JobContext& job_;
  Workers crew_;
  std::unique_ptr<TrainState> state_;
  std::shared_ptr<const Runner> runner_;
  std::vector<Environment> environments_;
  Samples training_, validation_;
  TensorId logits_ = kNoTensor;
  std::int64_t step_ = 0, steps_per_epoch_ = 0, total_ = 0;
  int epoch_ = 0;
  TrainResult result_;
  std::chrono::steady_clock::time_point last_report_{};
};

Status Training::set_up() {
  QUANVAS_CHECK(check_settings(*model_, data_, s_));
  QUANVAS_TRY(TrainState state, TrainState::create(model_, quantizers_, s_, device_));
  state_ = std::make_unique<TrainState>(std::move(state));
  QUANVAS_TRY(runner_, Runner::create(model_, nullptr, device_));
  for (int i = 0; i < kTrainShards; ++i) environments_.push_back(state_->environment(i));
  // Never more than a fifth: a small training split is for training.
  const std::int64_t held_out = std::min<std::int64_t>(std::max(0, s_.validation_samples), data_.size() / 5);
  const std::int64_t pool = data_.size() - held_out;
  validation_.resize(static_cast<std::size_t>(held_out));
  std::iota(validation_.begin(), validation_.end(), pool);
  training_ = choose_samples(pool, s_.max_samples, s_.seed);
  logits_ = logits_of(*model_->graph);
  // A last batch of a few samples is more noise than signal, and batch statistics need more than one sample.
  const auto n = static_cast<std::int64_t>(training_.size()), rest = n % s_.batch;
  const bool drop = rest > 0 && n > s_.batch && rest < 2 * kTrainShards;
  steps_per_epoch_ = (n + s_.batch - 1) / s_.batch - (drop ? 1 : 0);
  total_ = steps_per_epoch_ * s_.epochs;
  return {};
}

double Training::rate_at(std::int64_t step) const {
  if (s_.schedule == "constant") return 1;
  return 0.5 * (1 + std::cos(3.14159265358979323846 * static_cast<double>(step) / static_cast<double>(total_)));
}

at::Tensor Training::quantize(int shard, const Site& site, const at::Tensor& x) {
  const TrainedActivation* a = state_->activation(site);
  if (!a || !a->quantizer.active(state_->steps())) return x;
  return fake_quantize_ste(x, a->leaves.empty() ? LearnedParams() : a->leaves[static_cast<std::size_t>(shard)],
                           a->quantizer.params, a->quantizer.passes_clipped(false));
}

void Training::flip(Chunk& chunk) const {
  if (!s_.augment_flip || chunk.input.dim() != 4) return;
  for (std::size_t i = 0; i < chunk.samples.size(); ++i) {
    const auto coin = mix(mix(static_cast<std::uint64_t>(s_.seed) + static_cast<std::uint64_t>(epoch_)) ^
                          static_cast<std::uint64_t>(chunk.samples[i]));
    if (!(coin & 1)) continue;
    at::Tensor row = chunk.input.select(0, static_cast<std::int64_t>(i));
    row.copy_(row.flip({-1}));
  }
}

Status Training::shard_loss(int index, const Samples& samples, std::int64_t batch, ShardResult& result) {
  QUANVAS_TRY(Chunk chunk, read_chunk(data_, samples, index, device_));
  flip(chunk);
  state_->clear_gradients(index);
  at::Tensor logits;
  RunHooks hooks;
  hooks.weights = &environments_[static_cast<std::size_t>(index)];
  hooks.training = !state_->quantized();  // batch normalization is frozen in quantization-aware training
  hooks.seed = mix(static_cast<std::uint64_t>(s_.seed) * 1000003 + static_cast<std::uint64_t>(step_) * kTrainShards +
                   static_cast<std::uint64_t>(index));
  hooks.tap = [&](TensorId id, const at::Tensor& t) {
    if (id == logits_) logits = t;
  };
  hooks.exact = &state_->exact();
  if (state_->quantized())
    hooks.quantize = [&](const Site& site, const at::Tensor& x) { return quantize(index, site, x); };
  hooks.batch_statistics = [&](const Node& node, const at::Tensor& mean, const at::Tensor& variance) {
    result.statistics.push_back({&node, mean, variance});
  };
  QUANVAS_CHECK(runner_->run({chunk.input}, hooks));
  QUANVAS_TRY(const at::Tensor scores, class_scores(logits, chunk.labels));
  const at::Tensor loss = at::cross_entropy_loss(scores, chunk.labels, {}, at::Reduction::Sum) / static_cast<double>(batch);
  if (!loss.requires_grad())
    return fail(ErrorCode::kUnsupported, "No gradient reaches the weights of this network.",
                "Integer operators such as QuantizeLinear cannot be trained through.");
  result.loss = loss.item().toDouble();
  if (std::isfinite(result.loss)) loss.backward();
  return {};
}

ShardResult Training::shard(int index, const Samples& batch) {
  const std::size_t n = batch.size(), i = static_cast<std::size_t>(index);
  const Samples samples(batch.begin() + static_cast<std::ptrdiff_t>(n * i / kTrainShards),
                        batch.begin() + static_cast<std::ptrdiff_t>(n * (i + 1) / kTrainShards));
  ShardResult result;
  if (samples.empty()) {
    state_->clear_gradients(index);
    return result;
  }
  result.status = guarded("training step",
                          [&] { return shard_loss(index, samples, static_cast<std::int64_t>(n), result); });
  return result;
}

Result<double> Training::step(const Samples& batch) {
  std::vector<ShardResult> results(kTrainShards);
  crew_.run(kTrainShards, [&](int i) { results[static_cast<std::size_t>(i)] = shard(i, batch); });
  double loss = 0;
  for (const auto& r : results) {
    QUANVAS_CHECK(r.status);
    loss += r.loss;
  }
  const auto diverged = [&](const std::string& what) {
    return fail(ErrorCode::kInvalidArgument,
                "Training diverged: " + what + " in step " + std::to_string(step_ + 1) + " of " + std::to_string(total_) + ".",
                "Lower the learning rate (now " + json(s_.learning_rate).dump() + ").");
  };
  // Quantizers saturate, so a runaway network may keep a finite loss for long.
  constexpr double kHopeless = 1e8;
  if (!std::isfinite(loss)) return diverged("the loss is not finite");
  if (loss > kHopeless) return diverged("the loss is " + json(loss).dump());
  for (const auto& r : results)
    for (const auto& b : r.statistics) state_->update_running(*b.node, b.mean, b.variance);
  const double factor = rate_at(step_);
  const bool adam = s_.optimizer == "adam";
  const StepRule weights{adam, s_.learning_rate * factor, s_.weight_decay, step_ + 1};
  const StepRule scales{adam, s_.scale_learning_rate * factor, 0, step_ + 1};
  std::vector<Status> done(state_->weights().size());
  const auto each_weight = [&](const std::function<Status(std::size_t)>& work) -> Status {
    crew_.run(kTrainShards, [&](int task) {
      for (std::size_t i = static_cast<std::size_t>(task); i < done.size(); i += kTrainShards)
        done[i] = guarded("optimizer", [&] { return work(i); });
    });
    for (const Status& status : done) QUANVAS_CHECK(status);
    return {};
  };
  const auto update = [&]() -> Status {
    QUANVAS_CHECK(each_weight([&](std::size_t i) -> Status { state_->step_weight(i, weights); return {}; }));
    QUANVAS_CHECK(guarded("optimizer", [&] { return state_->step_quantizers(scales); }));
    return each_weight([&](std::size_t i) { return state_->quantize_weight(i); });
  };
  if (const Status status = update(); !status)
    return diverged("a weight cannot be quantized (" + status.error().message + ")");
  ++step_;
  return loss;
}

void Training::report(const TrainPoint& point, bool always) {
  const auto now = std::chrono::steady_clock::now();
  if (!always && now - last_report_ < std::chrono::milliseconds(100)) return;
  last_report_ = now;
  job_.partial("train-step", to_json_text(point));
}

Result<Score> Training::validate(const TrainState::Network& network) {
  QUANVAS_TRY(const auto runner, Runner::create(network.model, state_->quantized() ? &network.quantizers : nullptr, device_));
  JobContext quiet(job_.stop_token());
  Score sums;
  QUANVAS_CHECK(for_each_chunk<Score>(
      data_, validation_, device_, quiet, "validate",
      [&](Chunk& chunk) -> Result<Score> {
        at::Tensor logits;
        RunHooks hooks;
        hooks.tap = [&](TensorId id, const at::Tensor& t) {
          if (id == logits_) logits = t;
        };
        QUANVAS_CHECK(runner->run({chunk.input}, hooks));
        QUANVAS_TRY(const at::Tensor scores, class_scores(logits, chunk.labels));
        return Score{static_cast<double>(at::sum(scores.argmax(1) == chunk.labels).item().toLong()),
                     at::cross_entropy_loss(scores, chunk.labels, {}, at::Reduction::Sum).item().toDouble()};
      },
      [&](std::int64_t, Score& score) -> Status {
        sums.top1 += score.top1;
        sums.loss += score.loss;
        return {};
      }));
  const double n = std::max(1.0, static_cast<double>(validation_.size()));
  return Score{sums.top1 / n, sums.loss / n};
}

// Keeps the state when it is the best so far; false: stopped on request.
Result<bool> Training::finish_epoch(int epoch, double loss, double rate) {
  auto network = state_->network();
  if (!network)
    return fail(ErrorCode::kInvalidArgument, "Training diverged: " + network.error().message, "Lower the learning rate.");
  TrainPoint point{static_cast<double>(step_), static_cast<double>(epoch), loss, rate, std::nullopt};
  bool best = true;
  if (!validation_.empty()) {
    auto score = validate(*network);
    if (!score && score.error().code == ErrorCode::kCancelled) return false;
    if (!score) return Failure(score.error());
    if (!std::isfinite(score->loss))
      return fail(ErrorCode::kInvalidArgument, "Training diverged: the outputs are not finite after epoch " +
                                                   std::to_string(epoch) + ".",
                  "Lower the learning rate (now " + json(s_.learning_rate).dump() + ").");
    point.top1 = score->top1;
    best = score->top1 > result_.best_top1;
    if (best) result_.best_top1 = score->top1;
  }
  if (best) {
    result_.best_epoch = epoch;
    result_.weights = network->model->weights;
    result_.quantizers = std::move(network->quantizers);
  }
  result_.curve.push_back(point);
  report(point, true);
  return true;
}

Result<bool> Training::epoch(int epoch) {
  epoch_ = epoch;
  Samples order = training_;
  shuffle(order, mix(static_cast<std::uint64_t>(s_.seed)) + static_cast<std::uint64_t>(epoch) * 0x51ed2701);
  const std::string phase = "train epoch " + std::to_string(epoch) + "/" + std::to_string(s_.epochs);
  const std::int64_t every = std::max<std::int64_t>(1, total_ / 400);
  double sum = 0, rate = 0;
  std::int64_t count = 0;
  const auto mean = [&] { return count ? sum / static_cast<double>(count) : 0.0; };
  for (std::int64_t i = 0; i < steps_per_epoch_; ++i) {
    if (job_.stopped()) return false;
    const auto begin = order.begin() + i * s_.batch;
    const auto left = std::min<std::int64_t>(s_.batch, order.end() - begin);
    rate = s_.learning_rate * rate_at(step_);
    QUANVAS_TRY(const double loss, step(Samples(begin, begin + left)));
    sum += loss;
    ++count;
    const double at = static_cast<double>(step_) / static_cast<double>(steps_per_epoch_);
    TrainPoint point{static_cast<double>(step_), at, loss, rate, std::nullopt};
    report(point, false);
    char text[32];
    std::snprintf(text, sizeof text, "loss %.4f", loss);
    job_.progress(phase, static_cast<double>(step_) / static_cast<double>(total_), text);
    if (step_ % every == 0 && i + 1 < steps_per_epoch_) {
      point.loss = mean();
      result_.curve.push_back(point);
      sum = 0;
      count = 0;
    }
  }
  return finish_epoch(epoch, mean(), rate);
}

Result<TrainResult> Training::run() {
  QUANVAS_CHECK(set_up());
  if (validation_.empty()) result_.best_top1 = std::numeric_limits<double>::quiet_NaN();
  // Before the first step: what is returned when nothing better comes.
  TrainState::Network before{model_, quantizers_ ? *quantizers_ : QuantizerMap{}};
  result_.weights = model_->weights;
  result_.quantizers = before.quantizers;
  if (!validation_.empty()) {
    job_.progress("validate", 0);
    auto score = validate(before);
    if (!score && score.error().code != ErrorCode::kCancelled) return Failure(score.error());
    if (!score) {
      result_.cancelled = true;
      return result_;
    }
    result_.best_top1 = score->top1;
    result_.curve.push_back({0, 0, score->loss, s_.learning_rate, score->top1});
    report(result_.curve.back(), true);
  }
  for (int e = 1; e <= s_.epochs; ++e) {
    QUANVAS_TRY(const bool complete, epoch(e));
    if (!complete) {
      result_.cancelled = true;
      break;
    }
  }
  return std::move(result_);
}

}  // namespace

TensorId logits_of(const Graph& graph) {
  static const std::set<std::string> only_shapes = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"};
  const TensorId output = graph.outputs()[0];
  const Node* producer = graph.find(graph.tensor(output).producer);
  while (producer && only_shapes.count(producer->op) && producer->input(0) != kNoTensor)
    producer = graph.find(graph.tensor(producer->inputs[0]).producer);
  return producer && producer->op == "Softmax" && producer->input(0) != kNoTensor ? producer->inputs[0] : output;
}

Result<TrainResult> train(ModelPtr model, const QuantizerMap* quantizers, const Dataset& data,
                          const TrainSettings& settings, const std::string& device, JobContext& job) {
  return guarded("training", [&]() -> Result<TrainResult> {
    Training training(std::move(model), quantizers, data, settings, device, job);
    return training.run();
  });
}

}  // namespace quanvas::exec
