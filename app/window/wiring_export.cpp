// Wiring: the way out: the target lens, the export dialogue.
#include "app/window/docks.h"
#include "app/window/views.h"
#include "app/window/wiring.h"
#include "widgets/panels/export_dialog.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }

}  // namespace

void Wiring::wire_export() {
  connect(session_, &Session::export_finished, this, [this](const ExportReport& report) {
    if (export_dialog_) export_dialog_->set_report(report);
  });
  connect(session_, &Session::export_checked, this, [this](const QString& target, const std::vector<Refusal>& refusals) {
    if (export_dialog_) export_dialog_->set_refusals(target, refusals);
  });
  connect(session_, &Session::target_looked, this, &Wiring::show_lens);
  connect(panels_.target, &TargetPanel::target_chosen, session_, &Session::look_at_target);
  connect(panels_.target, &TargetPanel::fix_wanted, this, [this](const QString& layer) {
    session_->mend_target(layer, layer.isEmpty() ? tr("Fit %1").arg(session_->looked_at_target()) : tr("Fit %1 for %2").arg(layer, session_->looked_at_target()));
  });
  connect(panels_.target, &TargetPanel::layer_activated, this, [this](const QString& name) {
    if (!session_->has_project()) return;
    for (const Node& node : session_->graph()->nodes())
      if (qs(node.name) == name) return select({node.id}, panels_.target);
  });
  connect(panels_.target, &TargetPanel::export_wanted, this, [this](const QString& target) {
    show_export(0);
    if (export_dialog_) export_dialog_->select_target(target);
  });
}

void Wiring::look_at_target(const QString& id) {
  panels_.target->choose(id);
  session_->look_at_target(panels_.target->target(), panels_.target->options());
}

void Wiring::show_lens() {
  if (session_->target_is_known()) {
    std::set<std::string> layers;
    for (const Layer& layer : session_->layers())
      if (const Node* node = session_->graph()->find(layer.node)) layers.insert(node->name);
    const bool is_new = panels_.target->set_refusals(session_->looked_at_target(), session_->target_refusals(), layers,
                                                     session_->target_trouble(), session_->target_is_whole());
    if (!is_new) return;
  } else {
    panels_.target->forget();
  }
  if (session_->has_project()) panels_.graph->set_visuals(views::node_visuals(*session_, views::current_run(*session_)));
}

void Wiring::show_export(std::int64_t id) {
  if (export_dialog_) export_dialog_->close();
  const Run* r = id ? run(id) : nullptr;
  const QString what = r ? tr("run %1: %2").arg(id).arg(qs(r->name)) : qs(session_->recipe().name);
  export_dialog_ = new ExportDialog(plugin_entries(session_->catalog(), "exporters"), id, what, views::export_stem(*session_, r), views::quantizes(*session_, r), window_);
  export_dialog_->setAttribute(Qt::WA_DeleteOnClose);
  const std::optional<Recipe> recipe = r ? std::optional(r->recipe) : std::nullopt;
  connect(export_dialog_, &ExportDialog::check_wanted, session_, [this, recipe](const QString& target, const json& options) { session_->check_export(target, options, recipe); });
  connect(export_dialog_, &ExportDialog::export_wanted, this, [this](const QString& target, const QString& path, const json& options, qint64 run_id, qint64 samples) {
    ExportRequest request;
    request.target = target.toStdString();
    request.path = path.toStdString();
    request.options = options;
    request.run = run_id;
    request.samples = samples;
    export_job_ = session_->start_export(request);
  });
  export_dialog_->select_target(panels_.target->target());  // the one that is looked through, if any
  export_dialog_->show();
  export_dialog_->check_current();
}

}  // namespace quanvas
