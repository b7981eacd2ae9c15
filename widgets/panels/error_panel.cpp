#include "widgets/panels/error_panel.h"

#include <algorithm>
#include <cmath>

#include <QComboBox>
#include <QPainter>
#include <QStackedLayout>
#include <QToolButton>

#include "widgets/charts/chart_export.h"
#include "widgets/charts/heat_map.h"
#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"

namespace quanvas {
namespace {

double sqnr_of(const std::optional<TensorError>& e) { return e ? e->sqnr_db : std::nan(""); }

// One column of the matrix. position: 0..1, 1 is bad; `largest` is the column's largest finite value.
struct Metric {
  const char* title;
  const char* tooltip;
  double (*value)(const LayerResult&);
  QString (*text)(double);
  double (*position)(double value, double largest);
};
QString db(double v) { return number_text(v, 1); }
QString small(double v) { return significant_text(v, 2); }
double by_sqnr(double v, double) { return error_position(v); }
// 10^-6 and less 0, 10^-1 and more 1.
double by_decades(double v, double) { return v <= 0 ? 0 : std::clamp((std::log10(v) + 6) / 5, 0.0, 1.0); }
double by_share(double v, double largest) { return largest > 0 ? std::clamp(v / largest, 0.0, 1.0) : 0; }
const Metric kMetrics[] = {
    {QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "Weight, dB"), QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "SQNR of the weight: 10·log10( Σw² / Σ(w−w~)² )"),
     [](const LayerResult& l) { return sqnr_of(l.weight); }, db, by_sqnr},
    {QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "Isolated, dB"), QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "SQNR at the output, only this layer quantized"),
     [](const LayerResult& l) { return sqnr_of(l.isolated); }, db, by_sqnr},
    {QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "Cumulative, dB"), QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "SQNR at the output, the whole network quantized"),
     [](const LayerResult& l) { return sqnr_of(l.cumulative); }, db, by_sqnr},
    {QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "1 − cosine"), QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "1 − y·y~ / (|y||y~|) at the output, the whole network quantized; blind to gain"),
     [](const LayerResult& l) { return l.cumulative ? std::max(0.0, 1 - l.cumulative->cosine) : std::nan(""); }, small, by_decades},
    {QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "Max |error|"), QT_TRANSLATE_NOOP("quanvas::ErrorPanel", "Largest |y−y~| at the output, the whole network quantized; not scale-free"),
     [](const LayerResult& l) { return l.cumulative ? l.cumulative->max_abs : std::nan(""); }, small, by_share},
};

HeatMapData run_matrix(const Run& run) {
  HeatMapData data;
  std::vector<double> largest(std::size(kMetrics), 0);
  for (const auto& m : kMetrics) data.columns << ErrorPanel::tr(m.title);
  for (const auto& l : run.layers) {
    data.rows << QString::fromStdString(l.name);
    auto& row = data.values.emplace_back();
    for (std::size_t c = 0; c < std::size(kMetrics); ++c) {
      row.push_back(kMetrics[c].value(l));
      if (std::isfinite(row.back())) largest[c] = std::max(largest[c], row.back());
    }
  }
  data.text = [](double v, int c) { return kMetrics[c].text(v); };
  data.position = [largest](double v, int c) { return kMetrics[c].position(v, largest[static_cast<std::size_t>(c)]); };
  data.tooltip = [rows = data.rows](int r, int c) { return rows[r] + QStringLiteral("\n") + ErrorPanel::tr(kMetrics[c].tooltip); };
  data.clickable = true;
  return data;
}

}  // namespace

ErrorPanel::ErrorPanel(QWidget* parent)
    : Panel(QStringLiteral("error"), tr("Error"), parent), source_(new QComboBox(this)), matrix_button_(new QToolButton(this)),
      bars_(new ErrorBars(this)), matrix_(new HeatMap(this)),
      empty_(new EmptyState(QStringLiteral("layers"), tr("No errors yet"), tr("Calibrate to see the error of each layer, or run the recipe to see how errors add up."), this)),
      stack_(new QStackedLayout(this)) {
  source_->setAccessibleName(tr("Of"));
  source_->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  matrix_button_->setText(tr("Matrix"));
  matrix_button_->setCheckable(true);
  matrix_button_->setProperty("flat", true);
  matrix_button_->setToolTip(tr("Layers and metrics of a run as a heat map"));
  add_header_widget(source_);
  add_header_widget(matrix_button_);
  for (QWidget* w : {static_cast<QWidget*>(empty_), static_cast<QWidget*>(bars_), static_cast<QWidget*>(matrix_)}) stack_->addWidget(w);
  add_chart_menu(bars_, {QStringLiteral("error"), [this] { return bars_->full_size(); },
                         [this](QPainter* p, const QRect& r) { bars_->render_all(p, r); }, [this] { return bars_->csv(); }});
  add_chart_menu(matrix_, {QStringLiteral("error-matrix"), [this] { return matrix_->full_size(); },
                           [this](QPainter* p, const QRect& r) { matrix_->render_all(p, r); }, {}});
  connect(source_, &QComboBox::currentIndexChanged, this, &ErrorPanel::show_source);
  connect(matrix_button_, &QToolButton::toggled, this, &ErrorPanel::show_source);
  connect(bars_, &ErrorBars::layer_clicked, this, &ErrorPanel::layer_clicked);
  connect(matrix_, &HeatMap::cell_clicked, this, [this](int row, int) {
    if (row >= 0 && row < static_cast<int>(shown_nodes_.size())) Q_EMIT layer_clicked(shown_nodes_[static_cast<std::size_t>(row)]);
  });
  set_runs({});
}

void ErrorPanel::set_live(const std::vector<ErrorBar>& bars) {
  live_ = bars;
  if (source_->currentIndex() <= 0) show_source();
}

void ErrorPanel::set_runs(const std::vector<Run>& runs) {
  const auto chosen = source_->currentData();
  runs_.clear();
  std::copy_if(runs.begin(), runs.end(), std::back_inserter(runs_), [](const Run& r) { return !r.layers.empty(); });
  {
    const QSignalBlocker block(source_);
    source_->clear();
    source_->addItem(tr("Current recipe"), 0);
    for (auto it = runs_.rbegin(); it != runs_.rend(); ++it)
      source_->addItem(tr("Run %1: %2").arg(it->id).arg(QString::fromStdString(it->name)), static_cast<qlonglong>(it->id));
    const int index = source_->findData(chosen);
    source_->setCurrentIndex(index < 0 ? 0 : index);
  }
  show_source();
}

void ErrorPanel::set_selection(const std::vector<NodeId>& nodes) { bars_->set_selected(nodes); }

void ErrorPanel::show_source() {
  const qlonglong id = source_->currentData().toLongLong();
  const auto it = std::find_if(runs_.begin(), runs_.end(), [&](const Run& r) { return r.id == id; });
  matrix_button_->setEnabled(it != runs_.end());
  if (it == runs_.end()) show_live();
  else show_run(*it);
}

void ErrorPanel::show_live() {
  const bool any = std::any_of(live_.begin(), live_.end(), [](const ErrorBar& b) { return !std::isnan(b.isolated); });
  bars_->set_bars(live_);
  set_subtitle(tr("each layer alone, on the calibration sample"));
  stack_->setCurrentWidget(any ? static_cast<QWidget*>(bars_) : empty_);
}

void ErrorPanel::show_run(const Run& run) {
  std::vector<ErrorBar> bars;
  shown_nodes_.clear();
  for (const auto& l : run.layers) {
    bars.push_back({l.node, QString::fromStdString(l.name), sqnr_of(l.isolated), sqnr_of(l.cumulative), false});
    shown_nodes_.push_back(l.node);
  }
  bars_->set_bars(bars);
  matrix_->set_data(run_matrix(run));
  set_subtitle(tr("isolated and cumulative, dB"));
  stack_->setCurrentWidget(matrix_button_->isChecked() ? static_cast<QWidget*>(matrix_) : bars_);
}

}  // namespace quanvas
