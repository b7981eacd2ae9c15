#include "plugins/passes/rounding.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/exec/chunks.h"
#include "core/exec/rebuild.h"
#include "core/graph/memory.h"
#include "core/recipe/pool_sum.h"
#include "plugins/passes/edit.h"
#include "plugins/passes/finished_part.h"
#include "plugins/passes/front.h"
#include "plugins/passes/rounding_checks.h"

namespace quanvas::rounding {
namespace {

using algorithms::Gram;
using algorithms::RoundingReport;
using exec::Environment;

Targets targets_of(const PassContext& ctx, const Method& method) {
  Targets found = find_targets(ctx);
  if (method.tune)
    leave_fixed_scales(found, [&](const Site& site) -> std::pair<const QuantSpec*, std::string> {
      const quant::QuantParams& params = ctx.quantized.quantizers.at(site);
      return {&params.spec, params.share};
    });
  return found;
}

class Walk {
 public:
  Walk(PassContext& ctx, const json& options, JobContext& job, const Method& method)
      : ctx_(ctx), job_(job), method_(method), quantized_inputs_(wants_quantized(options)),
        both_(method.both_inputs && quantized_inputs_) {}

  Result<std::string> run(const json& options) {
    Targets found = targets_of(ctx_, method_);
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
    for (const auto& [name, r] : reports_) {
      std::string text = note(r);
      if (const auto own = notes_.find(name); own != notes_.end()) text += (text.empty() ? "" : "; ") + own->second;
      ctx_.layers.push_back({name, r.before, r.after, text});
    }
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
    const std::int64_t fits = std::max<std::int64_t>(exec::kChunkSize, kKeptActivations / networks / live_bytes(*ctx_.quantized.model->graph));
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
    quant::QuantParams params = ctx_.quantized.quantizers.at(target.weight_site());
    std::vector<float> now = ctx_.quantized.model->weights->find(name)->to_floats();
    RoundingReport total;
    if (method_.tune) {
      QUANVAS_TRY(total, tune(target, grams, shared, now, params));
      std::vector<float> rounded(now.size());
      quant::fake_quantize(params, params.layout, now.data(), rounded.data());
      now = std::move(rounded);
    } else {
      const std::vector<float> before = original_->weights->find(name)->to_floats();
      QUANVAS_TRY(total, round_groups(target, grams, shared, before, now, params));
    }
    if (method_.on_grid) QUANVAS_CHECK(check_kept(target.name, params, now));
    if (ctx_.finish_part && weights_alone()) ctx_.finish_part(target.name, pack(total, now));
    take(target, total, now);
    if (!weights_alone()) params_[target.weight_site()] = std::move(params);
    return {};
  }

  // now: the layer's weights, which are replaced.
  Result<RoundingReport> round_groups(const Target& target, const std::vector<Gram>& grams, std::vector<std::any>& shared,
                                      const std::vector<float>& before, std::vector<float>& now, quant::QuantParams& params) {
    RoundingReport total;
    std::string fixed = method_.moves_scales ? scale_problem(params.spec, params.share) : "";
    // Groups are rounded one after the other: the first would leave its grid when the second moves it.
    if (method_.moves_scales && fixed.empty() && groups_share_scales(target, params)) fixed = "one scale serves several groups";
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
      if (method_.moves_scales && fixed.empty()) group.params = &params;
      group.view = view;
      QUANVAS_TRY(const RoundingReport report, method_.round(group));
      total.before += report.before;
      total.after += report.after;
      total.dead += report.dead;
      total.retries = std::max(total.retries, report.retries);
      total.used = std::max(total.used, report.used);
      total.bounded += report.bounded;
      if (!group.note.empty()) notes_[target.name] = group.note;
      for (std::int64_t r = 0; r < view.rows; ++r)
        for (std::int64_t c = 0; c < view.columns; ++c)
          now[static_cast<std::size_t>(view.element(r, c))] = w[static_cast<std::size_t>(r * view.columns + c)];
    }
    if (!fixed.empty()) notes_[target.name] = "its range stays: " + fixed;
    return total;
  }

  static bool groups_share_scales(const Target& target, const quant::QuantParams& params) {
    std::map<std::int64_t, std::int64_t> group_of;  // by parameter
    for (std::int64_t g = 0; g < target.groups; ++g) {
      const quant::MatrixView view = target.view(g);
      for (std::int64_t r = 0; r < view.rows; ++r)
        for (std::int64_t c = 0; c < view.columns; ++c)
          if (group_of.try_emplace(quant::parameter_of(params.layout, view.element(r, c)), g).first->second != g) return true;
    }
    return false;
  }

  void take(const Target& target, const RoundingReport& report, const std::vector<float>& weights) {
    reports_.push_back({target.name, report});
    const at::Tensor values = at::tensor(weights, at::kFloat).reshape(target.shape);
    overrides_[static_cast<std::size_t>(target.layer.weight)] = values.to(ctx_.device);
    if (!method_.tune) results_[target.layer.weight] = values;
  }

  // Whether a layer's weights are all that the method changes.
  bool weights_alone() const { return !method_.tune && !method_.moves_scales; }

  static constexpr std::size_t kReportNumbers = 7;
  std::string pack(const RoundingReport& r, const std::vector<float>& weights) const {
    return pack_part({r.before, r.after, static_cast<double>(r.retries), static_cast<double>(r.dead), r.used, static_cast<double>(r.bounded),
                      static_cast<double>(outer_bits_)},
                     {weights});
  }

  // Whether a run that was stopped has finished all of these, with values that their quantizers keep. Then they are taken.
  bool take_finished(const std::vector<const Target*>& targets) {
    if (!ctx_.finished_part || !weights_alone()) return false;
    std::vector<std::pair<RoundingReport, std::vector<float>>> found;
    int outer_bits = 0;
    for (const Target* target : targets) {
      const auto bytes = ctx_.finished_part(target->name);
      std::vector<double> numbers(kReportNumbers);
      std::vector<std::vector<float>> weights(1);
      weights[0].resize(static_cast<std::size_t>(element_count(target->shape)));
      if (!bytes || !unpack_part(*bytes, numbers, weights)) return false;
      if (method_.on_grid && !check_kept(target->name, ctx_.quantized.quantizers.at(target->weight_site()), weights[0])) return false;
      RoundingReport r;
      r.before = numbers[0], r.after = numbers[1], r.retries = static_cast<int>(numbers[2]), r.dead = static_cast<std::int64_t>(numbers[3]);
      r.used = numbers[4], r.bounded = static_cast<std::int64_t>(numbers[5]), outer_bits = std::max(outer_bits, static_cast<int>(numbers[6]));
      found.emplace_back(r, std::move(weights[0]));
    }
    for (std::size_t i = 0; i < targets.size(); ++i) take(*targets[i], found[i].first, found[i].second);
    outer_bits_ = std::max(outer_bits_, outer_bits);
    resumed_ += targets.size();
    return true;
  }

  Result<RoundingReport> tune(const Target& target, const std::vector<Gram>& grams, std::vector<std::any>& shared, const std::vector<float>& now,
                              quant::QuantParams& params) {
    Whole whole;
    for (std::int64_t g = 0; g < target.groups; ++g) {
      whole.views.push_back(target.view(g));
      whole.w.push_back(matrix(now, whole.views.back()));
    }
    whole.grams = &grams;
    whole.shared = &shared;
    whole.params = &params;
    whole.stop = job_.stop_token();
    QUANVAS_TRY(const RoundingReport report, method_.tune(whole));
    if (!whole.note.empty()) notes_[target.name] = whole.note;
    return report;
  }

  Status store() {
    const ModelPtr before = ctx_.quantized.model;
    if (!params_.empty()) {
      exec::QuantizerMap quantizers = ctx_.quantized.quantizers;
      for (const auto& [site, params] : params_) quantizers.at(site) = params;
      // Biases at the accumulator's scale follow.
      for (const Layer& layer : find_layers(*before->graph))
        if (layer.bias != kNoTensor && params_.count({layer.node, SiteKind::kWeight, 0})) QUANVAS_CHECK(exec::rebuild_bias(*before, layer, quantizers));
      ctx_.quantized.quantizers = std::move(quantizers);
    }
    if (method_.tune) return {};
    ctx_.quantized.model = with_weights(before, results_);
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
  exec::QuantizerMap params_;                  // of layers whose scales the method has chosen
  std::map<std::string, std::string> notes_;   // of a layer, by name
  int outer_bits_ = 0;  // of the sums of tiles, the most of all layers
  std::size_t resumed_ = 0;  // layers that a stopped run had finished
  std::vector<std::pair<std::string, RoundingReport>> reports_;
};

}  // namespace

Result<std::string> run(PassContext& ctx, const json& options, JobContext& job, const Method& method) {
  // A recipe was asked before; passes since then may have changed the graph.
  for (const Issue& issue : problems(*ctx.quantized.model->graph, ctx.calibration_data != nullptr, targets_of(ctx, method), method.title))
    if (issue.severity == Severity::kError) return fail(ErrorCode::kInvalidArgument, method.title + ": " + issue.message, issue.hint);
  return guarded(method.title, [&]() -> Result<std::string> { return Walk(ctx, options, job, method).run(options); });
}

}  // namespace quanvas::rounding
