// Quanvas - what all dock panels share: a title and a quiet subtitle for the dock's header, and optional small
// controls at its right. Panels take values and emit intents; they know neither session nor engine.
#pragma once

#include <vector>

#include <QString>
#include <QWidget>

class QHBoxLayout;
class QLabel;
class QStackedLayout;
class QTabBar;

namespace quanvas {

class PanelHeader;

class Panel : public QWidget {
  Q_OBJECT

 public:
  // id: persisted in layouts.
  Panel(const QString& id, const QString& title, QWidget* parent);

  // What menus and tabs call the panel ("Inspector", "Issues (3)"), and what stands in its header ("conv2").
  const QString& name() const { return name_; }
  void set_name(const QString& name);
  const QString& title() const { return title_; }
  const QString& subtitle() const { return subtitle_; }
  void set_title(const QString& title);
  void set_subtitle(const QString& subtitle);
  // Shown at the right of the header; the header takes ownership.
  void add_header_widget(QWidget* widget) { header_widgets_.push_back(widget); }
  const std::vector<QWidget*>& header_widgets() const { return header_widgets_; }
  // What a panel shows may come and go; its dock keeps the size that it was given.
  QSize minimumSizeHint() const override { return {least_width_, 60}; }

 Q_SIGNALS:
  void header_changed();

 protected:
  void set_least_width(int width) { least_width_ = width; }

 private:
  QString name_, title_, subtitle_;
  int least_width_ = 160;
  std::vector<QWidget*> header_widgets_;
};

// 30 px: the title in semibold, or a tab for each panel that shares the dock's place; the subtitle muted and
// elided; the panel's header widgets. For QDockWidget's title bar (mouse events pass through, so that the dock can
// be dragged).
class PanelHeader : public QWidget {
  Q_OBJECT

 public:
  explicit PanelHeader(Panel* panel, QWidget* parent = nullptr);
  // Panels in the same place, this one among them; fewer than two: no tabs. Order of the tabs.
  void set_group(const std::vector<Panel*>& group);
  QTabBar* tabs() const { return tabs_; }
  QSize sizeHint() const override { return {120, 30}; }
  QSize minimumSizeHint() const override { return {40, 30}; }

 Q_SIGNALS:
  void tab_chosen(quanvas::Panel* panel);  // another one

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  void update_tab_texts();

  Panel* panel_;
  std::vector<Panel*> group_;
  QTabBar* tabs_;
  QHBoxLayout* tools_;
};

// A stack of "content" and "empty state" pages for a panel's layout.
void show_page(QStackedLayout* stack, QWidget* page);
QWidget* scroll_page(QWidget* content, QWidget* parent);  // content inside a frameless scroll area

}  // namespace quanvas
