#include "widgets/common/icons.h"

#include <algorithm>
#include <cmath>

#include <QDir>
#include <QFile>
#include <QIconEngine>
#include <QPainter>
#include <QPixmapCache>
#include <QSvgRenderer>

#include "widgets/common/theme.h"

// Q_INIT_RESOURCE must not stand in a namespace; a static library's resources are not registered otherwise.
static void register_icons() { Q_INIT_RESOURCE(icons); }

namespace quanvas {

namespace {

QByteArray svg_of(const QString& name) {
  static const bool registered = (register_icons(), true);
  Q_UNUSED(registered);
  QFile file(QStringLiteral(":/icons/%1.svg").arg(name));
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

QColor role_color(IconRole role, QIcon::Mode mode) {
  const Colors& c = colors();
  const std::pair<IconRole, const QColor*> table[] = {
      {IconRole::kText, &c.text},       {IconRole::kMuted, &c.muted}, {IconRole::kAccent, &c.accent},
      {IconRole::kOnAccent, &c.on_accent}, {IconRole::kWarning, &c.warning}, {IconRole::kGood, &c.good},
      {IconRole::kError, &c.error}};
  const auto it = std::find_if(std::begin(table), std::end(table), [role](const auto& e) { return e.first == role; });
  const QColor color = it == std::end(table) ? c.text : *it->second;
  return mode == QIcon::Disabled ? mix(c.muted, c.panel, 0.45) : color;
}

// Paints in the colour that the theme has at that moment.
class ThemedIconEngine : public QIconEngine {
 public:
  ThemedIconEngine(QString name, IconRole role) : name_(std::move(name)), role_(role) {}
  void paint(QPainter* painter, const QRect& rect, QIcon::Mode mode, QIcon::State) override {
    const double ratio = painter->device() != nullptr ? painter->device()->devicePixelRatioF() : 1.0;
    const int side = std::min(rect.width(), rect.height());
    const QPoint corner(rect.x() + (rect.width() - side) / 2, rect.y() + (rect.height() - side) / 2);
    painter->drawPixmap(corner, icon_pixmap(name_, side, role_color(role_, mode), ratio));
  }
  QPixmap pixmap(const QSize& size, QIcon::Mode mode, QIcon::State) override {
    return icon_pixmap(name_, std::min(size.width(), size.height()), role_color(role_, mode), 1.0);
  }
  QPixmap scaledPixmap(const QSize& size, QIcon::Mode mode, QIcon::State, qreal scale) override {
    const int side = std::min(size.width(), size.height());
    return icon_pixmap(name_, static_cast<int>(std::lround(side / scale)), role_color(role_, mode), scale);
  }
  QIconEngine* clone() const override { return new ThemedIconEngine(*this); }
  QString key() const override { return QStringLiteral("quanvas"); }
  bool isNull() override { return false; }

 private:
  QString name_;
  IconRole role_;
};

}  // namespace

QPixmap icon_pixmap(const QString& name, int size, const QColor& color, double ratio) {
  if (size <= 0 || !(ratio > 0)) return {};
  const QString key = QStringLiteral("quanvas/%1/%2/%3/%4").arg(name).arg(size).arg(color.name()).arg(ratio);
  QPixmap pixmap;
  if (QPixmapCache::find(key, &pixmap)) return pixmap;
  QByteArray svg = svg_of(name);
  if (svg.isEmpty()) return {};
  svg.replace("currentColor", color.name().toLatin1());
  QSvgRenderer renderer(svg);
  const int side = static_cast<int>(std::ceil(size * ratio));
  pixmap = QPixmap(side, side);
  pixmap.fill(Qt::transparent);
  QPainter painter(&pixmap);
  renderer.render(&painter, QRectF(0, 0, side, side));
  painter.end();
  pixmap.setDevicePixelRatio(ratio);
  QPixmapCache::insert(key, pixmap);
  return pixmap;
}

QIcon icon(const QString& name, IconRole role) {
  if (svg_of(name).isEmpty()) return {};
  return QIcon(new ThemedIconEngine(name, role));
}

QStringList icon_names() {
  svg_of({});
  QStringList names;
  for (const QString& file : QDir(QStringLiteral(":/icons")).entryList({QStringLiteral("*.svg")}, QDir::Files))
    if (!file.startsWith(QLatin1String("control-"))) names << file.chopped(4);
  return names;
}

}  // namespace quanvas
