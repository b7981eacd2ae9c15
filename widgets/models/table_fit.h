// Quanvas - column widths of tables: what texts and headers need, without the room that Qt keeps for a sort arrow.
#pragma once

#include <qnamespace.h>

class QTableView;

namespace quanvas {

// Width that the column's header and its first rows (at most 200) need.
// text_role: what the delegate draws there.
int needed_width(const QTableView& table, int column, int text_role = Qt::DisplayRole);
// All visible columns get what they need; `flexible` gets what is left of the viewport, within least and what it
// needs itself; then `second` gives way down to its own least. -1: none.
void fit_columns(QTableView* table, int flexible, int least, int second = -1, int second_least = 0,
                 int text_role = Qt::DisplayRole);

}  // namespace quanvas
