// Quanvas - the command palette: type a few letters of a layer, an action or a preset, Enter does it.
#pragma once

#include <functional>
#include <vector>

#include <QDialog>
#include <QString>

class QLineEdit;
class QListWidget;

namespace quanvas {

struct PaletteItem {
  QString title, kind, detail;  // "conv2", "layer", "Conv 5×5"
  std::function<void()> run;
};

// How well `query` fits: all its letters in order; higher is better; -1: not at all. Whole words, starts of words
// and short titles win.
int palette_score(const QString& query, const QString& title);

class Palette : public QDialog {
  Q_OBJECT

 public:
  explicit Palette(std::vector<PaletteItem> items, QWidget* parent = nullptr);
  QLineEdit* box() const { return box_; }
  QListWidget* list() const { return list_; }

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void filter(const QString& text);
  void run_current();

  std::vector<PaletteItem> items_;
  QLineEdit* box_;
  QListWidget* list_;
};

}  // namespace quanvas
