#include "app/window/wiring.h"

#include <algorithm>
#include <cmath>

#include <QDialog>
#include <QFileDialog>
#include <QFileInfo>
#include <QVBoxLayout>

#include "app/window/docks.h"
#include "app/window/sheets.h"
#include "app/window/views.h"
#include "core/base/files.h"
#include "widgets/common/format.h"
#include "widgets/models/catalog.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/panels/data_dialog.h"
#include "widgets/panels/export_dialog.h"
#include "widgets/panels/preset_menu.h"
#include "widgets/panels/rule_dialog.h"
#include "widgets/panels/run_views.h"
#include "widgets/panels/sweep_dialog.h"
#include "widgets/panels/train_dialog.h"

namespace quanvas {
namespace {

constexpr int kRepaintMs = 33;
constexpr int kBins = 96;
QString qs(const std::string& s) { return QString::fromStdString(s); }

std::vector<PluginEntry> training_passes(const json& catalog) {
  auto passes = plugin_entries(catalog, "passes");
  std::erase_if(passes, [](const PluginEntry& p) { return !p.more.contains("stage") || p.more["stage"] != "training"; });
  return passes;
}

bool is_active(const JobStatus& j) {
  return j.phase == JobStatus::Phase::kQueued || j.phase == JobStatus::Phase::kRunning || j.phase == JobStatus::Phase::kCancelling;
}

}  // namespace

Wiring::Wiring(Session* session, MainWindow* window)
    : QObject(window), session_(session), window_(window), panels_(window->panels()) {
  facts_timer_.setSingleShot(true);
  connect(&facts_timer_, &QTimer::timeout, this, [this] {
    show_facts();
    facts_shown_.start();
  });
  connect(&Theme::instance(), &Theme::changed, this, &Wiring::schedule_facts);  // rich texts carry colours
  wire_engine();
  wire_recipe_views();
  wire_selection();
  wire_jobs();
  wire_runs();
  wire_sweep();
  wire_actions();
  window->set_palette_source([this] { return palette_items(); });
  update_actions();
}

// --- engine and project ---

void Wiring::wire_engine() {
  connect(session_, &Session::engine_ready, this, [this] {
    window_->banner()->hide_key(QStringLiteral("engine"));
    panels_.recipe->set_passes(plugin_entries(session_->catalog(), "passes"));
    QStringList lines;
    for (const auto& [key, value] : session_->engine_versions()) lines << qs(key) + QStringLiteral(": ") + qs(value);
    window_->engine_pill()->set_state(EnginePill::State::kReady, views::engine_line(session_->engine_versions(), session_->engine_is_remote()), lines.join(u'\n'));
    update_actions();
  });
  connect(session_, &Session::engine_lost, this, [this](const QString& sentence) {
    window_->engine_pill()->set_state(EnginePill::State::kLost, tr("engine: lost"), sentence);
    window_->banner()->show_message(QStringLiteral("engine"), QStringLiteral("error"), sentence);
    update_actions();
  });
  connect(session_, &Session::open_progress, window_->start_page(), &StartPage::set_progress);
  connect(session_, &Session::open_failed, this, [this](const QString& path, const QString& sentence) {
    if (window_->shows_project()) say_problem(tr("%1 could not be opened. %2").arg(path, sentence));
    else window_->start_page()->set_error(sentence);
    Q_EMIT open_failed(sentence);
  });
  connect(session_, &Session::project_opened, this, &Wiring::project_opened);
  connect(session_, &Session::state_changed, this, &Wiring::show_state);
  connect(session_, &Session::issues_changed, this, [this] { panels_.issues->set_issues(session_->issues()); });
  connect(panels_.issues, &IssuesPanel::clear_wanted, session_, &Session::clear_issues);
  connect(panels_.issues, &IssuesPanel::activated, this, [this](const QString& where) {
    const Node* node = session_->graph() ? session_->graph()->find(where.toStdString()) : nullptr;
    if (node) select({node->id});
  });
  connect(window_, &MainWindow::open_wanted, this, &Wiring::open);
}

void Wiring::open(const QString& path) {
  window_->start_page()->set_progress(QFileInfo(path).fileName(), 0);
  session_->open(QFileInfo(path).absoluteFilePath());
}

void Wiring::project_opened(bool reopened) {
  window_->start_page()->set_idle();
  window_->add_recent(qs(session_->state().project_path));
  panels_.graph->set_graph(session_->graph(), session_->layers());
  if (!reopened) selected_.clear();
  rows_ = layer_rows(*session_->graph(), session_->layers(), session_->plan(), session_->facts());
  show_recipe();
  show_state();
  show_runs();
  show_selection();
  panels_.issues->set_issues(session_->issues());
  window_->show_project(views::project_name(session_->state()), session_->state().read_only);
  std::vector<NodeId> nodes;
  for (const auto& layer : session_->layers()) nodes.push_back(layer.node);
  session_->request_facts(nodes);
  if (!reopened) panels_.graph->show_start();
  Q_EMIT opened();
}

void Wiring::show_state() {
  const auto& state = session_->state();
  panels_.runs->set_data_name(qs(state.data.name), state.data_status.evaluation_samples);
  if (state.read_only)
    window_->banner()->show_message(QStringLiteral("read-only"), QStringLiteral("lock"), tr("Read-only: %1 Edits are kept only in this window.").arg(qs(state.read_only_reason)), tr("Save a copy…"));
  else
    window_->banner()->hide_key(QStringLiteral("read-only"));
  if (session_->has_project() && !state.data_status.ready && !state.read_only)
    window_->banner()->show_message(QStringLiteral("data"), QStringLiteral("info"),
                                    state.data.calibrate.reader.empty() ? tr("No data set is declared. Ranges of activations, errors at the outputs and accuracy need one.") : qs(state.data_status.problem),
                                    tr("Data set…"));
  else
    window_->banner()->hide_key(QStringLiteral("data"));
  if (data_dialog_) data_dialog_->set_status(state.data_status.problem.empty(), views::data_line(state.data_status));
  update_actions();
  request_histogram();
}

void Wiring::say_problem(const QString& sentence) { window_->banner()->show_message(QStringLiteral("problem"), QStringLiteral("warning"), sentence); }

bool Wiring::settled() const {
  if (!session_->has_project() || panels_.graph->layout_pending() || facts_timer_.isActive() || histogram_pending_) return false;
  return std::all_of(session_->layers().begin(), session_->layers().end(),
                     [this](const Layer& l) { return session_->facts().count(l.node) && !session_->facts_are_stale(l.node); });
}

// --- recipe, facts ---

void Wiring::wire_recipe_views() {
  connect(session_, &Session::recipe_changed, this, [this] {
    show_recipe();
    request_histogram();
  });
  connect(session_, &Session::facts_changed, this, &Wiring::schedule_facts);
  connect(panels_.recipe, &RecipePanel::recipe_edited, session_, &Session::edit_recipe);
  connect(panels_.recipe, &RecipePanel::rule_edit_wanted, this, &Wiring::edit_rule);
  connect(panels_.recipe, &RecipePanel::load_wanted, this, &Wiring::load_recipe);
  connect(panels_.recipe, &RecipePanel::save_wanted, this, &Wiring::save_recipe);
  const auto use_builtin = [this](const QString& id) {
    const auto recipe = builtin_recipe(id.toStdString());
    if (recipe) use_recipe(*recipe, tr("Use recipe %1").arg(qs(recipe->name)));
    else say_problem(qs(recipe.error().text()));
  };
  connect(panels_.recipe, &RecipePanel::builtin_wanted, this, use_builtin);
  for (const auto& id : builtin_recipe_ids())
    window_->actions().submenu(QStringLiteral("builtin"))->addAction(qs(id), this, [use_builtin, id] { use_builtin(qs(id)); });
  connect(panels_.inspector, &InspectorPanel::assign, this, &Wiring::assign);
  connect(panels_.inspector, &InspectorPanel::rule_added, this, [this](const Rule& rule, const QString& label) { session_->edit_recipe(with_rule(session_->recipe(), rule), label); });
  connect(panels_.inspector, &InspectorPanel::rule_wanted, this, &Wiring::make_rule);
  connect(panels_.inspector, &InspectorPanel::reset_wanted, this, [this](const std::vector<Site>& sites) {
    session_->edit_recipe(without_own_rules(session_->recipe(), *session_->graph(), sites), tr("Remove own rule"));
  });
  connect(panels_.inspector, &InspectorPanel::calibrate_wanted, this, [this] { window_->actions().at(QStringLiteral("calibrate"))->trigger(); });
  connect(panels_.layers, &LayersPanel::format_chosen, this, &Wiring::assign_kind);
  connect(panels_.layers, &LayersPanel::rule_wanted, this, [this](const std::vector<NodeId>& nodes) {
    Rule draft;
    for (const NodeId id : nodes)
      if (const Node* n = session_->graph()->find(id)) draft.select.names.push_back(n->name);
    draft.select.sites = {SiteKind::kWeight};
    make_rule(draft);
  });
  connect(panels_.distribution, &DistributionPanel::clip_changed, this, &Wiring::assign_clip);
  connect(panels_.distribution, &DistributionPanel::calibrate_wanted, this, [this] { window_->actions().at(QStringLiteral("calibrate"))->trigger(); });
}

void Wiring::show_recipe() {
  if (!session_->has_project()) return;
  panels_.recipe->set_recipe(session_->recipe(), views::rule_matches(session_->recipe(), session_->plan()), session_->plan().warnings);
  show_facts();
  show_run_marks();
}

// The first answer after a pause is shown with the next event, so that a click is answered at once; answers that
// stream in are shown together, once per kRepaintMs.
void Wiring::schedule_facts() {
  if (facts_timer_.isActive()) return;
  const qint64 since = facts_shown_.isValid() ? facts_shown_.elapsed() : kRepaintMs;
  facts_timer_.start(static_cast<int>(std::clamp<qint64>(kRepaintMs - since, 0, kRepaintMs)));
}

void Wiring::show_facts() {
  if (!session_->has_project()) return;
  refresh_rows(rows_, session_->layers(), session_->plan(), session_->facts());
  for (auto& row : rows_) row.stale = session_->facts_are_stale(row.node);
  panels_.layers->set_rows(rows_);
  panels_.graph->set_visuals(views::node_visuals(*session_));
  panels_.error->set_live(views::live_errors(*session_));
  panels_.sweep->set_layers(views::sweep_layers(*session_));
  panels_.sweep->set_measured(views::measured_drop(*session_));
  window_->status_line()->set_stale(views::stale_line(*session_));
  window_->status_line()->set_accuracy(views::accuracy_line(*session_));
  show_selection();
}

void Wiring::assign(const std::vector<Assignment>& assignments, const QString& label, const QString& merge_key) {
  if (assignments.size() == 1) session_->assign(assignments.front().sites, assignments.front().spec, label, merge_key);
  else session_->edit_recipe(with_assignments(session_->recipe(), *session_->graph(), assignments), label, merge_key);
}

void Wiring::assign_kind(const std::vector<NodeId>& nodes, SiteKind kind, const std::optional<QuantSpec>& spec, const QString& label) {
  Assignment a{{}, spec};
  for (const NodeId node : nodes)
    if (const Layer* layer = find_layer(session_->layers(), node))
      for (const auto& site : layer->sites())
        if (site.kind == kind) a.sites.push_back(site);
  if (a.sites.empty()) return say_problem(tr("None of the selected layers has a %1.").arg(site_word(kind)));
  assign({a}, label, {});
}

void Wiring::assign_width(NodeId node, int bits, bool weights, bool activations) {
  const Layer* layer = find_layer(session_->layers(), node);
  const Node* n = session_->graph()->find(node);
  if (!layer || !n) return;
  std::vector<Assignment> list;
  for (const auto& site : layer->sites()) {
    const bool wanted = (site.kind == SiteKind::kWeight && weights) || (site.kind == SiteKind::kInput && activations);
    if (!wanted) continue;
    const auto* p = session_->plan().find(site);
    QuantSpec spec = p && p->spec ? *p->spec : from_json_value<QuantSpec>(quant_spec_schema(site.kind).defaults()).value_or(QuantSpec{});
    spec.bits = bits;
    if (bits == 1) spec.narrow = false;
    list.push_back({{site}, spec});
  }
  if (!list.empty()) assign(list, tr("%1: %2 bit").arg(qs(n->name)).arg(bits), {});
}

void Wiring::assign_clip(const Site& site, double lo, double hi, bool finished) {
  const auto* p = session_->plan().find(site);
  const Node* n = session_->graph()->find(site.node);
  if (!p || !p->spec || !n) return;
  QuantSpec spec = *p->spec;
  spec.clip_min = lo;
  spec.clip_max = hi;
  session_->assign({site}, spec, tr("%1 %2: clip %3 … %4").arg(qs(n->name), site_word(site.kind), significant_text(lo), significant_text(hi)),
                   QStringLiteral("clip/%1/%2/%3").arg(site.node).arg(static_cast<int>(site.kind)).arg(drag_));
  if (finished) ++drag_;
}

void Wiring::reset_layers(const std::vector<NodeId>& nodes) {
  std::vector<Site> sites;
  for (const NodeId node : nodes)
    if (const Layer* layer = find_layer(session_->layers(), node))
      for (const auto& site : layer->sites()) sites.push_back(site);
  session_->edit_recipe(without_own_rules(session_->recipe(), *session_->graph(), sites), tr("Remove own rules"));
}

void Wiring::edit_rule(int index) {
  const auto& rules = session_->recipe().rules;
  if (!session_->has_project()) return;
  if (index < 0 || index >= static_cast<int>(rules.size())) return make_rule(Rule{});
  auto* dialog = new RuleDialog(session_->graph(), rules[static_cast<std::size_t>(index)], window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog, index] { session_->edit_recipe(with_rule_at(session_->recipe(), index, dialog->rule()), tr("Change rule %1").arg(index + 1)); });
  dialog->open();
}

void Wiring::make_rule(const Rule& draft) {
  if (!session_->has_project()) return;
  auto* dialog = new RuleDialog(session_->graph(), draft, window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog] {
    const Rule rule = dialog->rule();
    session_->edit_recipe(with_rule(session_->recipe(), rule), tr("Add rule: %1").arg(qs(describe(rule.select))));
  });
  dialog->open();
}

void Wiring::use_recipe(const Recipe& recipe, const QString& label) {
  if (!session_->has_project()) return say_problem(tr("Open a model first."));
  session_->edit_recipe(recipe, label);
}

void Wiring::load_recipe() {
  const QString path = QFileDialog::getOpenFileName(window_, tr("Load a recipe"), {}, tr("Recipes (*.yaml *.yml *.json)"));
  if (path.isEmpty()) return;
  const auto text = read_file(path.toStdString(), 16 << 20);
  if (!text) return say_problem(qs(text.error().text()));
  const auto recipe = parse_recipe(*text, path.toStdString());
  if (!recipe) return say_problem(qs(recipe.error().text()));
  use_recipe(*recipe, tr("Load %1").arg(QFileInfo(path).fileName()));
}

void Wiring::save_recipe() {
  const QString path = QFileDialog::getSaveFileName(window_, tr("Save the recipe"), qs(session_->recipe().name) + QStringLiteral(".yaml"), tr("Recipes (*.yaml)"));
  if (path.isEmpty()) return;
  if (const auto status = write_file_atomically(path.toStdString(), recipe_to_yaml(session_->recipe())); !status) say_problem(qs(status.error().text()));
}

// --- selection ---

void Wiring::wire_selection() {
  connect(panels_.graph, &GraphView::selection_changed, this, [this](const std::vector<NodeId>& nodes) { select(nodes, panels_.graph); });
  connect(panels_.layers, &LayersPanel::selection_changed, this, [this](const std::vector<NodeId>& nodes) { select(nodes, panels_.layers); });
  connect(panels_.layers, &LayersPanel::activated, this, [this](NodeId node) { panels_.graph->set_selection({node}, true); });
  connect(panels_.graph, &GraphView::node_activated, this, [this](NodeId node) {
    select({node}, panels_.graph);
    window_->docks()->show_panel(panels_.inspector);
  });
  connect(panels_.graph, &GraphView::context_menu_requested, this, [this](NodeId node, const QPoint& at) {
    if (node == kNoNode || selected_.empty()) return;
    QMenu menu(window_);
    for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kInput, SiteKind::kOutput}) {
      auto* sub = menu.addMenu(tr("%1 format").arg(site_title(kind)));
      sub->addAction(tr("Float"), this, [this, kind] { assign_kind(selected_, kind, std::nullopt, tr("Set %1 to float").arg(site_word(kind))); });
      sub->addSeparator();
      fill_preset_menu(sub, PresetLibrary::builtin(), kind, [this, kind](const Preset& p) { assign_kind(selected_, kind, p.spec, tr("Set %1 to %2").arg(site_word(kind), qs(p.title))); });
    }
    menu.addAction(window_->actions().at(QStringLiteral("reset-layer")));
    menu.exec(at);
  });
  for (auto* source : {static_cast<QObject*>(panels_.error), static_cast<QObject*>(panels_.sweep)}) {
    if (source == panels_.error) connect(panels_.error, &ErrorPanel::layer_clicked, this, [this](NodeId n) { select({n}); });
    else connect(panels_.sweep, &SweepPanel::layer_clicked, this, [this](NodeId n) { select({n}); });
  }
  connect(panels_.inspector, &InspectorPanel::kind_changed, panels_.distribution, &DistributionPanel::set_current_kind);
  connect(panels_.distribution, &DistributionPanel::site_changed, this, [this](const Site& site) {
    panels_.inspector->set_current_kind(site.kind);
    request_histogram();
  });
  connect(session_, &Session::histogram_ready, this, [this](const Histogram& h) {
    histogram_pending_ = false;
    panels_.distribution->set_histogram(h);
  });
  connect(session_, &Session::histogram_failed, this, [this](const Site& site, const QString& sentence) {
    histogram_pending_ = false;
    panels_.distribution->set_message(site, sentence);
  });
}

void Wiring::select(const std::vector<NodeId>& nodes, const QObject* origin) {
  selected_ = nodes;
  if (origin != panels_.graph) panels_.graph->set_selection(nodes, nodes.size() == 1);
  if (origin != panels_.layers) panels_.layers->set_selection(nodes);
  panels_.error->set_selection(nodes);
  session_->request_facts(nodes);
  show_selection();
  request_histogram();
}

void Wiring::show_selection() {
  if (!session_->has_project()) return;
  auto state = inspector_state(*session_->graph(), session_->layers(), session_->recipe(), session_->plan(), session_->facts(), selected_);
  if (state.layers.size() == 1) state.stale = session_->facts_are_stale(state.layers.front());
  const NodeId first = state.layers.empty() ? kNoNode : state.layers.front();
  const Node* node = first == kNoNode ? nullptr : session_->graph()->find(first);
  panels_.distribution->set_sources(node ? qs(node->name) : QString(), views::distribution_sources(*session_, first));
  panels_.inspector->set_state(state);
  window_->actions().enable({QStringLiteral("reset-layer")}, !state.layers.empty());
}

void Wiring::request_histogram() {
  const auto site = panels_.distribution->current_site();
  histogram_pending_ = site && session_->has_project();
  if (histogram_pending_) session_->request_histogram(*site, kBins);
}

// --- jobs ---

void Wiring::wire_jobs() {
  connect(session_, &Session::jobs_changed, this, &Wiring::show_jobs);
  connect(panels_.jobs, &JobsPanel::cancel_wanted, session_, &Session::cancel);
  connect(window_->status_line(), &StatusLine::cancel_wanted, session_, &Session::cancel);
  connect(session_, &Session::train_point, panels_.jobs, &JobsPanel::add_train_point);
  connect(session_, &Session::job_finished, this, [this](const QString& id, bool ok, const QString& sentence) {
    if (id == sweep_job_) {
      sweep_job_.clear();
      panels_.sweep->set_running(false);
      show_runs();
    }
    if (id == export_job_) {
      export_job_.clear();
      if (!ok && export_dialog_) export_dialog_->set_failed(sentence);
    } else if (!ok) {
      say_problem(sentence);
    }
    // The accuracy of a run stands at the right.
    const bool said = ok && sentence.contains(QLatin1String(": top-1")) && views::current_run(*session_);
    window_->status_line()->set_message(said ? QString() : sentence);
  });
  connect(session_, &Session::export_finished, this, [this](const ExportReport& report) {
    if (export_dialog_) export_dialog_->set_report(report);
  });
  connect(session_, &Session::export_checked, this, [this](const QString& target, const std::vector<Refusal>& refusals) {
    if (export_dialog_) export_dialog_->set_refusals(target, refusals);
  });
}

void Wiring::show_jobs() {
  const auto rows = views::job_rows(session_->jobs());
  panels_.jobs->set_jobs(rows);
  const auto running = std::find_if(rows.begin(), rows.end(), [](const JobRow& j) { return j.phase == JobRow::Phase::kRunning || j.phase == JobRow::Phase::kCancelling; });
  const auto waiting = std::count_if(rows.begin(), rows.end(), [](const JobRow& j) { return j.phase == JobRow::Phase::kQueued; });
  const auto first = running != rows.end() ? running : std::find_if(rows.begin(), rows.end(), [](const JobRow& j) { return !is_over(j.phase); });
  window_->status_line()->set_job(first == rows.end() ? nullptr : &*first, static_cast<int>(waiting) - (running == rows.end() ? 1 : 0));
  for (const auto& j : rows)
    if (j.id == export_job_ && export_dialog_) export_dialog_->set_progress(j.detail);
  update_actions();
}

// --- runs ---

void Wiring::wire_runs() {
  connect(session_, &Session::runs_changed, this, &Wiring::show_runs);
  connect(panels_.runs, &RunsPanel::compare_wanted, this, &Wiring::compare_runs);
  connect(panels_.runs, &RunsPanel::details_wanted, this, &Wiring::show_run);
  connect(panels_.runs, &RunsPanel::restore_wanted, this, &Wiring::restore_run);
  connect(panels_.runs, &RunsPanel::export_wanted, this, &Wiring::show_export);
  connect(panels_.runs, &RunsPanel::selection_changed, this, &Wiring::update_actions);
}

const Run* Wiring::run(std::int64_t id) const {
  for (const auto& r : session_->runs())
    if (r.id == id) return &r;
  return nullptr;
}

void Wiring::show_run_marks() {
  const Run* current = views::current_run(*session_);
  panels_.runs->set_marks(views::stale_runs(*session_), current ? current->id : 0);
}

void Wiring::show_runs() {
  const Run* current = views::current_run(*session_);
  panels_.runs->set_runs(session_->runs(), views::stale_runs(*session_), current ? current->id : 0);
  panels_.error->set_runs(session_->runs());
  if (sweep_job_.isEmpty()) {
    const Run* sweep = views::newest_sweep(*session_);
    panels_.sweep->set_sweep(sweep ? sweep->sweep : std::nullopt, sweep ? sweep->id : 0);
  }
  schedule_facts();
}

QDialog* Wiring::show_in_dialog(QWidget* view, const QString& title, const QSize& size) {
  auto* dialog = new QDialog(window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowTitle(title);
  dialog->resize(size);
  auto* layout = new QVBoxLayout(dialog);
  layout->addWidget(view);
  dialog->show();
  return dialog;
}

void Wiring::compare_runs(std::int64_t a, std::int64_t b) {
  const Run *first = run(a), *second = run(b);
  if (!first || !second) return;
  auto* view = new RunCompareView(*first, *second);
  connect(view, &RunCompareView::layer_clicked, this, [this](NodeId node) { select({node}); });
  show_in_dialog(view, tr("Compare runs %1 and %2").arg(a).arg(b), {860, 640});
}

void Wiring::show_run(std::int64_t id) {
  if (const Run* r = run(id)) show_in_dialog(new RunDetailsView(*r), tr("Run %1: %2").arg(id).arg(qs(r->name)), {640, 480});
}

void Wiring::restore_run(std::int64_t id) {
  if (const Run* r = run(id)) session_->edit_recipe(r->recipe, tr("Restore recipe of run %1").arg(id));
}

// --- sweep, training, export, data ---

void Wiring::wire_sweep() {
  connect(panels_.sweep, &SweepPanel::start_wanted, this, &Wiring::start_sweep);
  connect(panels_.sweep, &SweepPanel::cancel_wanted, this, [this] { session_->cancel(sweep_job_); });
  connect(panels_.sweep, &SweepPanel::width_chosen, this, &Wiring::assign_width);
  connect(panels_.sweep, &SweepPanel::resume_wanted, this, [this](qint64 id) {
    const Run* r = run(id);
    if (!r || !r->sweep) return;
    sweep_job_ = session_->start_sweep(r->sweep->settings, id);
    panels_.sweep->set_running(true);
  });
  connect(session_, &Session::sweep_cell, this, [this](qint64, const SweepCell& cell) { panels_.sweep->add_cell(cell); });
}

void Wiring::start_sweep() {
  SweepSettings last;
  if (const Run* r = views::newest_sweep(*session_)) last = r->sweep->settings;
  last.layers.clear();
  std::vector<NodeId> chosen;
  const auto rows = views::sweep_layers(*session_);
  for (const auto& l : rows)
    if (std::find(selected_.begin(), selected_.end(), l.node) != selected_.end()) chosen.push_back(l.node);
  auto* dialog = new SweepDialog(last, chosen, static_cast<int>(rows.size()), window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog] {
    const auto settings = dialog->settings();
    sweep_job_ = session_->start_sweep(settings);
    panels_.sweep->begin(settings);
    panels_.sweep->set_running(true);
    window_->docks()->show_panel(panels_.sweep);
  });
  dialog->open();
}

void Wiring::start_training() {
  const auto passes = training_passes(session_->catalog());
  if (passes.empty()) return say_problem(tr("The engine has no training pass."));
  auto* dialog = new TrainDialog(passes, session_->recipe(), window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog, passes] {
    const auto pass = dialog->pass();
    const Recipe recipe = with_pass(session_->recipe(), pass);
    session_->edit_recipe(recipe, tr("Train with %1").arg(entry_title(passes, pass.id)));
    panels_.jobs->begin_curve();
    session_->start_run(recipe);
    window_->docks()->show_panel(panels_.jobs);
  });
  dialog->open();
}

void Wiring::show_export(std::int64_t id) {
  if (export_dialog_) export_dialog_->close();
  const Run* r = id ? run(id) : nullptr;
  const QString what = r ? tr("run %1: %2").arg(id).arg(qs(r->name)) : qs(session_->recipe().name);
  export_dialog_ = new ExportDialog(plugin_entries(session_->catalog(), "exporters"), id, what, views::export_stem(*session_, r), views::quantizes(*session_, r), window_);
  export_dialog_->setAttribute(Qt::WA_DeleteOnClose);
  connect(export_dialog_, &ExportDialog::check_wanted, session_, &Session::check_export);
  connect(export_dialog_, &ExportDialog::export_wanted, this, [this](const QString& target, const QString& path, const json& options, qint64 run_id) {
    ExportRequest request;
    request.target = target.toStdString();
    request.path = path.toStdString();
    request.options = options;
    request.run = run_id;
    export_job_ = session_->start_export(request);
  });
  export_dialog_->show();
  if (!export_dialog_->current_target().isEmpty()) session_->check_export(export_dialog_->current_target());
}

void Wiring::show_data_dialog() {
  if (data_dialog_) return data_dialog_->raise();
  data_dialog_ = new DataDialog(session_->state().data, plugin_entries(session_->catalog(), "datasets"), window_);
  data_dialog_->setAttribute(Qt::WA_DeleteOnClose);
  const auto& status = session_->state().data_status;
  data_dialog_->set_status(status.problem.empty(), views::data_line(status));
  connect(data_dialog_, &DataDialog::apply_wanted, session_, &Session::set_data);
  data_dialog_->show();
}

// --- actions ---

void Wiring::wire_actions() {
  auto& a = window_->actions();
  const auto on = [&](const char* id, auto fn) { connect(a.at(QLatin1String(id)), &QAction::triggered, this, fn); };
  on("save-copy", [this] {
    const QString path = QFileDialog::getSaveFileName(window_, tr("Save a copy"), views::project_name(session_->state()) + QStringLiteral(".quanvas"), tr("Projects (*.quanvas)"));
    if (!path.isEmpty()) session_->save_copy(path);
  });
  on("select-all", [this] {
    std::vector<NodeId> nodes;
    for (const auto& l : session_->layers()) nodes.push_back(l.node);
    select(nodes);
  });
  on("select-none", [this] { select({}); });
  on("data", [this] { show_data_dialog(); });
  on("calibrate", [this] { session_->start_calibrate(); });
  on("evaluate-float", [this] { session_->start_evaluate_float(); });
  on("add-rule", [this] { make_rule(Rule{}); });
  on("reset-layer", [this] { reset_layers(selected_); });
  on("load-recipe", [this] { load_recipe(); });
  on("save-recipe", [this] { save_recipe(); });
  on("run", [this] {
    panels_.jobs->begin_curve();
    session_->start_run();
  });
  on("train", [this] { start_training(); });
  on("sweep", [this] { start_sweep(); });
  on("cancel", [this] {
    for (const auto& j : session_->jobs())
      if (is_active(j)) return session_->cancel(j.id);
  });
  on("compare", [this] {
    const auto ids = panels_.runs->selection();
    if (ids.size() == 2) compare_runs(ids[0], ids[1]);
  });
  const auto with_run = [this](auto fn) { return [this, fn] { if (const auto ids = panels_.runs->selection(); ids.size() == 1) fn(ids.front()); }; };
  on("run-details", with_run([this](std::int64_t id) { show_run(id); }));
  on("restore", with_run([this](std::int64_t id) { restore_run(id); }));
  on("export-run", with_run([this](std::int64_t id) { show_export(id); }));
  on("export", [this] { show_export(0); });
  on("about", [this] { show_about(window_, session_->engine_versions()); });
  connect(window_->banner(), &Banner::action_triggered, this, [this](const QString& key) {
    if (key == QLatin1String("data")) show_data_dialog();
    if (key == QLatin1String("read-only")) window_->actions().at(QStringLiteral("save-copy"))->trigger();
  });
}

void Wiring::update_actions() {
  auto& a = window_->actions();
  const bool open = session_->has_project();
  const bool active = std::any_of(session_->jobs().begin(), session_->jobs().end(), is_active);
  a.enable({QStringLiteral("save-copy"), QStringLiteral("save-picture"), QStringLiteral("select-all"), QStringLiteral("select-none"), QStringLiteral("find"), QStringLiteral("filter"),
            QStringLiteral("data"), QStringLiteral("add-rule"), QStringLiteral("load-recipe"), QStringLiteral("save-recipe"), QStringLiteral("export")}, open);
  const auto gate = [&](const char* id, const QString& why_not) {
    QAction* action = a.at(QLatin1String(id));
    action->setEnabled(why_not.isEmpty());
    if (action->property("tip").isNull()) action->setProperty("tip", action->toolTip());
    action->setToolTip(why_not.isEmpty() ? action->property("tip").toString() : why_not);
  };
  gate("calibrate", views::why_not_run(*session_));
  gate("run", views::why_not_run(*session_));
  gate("evaluate-float", views::why_not_evaluate(*session_));
  gate("train", views::why_not_train(*session_));
  gate("sweep", views::why_not_evaluate(*session_));
  panels_.sweep->set_can_start(views::why_not_evaluate(*session_).isEmpty(), views::why_not_evaluate(*session_));
  a.enable({QStringLiteral("cancel")}, active);
  const auto ids = panels_.runs->selection();
  const Run* r = ids.size() == 1 ? run(ids.front()) : nullptr;
  a.enable({QStringLiteral("compare")}, ids.size() == 2);
  a.enable({QStringLiteral("run-details")}, r);
  a.enable({QStringLiteral("restore")}, r && r->kind == RunKind::kQuantize);
  a.enable({QStringLiteral("export-run")}, r && !r->artifact.empty());
  panels_.recipe->set_enabled(open);
}

std::vector<PaletteItem> Wiring::palette_items() {
  std::vector<PaletteItem> items;
  if (!session_->has_project()) return items;
  for (const auto& layer : session_->layers())
    if (const Node* n = session_->graph()->find(layer.node))
      items.push_back({qs(n->name), tr("layer"), qs(describe_short(*session_->graph(), *n)), [this, node = layer.node] { select({node}); }});
  for (const auto& p : PresetLibrary::builtin().all()) {
    if (p.sites.empty() || selected_.empty()) continue;
    const SiteKind kind = p.sites.front();
    items.push_back({tr("Set %1 to %2").arg(site_word(kind), qs(p.title)), tr("preset"), tr("for the selection"),
                     [this, p, kind] { assign_kind(selected_, kind, p.spec, tr("Set %1 to %2").arg(site_word(kind), qs(p.title))); }});
  }
  for (const auto& id : builtin_recipe_ids())
    items.push_back({tr("Recipe %1").arg(qs(id)), tr("recipe"), {}, [this, id] {
                       if (const auto r = builtin_recipe(id)) use_recipe(*r, tr("Use recipe %1").arg(qs(r->name)));
                     }});
  return items;
}

}  // namespace quanvas
