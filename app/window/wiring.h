// Quanvas - the only place where panels meet the session: its signals into views, their intents into calls.
#pragma once

#include <set>
#include <vector>

#include <QElapsedTimer>
#include <QObject>
#include <QPointer>
#include <QTimer>

#include "app/session/session.h"
#include "app/window/main_window.h"

namespace quanvas {

class DataDialog;
class ExportDialog;
class TrustDialog;

class Wiring : public QObject {
  Q_OBJECT

 public:
  // Neither is owned; both must outlive this.
  Wiring(Session* session, MainWindow* window);

  void select(const std::vector<NodeId>& nodes, const QObject* origin = nullptr);
  const std::vector<NodeId>& selection() const { return selected_; }
  // Everything that was asked about the open project is on the screen: facts of all layers, histogram, layout.
  bool settled() const;
  // The target lens; empty: off.
  void look_at_target(const QString& id);

 Q_SIGNALS:
  void opened();
  void open_failed(const QString& sentence);

 private:
  void wire_engine();
  void wire_recipe_views();
  void wire_selection();
  void wire_jobs();
  void wire_runs();
  void wire_sweep();
  void wire_export();
  void wire_actions();

  void project_opened(bool reopened);
  void show_recipe(bool new_rows = false);
  // new_rows: the table has got rows of the plan a moment ago, and there are no facts yet.
  void show_facts(bool new_rows = false);
  void show_new_facts();       // of fresh_facts_ only
  void show_selection();
  void show_runs();
  void show_run_marks();
  void show_jobs();
  void show_state();
  void update_actions();
  void schedule_facts();

  void assign(const std::vector<Assignment>& assignments, const QString& label, const QString& merge_key);
  void assign_kind(const std::vector<NodeId>& nodes, SiteKind kind, const std::optional<QuantSpec>& spec, const QString& label);
  void assign_width(NodeId node, int bits, bool weights, bool activations);
  void assign_clip(const Site& site, double lo, double hi, bool finished);
  void reset_layers(const std::vector<NodeId>& nodes);
  void edit_rule(int index);
  void make_rule(const Rule& draft);
  void request_histogram();

  void open(const QString& path);
  void ask_for_trust(const QString& path, const QString& sentence);
  // Stores what waits; asks when that is not possible. False: the user stays.
  bool may_leave(const QString& what_next);
  void show_unstored();
  void load_recipe();
  void save_recipe();
  void use_recipe(const Recipe& recipe, const QString& label);
  void show_data_dialog();
  void show_shapes_dialog();
  void show_quantizers_dialog();
  void show_trust_dialog();
  void start_training();
  void start_sweep();
  void show_export(std::int64_t run);
  void show_lens();
  void compare_runs(std::int64_t a, std::int64_t b);
  void show_run(std::int64_t id);
  void restore_run(std::int64_t id);
  void say_problem(const QString& sentence);
  const Run* run(std::int64_t id) const;
  std::vector<PaletteItem> palette_items();
  QDialog* show_in_dialog(QWidget* view, const QString& title, const QSize& size);

  Session* session_;
  MainWindow* window_;
  const Panels& panels_;
  std::vector<NodeId> selected_;
  std::set<NodeId> fresh_facts_;  // answered, not shown yet
  QPointer<DataDialog> data_dialog_;
  QPointer<ExportDialog> export_dialog_;
  QPointer<TrustDialog> trust_dialog_;
  QTimer facts_timer_;         // many answers, one repaint
  QElapsedTimer facts_shown_;  // since that repaint
  QString sweep_job_, export_job_;
  int drag_ = 0;               // each drag of a clip limit is an undo step of its own
  bool histogram_pending_ = false;
};

}  // namespace quanvas
