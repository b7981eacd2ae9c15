// Quanvas - the runs: a sortable table; two selected runs compare, one can be restored, exported or looked into.
#pragma once

#include <set>
#include <vector>

#include "core/report/report.h"
#include "widgets/models/runs_model.h"
#include "widgets/panels/panel.h"

class QStackedLayout;
class QTableView;
class QToolButton;

namespace quanvas {

class EmptyState;

class RunsPanel : public Panel {
  Q_OBJECT

 public:
  explicit RunsPanel(QWidget* parent = nullptr);
  // stale: ids of runs of another model or other data than now. current: the run of the current recipe, 0: none.
  void set_runs(const std::vector<Run>& runs, const std::set<std::int64_t>& stale, std::int64_t current = 0);
  void set_marks(const std::set<std::int64_t>& stale, std::int64_t current);
  void set_data_name(const QString& name, double samples);
  std::vector<std::int64_t> selection() const;   // ids, older first
  void select(const std::vector<std::int64_t>& ids);
  QTableView* table() const { return table_; }
  QToolButton* compare_button() const { return compare_; }

 Q_SIGNALS:
  void selection_changed(const std::vector<std::int64_t>& ids);
  void compare_wanted(qint64 a, qint64 b);
  void restore_wanted(qint64 id);
  void export_wanted(qint64 id);
  void details_wanted(qint64 id);

 private:
  void update_buttons();
  void show_menu(const QPoint& at);

  RunsModel* model_;
  RunsProxy* proxy_;
  QTableView* table_;
  QToolButton *compare_, *restore_, *details_;
  EmptyState* empty_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
