// Quanvas - what becomes of the quantizers that a model file carries. Values in, intents out.
#pragma once

#include <QDialog>

#include "core/report/import_options.h"

class QRadioButton;

namespace quanvas {

class QuantizersDialog : public QDialog {
  Q_OBJECT

 public:
  explicit QuantizersDialog(FileQuantizers now, QWidget* parent = nullptr);
  QRadioButton* rules() const { return rules_; }
  QRadioButton* nodes() const { return nodes_; }
  void accept() override;

 Q_SIGNALS:
  void wanted(quanvas::FileQuantizers quantizers);   // another choice than now

 private:
  FileQuantizers now_;
  QRadioButton *rules_, *nodes_;
};

}  // namespace quanvas
