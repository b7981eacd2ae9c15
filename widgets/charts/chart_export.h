// Quanvas - "Save picture..." and "Copy" for charts: SVG, PDF and PNG drawn anew at their own size, data as CSV.
#pragma once

#include <functional>

#include <QSize>
#include <QString>

class QPainter;
class QRect;
class QWidget;

namespace quanvas {

struct ChartExport {
  QString name;                                        // suggested file name, without suffix
  std::function<QSize()> size;                         // in device-independent pixels
  std::function<void(QPainter*, const QRect&)> paint;
  std::function<QString()> csv;
};

// By the suffix of `path`: .svg, .pdf, .png (at 2x). Empty: written; else the sentence that says why not.
QString save_chart(const ChartExport& chart, const QString& path);
// Context menu of `widget`: save picture, copy picture, copy data.
void add_chart_menu(QWidget* widget, ChartExport chart);

}  // namespace quanvas
