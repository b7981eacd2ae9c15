#include "widgets/charts/curve_chart.h"

#include <algorithm>
#include <cmath>

#include <QVBoxLayout>

#include "widgets/charts/chart_export.h"
#include "widgets/common/plotting.h"
#include "widgets/common/theme.h"

namespace quanvas {

CurveChart::CurveChart(QWidget* parent) : QWidget(parent), plot_(new QCustomPlot(this)) {
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(plot_);
  plot_->setMinimumHeight(140);
  plot_->setAccessibleName(tr("Training curve"));
  plot_->addGraph();
  plot_->addGraph(plot_->xAxis, plot_->yAxis2);
  plot_->yAxis2->setVisible(true);
  plot_->xAxis->setLabel(tr("step"));
  plot_->yAxis->setLabel(tr("loss, nats"));
  plot_->yAxis2->setLabel(tr("top-1, %"));
  plot_->setInteractions(QCP::iRangeDrag | QCP::iRangeZoom);
  plot_->axisRect()->setRangeDrag(Qt::Horizontal);
  plot_->axisRect()->setRangeZoom(Qt::Horizontal);
  connect(plot_, &QCustomPlot::mouseDoubleClick, this, &CurveChart::show_all);
  connect(&Theme::instance(), &Theme::changed, this, &CurveChart::restyle);
  plot_->xAxis->setNumberFormat(QStringLiteral("f"));
  plot_->xAxis->setNumberPrecision(0);
  plot_->xAxis->ticker()->setTickStepStrategy(QCPAxisTicker::tssReadability);
  add_chart_menu(plot_, {QStringLiteral("training"), [this] { return plot_->size(); },
                         [this](QPainter* painter, const QRect& rect) {
                           painter->drawPixmap(rect, plot_->toPixmap(rect.width(), rect.height(), 2));
                         },
                         [this] { return csv(); }});
  restyle();
}

void CurveChart::restyle() {
  style_plot(*plot_);
  plot_->graph(0)->setPen(QPen(colors().accent, 1.5));
  plot_->graph(1)->setPen(QPen(colors().good, 1.5));
  plot_->graph(1)->setScatterStyle(QCPScatterStyle(QCPScatterStyle::ssCircle, colors().good, colors().panel, 6));
  plot_->replot(QCustomPlot::rpQueuedReplot);
}

// As many labels as there is room for.
void CurveChart::space_ticks() {
  const double last = points_.empty() ? 0 : static_cast<double>(points_.back().step);
  const int label = QFontMetrics(plot_->xAxis->tickLabelFont()).horizontalAdvance(QString::number(last, 'f', 0)) + 24;
  const int room = plot_->axisRect()->width() > 1 ? plot_->axisRect()->width() : width();
  plot_->xAxis->ticker()->setTickCount(std::clamp(room / label, 1, 8));
}

void CurveChart::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  space_ticks();
}

void CurveChart::set_points(const std::vector<TrainPoint>& points) {
  points_ = points;
  plot_->graph(0)->data()->clear();
  plot_->graph(1)->data()->clear();
  for (const auto& p : points_) {
    if (std::isfinite(p.loss)) plot_->graph(0)->addData(p.step, p.loss);
    if (p.top1 && std::isfinite(*p.top1)) plot_->graph(1)->addData(p.step, *p.top1 * 100);
  }
  show_all();
}

void CurveChart::add_point(const TrainPoint& point) {
  points_.push_back(point);
  if (std::isfinite(point.loss)) plot_->graph(0)->addData(point.step, point.loss);
  if (point.top1 && std::isfinite(*point.top1)) plot_->graph(1)->addData(point.step, *point.top1 * 100);
  show_all();
}

void CurveChart::show_all() {
  space_ticks();
  plot_->rescaleAxes();
  plot_->yAxis->scaleRange(1.05);
  plot_->yAxis2->scaleRange(1.1);
  plot_->replot(QCustomPlot::rpQueuedReplot);
}

QString CurveChart::csv() const {
  QString out = QStringLiteral("step,epoch,loss,learning_rate,top1\n");
  for (const auto& p : points_)
    out += QStringLiteral("%1,%2,%3,%4,%5\n").arg(p.step).arg(p.epoch).arg(p.loss).arg(p.learning_rate)
               .arg(p.top1 ? QString::number(*p.top1, 'g', 9) : QString());
  return out;
}

}  // namespace quanvas
