#include "widgets/panels/palette.h"

#include <algorithm>

#include <QKeyEvent>
#include <QLineEdit>
#include <QListWidget>
#include <QPainter>
#include <QStyledItemDelegate>
#include <QTimer>
#include <QVBoxLayout>

#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr int kMostShown = 60;
constexpr int kKindRole = Qt::UserRole + 1, kDetailRole = Qt::UserRole + 2;

// Title at the left, its detail after it, its kind at the right.
class PaletteDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    const Colors& c = colors();
    if (option.state & QStyle::State_Selected) painter->fillRect(option.rect, c.accent_background);
    const QRect rect = option.rect.adjusted(10, 0, -10, 0);
    painter->setFont(text_font(11));
    painter->setPen(c.muted);
    const QString kind = index.data(kKindRole).toString();
    const int kind_width = painter->fontMetrics().horizontalAdvance(kind) + 12;
    painter->drawText(rect, Qt::AlignRight | Qt::AlignVCenter, kind);
    painter->setFont(text_font(13));
    const QFontMetrics metrics(painter->font());
    const QString title = metrics.elidedText(index.data().toString(), Qt::ElideMiddle, rect.width() - kind_width);
    painter->setPen(c.text);
    painter->drawText(rect, Qt::AlignLeft | Qt::AlignVCenter, title);
    const int used = metrics.horizontalAdvance(title) + 10;
    painter->setFont(text_font(12));
    painter->setPen(c.muted);
    const int room = rect.width() - kind_width - used;
    if (room > 30)
      painter->drawText(rect.adjusted(used, 0, -kind_width, 0), Qt::AlignLeft | Qt::AlignVCenter,
                        QFontMetrics(painter->font()).elidedText(index.data(kDetailRole).toString(), Qt::ElideRight, room));
  }
  QSize sizeHint(const QStyleOptionViewItem&, const QModelIndex&) const override { return {200, 28}; }
};

}  // namespace

int palette_score(const QString& query, const QString& title) {
  if (query.isEmpty()) return 0;
  int score = 0;
  qsizetype from = 0;
  bool adjacent = false;
  for (const QChar q : query) {
    if (q.isSpace()) {
      adjacent = false;
      continue;
    }
    const qsizetype at = title.indexOf(q, from, Qt::CaseInsensitive);
    if (at < 0) return -1;
    const bool word_start = at == 0 || !title[at - 1].isLetterOrNumber();
    score += 1 + (adjacent && at == from ? 5 : 0) + (word_start ? 4 : 0);
    from = at + 1;
    adjacent = true;
  }
  if (title.startsWith(query, Qt::CaseInsensitive)) score += 20;
  if (title.compare(query, Qt::CaseInsensitive) == 0) score += 40;
  return std::max(0, score * 10 - static_cast<int>(std::min<qsizetype>(title.size(), 99)) / 4);
}

Palette::Palette(std::vector<PaletteItem> items, QWidget* parent)
    : QDialog(parent, Qt::Popup | Qt::FramelessWindowHint), items_(std::move(items)), box_(new QLineEdit(this)), list_(new QListWidget(this)) {
  setAttribute(Qt::WA_DeleteOnClose);
  setAccessibleName(tr("Command palette"));
  resize(560, 400);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(8, 8, 8, 8);
  layout->setSpacing(6);
  layout->addWidget(box_);
  layout->addWidget(list_, 1);
  box_->setPlaceholderText(tr("Go to layer, action, preset…"));
  box_->setAccessibleName(tr("Search"));
  box_->installEventFilter(this);
  list_->setItemDelegate(new PaletteDelegate(list_));
  list_->setFocusPolicy(Qt::NoFocus);
  list_->setAccessibleName(tr("Matches"));
  connect(box_, &QLineEdit::textChanged, this, &Palette::filter);
  connect(list_, &QListWidget::itemClicked, this, [this] { run_current(); });
  filter({});
  box_->setFocus();
}

void Palette::filter(const QString& text) {
  std::vector<std::pair<int, std::size_t>> found;
  for (std::size_t i = 0; i < items_.size(); ++i)
    if (const int score = palette_score(text.trimmed(), items_[i].title); score >= 0) found.emplace_back(score, i);
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  list_->clear();
  for (const auto& [score, i] : found) {
    if (list_->count() == kMostShown) break;
    auto* item = new QListWidgetItem(items_[i].title, list_);
    item->setData(Qt::UserRole, static_cast<qulonglong>(i));
    item->setData(kKindRole, items_[i].kind);
    item->setData(kDetailRole, items_[i].detail);
  }
  if (list_->count()) list_->setCurrentRow(0);
}

void Palette::run_current() {
  const auto* item = list_->currentItem();
  if (!item) return;
  const auto run = items_[item->data(Qt::UserRole).toULongLong()].run;
  close();
  // After the popup is gone, so that a dialog opened by the action does not lie under it.
  if (run) QTimer::singleShot(0, parentWidget(), run);
}

bool Palette::eventFilter(QObject* watched, QEvent* event) {
  if (watched != box_ || event->type() != QEvent::KeyPress) return QDialog::eventFilter(watched, event);
  const auto* key = static_cast<QKeyEvent*>(event);
  const int row = list_->currentRow(), last = list_->count() - 1;
  switch (key->key()) {
    case Qt::Key_Down: list_->setCurrentRow(std::min(last, row + 1)); return true;
    case Qt::Key_Up: list_->setCurrentRow(std::max(0, row - 1)); return true;
    case Qt::Key_PageDown: list_->setCurrentRow(std::min(last, row + 10)); return true;
    case Qt::Key_PageUp: list_->setCurrentRow(std::max(0, row - 10)); return true;
    case Qt::Key_Return:
    case Qt::Key_Enter: run_current(); return true;
    default: return QDialog::eventFilter(watched, event);
  }
}

}  // namespace quanvas
