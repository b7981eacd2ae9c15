// Quanvas - rows of a tree whose texts wrap. Qt's trees ask for the height of a row without saying how wide its columns
// are; wrapped text needs both.
#pragma once

#include <algorithm>

#include <QStyledItemDelegate>
#include <QTreeView>

namespace quanvas {

class WrappingDelegate : public QStyledItemDelegate {
 public:
  explicit WrappingDelegate(QTreeView* view) : QStyledItemDelegate(view), view_(view) {}

  QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    QStyleOptionViewItem own = option;
    initStyleOption(&own, index);
    const int icon = own.icon.isNull() ? 0 : view_->iconSize().width() + kIconGap;
    const QRect room(0, 0, std::max(1, view_->columnWidth(index.column()) - 2 * kPadding - icon), 10000);
    const QRect text = QFontMetrics(own.font).boundingRect(room, Qt::TextWordWrap | Qt::AlignLeft, own.text);
    return {text.width() + 2 * kPadding + icon, text.height() + 2 * kRoomAbove};
  }

 protected:
  void initStyleOption(QStyleOptionViewItem* option, const QModelIndex& index) const override {
    QStyledItemDelegate::initStyleOption(option, index);
    option->displayAlignment = Qt::AlignLeft | Qt::AlignTop;
    option->decorationAlignment = Qt::AlignLeft | Qt::AlignTop;
  }

 private:
  static constexpr int kPadding = 9, kIconGap = 6, kRoomAbove = 5;
  QTreeView* view_;
};

}  // namespace quanvas
