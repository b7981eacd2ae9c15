#include "widgets/charts/error_bars.h"

#include <algorithm>
#include <cmath>

#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>

#include "widgets/common/format.h"
#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr int kRow = 34;
constexpr int kTop = 22;
constexpr int kMargin = 10;
constexpr int kNumber = 64;
constexpr int kMaxName = 170;

}  // namespace

ErrorBars::ErrorBars(QWidget* parent) : QAbstractScrollArea(parent) {
  setFrameShape(QFrame::NoFrame);
  setFocusPolicy(Qt::StrongFocus);
  setAccessibleName(tr("Error per layer"));
  connect(&Theme::instance(), &Theme::changed, viewport(), qOverload<>(&QWidget::update));
}

void ErrorBars::set_bars(std::vector<ErrorBar> bars) {
  bars_ = std::move(bars);
  full_db_ = 20;
  for (const auto& b : bars_)
    for (const double v : {b.isolated, b.cumulative})
      if (std::isfinite(v)) full_db_ = std::max(full_db_, v);
  current_ = std::clamp(current_, 0, std::max(0, static_cast<int>(bars_.size()) - 1));
  update_scroll();
  viewport()->update();
}

void ErrorBars::set_selected(const std::vector<NodeId>& nodes) {
  selected_ = nodes;
  viewport()->update();
}

QString ErrorBars::csv() const {
  QString out = QStringLiteral("layer,isolated_sqnr_db,cumulative_sqnr_db\n");
  for (const auto& b : bars_)
    out += QStringLiteral("\"%1\",%2,%3\n").arg(QString(b.name).replace(u'"', QStringLiteral("\"\""))).arg(b.isolated).arg(b.cumulative);
  return out;
}

int ErrorBars::name_width() const {
  const QFontMetrics metrics(text_font(12));
  int width = 40;
  for (const auto& b : bars_) width = std::max(width, metrics.horizontalAdvance(b.name));
  return std::min(width, kMaxName);
}

void ErrorBars::update_scroll() {
  const int full = kTop + static_cast<int>(bars_.size()) * kRow;
  verticalScrollBar()->setRange(0, std::max(0, full - viewport()->height()));
  verticalScrollBar()->setPageStep(viewport()->height());
  verticalScrollBar()->setSingleStep(kRow);
}

QSize ErrorBars::full_size() const { return {std::max(420, viewport()->width()), kTop + static_cast<int>(bars_.size()) * kRow + 4}; }

QRect ErrorBars::row_rect(int row) const {
  return {0, kTop + row * kRow - verticalScrollBar()->value(), viewport()->width(), kRow};
}

void ErrorBars::paint_bar(QPainter& painter, const QRectF& rect, double db, bool isolated) const {
  const Colors& c = colors();
  const QColor color = std::isfinite(db) && db < kPoorSqnrDb ? c.warning : c.accent;
  QRectF bar = rect;
  bar.setHeight(8);
  bar.moveTop(rect.center().y() - 4);
  bar.setWidth(std::max(0.0, rect.width() - kNumber));
  painter.setPen(Qt::NoPen);
  painter.setBrush(c.grid);
  painter.drawRoundedRect(bar, 3, 3);
  if (!std::isnan(db)) {
    QRectF filled = bar;
    filled.setWidth(std::isinf(db) ? bar.width() : std::max(3.0, bar.width() * std::clamp(db / full_db_, 0.0, 1.0)));
    painter.setBrush(isolated ? color : mix(color, c.panel, 0.45));
    painter.drawRoundedRect(filled, 3, 3);
    // The cumulative bar has a solid end, so that the two differ without colour.
    if (!isolated) painter.fillRect(QRectF(filled.right() - 3, bar.top(), 3, bar.height()), color);
  }
  painter.setPen(std::isnan(db) ? c.muted : db < kPoorSqnrDb ? c.warning : c.text);
  painter.setFont(text_font(11));
  painter.drawText(QRectF(bar.right() + 6, rect.top(), kNumber - 6, rect.height()), Qt::AlignLeft | Qt::AlignVCenter, db_text(db));
}

void ErrorBars::paint_row(QPainter& painter, const QRect& rect, int row, int width) const {
  const Colors& c = colors();
  const auto& b = bars_[static_cast<std::size_t>(row)];
  if (std::find(selected_.begin(), selected_.end(), b.node) != selected_.end()) painter.fillRect(rect, c.accent_background);
  painter.save();
  if (b.stale) painter.setOpacity(0.55);
  painter.setPen(c.text);
  painter.setFont(text_font(12));
  const QRect name(rect.left() + kMargin, rect.top(), width, rect.height());
  painter.drawText(name, Qt::AlignRight | Qt::AlignVCenter, QFontMetrics(painter.font()).elidedText(b.name, Qt::ElideMiddle, width));
  const double left = name.right() + 10;
  const double length = rect.right() - kMargin - left;
  paint_bar(painter, QRectF(left, rect.top() + 2, length, 15), b.isolated, true);
  paint_bar(painter, QRectF(left, rect.top() + 17, length, 15), b.cumulative, false);
  painter.restore();
  if (hasFocus() && row == current_) {
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(c.accent, 1, Qt::DotLine));
    painter.drawRect(QRectF(rect).adjusted(2.5, 1.5, -2.5, -1.5));
  }
}

void ErrorBars::paintEvent(QPaintEvent*) {
  QPainter painter(viewport());
  painter.setRenderHint(QPainter::Antialiasing);
  painter.fillRect(viewport()->rect(), colors().panel);
  const int width = name_width();
  const int first = std::max(0, (verticalScrollBar()->value() - kTop) / kRow);
  for (int r = first; r < static_cast<int>(bars_.size()); ++r) {
    const QRect rect = row_rect(r);
    if (rect.top() > viewport()->height()) break;
    paint_row(painter, rect, r, width);
  }
  painter.fillRect(0, 0, viewport()->width(), kTop - 2, colors().panel);
  painter.setPen(colors().muted);
  painter.setFont(text_font(11));
  painter.drawText(QRect(width + kMargin + 10, 0, viewport()->width(), kTop), Qt::AlignVCenter,
                   tr("SQNR at the output, dB: upper isolated, lower cumulative; longer is better"));
}

void ErrorBars::render_all(QPainter* painter, const QRect& rect) const {
  painter->setRenderHint(QPainter::Antialiasing);
  painter->fillRect(rect, colors().panel);
  for (int r = 0; r < static_cast<int>(bars_.size()); ++r)
    paint_row(*painter, {rect.left(), rect.top() + kTop + r * kRow, rect.width(), kRow}, r, name_width());
}

void ErrorBars::resizeEvent(QResizeEvent* event) {
  QAbstractScrollArea::resizeEvent(event);
  update_scroll();
}

void ErrorBars::mousePressEvent(QMouseEvent* event) {
  const int row = (event->position().toPoint().y() - kTop + verticalScrollBar()->value()) / kRow;
  if (event->position().y() < kTop || row >= static_cast<int>(bars_.size())) return;
  current_ = row;
  viewport()->update();
  Q_EMIT layer_clicked(bars_[static_cast<std::size_t>(row)].node);
}

void ErrorBars::keyPressEvent(QKeyEvent* event) {
  if (bars_.empty()) return QAbstractScrollArea::keyPressEvent(event);
  const int last = static_cast<int>(bars_.size()) - 1;
  switch (event->key()) {
    case Qt::Key_Up: current_ = std::max(0, current_ - 1); break;
    case Qt::Key_Down: current_ = std::min(last, current_ + 1); break;
    case Qt::Key_Home: current_ = 0; break;
    case Qt::Key_End: current_ = last; break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_Space: Q_EMIT layer_clicked(bars_[static_cast<std::size_t>(current_)].node); return;
    default: return QAbstractScrollArea::keyPressEvent(event);
  }
  const QRect rect = row_rect(current_);
  auto* bar = verticalScrollBar();
  if (rect.top() < kTop) bar->setValue(bar->value() + rect.top() - kTop);
  if (rect.bottom() > viewport()->height()) bar->setValue(bar->value() + rect.bottom() - viewport()->height());
  viewport()->update();
}

bool ErrorBars::viewportEvent(QEvent* event) {
  if (event->type() == QEvent::FocusIn || event->type() == QEvent::FocusOut) viewport()->update();
  if (event->type() != QEvent::ToolTip) return QAbstractScrollArea::viewportEvent(event);
  auto* help = static_cast<QHelpEvent*>(event);
  const int row = (help->pos().y() - kTop + verticalScrollBar()->value()) / kRow;
  if (help->pos().y() < kTop || row < 0 || row >= static_cast<int>(bars_.size())) return true;
  const auto& b = bars_[static_cast<std::size_t>(row)];
  QToolTip::showText(help->globalPos(),
                     tr("%1\nisolated %2: only this layer quantized\ncumulative %3: the whole network quantized\n"
                        "SQNR = 10·log10( Σy² / Σ(y−y~)² )")
                         .arg(b.name, db_text(b.isolated), db_text(b.cumulative)), viewport());
  return true;
}

}  // namespace quanvas
