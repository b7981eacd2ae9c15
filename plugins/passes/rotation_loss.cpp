// The loss of a rotated network in the recipe's formats, and its gradient with respect to the rotations.
#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/algorithms/cayley.h"
#include "core/exec/chunks.h"
#include "core/exec/rebuild.h"
#include "core/exec/train.h"
#include "core/quant/dynamic.h"
#include "core/quant/statistics.h"
#include "plugins/passes/learn_rotations.h"

namespace quanvas {
namespace {

using Samples = std::vector<std::int64_t>;
using Matrices = std::vector<std::vector<double>>;

constexpr std::int64_t kPiece = 8;  // samples that run at once; windows of tokens run alone, at their own length

struct Piece {
  double loss = 0;
  std::vector<at::Tensor> gradients;  // by turned tensor; undefined: none
};

class Loss final : public RotationLoss {
 public:
  Loss(const PassContext& ctx, ModelPtr model, std::vector<TurnedTensor> turned, std::vector<Rotation> rotations)
      : ctx_(ctx),
        model_(std::move(model)),
        data_(*ctx.calibration_data),
        turned_(std::move(turned)),
        rotations_(std::move(rotations)) {}

  Status prepare(const Plan& plan, const LearnOptions& options);

  const Samples& kept_samples() const override { return kept_; }
  const Samples& learned_samples() const override { return learned_; }
  std::vector<Rotation> rotations() const override { return rotations_; }
  Status set(std::vector<Rotation> rotations, JobContext& job) override {
    rotations_ = std::move(rotations);
    is_set_ = false;
    return make_weights(job);
  }
  Status calibrate(JobContext& job) override;
  Result<double> loss(const Samples& samples, JobContext& job) override { return walk(samples, nullptr, job); }
  Result<double> gradient(const Samples& samples, Matrices& gradients, JobContext& job) override;

 private:
  struct Weight {
    TensorId id = kNoTensor;
    std::optional<QuantSpec> spec;
    int axis = 0;
    DataType type = DataType::kFloat;
    Shape shape;
    at::Tensor exact, value;  // in float, and in its format
  };
  enum class Kind { kTokens, kLabels, kOutputs };

  const Graph& graph() const { return *model_->graph; }
  Status add_weights(const std::vector<Layer>& layers, const Plan& plan, const LearnOptions& options);
  Status add_activations(const std::vector<Layer>& layers, const Plan& plan);
  void split_samples();
  std::vector<Samples> pieces(const Samples& samples) const;
  Result<exec::Chunk> read(const Samples& samples) const;
  Status make_weights(JobContext& job);
  Result<std::vector<double>> turn(const TurnedTensor& t, bool in, bool out, const std::stop_token& stop) const;
  Status find_power(JobContext& job);
  Result<double> walk(const Samples& samples, std::vector<at::Tensor>* gradients, JobContext& job);
  Result<at::Tensor> piece_loss(const Samples& samples, double scale, const exec::Environment& env, bool with_gradient) const;
  Result<at::Tensor> token_loss(const at::Tensor& logits, const exec::Chunk& chunk) const;
  Result<at::Tensor> label_loss(const at::Tensor& logits, const exec::Chunk& chunk) const;
  exec::Environment environment(at::Tensor Weight::*which) const;

  const PassContext& ctx_;
  const ModelPtr model_;
  const Dataset& data_;
  const std::vector<TurnedTensor> turned_;
  std::vector<Rotation> rotations_;
  std::vector<Weight> weights_;  // by turned tensor
  std::shared_ptr<const exec::Runner> runner_, float_runner_;
  exec::QuantizerMap activations_;
  struct StaticSite {
    Site site;
    TensorId tensor = kNoTensor;
    QuantSpec spec;
    int axis = 0;
  };
  std::vector<StaticSite> static_;
  Samples kept_, learned_;
  Kind kind_ = Kind::kOutputs;
  TensorId logits_ = kNoTensor;
  double power_ = 0;  // mean square of the float network's outputs; 0: not known yet
  bool is_set_ = false;
};

Status Loss::prepare(const Plan& plan, const LearnOptions& options) {
  if (graph().inputs().size() != 1)
    return fail(ErrorCode::kInvalidArgument, "The network has several inputs, and the calibration data gives one.",
                "Switch the learning of rotations off.");
  if (graph().outputs().empty())
    return fail(ErrorCode::kInvalidArgument, "The network has no output that a loss could be taken of.");
  logits_ = exec::logits_of(graph());
  kind_ = data_.has_tokens() ? Kind::kTokens : data_.has_labels() ? Kind::kLabels : Kind::kOutputs;
  split_samples();
  const std::vector<Layer> layers = find_layers(graph());
  QUANVAS_CHECK(add_weights(layers, plan, options));
  QUANVAS_CHECK(add_activations(layers, plan));
  QUANVAS_TRY(float_runner_, exec::Runner::create(model_, nullptr, ctx_.device));
  return {};
}

void Loss::split_samples() {
  Samples all = ctx_.calibration_samples;
  if (all.empty()) all = choose_samples(data_.size(), 0, 0);
  if (all.size() < 8) {
    kept_ = learned_ = all;
    return;
  }
  for (std::size_t i = 0; i < all.size(); ++i) (i % 4 == 3 ? kept_ : learned_).push_back(all[i]);
}

Status Loss::add_weights(const std::vector<Layer>& layers, const Plan& plan, const LearnOptions& options) {
  std::map<TensorId, std::pair<QuantSpec, int>> formats;
  exec::QuantizerMap fixed;
  std::map<TensorId, std::size_t> of_tensor;
  for (std::size_t i = 0; i < turned_.size(); ++i) {
    const Node* node = graph().find(turned_[i].node);
    const TensorId id = node ? node->input(turned_[i].input) : kNoTensor;
    const TensorData* data = initializer_data(*model_, id);
    if (!data || data->count() != turned_[i].rows * turned_[i].columns)
      return fail(ErrorCode::kInternal, "A rotated weight is not where it was put.");
    of_tensor[id] = i;
    weights_.push_back({id, std::nullopt, 0, data->type, data->shape, {}, {}});
  }
  for (const Layer& layer : layers)
    for (const Site& site : layer.sites()) {
      const SitePlan* planned = site.kind == SiteKind::kWeight && options.weights ? plan.find(site) : nullptr;
      const TensorId id = planned && planned->spec ? site_tensor(layer, site) : kNoTensor;
      const TensorData* data = initializer_data(*model_, id);
      if (!data) continue;
      QuantSpec spec = *planned->spec;
      if (spec.source == ScaleSource::kStored) spec.source = ScaleSource::kStatistics;
      const int axis = exec::site_axis(layer, spec, SiteKind::kWeight);
      if (const auto it = of_tensor.find(id); it != of_tensor.end()) {
        weights_[it->second].spec = spec;
        weights_[it->second].axis = axis;
        continue;
      }
      const std::vector<float> values = data->to_floats();
      auto params = quant::find_params(spec, data->shape, values.data(), axis);
      if (!params) {
        params.error().context = graph().tensor(id).name;
        return Failure(params.error());
      }
      fixed[site] = std::move(*params);
    }
  QUANVAS_TRY(runner_, exec::Runner::create(model_, &fixed, ctx_.device));
  return {};
}

Status Loss::add_activations(const std::vector<Layer>& layers, const Plan& plan) {
  for (const Layer& layer : layers)
    for (const Site& site : layer.sites()) {
      const SitePlan* planned = is_activation(site.kind) ? plan.find(site) : nullptr;
      const TensorId id = planned && planned->spec ? site_tensor(layer, site) : kNoTensor;
      if (id == kNoTensor || graph().tensor(id).is_initializer || planned->spec->truncation != Truncation::kNone) continue;
      QuantSpec spec = *planned->spec;
      if (spec.source == ScaleSource::kStored) spec.source = ScaleSource::kStatistics;
      const int axis = exec::site_axis(layer, *graph().find(site.node), spec, site.kind);
      if (spec.source != ScaleSource::kDynamic) {
        static_.push_back({site, id, spec, axis});
        continue;
      }
      QUANVAS_TRY(activations_[site], quant::dynamic_params(spec, axis));
    }
  return {};
}

// --- weights ---

Result<std::vector<double>> Loss::turn(const TurnedTensor& t, bool in, bool out, const std::stop_token& stop) const {
  std::vector<double> values = t.values;
  if (in && t.in >= 0) {
    values = transposed(values, t.rows, t.columns);
    QUANVAS_CHECK(rotations_[static_cast<std::size_t>(t.in)].apply(values, stop));
    values = transposed(values, t.columns, t.rows);
  }
  if (out && t.out >= 0) QUANVAS_CHECK(rotations_[static_cast<std::size_t>(t.out)].apply(values, stop));
  return values;
}

Status Loss::make_weights(JobContext& job) {
  if (is_set_) return {};
  struct Made {
    at::Tensor exact, value;
  };
  QUANVAS_CHECK(exec::parallel_ordered(
      static_cast<std::int64_t>(turned_.size()), job, /*inference=*/false,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        const TurnedTensor& t = turned_[static_cast<std::size_t>(i)];
        const Weight& w = weights_[static_cast<std::size_t>(i)];
        QUANVAS_TRY(std::vector<double> values, turn(t, true, true, job.stop_token()));
        if (t.is_flipped) values = transposed(values, t.rows, t.columns);
        // Through the type that it is stored in, as the result will be.
        auto made = std::make_shared<Made>();
        made->exact = made->value = exec::to_tensor(make_data(w.type, w.shape, values)).to(at::kFloat).contiguous();
        if (w.spec) {
          auto params = quant::find_params(*w.spec, w.shape, made->exact.data_ptr<float>(), w.axis);
          if (!params) {
            params.error().context = graph().tensor(w.id).name;
            return Failure(params.error());
          }
          made->value = at::empty_like(made->exact);
          quant::fake_quantize(*params, params->layout, made->exact.data_ptr<float>(), made->value.data_ptr<float>());
        }
        if (ctx_.device != "cpu") {
          made->exact = made->exact.to(at::Device(ctx_.device));
          made->value = made->value.to(at::Device(ctx_.device));
        }
        return std::shared_ptr<void>(made);
      },
      [&](std::int64_t i, void* result) -> Status {
        auto& made = *static_cast<Made*>(result);
        weights_[static_cast<std::size_t>(i)].exact = std::move(made.exact);
        weights_[static_cast<std::size_t>(i)].value = std::move(made.value);
        return {};
      }));
  is_set_ = true;
  return {};
}

exec::Environment Loss::environment(at::Tensor Weight::*which) const {
  exec::Environment env(graph().tensors().size());
  for (const Weight& w : weights_) env[static_cast<std::size_t>(w.id)] = w.*which;
  return env;
}

// --- samples ---

std::vector<Samples> Loss::pieces(const Samples& samples) const {
  const auto size = static_cast<std::size_t>(kind_ == Kind::kTokens ? 1 : kPiece);
  std::vector<Samples> out;
  for (std::size_t i = 0; i < samples.size(); i += size)
    out.emplace_back(samples.begin() + static_cast<std::ptrdiff_t>(i),
                     samples.begin() + static_cast<std::ptrdiff_t>(std::min(samples.size(), i + size)));
  return out;
}

Result<exec::Chunk> Loss::read(const Samples& samples) const {
  QUANVAS_TRY(exec::Chunk chunk, exec::read_chunk(data_, samples, 0, ctx_.device));
  const auto& shape = graph().tensor(graph().inputs()[0]).shape;
  const bool is_open = !shape || shape->empty() || shape->back() < 0;
  if (kind_ == Kind::kTokens && is_open)
    chunk.input = chunk.input.narrow(1, 0, data_.token_window(samples[0]).length).contiguous();
  return chunk;
}

Status Loss::calibrate(JobContext& job) {
  QUANVAS_CHECK(make_weights(job));
  if (static_.empty()) return {};
  using Found = std::map<TensorId, quant::TensorStatistics>;
  std::set<TensorId> wanted;
  for (const StaticSite& s : static_) wanted.insert(s.tensor);
  Samples all = learned_;
  if (kept_ != learned_) all.insert(all.end(), kept_.begin(), kept_.end());
  std::sort(all.begin(), all.end());
  const std::vector<Samples> parts = pieces(all);
  const exec::Environment env = environment(&Weight::exact);
  Found total;
  QUANVAS_CHECK(exec::parallel_ordered(
      static_cast<std::int64_t>(parts.size()), job, /*inference=*/true,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        QUANVAS_TRY(const exec::Chunk chunk, read(parts[static_cast<std::size_t>(i)]));
        auto found = std::make_shared<Found>();
        exec::RunHooks hooks;
        hooks.weights = &env;
        hooks.tap = [&](TensorId id, const at::Tensor& value) {
          if (!wanted.count(id) || found->count(id) || !value.is_floating_point()) return;
          const at::Tensor x = value.to(at::kCPU, at::kFloat).contiguous();
          quant::TensorStatistics& s = (*found)[id];
          s.add(x.data_ptr<float>(), Shape(x.sizes().begin(), x.sizes().end()));
          s.close_batch();
        };
        QUANVAS_CHECK(float_runner_->run({chunk.input}, hooks));
        return std::shared_ptr<void>(found);
      },
      [&](std::int64_t, void* result) -> Status {
        for (auto& [id, s] : *static_cast<Found*>(result)) {
          const auto [it, fresh] = total.try_emplace(id, std::move(s));
          if (!fresh) it->second.merge(s);
        }
        return {};
      }));
  for (const StaticSite& s : static_) {
    const auto it = total.find(s.tensor);
    if (it == total.end()) continue;
    auto params = quant::find_params(s.spec, graph().tensor(s.tensor).shape.value_or(Shape{}), it->second, s.axis);
    if (!params) {
      params.error().context = graph().tensor(s.tensor).name;
      return Failure(params.error());
    }
    activations_[s.site] = std::move(*params);
  }
  return {};
}

// --- loss ---

Result<at::Tensor> Loss::token_loss(const at::Tensor& logits, const exec::Chunk& chunk) const {
  const TokenWindow w = data_.token_window(chunk.samples[0]);
  if (!logits.defined() || logits.dim() < 2 || logits.numel() / logits.size(-1) < w.length)
    return fail(ErrorCode::kUnsupported, "The network gives no scores for every token of a window.",
                "Learned rotations of a language model need scores [windows, tokens, vocabulary].");
  const at::Tensor rows = logits.reshape({-1, logits.size(-1)}).narrow(0, w.first - 1, w.length - w.first);
  const at::Tensor targets = chunk.input.flatten().narrow(0, w.first, w.length - w.first).to(at::kLong);
  if (targets.numel() > 0 && targets.max().item<std::int64_t>() >= rows.size(1))
    return fail(ErrorCode::kInvalidArgument, "The text holds tokens that the network has no score for.",
                "Choose the tokenizer that belongs to this network.");
  return at::cross_entropy_loss(rows, targets, {}, at::Reduction::Sum);
}

Result<at::Tensor> Loss::label_loss(const at::Tensor& logits, const exec::Chunk& chunk) const {
  if (!logits.defined() || logits.dim() < 2 || logits.size(0) != chunk.labels.size(0))
    return fail(ErrorCode::kUnsupported,
                "Learned rotations of labelled data need one row of class scores per sample at the first output.");
  const at::Tensor scores = logits.flatten(1);
  if (chunk.labels.min().item<std::int64_t>() < 0 || chunk.labels.max().item<std::int64_t>() >= scores.size(1))
    return fail(ErrorCode::kInvalidArgument, "A label of the calibration data has no class score in the network.");
  return at::cross_entropy_loss(scores, chunk.labels, {}, at::Reduction::Sum);
}

Result<at::Tensor> Loss::piece_loss(const Samples& samples, double scale, const exec::Environment& env,
                                    bool with_gradient) const {
  QUANVAS_TRY(const exec::Chunk chunk, read(samples));
  std::vector<at::Tensor> references;
  if (kind_ == Kind::kOutputs) {
    const at::NoGradGuard none;
    QUANVAS_TRY(references, float_runner_->run({chunk.input}));
  }
  at::Tensor logits;
  exec::RunHooks hooks;
  hooks.weights = &env;
  hooks.quantize = [&](const Site& site, const at::Tensor& x) {
    const auto it = activations_.find(site);
    if (it == activations_.end()) return x;
    return with_gradient ? exec::fake_quantize_ste(x, exec::LearnedParams{}, it->second,
                                                   it->second.spec.clip_gradient ? !*it->second.spec.clip_gradient : false)
                         : exec::fake_quantize(x, it->second);
  };
  if (kind_ != Kind::kOutputs)
    hooks.tap = [&](TensorId id, const at::Tensor& t) {
      if (id == logits_) logits = t;
    };
  QUANVAS_TRY(const std::vector<at::Tensor> outputs, runner_->run({chunk.input}, hooks));
  at::Tensor sum;
  if (kind_ == Kind::kTokens) {
    QUANVAS_TRY(sum, token_loss(logits, chunk));
  } else if (kind_ == Kind::kLabels) {
    QUANVAS_TRY(sum, label_loss(logits, chunk));
  } else {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].is_floating_point()) continue;
      const at::Tensor d = at::square(outputs[i] - references[i]).sum();
      sum = sum.defined() ? sum + d : d;
    }
    if (!sum.defined())
      return fail(ErrorCode::kUnsupported,
                  "No output of the network is a tensor of real numbers that a loss could be taken of.");
  }
  return sum * scale;
}

// Sum of squares of the float network's outputs for one sample, mean over the kept ones.
Status Loss::find_power(JobContext& job) {
  if (kind_ != Kind::kOutputs || power_ > 0) return {};
  const std::vector<Samples> parts = pieces(kept_);
  double sum = 0;
  QUANVAS_CHECK(exec::parallel_ordered(
      static_cast<std::int64_t>(parts.size()), job, /*inference=*/true,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        QUANVAS_TRY(const exec::Chunk chunk, read(parts[static_cast<std::size_t>(i)]));
        QUANVAS_TRY(const std::vector<at::Tensor> outputs, float_runner_->run({chunk.input}));
        double own = 0;
        for (const at::Tensor& y : outputs)
          if (y.is_floating_point()) own += at::square(y.to(at::kDouble)).sum().item<double>();
        return std::shared_ptr<void>(std::make_shared<double>(own));
      },
      [&](std::int64_t, void* result) -> Status {
        sum += *static_cast<double*>(result);
        return {};
      }));
  power_ = sum / static_cast<double>(kept_.size());
  if (!std::isfinite(power_))
    return fail(ErrorCode::kInvalidArgument, "The outputs of the float network are not finite on the calibration samples.",
                "Look at the samples and the weights.");
  if (power_ == 0) power_ = 1;
  return {};
}

Result<double> Loss::walk(const Samples& samples, std::vector<at::Tensor>* gradients, JobContext& job) {
  QUANVAS_CHECK(make_weights(job));
  QUANVAS_CHECK(find_power(job));
  double count = kind_ == Kind::kOutputs ? static_cast<double>(samples.size()) * power_ : static_cast<double>(samples.size());
  if (kind_ == Kind::kTokens) {
    count = 0;
    for (const std::int64_t s : samples)
      count += static_cast<double>(data_.token_window(s).length - data_.token_window(s).first);
  }
  if (!(count > 0))
    return fail(ErrorCode::kInvalidArgument, "The calibration samples hold nothing that a loss could be taken of.");
  const std::vector<Samples> parts = pieces(samples);
  double loss = 0;
  if (gradients) gradients->assign(weights_.size(), at::Tensor());
  QUANVAS_CHECK(exec::parallel_ordered(
      static_cast<std::int64_t>(parts.size()), job, /*inference=*/!gradients,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        auto piece = std::make_shared<Piece>();
        exec::Environment env = environment(&Weight::value);
        std::vector<at::Tensor> leaves;
        for (const Weight& w : weights_) {
          if (!gradients) break;
          leaves.push_back(w.value.detach().requires_grad_(true));
          env[static_cast<std::size_t>(w.id)] = leaves.back();
        }
        QUANVAS_TRY(const at::Tensor value,
                    piece_loss(parts[static_cast<std::size_t>(i)], 1 / count, env, gradients != nullptr));
        piece->loss = value.item<double>();
        if (gradients && !value.requires_grad())
          return fail(ErrorCode::kUnsupported, "No gradient reaches the rotated weights of this network.",
                      "Switch the learning of rotations off.");
        if (gradients && std::isfinite(piece->loss)) value.backward();
        for (const at::Tensor& leaf : leaves) piece->gradients.push_back(leaf.grad().defined() ? leaf.grad() : at::Tensor());
        return std::shared_ptr<void>(piece);
      },
      [&](std::int64_t, void* result) -> Status {
        Piece& piece = *static_cast<Piece*>(result);
        loss += piece.loss;
        for (std::size_t k = 0; k < piece.gradients.size(); ++k) {
          if (!piece.gradients[k].defined()) continue;
          const at::Tensor g = piece.gradients[k].to(at::kCPU, at::kDouble);
          at::Tensor& sum = (*gradients)[k];
          sum = sum.defined() ? sum + g : g;
        }
        return {};
      }));
  return loss;
}

Result<double> Loss::gradient(const Samples& samples, Matrices& gradients, JobContext& job) {
  std::vector<at::Tensor> of_weights;
  QUANVAS_TRY(const double loss, walk(samples, &of_weights, job));
  gradients.clear();
  for (const Rotation& r : rotations_) gradients.emplace_back(static_cast<std::size_t>(r.size() * r.size()), 0.0);
  for (std::size_t i = 0; i < turned_.size(); ++i) {
    if (!of_weights[i].defined()) continue;
    QUANVAS_CHECK(job.check());
    const TurnedTensor& t = turned_[i];
    const at::Tensor flat = of_weights[i].contiguous();
    std::vector<double> g(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
    if (t.is_flipped) g = transposed(g, t.columns, t.rows);
    const auto add = [&](int index, const std::vector<double>& a, const std::vector<double>& b) {
      const std::int64_t n = rotations_[static_cast<std::size_t>(index)].size();
      return algorithms::add_outer_products(a.data(), b.data(), t.rows * t.columns / n, n,
                                            gradients[static_cast<std::size_t>(index)], job.stop_token());
    };
    if (t.out >= 0) {
      QUANVAS_TRY(const std::vector<double> made, turn(t, true, false, job.stop_token()));
      QUANVAS_CHECK(add(t.out, made, g));
    }
    if (t.in >= 0) {
      QUANVAS_TRY(const std::vector<double> made, turn(t, false, true, job.stop_token()));
      QUANVAS_CHECK(add(t.in, transposed(made, t.rows, t.columns), transposed(g, t.rows, t.columns)));
    }
  }
  return loss;
}

}  // namespace

Result<std::unique_ptr<RotationLoss>> RotationLoss::create(const PassContext& ctx, ModelPtr model, const Plan& plan,
                                                           std::vector<TurnedTensor> turned, std::vector<Rotation> rotations,
                                                           const LearnOptions& options) {
  if (!ctx.calibration_data || ctx.calibration_data->size() < 1)
    return fail(ErrorCode::kInvalidArgument, "Learning rotations needs calibration data, and none are declared.",
                "Declare a data set for calibration.");
  auto loss = std::make_unique<Loss>(ctx, std::move(model), std::move(turned), std::move(rotations));
  QUANVAS_CHECK(loss->prepare(plan, options));
  return std::unique_ptr<RotationLoss>(std::move(loss));
}

}  // namespace quanvas
