// Quanvas - the docks around the graph: which panel lies where by default, and layouts saved under a name. A state
// of another version, or a broken one, gives the default layout.
#pragma once

#include <vector>

#include <QMainWindow>
#include <QMenu>
#include <QTimer>

#include "widgets/panels/panel.h"

class QDockWidget;

namespace quanvas {

struct Panels;

class Docks : public QObject {
  Q_OBJECT

 public:
  Docks(QMainWindow* window, const Panels& panels);
  void restore_default();
  void show_panel(Panel* panel);   // makes it visible and in front
  void fill_panels_menu(QMenu* menu) const;
  // Rebuilt each time it opens.
  void fill_layouts_menu(QMenu* menu);
  void save_current() const;       // at the end of the program
  void restore_last();             // at its start; the default when there is none

  static QStringList layout_names();

 private:
  QDockWidget* add(Panel* panel, Qt::DockWidgetArea area);
  void update_headers();
  bool apply(const QByteArray& state);
  void save_as(const QString& name) const;

  QMainWindow* window_;
  std::vector<std::pair<Panel*, QDockWidget*>> docks_;
  QTimer headers_timer_;
};

}  // namespace quanvas
