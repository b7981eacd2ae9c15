// Quanvas - everything that went not quite right: warnings and errors with where they belong and the way out.
#pragma once

#include <vector>

#include <QIcon>

#include "core/base/job.h"
#include "core/report/report.h"
#include "widgets/panels/panel.h"

class QStackedLayout;
class QToolButton;
class QTreeWidget;

namespace quanvas {

class EmptyState;

QIcon severity_icon(Severity severity);

class IssuesPanel : public Panel {
  Q_OBJECT

 public:
  explicit IssuesPanel(QWidget* parent = nullptr);
  void set_issues(const std::vector<Issue>& issues);
  QTreeWidget* list() const { return list_; }

 Q_SIGNALS:
  void activated(const QString& where);  // a layer's name, a file or an option
  void clear_wanted();

 private:
  QTreeWidget* list_;
  QToolButton* clear_;
  EmptyState* empty_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
