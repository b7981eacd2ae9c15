#include "core/exec/reconstruct.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ATen/ATen.h>

#include "core/algorithms/learned.h"
#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/exec/optimizer.h"
#include "core/exec/worker.h"

namespace quanvas::exec {
namespace {

constexpr int kShards = 2;

std::uint64_t mixed(std::uint64_t z) {  // splitmix64
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// What is learned of one weight.
struct Learned {
  std::vector<float> v;  // gates: as in h(v); signs: h0 + v
  std::vector<float> gradient;
  at::Tensor value;                // what the block sees
  std::vector<at::Tensor> leaves;  // one for each shard, sharing `value` on the CPU
  Moments moments;
  double undecided = 0;
};

class Reconstruction {
 public:
  Reconstruction(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                 const std::vector<BlockWeight>& weights, const ReconstructOptions& options)
      : runner_(runner), quantizers_(quantizers), block_(block), weights_(weights), o_(options) {
    for (const BlockWeight& w : weights_) {
      Learned l;
      l.v.resize(w.h.size());
      for (std::size_t i = 0; i < l.v.size(); ++i)
        l.v[i] = o_.gates ? static_cast<float>(algorithms::gate_inverse(static_cast<double>(w.h[i]))) : w.h[i];
      l.gradient.resize(l.v.size());
      l.value = at::empty(w.original.sizes(), at::kFloat);
      learned_.push_back(std::move(l));
    }
  }

  std::vector<Learned>& learned() { return learned_; }

  // The values of weight i at v, soft (gates) or as they would end.
  void fill(std::size_t i, bool hard) {
    const BlockWeight& w = weights_[i];
    Learned& l = learned_[i];
    float* to = l.value.data_ptr<float>();
    for (std::size_t k = 0; k < l.v.size(); ++k) {
      const float gap = w.upper[k] - w.lower[k];
      if (o_.gates && !hard)
        to[k] = w.lower[k] + static_cast<float>(algorithms::gate(static_cast<double>(l.v[k]))) * gap;
      else
        to[k] = l.v[k] >= (o_.gates ? 0.0f : 0.5f) ? w.upper[k] : w.lower[k];
    }
  }
  void make_leaves() {
    for (Learned& l : learned_) {
      l.leaves.clear();
      for (int s = 0; s < kShards; ++s)
        l.leaves.push_back(l.value.to(runner_.device()).detach().requires_grad_(true));
    }
  }

  // Sum over one piece, with the gradient in the leaves of `shard`; step: of the mixture, below 0 none.
  Result<double> piece_loss(std::size_t piece, int shard, double unit, std::int64_t step) const {
    const BlockPiece& p = block_.pieces[piece];
    Environment env = inputs(p, piece, step);
    Environment weights(env.size());
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const at::Tensor& leaf = learned_[i].leaves[static_cast<std::size_t>(shard)];
      leaf.mutable_grad().reset();
      weights[static_cast<std::size_t>(weights_[i].id)] = leaf;
    }
    RunHooks hooks;
    hooks.weights = &weights;
    hooks.quantize = [this](const Site& site, const at::Tensor& x) {
      const auto q = quantizers_.find(site);
      if (q == quantizers_.end()) return x;
      const auto& clip = q->second.spec.clip_gradient;
      return fake_quantize_ste(x, LearnedParams(), q->second, clip && !*clip);
    };
    QUANVAS_CHECK(runner_.run_nodes(block_.nodes, env, hooks));
    at::Tensor loss;
    for (std::size_t i = 0; i < block_.outputs.size(); ++i) {
      const at::Tensor square = (env[static_cast<std::size_t>(block_.outputs[i])] - p.targets[i]).pow(2);
      const at::Tensor part = (p.weights.empty() ? square : square * p.weights[i]).sum() * unit;
      loss = loss.defined() ? loss + part : part;
    }
    if (!loss.requires_grad())
      return fail(ErrorCode::kUnsupported, "No gradient reaches the weights of this block.",
                  "Leave its layers out of the pass.");
    const double value = loss.item().toDouble();
    if (std::isfinite(value)) loss.backward();
    return value;
  }

  // Per sample over all pieces; against: instead of the targets, what the block gives with these weights.
  Result<double> loss_of(const std::vector<at::Tensor>& values, JobContext& job,
                         const std::vector<at::Tensor>* against = nullptr) const {
    double sum = 0, samples = 0;
    JobContext quiet(job.stop_token());
    QUANVAS_CHECK(parallel_ordered(
        static_cast<std::int64_t>(block_.pieces.size()), quiet, true,
        [&](std::int64_t c) -> Result<std::shared_ptr<void>> {
          const auto piece = static_cast<std::size_t>(c);
          const BlockPiece& p = block_.pieces[piece];
          QUANVAS_TRY(const std::vector<at::Tensor> now, outputs(piece, values));
          std::vector<at::Tensor> aim = p.targets;
          if (against) {
            QUANVAS_TRY(aim, outputs(piece, *against));
          }
          double part = 0;
          for (std::size_t i = 0; i < now.size(); ++i) {
            const at::Tensor square = (now[i] - aim[i]).pow(2);
            part += (p.weights.empty() ? square : square * p.weights[i]).sum(at::kDouble).item().toDouble();
          }
          return std::shared_ptr<void>(std::make_shared<double>(part));
        },
        [&](std::int64_t c, void* part) -> Status {
          sum += *static_cast<double*>(part);
          samples += static_cast<double>(block_.pieces[static_cast<std::size_t>(c)].samples);
          return {};
        }));
    return sum / std::max(1.0, samples);
  }
  Result<double> loss_of_learned(bool hard, JobContext& job, std::vector<at::Tensor>* kept = nullptr) {
    std::vector<at::Tensor> values;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      fill(i, hard);
      values.push_back(learned_[i].value.clone());
    }
    QUANVAS_TRY(const double loss, loss_of(values, job));
    if (kept) *kept = std::move(values);
    return loss;
  }

  // Gradient of the loss in v, or for signs in the weight, from the leaves.
  void gather(std::size_t i, std::size_t shards) {
    const BlockWeight& w = weights_[i];
    Learned& l = learned_[i];
    std::fill(l.gradient.begin(), l.gradient.end(), 0.0f);
    for (std::size_t s = 0; s < shards; ++s) {
      if (!l.leaves[s].grad().defined()) continue;
      const at::Tensor g = l.leaves[s].grad().to(at::kCPU, at::kFloat).contiguous();
      const float* from = g.data_ptr<float>();
      for (std::size_t k = 0; k < l.gradient.size(); ++k) l.gradient[k] += from[k];
    }
    for (std::size_t k = 0; k < l.gradient.size(); ++k) {
      l.gradient[k] *= w.upper[k] - w.lower[k];
      if (o_.gates) l.gradient[k] *= slope(l.v[k]);
    }
  }
  // dh / dv, 0 where h is clipped.
  static float slope(float v) {
    const double s = 1 / (1 + std::exp(-static_cast<double>(v))), h = 1.2 * s - 0.1;
    return h <= 0 || h >= 1 ? 0.0f : static_cast<float>(1.2 * s * (1 - s));
  }

  void step_gates(std::size_t i, int step) {
    const BlockWeight& w = weights_[i];
    Learned& l = learned_[i];
    const double warm = o_.warm_up * o_.iterations;
    const double done = o_.iterations > warm ? std::max(0.0, (step - warm) / (o_.iterations - warm)) : 1.0;
    if (step > warm) {
      const double beta = 2 + 18 * (1 - done);
      for (std::size_t k = 0; k < l.v.size(); ++k) {
        if (w.upper[k] == w.lower[k]) continue;
        const float turn = slope(l.v[k]);
        if (turn == 0) continue;
        const double y = 2 * algorithms::gate(static_cast<double>(l.v[k])) - 1;
        const double pull = -2 * beta * std::pow(std::fabs(y), beta - 1) * (y > 0 ? 1 : -1);
        l.gradient[k] += static_cast<float>(o_.regularization * pull) * turn;
      }
    }
    l.moments.update({true, o_.rate, 0, step}, l.gradient.data(), l.v.data(),
                     static_cast<std::int64_t>(l.v.size()));
  }
  void step_signs(std::size_t i, int step) {
    const BlockWeight& w = weights_[i];
    Learned& l = learned_[i];
    const auto rate = static_cast<float>((1 - static_cast<double>(step - 1) / o_.iterations) / o_.iterations);
    for (std::size_t k = 0; k < l.v.size(); ++k) {
      const float g = l.gradient[k], move = g > 0 ? rate : g < 0 ? -rate : 0.0f;
      l.v[k] = std::clamp(l.v[k] - move, w.h[k] - 0.5f, w.h[k] + 0.5f);
    }
  }
  double undecided() const {
    double sum = 0;
    std::int64_t choices = 0;
    for (std::size_t i = 0; i < weights_.size() && o_.gates; ++i)
      for (std::size_t k = 0; k < learned_[i].v.size(); ++k) {
        if (weights_[i].upper[k] == weights_[i].lower[k]) continue;
        const double h = algorithms::gate(static_cast<double>(learned_[i].v[k]));
        sum += std::min(h, 1 - h);
        ++choices;
      }
    return choices > 0 ? sum / static_cast<double>(choices) : 0;
  }

 private:
  Environment inputs(const BlockPiece& p, std::size_t piece, std::int64_t step) const {
    Environment env(runner_.graph().tensors().size());
    for (std::size_t i = 0; i < p.inputs.size(); ++i) {
      const auto& [id, x] = p.inputs[i];
      const bool mixes = step >= 0 && o_.mix > 0 && !p.float_inputs.empty() && x.is_floating_point() &&
                         p.float_inputs[i].sizes() == x.sizes();
      env[static_cast<std::size_t>(id)] =
          mixes ? mixture(x, p.float_inputs[i],
                          mixed(o_.seed + mixed(static_cast<std::uint64_t>(step) * 1000003 + piece * 101 + i)))
                : x;
    }
    return env;
  }
  at::Tensor mixture(const at::Tensor& quantized, const at::Tensor& exact, std::uint64_t seed) const {
    const at::Tensor a = quantized.to(at::kCPU, at::kFloat).contiguous(),
                     b = exact.to(at::kCPU, at::kFloat).contiguous();
    at::Tensor out = at::empty_like(a);
    const float *x = a.data_ptr<float>(), *y = b.data_ptr<float>();
    float* z = out.data_ptr<float>();
    const auto limit = static_cast<std::uint64_t>(o_.mix * 4294967296.0);
    for (std::int64_t i = 0, n = a.numel(); i < n; ++i)
      z[i] = (mixed(seed + static_cast<std::uint64_t>(i)) >> 32) < limit ? y[i] : x[i];
    return out.to(quantized.device());
  }
  Result<std::vector<at::Tensor>> outputs(std::size_t piece, const std::vector<at::Tensor>& values) const {
    Environment env = inputs(block_.pieces[piece], piece, -1), weights(env.size());
    for (std::size_t i = 0; i < weights_.size(); ++i)
      weights[static_cast<std::size_t>(weights_[i].id)] = values[i].to(runner_.device());
    RunHooks hooks;
    hooks.weights = &weights;
    QUANVAS_CHECK(runner_.run_nodes(block_.nodes, env, hooks));
    std::vector<at::Tensor> out;
    for (const TensorId id : block_.outputs) out.push_back(env[static_cast<std::size_t>(id)]);
    return out;
  }

  const Runner& runner_;
  const QuantizerMap& quantizers_;
  const Block& block_;
  const std::vector<BlockWeight>& weights_;
  const ReconstructOptions& o_;
  std::vector<Learned> learned_;
};

// Pieces in an order that is drawn anew whenever all have been used.
class Order {
 public:
  Order(std::size_t pieces, std::uint64_t seed) : order_(pieces), next_(pieces), seed_(seed) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
  }
  std::size_t take() {
    if (next_ == order_.size()) {
      for (std::size_t i = order_.size(); i > 1; --i)
        std::swap(order_[i - 1], order_[static_cast<std::size_t>(mixed(seed_ + i) % i)]);
      seed_ = mixed(seed_);
      next_ = 0;
    }
    return order_[next_++];
  }

 private:
  std::vector<std::size_t> order_;
  std::size_t next_;
  std::uint64_t seed_;
};

Result<ReconstructReport> learn(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                                std::vector<BlockWeight>& weights, const ReconstructOptions& o, JobContext& job) {
  Reconstruction r(runner, quantizers, block, weights, o);
  ReconstructReport report;
  std::vector<at::Tensor> best, nearest, original;
  std::int64_t choices = 0;
  for (const BlockWeight& w : weights) {
    best.push_back(w.start), nearest.push_back(w.nearest), original.push_back(w.original);
    for (std::size_t k = 0; k < w.h.size(); ++k) choices += w.upper[k] != w.lower[k];
  }
  QUANVAS_TRY(report.start, r.loss_of(best, job));
  QUANVAS_TRY(report.nearest, r.loss_of(nearest, job));
  if (o.gates) {
    QUANVAS_TRY(report.soft, r.loss_of_learned(false, job));
  }
  // A gap's error is a twelfth of its square on average: so that a weight's own share of the loss is about 1 for
  // the whole gap, as in core/algorithms/learned.h.
  QUANVAS_TRY(const double own, r.loss_of(nearest, job, &original));
  report.after = report.start;
  if (report.nearest < report.after) report.after = report.nearest, best = nearest;
  const double unit = own > 0 && choices > 0 ? static_cast<double>(choices) / (12 * own) : 0;
  if (unit > 0 && std::isfinite(unit) && std::isfinite(report.after)) {
    Workers crew(std::clamp(threads(), 1, kShards));
    Order order(block.pieces.size(), mixed(o.seed + 17));
    const int every = std::max(1, o.iterations / 10);
    const std::size_t shards = std::min<std::size_t>(kShards, block.pieces.size());
    std::vector<Status> worked(weights.size());
    const auto each_weight = [&](const std::function<void(std::size_t)>& f) -> Status {
      crew.run(static_cast<int>(weights.size()), [&](int i) {
        const auto at = static_cast<std::size_t>(i);
        worked[at] = guarded("weight", [&]() -> Status { f(at); return {}; });
      });
      for (const Status& status : worked) QUANVAS_CHECK(status);
      return {};
    };
    for (int step = 1; step <= o.iterations; ++step) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(each_weight([&](std::size_t i) { r.fill(i, false); }));
      r.make_leaves();
      std::vector<std::size_t> pieces;
      std::int64_t samples = 0;
      for (std::size_t s = 0; s < shards; ++s)
        pieces.push_back(order.take()), samples += block.pieces[pieces.back()].samples;
      std::vector<Result<double>> done(shards, 0.0);
      crew.run(static_cast<int>(shards), [&](int s) {
        const auto at = static_cast<std::size_t>(s);
        done[at] = guarded("block",
                           [&] { return r.piece_loss(pieces[at], s, unit / static_cast<double>(samples), step); });
      });
      bool finite = true;
      for (auto& loss : done) {
        if (!loss) return Failure(loss.error());
        finite = finite && std::isfinite(*loss);
      }
      if (!finite) break;
      QUANVAS_CHECK(each_weight([&](std::size_t i) {
        r.gather(i, shards);
        if (o.gates)
          r.step_gates(i, step);
        else
          r.step_signs(i, step);
      }));
      if (step % every != 0 && step != o.iterations) continue;
      // Gates that are not yet decided say little.
      if (o.gates && step < o.iterations / 2) continue;
      std::vector<at::Tensor> values;
      QUANVAS_TRY(const double loss, r.loss_of_learned(true, job, &values));
      if (loss < report.after) report.after = loss, best = std::move(values);
    }
    report.undecided = r.undecided();
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i].result = best[i];
    report.changed += (best[i] != weights[i].start).sum().item().toLong();
  }
  return report;
}

}  // namespace

Result<ReconstructReport> reconstruct(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                                      std::vector<BlockWeight>& weights, const ReconstructOptions& options,
                                      JobContext& job) {
  if (options.iterations < 0 || !(options.rate > 0) || !(options.regularization >= 0) ||
      !(options.warm_up >= 0 && options.warm_up <= 1) || !(options.mix >= 0 && options.mix <= 1))
    return fail(
        ErrorCode::kInvalidArgument,
        "Block reconstruction needs no fewer than 0 iterations, a rate above 0, a regularization of 0 at least, "
        "and a warm-up and a mixture from 0 to 1.");
  if (weights.empty() || block.pieces.empty() || block.outputs.empty())
    return fail(ErrorCode::kInvalidArgument, "The block has no weights, no samples or no output.");
  return guarded("block reconstruction", [&] { return learn(runner, quantizers, block, weights, options, job); });
}

Result<SoftLoss> soft_loss(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                           const std::vector<BlockWeight>& weights, const std::vector<std::vector<float>>& v,
                           std::size_t piece, double unit) {
  return guarded("block", [&]() -> Result<SoftLoss> {
    const ReconstructOptions options;
    Reconstruction r(runner, quantizers, block, weights, options);
    for (std::size_t i = 0; i < v.size(); ++i) r.learned()[i].v = v[i], r.fill(i, false);
    r.make_leaves();
    SoftLoss out;
    QUANVAS_TRY(out.loss, r.piece_loss(piece, 0, unit, -1));
    for (std::size_t i = 0; i < v.size(); ++i) {
      r.gather(i, 1);
      out.gradient.push_back(r.learned()[i].gradient);
    }
    return out;
  });
}

}  // namespace quanvas::exec
