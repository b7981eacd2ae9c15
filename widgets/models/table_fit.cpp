#include "widgets/models/table_fit.h"

#include <algorithm>

#include <QAbstractItemDelegate>
#include <QHeaderView>
#include <QStyleOptionViewItem>
#include <QTableView>

#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr int kMostRows = 200;
constexpr int kHeaderMargin = 18, kSortArrow = 12;
constexpr double kHeaderPixels = 11;

}  // namespace

int needed_width(const QTableView& table, int column, int text_role) {
  const auto* model = table.model();
  const QString title = model->headerData(column, Qt::Horizontal).toString();
  const auto* header = table.horizontalHeader();
  int width = QFontMetrics(text_font(kHeaderPixels)).horizontalAdvance(title) + kHeaderMargin;
  if (header->isSortIndicatorShown() && header->sortIndicatorSection() == column) width += kSortArrow;
  QStyleOptionViewItem option;
  option.initFrom(&table);
  option.widget = &table;
  option.font = table.font();
  option.fontMetrics = QFontMetrics(option.font);
  option.decorationSize = table.iconSize();
  // A delegate takes long to measure, and only a text that is wider than those before can make the column wider.
  qreal widest = -1;
  for (int row = 0; row < std::min(model->rowCount(), kMostRows); ++row) {
    const QModelIndex index = model->index(row, column);
    const qreal text = option.fontMetrics.horizontalAdvance(index.data(text_role).toString());
    if (text <= widest) continue;
    widest = text;
    width = std::max(width, table.itemDelegate()->sizeHint(option, index).width() + 2);
  }
  return width;
}

void fit_columns(QTableView* table, int flexible, int least, int second, int second_least, int text_role) {
  int others = 0;
  for (int c = 0; c < table->model()->columnCount(); ++c) {
    if (table->isColumnHidden(c)) continue;
    const int width = needed_width(*table, c, text_role);
    table->setColumnWidth(c, width);
    if (c != flexible && c != second) others += width;
  }
  const int room = table->viewport()->width() - others;
  const int wanted = std::max(least, table->columnWidth(flexible));
  int taken = 0;
  if (second >= 0 && !table->isColumnHidden(second)) {
    const int needed = table->columnWidth(second);
    taken = std::clamp(room - wanted, std::min(second_least, needed), needed);
    table->setColumnWidth(second, taken);
  }
  table->setColumnWidth(flexible, std::clamp(room - taken, least, wanted));
}

}  // namespace quanvas
