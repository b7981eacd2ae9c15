// Quanvas - paints table cells that are more than text: format chips ("W4" on the colour of its width) and SQNR
// as a number with a small bar, in the warning colour below kPoorSqnrDb. Works with any model that answers the
// roles given to it. GUI thread.
#pragma once

#include <QStyledItemDelegate>

namespace quanvas {

// For tables whose rows are selected as one: the focus is a ring around the row, not around one of its cells.
class RowDelegate : public QStyledItemDelegate {
  Q_OBJECT

 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;

 protected:
  void initStyleOption(QStyleOptionViewItem* option, const QModelIndex& index) const override;
};

class ChipDelegate : public RowDelegate {
  Q_OBJECT

 public:
  // bits_role: int, 0 float, < 0 none; sqnr_role: double dB; stale_role: bool. A role < 0 is not used.
  ChipDelegate(int bits_role, int sqnr_role, int stale_role, QObject* parent);

  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;
  QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const override;

 private:
  void paint_chip(QPainter* painter, const QRect& rect, const QModelIndex& index, int bits) const;
  void paint_sqnr(QPainter* painter, const QRect& rect, const QModelIndex& index, double sqnr) const;

  int bits_role_, sqnr_role_, stale_role_;
};

// The chip alone: rounded, 11 px text, on the colour of `bits` with an outline that stands out on the panel.
void paint_chip(QPainter* painter, const QRect& rect, const QString& text, double bits, bool enabled = true);
int chip_width(const QString& text);
inline constexpr int kChipHeight = 17;

}  // namespace quanvas
