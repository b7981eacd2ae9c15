// Quanvas - tables as text for the clipboard: what is visible, in the order in which it stands there.
#pragma once

#include <string>

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

// A time as projects store it (UTC, ISO 8601), by the clock and in the manner of this computer; as it stands when it is none.
QString local_time_text(const std::string& utc);

}  // namespace quanvas
