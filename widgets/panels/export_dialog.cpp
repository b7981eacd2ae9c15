#include "widgets/panels/export_dialog.h"

#include <algorithm>

#include <QDialogButtonBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPixmap>
#include <QPushButton>
#include <QRegularExpression>
#include <QSpinBox>
#include <QStyle>
#include <QTabWidget>
#include <QTableWidget>
#include <QToolButton>
#include <QVBoxLayout>

#include "core/report/target_lens.h"
#include "widgets/common/format.h"
#include "widgets/common/icons.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/table_text.h"

namespace quanvas {
namespace {

constexpr std::size_t kMostRefusals = 5;  // shown in full; the rest is counted
constexpr int kIcon = 16;

// Keeps the place of the mark that the check will bring.
QIcon no_icon() {
  QPixmap pixmap(kIcon, kIcon);
  pixmap.fill(Qt::transparent);
  return pixmap;
}

QString qs(const std::string& s) { return QString::fromStdString(s); }

QString suffix_of(const PluginEntry& e) {
  return e.more.contains("extension") && e.more["extension"].is_string() ? qs(e.more["extension"].get<std::string>()) : QString();
}

QString refusal_text(const std::vector<Refusal>& list) {
  QStringList lines;
  for (std::size_t i = 0; i < list.size() && i < kMostRefusals; ++i) lines << qs(list[i].text());
  if (list.size() > kMostRefusals) lines << ExportDialog::tr("… and %1 more.").arg(list.size() - kMostRefusals);
  return lines.join(u'\n');
}

QTableWidget* make_table(const QStringList& headers, const QString& name, QWidget* parent) {
  auto* table = new QTableWidget(0, static_cast<int>(headers.size()), parent);
  table->setHorizontalHeaderLabels(headers);
  table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->setShowGrid(false);
  table->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
  table->setAccessibleName(name);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(25);
  table->setItemDelegate(new RowDelegate(table));
  add_copy_actions(table, table->horizontalHeader());
  table->setContextMenuPolicy(Qt::ActionsContextMenu);
  return table;
}

void add_row(QTableWidget* table, const QStringList& texts, int first_number) {
  const int row = table->rowCount();
  table->insertRow(row);
  for (int c = 0; c < static_cast<int>(texts.size()); ++c) {
    table->setItem(row, c, new QTableWidgetItem(texts[c]));
    if (c >= first_number) table->item(row, c)->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
  }
}

QString why_not(const PluginEntry& e) {
  return e.more.is_object() ? qs(e.more.value("unavailable", std::string())) : QString();
}

// "codes -7 ... 7" of the audit as the window writes numbers.
QString shown(const std::string& s) {
  static const QRegularExpression minus(QStringLiteral("(?<![\\w.])-(?=\\d)"));
  return qs(s).replace(minus, QString(QChar(0x2212))).replace(QStringLiteral("..."), QStringLiteral("…"));
}

QString report_text(const ExportReport& r) {
  QStringList lines;
  lines << ExportDialog::tr("Written: %1, %2 (weights and biases in float %3, as codes and scales %4).")
               .arg(qs(r.path), bytes_text(r.file_bytes), bytes_text(r.float_bytes), bytes_text(r.ideal_bytes));
  for (const std::string& file : r.files)
    if (file != r.path) lines << ExportDialog::tr("Beside it: %1.").arg(qs(file));
  std::size_t equal = 0;
  for (const auto& row : r.audit) equal += row.equal;
  if (!r.audit.empty()) lines << ExportDialog::tr("Read again: %1 of %2 quantizers are in the file as requested.").arg(equal).arg(r.audit.size());
  if (!r.nodes.empty()) {
    const auto same = std::count_if(r.nodes.begin(), r.nodes.end(), [](const NodeAudit& n) { return n.differing == 0; });
    lines << (static_cast<std::size_t>(same) == r.nodes.size()
                  ? ExportDialog::tr("Every one of %1 tensors is the screen's.").arg(r.nodes.size())
                  : ExportDialog::tr("%1 of %2 tensors are the screen's; the first that differs: %3, %4.")
                        .arg(same).arg(r.nodes.size()).arg(qs(r.nodes[static_cast<std::size_t>(r.first_difference)].layer), qs(r.nodes[static_cast<std::size_t>(r.first_difference)].what)));
  }
  if (r.checked_samples > 0)
    lines << ExportDialog::tr("Run again on %1 samples: same class for %2, largest difference of an output %3.")
                 .arg(count_text(r.checked_samples), percent_text(r.equal_predictions), significant_text(r.max_output_difference));
  if (const std::string both = both_accuracies(r); !both.empty()) lines << qs(both) + QStringLiteral(".");
  if (r.exactness) lines << ExportDialog::tr("Exactness: %1, %2.").arg(QLatin1String(enum_text(*r.exactness)), QLatin1String(meaning(*r.exactness)));
  for (const auto& n : r.notes) lines << qs(n);
  return lines.join(u'\n');
}

}  // namespace

ExportDialog::ExportDialog(const std::vector<PluginEntry>& targets, std::int64_t run, const QString& what, const QString& stem, bool quantizes,
                           QWidget* parent)
    : QDialog(parent), targets_(targets), run_(run), stem_(stem), list_(new QListWidget(this)), doc_(new QLabel(this)), message_(new QLabel(this)),
      options_(new SchemaForm(this)), path_(new QLineEdit(this)), samples_(new QSpinBox(this)), tabs_(new QTabWidget(this)),
      audit_(make_table({tr("Layer"), tr("Quantizer"), tr("Requested"), tr("In the file"), tr("Size")}, tr("Audit"), this)),
      nodes_(make_table({tr("Layer"), tr("Tensor"), tr("Values"), tr("Differ"), tr("Most steps"), tr("Largest difference")}, tr("Tensors"), this)), export_(new QPushButton(tr("Export"), this)) {
  setWindowTitle(tr("Export %1").arg(what));
  resize(860, 520);
  list_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);  // a longer name ends in an ellipsis
  list_->setAccessibleName(tr("Targets"));
  list_->setIconSize({kIcon, kIcon});
  const auto keeps_quantizers = [](const PluginEntry& e) { return e.more.is_object() && e.more.value("needs_quantizers", false); };
  std::stable_sort(targets_.begin(), targets_.end(), [&](const PluginEntry& a, const PluginEntry& b) {
    if (why_not(a).isEmpty() != why_not(b).isEmpty()) return why_not(a).isEmpty();  // what is not offered comes last
    return keeps_quantizers(a) != keeps_quantizers(b) && keeps_quantizers(a) == quantizes;
  });
  for (const auto& t : targets_) {
    auto* item = new QListWidgetItem(qs(t.title), list_);
    item->setData(Qt::UserRole, qs(t.id));
    item->setToolTip(qs(t.doc));
    item->setIcon(no_icon());
    if (const QString why = why_not(t); !why.isEmpty()) {
      item->setFlags(item->flags() & ~(Qt::ItemIsEnabled | Qt::ItemIsSelectable));
      item->setToolTip(why);
    }
  }
  constexpr int kLeast = 190, kMost = 320, kMargins = 24;
  list_->ensurePolished();
  list_->setFixedWidth(std::clamp(list_->sizeHintForColumn(0) + kMargins, kLeast, kMost));
  for (auto* l : {doc_, message_}) {
    l->setWordWrap(true);
    l->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  }
  doc_->setProperty("role", "muted");
  path_->setAccessibleName(tr("File"));
  auto* browse_button = new QToolButton(this);
  browse_button->setText(tr("…"));
  browse_button->setAccessibleName(tr("Choose the file"));
  tabs_->addTab(audit_, tr("Quantizers"));
  tabs_->addTab(nodes_, tr("Tensors"));
  tabs_->setDocumentMode(true);
  tabs_->hide();
  export_->setProperty("primary", true);

  constexpr int kMostSamples = 1000000, kUsualSamples = 256;
  samples_->setRange(0, kMostSamples);
  samples_->setValue(kUsualSamples);
  samples_->setSpecialValueText(tr("all samples"));
  samples_->setSuffix(tr(" samples"));
  samples_->setToolTip(tr("The file is read again and run beside the network on the screen, on so many samples; 0: on all."));
  samples_->setAccessibleName(tr("Samples that are compared"));

  const auto row = [&](const QString& text, QWidget* field) {
    auto* line = new QHBoxLayout;
    auto* label = new QLabel(text, this);
    label->setProperty("role", "muted");
    label->setFixedWidth(92);
    label->setBuddy(field);
    line->addWidget(label);
    return line;
  };
  auto* file = row(tr("File"), path_);
  file->addWidget(path_, 1);
  file->addWidget(browse_button);
  auto* compared = row(tr("Compared on"), samples_);
  compared->addWidget(samples_);
  compared->addStretch(1);
  auto* right = new QVBoxLayout;
  right->setSpacing(8);
  right->addWidget(doc_);
  right->addWidget(options_);
  right->addLayout(file);
  right->addLayout(compared);
  right->addWidget(message_);
  right->addWidget(tabs_, 1);
  right->addStretch(0);
  auto* columns = new QHBoxLayout;
  columns->setSpacing(14);
  columns->addWidget(list_);
  columns->addLayout(right, 1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
  buttons->addButton(export_, QDialogButtonBox::ActionRole);
  buttons->button(QDialogButtonBox::Close)->setAutoDefault(false);
  export_->setDefault(true);
  auto* layout = new QVBoxLayout(this);
  layout->addLayout(columns, 1);
  layout->addWidget(buttons);

  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(browse_button, &QToolButton::clicked, this, &ExportDialog::browse);
  connect(path_, &QLineEdit::textEdited, this, [this] { own_path_ = true; });
  connect(path_, &QLineEdit::textChanged, this, &ExportDialog::ask_again);
  connect(list_, &QListWidget::currentItemChanged, this, [this] { show_target(); });
  connect(export_, &QPushButton::clicked, this, &ExportDialog::start);
  connect(options_, &SchemaForm::edited, this, [this] {
    refusals_.erase(current_target());
    ask_again();
    check_current();
  });
  if (targets_.empty()) say("error", tr("The engine has no exporters."));
  export_->setEnabled(false);
  if (list_->count()) list_->setCurrentRow(0);
  if (quantizes) select_target(QStringLiteral("onnx-qdq"));  // what most begin with
}

void ExportDialog::start() {
  const QString path = path_->text();
  if (QFileInfo::exists(path) && path != may_replace_) {
    may_replace_ = path;
    export_->setText(tr("Replace"));
    return say("warning", tr("%1 exists already.").arg(path));
  }
  ask_again();
  running_ = true;
  export_->setEnabled(false);
  tabs_->hide();
  say("muted", tr("Exporting…"));
  Q_EMIT export_wanted(current_target(), path, options_->values(), run_, samples_->value());
}

void ExportDialog::ask_again() {
  may_replace_.clear();
  export_->setText(tr("Export"));
}

QString ExportDialog::current_target() const { return list_->currentItem() ? list_->currentItem()->data(Qt::UserRole).toString() : QString(); }

void ExportDialog::select_target(const QString& id) {
  for (int i = 0; i < list_->count(); ++i)
    if (list_->item(i)->data(Qt::UserRole).toString() == id) list_->setCurrentRow(i);
}

void ExportDialog::say(const char* role, const QString& text) {
  message_->setProperty("role", role);
  message_->style()->unpolish(message_);
  message_->style()->polish(message_);
  message_->setText(text);
}

QString ExportDialog::message() const { return message_->text(); }

void ExportDialog::show_target() {
  const auto* entry = find_entry(targets_, current_target().toStdString());
  if (!entry) return;
  doc_->setText(qs(entry->doc));
  options_->set_schema(entry->schema);
  options_->setVisible(!entry->schema.fields.empty());
  tabs_->hide();
  if (!own_path_) path_->setText(stem_ + QStringLiteral("-") + qs(entry->id) + suffix_of(*entry));
  const auto it = refusals_.find(current_target());
  if (it == refusals_.end()) return check_current();
  show_refusals(it->second);
}

void ExportDialog::check_current() {
  if (current_target().isEmpty()) return;
  export_->setEnabled(false);
  say("muted", tr("Checking what this target can hold…"));
  Q_EMIT check_wanted(current_target(), options_->schema().fields.empty() ? json::object() : options_->values());
}

void ExportDialog::show_refusals(const std::vector<Refusal>& refusals) {
  export_->setEnabled(refusals.empty() && !running_);
  if (refusals.empty()) return say("good", tr("This target can hold everything."));
  const auto mendable = std::count_if(refusals.begin(), refusals.end(), can_mend);
  QString text = refusal_text(refusals);
  if (mendable > 0 && run_ == 0)
    text += QStringLiteral("\n") + tr("%1 of these %2 can be mended with one click in the panel Target.").arg(mendable).arg(refusals.size());
  say("warning", text);
}

void ExportDialog::set_refusals(const QString& target, const std::vector<Refusal>& refusals) {
  refusals_[target] = refusals;
  for (int i = 0; i < list_->count(); ++i) {
    auto* item = list_->item(i);
    if (item->data(Qt::UserRole).toString() != target) continue;
    item->setIcon(refusals.empty() ? icon(QStringLiteral("check"), IconRole::kGood) : icon(QStringLiteral("warning"), IconRole::kWarning));
    if (!refusals.empty()) item->setToolTip(refusal_text(refusals));
  }
  if (target == current_target() && !running_) show_refusals(refusals);
}

void ExportDialog::set_progress(const QString& text) {
  if (running_) say("muted", text);
}

void ExportDialog::set_failed(const QString& sentence) {
  running_ = false;
  export_->setEnabled(true);
  say("error", sentence);
}

void ExportDialog::set_report(const ExportReport& report) {
  running_ = false;
  export_->setEnabled(true);
  if (!report.refusals.empty()) return say("error", tr("Nothing was written.") + QStringLiteral("\n") + refusal_text(report.refusals));
  audit_->setRowCount(0);
  for (const auto& a : report.audit) {
    add_row(audit_, {qs(a.layer), qs(a.quantizer), shown(a.requested), shown(a.written), bytes_text(a.bytes)}, 4);
    audit_->item(audit_->rowCount() - 1, 3)
        ->setIcon(a.equal ? icon(QStringLiteral("check"), IconRole::kGood) : icon(QStringLiteral("warning"), IconRole::kWarning));
  }
  audit_->resizeColumnsToContents();
  show_nodes(report);
  tabs_->setVisible(!report.audit.empty() || !report.nodes.empty());
  say(falls_short(report) ? "warning" : "good", report_text(report));
}

void ExportDialog::show_nodes(const ExportReport& report) {
  nodes_->setRowCount(0);
  for (const NodeAudit& n : report.nodes) {
    add_row(nodes_, {qs(n.layer), qs(n.what), count_text(n.values), count_text(n.differing), n.is_quantized ? significant_text(n.max_steps) : QString(),
                     significant_text(n.max_difference)}, 2);
    nodes_->item(nodes_->rowCount() - 1, 0)
        ->setIcon(n.differing == 0 ? icon(QStringLiteral("check"), IconRole::kGood) : icon(QStringLiteral("warning"), IconRole::kWarning));
  }
  nodes_->resizeColumnsToContents();
  tabs_->setTabVisible(1, !report.nodes.empty());
  if (report.first_difference >= 0) nodes_->scrollToItem(nodes_->item(report.first_difference, 0));
}

void ExportDialog::browse() {
  const QString path = QFileDialog::getSaveFileName(this, tr("Export"), path_->text());
  if (path.isEmpty()) return;
  own_path_ = true;
  path_->setText(path);
  may_replace_ = path;  // the file dialog has asked
}

}  // namespace quanvas
