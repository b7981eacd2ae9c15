// Quanvas - the undo history: every edit of the recipe; a click goes back or forward to it.
#pragma once

#include "widgets/panels/panel.h"

class QUndoStack;
class QUndoView;

namespace quanvas {

class HistoryPanel : public Panel {
  Q_OBJECT

 public:
  // stack: not owned; must outlive the panel.
  explicit HistoryPanel(QUndoStack* stack, QWidget* parent = nullptr);

 private:
  QUndoView* view_;
};

}  // namespace quanvas
