// Quanvas - tables as text for the clipboard: what is visible, in the order in which it stands there.
#pragma once

#include <QList>
#include <QModelIndex>
#include <QString>

class QAbstractItemView;
class QHeaderView;

namespace quanvas {

enum class TableFormat { kTsv, kCsv, kMarkdown };

// The selected rows (all rows when none is selected) of the visible columns, with a header row.
QString table_text(const QAbstractItemView& view, const QHeaderView& header, TableFormat format);
// Puts it on the clipboard.
void copy_table(const QAbstractItemView& view, const QHeaderView& header, TableFormat format);
// Adds "Copy as TSV / CSV / Markdown" to the view's own actions; Ctrl+C copies TSV.
void add_copy_actions(QAbstractItemView* view, QHeaderView* header);

}  // namespace quanvas
