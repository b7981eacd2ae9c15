// Quanvas - what a panel shows while it has nothing to show: an icon, what is missing, and the way on.
#pragma once

#include <QString>
#include <QWidget>

class QAbstractButton;
class QHBoxLayout;
class QLabel;

namespace quanvas {

class EmptyState : public QWidget {
  Q_OBJECT

 public:
  explicit EmptyState(const QString& icon_name, const QString& title, const QString& text = {},
                      QWidget* parent = nullptr);
  void set_text(const QString& title, const QString& text);
  void set_icon(const QString& icon_name);
  // The first action is the main one. `id` comes back in action_triggered. Owned by the widget.
  QAbstractButton* add_action(const QString& id, const QString& title, const QString& icon_name = {});
  void clear_actions();

 Q_SIGNALS:
  void action_triggered(const QString& id);

 private:
  void repaint_icon();
  QString icon_name_;
  QLabel *icon_ = nullptr, *title_ = nullptr, *text_ = nullptr;
  QHBoxLayout* actions_ = nullptr;
};

}  // namespace quanvas
