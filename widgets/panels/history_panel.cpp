#include "widgets/panels/history_panel.h"

#include <QUndoStack>
#include <QUndoView>
#include <QVBoxLayout>

#include "widgets/common/icons.h"
#include "widgets/models/counted.h"

namespace quanvas {

HistoryPanel::HistoryPanel(QUndoStack* stack, QWidget* parent)
    : Panel(QStringLiteral("history"), tr("History"), parent), view_(new QUndoView(stack, this)) {
  view_->setEmptyLabel(tr("As opened"));
  view_->setCleanIcon(icon(QStringLiteral("check"), IconRole::kMuted));
  view_->setAccessibleName(tr("History"));
  view_->setFrameShape(QFrame::NoFrame);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(4, 4, 4, 4);
  layout->addWidget(view_);
  const auto count = [this, stack] { set_subtitle(stack->count() ? counted(stack->count(), tr("1 edit"), tr("%1 edits")) : QString()); };
  connect(stack, &QUndoStack::indexChanged, this, count);
  count();
}

}  // namespace quanvas
