#include "core/workflow/export_proof.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "core/exec/chunks.h"
#include "core/exec/train.h"
#include "core/graph/layers.h"
#include "core/plugin/placement.h"
#include "core/workflow/perplexity.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

constexpr std::int64_t kNodeSamples = 32;
constexpr std::int64_t kNodeChunk = 4;    // both networks keep every tensor
constexpr double kFloatTolerance = 1e-5;  // of the largest magnitude: other orders of the same sums

// Where one tensor of the screen is found in the file.
struct Probe {
  std::string layer, what;
  TensorId screen = kNoTensor;
  std::optional<Site> input;                   // the site whose quantizer the screen's tensor goes through first
  const quant::QuantParams* params = nullptr;  // null: float
  TensorId file = kNoTensor;
  ReadBack::Held held;
};

// Samples that go through a file at once: a DynamicQuantizeLinear finds one scale for all of them, the screen one for each.
std::int64_t at_once(const Graph& file, std::int64_t usual) {
  const auto& nodes = file.nodes();
  const bool finds_scales =
      std::any_of(nodes.begin(), nodes.end(), [](const Node& n) { return n.op == "DynamicQuantizeLinear"; });
  return finds_scales ? 1 : usual;
}

// Largest |x - y|; values that are equal do not differ, infinite ones neither. NaN when a difference is.
double largest_difference(const at::Tensor& x, const at::Tensor& y) {
  if (x.numel() == 0) return 0;
  return at::where(x.eq(y), at::zeros({}, x.options()), (x - y).abs()).max().item<double>();
}

// One parameter per tensor, or one per index of the axis, to broadcast against x.
at::Tensor parameters(const std::vector<float>& values, std::int64_t axis, const at::Tensor& x) {
  const at::Tensor t = at::tensor(values, at::kFloat);  // on the CPU, as what it is compared with
  if (values.size() == 1 || axis < 0 || axis >= x.dim()) return values.size() == 1 ? t.reshape({}) : t;
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(values.size());
  return t.reshape(shape);
}

bool fits(const std::vector<float>& values, std::int64_t axis, const at::Tensor& x) {
  return values.size() < 2 || (axis >= 0 && axis < x.dim() && x.size(axis) == static_cast<std::int64_t>(values.size()));
}

at::Tensor real_values(const at::Tensor& stored, const ReadBack::Held& held) {
  if (held.scale.empty()) return stored.to(at::kFloat);
  at::Tensor q = stored.to(at::kFloat);
  if (!held.zero_point.empty()) q = q - parameters(held.zero_point, held.axis, q);
  return q * parameters(held.scale, held.axis, q);
}

class Matcher {
 public:
  Matcher(const QuantizedModel& network, bool with_quantizers, const ReadBack& file)
      : network_(network), with_quantizers_(with_quantizers), file_(file), graph_(*network.model->graph) {}

  std::vector<Probe> probes() {
    std::map<Site, const PlacedQuantizer*> placed;
    const Placement placement = place(network_);
    if (with_quantizers_)
      for (const PlacedQuantizer& q : placement.quantizers)
        if (is_activation(q.site.kind)) placed[q.site] = &q;
    std::vector<Probe> out;
    for (const Node& node : graph_.nodes()) {
      const PlacedQuantizer* output = nullptr;
      for (auto it = placed.lower_bound(Site{node.id, SiteKind::kWeight, 0});
           it != placed.end() && it->first.node == node.id; ++it) {
        if (it->first.kind == SiteKind::kOutput) output = it->second;
        if (it->first.kind != SiteKind::kInput) continue;
        Probe p{node.name, it->second->name, it->second->tensor, it->first, it->second->params, kNoTensor, {}};
        if (const auto held = file_.sites.find(it->first); held != file_.sites.end() && find(held->second, p))
          out.push_back(std::move(p));
      }
      for (const TensorId id : node.outputs) {
        if (id == kNoTensor || graph_.tensor(id).type == DataType::kString) continue;
        const bool quantized = output && output->tensor == id;
        Probe p{node.name,
                node.outputs.size() > 1 ? "output " + graph_.tensor(id).name : "output",
                id,
                {},
                quantized ? output->params : nullptr,
                kNoTensor,
                {}};
        const auto site = quantized ? file_.sites.find(output->site) : file_.sites.end();
        const auto named = file_.tensors.find(graph_.tensor(id).name);
        const ReadBack::Held held = site != file_.sites.end() ? site->second
                                    : named != file_.tensors.end()
                                        ? named->second
                                        : ReadBack::Held{graph_.tensor(id).name, {}, {}, -1};
        if (find(held, p)) out.push_back(std::move(p));
      }
    }
    return out;
  }

 private:
  bool find(const ReadBack::Held& held, Probe& p) const {
    p.held = held;
    p.file = file_.model->graph->tensor(held.tensor);
    return p.file != kNoTensor && !file_.model->graph->tensor(p.file).is_initializer;
  }

  const QuantizedModel& network_;
  bool with_quantizers_;
  const ReadBack& file_;
  const Graph& graph_;
};

void all_differ(const at::Tensor& x, NodeAudit& row) {
  row.values += static_cast<double>(x.numel());
  row.differing += static_cast<double>(x.numel());
  row.max_difference = std::numeric_limits<double>::quiet_NaN();
}

void compare(const Probe& probe, at::Tensor x, at::Tensor y, NodeAudit& row) {
  x = x.to(at::kCPU, at::kFloat).contiguous();
  y = y.to(at::kCPU);
  if (x.numel() != y.numel() || !fits(probe.held.scale, probe.held.axis, y) || !fits(probe.held.zero_point, probe.held.axis, y))
    return all_differ(x, row);
  y = real_values(y, probe.held).reshape(x.sizes()).contiguous();
  row.values += static_cast<double>(x.numel());
  if (x.numel() == 0) return;
  const at::Tensor same = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
  const at::Tensor difference = at::where(same, at::zeros({}, x.options()), (x - y).abs());
  const double most = difference.max().item<double>();
  if (std::isnan(most) || most > row.max_difference) row.max_difference = most;
  if (probe.params && !probe.params->scale.empty()) {
    row.differing += static_cast<double>(x.numel()) - same.sum().item<double>();
    std::vector<float> scale = probe.params->scale;
    for (float& s : scale) s = std::abs(s);
    const std::int64_t axis =
        scale.size() > 1 ? channel_axis(*probe.params, static_cast<std::size_t>(x.dim())) : -1;
    const double steps = (difference / parameters(scale, axis, x)).max().item<double>();
    if (std::isnan(steps) || steps > row.max_steps) row.max_steps = steps;
    return;
  }
  const double largest = at::where(x.isfinite(), x.abs(), at::zeros({}, x.options())).max().item<double>();
  row.differing += difference.le(kFloatTolerance * std::max(largest, 1e-30)).logical_not().sum().item<double>();
}

Status compare_nodes(const QuantizedModel& network, const std::vector<Probe>& probes, const exec::Runner& screen,
                     const exec::Runner& file, const Dataset& data, const std::string& device, ExportReport& report,
                     JobContext& job) {
  report.nodes.clear();
  for (const Probe& p : probes) {
    NodeAudit row;
    row.layer = p.layer;
    row.what = p.what;
    row.is_quantized = p.params && !p.params->scale.empty();  // dynamic ones have no steps of their own
    report.nodes.push_back(std::move(row));
  }
  if (probes.empty()) return {};
  std::set<TensorId> of_screen, of_file;
  for (const Probe& p : probes) {
    of_screen.insert(p.screen);
    of_file.insert(p.file);
  }
  QUANVAS_TRY(const double screen_bytes, bytes_per_sample(screen, data, of_screen));
  QUANVAS_TRY(const double file_bytes, bytes_per_sample(file, data, of_file));
  QUANVAS_CHECK(exec::for_each_chunk<std::vector<NodeAudit>>(
      data, choose_samples(data.size(), kNodeSamples, 0), device, job, "compare nodes",
      [&](exec::Chunk& chunk) -> Result<std::vector<NodeAudit>> {
        QUANVAS_TRY(const exec::Environment a, run_keeping(screen, chunk.input, of_screen));
        QUANVAS_TRY(const exec::Environment b, run_keeping(file, chunk.input, of_file));
        std::vector<NodeAudit> rows(probes.size());
        for (std::size_t i = 0; i < probes.size(); ++i) {
          const Probe& p = probes[i];
          at::Tensor x = a[static_cast<std::size_t>(p.screen)];
          const at::Tensor y = b[static_cast<std::size_t>(p.file)];
          if (!x.defined() || !y.defined()) continue;
          if (p.input) x = screen.quantize(*p.input, x, {});
          compare(p, x, y, rows[i]);
        }
        return rows;
      },
      [&](std::int64_t, std::vector<NodeAudit>& rows) -> Status {
        for (std::size_t i = 0; i < rows.size(); ++i) {
          NodeAudit& total = report.nodes[i];
          total.values += rows[i].values;
          total.differing += rows[i].differing;
          for (auto member : {&NodeAudit::max_steps, &NodeAudit::max_difference})
            if (std::isnan(rows[i].*member) || rows[i].*member > total.*member) total.*member = rows[i].*member;
        }
        return {};
      },
      at_once(file.graph(),
              std::min({kNodeChunk, chunk_size_for(*network.model->graph), chunk_size_for(screen_bytes + file_bytes)}))));
  // What neither network has run through stays out of the table.
  std::erase_if(report.nodes, [](const NodeAudit& n) { return n.values == 0; });
  report.first_difference = -1;
  for (std::size_t i = 0; i < report.nodes.size() && report.first_difference < 0; ++i)
    if (report.nodes[i].differing > 0) report.first_difference = static_cast<int>(i);
  return {};
}

// What one network is worth on the samples that both have run.
struct Score {
  double right = 0;  // of samples with a label
  TokenSums tokens;
};

struct Totals {
  double samples = 0, predictions = 0, equal = 0, difference = 0;
  bool of_tokens = false;  // the predictions are of scored tokens
  Score screen, file;
};

void merge(Totals& total, const Totals& t) {
  total.samples += t.samples;
  total.predictions += t.predictions;
  total.equal += t.equal;
  if (std::isnan(t.difference) || t.difference > total.difference) total.difference = t.difference;
  total.of_tokens = t.of_tokens;
  total.screen.right += t.screen.right;
  total.file.right += t.file.right;
  total.screen.tokens.merge(t.screen.tokens);
  total.file.tokens.merge(t.file.tokens);
}

Accuracy accuracy_of(const Score& score, const Totals& total, bool labels) {
  Accuracy a;
  a.samples = total.samples;
  a.top5 = a.loss = a.agreement = a.output_sqnr_db = std::nan("");
  a.top1 = labels ? score.right / total.samples : std::nan("");
  a.top1_stderr = labels ? std::sqrt(a.top1 * (1 - a.top1) / total.samples) : std::nan("");
  if (total.of_tokens) score.tokens.write(a);
  return a;
}

class SideBySide {
 public:
  SideBySide(const exec::Runner& screen, const exec::Runner& file, const Dataset& data)
      : screen_(screen), file_(file), data_(data),
        is_distribution_(exec::logits_of(screen.graph()) != screen.graph().outputs().at(0)) {}

  Result<Totals> operator()(const exec::Chunk& chunk) const {
    Totals total;
    for (const exec::Chunk& part : without_filling(chunk, data_, screen_.graph())) {
      QUANVAS_TRY(const Totals t, compare_part(part));
      merge(total, t);
    }
    return total;
  }

 private:
  Result<Totals> compare_part(const exec::Chunk& chunk) const {
    QUANVAS_TRY(const auto a, screen_.run({chunk.input}));
    QUANVAS_TRY(const auto b, file_.run({chunk.input}));
    Totals t;
    t.samples = static_cast<double>(chunk.input.size(0));
    at::Tensor x, y;
    if (data_.has_tokens()) {
      // Networks that foretell no tokens are compared by their rows alone.
      const auto windows = windows_of(data_, chunk.samples);
      if (const auto rows = scored_rows(a.at(0), windows)) {
        x = *rows;
        QUANVAS_TRY(y, scored_rows(b.at(0), windows));
        t.of_tokens = true;
        QUANVAS_TRY(t.screen.tokens, score_tokens(x, chunk.input, windows, is_distribution_));
        QUANVAS_TRY(t.file.tokens, score_tokens(y, chunk.input, windows, is_distribution_));
      }
    }
    if (!t.of_tokens) {
      QUANVAS_TRY(x, prediction_rows(a.at(0), chunk.input.size(0), data_));
      QUANVAS_TRY(y, prediction_rows(b.at(0), chunk.input.size(0), data_));
    }
    if (x.sizes() != y.sizes())
      return fail(ErrorCode::kInternal, "The exported file gives an output of another shape.", "Report this file.");
    const at::Tensor best_x = x.argmax(1), best_y = y.argmax(1);
    t.predictions = static_cast<double>(x.size(0));
    t.equal = best_x.eq(best_y).sum().item<double>();
    t.difference = largest_difference(x, y);
    if (chunk.labels.defined() && !t.of_tokens) {
      const at::Tensor labels = chunk.labels.to(at::kCPU);
      t.screen.right = best_x.eq(labels).sum().item<double>();
      t.file.right = best_y.eq(labels).sum().item<double>();
    }
    return t;
  }

  const exec::Runner &screen_, &file_;
  const Dataset& data_;
  bool is_distribution_;
};

}  // namespace

Status prove_export(const QuantizedModel& network, bool with_quantizers, const ReadBack& file, const Dataset& data,
                    std::int64_t samples, const std::string& device, ExportReport& report, JobContext& job) {
  const exec::QuantizerMap* quantizers = with_quantizers ? &network.quantizers : nullptr;
  QUANVAS_TRY(const auto screen, exec::Runner::create(network.model, quantizers, device));
  QUANVAS_TRY(const auto runner,
              exec::Runner::create(file.model, file.quantizers.empty() ? nullptr : &file.quantizers, device));
  job.set_range(0.85, 0.92);
  QUANVAS_CHECK(compare_nodes(network, Matcher(network, with_quantizers, file).probes(), *screen, *runner, data,
                              device, report, job));
  job.set_range(0.92, 1);
  Totals total;
  QUANVAS_CHECK(exec::for_each_chunk<Totals>(
      data, choose_samples(data.size(), samples, 0), device, job, "compare", SideBySide(*screen, *runner, data),
      [&](std::int64_t, Totals& t) -> Status {
        merge(total, t);
        return {};
      },
      at_once(*file.model->graph, chunk_size_for(*network.model->graph))));
  report.checked_samples = total.samples;
  report.equal_predictions = total.predictions > 0 ? total.equal / total.predictions : 0;
  report.max_output_difference = total.difference;
  report.screen = accuracy_of(total.screen, total, data.has_labels());
  report.file = accuracy_of(total.file, total, data.has_labels());
  return {};
}

}  // namespace quanvas
