#include "widgets/charts/heat_map.h"

#include <algorithm>
#include <cmath>

#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>

#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr int kRowHeight = 31;
constexpr int kGap = 2;
constexpr int kTop = 24;
constexpr int kMargin = 8;
constexpr int kMinCell = 38;
constexpr int kMaxCell = 84;
constexpr int kMaxName = 150;

}  // namespace

HeatMap::HeatMap(QWidget* parent) : QAbstractScrollArea(parent) {
  setFrameShape(QFrame::NoFrame);
  setFocusPolicy(Qt::StrongFocus);
  viewport()->setMouseTracking(true);
  setAccessibleName(tr("Heat map"));
  connect(&Theme::instance(), &Theme::changed, viewport(), qOverload<>(&QWidget::update));
}

void HeatMap::set_data(HeatMapData data) {
  data_ = std::move(data);
  current_row_ = std::clamp(current_row_, 0, std::max(0, rows() - 1));
  current_column_ = std::clamp(current_column_, 0, std::max(0, columns() - 1));
  update_geometry();
  viewport()->update();
}

double HeatMap::value(int row, int column) const {
  const auto r = static_cast<std::size_t>(row), c = static_cast<std::size_t>(column);
  if (r >= data_.values.size() || c >= data_.values[r].size()) return std::nan("");
  return data_.values[r][c];
}

int HeatMap::name_width() const {
  const QFontMetrics metrics(text_font(12));
  int width = 0;
  for (const auto& r : data_.rows) width = std::max(width, metrics.horizontalAdvance(r));
  return std::min(width, kMaxName) + 2 * kMargin;
}

void HeatMap::update_geometry() {
  const int room = viewport()->width() - name_width() - kMargin;
  cell_width_ = columns() ? std::clamp(room / columns(), kMinCell, kMaxCell) : kMaxCell;
  const QSize full(columns() * cell_width_, rows() * kRowHeight);
  const QSize page(std::max(1, room), std::max(1, viewport()->height() - kTop));
  horizontalScrollBar()->setRange(0, std::max(0, full.width() - page.width()));
  horizontalScrollBar()->setPageStep(page.width());
  verticalScrollBar()->setRange(0, std::max(0, full.height() - page.height()));
  verticalScrollBar()->setPageStep(page.height());
  verticalScrollBar()->setSingleStep(kRowHeight);
}

QSize HeatMap::full_size() const {
  return {name_width() + columns() * cell_width_ + kMargin, kTop + rows() * kRowHeight + 4};
}

QRect HeatMap::cell_rect(int row, int column) const {
  return {name_width() + column * cell_width_ - horizontalScrollBar()->value(),
          kTop + row * kRowHeight - verticalScrollBar()->value(), cell_width_ - kGap, kRowHeight - kGap};
}

QPoint HeatMap::cell_at(const QPoint& p) const {
  if (p.x() < name_width() || p.y() < kTop) return {-1, -1};
  const int column = (p.x() - name_width() + horizontalScrollBar()->value()) / cell_width_;
  const int row = (p.y() - kTop + verticalScrollBar()->value()) / kRowHeight;
  return row < rows() && column < columns() ? QPoint(column, row) : QPoint(-1, -1);
}

void HeatMap::paint_cell(QPainter& painter, const QRect& rect, int row, int column) const {
  const Colors& c = colors();
  const double v = value(row, column);
  const QRectF box = QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5);
  const bool known = !std::isnan(v);
  const QColor fill = known ? cividis(data_.position ? data_.position(v, column) : 0, c) : c.row;
  painter.setPen(QPen(known ? outline_of(fill, c) : c.line, 1));
  painter.setBrush(fill);
  painter.drawRoundedRect(box, 3, 3);
  if (known) {
    painter.setPen(ink_on(fill));
    painter.drawText(rect, Qt::AlignCenter, data_.text ? data_.text(v, column) : QString::number(v));
  }
  const auto r = static_cast<std::size_t>(row);
  if (r < data_.outlined.size() && data_.outlined[r] == column) {
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(c.dark ? QColor(Qt::white) : QColor(0x11, 0x11, 0x11), 2));
    painter.drawRoundedRect(QRectF(rect).adjusted(1, 1, -1, -1), 3, 3);
  }
  if (hasFocus() && row == current_row_ && column == current_column_) {
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(c.accent, 2, Qt::DotLine));
    painter.drawRoundedRect(QRectF(rect).adjusted(3, 3, -3, -3), 2, 2);
  }
}

void HeatMap::paint_cells(QPainter& painter, const QRect& area, QPoint scroll, int cell_width) const {
  painter.save();
  painter.setClipRect(area);
  painter.setFont(text_font(11.5));
  const int first = std::max(0, scroll.y() / kRowHeight);
  const int last = std::min(rows() - 1, (scroll.y() + area.height()) / kRowHeight);
  for (int r = first; r <= last; ++r)
    for (int c = 0; c < columns(); ++c)
      paint_cell(painter, {area.left() + c * cell_width - scroll.x(), area.top() + r * kRowHeight - scroll.y(),
                           cell_width - kGap, kRowHeight - kGap}, r, c);
  painter.restore();
}

void HeatMap::paint_names(QPainter& painter, const QRect& area, QPoint scroll, int cell_width) const {
  const Colors& theme = colors();
  const int left = area.left() - name_width();
  painter.save();
  painter.setClipRect(QRect(left, area.top(), name_width(), area.height()));
  painter.setPen(theme.text);
  painter.setFont(text_font(12));
  const QFontMetrics metrics(painter.font());
  for (int r = 0; r < rows(); ++r) {
    const QRect rect(left + kMargin, area.top() + r * kRowHeight - scroll.y(), name_width() - 2 * kMargin, kRowHeight - kGap);
    if (rect.bottom() < area.top() || rect.top() > area.bottom()) continue;
    painter.drawText(rect, Qt::AlignRight | Qt::AlignVCenter, metrics.elidedText(data_.rows[r], Qt::ElideMiddle, rect.width()));
  }
  painter.setClipRect(QRect(area.left(), area.top() - kTop, area.width(), kTop));
  painter.setPen(theme.muted);
  painter.setFont(text_font(11));
  const QFontMetrics small(painter.font());
  for (int c = 0; c < columns(); ++c) {
    const QRect rect(area.left() + c * cell_width - scroll.x(), area.top() - kTop, cell_width - kGap, kTop);
    painter.drawText(rect, Qt::AlignCenter, small.elidedText(data_.columns[c], Qt::ElideRight, rect.width()));
  }
  painter.restore();
}

void HeatMap::paintEvent(QPaintEvent*) {
  QPainter painter(viewport());
  painter.setRenderHint(QPainter::Antialiasing);
  painter.fillRect(viewport()->rect(), colors().panel);
  const QRect area(name_width(), kTop, viewport()->width() - name_width(), viewport()->height() - kTop);
  const QPoint scroll(horizontalScrollBar()->value(), verticalScrollBar()->value());
  paint_cells(painter, area, scroll, cell_width_);
  paint_names(painter, area, scroll, cell_width_);
}

void HeatMap::render_all(QPainter* painter, const QRect& rect) const {
  painter->setRenderHint(QPainter::Antialiasing);
  painter->fillRect(rect, colors().panel);
  const QRect area(rect.left() + name_width(), rect.top() + kTop, columns() * cell_width_, rows() * kRowHeight);
  paint_cells(*painter, area, {}, cell_width_);
  paint_names(*painter, area, {}, cell_width_);
}

void HeatMap::resizeEvent(QResizeEvent* event) {
  QAbstractScrollArea::resizeEvent(event);
  update_geometry();
}

void HeatMap::set_current(int row, int column) {
  if (!rows() || !columns()) return;
  current_row_ = std::clamp(row, 0, rows() - 1);
  current_column_ = std::clamp(column, 0, columns() - 1);
  const QRect rect = cell_rect(current_row_, current_column_);
  auto* vertical = verticalScrollBar();
  if (rect.top() < kTop) vertical->setValue(vertical->value() + rect.top() - kTop);
  if (rect.bottom() > viewport()->height()) vertical->setValue(vertical->value() + rect.bottom() - viewport()->height());
  auto* horizontal = horizontalScrollBar();
  if (rect.left() < name_width()) horizontal->setValue(horizontal->value() + rect.left() - name_width());
  if (rect.right() > viewport()->width()) horizontal->setValue(horizontal->value() + rect.right() - viewport()->width());
  viewport()->update();
  Q_EMIT current_changed(current_row_, current_column_);
}

void HeatMap::mousePressEvent(QMouseEvent* event) {
  const QPoint cell = cell_at(event->position().toPoint());
  if (event->button() != Qt::LeftButton || cell.x() < 0) return;
  set_current(cell.y(), cell.x());
  if (data_.clickable) Q_EMIT cell_clicked(cell.y(), cell.x());
}

void HeatMap::mouseMoveEvent(QMouseEvent* event) {
  const bool over = cell_at(event->position().toPoint()).x() >= 0;
  viewport()->setCursor(over && data_.clickable ? Qt::PointingHandCursor : Qt::ArrowCursor);
}

void HeatMap::keyPressEvent(QKeyEvent* event) {
  switch (event->key()) {
    case Qt::Key_Left: return set_current(current_row_, current_column_ - 1);
    case Qt::Key_Right: return set_current(current_row_, current_column_ + 1);
    case Qt::Key_Up: return set_current(current_row_ - 1, current_column_);
    case Qt::Key_Down: return set_current(current_row_ + 1, current_column_);
    case Qt::Key_Home: return set_current(0, current_column_);
    case Qt::Key_End: return set_current(rows() - 1, current_column_);
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_Space:
      if (data_.clickable && rows() && columns()) Q_EMIT cell_clicked(current_row_, current_column_);
      return;
    default: QAbstractScrollArea::keyPressEvent(event);
  }
}

void HeatMap::focusInEvent(QFocusEvent*) { viewport()->update(); }
void HeatMap::focusOutEvent(QFocusEvent*) { viewport()->update(); }

bool HeatMap::viewportEvent(QEvent* event) {
  if (event->type() == QEvent::ToolTip && data_.tooltip) {
    auto* help = static_cast<QHelpEvent*>(event);
    const QPoint cell = cell_at(help->pos());
    if (cell.x() >= 0) QToolTip::showText(help->globalPos(), data_.tooltip(cell.y(), cell.x()), viewport());
    else QToolTip::hideText();
    return true;
  }
  return QAbstractScrollArea::viewportEvent(event);
}

}  // namespace quanvas
