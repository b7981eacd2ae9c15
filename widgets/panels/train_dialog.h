// Quanvas - options of a training pass (quantization-aware training), before it is run.
#pragma once

#include <vector>

#include <QDialog>

#include "core/recipe/recipe.h"
#include "widgets/models/catalog.h"

class QComboBox;
class QLabel;

namespace quanvas {

class SchemaForm;

class TrainDialog : public QDialog {
  Q_OBJECT

 public:
  // passes: those of stage "training"; at least one. recipe: whose options are the start.
  TrainDialog(const std::vector<PluginEntry>& passes, const Recipe& recipe, QWidget* parent = nullptr);
  PassEntry pass() const;
  SchemaForm* form() const { return form_; }

 private:
  void show_pass();

  std::vector<PluginEntry> passes_;
  Recipe recipe_;
  QComboBox* choice_;
  QLabel* doc_;
  SchemaForm* form_;
};

// The recipe with the pass switched on: in its place when it is there, else last.
Recipe with_pass(const Recipe& recipe, const PassEntry& pass);

}  // namespace quanvas
