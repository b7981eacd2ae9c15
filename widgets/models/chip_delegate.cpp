#include "widgets/models/chip_delegate.h"

#include <algorithm>
#include <cmath>

#include <QApplication>
#include <QHeaderView>
#include <QPainter>
#include <QTableView>

#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr int kNumberWidth = 30;
constexpr int kBarWidth = 32;
constexpr double kFullBarDb = 45;

void paint_background(QPainter* painter, QStyleOptionViewItem option) {
  option.text.clear();
  option.icon = {};
  const QWidget* widget = option.widget;
  (widget ? widget->style() : QApplication::style())->drawControl(QStyle::CE_ItemViewItem, &option, painter, widget);
}

void paint_row_focus(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) {
  const auto* table = qobject_cast<const QTableView*>(option.widget);
  if (!table || !table->hasFocus() || table->currentIndex().row() != index.row()) return;
  const auto* header = table->horizontalHeader();
  int first = -1, last = -1;
  for (int v = 0; v < header->count(); ++v) {
    const int column = header->logicalIndex(v);
    if (header->isSectionHidden(column)) continue;
    if (first < 0) first = column;
    last = column;
  }
  const QRect r = option.rect;
  painter->save();
  painter->setPen(QPen(colors().accent, 1));
  painter->drawLine(r.topLeft(), r.topRight());
  painter->drawLine(r.bottomLeft(), r.bottomRight());
  if (index.column() == first) painter->drawLine(r.topLeft(), r.bottomLeft());
  if (index.column() == last) painter->drawLine(r.topRight(), r.bottomRight());
  painter->restore();
}

}  // namespace

int chip_width(const QString& text) {
  return std::max(34, QFontMetrics(text_font(11, QFont::DemiBold)).horizontalAdvance(text) + 12);
}

void paint_chip(QPainter* painter, const QRect& rect, const QString& text, double bits, bool enabled) {
  const Colors& c = colors();
  const QColor fill = bits_color(bits, c);
  painter->save();
  painter->setRenderHint(QPainter::Antialiasing);
  if (!enabled) painter->setOpacity(0.5);
  painter->setPen(QPen(outline_of(fill, c), 1));
  painter->setBrush(fill);
  painter->drawRoundedRect(QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4);
  painter->setPen(ink_on(fill));
  painter->setFont(text_font(11, QFont::DemiBold));
  painter->drawText(rect, Qt::AlignCenter, text);
  painter->restore();
}

void RowDelegate::initStyleOption(QStyleOptionViewItem* option, const QModelIndex& index) const {
  QStyledItemDelegate::initStyleOption(option, index);
  option->state &= ~QStyle::State_HasFocus;
}

void RowDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  QStyledItemDelegate::paint(painter, option, index);
  paint_row_focus(painter, option, index);
}

ChipDelegate::ChipDelegate(int bits_role, int sqnr_role, int stale_role, QObject* parent)
    : RowDelegate(parent), bits_role_(bits_role), sqnr_role_(sqnr_role), stale_role_(stale_role) {}

void ChipDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  const QVariant bits = bits_role_ < 0 ? QVariant() : index.data(bits_role_);
  const QVariant sqnr = sqnr_role_ < 0 ? QVariant() : index.data(sqnr_role_);
  if (!bits.isValid() && !sqnr.isValid()) {
    RowDelegate::paint(painter, option, index);
    return;
  }
  QStyleOptionViewItem own = option;
  initStyleOption(&own, index);
  paint_background(painter, own);
  const QRect rect = option.rect.adjusted(6, 0, -4, 0);
  if (bits.isValid()) paint_chip(painter, rect, index, bits.toInt());
  else paint_sqnr(painter, rect, index, sqnr.toDouble());
  paint_row_focus(painter, option, index);
}

void ChipDelegate::paint_chip(QPainter* painter, const QRect& rect, const QModelIndex& index, int bits) const {
  const QString text = index.data().toString();
  if (bits <= 0) {
    painter->setPen(colors().muted);
    painter->setFont(text_font(12));
    painter->drawText(rect, Qt::AlignLeft | Qt::AlignVCenter, text);
    return;
  }
  const QRect chip(rect.left(), rect.center().y() - kChipHeight / 2, std::min(chip_width(text), rect.width()), kChipHeight);
  quanvas::paint_chip(painter, chip, text, bits);
}

void ChipDelegate::paint_sqnr(QPainter* painter, const QRect& rect, const QModelIndex& index, double sqnr) const {
  const Colors& c = colors();
  const bool known = !std::isnan(sqnr);
  const bool stale = stale_role_ >= 0 && index.data(stale_role_).toBool();
  const bool poor = known && sqnr < kPoorSqnrDb;
  painter->save();
  if (stale) painter->setOpacity(0.5);
  painter->setFont(text_font(12.5));
  painter->setPen(!known ? c.muted : poor ? c.warning : c.text);
  const QRect number(rect.left(), rect.top(), kNumberWidth, rect.height());
  painter->drawText(number, Qt::AlignRight | Qt::AlignVCenter, index.data().toString());
  const QRectF bar(number.right() + 7, rect.center().y() - 2.5, std::min(kBarWidth, rect.right() - number.right() - 7), 6);
  if (known && bar.width() > 12) {
    painter->setRenderHint(QPainter::Antialiasing);
    painter->setPen(Qt::NoPen);
    painter->setBrush(c.grid);
    painter->drawRoundedRect(bar, 3, 3);
    QRectF filled = bar;
    filled.setWidth(bar.width() * std::clamp(sqnr / kFullBarDb, 0.0, 1.0));
    painter->setBrush(poor ? c.warning : c.accent);
    painter->drawRoundedRect(filled, 3, 3);
  }
  painter->restore();
}

QSize ChipDelegate::sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const {
  QSize size = QStyledItemDelegate::sizeHint(option, index);
  if (sqnr_role_ >= 0 && index.data(sqnr_role_).isValid()) size.setWidth(kNumberWidth + kBarWidth + 16);
  else if (bits_role_ >= 0 && index.data(bits_role_).isValid()) size.setWidth(chip_width(index.data().toString()) + 12);
  size.setHeight(std::max(size.height(), 25));
  return size;
}

}  // namespace quanvas
