// Quanvas - the runs of a project as a Qt model, with what they lost against the float network. Values in.
#pragma once

#include <set>
#include <vector>

#include <QAbstractTableModel>
#include <QSortFilterProxyModel>

#include "core/report/report.h"

namespace quanvas {

// The newest float run on the same data and number of samples; nullptr when there is none.
const Run* float_baseline(const Run& run, const std::vector<Run>& runs);
// "89.41 ± 0.31", per cent; of tokens "3.548 ± 0.080 ppl".
QString run_accuracy_text(const Accuracy& accuracy);

class RunsModel : public QAbstractTableModel {
  Q_OBJECT

 public:
  enum Column { kId, kRecipe, kTop1, kDelta, kSize, kSqnr, kBops, kTime, kColumns };
  enum Role { kSortRole = Qt::UserRole, kRunRole };

  using QAbstractTableModel::QAbstractTableModel;
  // stale: ids of runs of another model or other data than now; they get a badge. current: the run of the current
  // recipe, it gets a tick; 0: none.
  void set_runs(std::vector<Run> runs, std::set<std::int64_t> stale, std::int64_t current = 0);
  void set_marks(const std::set<std::int64_t>& stale, std::int64_t current);
  const std::vector<Run>& runs() const { return runs_; }
  const Run* run(std::int64_t id) const;
  bool is_stale(std::int64_t id) const { return stale_.count(id) > 0; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  QString text(const Run& run, int column) const;
  double number(const Run& run, int column) const;
  QString tooltip(const Run& run) const;
  double delta(const Run& run) const;
  bool only_perplexities() const;

  std::vector<Run> runs_;
  std::set<std::int64_t> stale_;
  std::int64_t current_ = 0;
};

class RunsProxy : public QSortFilterProxyModel {
  Q_OBJECT

 public:
  using QSortFilterProxyModel::QSortFilterProxyModel;

 protected:
  bool lessThan(const QModelIndex& a, const QModelIndex& b) const override;  // unknown numbers last
};

}  // namespace quanvas
