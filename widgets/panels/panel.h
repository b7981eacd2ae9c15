// Quanvas - what all dock panels share: a title and a quiet subtitle for the dock's header, and optional small
// controls at its right. Panels take values and emit intents; they know neither session nor engine.
#pragma once

#include <vector>

#include <QString>
#include <QWidget>

class QHBoxLayout;
class QLabel;
class QStackedLayout;

namespace quanvas {

class PanelHeader;

class Panel : public QWidget {
  Q_OBJECT

 public:
  Panel(const QString& name, const QString& title, QWidget* parent);

  const QString& title() const { return title_; }
  const QString& subtitle() const { return subtitle_; }
  void set_title(const QString& title);
  void set_subtitle(const QString& subtitle);
  // Shown at the right of the header; the header takes ownership.
  void add_header_widget(QWidget* widget) { header_widgets_.push_back(widget); }
  const std::vector<QWidget*>& header_widgets() const { return header_widgets_; }

 Q_SIGNALS:
  void header_changed();

 private:
  QString title_, subtitle_;
  std::vector<QWidget*> header_widgets_;
};

// 30 px: title in semibold, subtitle muted and elided, the panel's header widgets. For QDockWidget's title bar
// (mouse events pass through, so that the dock can be dragged).
class PanelHeader : public QWidget {
  Q_OBJECT

 public:
  explicit PanelHeader(Panel* panel, QWidget* parent = nullptr);
  // While the dock is one of several tabs its tab shows the title already.
  void set_title_visible(bool visible);
  QSize sizeHint() const override { return {120, 30}; }
  QSize minimumSizeHint() const override { return {40, 30}; }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  Panel* panel_;
  QHBoxLayout* tools_;
  bool title_visible_ = true;
};

// A stack of "content" and "empty state" pages for a panel's layout.
void show_page(QStackedLayout* stack, QWidget* page);
QWidget* scroll_page(QWidget* content, QWidget* parent);  // content inside a frameless scroll area

}  // namespace quanvas
