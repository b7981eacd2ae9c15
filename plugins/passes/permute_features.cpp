#include "plugins/passes/permute_features.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>

#include "plugins/passes/channel_scaling.h"

namespace quanvas {
namespace {

using Order = std::vector<std::int64_t>;
using Moments = std::map<TensorId, scaling::ChannelMoments>;

// Magnitudes of the features of each tensor: mean, then largest.
std::string to_bytes(const std::vector<Rotator::Blocks>& blocks, const Moments& moments) {
  std::string out;
  for (const auto& b : blocks)
    for (const auto* values : {&moments.at(b.tensor).mean, &moments.at(b.tensor).absmax})
      out.append(reinterpret_cast<const char*>(values->data()), values->size() * sizeof(double));
  return out;
}

std::optional<Moments> from_bytes(const std::string& bytes, const std::vector<Rotator::Blocks>& blocks, const Graph& graph) {
  Moments out;
  std::size_t at = 0;
  for (const auto& b : blocks) {
    const auto n = static_cast<std::size_t>(graph.tensor(b.tensor).shape->back());
    for (auto* values : {&out[b.tensor].mean, &out[b.tensor].absmax}) {
      if (bytes.size() < at + n * sizeof(double)) return std::nullopt;
      values->resize(n);
      std::memcpy(values->data(), bytes.data() + at, n * sizeof(double));
      at += n * sizeof(double);
      if (!std::all_of(values->begin(), values->end(), [](double v) { return v >= 0 && std::isfinite(v); }))
        return std::nullopt;
    }
  }
  return at == bytes.size() ? std::optional(std::move(out)) : std::nullopt;
}

// Runs of `granule` features count as one; each tensor as much as another.
void add_magnitudes(const std::vector<double>& values, std::vector<double>& sums, bool by_mean) {
  double all = 0;
  for (const double v : values) all = by_mean ? all + v : std::max(all, v);
  for (std::size_t i = 0; i < values.size() && all > 0; ++i) {
    double& s = sums[i % sums.size()];
    s = by_mean ? s + values[i] / all : std::max(s, values[i] / all);
  }
}

std::vector<double> reordered(const std::vector<double>& rows, std::int64_t width, const Order& order) {
  std::vector<double> out(rows.size());
  const auto granule = static_cast<std::int64_t>(order.size());
  for (std::size_t row = 0; row < rows.size(); row += static_cast<std::size_t>(width))
    for (std::int64_t j = 0; j < width; ++j)
      out[row + static_cast<std::size_t>(j)] =
          rows[row + static_cast<std::size_t>(j / granule * granule + order[static_cast<std::size_t>(j % granule)])];
  return out;
}

bool is_unchanged(const Order& order) {
  for (std::size_t i = 0; i < order.size(); ++i)
    if (order[i] != static_cast<std::int64_t>(i)) return false;
  return true;
}

std::string why_not(const FeatureRegion* region) {
  if (!region) return "the size of its features is not known";
  if (!region->blocked.empty()) return region->blocked;
  if (region->sources.empty()) return "no layer makes them";
  return region->sinks.empty() ? "no layer reads them" : "";
}

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", v);
  return text;
}

}  // namespace

Result<ModelPtr> reorder_features(const ModelPtr& model, const std::map<TensorId, Order>& orders,
                                  std::vector<std::string>& left) {
  const Graph& graph = *model->graph;
  const FeatureRegions found = find_permuted_regions(*model);
  ModelEdit edit(*model);
  std::map<NodeId, LinearWeight> layers;
  const auto layer_of = [&](NodeId id) -> LinearWeight& {
    const auto it = layers.find(id);
    return it != layers.end() ? it->second : layers.emplace(id, LinearWeight::of(*model, *graph.find(id))).first->second;
  };
  std::set<const FeatureRegion*> done;
  for (const auto& [tensor, order] : orders) {
    if (is_unchanged(order)) continue;
    const FeatureRegion* region = found.find(tensor);
    std::string why = why_not(region);
    if (why.empty() && (order.empty() || region->granule % static_cast<std::int64_t>(order.size()) != 0))
      why = "its features are regrouped";
    if (!why.empty()) {
      left.push_back("'" + graph.tensor(tensor).name + "': " + why);
      continue;
    }
    if (!done.insert(region).second) continue;
    for (const FeatureSource& s : region->sources) {
      const Node& node = *graph.find(s.node);
      if (s.constant < 0) {
        LinearWeight& w = layer_of(s.node);
        w.w = reordered(w.w, w.outputs, order);
        if (!w.b.empty()) w.b = reordered(w.b, w.outputs, order);
        continue;
      }
      const TensorId id = node.input(static_cast<std::size_t>(s.constant));
      const TensorData* data = initializer_data(*model, id);
      edit.replace_initializer(node, id, data->type, data->shape, reordered(doubles_of(*data), data->shape.back(), order));
    }
    for (const NodeId id : region->sinks) {
      LinearWeight& w = layer_of(id);
      w.w = transposed(reordered(transposed(w.w, w.inputs, w.outputs), w.inputs, order), w.outputs, w.inputs);
    }
  }
  if (done.empty()) return model;
  for (const auto& [id, w] : layers) w.write(*model, *graph.find(id), edit);
  return edit.finish();
}

Result<Permuted> permute_features(const PassContext& ctx, const ModelPtr& model, const std::vector<Rotator::Blocks>& blocks,
                                  algorithms::BlockOrder order, std::uint64_t seed, const std::string& key) {
  if (blocks.empty()) return Permuted{model, "reordered nothing, as no rotation is smaller than the features"};
  const Graph& graph = *model->graph;
  std::string what = "magnitudes;" + key;
  std::map<TensorId, int> axes;
  for (const auto& b : blocks) {
    what += ";" + graph.tensor(b.tensor).name;
    axes[b.tensor] = -1;
  }
  QUANVAS_TRY(const std::string bytes,
              ctx.measured(
                  what,
                  [&](JobContext& job) -> Result<std::string> {
                    PassContext own = ctx;
                    own.model = model;
                    QUANVAS_TRY(const Moments moments, scaling::measure_channels(own, axes, job));
                    for (const auto& b : blocks)
                      if (const auto it = moments.find(b.tensor);
                          it == moments.end() ||
                          static_cast<std::int64_t>(it->second.mean.size()) != graph.tensor(b.tensor).shape->back())
                        return fail(ErrorCode::kInvalidArgument,
                                    "The calibration samples give no features at '" + graph.tensor(b.tensor).name + "'.",
                                    "Look at the calibration data.");
                    return to_bytes(blocks, moments);
                  },
                  [&](const std::string& known) { return from_bytes(known, blocks, graph).has_value(); }));
  const auto moments = from_bytes(bytes, blocks, graph);
  if (!moments)
    return fail(ErrorCode::kCorrupt, "The magnitudes of features that were measured are damaged.", "Run the recipe again.");

  const FeatureRegions found = find_permuted_regions(*model);
  struct Group {
    std::vector<double> mean, absmax;
    std::int64_t block = 0;
    TensorId tensor = kNoTensor;
  };
  std::map<const FeatureRegion*, Group> groups;
  std::vector<std::string> left;
  for (const auto& b : blocks) {
    const FeatureRegion* region = found.find(b.tensor);
    std::string why = why_not(region);
    if (why.empty() && region->granule <= b.size) why = "its features are regrouped in runs that are no larger than a block";
    const bool is_whole =
        region && region->granule == graph.tensor(b.tensor).shape->back();  // else zeros would fill each run up
    if (why.empty() && !is_whole && region->granule % b.size != 0)
      why =
          "blocks of " + std::to_string(b.size) + " do not divide its runs of " + std::to_string(region->granule) + " features";
    if (!why.empty()) {
      left.push_back("'" + graph.tensor(b.tensor).name + "': " + why);
      continue;
    }
    Group& group = groups[region];
    if (group.tensor == kNoTensor) {
      group.mean.resize(static_cast<std::size_t>(region->granule));
      group.absmax = group.mean;
      group.block = b.size;
      group.tensor = b.tensor;
    }
    add_magnitudes(moments->at(b.tensor).mean, group.mean, true);
    add_magnitudes(moments->at(b.tensor).absmax, group.absmax, false);
  }
  std::map<TensorId, Order> orders;
  double before = 0, after = 0;
  for (const auto& [region, group] : groups) {
    Order p =
        algorithms::block_order(order, group.mean, group.absmax, group.block, seed + static_cast<std::uint64_t>(group.tensor));
    double sum = 0;
    for (const double v : group.mean) sum += v;
    const double even = sum * static_cast<double>(group.block) / static_cast<double>(group.mean.size());
    before += even > 0 ? algorithms::largest_block(group.mean, {}, group.block) / even : 1;
    after += even > 0 ? algorithms::largest_block(group.mean, p, group.block) / even : 1;
    orders[group.tensor] = std::move(p);
  }
  QUANVAS_TRY(ModelPtr changed, reorder_features(model, orders, left));
  const auto n = static_cast<double>(groups.size());
  std::string text =
      "reordered " + std::to_string(groups.size()) + (groups.size() == 1 ? " group" : " groups") + " of features";
  if (n > 0)
    text += " (l1 norm of the largest block over the mean " + short_number(before / n) + " → " + short_number(after / n) + ")";
  if (!left.empty()) text += ", not " + join_some(left);
  return Permuted{std::move(changed), std::move(text)};
}

}  // namespace quanvas
