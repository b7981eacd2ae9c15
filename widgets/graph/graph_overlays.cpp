#include "widgets/graph/graph_overlays.h"

#include <algorithm>

#include <QCoreApplication>
#include <QEvent>
#include <QFontMetrics>
#include <QMouseEvent>
#include <QPainter>

#include "widgets/common/theme.h"

namespace quanvas {

namespace {

constexpr int kRow = 20, kSwatch = 14, kTop = 22;
constexpr int kMapMargin = 6, kMapHeight = 132, kMapMostWidth = 160, kMapLeastWidth = 72;
constexpr int kLongMapHeight = 300;
constexpr int kNoteHeight = 24, kNotePadding = 10;
constexpr double kFadedBar = 0.25;
constexpr double kLongAspect = 0.1;      // narrower networks get a taller map
constexpr double kLeastCardScale = 0.16;  // in a map: a card of 200 is 32 px wide

}  // namespace

Legend::Legend(QWidget* parent) : QWidget(parent) {
  setAttribute(Qt::WA_TransparentForMouseEvents);
  setAccessibleName(QCoreApplication::translate("GraphView", "Legend"));
  connect(&Theme::instance(), &Theme::changed, this, qOverload<>(&QWidget::update));
}

void Legend::set_entries(const QString& title, std::vector<LegendEntry> entries) {
  title_ = title;
  entries_ = std::move(entries);
  QStringList texts;
  for (const LegendEntry& e : entries_) texts << e.text;
  setAccessibleDescription(title_ + QStringLiteral(": ") + texts.join(QStringLiteral(", ")));
  resize(sizeHint());
  update();
}

QSize Legend::sizeHint() const {
  const QFontMetrics metrics(text_font(12));
  int width = metrics.horizontalAdvance(title_);
  for (const LegendEntry& e : entries_) width = std::max(width, kSwatch + 7 + metrics.horizontalAdvance(e.text));
  return {width + 16, kTop + kRow * static_cast<int>(entries_.size()) + 6};
}

void Legend::paintEvent(QPaintEvent*) {
  const Colors& c = colors();
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  QColor veil = c.background;
  veil.setAlpha(220);
  painter.setPen(Qt::NoPen);
  painter.setBrush(veil);
  painter.drawRoundedRect(rect(), 6, 6);
  painter.setFont(text_font(11));
  painter.setPen(c.muted);
  painter.drawText(QPointF(6, 15), title_);
  painter.setFont(text_font(12));
  double y = kTop;
  for (const LegendEntry& e : entries_) {
    const QRectF swatch(6.5, y + 0.5, kSwatch - 1, kSwatch - 1);
    painter.setPen(QPen(outline_of(e.color, c), 1));
    painter.setBrush(e.color);
    painter.drawRoundedRect(swatch, 3, 3);
    if (e.hatched) {
      painter.setBrush(QBrush(ink_on(e.color), Qt::BDiagPattern));
      painter.drawRoundedRect(swatch, 3, 3);
    }
    painter.setPen(c.text);
    painter.drawText(QPointF(6 + kSwatch + 7, y + 11.5), e.text);
    y += kRow;
  }
}

PathNote::PathNote(QWidget* parent) : QWidget(parent) {
  setAttribute(Qt::WA_TransparentForMouseEvents);
  setAccessibleName(QCoreApplication::translate("GraphView", "Path of the selection"));
  connect(&Theme::instance(), &Theme::changed, this, qOverload<>(&QWidget::update));
}

void PathNote::set_text(const QString& text) {
  text_ = text;
  setAccessibleDescription(text);
  setVisible(!text.isEmpty());
  update();
}

void PathNote::place(const QRect& strip) {
  // The painter's metrics may be a little wider than those of the font alone.
  const int wanted = QFontMetrics(text_font(12)).horizontalAdvance(text_) + 2 * kNotePadding + 6;
  const int width = std::clamp(wanted, 0, std::max(0, strip.width()));
  setGeometry(strip.right() + 1 - width, strip.top(), width, kNoteHeight);
}

void PathNote::paintEvent(QPaintEvent*) {
  const Colors& c = colors();
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setPen(QPen(c.accent, 1));
  painter.setBrush(c.panel);
  painter.drawRoundedRect(QRectF(rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6);
  painter.setFont(text_font(12));
  painter.setPen(c.text);
  const QRect inside = rect().adjusted(kNotePadding, 0, -kNotePadding, 0);
  painter.drawText(inside, Qt::AlignVCenter | Qt::AlignLeft, painter.fontMetrics().elidedText(text_, Qt::ElideMiddle, inside.width()));
}

Minimap::Minimap(QWidget* parent) : QWidget(parent) {
  setAccessibleName(QCoreApplication::translate("GraphView", "Map of the graph"));
  setToolTip(QCoreApplication::translate("GraphView", "Click or drag to move the view"));
  setCursor(Qt::PointingHandCursor);
  connect(&Theme::instance(), &Theme::changed, this, [this] {
    drawn_ = {};
    update();
  });
}

void Minimap::set_scene(const QRectF& bounds, std::vector<Bar> bars) {
  bounds_ = bounds;
  bars_ = std::move(bars);
  drawn_ = {};
  resize(sizeHint());
  update();
}

void Minimap::set_view(const QRectF& visible) {
  if (visible == visible_) return;
  visible_ = visible;
  update();
}

QSize Minimap::sizeHint() const {
  if (bounds_.isEmpty()) return {kMapLeastWidth, kMapLeastWidth};
  const double aspect = bounds_.width() / bounds_.height();
  if (aspect < kLongAspect) {
    const int room = parentWidget() ? parentWidget()->height() / 2 : kMapHeight;
    return {kMapLeastWidth, std::clamp(room, kMapHeight, kLongMapHeight)};
  }
  if (aspect * kMapHeight <= kMapMostWidth)
    return {std::max(kMapLeastWidth, static_cast<int>(aspect * kMapHeight)), kMapHeight};
  return {kMapMostWidth, std::max(36, static_cast<int>(kMapMostWidth / aspect))};
}

// Narrow networks are drawn wider than they are, or nothing would be seen of them.
QRectF Minimap::to_map(const QRectF& scene) const {
  const double inner_width = width() - 2.0 * kMapMargin, inner_height = height() - 2.0 * kMapMargin;
  const double sy = inner_height / std::max(1.0, bounds_.height());
  const double sx = std::min(inner_width / std::max(1.0, bounds_.width()), std::max(6 * sy, kLeastCardScale));
  return {width() / 2.0 + (scene.x() - bounds_.center().x()) * sx, kMapMargin + (scene.y() - bounds_.top()) * sy,
          scene.width() * sx, scene.height() * sy};
}

QPointF Minimap::to_scene(const QPointF& map) const {
  const QRectF whole = to_map(bounds_);
  if (whole.isEmpty()) return bounds_.center();
  return {bounds_.left() + (map.x() - whole.left()) / whole.width() * bounds_.width(),
          bounds_.top() + (map.y() - whole.top()) / whole.height() * bounds_.height()};
}

void Minimap::draw_bars() {
  drawn_ = QPixmap(size() * devicePixelRatioF());
  drawn_.setDevicePixelRatio(devicePixelRatioF());
  drawn_.fill(Qt::transparent);
  QPainter painter(&drawn_);
  for (const Bar& bar : bars_) {
    QRectF r = to_map(bar.rect);
    r.setWidth(std::max(2.0, r.width()));
    r.setHeight(std::max(1.0, r.height()));
    painter.setOpacity(bar.faded ? kFadedBar : 1);
    painter.fillRect(r, mark_color(bar.mark));
  }
}

void Minimap::paintEvent(QPaintEvent*) {
  if (drawn_.isNull() || drawn_.deviceIndependentSize().toSize() != size()) draw_bars();
  const Colors& c = colors();
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setPen(QPen(c.line, 1));
  painter.setBrush(c.panel);
  painter.drawRoundedRect(QRectF(rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6);
  painter.drawPixmap(QPointF(0, 0), drawn_);
  const QRectF inside = QRectF(rect()).adjusted(3, 3, -3, -3);
  QRectF view = to_map(visible_).intersected(inside);
  if (view.height() < 6) view = QRectF(view.left(), view.center().y() - 3, view.width(), 6);
  QColor fill = c.accent;
  fill.setAlpha(28);
  painter.setPen(QPen(c.accent, 1.2));
  painter.setBrush(fill);
  painter.drawRoundedRect(view, 3, 3);
}

void Minimap::mousePressEvent(QMouseEvent* event) {
  if (event->button() == Qt::LeftButton) Q_EMIT move_requested(to_scene(event->position()));
}

void Minimap::mouseMoveEvent(QMouseEvent* event) {
  if (event->buttons() & Qt::LeftButton) Q_EMIT move_requested(to_scene(event->position()));
}

void Minimap::changeEvent(QEvent* event) {
  if (event->type() == QEvent::PaletteChange) drawn_ = {};
  QWidget::changeEvent(event);
}

}  // namespace quanvas
