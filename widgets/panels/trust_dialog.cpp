#include "widgets/panels/trust_dialog.h"

#include <QDialogButtonBox>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QStackedLayout>
#include <QTableWidget>
#include <QVBoxLayout>

#include "widgets/models/chip_delegate.h"
#include "widgets/models/table_fit.h"
#include "widgets/models/table_text.h"

namespace quanvas {
namespace {

constexpr int kShownHash = 12, kRowHeight = 25;

QString qs(const std::string& s) { return QString::fromStdString(s); }

}  // namespace

TrustDialog::TrustDialog(QWidget* parent)
    : QDialog(parent), table_(new QTableWidget(0, 3)), none_(new QLabel(tr("No file's code is trusted."))), problem_(new QLabel(this)),
      stack_(new QStackedLayout) {
  setWindowTitle(tr("Trusted files"));
  resize(620, 340);
  auto* hint = new QLabel(tr("The code in these files (TorchScript) runs when they are opened. What is taken back is asked about the next time."), this);
  hint->setWordWrap(true);
  hint->setProperty("role", "muted");
  table_->setHorizontalHeaderLabels({tr("File"), tr("Trusted since"), tr("Hash")});
  table_->setAccessibleName(tr("Trusted files"));
  table_->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setShowGrid(false);
  table_->setTextElideMode(Qt::ElideLeft);  // the file's name stands at the end
  table_->setWordWrap(false);
  table_->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
  table_->horizontalHeader()->setHighlightSections(false);
  table_->verticalHeader()->hide();
  table_->verticalHeader()->setDefaultSectionSize(kRowHeight);
  table_->horizontalHeader()->setSectionResizeMode(0, QHeaderView::Stretch);
  table_->setItemDelegate(new RowDelegate(table_));
  add_copy_actions(table_, table_->horizontalHeader());
  table_->setContextMenuPolicy(Qt::ActionsContextMenu);
  none_->setProperty("role", "muted");
  none_->setAlignment(Qt::AlignCenter);
  stack_->addWidget(none_);
  stack_->addWidget(table_);
  problem_->setWordWrap(true);
  problem_->setProperty("role", "error");
  problem_->hide();
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
  revoke_ = buttons->addButton(tr("Take back"), QDialogButtonBox::ActionRole);
  revoke_->setAutoDefault(false);
  connect(revoke_, &QPushButton::clicked, this, &TrustDialog::revoke);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(table_, &QTableWidget::itemSelectionChanged, this, &TrustDialog::update_button);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(10);
  layout->addWidget(hint);
  layout->addLayout(stack_, 1);
  layout->addWidget(problem_);
  layout->addWidget(buttons);
  set_models({});
}

void TrustDialog::set_models(const std::vector<TrustedModel>& models) {
  models_ = models;
  set_problem({});
  table_->clearSelection();
  table_->setRowCount(static_cast<int>(models.size()));
  for (int row = 0; row < table_->rowCount(); ++row) {
    const TrustedModel& m = models_[static_cast<std::size_t>(row)];
    const QString path = qs(m.path);
    auto* file = new QTableWidgetItem(path.isEmpty() ? tr("not known") : path);
    auto* hash = new QTableWidgetItem(qs(m.hash).left(kShownHash));
    file->setToolTip(path);
    hash->setToolTip(qs(m.hash));
    table_->setItem(row, 0, file);
    table_->setItem(row, 1, new QTableWidgetItem(m.since.empty() ? tr("not known") : local_time_text(m.since)));
    table_->setItem(row, 2, hash);
  }
  for (const int c : {1, 2}) table_->setColumnWidth(c, needed_width(*table_, c));
  stack_->setCurrentWidget(models.empty() ? static_cast<QWidget*>(none_) : table_);
  update_button();
}

void TrustDialog::set_problem(const QString& sentence) {
  problem_->setText(sentence);
  problem_->setVisible(!sentence.isEmpty());
}

void TrustDialog::update_button() { revoke_->setEnabled(!table_->selectionModel()->selectedRows().isEmpty()); }

void TrustDialog::revoke() {
  QStringList hashes;
  for (const QModelIndex& i : table_->selectionModel()->selectedRows()) hashes << qs(models_[static_cast<std::size_t>(i.row())].hash);
  if (!hashes.isEmpty()) Q_EMIT revoke_wanted(hashes);
}

}  // namespace quanvas
