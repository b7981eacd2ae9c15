#include "app/window/sheets.h"

#include <QCoreApplication>
#include <QDialog>
#include <QDialogButtonBox>
#include <QHeaderView>
#include <QLabel>
#include <QTableWidget>
#include <QVBoxLayout>

#include "core/base/version.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/table_text.h"

namespace quanvas {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("Sheets", text); }

struct Line {
  QString a, b;
};

void show_table(QWidget* parent, const QString& title, const QString& heading, const QStringList& columns, const std::vector<Line>& lines) {
  auto* dialog = new QDialog(parent);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setWindowTitle(title);
  dialog->resize(460, 520);
  auto* table = new QTableWidget(static_cast<int>(lines.size()), 2, dialog);
  table->setHorizontalHeaderLabels(columns);
  table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->setShowGrid(false);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(25);
  table->horizontalHeader()->setStretchLastSection(true);
  table->setItemDelegate(new RowDelegate(table));
  add_copy_actions(table, table->horizontalHeader());
  table->setContextMenuPolicy(Qt::ActionsContextMenu);
  for (int i = 0; i < table->rowCount(); ++i) {
    table->setItem(i, 0, new QTableWidgetItem(lines[static_cast<std::size_t>(i)].a));
    table->setItem(i, 1, new QTableWidgetItem(lines[static_cast<std::size_t>(i)].b));
  }
  table->resizeColumnToContents(0);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, dialog);
  QObject::connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::reject);
  auto* layout = new QVBoxLayout(dialog);
  if (!heading.isEmpty()) {
    auto* label = new QLabel(heading, dialog);
    label->setWordWrap(true);
    layout->addWidget(label);
  }
  layout->addWidget(table, 1);
  layout->addWidget(buttons);
  dialog->show();
}

}  // namespace

void show_about(QWidget* parent, const std::map<std::string, std::string>& versions) {
  std::vector<Line> lines = {{tr("Window"), QStringLiteral(QUANVAS_VERSION)}, {QStringLiteral("Qt"), QString::fromLatin1(qVersion())}};
  for (const auto& [key, value] : versions)
    lines.push_back({key == "quanvas" ? tr("Engine") : QString::fromStdString(key), QString::fromStdString(value)});
  show_table(parent, tr("About Quanvas"), tr("Quanvas: a workbench for neural-network quantization."), {tr("Part"), tr("Version")}, lines);
}

void show_shortcuts(QWidget* parent, const std::vector<QAction*>& actions) {
  std::vector<Line> lines;
  for (const auto* a : actions)
    if (!a->shortcut().isEmpty()) lines.push_back({a->text().remove(u'&').remove(u'…'), a->shortcut().toString(QKeySequence::NativeText)});
  const Line views[] = {
      {tr("Graph: walk along edges"), tr("arrows; with Shift: extend")}, {tr("Graph: fit, 100 %"), QStringLiteral("F, 0")},
      {tr("Graph: open or close a group"), QStringLiteral("E")},
      {tr("Graph: end the path, then clear"), tr("Esc")},          {tr("Tables: copy rows"), QStringLiteral("Ctrl+C")},
      {tr("Rules: move"), QStringLiteral("Alt+↑, Alt+↓")},                {tr("Distribution: choose, move a limit"), QStringLiteral("PgUp, PgDn; ←, →")},
      {tr("Sweep: move, assign"), tr("arrows; Enter")}};
  lines.insert(lines.end(), std::begin(views), std::end(views));
  show_table(parent, tr("Shortcuts"), {}, {tr("Action"), tr("Keys")}, lines);
}

}  // namespace quanvas
