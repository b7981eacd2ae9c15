// Quanvas - from a recipe to frozen quantizers: graph passes, plan, parameters.
#include <algorithm>
#include <chrono>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/base/mapped_file.h"
#include "core/exec/rebuild.h"
#include "core/quant/dynamic.h"
#include "core/quant/shared.h"
#include "core/quant/stored.h"
#include "core/recipe/pool_sum.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

TensorId tensor_of(const Prepared& prepared, const Site& site) {
  const Layer* layer = find_layer(prepared.layers, site.node);
  return layer ? site_tensor(*layer, site) : kNoTensor;
}

// The parameters that all these weights have, for one of this shape. A weight that several sites read counts once.
Result<quant::QuantParams> shared_weight_params(const Prepared& prepared, const std::vector<const SitePlan*>& sites,
                                                const Shape& shape) {
  std::vector<at::Tensor> keep;
  std::vector<quant::Values> values;
  std::set<TensorId> seen;
  for (const SitePlan* s : sites) {
    const TensorId id = tensor_of(prepared, s->site);
    if (id == kNoTensor || !seen.insert(id).second) continue;
    keep.push_back(weight_values(prepared, id));
    if (keep.back().defined()) values.emplace_back(keep.back().data_ptr<float>(), keep.back().numel());
  }
  const QuantSpec& spec = *sites[0]->spec;
  QUANVAS_TRY(quant::QuantParams params, quant::find_shared_params(spec, values));
  QUANVAS_TRY(params.layout, quant::make_layout(spec, shape, 0));
  return params;
}

quant::TensorStatistics joined_statistics(const Prepared& prepared, const std::vector<const SitePlan*>& sites,
                                          const quant::Statistics& statistics) {
  quant::TensorStatistics out;
  bool any = false;
  std::set<TensorId> seen;
  for (const SitePlan* s : sites) {
    const TensorId id = tensor_of(prepared, s->site);
    if (id == kNoTensor || !seen.insert(id).second) continue;
    const auto found = statistics.tensors.find(prepared.model->graph->tensor(id).name);
    if (found == statistics.tensors.end()) continue;
    if (any) out.join(found->second);
    else out = found->second;
    any = true;
  }
  return out;
}

// The quantizer of an output that loses its low bits. kUnsupported when there are no integers, or nothing that says
// how many bits they may lose.
Result<quant::QuantParams> truncated_output(const Prepared& prepared, const SitePlan& site,
                                            const quant::Statistics* statistics,
                                            const exec::QuantizerMap& quantizers) {
  const Graph& graph = *prepared.model->graph;
  const Layer& layer = *find_layer(prepared.layers, site.site.node);
  float threshold = 0;
  if (site.spec->truncation == Truncation::kStatistic) {
    const std::string& name = graph.tensor(layer.output).name;
    const auto found = statistics ? statistics->tensors.find(name) : decltype(statistics->tensors.end())();
    if (!statistics || found == statistics->tensors.end())
      return fail(ErrorCode::kUnsupported, "Calibration never saw '" + name + "'.");
    QUANVAS_TRY(threshold, quant::find_threshold(*site.spec, found->second));
  }
  return exec::truncation(graph, layer, *site.spec, threshold, quantizers);
}

// The parameters that the model's file gives; none: it gives none for this site, format and tensor, and `why` says so
// where something else was given.
std::optional<quant::QuantParams> params_of_file(const Prepared& prepared, const SitePlan& site, std::string& why) {
  const Graph& graph = *prepared.model->graph;
  const Layer* layer = find_layer(prepared.layers, site.site.node);
  const TensorId id = layer ? site_tensor(*layer, site.site) : kNoTensor;
  if (id == kNoTensor || !site.spec || site.spec->source != ScaleSource::kStored) return std::nullopt;
  const Node& node = *graph.find(site.site.node);
  const WeightStore& weights = *prepared.model->weights;
  why = "the model file gives no scale for it";
  const auto stored = quant::find_stored(weights, quant::stored_key(node.name, site.site));
  if (!stored) return std::nullopt;
  const TensorData* data = graph.tensor(id).is_initializer ? weights.find(graph.tensor(id).name) : nullptr;
  auto params = quant::stored_params(*site.spec, data ? data->shape : graph.tensor(id).shape.value_or(Shape{}),
                                     data && !stored->values.empty() ? data->content_hash() : std::string(),
                                     exec::site_axis(*layer, node, *site.spec, site.site.kind), *stored);
  if (params) return std::move(*params);
  why = params.error().message;
  return std::nullopt;
}

Failure fail_at(const std::string& where, Error e) {
  e.context = e.context.empty() ? where : where + ": " + e.context;
  return Failure(std::move(e));
}

bool is_large(const WeightStore& weights) {
  std::uint64_t bytes = 0;
  for (const auto& [name, data] : weights.all()) bytes += data.bytes;
  return bytes >= kMapFrom;
}

bool has_integer_zero_point(const quant::QuantParams& p) { return !p.zero_point.empty(); }

}  // namespace

bool has_params_of_file(const Prepared& prepared, const SitePlan& site) {
  std::string why;
  return params_of_file(prepared, site, why).has_value();
}

Status FloatRunner::make(ModelPtr model, const std::string& device, bool later) {
  model_ = std::move(model);
  device_ = device;
  if (later) return {};
  QUANVAS_TRY(runner_, exec::Runner::create(model_, nullptr, device_));
  return {};
}

const exec::Runner& FloatRunner::get() const {
  std::call_once(once_, [this] {
    if (runner_) return;
    auto made = exec::Runner::create(model_, nullptr, device_);
    if (!made) throw std::runtime_error(made.error().text());
    runner_ = std::move(*made);
  });
  return *runner_;
}

// Two recipes whose graph passes agree share the prepared model.
std::string WorkbenchState::passes_key(const Recipe& recipe, const Prepared& prepared, const std::string& data_hash) {
  Hasher h;
  for (const auto& entry : recipe.passes) {
    const Pass* pass = Registry<Pass>::instance().find(entry.id);
    if (entry.enabled && pass && pass->stage() == PassStage::kGraph) h.text(entry.id).text(entry.options.dump()).text(to_json_text(entry.select));
  }
  if (prepared.uses_data) h.text(data_hash).number(recipe.calibration.samples).number(recipe.calibration.seed);
  if (prepared.uses_plan) h.text(to_json_text(recipe.rules));
  return h.hex();
}

std::string WorkbenchState::calibration_hash() const {
  const Data d = data();
  return d.calibrate ? d.calibrate->hash() : "";
}

std::optional<std::string> WorkbenchState::known_measurement(const std::string& key) {
  std::lock_guard lock(measurements_mutex_);
  if (const auto it = measurements_.find(key); it != measurements_.end()) return it->second;
  const auto artifact = project_->value("measured/" + key);
  if (!artifact || artifact->empty()) return std::nullopt;
  auto bytes = project_->artifact(*artifact);
  if (!bytes) return std::nullopt;
  return measurements_[key] = std::move(*bytes);
}

void WorkbenchState::keep_measurement(const std::string& key, const std::string& bytes, JobContext& job) {
  {
    std::lock_guard lock(measurements_mutex_);
    measurements_[key] = bytes;
  }
  if (project_->read_only()) return;
  const auto keep = [&]() -> Status {
    QUANVAS_TRY(const std::string artifact, project_->put_artifact(bytes));
    return project_->set_value("measured/" + key, artifact);
  };
  if (const Status status = keep(); !status)
    job.issue({Severity::kWarning, project_->path(), "What a pass has measured was not stored: " + status.error().message,
               "It holds as long as the project is open; later it is measured again."});
}

Result<std::shared_ptr<Prepared>> WorkbenchState::apply_graph_passes(const Recipe& recipe, bool may_measure, JobContext& job) {
  auto prepared = std::make_shared<Prepared>();
  int number = -1;  // of the pass among those of its kind
  bool is_pending = false;
  JobContext passes(job.stop_token(), [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); },
                    [&](const Issue& issue) { prepared->issues.push_back({number, issue, is_pending}); });
  const Data d = data();
  // Bytes of another version of a pass are not its own.
  constexpr const char* kMeasurements = "1";
  PassContext context;
  context.model = model_;
  context.device = options_.device;
  context.calibration_data = d.calibrate;
  if (d.calibrate)
    context.calibration_samples = choose_samples(d.calibrate->size(), recipe.calibration.samples, recipe.calibration.seed);
  context.plan = [&]() -> Result<Plan> {
    prepared->uses_plan = true;
    return resolve(*context.model->graph, recipe, PresetLibrary::builtin());
  };
  QUANVAS_TRY(const auto chosen, chosen_passes(recipe, /*before_calibration=*/true));
  for (const auto& [index, entry_of, pass, options] : chosen) {
    const PassEntry& entry = *entry_of;
    const std::string title = pass->info().title;
    const auto failed = [&title = title](Error e) {
      if (e.code == ErrorCode::kCancelled) return Failure(std::move(e));
      e.context = title + (e.context.empty() ? "" : ": " + e.context);
      return Failure(std::move(e));
    };
    ++number;
    is_pending = false;
    if (!(entry.select == Selector{}))
      return failed({ErrorCode::kInvalidArgument, title + ": it changes the network as a whole and cannot be limited to layers.",
                     "Remove 'select' from the pass.", {}});
    const auto remember = [&](const std::string& what, const PassContext::Compute& compute, const PassContext::IsGood& is_good, bool with_data) -> Result<std::string> {
      Hasher hasher;
      hasher.text(kMeasurements).text(entry.id).text(context.model->graph->hash()).text(context.model->weights->hash()).text(what);
      if (with_data) {
        prepared->uses_data = true;
        prepared->data_hash = d.calibrate ? d.calibrate->hash() : "";
        hasher.text(prepared->data_hash).number(recipe.calibration.samples).number(recipe.calibration.seed);
      }
      const std::string key = hasher.hex();
      if (auto known = known_measurement(key); known && is_good(*known)) return std::move(*known);
      if (!may_measure) {
        is_pending = true;
        return fail(ErrorCode::kUnsupported, "It was not computed yet.");
      }
      if (with_data && !d.calibrate) return no_data(title + " needs calibration data", d.calibrate_error, "Declare a data set for calibration.");
      QUANVAS_TRY(std::string bytes, compute(passes));
      keep_measurement(key, bytes, job);
      return bytes;
    };
    context.measured = [&](const std::string& what, const PassContext::Compute& compute, const PassContext::IsGood& is_good) { return remember(what, compute, is_good, true); };
    context.computed = [&](const std::string& what, const PassContext::Compute& compute, const PassContext::IsGood& is_good) { return remember(what, compute, is_good, false); };
    const auto start = std::chrono::steady_clock::now();
    Result<std::string> summary = pass->apply(context, options, passes);
    if (!summary && is_pending) {
      prepared->is_pending = true;
      passes.issue({Severity::kInfo, title, "It takes a while, so it is done when the recipe runs; until then figures are without it.", ""});
      continue;
    }
    if (!summary) return failed(summary.error());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    prepared->reports.push_back({entry.id, title, std::move(*summary), took.count(), std::exchange(context.measure, {}),
                                 std::exchange(context.layers, {})});
  }
  prepared->model = context.model;
  return prepared;
}

// Whoever asks hears the issues, not only the one who came first.
Result<PreparedPtr> WorkbenchState::known_prepared(const Recipe& recipe, JobContext& job) {
  if (!prepared_ || prepared_key_ != passes_key(recipe, *prepared_, prepared_->uses_data ? calibration_hash() : "")) return PreparedPtr();
  for (const RecipeIssue& issue : prepared_->issues) job.issue(issue.issue);
  return prepared_;
}

Result<PreparedPtr> WorkbenchState::keep_prepared(const Recipe& recipe, std::shared_ptr<Prepared> prepared, JobContext& job) {
  prepared->layers = find_layers(*prepared->model->graph);
  prepared->hash = prepared->model == model_
                       ? model_hash_
                       : Hasher().text(prepared->model->graph->hash()).text(prepared->model->weights->hash()).hex();
  QUANVAS_CHECK(prepared->runner.make(prepared->model, options_.device, is_large(*prepared->model->weights)));
  // Under the data that it was made with, which may have been replaced meanwhile.
  prepared_key_ = passes_key(recipe, *prepared, prepared->data_hash);
  prepared_ = std::move(prepared);
  for (const RecipeIssue& issue : prepared_->issues) job.issue(issue.issue);
  return prepared_;
}

Result<PreparedPtr> WorkbenchState::prepare(const Recipe& recipe, JobContext& job) {
  std::lock_guard lock(cache_mutex_);
  return guarded("prepare", [&]() -> Result<PreparedPtr> {
    QUANVAS_TRY(PreparedPtr known, known_prepared(recipe, job));
    if (known) return known;
    QUANVAS_TRY(auto prepared, apply_graph_passes(recipe, /*may_measure=*/false, job));
    return keep_prepared(recipe, std::move(prepared), job);
  });
}

Result<PreparedPtr> WorkbenchState::prepare_whole(const Recipe& recipe, JobContext& job) {
  std::vector<Issue> issues;
  JobContext held(job.stop_token(), [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); },
                  [&](const Issue& issue) { issues.push_back(issue); });
  QUANVAS_TRY(PreparedPtr prepared, prepare(recipe, held));
  if (!prepared->is_pending) {
    for (const Issue& issue : issues) job.issue(issue);
    return prepared;
  }
  return guarded("prepare", [&]() -> Result<PreparedPtr> {
    QUANVAS_TRY(auto measured, apply_graph_passes(recipe, /*may_measure=*/true, job));
    std::lock_guard lock(cache_mutex_);
    return keep_prepared(recipe, std::move(measured), job);
  });
}

Result<std::shared_ptr<const Plan>> WorkbenchState::plan_for(const PreparedPtr& prepared, const Recipe& recipe) {
  std::lock_guard lock(cache_mutex_);
  if (plan_ && plan_prepared_ == prepared && plan_recipe_ == recipe) return plan_;
  QUANVAS_TRY(Plan plan, resolve(*prepared->model->graph, recipe, PresetLibrary::builtin()));
  plan_ = std::make_shared<const Plan>(std::move(plan));
  plan_prepared_ = prepared;
  plan_recipe_ = recipe;
  return plan_;
}

Result<exec::QuantizerMap> WorkbenchState::quantizers(const Prepared& prepared, const Plan& plan,
                                                      const quant::Statistics* statistics, JobContext& job, FoundQuantizers* known) const {
  const Graph& graph = *prepared.model->graph;
  exec::QuantizerMap out;
  const std::string values = prepared.hash + "/" + (statistics ? statistics->key : "");
  const auto question = [&](const SitePlan& s, const std::map<std::string, std::vector<const SitePlan*>>& shared) {
    FoundQuantizers::Question q{values, s.site, *s.spec, {}};
    if (!s.share.empty())
      for (const SitePlan* mate : shared.at(s.share)) q.mates.push_back(mate->site);
    return q;
  };
  // The plan lists the sites in the order of the layers.
  auto at = prepared.layers.begin();
  const auto layer_of = [&](NodeId node) -> const Layer* {
    const auto is_it = [&](const Layer& l) { return l.node == node; };
    auto found = std::find_if(at, prepared.layers.end(), is_it);
    if (found == prepared.layers.end()) found = std::find_if(prepared.layers.begin(), prepared.layers.end(), is_it);
    if (found == prepared.layers.end()) return nullptr;
    at = found;
    return &*found;
  };
  std::map<std::string, std::vector<const SitePlan*>> shared;
  for (const auto& s : plan.sites)
    if (s.spec && !s.share.empty()) shared[s.share].push_back(&s);
  std::vector<const SitePlan*> truncations, biases;
  for (const auto& planned : plan.sites) {
    if (!planned.spec) continue;
    QUANVAS_CHECK(job.check());
    SitePlan site_plan = planned;
    const Site& site = site_plan.site;
    const Layer* layer = layer_of(site.node);
    const Node* node = graph.find(site.node);
    const TensorId id = layer ? site_tensor(*layer, site) : kNoTensor;
    if (id == kNoTensor) continue;
    const TensorInfo& tensor = graph.tensor(id);
    const std::string where = node->name + " " + enum_text(site.kind);
    if (site.kind == SiteKind::kBias && site_plan.spec->scale_from_accumulator) {
      biases.push_back(&planned);
      continue;
    }
    if (site_plan.spec->truncation != Truncation::kNone) {
      truncations.push_back(&planned);
      continue;
    }
    if (site_plan.spec->source == ScaleSource::kStored) {
      std::string why;
      if (auto params = params_of_file(prepared, site_plan, why)) {
        out[site] = std::move(*params);
        continue;
      }
      if (statistics || tensor.is_initializer)
        job.issue({Severity::kInfo, where, "Its scale comes from the statistic: " + why + ".", ""});
      site_plan.spec->source = ScaleSource::kStatistics;
    }
    if (known)
      if (auto before = known->find(question(site_plan, shared))) {
        before->share = site_plan.share;
        out[site] = std::move(*before);
        continue;
      }
    const int axis = exec::site_axis(*layer, *node, *site_plan.spec, site.kind);
    Result<quant::QuantParams> params = fail(ErrorCode::kInternal, "");
    if (tensor.is_initializer) {
      const at::Tensor values = weight_values(prepared, id);
      if (!values.defined())
        return fail(ErrorCode::kCorrupt, where + ": the model holds no data for '" + tensor.name + "'.");
      const Shape shape(values.sizes().begin(), values.sizes().end());
      params = site_plan.share.empty() ? quant::find_params(*site_plan.spec, shape, values.data_ptr<float>(), axis)
                                       : shared_weight_params(prepared, shared[site_plan.share], shape);
    } else if (site_plan.spec->source == ScaleSource::kDynamic) {
      params = quant::dynamic_params(*site_plan.spec, axis);
    } else {
      if (!statistics) continue;
      const auto found = statistics->tensors.find(tensor.name);
      if (found == statistics->tensors.end()) {
        job.issue({Severity::kWarning, where, "Stays float: calibration never saw '" + tensor.name + "'.", ""});
        continue;
      }
      params = quant::find_params(*site_plan.spec, tensor.shape.value_or(Shape{}),
                                  site_plan.share.empty() ? found->second
                                                          : joined_statistics(prepared, shared[site_plan.share], *statistics),
                                  axis);
    }
    if (!params) return fail_at(where, params.error());
    if (known) known->keep(question(site_plan, shared), *params);
    params->share = site_plan.share;
    out[site] = std::move(*params);
  }
  // Truncated outputs, in graph order: their scale is that of the input's codes.
  for (const SitePlan* site_plan : truncations) {
    auto params = truncated_output(prepared, *site_plan, statistics, out);
    if (!params && params.error().code == ErrorCode::kUnsupported && !statistics) continue;  // not calibrated yet
    const std::string where = graph.find(site_plan->site.node)->name + " output";
    if (!params && params.error().code == ErrorCode::kUnsupported)
      job.issue({Severity::kWarning, where, "Stays float. " + params.error().message, params.error().hint});
    else if (!params)
      return fail_at(where, params.error());
    else
      out[site_plan->site] = std::move(*params);
  }
  // Biases last: their scale is the product of the input's and the weight's.
  for (const SitePlan* site_plan : biases) {
    const Site& site = site_plan->site;
    const Layer* layer = layer_of(site.node);
    const auto has = [&](const Site& s) { return out.count(s) > 0; };
    if (!statistics && quantized_input(graph, *layer, has).node == kNoNode) continue;  // not calibrated yet
    const std::string where = graph.find(site.node)->name + " bias";
    auto params = exec::accumulator_bias(*prepared.model, *layer, *site_plan->spec, out);
    if (!params && params.error().code != ErrorCode::kUnsupported) return Failure(params.error());
    if (!params) {
      job.issue({Severity::kWarning, where, "Stays float. " + params.error().message, params.error().hint});
      continue;
    }
    if (has_integer_zero_point(out.at({site.node, SiteKind::kWeight, 0})))
      job.issue({Severity::kInfo, where, "The weight has a zero point; integer targets need a correction term.", ""});
    out[site] = std::move(*params);
  }
  return out;
}

NetworkSize network_size(const Graph& graph, const std::vector<Layer>& layers, const exec::QuantizerMap& quantizers) {
  NetworkSize size;
  const auto find = [&](const Site& site) {
    const auto it = quantizers.find(site);
    return it == quantizers.end() ? nullptr : &it->second;
  };
  const auto bits_of = [&](const Site& site) {
    const quant::QuantParams* q = find(site);
    return q ? static_cast<double>(code_bits(q->spec)) : 32.0;
  };
  // Given to what the layer reads, there or by the layer before.
  const auto input_bits = [&](const Layer& layer, std::size_t operand) {
    if (const Site own{layer.node, SiteKind::kInput, static_cast<int>(operand)}; find(own)) return bits_of(own);
    Layer reader;
    if (operand < layer.inputs.size()) reader.inputs = {layer.inputs[operand]};
    return bits_of(quantized_input(graph, reader, [&](const Site& s) { return find(s) != nullptr; }));
  };
  // A tensor that several layers read is stored once, or once in each form that they give it.
  std::map<TensorId, std::vector<const quant::QuantParams*>> stored;
  const auto is_same = [](const quant::QuantParams* a, const quant::QuantParams* b) {
    return a == b || (a && b && a->spec == b->spec && a->scale == b->scale && a->zero_point == b->zero_point &&
                       a->code_scale == b->code_scale && a->center == b->center && a->rounding == b->rounding);
  };
  for (const Layer& layer : layers) {
    const Node& node = *graph.find(layer.node);
    for (const Site& site : layer.sites()) {
      if (is_activation(site.kind)) continue;
      const TensorId id = site_tensor(layer, site);
      if (id == kNoTensor || !graph.tensor(id).is_initializer) continue;
      const quant::QuantParams* q = find(site);
      auto& forms = stored[id];
      const double n = static_cast<double>(element_count(graph.tensor(id).shape.value_or(Shape{})));
      if (forms.empty()) size.bytes_float += 4 * n;
      if (std::any_of(forms.begin(), forms.end(), [&](const auto* form) { return is_same(form, q); })) continue;
      forms.push_back(q);
      size.bytes += q ? quant::stored_bytes(*q, n) : 4 * n;
    }
    if (layer.kind != LayerKind::kCompute) continue;
    double weight_bits = 0;  // of the mean weight
    // Of two activations the second stands where the weight would.
    if (layer.weights() == 0) weight_bits = input_bits(layer, 1);
    for (std::size_t i = 0; i < layer.weights(); ++i)
      weight_bits += bits_of({layer.node, SiteKind::kWeight, static_cast<int>(i)}) / static_cast<double>(layer.weights());
    size.bops += node_cost(graph, node).macs * weight_bits * input_bits(layer, 0);
  }
  // Branches in float that passes put beside layers: stored and computed, too, though no format is given to them.
  for (const Node& node : graph.nodes()) {
    if (node.op != "Einsum" || !node.domain.empty()) continue;
    for (const TensorId id : node.inputs) {
      if (id == kNoTensor || !graph.tensor(id).is_initializer || stored.count(id)) continue;
      const double bytes = 4.0 * static_cast<double>(element_count(graph.tensor(id).shape.value_or(Shape{})));
      size.bytes += bytes;
      size.bytes_float += bytes;
    }
    constexpr double kFloatBits = 32;
    size.bops += node_cost(graph, node).macs * kFloatBits * kFloatBits;
  }
  return size;
}

}  // namespace quanvas
