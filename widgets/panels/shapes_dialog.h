// Quanvas - the shapes of a model's inputs: what the file leaves open can be given here.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <QDialog>

#include "core/graph/graph.h"

class QLabel;
class QLineEdit;

namespace quanvas {

struct InputShape {
  std::string name;
  DataType type = DataType::kUndefined;
  std::optional<Shape> shape;  // as it is now; none: unknown rank
};

// Emits what was entered, for the inputs that were changed, and closes; what cannot be a shape is said below its field
// and keeps the dialog open.
class ShapesDialog : public QDialog {
  Q_OBJECT

 public:
  ShapesDialog(const std::vector<InputShape>& inputs, QWidget* parent = nullptr);
  void accept() override;

 Q_SIGNALS:
  void shapes_wanted(const std::map<std::string, quanvas::Shape>& shapes);

 private:
  struct Row {
    std::string name;
    QString before;
    QLineEdit* edit;
  };
  std::vector<Row> rows_;
  QLabel* problem_;
};

}  // namespace quanvas
