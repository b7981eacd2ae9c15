#include "widgets/panels/jobs_panel.h"

#include <QCoreApplication>
#include <QHBoxLayout>
#include <QLabel>
#include <QProgressBar>
#include <QStackedLayout>
#include <QStyle>
#include <QToolButton>
#include <QVBoxLayout>

#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"
#include "widgets/common/icons.h"

namespace quanvas {

bool is_over(JobRow::Phase phase) {
  return phase == JobRow::Phase::kDone || phase == JobRow::Phase::kFailed || phase == JobRow::Phase::kCancelled;
}

QString job_state_text(const JobRow& job) {
  const auto tr = [](const char* text) { return QCoreApplication::translate("Jobs", text); };
  switch (job.phase) {
    case JobRow::Phase::kQueued: return tr("waiting");
    case JobRow::Phase::kRunning: return job.seconds_left >= 0 ? tr("%1 left").arg(duration_text(job.seconds_left)) : duration_text(job.seconds);
    case JobRow::Phase::kCancelling: return tr("cancelling…");
    case JobRow::Phase::kDone: return tr("done in %1").arg(duration_text(job.seconds));
    case JobRow::Phase::kFailed: return tr("failed");
    case JobRow::Phase::kCancelled: return tr("cancelled");
  }
  return {};
}

JobsPanel::JobsPanel(QWidget* parent)
    : Panel(QStringLiteral("jobs"), tr("Jobs"), parent), list_(new QVBoxLayout), curve_(new CurveChart(this)),
      empty_(new EmptyState(QStringLiteral("run"), tr("Nothing is running"), tr("Calibrations, runs, sweeps and exports appear here with their progress."), this)),
      page_(new QWidget(this)), stack_(new QStackedLayout(this)) {
  auto* content = new QWidget(this);
  list_->setContentsMargins(10, 8, 10, 8);
  list_->setSpacing(10);
  list_->setDirection(QBoxLayout::BottomToTop);
  auto* column = new QVBoxLayout(content);
  column->setContentsMargins(0, 0, 0, 0);
  column->addLayout(list_);
  column->addStretch(1);
  auto* layout = new QHBoxLayout(page_);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(scroll_page(content, page_), 1);
  layout->addWidget(curve_, 1);
  curve_->hide();
  stack_->addWidget(empty_);
  stack_->addWidget(page_);
}

JobsPanel::RowWidgets JobsPanel::make_row(const QString& id) {
  RowWidgets r;
  r.box = new QWidget(this);
  auto* layout = new QVBoxLayout(r.box);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(3);
  auto* top = new QHBoxLayout;
  top->setSpacing(8);
  r.title = new QLabel(r.box);
  r.title->setProperty("role", "title");
  r.state = new QLabel(r.box);
  r.state->setProperty("role", "muted");
  r.cancel = new QToolButton(r.box);
  r.cancel->setIcon(icon(QStringLiteral("stop")));
  r.cancel->setProperty("flat", true);
  r.cancel->setToolTip(tr("Cancel"));
  connect(r.cancel, &QToolButton::clicked, this, [this, id] { Q_EMIT cancel_wanted(id); });
  top->addWidget(r.title);
  top->addStretch(1);
  top->addWidget(r.state);
  top->addWidget(r.cancel);
  r.bar = new QProgressBar(r.box);
  r.bar->setRange(0, 1000);
  r.bar->setTextVisible(false);
  r.detail = new QLabel(r.box);
  r.detail->setProperty("role", "muted");
  r.detail->setWordWrap(true);
  r.detail->setTextInteractionFlags(Qt::TextSelectableByMouse);
  layout->addLayout(top);
  layout->addWidget(r.bar);
  layout->addWidget(r.detail);
  list_->addWidget(r.box);
  return r;
}

void JobsPanel::update_row(RowWidgets& r, const JobRow& job) {
  const bool over = is_over(job.phase);
  r.title->setText(job.title);
  r.state->setText(job_state_text(job));
  r.bar->setVisible(!over);
  r.bar->setValue(static_cast<int>(job.fraction * 1000));
  r.bar->setAccessibleName(job.title);
  r.cancel->setVisible(!over);
  r.cancel->setEnabled(job.phase != JobRow::Phase::kCancelling);
  r.cancel->setAccessibleName(tr("Cancel %1").arg(job.title));
  const QString role = job.phase == JobRow::Phase::kFailed ? QStringLiteral("error") : QStringLiteral("muted");
  if (r.detail->property("role") != role) {
    r.detail->setProperty("role", role);
    r.detail->style()->unpolish(r.detail);
    r.detail->style()->polish(r.detail);
  }
  const QString text = over ? job.message : job.detail;
  r.detail->setText(text);
  r.detail->setVisible(!text.isEmpty());
}

void JobsPanel::set_jobs(const std::vector<JobRow>& jobs) {
  int running = 0;
  for (const auto& job : jobs) {
    auto it = rows_.find(job.id);
    if (it == rows_.end()) it = rows_.emplace(job.id, make_row(job.id)).first;
    update_row(it->second, job);
    running += !is_over(job.phase);
  }
  set_subtitle(running ? tr("%1 running").arg(running) : QString());
  stack_->setCurrentWidget(jobs.empty() ? static_cast<QWidget*>(empty_) : page_);
}

void JobsPanel::begin_curve() {
  curve_->set_points({});
  curve_->hide();
}

void JobsPanel::add_train_point(const TrainPoint& point) {
  curve_->show();
  curve_->add_point(point);
}

}  // namespace quanvas
