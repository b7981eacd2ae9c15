// GraphView: the whole graph as a picture.
#include <algorithm>
#include <cmath>

#include <QBuffer>
#include <QFileInfo>
#include <QGraphicsScene>
#include <QImage>
#include <QPageSize>
#include <QPainter>
#include <QPdfWriter>
#include <QSvgGenerator>

#include "core/base/files.h"
#include "widgets/common/theme.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {

namespace {

constexpr double kMostPixels = 2e8, kMostSide = 32000;

double allowed_scale(const QSizeF& size, double scale) {
  scale = std::isfinite(scale) && scale > 0 ? scale : 1;
  scale = std::min({scale, kMostSide / size.width(), kMostSide / size.height()});
  return std::min(scale, std::sqrt(kMostPixels / (size.width() * size.height())));
}

void draw(QGraphicsScene& scene, QPaintDevice& device, const QRectF& area, const QRectF& target) {
  QPainter painter(&device);
  painter.setRenderHints(QPainter::Antialiasing | QPainter::SmoothPixmapTransform);
  painter.fillRect(target, colors().background);
  scene.render(&painter, target, area);
}

bool write_png(QGraphicsScene& scene, QBuffer& out, const QRectF& area, double scale) {
  scale = allowed_scale(area.size(), scale);
  QImage image(static_cast<int>(std::ceil(area.width() * scale)), static_cast<int>(std::ceil(area.height() * scale)),
               QImage::Format_RGB32);
  if (image.isNull()) return false;
  draw(scene, image, area, QRectF(image.rect()));
  return image.save(&out, "PNG");
}

bool write_svg(QGraphicsScene& scene, QBuffer& out, const QRectF& area) {
  QSvgGenerator svg;
  svg.setOutputDevice(&out);
  svg.setSize(area.size().toSize());
  svg.setViewBox(QRectF(QPointF(0, 0), area.size()));
  draw(scene, svg, area, QRectF(QPointF(0, 0), area.size()));
  return true;
}

bool write_pdf(QGraphicsScene& scene, QBuffer& out, const QRectF& area) {
  QPdfWriter pdf(&out);
  // One unit of the scene is 1/96 inch; a page may be at most 200 inches long.
  const double inches = std::min(1.0 / 96, 200 / std::max(area.width(), area.height()));
  pdf.setResolution(96);
  pdf.setPageSize(QPageSize(area.size() * inches, QPageSize::Inch, {}, QPageSize::ExactMatch));
  pdf.setPageMargins(QMarginsF());
  draw(scene, pdf, area, QRectF(QPointF(0, 0), area.size() * inches * 96));
  return true;
}

}  // namespace

Status GraphView::export_image(const QString& path, double scale) {
  const std::string shown = path.toStdString();
  if (layout_.nodes.empty() && layout_.groups.empty())
    return fail(ErrorCode::kNotFound, "There is no graph to write to '" + shown + "'.", "Open a model first.");
  const QString suffix = QFileInfo(path).suffix().toLower();
  const LayoutRect& b = layout_.bounds;
  const QRectF area = QRectF(b.x, b.y, b.width, b.height).adjusted(-20, -20, 20, 20);
  QBuffer out;
  out.open(QIODevice::WriteOnly);
  bool ok = false;
  if (suffix == QLatin1String("png")) {
    ok = write_png(*scene(), out, area, scale);
  } else if (suffix == QLatin1String("svg")) {
    ok = write_svg(*scene(), out, area);
  } else if (suffix == QLatin1String("pdf")) {
    ok = write_pdf(*scene(), out, area);
  } else {
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' does not say which kind of picture it is to be.",
                "End the file's name in .png, .svg or .pdf.");
  }
  if (!ok) return fail(ErrorCode::kOutOfMemory, "The picture of the graph is too large for '" + shown + "'.",
                       "Write .svg, or close groups first.");
  return write_file_atomically(shown, std::string_view(out.data().constData(), static_cast<std::size_t>(out.data().size())));
}

}  // namespace quanvas
