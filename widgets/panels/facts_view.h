// Quanvas - the block of live facts of one quantizer: SQNR, error at the output, clipped share, codes in use,
// size, bits per element; or the sentence that says why there are none yet.
#pragma once

#include <optional>
#include <vector>

#include <QFrame>

#include "core/report/report.h"

class QGridLayout;
class QLabel;

namespace quanvas {

struct FactRow {
  QString name, value, tooltip;
  bool warn = false;
};
// Pure. output: error at the layer's output when only this layer is quantized.
std::vector<FactRow> fact_rows(const SiteFacts& facts, const std::optional<TensorError>& output);

class FactsView : public QFrame {
  Q_OBJECT

 public:
  explicit FactsView(QWidget* parent = nullptr);
  // stale: shown dimmed, with the word.
  void set_facts(const std::optional<SiteFacts>& facts, const std::optional<TensorError>& output, bool stale);
  void set_sentence(const QString& sentence);  // instead of facts
  QString text() const;

 Q_SIGNALS:
  void calibrate_wanted();

 private:
  void clear();
  void add_row(const FactRow& row, bool stale);

  QGridLayout* grid_;
  QLabel* sentence_;
  std::vector<QLabel*> labels_;
};

}  // namespace quanvas
