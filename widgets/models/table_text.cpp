#include "widgets/models/table_text.h"

#include <set>

#include <QAbstractItemView>
#include <QAction>
#include <QClipboard>
#include <QCoreApplication>
#include <QDateTime>
#include <QGuiApplication>
#include <QHeaderView>
#include <QLocale>

namespace quanvas {
namespace {

QString csv_cell(QString text) {
  if (!text.contains(u',') && !text.contains(u'"') && !text.contains(u'\n')) return text;
  return u'"' + text.replace(u'"', QStringLiteral("\"\"")) + u'"';
}
QString tsv_cell(QString text) { return text.replace(u'\t', u' ').replace(u'\n', u' '); }
QString markdown_cell(QString text) { return text.replace(u'|', QStringLiteral("\\|")).replace(u'\n', u' '); }

QString line(const QStringList& cells, TableFormat format) {
  QStringList out;
  for (const auto& c : cells)
    out << (format == TableFormat::kCsv ? csv_cell(c) : format == TableFormat::kTsv ? tsv_cell(c) : markdown_cell(c));
  switch (format) {
    case TableFormat::kCsv: return out.join(u',') + u'\n';
    case TableFormat::kTsv: return out.join(u'\t') + u'\n';
    case TableFormat::kMarkdown: return QStringLiteral("| ") + out.join(QStringLiteral(" | ")) + QStringLiteral(" |\n");
  }
  return {};
}

QList<int> visible_columns(const QHeaderView& header) {
  QList<int> out;
  for (int visual = 0; visual < header.count(); ++visual)
    if (const int logical = header.logicalIndex(visual); !header.isSectionHidden(logical)) out << logical;
  return out;
}

QList<int> wanted_rows(const QAbstractItemView& view) {
  std::set<int> rows;
  if (view.selectionModel())
    for (const auto& range : view.selectionModel()->selection())
      for (int r = range.top(); r <= range.bottom(); ++r) rows.insert(r);
  if (rows.empty())
    for (int r = 0; r < view.model()->rowCount(); ++r) rows.insert(r);
  return {rows.begin(), rows.end()};
}

QString markdown_rule(const QAbstractItemModel& model, const QList<int>& columns) {
  QString out = QStringLiteral("|");
  for (int c : columns) {
    const auto alignment = model.headerData(c, Qt::Horizontal, Qt::TextAlignmentRole).toInt();
    out += alignment & Qt::AlignRight ? QStringLiteral(" ---: |") : QStringLiteral(" --- |");
  }
  return out + u'\n';
}

}  // namespace

QString table_text(const QAbstractItemView& view, const QHeaderView& header, TableFormat format) {
  const auto& model = *view.model();
  const auto columns = visible_columns(header);
  QStringList titles;
  for (int c : columns) titles << model.headerData(c, Qt::Horizontal).toString();
  QString out = line(titles, format);
  if (format == TableFormat::kMarkdown) out += markdown_rule(model, columns);
  for (int r : wanted_rows(view)) {
    QStringList cells;
    for (int c : columns) cells << model.index(r, c).data().toString();
    out += line(cells, format);
  }
  return out;
}

void copy_table(const QAbstractItemView& view, const QHeaderView& header, TableFormat format) {
  QGuiApplication::clipboard()->setText(table_text(view, header, format));
}

void add_copy_actions(QAbstractItemView* view, QHeaderView* header) {
  static const std::pair<TableFormat, const char*> kFormats[] = {
      {TableFormat::kTsv, QT_TRANSLATE_NOOP("TableText", "Copy as TSV")},
      {TableFormat::kCsv, QT_TRANSLATE_NOOP("TableText", "Copy as CSV")},
      {TableFormat::kMarkdown, QT_TRANSLATE_NOOP("TableText", "Copy as Markdown")}};
  for (const auto& [format, title] : kFormats) {
    auto* action = new QAction(QCoreApplication::translate("TableText", title), view);
    if (format == TableFormat::kTsv) {
      action->setShortcut(QKeySequence::Copy);
      action->setShortcutContext(Qt::WidgetShortcut);
    }
    QObject::connect(action, &QAction::triggered, view, [view, header, f = format] { copy_table(*view, *header, f); });
    view->addAction(action);
  }
}

QString local_time_text(const std::string& utc) {
  const QString text = QString::fromStdString(utc);
  const auto time = QDateTime::fromString(text, Qt::ISODate);
  return time.isValid() ? QLocale().toString(time.toLocalTime(), QLocale::ShortFormat) : text;
}

}  // namespace quanvas
