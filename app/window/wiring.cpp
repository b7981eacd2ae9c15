// Wiring: engine, project and actions. Recipe and selection are in wiring_recipe.cpp, jobs and runs in wiring_runs.cpp.
#include "app/window/wiring.h"

#include <algorithm>

#include <QFileDialog>
#include <QFileInfo>
#include <QMessageBox>
#include <QPushButton>

#include "app/window/sheets.h"
#include "app/window/views.h"
#include "widgets/common/theme.h"
#include "widgets/models/catalog.h"
#include "widgets/panels/data_dialog.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }

bool is_active(const JobStatus& j) {
  return j.phase == JobStatus::Phase::kQueued || j.phase == JobStatus::Phase::kRunning || j.phase == JobStatus::Phase::kCancelling;
}

}  // namespace

Wiring::Wiring(Session* session, MainWindow* window)
    : QObject(window), session_(session), window_(window), panels_(window->panels()) {
  facts_timer_.setSingleShot(true);
  connect(&facts_timer_, &QTimer::timeout, this, [this] {
    show_new_facts();
    facts_shown_.start();
  });
  connect(&Theme::instance(), &Theme::changed, this, [this] { show_facts(); }, Qt::QueuedConnection);  // rich texts carry colours
  session->set_preparation(&views::prepare);
  wire_engine();
  wire_recipe_views();
  wire_selection();
  wire_jobs();
  wire_runs();
  wire_sweep();
  wire_export();
  wire_actions();
  window->set_palette_source([this] { return palette_items(); });
  update_actions();
}

// --- engine and project ---

void Wiring::wire_engine() {
  connect(session_, &Session::engine_ready, this, [this] {
    window_->banner()->hide_key(QStringLiteral("engine"));
    panels_.recipe->set_passes(plugin_entries(session_->catalog(), "passes"));
    panels_.target->set_targets(plugin_entries(session_->catalog(), "exporters"));
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
  connect(session_, &Session::trust_wanted, this, &Wiring::ask_for_trust);
  connect(session_, &Session::project_opened, this, &Wiring::project_opened);
  connect(session_, &Session::state_changed, this, &Wiring::show_state);
  connect(session_, &Session::issues_changed, this, [this] { panels_.issues->set_issues(session_->issues()); });
  connect(panels_.issues, &IssuesPanel::clear_wanted, session_, &Session::clear_issues);
  connect(panels_.issues, &IssuesPanel::activated, this, [this](const QString& where) {
    const Node* node = session_->graph() ? session_->graph()->find(where.toStdString()) : nullptr;
    if (node) select({node->id});
  });
  connect(window_, &MainWindow::open_wanted, this, &Wiring::open);
  connect(session_, &Session::unstored_changed, this, &Wiring::show_unstored);
  connect(session_, &Session::copy_failed, this, [this](const QString& sentence) {
    window_->banner()->show_message(QStringLiteral("copy"), QStringLiteral("error"), sentence, tr("Save a copy…"));
  });
  window_->set_close_guard([this] {
    if (!may_leave(tr("Quit"))) return false;
    session_->abandon_edits();
    return true;
  });
}

void Wiring::show_unstored() {
  const QString sentence = session_->unstored();
  if (sentence.isEmpty()) {
    window_->banner()->hide_key(QStringLiteral("unstored"));
    return show_state();  // what it covered
  }
  window_->banner()->show_message(QStringLiteral("unstored"), QStringLiteral("error"), tr("%1 It is tried again every few seconds.").arg(sentence), tr("Try again"));
}

bool Wiring::may_leave(const QString& what_next) {
  const QString why = session_->store_edits();
  if (why.isEmpty()) return true;
  QMessageBox box(QMessageBox::Warning, tr("Edits are not stored"), tr("The last edits of the recipe are not stored and would be lost."), QMessageBox::Cancel, window_);
  box.setObjectName(QStringLiteral("unstored-question"));
  box.setInformativeText(why);
  QAbstractButton* leave = box.addButton(tr("%1 without them").arg(what_next), QMessageBox::DestructiveRole);
  box.setDefaultButton(QMessageBox::Cancel);
  box.exec();
  return box.clickedButton() == leave;
}

void Wiring::open(const QString& path) {
  if (!session_->unstored().isEmpty() && !may_leave(tr("Open"))) return;
  window_->start_page()->set_progress(QFileInfo(path).fileName(), 0);
  session_->open(QFileInfo(path).absoluteFilePath());
}

// Does not block: the answer opens the file again, this time with the trust; anything else leaves it closed.
void Wiring::ask_for_trust(const QString& path, const QString& sentence) {
  window_->start_page()->set_idle();
  auto* box = new QMessageBox(QMessageBox::Warning, tr("Run the model's code?"),
                              tr("%1 brings code of its own.").arg(QFileInfo(path).fileName()), QMessageBox::Cancel, window_);
  box->setObjectName(QStringLiteral("trust-question"));
  box->setInformativeText(tr("%1\n\nOpen it only if you trust where it comes from. It is not asked about again; Model, Trusted files takes that back.").arg(sentence));
  box->setTextFormat(Qt::PlainText);  // the file's names stand in it
  box->setAttribute(Qt::WA_DeleteOnClose);
  QAbstractButton* yes = box->addButton(tr("Open"), QMessageBox::AcceptRole);
  box->setDefaultButton(QMessageBox::Cancel);
  connect(box, &QMessageBox::buttonClicked, this, [this, path, yes](QAbstractButton* button) {
    if (button != yes) return;
    ImportOptions import;
    import.trusted = kTrustAny;
    window_->start_page()->set_progress(QFileInfo(path).fileName(), 0);
    session_->open(path, import);
  });
  box->open();
}

void Wiring::project_opened(bool reopened) {
  window_->start_page()->set_idle();
  window_->add_recent(qs(session_->state().project_path));
  const auto prepared = std::static_pointer_cast<views::Prepared>(session_->take_prepared());
  panels_.graph->set_prepared(session_->graph(), prepared->graph);
  if (!reopened) selected_.clear();
  panels_.layers->set_rows(std::move(prepared->rows));
  show_recipe(/*new_rows=*/!reopened);
  show_state();
  show_runs();
  show_selection();
  panels_.issues->set_issues(session_->issues());
  window_->show_project(views::project_name(session_->state()), session_->state().read_only);
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
                                    state.data.calibrate.reader.empty() ? tr("No calibration data is declared. Ranges of activations and errors at the outputs need it.") : qs(state.data_status.problem),
                                    tr("Data set…"));
  else
    window_->banner()->hide_key(QStringLiteral("data"));
  if (data_dialog_) data_dialog_->set_status(state.data_status.problem.empty(), views::data_line(state.data_status));
  if (!session_->unstored().isEmpty()) show_unstored();
  update_actions();
  request_histogram();
}

void Wiring::say_problem(const QString& sentence) { window_->banner()->show_message(QStringLiteral("problem"), QStringLiteral("warning"), sentence); }

bool Wiring::settled() const {
  if (!session_->has_project() || panels_.graph->layout_pending() || facts_timer_.isActive() || histogram_pending_) return false;
  return std::all_of(session_->layers().begin(), session_->layers().end(),
                     [this](const Layer& l) { return session_->facts().count(l.node) && !session_->facts_are_stale(l.node); });
}

// --- actions ---

void Wiring::wire_actions() {
  auto& a = window_->actions();
  const auto on = [&](const char* id, auto fn) { connect(a.at(QLatin1String(id)), &QAction::triggered, this, fn); };
  on("save-copy", [this] {
    const QString path = QFileDialog::getSaveFileName(window_, tr("Save a copy"), QFileInfo(qs(session_->state().project_path)).absolutePath() + u'/' + tr("%1 copy").arg(views::project_name(session_->state())) + QStringLiteral(".quanvas"), tr("Projects (*.quanvas)"));
    if (!path.isEmpty()) session_->save_copy(path);
  });
  on("select-all", [this] {
    std::vector<NodeId> nodes;
    for (const auto& l : session_->layers()) nodes.push_back(l.node);
    select(nodes);
  });
  on("select-none", [this] { select({}); });
  on("data", [this] { show_data_dialog(); });
  on("shapes", [this] { show_shapes_dialog(); });
  on("quantizers", [this] { show_quantizers_dialog(); });
  on("trusted", [this] { show_trust_dialog(); });
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
    if (key == QLatin1String("unstored")) session_->retry_edits();
    if (key == QLatin1String("read-only") || key == QLatin1String("copy")) window_->actions().at(QStringLiteral("save-copy"))->trigger();
  });
}

void Wiring::update_actions() {
  auto& a = window_->actions();
  const bool open = session_->has_project();
  const bool active = std::any_of(session_->jobs().begin(), session_->jobs().end(), is_active);
  a.enable({QStringLiteral("save-copy"), QStringLiteral("save-picture"), QStringLiteral("select-all"), QStringLiteral("select-none"), QStringLiteral("find"), QStringLiteral("filter"),
            QStringLiteral("data"), QStringLiteral("shapes"), QStringLiteral("add-rule"), QStringLiteral("load-recipe"), QStringLiteral("save-recipe"), QStringLiteral("export")}, open);
  const auto gate = [&](const char* id, const QString& why_not) {
    QAction* action = a.at(QLatin1String(id));
    action->setEnabled(why_not.isEmpty());
    if (action->property("tip").isNull()) action->setProperty("tip", action->toolTip());
    action->setToolTip(why_not.isEmpty() ? action->property("tip").toString() : why_not);
  };
  gate("quantizers", views::why_no_file_quantizers(*session_));
  gate("trusted", session_->engine_is_ready() ? QString() : tr("The engine is not ready."));
  gate("calibrate", views::why_not_calibrate(*session_));
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
