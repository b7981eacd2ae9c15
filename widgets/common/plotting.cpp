#include "widgets/common/plotting.h"

#include "widgets/common/theme.h"

namespace quanvas {

void style_plot(QCustomPlot& plot) {
  const Colors& c = colors();
  plot.setBackground(QBrush(c.panel));
  for (QCPAxisRect* rect : plot.axisRects()) {
    rect->setBackground(QBrush(c.panel));
    for (QCPAxis* axis : rect->axes()) {
      axis->setBasePen(QPen(c.line, 1));
      axis->setTickPen(QPen(c.line, 1));
      axis->setSubTickPen(QPen(Qt::NoPen));
      axis->setTickLabelColor(c.muted);
      axis->setLabelColor(c.muted);
      axis->setTickLabelFont(text_font(11));
      axis->setLabelFont(text_font(11));
      axis->setTickLengthIn(0);
      axis->setTickLengthOut(3);
      axis->grid()->setPen(QPen(c.grid, 1));
      axis->grid()->setSubGridVisible(false);
      axis->grid()->setZeroLinePen(QPen(c.line, 1));
    }
  }
  if (plot.legend != nullptr) {
    plot.legend->setBrush(QBrush(c.panel));
    plot.legend->setBorderPen(QPen(c.line));
    plot.legend->setTextColor(c.text);
    plot.legend->setFont(text_font(11));
  }
}

}  // namespace quanvas
