// Wiring: jobs, runs and what starts them: sweep, training, export; the declaration of the data.
#include "app/window/wiring.h"

#include <algorithm>

#include <QVBoxLayout>

#include "app/window/docks.h"
#include "app/window/views.h"
#include "widgets/models/catalog.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/panels/data_dialog.h"
#include "widgets/panels/export_dialog.h"
#include "widgets/panels/quantizers_dialog.h"
#include "widgets/panels/run_views.h"
#include "widgets/panels/sweep_dialog.h"
#include "widgets/panels/shapes_dialog.h"
#include "widgets/panels/train_dialog.h"
#include "widgets/panels/trust_dialog.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }

std::vector<PluginEntry> training_passes(const json& catalog) {
  auto passes = plugin_entries(catalog, "passes");
  std::erase_if(passes, [](const PluginEntry& p) { return !p.more.contains("stage") || p.more["stage"] != "training"; });
  return passes;
}

}  // namespace

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
    // The accuracy of a run of the current recipe stands at the right.
    const Run* current = views::current_run(*session_);
    const bool said = ok && sentence.contains(QLatin1String(": top-1")) && !sentence.contains(QLatin1String("not stored")) && current && current->id == session_->runs().back().id;
    window_->status_line()->set_message(said ? QString() : sentence);
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
  const Run* r = run(id);
  if (!r) return;
  auto* view = new RunDetailsView(*r);
  connect(session_, &Session::exports_read, view, [view, id](qint64 of, const std::vector<ExportReport>& reports) {
    if (of == id) view->set_exports(reports);
  });
  show_in_dialog(view, tr("Run %1: %2").arg(id).arg(qs(r->name)), {640, 480});
  session_->request_exports(id);
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
  connect(session_, &Session::sweep_cell, this, [this](qint64 job, const SweepCell& cell) {
    if (sweep_job_ == QStringLiteral("j%1").arg(job)) panels_.sweep->add_cell(cell);
  });
}

void Wiring::start_sweep() {
  SweepSettings last;
  if (const Run* r = views::newest_sweep(*session_)) last = r->sweep->settings;
  last.layers.clear();
  std::vector<NodeId> chosen;
  const auto rows = views::sweep_layers(*session_);
  for (const auto& l : rows)
    if (std::find(selected_.begin(), selected_.end(), l.node) != selected_.end()) chosen.push_back(l.node);
  auto* dialog = new SweepDialog(last, chosen, static_cast<int>(rows.size()), plugin_entries(session_->catalog(), "passes"), window_);
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
  const auto trains = [&](const Recipe& r) {
    return std::any_of(r.passes.begin(), r.passes.end(), [&](const PassEntry& e) {
      return std::any_of(passes.begin(), passes.end(), [&](const PluginEntry& p) { return p.id == e.id; });
    });
  };
  // The settings of the last training are the start of the next one.
  const auto& runs = session_->runs();
  const auto last = std::find_if(runs.rbegin(), runs.rend(), [&](const Run& r) { return trains(r.recipe); });
  const bool again = !trains(session_->recipe()) && last != runs.rend();
  auto* dialog = new TrainDialog(passes, again ? last->recipe : session_->recipe(), window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog] {
    const auto pass = dialog->pass();
    // The run keeps the recipe that it was made with; the project's stays without the pass, so that Run does not train.
    panels_.jobs->begin_curve();
    session_->start_run(with_pass(session_->recipe(), pass));
    window_->docks()->show_panel(panels_.jobs);
  });
  dialog->open();
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

void Wiring::show_shapes_dialog() {
  std::vector<InputShape> inputs;
  const Graph& graph = *session_->graph();
  for (const TensorId id : graph.inputs()) inputs.push_back({graph.tensor(id).name, graph.tensor(id).type, graph.tensor(id).shape});
  auto* dialog = new ShapesDialog(inputs, window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowModality(Qt::WindowModal);
  connect(dialog, &ShapesDialog::shapes_wanted, this, [this](const std::map<std::string, Shape>& shapes) {
    ImportOptions import;
    import.shapes = shapes;
    session_->open(qs(session_->state().project_path), import);
  });
  dialog->show();
}

void Wiring::show_quantizers_dialog() {
  auto* dialog = new QuantizersDialog(views::file_quantizers(*session_), window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowModality(Qt::WindowModal);
  connect(dialog, &QuantizersDialog::wanted, this, [this](FileQuantizers quantizers) {
    if (!session_->unstored().isEmpty() && !may_leave(tr("Open"))) return;
    ImportOptions import = session_->state().import;  // with the same shapes
    import.quantizers = quantizers;
    session_->open(qs(session_->state().model_path), import, views::project_with(qs(session_->state().project_path), quantizers));
  });
  dialog->show();
}

void Wiring::show_trust_dialog() {
  if (trust_dialog_) return trust_dialog_->raise();
  trust_dialog_ = new TrustDialog(window_);
  trust_dialog_->setAttribute(Qt::WA_DeleteOnClose);
  connect(trust_dialog_, &TrustDialog::revoke_wanted, session_, &Session::revoke_trust);
  connect(session_, &Session::trust_listed, trust_dialog_, &TrustDialog::set_models);
  connect(session_, &Session::trust_failed, trust_dialog_, &TrustDialog::set_problem);
  session_->request_trust();
  trust_dialog_->show();
}

}  // namespace quanvas
