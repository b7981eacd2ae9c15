#include "widgets/charts/histogram_chart.h"

#include <algorithm>
#include <cmath>

#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QToolTip>

#include "widgets/charts/axis.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr double kLeft = 44, kRight = 22, kTop = 20, kBottom = 36;
// What cannot be drawn: ranges and counts that are not finite, e.g. of a tensor that holds such values.
Histogram drawable(Histogram h) {
  if (!std::isfinite(h.lo) || !std::isfinite(h.hi) || !std::isfinite(h.hi - h.lo)) {
    h.lo = -1;
    h.hi = 1;
    h.counts.clear();
  }
  for (double& c : h.counts)
    if (!std::isfinite(c)) c = 0;
  std::erase_if(h.grid, [](double g) { return !std::isfinite(g); });
  const bool limits = h.clip_lo && h.clip_hi && std::isfinite(*h.clip_lo) && std::isfinite(*h.clip_hi) && std::isfinite(*h.clip_hi - *h.clip_lo);
  if (!limits) h.clip_lo = h.clip_hi = std::nullopt;
  return h;
}

constexpr double kGrab = 7;           // px beside a handle that still catch it
constexpr double kLeastGap = 4;       // px between grid points that are drawn one by one

}  // namespace

HistogramChart::HistogramChart(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
  setAccessibleName(tr("Distribution"));
  connect(&Theme::instance(), &Theme::changed, this, qOverload<>(&QWidget::update));
}

void HistogramChart::set_histogram(const Histogram& histogram) {
  histogram_ = drawable(histogram);
  // The engine's answer to an earlier position must not pull the handle from under the mouse.
  if (!drag_) {
    has_clip_ = histogram_->clip_lo && histogram_->clip_hi;
    clip_lo_ = histogram_->clip_lo.value_or(0);
    clip_hi_ = histogram_->clip_hi.value_or(0);
    update_range();
  }
  update();
}

void HistogramChart::clear() {
  histogram_.reset();
  has_clip_ = false;
  drag_ = 0;
  update();
}

void HistogramChart::update_range() {
  const auto& h = *histogram_;
  lo_ = h.lo;
  hi_ = h.hi;
  if (has_clip_) {
    lo_ = std::min(lo_, clip_lo_);
    hi_ = std::max(hi_, clip_hi_);
  }
  if (!(lo_ < hi_)) {
    lo_ -= 0.5;
    hi_ += 0.5;
  }
  const double margin = 0.02 * (hi_ - lo_);
  lo_ -= margin;
  hi_ += margin;
}

void HistogramChart::set_log(bool log) {
  log_ = log;
  update();
}

void HistogramChart::set_value_title(const QString& title) {
  value_title_ = title;
  update();
}

QRectF HistogramChart::plot_rect(const QRectF& rect) const { return rect.adjusted(kLeft, kTop, -kRight, -kBottom); }

double HistogramChart::map_x(double value, const QRectF& plot) const {
  return plot.left() + (value - lo_) / (hi_ - lo_) * plot.width();
}
double HistogramChart::x_of(double value) const { return map_x(value, plot_rect(rect())); }
double HistogramChart::value_at(double x) const {
  const QRectF plot = plot_rect(rect());
  return lo_ + (x - plot.left()) / std::max(1.0, plot.width()) * (hi_ - lo_);
}

double HistogramChart::largest_count() const {
  double most = 1;
  for (const double c : histogram_->counts) most = std::max(most, c);
  return most;
}

double HistogramChart::height_of(double count, double largest, double full) const {
  if (!(count > 0)) return 0;
  if (!log_) return std::max(1.0, count / largest * full);
  // One count stands 3 % above the axis, so that it is seen.
  const double decades = std::max(1.0, std::log10(largest));
  return (0.03 + 0.97 * std::log10(std::max(1.0, count)) / decades) * full;
}

void HistogramChart::paint_bars(QPainter& painter, const QRectF& plot) const {
  const auto& h = *histogram_;
  if (h.counts.empty() || !(h.hi > h.lo)) return;
  const double largest = largest_count();
  const double step = (h.hi - h.lo) / static_cast<double>(h.counts.size());
  painter.setPen(Qt::NoPen);
  painter.setBrush(colors().histogram);
  for (std::size_t i = 0; i < h.counts.size(); ++i) {
    const double height = height_of(h.counts[i], largest, plot.height());
    if (height <= 0) continue;
    const double left = map_x(h.lo + step * static_cast<double>(i), plot);
    const double right = map_x(h.lo + step * static_cast<double>(i + 1), plot);
    const double gap = right - left > 4 ? 1.2 : 0;
    painter.drawRect(QRectF(left + gap / 2, plot.bottom() - height, std::max(0.6, right - left - gap), height));
  }
}

void HistogramChart::paint_counts_axis(QPainter& painter, const QRectF& plot) const {
  const Colors& c = colors();
  const double largest = largest_count();
  std::vector<double> ticks;
  if (log_)
    for (double v = 1; v <= largest * 1.0001; v *= 10) {
      ticks.push_back(v);
      if (largest < 300 && 3 * v <= largest) ticks.push_back(3 * v);  // few decades: also their middles
    }
  else
    ticks = nice_ticks(0, largest, 4);
  // With many decades every second or third is enough.
  const std::size_t stride = std::max<std::size_t>(1, (ticks.size() + 4) / 5);
  painter.setFont(text_font(10.5));
  for (std::size_t i = 0; i < ticks.size(); i += stride) {
    const double y = plot.bottom() - (ticks[i] > 0 ? height_of(ticks[i], largest, plot.height()) : 0);
    painter.setPen(QPen(c.grid, 1));
    painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y));
    painter.setPen(c.muted);
    painter.drawText(QRectF(plot.left() - kLeft, y - 8, kLeft - 6, 16), Qt::AlignRight | Qt::AlignVCenter,
                     count_tick_text(ticks[i]));
  }
}

void HistogramChart::paint_value_axis(QPainter& painter, const QRectF& plot, const QRectF& rect) const {
  const Colors& c = colors();
  const auto ticks = nice_ticks(lo_, hi_, std::max(2, static_cast<int>(plot.width() / 70)));
  painter.setFont(text_font(10.5));
  painter.setPen(QPen(c.line, 1));
  painter.drawLine(plot.bottomLeft(), plot.bottomRight());
  painter.setPen(c.muted);
  for (const double t : ticks)
    painter.drawText(QRectF(map_x(t, plot) - 40, plot.bottom() + 2, 80, 15), Qt::AlignCenter, tick_text(t, ticks));
  QString title = value_title_;
  if (!histogram_->grid.empty()) {
    const auto n = static_cast<int>(histogram_->grid.size());
    const double gap = n > 1 ? (map_x(histogram_->grid.back(), plot) - map_x(histogram_->grid.front(), plot)) / (n - 1) : kLeastGap;
    title += (gap < kLeastGap ? tr("; shaded: the %1 grid points") : tr("; dashed: the %1 grid points")).arg(count_text(n));
    if (!histogram_->grid_note.empty()) title += QStringLiteral(" (%1)").arg(QString::fromStdString(histogram_->grid_note));
  }
  const QRectF below(rect.left() + 8, plot.bottom() + 17, rect.width() - 16, 16);
  painter.drawText(below, Qt::AlignCenter, QFontMetrics(painter.font()).elidedText(title, Qt::ElideRight, static_cast<int>(below.width())));
}

void HistogramChart::paint_grid_points(QPainter& painter, const QRectF& plot) const {
  const auto& grid = histogram_->grid;
  if (grid.empty()) return;
  QPen pen(colors().muted, 0.9, Qt::CustomDashLine);
  pen.setDashPattern({2, 3});
  painter.setPen(pen);
  const bool drawn = drag_ && has_clip_;
  const double from = grid.front(), to = grid.back();
  // While a handle moves, the grid follows it: the codes are spread evenly between the limits.
  const auto moved = [&](double g) {
    return drawn && to > from ? clip_lo_ + (g - from) / (to - from) * (clip_hi_ - clip_lo_) : g;
  };
  // Points closer than the eye can part are one band.
  QColor band = colors().muted;
  band.setAlpha(26);
  const auto draw = [&](double left, double right, std::size_t points) {
    left = std::max(left, plot.left());
    right = std::min(right, plot.right());
    if (left > right) return;
    if (points > 2) painter.fillRect(QRectF(left, plot.top(), right - left, plot.height()), band);
    painter.drawLine(QPointF(left, plot.top()), QPointF(left, plot.bottom()));
    if (points > 2) painter.drawLine(QPointF(right, plot.top()), QPointF(right, plot.bottom()));
  };
  double left = map_x(moved(grid.front()), plot), right = left;
  std::size_t points = 0;
  for (const double g : grid) {
    const double x = map_x(moved(g), plot);
    if (points > 0 && x - right >= kLeastGap) {
      draw(left, right, points);
      left = x;
      points = 0;
    }
    right = x;
    ++points;
  }
  draw(left, right, points);
}

void HistogramChart::paint_handles(QPainter& painter, const QRectF& plot) const {
  if (!has_clip_) return;
  const Colors& c = colors();
  const bool fixed = mode_ == ClipMode::kFixed;
  painter.setFont(text_font(10.5));
  for (const int which : {-1, 1}) {
    if (which < 0 && mode_ == ClipMode::kUpper) continue;
    const double x = map_x(which < 0 ? clip_lo_ : clip_hi_, plot);
    painter.setPen(QPen(c.warning, 1.6));
    painter.drawLine(QPointF(x, plot.top() - 8), QPointF(x, plot.bottom()));
    const QRectF knob(x - 5, plot.top() - 12, 10, 9);
    painter.setBrush(fixed ? c.panel : c.warning);
    painter.drawRoundedRect(knob, 2, 2);
    if (hasFocus() && !fixed && which == current_) {
      painter.setBrush(Qt::NoBrush);
      painter.setPen(QPen(c.accent, 1.6));
      painter.drawRoundedRect(knob.adjusted(-3, -3, 3, 3), 4, 4);
    }
  }
  // The word stands left of the upper handle when there is no room at its right.
  const QString word = fixed ? tr("clip") : drag_ ? tr("clip %1").arg(significant_text(drag_ < 0 ? clip_lo_ : clip_hi_)) : tr("clip, drag");
  const double x = map_x(clip_hi_, plot);
  const double width = QFontMetricsF(painter.font()).horizontalAdvance(word);
  const bool fits = x + 9 + width < plot.right() + kRight - 2;
  painter.setPen(c.warning);
  const QRectF box(fits ? x + 9 : x - 9 - width, plot.top() - 15, width + 2, 14);
  painter.drawText(box, Qt::AlignVCenter | Qt::AlignLeft, word);
}

void HistogramChart::paint_chart(QPainter& painter, const QRectF& rect) const {
  painter.setRenderHint(QPainter::Antialiasing);
  painter.fillRect(rect, colors().panel);
  if (!histogram_) return;
  const QRectF plot = plot_rect(rect);
  if (plot.width() < 20 || plot.height() < 20) return;
  paint_counts_axis(painter, plot);
  paint_bars(painter, plot);
  paint_grid_points(painter, plot);
  paint_value_axis(painter, plot, rect);
  paint_handles(painter, plot);
}

void HistogramChart::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  paint_chart(painter, rect());
}

QString HistogramChart::csv() const {
  QString out = QStringLiteral("bin_lo,bin_hi,count\n");
  if (!histogram_ || histogram_->counts.empty()) return out;
  const auto& h = *histogram_;
  const double step = (h.hi - h.lo) / static_cast<double>(h.counts.size());
  for (std::size_t i = 0; i < h.counts.size(); ++i)
    out += QStringLiteral("%1,%2,%3\n")
               .arg(h.lo + step * static_cast<double>(i), 0, 'g', 9)
               .arg(h.lo + step * static_cast<double>(i + 1), 0, 'g', 9)
               .arg(h.counts[i], 0, 'g', 15);
  return out;
}

int HistogramChart::handle_at(const QPointF& position) const {
  if (!has_clip_ || !histogram_ || mode_ == ClipMode::kFixed) return 0;
  const double to_hi = std::fabs(position.x() - x_of(clip_hi_));
  const double to_lo = mode_ == ClipMode::kUpper ? 1e9 : std::fabs(position.x() - x_of(clip_lo_));
  if (std::min(to_hi, to_lo) > kGrab) return 0;
  return to_hi <= to_lo ? 1 : -1;
}

void HistogramChart::move_handle(int which, double value, bool finished) {
  const double smallest = 1e-3 * (hi_ - lo_);
  value = std::clamp(value, lo_, hi_);
  double magnitude = std::max(smallest, which > 0 ? value : -value);
  switch (mode_) {
    case ClipMode::kFixed: return;
    case ClipMode::kSymmetric:
      clip_lo_ = -magnitude;
      clip_hi_ = magnitude;
      break;
    case ClipMode::kUpper:
      clip_lo_ = 0;
      clip_hi_ = magnitude;
      break;
    case ClipMode::kBoth:
      if (which > 0) clip_hi_ = std::max(0.0, value);
      else clip_lo_ = std::min(0.0, value);
      if (clip_hi_ - clip_lo_ < smallest) (which > 0 ? clip_hi_ : clip_lo_) = which * smallest;
      break;
  }
  update();
  Q_EMIT clip_changed(clip_lo_, clip_hi_, finished);
}

void HistogramChart::mousePressEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton) return QWidget::mousePressEvent(event);
  drag_ = handle_at(event->position());
  if (drag_) current_ = drag_;
  update();
}

void HistogramChart::mouseMoveEvent(QMouseEvent* event) {
  if (drag_) return move_handle(drag_, value_at(event->position().x()), false);
  setCursor(handle_at(event->position()) ? Qt::SizeHorCursor : Qt::ArrowCursor);
}

void HistogramChart::mouseReleaseEvent(QMouseEvent* event) {
  if (!drag_) return QWidget::mouseReleaseEvent(event);
  const int which = drag_;
  drag_ = 0;
  move_handle(which, value_at(event->position().x()), true);
}

void HistogramChart::keyPressEvent(QKeyEvent* event) {
  const bool movable = has_clip_ && histogram_ && mode_ != ClipMode::kFixed;
  const double step = (event->modifiers() & Qt::ShiftModifier ? 0.001 : 0.01) * (hi_ - lo_);
  if (movable && (event->key() == Qt::Key_Left || event->key() == Qt::Key_Right)) {
    const double at = current_ > 0 ? clip_hi_ : clip_lo_;
    return move_handle(current_, at + (event->key() == Qt::Key_Left ? -step : step), true);
  }
  if (movable && (event->key() == Qt::Key_PageUp || event->key() == Qt::Key_PageDown)) {
    current_ = event->key() == Qt::Key_PageUp && mode_ != ClipMode::kUpper ? -1 : 1;
    return update();
  }
  QWidget::keyPressEvent(event);
}

bool HistogramChart::event(QEvent* event) {
  if (event->type() != QEvent::ToolTip || !histogram_ || histogram_->counts.empty()) return QWidget::event(event);
  auto* help = static_cast<QHelpEvent*>(event);
  const auto& h = *histogram_;
  const double v = value_at(help->pos().x());
  const double step = (h.hi - h.lo) / static_cast<double>(h.counts.size());
  const double bin = std::floor((v - h.lo) / step);
  if (!(bin >= 0) || bin >= static_cast<double>(h.counts.size())) {
    QToolTip::hideText();
    return true;
  }
  const double from = h.lo + bin * step;
  QToolTip::showText(help->globalPos(),
                     tr("%1 … %2: %3 values").arg(significant_text(from), significant_text(from + step),
                                                  count_text(h.counts[static_cast<std::size_t>(bin)])), this);
  return true;
}

}  // namespace quanvas
