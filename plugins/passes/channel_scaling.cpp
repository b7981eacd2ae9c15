#include "plugins/passes/channel_scaling.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ATen.h>

#include "core/algorithms/rounding.h"
#include "core/base/json.h"
#include "core/exec/chunks.h"
#include "core/exec/rebuild.h"
#include "core/graph/memory.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas::scaling {
namespace {

constexpr double kLeastFactor = 1e-6;   // no pass makes smaller ones, or larger than 1 / it
constexpr double kMostBytes = 1 << 30;  // of moments that are kept at a time
constexpr double kMostActivations = 1 << 30;

bool is_convolution(const Node& node) { return node.op == "Conv" || node.op == "ConvTranspose"; }

// Samples that go through the network at once.
std::int64_t chunk_size(const Graph& graph) {
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(kMostActivations / static_cast<double>(std::max<std::int64_t>(1, live_bytes(graph)))), 1, exec::kChunkSize);
}

Failure in_layer(const std::string& name, Error e) {
  if (e.context.empty() && e.code != ErrorCode::kCancelled) e.context = name;
  return Failure(std::move(e));
}

Status one_input(const Graph& graph) {
  if (graph.inputs().size() == 1) return {};
  return fail(ErrorCode::kInvalidArgument, "The network has several inputs, and the calibration data gives one.", "Leave out passes that look at the data.");
}

struct Sums {
  std::vector<double> absmax, magnitudes, sum, squares;
  double count = 0;  // values of each channel
};

Result<Sums> sums_of(const at::Tensor& value, int axis, const std::string& name) {
  const at::Tensor x = value.to(at::kCPU, at::kFloat).contiguous();
  if (x.dim() == 0 || axis >= x.dim()) return fail(ErrorCode::kUnsupported, "'" + name + "' has no channels.");
  const std::int64_t at = axis < 0 ? x.dim() - 1 : axis, channels = x.size(at);
  std::int64_t outer = 1, inner = 1;
  for (std::int64_t d = 0; d < x.dim(); ++d) (d < at ? outer : inner) *= d == at ? 1 : x.size(d);
  const std::vector<double> none(static_cast<std::size_t>(channels));
  Sums out{none, none, none, none, static_cast<double>(outer * inner)};
  const float* p = x.data_ptr<float>();
  std::vector<float> absmax(static_cast<std::size_t>(channels));
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t c = 0; c < channels; ++c) {
      float most = absmax[static_cast<std::size_t>(c)];
      double magnitudes = 0, sum = 0, squares = 0;
      for (std::int64_t i = 0; i < inner; ++i, ++p) {
        const float magnitude = std::fabs(*p);
        if (!(magnitude <= 3.4028235e38f))
          return fail(ErrorCode::kInvalidArgument, "'" + name + "' is not finite on the calibration samples.", "Look at the samples and at the layers before it.");
        most = std::max(most, magnitude);
        magnitudes += magnitude;
        sum += *p;
        squares += static_cast<double>(*p) * *p;
      }
      const auto at_channel = static_cast<std::size_t>(c);
      absmax[at_channel] = most;
      out.magnitudes[at_channel] += magnitudes;
      out.sum[at_channel] += sum;
      out.squares[at_channel] += squares;
    }
  out.absmax.assign(absmax.begin(), absmax.end());
  return out;
}

}  // namespace

Field method_field() {
  return choice_field("method", "Where", "The division goes into the layers before, or a multiplication is put in front of the layer.", "fused",
                      {{"fused", "Into the layers before", "Only where that is exact; costs nothing at run time."},
                       {"layerwise", "A multiplication in front of each layer", "Everywhere; one more operation per input."},
                       {"both", "Into the layers before, else a multiplication", ""}});
}

Regions find_regions(const Model& model, const std::string& method) {
  const bool fused = method != "layerwise", layerwise = method != "fused";
  Regions out;
  ChannelRegions found = find_channel_regions(model);
  out.layers = std::move(found.layers);
  std::set<std::size_t> done;
  for (ChannelRegion& region : found.regions) {
    if (!fused) break;
    done.insert(region.sinks.begin(), region.sinks.end());
    out.regions.push_back({std::move(region.channels), std::move(region.sinks), kNoTensor});
  }
  if (!layerwise) {
    out.left = std::move(found.left);
    return out;
  }
  std::map<std::pair<TensorId, bool>, std::size_t> by_input;
  for (std::size_t i = 0; i < out.layers.size(); ++i) {
    const ChannelWeight& layer = out.layers[i];
    if (layer.inputs() == 0 || done.count(i)) continue;
    const TensorId input = layer.node().input(0);
    if (model.graph->tensor(input).is_initializer) continue;
    const auto [it, fresh] = by_input.try_emplace({input, is_convolution(layer.node())}, out.regions.size());
    if (fresh) {
      Region region;
      region.input = input;
      region.channels.resize(static_cast<std::size_t>(layer.inputs()));
      out.regions.push_back(std::move(region));
    }
    Region& region = out.regions[it->second];
    if (static_cast<std::size_t>(layer.inputs()) != region.channels.size()) continue;  // one of both cannot run
    region.sinks.push_back(i);
    for (std::int64_t c = 0; c < layer.inputs(); ++c) region.channels[static_cast<std::size_t>(c)].sinks.push_back({i, c});
  }
  return out;
}

Result<std::map<TensorId, ChannelMoments>> measure_inputs(const PassContext& ctx, const Regions& regions, JobContext& job) {
  std::map<TensorId, int> axes;
  for (const Region& region : regions.regions)
    for (const std::size_t sink : region.sinks) {
      const Node& node = regions.layers[sink].node();
      axes[node.input(0)] = is_convolution(node) ? 1 : -1;
    }
  return measure_channels(ctx, axes, job);
}

Result<std::map<TensorId, ChannelMoments>> measure_channels(const PassContext& ctx, const std::map<TensorId, int>& axes, JobContext& job) {
  const Graph& graph = *ctx.model->graph;
  QUANVAS_CHECK(one_input(graph));
  QUANVAS_TRY(const auto runner, exec::Runner::create(ctx.model, nullptr, ctx.device));
  using Found = std::map<TensorId, Sums>;
  Found total;
  QUANVAS_CHECK(exec::for_each_chunk<Found>(
      *ctx.calibration_data, ctx.calibration_samples, ctx.device, job, "channels",
      [&](exec::Chunk& chunk) -> Result<Found> {
        Found out;
        Status trouble;
        exec::RunHooks hooks;
        hooks.tap = [&](TensorId id, const at::Tensor& value) {
          const auto wanted = axes.find(id);
          if (wanted == axes.end() || out.count(id) || !trouble) return;
          auto sums = sums_of(value, wanted->second, graph.tensor(id).name);
          if (sums) out[id] = std::move(*sums);
          else trouble = Failure(sums.error());
        };
        QUANVAS_CHECK(runner->run({chunk.input}, hooks));
        QUANVAS_CHECK(trouble);
        return out;
      },
      [&](std::int64_t, Found& found) -> Status {
        for (auto& [id, sums] : found) {
          const auto [it, fresh] = total.try_emplace(id, std::move(sums));
          if (fresh) continue;
          if (it->second.sum.size() != sums.sum.size())
            return fail(ErrorCode::kUnsupported, "'" + graph.tensor(id).name + "' has another number of channels on other samples.");
          it->second.count += sums.count;
          for (std::size_t c = 0; c < sums.sum.size(); ++c) {
            it->second.absmax[c] = std::max(it->second.absmax[c], sums.absmax[c]);
            it->second.magnitudes[c] += sums.magnitudes[c];
            it->second.sum[c] += sums.sum[c];
            it->second.squares[c] += sums.squares[c];
          }
        }
        return {};
      },
      chunk_size(graph)));
  std::map<TensorId, ChannelMoments> out;
  for (auto& [id, sums] : total) {
    ChannelMoments& m = out[id];
    m.absmax = std::move(sums.absmax);
    const double n = std::max(1.0, sums.count);
    for (std::size_t c = 0; c < sums.sum.size(); ++c) {
      m.mean.push_back(sums.magnitudes[c] / n);
      m.average.push_back(sums.sum[c] / n);
      m.deviation.push_back(std::sqrt(std::max(0.0, sums.squares[c] / n - m.average[c] * m.average[c])));
    }
  }
  return out;
}

std::vector<double> of_classes(const Regions& regions, const Region& region, const std::map<TensorId, ChannelMoments>& inputs,
                               std::vector<double> ChannelMoments::* what) {
  std::vector<double> out;
  for (const ChannelClass& channel : region.channels) {
    double most = 0;
    for (const ChannelUse& use : channel.sinks)
      if (const auto it = inputs.find(regions.sink(use).node().input(0)); it != inputs.end())
        if (const auto& values = it->second.*what; static_cast<std::size_t>(use.channel) < values.size())
          most = std::max(most, values[static_cast<std::size_t>(use.channel)]);
    out.push_back(most);
  }
  return out;
}

std::vector<double> weight_maxima(const Regions& regions, const Region& region) {
  std::map<std::size_t, std::vector<double>> of_layer;
  for (const std::size_t sink : region.sinks) {
    const ChannelWeight& layer = regions.layers[sink];
    auto& most = of_layer[sink];
    most.resize(static_cast<std::size_t>(layer.inputs()));
    for (std::size_t e = 0; e < layer.values().size(); ++e) {
      double& m = most[static_cast<std::size_t>(layer.input_of(static_cast<std::int64_t>(e)))];
      m = std::max(m, std::fabs(layer.values()[e]));
    }
  }
  std::vector<double> out;
  for (const ChannelClass& channel : region.channels) {
    double most = 0;
    for (const ChannelUse& use : channel.sinks) most = std::max(most, of_layer[use.layer][static_cast<std::size_t>(use.channel)]);
    out.push_back(most);
  }
  return out;
}

// --- Objective ---

Objective::Objective(const PassContext& ctx, const Regions& regions, const Plan& plan, const std::map<TensorId, ChannelMoments>* inputs)
    : ctx_(ctx), regions_(regions), inputs_(inputs) {
  std::set<NodeId> nodes;
  for (const Region& region : regions.regions)
    for (const std::size_t sink : region.sinks) nodes.insert(regions.layers[sink].node().id);
  if (nodes.empty()) return;
  std::map<NodeId, rounding::Target> targets;
  rounding::Targets found = rounding::find_targets(*ctx.model, nodes, [](const Site&) { return true; });
  for (rounding::Target& t : found.targets) targets[t.layer.node] = std::move(t);
  left_.insert(found.left.begin(), found.left.end());
  for (const Region& region : regions.regions)
    for (const std::size_t index : region.sinks) {
      const auto it = targets.find(regions.layers[index].node().id);
      if (it == targets.end()) continue;
      Sink sink;
      sink.target = it->second;
      const auto spec_of = [&](const Site& site) -> std::optional<QuantSpec> {
        const SitePlan* planned = plan.find(site);
        if (!planned || !planned->spec) return std::nullopt;
        QuantSpec spec = *planned->spec;
        if (spec.source == ScaleSource::kStored) spec.source = ScaleSource::kStatistics;
        return spec;
      };
      sink.weight = spec_of(sink.target.weight_site());
      if (inputs_) sink.input = spec_of(sink.target.input_site());
      sinks_[index] = std::move(sink);
    }
}

bool Objective::knows(const Region& region) const {
  return std::any_of(region.sinks.begin(), region.sinks.end(), [&](std::size_t s) {
    const auto it = sinks_.find(s);
    return it != sinks_.end() && (it->second.weight || it->second.input);
  });
}

std::string Objective::why_not(const Region& region) const {
  for (const std::size_t s : region.sinks)
    if (const auto it = left_.find(regions_.layers[s].node().name); it != left_.end()) return it->second;
  return "the recipe gives it no format";
}

std::string Objective::key() const {
  std::string text;
  for (const auto& [layer, sink] : sinks_)
    text += std::to_string(layer) + ":" + (sink.weight ? to_json_text(*sink.weight) : "") + "/" + (sink.input ? to_json_text(*sink.input) : "") + ";";
  return text;
}

Status Objective::gather(const std::vector<std::size_t>& layers, JobContext& job) {
  const Graph& graph = *ctx_.model->graph;
  QUANVAS_TRY(const auto runner, exec::Runner::create(ctx_.model, nullptr, ctx_.device));
  std::vector<rounding::ColumnSums> sums;
  std::set<TensorId> wanted;
  for (const std::size_t layer : layers) {
    sums.emplace_back(graph, sinks_.at(layer).target, false);
    wanted.insert(sinks_.at(layer).target.input);
  }
  using Found = std::map<TensorId, at::Tensor>;
  QUANVAS_CHECK(exec::for_each_chunk<Found>(
      *ctx_.calibration_data, ctx_.calibration_samples, ctx_.device, job, "moments",
      [&](exec::Chunk& chunk) -> Result<Found> {
        Found out;
        exec::RunHooks hooks;
        hooks.tap = [&](TensorId id, const at::Tensor& value) {
          if (wanted.count(id)) out.try_emplace(id, value);
        };
        QUANVAS_CHECK(runner->run({chunk.input}, hooks));
        return out;
      },
      [&](std::int64_t, Found& found) -> Status {
        for (std::size_t i = 0; i < layers.size(); ++i)
          if (const auto it = found.find(sinks_.at(layers[i]).target.input); it != found.end())
            QUANVAS_CHECK(sums[i].add(it->second, at::Tensor(), job.stop_token()));
        return {};
      },
      chunk_size(graph)));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    Sink& sink = sinks_.at(layers[i]);
    if (sums[i].is_empty()) continue;
    sink.output = 0;  // it may have been here with another region
    QUANVAS_TRY(const auto grams, sums[i].finish(job.stop_token()));
    for (const algorithms::Gram& gram : grams) {
      QUANVAS_TRY(algorithms::Moments moments, algorithms::moments_of(gram, algorithms::natural_order(gram.inputs), job.stop_token()));
      sink.moments.push_back(std::move(moments));
      sink.columns = static_cast<double>(gram.columns);
    }
    const auto& values = regions_.layers[layers[i]].values();
    const std::vector<float> zero(static_cast<std::size_t>(sink.target.m * sink.target.n));
    for (std::int64_t g = 0; g < sink.target.groups; ++g) {
      const quant::MatrixView view = sink.target.view(g);
      std::vector<float> w;
      for (std::int64_t r = 0; r < view.rows; ++r)
        for (std::int64_t c = 0; c < view.columns; ++c) w.push_back(static_cast<float>(values[static_cast<std::size_t>(view.element(r, c))]));
      const auto rows = algorithms::row_objectives(view.rows, view.columns, w.data(), zero.data(), sink.moments[static_cast<std::size_t>(g)], job.stop_token());
      if (!rows) return in_layer(sink.target.name, rows.error());
      sink.output += algorithms::objective_sum(*rows);
    }
  }
  return {};
}

Status Objective::visit(JobContext& job, const std::function<Status(std::size_t)>& f) {
  std::size_t next = 0;
  while (next < regions_.regions.size()) {
    std::vector<std::size_t> known;
    std::set<std::size_t> layers;
    double bytes = 0;
    for (; next < regions_.regions.size(); ++next) {
      const Region& region = regions_.regions[next];
      if (!knows(region)) continue;
      double more = 0;
      for (const std::size_t s : region.sinks)
        if (const auto it = sinks_.find(s); it != sinks_.end() && !layers.count(s)) {
          const double n = static_cast<double>(it->second.target.n);
          more += 12 * n * n * static_cast<double>(it->second.target.groups);
        }
      if (!known.empty() && bytes + more > kMostBytes) break;
      bytes += more;
      known.push_back(next);
      for (const std::size_t s : region.sinks)
        if (sinks_.count(s)) layers.insert(s);
    }
    if (known.empty()) break;
    QUANVAS_CHECK(gather({layers.begin(), layers.end()}, job));
    for (const std::size_t r : known) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(f(r));
    }
    for (const std::size_t s : layers) sinks_.at(s).moments.clear();
  }
  return {};
}

Result<double> Objective::weight_error(const ChannelWeight& layer, const Sink& sink, const std::vector<double>& factors,
                                       const std::stop_token& stop) const {
  std::vector<float> scaled(layer.values().size()), rounded(scaled.size());
  for (std::size_t e = 0; e < scaled.size(); ++e)
    scaled[e] = static_cast<float>(layer.values()[e] * factors[static_cast<std::size_t>(layer.input_of(static_cast<std::int64_t>(e)))]);
  const int axis = exec::site_axis(sink.target.layer, layer.node(), *sink.weight, SiteKind::kWeight);
  auto params = quant::find_params(*sink.weight, sink.target.shape, scaled.data(), axis);
  if (!params) return in_layer(sink.target.name, params.error());
  quant::fake_quantize(*params, params->layout, scaled.data(), rounded.data());
  double total = 0;
  std::vector<float> w, q;
  for (std::int64_t g = 0; g < sink.target.groups; ++g) {
    const quant::MatrixView view = sink.target.view(g);
    w.clear(), q.clear();
    for (std::int64_t r = 0; r < view.rows; ++r)
      for (std::int64_t c = 0; c < view.columns; ++c) {
        const std::int64_t e = view.element(r, c);
        w.push_back(static_cast<float>(layer.values()[static_cast<std::size_t>(e)]));
        q.push_back(static_cast<float>(rounded[static_cast<std::size_t>(e)] / factors[static_cast<std::size_t>(layer.input_of(e))]));
      }
    QUANVAS_TRY(const auto rows, algorithms::row_objectives(view.rows, view.columns, w.data(), q.data(), sink.moments[static_cast<std::size_t>(g)], stop));
    total += algorithms::objective_sum(rows);
  }
  return total;
}

double Objective::input_error(const ChannelWeight& layer, const Sink& sink, const std::vector<double>& factors) const {
  const auto it = inputs_ ? inputs_->find(sink.target.input) : std::map<TensorId, ChannelMoments>::const_iterator{};
  if (!inputs_ || it == inputs_->end() || !sink.input || sink.input->format != "int") return 0;
  double range = 0, squares = 0;
  for (std::size_t c = 0; c < factors.size() && c < it->second.absmax.size(); ++c) range = std::max(range, it->second.absmax[c] / factors[c]);
  for (std::size_t e = 0; e < layer.values().size(); ++e) {
    const double w = layer.values()[e] * factors[static_cast<std::size_t>(layer.input_of(static_cast<std::int64_t>(e)))];
    squares += w * w;
  }
  const double step = (sink.input->is_signed ? 2 : 1) * range / (std::exp2(code_bits(*sink.input)) - 1);
  return step * step / 12 * squares * sink.columns;
}

Result<double> Objective::error(const Region& region, const std::vector<double>& factors, const std::stop_token& stop) const {
  double total = 0;
  for (const std::size_t index : region.sinks) {
    const auto it = sinks_.find(index);
    if (it == sinks_.end() || it->second.moments.empty() || it->second.output <= 0) continue;
    const Sink& sink = it->second;
    const ChannelWeight& layer = regions_.layers[index];
    // A layer may read channels of several regions: those of the others keep their factor 1.
    std::vector<double> own(static_cast<std::size_t>(layer.inputs()), 1.0);
    for (std::size_t c = 0; c < region.channels.size(); ++c)
      for (const ChannelUse& use : region.channels[c].sinks)
        if (use.layer == index) own[static_cast<std::size_t>(use.channel)] = factors[c];
    double error = input_error(layer, sink, own);
    if (sink.weight) {
      QUANVAS_TRY(const double weight, weight_error(layer, sink, own, stop));
      error += weight;
    }
    total += error / sink.output;
  }
  return total;
}

// --- choices ---

std::string to_bytes(const std::vector<Choice>& choices) {
  json out = json::array();
  for (const Choice& c : choices) out.push_back({{"factors", c.factors}, {"parameter", c.parameter}, {"before", c.before}, {"after", c.after}});
  return out.dump();
}

std::optional<std::vector<Choice>> from_bytes(const std::string& bytes, const Regions& regions) {
  const auto parsed = parse_json(bytes, "measurement");
  if (!parsed || !parsed->is_array() || parsed->size() != regions.regions.size()) return std::nullopt;
  std::vector<Choice> out;
  const auto number = [](const json& j) { return j.is_null() ? std::nan("") : j.get<double>(); };  // of a region that was not measured
  try {
    for (std::size_t r = 0; r < parsed->size(); ++r) {
      const json& j = (*parsed)[r];
      Choice c{j.at("factors").get<std::vector<double>>(), number(j.at("parameter")), number(j.at("before")), number(j.at("after"))};
      if (!c.factors.empty() && c.factors.size() != regions.regions[r].channels.size()) return std::nullopt;
      for (const double f : c.factors)
        if (!(f >= kLeastFactor) || !(f <= 1 / kLeastFactor)) return std::nullopt;
      out.push_back(std::move(c));
    }
  } catch (const json::exception&) {
    return std::nullopt;
  }
  return out;
}

namespace {

// Whether the types of weight and bias hold them multiplied by these factors.
bool holds(const Model& model, const ChannelWeight& layer, const std::vector<double>& outputs, const std::vector<double>& inputs) {
  const double most = largest_of(model.graph->tensor(layer.node().input(1)).type);
  for (std::size_t e = 0; e < layer.values().size(); ++e) {
    double v = layer.values()[e];
    if (!outputs.empty()) v *= outputs[static_cast<std::size_t>(layer.output_of(static_cast<std::int64_t>(e)))];
    if (!inputs.empty()) v *= inputs[static_cast<std::size_t>(layer.input_of(static_cast<std::int64_t>(e)))];
    if (std::isfinite(layer.values()[e]) && !(std::fabs(v) <= most)) return false;
  }
  for (std::size_t c = 0; c < layer.bias().size() && !outputs.empty(); ++c)
    if (std::isfinite(layer.bias()[c]) && !(std::fabs(layer.bias()[c] * outputs[c]) <= most)) return false;
  return true;
}

}  // namespace

Result<ModelPtr> apply(const Model& model, Regions& regions, std::vector<Choice>& choices) {
  ModelEdit edit(model);
  const Graph& graph = *model.graph;
  std::set<std::string> names;
  for (std::size_t r = 0; r < regions.regions.size(); ++r) {
    const Region& region = regions.regions[r];
    std::vector<double>& factors = choices[r].factors;
    if (factors.empty()) continue;
    std::map<std::size_t, std::vector<double>> made, read;
    const auto of = [](std::map<std::size_t, std::vector<double>>& all, std::size_t layer, std::int64_t channels) -> std::vector<double>& {
      return all.try_emplace(layer, static_cast<std::size_t>(channels), 1.0).first->second;
    };
    for (std::size_t c = 0; c < region.channels.size(); ++c) {
      for (const ChannelUse& u : region.channels[c].sources)
        of(made, u.layer, regions.layers[u.layer].outputs())[static_cast<std::size_t>(u.channel)] = 1 / factors[c];
      for (const ChannelUse& u : region.channels[c].sinks)
        of(read, u.layer, regions.layers[u.layer].inputs())[static_cast<std::size_t>(u.channel)] = factors[c];
    }
    bool fits = true;
    for (const auto& [layer, f] : made) fits &= holds(model, regions.layers[layer], f, {});
    for (const auto& [layer, f] : read) fits &= holds(model, regions.layers[layer], {}, f);
    if (region.input != kNoTensor)
      for (const double f : factors) fits &= 1 / f <= largest_of(graph.tensor(region.input).type);
    if (!fits) {
      factors.clear();
      choices[r].overflows = true;
      continue;
    }
    for (const auto& [layer, f] : made) regions.layers[layer].scale(f, {});
    for (const auto& [layer, f] : read) regions.layers[layer].scale({}, f);
    if (region.input == kNoTensor) continue;
    const TensorInfo& input = graph.tensor(region.input);
    const Node& first = regions.layers[region.sinks[0]].node();
    Shape shape = {static_cast<std::int64_t>(factors.size())};
    if (is_convolution(first)) shape.resize(initializer_data(model, first.input(1))->shape.size() - 1, 1);
    std::vector<double> inverse;
    for (const double f : factors) inverse.push_back(1 / f);
    const std::string constant = edit.new_initializer(first.name + ".factor", input.type, shape, inverse);
    std::string name = input.name + ".scaled";
    for (int i = 2; graph.tensor(name) != kNoTensor || !names.insert(name).second; ++i) name = input.name + ".scaled_" + std::to_string(i);
    edit.builder().tensor(name, input.type, input.shape);
    edit.builder().node(first.name + ".scale", "Mul", {input.name, constant}, {name});
    for (const std::size_t sink : region.sinks) edit.builder().replace_input_at(regions.layers[sink].node().id, 0, name);
  }
  for (const ChannelWeight& w : regions.layers) w.write(model, edit);
  return edit.finish();
}

std::string name_of(const Regions& regions, const Region& region) {
  std::vector<std::string> names;
  for (const std::size_t s : region.sinks) names.push_back(regions.layers[s].node().name);
  return join_some(names, 3);
}

}  // namespace quanvas::scaling
