#include "widgets/charts/chart_export.h"

#include <QApplication>
#include <QClipboard>
#include <QCoreApplication>
#include <QFileDialog>
#include <QFileInfo>
#include <QImage>
#include <QMenu>
#include <QMessageBox>
#include <QPainter>
#include <QPdfWriter>
#include <QSaveFile>
#include <QSvgGenerator>
#include <QBuffer>

#include "widgets/common/theme.h"

namespace quanvas {
namespace {

constexpr double kPictureScale = 2;

QString tr(const char* text) { return QCoreApplication::translate("ChartExport", text); }

QImage picture(const ChartExport& chart) {
  const QSize size = chart.size();
  QImage image(size * kPictureScale, QImage::Format_ARGB32_Premultiplied);
  image.setDevicePixelRatio(kPictureScale);
  image.fill(colors().panel);
  QPainter painter(&image);
  chart.paint(&painter, QRect(QPoint(), size));
  return image;
}

QByteArray svg(const ChartExport& chart) {
  QByteArray bytes;
  QBuffer buffer(&bytes);
  QSvgGenerator generator;
  generator.setOutputDevice(&buffer);
  generator.setSize(chart.size());
  generator.setViewBox(QRect(QPoint(), chart.size()));
  generator.setTitle(chart.name);
  QPainter painter(&generator);
  chart.paint(&painter, QRect(QPoint(), chart.size()));
  painter.end();
  return bytes;
}

QByteArray pdf(const ChartExport& chart) {
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  QPdfWriter writer(&buffer);
  writer.setResolution(96);
  writer.setPageSize(QPageSize(QSizeF(chart.size()) * 72 / 96, QPageSize::Point));
  writer.setPageMargins({});
  QPainter painter(&writer);
  chart.paint(&painter, QRect(QPoint(), chart.size()));
  painter.end();
  return bytes;
}

QByteArray png(const ChartExport& chart) {
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  picture(chart).save(&buffer, "PNG");
  return bytes;
}

}  // namespace

QString save_chart(const ChartExport& chart, const QString& path) {
  static const std::pair<const char*, QByteArray (*)(const ChartExport&)> kWriters[] = {
      {"svg", svg}, {"pdf", pdf}, {"png", png}};
  const QString suffix = QFileInfo(path).suffix().toLower();
  for (const auto& [name, write] : kWriters) {
    if (suffix != QLatin1String(name)) continue;
    QSaveFile file(path);
    const QByteArray bytes = write(chart);
    if (!file.open(QIODevice::WriteOnly) || file.write(bytes) != bytes.size() || !file.commit())
      return tr("%1 could not be written: %2.").arg(path, file.errorString());
    return {};
  }
  return tr("%1: give the file one of the suffixes .svg, .pdf, .png.").arg(path);
}

void add_chart_menu(QWidget* widget, ChartExport chart) {
  widget->setContextMenuPolicy(Qt::CustomContextMenu);
  QObject::connect(widget, &QWidget::customContextMenuRequested, widget, [widget, chart](const QPoint& at) {
    QMenu menu(widget);
    menu.addAction(tr("Save picture…"), widget, [&] {
      const QString path = QFileDialog::getSaveFileName(widget, tr("Save picture"), chart.name + QStringLiteral(".svg"),
                                                        tr("Pictures (*.svg *.pdf *.png)"));
      if (path.isEmpty()) return;
      if (const QString problem = save_chart(chart, path); !problem.isEmpty())
        QMessageBox::warning(widget, tr("Save picture"), problem);
    });
    menu.addAction(tr("Copy picture"), widget, [&] { QApplication::clipboard()->setImage(picture(chart)); });
    if (chart.csv) menu.addAction(tr("Copy data as CSV"), widget, [&] { QApplication::clipboard()->setText(chart.csv()); });
    menu.exec(widget->mapToGlobal(at));
  });
}

}  // namespace quanvas
