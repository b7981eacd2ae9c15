#include "app/window/views.h"

#include <algorithm>
#include <cmath>

#include <QCoreApplication>
#include <QFileInfo>
#include <QRegularExpression>
#include <QStringList>

#include "core/report/target_lens.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/models/runs_model.h"
#include "widgets/models/shown_spec.h"
#include "widgets/panels/inspector_state.h"
#include "widgets/panels/target_panel.h"
#include "widgets/models/counted.h"

namespace quanvas::views {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("Views", text); }
QString qs(const std::string& s) { return QString::fromStdString(s); }

void set_site(NodeVisual& v, const SitePlan& p, const Graph& graph, const Layer& layer) {
  if (!p.spec) return;
  const QString chip = qs(chip_text(shown_spec(graph, layer, p.site, *p.spec), p.site.kind));
  switch (p.site.kind) {
    case SiteKind::kWeight:
      v.weight_chip = chip;
      v.weight_bits = code_bits(*p.spec);
      v.note = qs(p.why);
      break;
    case SiteKind::kInput:
      v.input_chip = chip;
      if (v.activation_bits == 0) v.activation_bits = code_bits(*p.spec);
      break;
    case SiteKind::kOutput:
      v.activation_chip = chip;
      v.activation_bits = code_bits(*p.spec);
      break;
    case SiteKind::kInternal:
    case SiteKind::kBias: break;
  }
}

QString why_not_open(const Session& s) {
  if (!s.has_project()) return tr("Open a model first.");
  if (!s.engine_is_ready()) return tr("The engine is not ready.");
  return {};
}

bool is_current(const Session& s, const Run& r) { return r.kind == RunKind::kQuantize && r.accuracy && !s.run_is_stale(r); }

}  // namespace

const Run* current_run(const Session& session) {
  const auto& runs = session.runs();
  const auto it = std::find_if(runs.rbegin(), runs.rend(), [&](const Run& r) { return is_current(session, r); });
  return it == runs.rend() ? nullptr : &*it;
}

const Run* newest_sweep(const Session& session) {
  const auto& runs = session.runs();
  const auto it = std::find_if(runs.rbegin(), runs.rend(), [&](const Run& r) { return r.sweep && r.model_hash == session.state().model_hash; });
  return it == runs.rend() ? nullptr : &*it;
}

std::set<std::int64_t> stale_runs(const Session& session) {
  std::set<std::int64_t> ids;
  for (const auto& r : session.runs())
    if (session.run_is_elsewhere(r)) ids.insert(r.id);
  return ids;
}

std::shared_ptr<void> prepare(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan) {
  auto out = std::make_shared<Prepared>();
  out->graph = prepare_graph(graph, layers);
  out->rows = layer_rows(graph, layers, plan, {});
  for (LayerRow& row : out->rows) row.stale = true;  // until its facts come
  return out;
}

void set_facts(NodeVisual& visual, const LayerFacts& facts, bool stale) {
  visual.isolated_db = facts.output ? facts.output->sqnr_db : std::nan("");
  visual.stale = stale;
}

namespace {

// What the chosen export target refuses; layers that passes make are in the target's own list alone.
void set_lens(std::map<NodeId, NodeVisual>& visuals, const Session& session) {
  if (session.target_refusals().empty()) return;
  std::map<std::string, const LensLayer*> by_name;
  const std::vector<LensLayer> layers = lens(session.target_refusals());
  for (const LensLayer& l : layers) by_name[l.layer] = &l;
  for (const auto& node : session.graph()->nodes()) {
    const auto l = by_name.find(node.name);
    if (l == by_name.end()) continue;
    NodeVisual& visual = visuals[node.id];
    QStringList reasons;
    if (!visual.problem.isEmpty()) reasons << visual.problem;
    reasons << (l->second->state == LensState::kFixable ? tr("%1 refuses this; it can be mended:") : tr("%1 cannot hold this:")).arg(session.looked_at_target());
    for (const Refusal& r : l->second->refusals) reasons << reason_text(r);
    visual.problem = reasons.join(u'\n');
    visual.is_hopeless = l->second->state == LensState::kImpossible;
  }
}

}  // namespace

std::map<NodeId, NodeVisual> node_visuals(const Session& session, const Run* run) {
  std::map<NodeId, NodeVisual> out;
  if (!session.has_project()) return out;
  for (const auto& node : session.graph()->nodes())
    if (!node.opaque_reason.empty()) out[node.id].problem = qs(node.opaque_reason);
  // The plan lists the sites of the layers in their order.
  auto layer = session.layers().begin();
  for (const auto& p : session.plan().sites) {
    while (layer != session.layers().end() && layer->node != p.site.node) ++layer;
    if (layer == session.layers().end()) break;
    set_site(out[p.site.node], p, *session.graph(), *layer);
  }
  for (const auto& [node, facts] : session.facts()) set_facts(out[node], facts, session.facts_are_stale(node));
  set_lens(out, session);
  if (run)
    for (const auto& l : run->layers)
      if (l.cumulative) out[l.node].cumulative_db = l.cumulative->sqnr_db;
  return out;
}

std::vector<ErrorBar> live_errors(const Session& session, const Run* run) {
  std::vector<ErrorBar> bars;
  std::map<NodeId, double> cumulative;
  if (run)
    for (const auto& l : run->layers)
      if (l.cumulative) cumulative[l.node] = l.cumulative->sqnr_db;
  for (const auto& layer : session.layers()) {
    const Node* node = session.graph()->find(layer.node);
    const auto facts = session.facts().find(layer.node);
    if (!node || facts == session.facts().end() || facts->second.sites.empty()) continue;
    ErrorBar bar{layer.node, qs(node->name), facts->second.output ? facts->second.output->sqnr_db : std::nan(""), std::nan(""), session.facts_are_stale(layer.node)};
    if (const auto it = cumulative.find(layer.node); it != cumulative.end()) bar.cumulative = it->second;
    bars.push_back(bar);
  }
  return bars;
}

std::vector<SweepLayer> sweep_layers(const Session& session) {
  std::vector<SweepLayer> out;
  if (!session.has_project()) return out;
  for (const auto& layer : session.layers()) {
    const Node* node = session.graph()->find(layer.node);
    if (!node || layer.kind != LayerKind::kCompute) continue;
    SweepLayer row{layer.node, qs(node->name), 0, 0};
    for (const Site& site : layer.sites()) {  // a site that is not there is searched for everywhere
      if (site.operand != 0 || (site.kind != SiteKind::kWeight && site.kind != SiteKind::kInput)) continue;
      const auto* p = session.plan().find(site);
      (site.kind == SiteKind::kWeight ? row.weight_bits : row.activation_bits) = p && p->spec ? code_bits(*p->spec) : 0;
    }
    out.push_back(row);
  }
  return out;
}

std::vector<DistributionPanel::Source> distribution_sources(const Session& session, NodeId node) {
  std::vector<DistributionPanel::Source> out;
  const Layer* layer = find_layer(session.layers(), node);
  if (!layer) return out;
  for (const auto& site : layer->sites()) {
    const auto* p = session.plan().find(site);
    QString title = qs(site_name(*layer, site));
    title[0] = title[0].toUpper();
    out.push_back({site, title, p ? p->spec : std::nullopt, is_activation(site.kind)});
  }
  return out;
}

std::vector<int> rule_matches(const Recipe& recipe, const Plan& plan) {
  std::vector<int> out(recipe.rules.size(), 0);
  for (const auto& s : plan.sites)
    if (s.rule >= 0 && s.rule < static_cast<int>(out.size())) ++out[static_cast<std::size_t>(s.rule)];
  return out;
}

std::vector<JobRow> job_rows(const std::vector<JobStatus>& jobs) {
  std::vector<JobRow> out;
  for (const auto& j : jobs) {
    JobRow row;
    row.id = j.id;
    row.title = j.title;
    row.detail = qs(j.progress.phase);
    if (!j.progress.detail.empty()) row.detail += (row.detail.isEmpty() ? QString() : QStringLiteral(": ")) + qs(j.progress.detail);
    static_assert(static_cast<int>(JobStatus::Phase::kCancelled) == static_cast<int>(JobRow::Phase::kCancelled));
    row.phase = static_cast<JobRow::Phase>(j.phase);
    row.fraction = j.progress.fraction;
    row.seconds_left = j.progress.seconds_left;
    row.seconds = j.seconds;
    row.message = j.message;
    out.push_back(row);
  }
  return out;
}

FileQuantizers file_quantizers(const Session& session) {
  const auto chosen = session.state().import.quantizers;
  if (chosen != FileQuantizers::kUnset || !session.has_project()) return chosen;
  // A project of before there was a choice has the nodes.
  static const std::set<std::string> kQuantizers = {"QuantizeLinear", "DequantizeLinear", "Quant", "IntQuant", "BipolarQuant", "FloatQuant", "MultiThreshold", "QGemm"};
  const auto& nodes = session.graph()->nodes();
  const bool any = std::any_of(nodes.begin(), nodes.end(), [](const Node& n) { return kQuantizers.count(n.op) > 0 || n.op.starts_with("QLinear"); });
  return any ? FileQuantizers::kNodes : FileQuantizers::kUnset;
}

QString why_no_file_quantizers(const Session& session) {
  if (!session.has_project()) return tr("Open a model first.");
  return file_quantizers(session) == FileQuantizers::kUnset ? tr("This model's file carries no quantizers.") : QString();
}

QString project_with(const QString& project_path, FileQuantizers quantizers) {
  const QFileInfo file(project_path);
  QString stem = file.completeBaseName();
  const QString mark = quantizers == FileQuantizers::kNodes ? QStringLiteral("-nodes") : QStringLiteral("-rules");
  const QString other = quantizers == FileQuantizers::kNodes ? QStringLiteral("-rules") : QStringLiteral("-nodes");
  if (stem.endsWith(other)) stem.chop(other.size());
  else stem += mark;
  return file.path() + u'/' + stem + QStringLiteral(".quanvas");
}

QString project_name(const ProjectState& state) {
  const QString model = QFileInfo(qs(state.model_path)).completeBaseName();
  const QString project = QFileInfo(qs(state.project_path)).completeBaseName();
  if (project.isEmpty()) return model;
  // A model's own project carries a hash that says nothing to people.
  static const QRegularExpression hash(QStringLiteral("^-[0-9a-f]{8}(-nodes|-rules)?$"));
  const auto match = hash.match(project.startsWith(model) ? project.mid(model.size()) : QString());
  return match.hasMatch() ? model + match.captured(1) : project;
}

QString export_stem(const Session& session, const Run* run) {
  const QFileInfo model(qs(session.state().model_path));
  static const QRegularExpression other(QStringLiteral("[^a-z0-9]+"));
  QString name = qs(run ? run->name : session.recipe().name).toLower().replace(other, QStringLiteral("-"));
  if (run) name += QStringLiteral("-run%1").arg(run->id);
  const QStringList parts = name.split(u'-', Qt::SkipEmptyParts);
  const QString stem = model.absolutePath() + u'/' + model.completeBaseName();
  return parts.isEmpty() ? stem : stem + u'-' + parts.join(u'-');
}

bool quantizes(const Session& session, const Run* run) {
  if (run) return std::any_of(run->layers.begin(), run->layers.end(), [](const LayerResult& l) { return !l.weight_format.empty() || !l.activation_format.empty(); });
  const auto& sites = session.plan().sites;
  return std::any_of(sites.begin(), sites.end(), [](const SitePlan& s) { return s.spec.has_value(); });
}

QString accuracy_line(const Session& session, const Run* run) {
  if (!run) return {};
  const QString strong = QStringLiteral("<b style=\"color:%1; font-weight:600\">%2</b>");
  QString text = qs(run->name).toHtmlEscaped() + QStringLiteral(": ");
  const auto& accuracy = *run->accuracy;
  if (std::isnan(accuracy.top1) && !has_perplexity(accuracy)) return text + tr("output SQNR %1").arg(strong.arg(colors().text.name(), db_text(run->accuracy->output_sqnr_db)));
  const Run* base = float_baseline(*run, session.runs());
  if (has_perplexity(accuracy)) {
    text += strong.arg(colors().text.name(), qs(perplexity_digits(accuracy.perplexity))) + tr(" perplexity");
    if (base) text += tr(" (float %1)").arg(qs(perplexity_digits(base->accuracy->perplexity)));
  } else {
    text += strong.arg(colors().text.name(), percent_text(accuracy.top1)) + tr(" top-1");
    if (base) text += tr(" (float %1)").arg(number_text(base->accuracy->top1 * 100, 2));
  }
  if (run->bytes > 0) text += QStringLiteral(", ") + bytes_text(run->bytes);
  return text;
}

QString stale_line(const Session& session, const Run* run) {
  if (!session.has_project()) return {};
  int layers = 0;
  for (const auto& [node, facts] : session.facts()) layers += session.facts_are_stale(node);
  QStringList parts;
  if (layers) parts << counted(layers, tr("1 layer is being measured again"), tr("%1 layers are being measured again"));
  const auto& runs = session.runs();
  const bool any = std::any_of(runs.begin(), runs.end(), [](const Run& r) { return r.kind == RunKind::kQuantize && r.accuracy; });
  if (any && !run) parts << tr("runs are older than the recipe");
  return parts.join(QStringLiteral(", "));
}

QString data_line(const DataStatus& d) {
  if (!d.problem.empty()) return qs(d.problem);
  QStringList parts;
  const std::pair<QString, double> uses[] = {{tr("calibration"), d.calibration_samples}, {tr("training"), d.training_samples}, {tr("evaluation"), d.evaluation_samples}};
  for (const auto& [name, samples] : uses)
    if (samples > 0) parts << tr("%1 %2 samples").arg(name, count_text(samples));
  if (parts.isEmpty()) return tr("No data set is declared.");
  if (d.has_tokens) parts << tr("windows of tokens: perplexity instead of accuracy");
  else if (!d.has_labels) parts << tr("no labels: errors but no accuracy");
  return tr("Found: %1.").arg(parts.join(QStringLiteral(", ")));
}

QString engine_line(const std::map<std::string, std::string>& versions, bool remote) {
  const auto value = [&](const char* key) {
    const auto it = versions.find(key);
    return it == versions.end() ? QString() : qs(it->second);
  };
  QStringList parts = {remote ? (value("host").isEmpty() ? tr("remote") : value("host")) : tr("this computer")};
  if (const QString device = value("device"); !device.isEmpty()) parts << (device == QLatin1String("cpu") ? QStringLiteral("CPU") : device);
  if (const QString threads = value("threads"); !threads.isEmpty()) parts << counted(threads.toDouble(), tr("1 thread"), tr("%1 threads"));
  return tr("engine: %1").arg(parts.join(QStringLiteral(", ")));
}

std::optional<double> measured_drop(const Session& session, const Run* run) {
  const Run* base = run ? float_baseline(*run, session.runs()) : nullptr;
  if (base && has_perplexity(*run->accuracy)) return run->accuracy->perplexity / base->accuracy->perplexity - 1;
  if (!base || std::isnan(run->accuracy->top1)) return std::nullopt;
  return base->accuracy->top1 - run->accuracy->top1;
}

namespace {

// Ranges of weights come from the weights, dynamic ones from each sample, and those that the model's file gives from
// there; where the file has none for this format, the engine says so.
bool needs_calibration(const Plan& plan) {
  return std::any_of(plan.sites.begin(), plan.sites.end(), [](const SitePlan& p) {
    const bool measured = p.spec && p.spec->source != ScaleSource::kDynamic && p.spec->source != ScaleSource::kStored;
    return measured && is_activation(p.site.kind);
  });
}

}  // namespace

QString why_not_run(const Session& s) {
  if (const QString open = why_not_open(s); !open.isEmpty()) return open;
  return needs_calibration(s.plan()) ? why_not_calibrate(s) : QString();
}

QString why_not_calibrate(const Session& s) {
  if (const QString open = why_not_open(s); !open.isEmpty()) return open;
  const auto& d = s.state().data_status;
  return d.ready ? QString() : d.problem.empty() ? tr("Declare a data set first (Model, Data set).") : qs(d.problem);
}

QString why_not_evaluate(const Session& s) {
  if (const QString open = why_not_open(s); !open.isEmpty()) return open;
  const auto& d = s.state().data_status;
  if (d.can_evaluate) return {};
  return d.ready ? tr("The data set has no evaluation samples.") : why_not_calibrate(s);
}

QString why_not_train(const Session& s) {
  if (const QString run = why_not_run(s); !run.isEmpty()) return run;
  const auto& d = s.state().data_status;
  if (d.can_train) return {};
  return d.ready ? tr("The data set has no labelled training samples.") : why_not_calibrate(s);
}

}  // namespace quanvas::views
