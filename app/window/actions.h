// Quanvas - every action of the window as a row of a table: menus, shortcuts, command palette and the sheet of
// shortcuts are made from it.
#pragma once

#include <map>
#include <vector>

#include <QAction>
#include <QMenu>
#include <QMenuBar>

namespace quanvas {

class Actions : public QObject {
  Q_OBJECT

 public:
  explicit Actions(QWidget* window);

  // Every id that is used in code must be in the table: asserts.
  QAction* at(const QString& id) const;
  const std::vector<QAction*>& all() const { return order_; }
  void enable(const QStringList& ids, bool enabled);
  // Submenu that others fill ("recent", "example", "panels", "layouts", "color-by", "theme", "builtin") or, as "path",
  // the table.
  QMenu* submenu(const QString& id) const;
  void fill(QMenuBar* bar);

 private:
  QWidget* window_;
  std::map<QString, QAction*> actions_;
  std::map<QString, QMenu*> submenus_;
  std::vector<QAction*> order_;
};

}  // namespace quanvas
