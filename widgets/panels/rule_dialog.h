// Quanvas - makes or edits one rule: which sites it selects, with a live count of matches, and the format it gives.
#pragma once

#include <functional>

#include <QDialog>

#include "core/graph/graph.h"
#include "core/recipe/recipe.h"

class QLabel;
class QPushButton;

namespace quanvas {

class SchemaForm;

class RuleDialog : public QDialog {
  Q_OBJECT

 public:
  // The draft's format is kept as a choice of its own when no preset equals it.
  RuleDialog(GraphPtr graph, const Rule& draft, QWidget* parent = nullptr);
  Rule rule() const;
  int matches() const { return matches_; }
  SchemaForm* form() const { return form_; }

 private:
  void update_matches();
  QString share_problem(const Rule& rule) const;

  GraphPtr graph_;
  Rule draft_;
  SchemaForm* form_;
  QLabel* count_;
  QPushButton* ok_;
  int matches_ = 0;
};

}  // namespace quanvas
