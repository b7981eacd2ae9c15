// Quanvas - the jobs: what runs, how far it is, how long it takes, and a button that cancels it; what is over with
// its outcome in one sentence.
#pragma once

#include <map>
#include <vector>

#include "widgets/charts/curve_chart.h"
#include "widgets/panels/panel.h"

class QLabel;
class QProgressBar;
class QStackedLayout;
class QToolButton;
class QVBoxLayout;

namespace quanvas {

class EmptyState;

struct JobRow {
  enum class Phase { kQueued, kRunning, kCancelling, kDone, kFailed, kCancelled };
  QString id, title;
  QString detail;            // "GPTQ: fc1, layer 4 of 8"
  Phase phase = Phase::kQueued;
  double fraction = 0;       // 0..1
  double seconds_left = -1;  // negative: unknown
  double seconds = 0;        // so far, or in all
  QString message;           // outcome
};
bool is_over(JobRow::Phase phase);
QString job_state_text(const JobRow& job);  // "9 s left", "cancelling…", "done in 12 s"

class JobsPanel : public Panel {
  Q_OBJECT

 public:
  explicit JobsPanel(QWidget* parent = nullptr);
  void set_jobs(const std::vector<JobRow>& jobs);  // newest last
  // Points of the training that is going on; the curve is shown while there are any.
  void begin_curve();
  void add_train_point(const TrainPoint& point);

 Q_SIGNALS:
  void cancel_wanted(const QString& id);

 private:
  struct RowWidgets {
    QWidget* box = nullptr;
    QLabel *title = nullptr, *detail = nullptr, *state = nullptr;
    QProgressBar* bar = nullptr;
    QToolButton* cancel = nullptr;
  };
  RowWidgets make_row(const QString& id);
  void update_row(RowWidgets& row, const JobRow& job);

  std::map<QString, RowWidgets> rows_;
  QVBoxLayout* list_;
  CurveChart* curve_;
  EmptyState* empty_;
  QWidget* page_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
