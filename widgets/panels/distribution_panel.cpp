#include "widgets/panels/distribution_panel.h"

#include <algorithm>

#include <QComboBox>
#include <QPainter>
#include <QStackedLayout>
#include <QToolButton>

#include "widgets/charts/chart_export.h"
#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"

namespace quanvas {

namespace {

constexpr int kWaitMs = 150;

}  // namespace

DistributionPanel::DistributionPanel(QWidget* parent)
    : Panel(QStringLiteral("distribution"), tr("Distribution"), parent), chart_(new HistogramChart(this)),
      selector_(new QComboBox(this)), log_(new QToolButton(this)), stack_(new QStackedLayout(this)),
      empty_(new EmptyState(QStringLiteral("histogram"), {}, {}, this)) {
  selector_->setAccessibleName(tr("Tensor"));
  selector_->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  log_->setText(tr("log"));
  log_->setCheckable(true);
  log_->setChecked(true);
  log_->setProperty("flat", true);
  log_->setToolTip(tr("Logarithmic counts"));
  log_->setAccessibleName(tr("Logarithmic counts"));
  add_header_widget(selector_);
  add_header_widget(log_);
  stack_->addWidget(empty_);
  stack_->addWidget(chart_);
  add_chart_menu(chart_, {QStringLiteral("distribution"), [this] { return chart_->size(); },
                          [this](QPainter* p, const QRect& r) { chart_->paint_chart(*p, r); }, [this] { return chart_->csv(); }});
  connect(log_, &QToolButton::toggled, this, [this](bool on) {
    chart_->set_log(on);
    update_subtitle();
  });
  connect(selector_, &QComboBox::activated, this, [this] {
    show_source();
    if (const auto site = current_site()) Q_EMIT site_changed(*site);
  });
  connect(chart_, &HistogramChart::clip_changed, this, [this](double lo, double hi, bool finished) {
    if (const auto site = current_site()) Q_EMIT clip_changed(*site, lo, hi, finished);
  });
  connect(empty_, &EmptyState::action_triggered, this, &DistributionPanel::calibrate_wanted);
  waiting_.setSingleShot(true);
  waiting_.setInterval(kWaitMs);
  connect(&waiting_, &QTimer::timeout, this, &DistributionPanel::say_waiting);
  set_sources({}, {});
}

const DistributionPanel::Source* DistributionPanel::source() const {
  const int i = selector_->currentIndex();
  return i >= 0 && i < static_cast<int>(sources_.size()) ? &sources_[static_cast<std::size_t>(i)] : nullptr;
}

std::optional<Site> DistributionPanel::current_site() const {
  const Source* s = source();
  return s ? std::optional(s->site) : std::nullopt;
}

ClipMode DistributionPanel::clip_mode(const std::optional<QuantSpec>& spec) {
  if (!spec || spec->granularity != Granularity::kTensor || spec->scale_from_accumulator) return ClipMode::kFixed;
  if (spec->zero_point == ZeroPointType::kInteger) return ClipMode::kBoth;
  return spec->is_signed ? ClipMode::kSymmetric : ClipMode::kUpper;
}

void DistributionPanel::set_sources(const QString& layer, const std::vector<Source>& sources) {
  const Source* before = source();
  const Site old = before ? before->site : Site{};  // node kNoNode: none
  const QSignalBlocker block(selector_);
  const bool same_titles = sources.size() == sources_.size() &&
                           std::equal(sources.begin(), sources.end(), sources_.begin(), [](const Source& a, const Source& b) { return a.title == b.title; });
  layer_ = layer;
  sources_ = sources;
  if (!same_titles) selector_->clear();
  int wanted = 0;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (!same_titles) selector_->addItem(sources[i].title);
    if (old.node != kNoNode && sources[i].site.kind == old.kind && sources[i].site.operand == old.operand) wanted = static_cast<int>(i);
  }
  if (!same_titles) selector_->setCurrentIndex(sources.empty() ? -1 : wanted);
  selector_->setVisible(sources.size() > 1);
  log_->setVisible(!sources.empty());
  const Source* now = source();
  if (!now || now->site != old) histogram_.reset();
  show_source();
}

void DistributionPanel::set_current_kind(SiteKind kind) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    if (sources_[i].site.kind != kind) continue;
    if (const auto site = current_site(); site && site->kind == kind) return;
    selector_->setCurrentIndex(static_cast<int>(i));
    show_source();
    Q_EMIT site_changed(sources_[i].site);
    return;
  }
}

void DistributionPanel::show_source() {
  const Source* s = source();
  if (histogram_ && s && histogram_->site != s->site) histogram_.reset();
  if (!s) {
    empty_->set_text(tr("Select a layer"), tr("Its weights and activations are shown here with the quantizer's grid."));
    empty_->clear_actions();
    stack_->setCurrentWidget(empty_);
    chart_->clear();
  } else {
    const ClipMode mode = clip_mode(s->spec);
    chart_->set_clip_mode(mode);
    chart_->setToolTip(mode == ClipMode::kFixed && s->spec ? tr("Clip limits can be dragged only with one scale per tensor.") : QString());
    chart_->set_value_title(tr("%1 value").arg(s->title.toLower()));
    if (!histogram_) {
      chart_->clear();
      stack_->setCurrentWidget(chart_);
      waiting_.start();
    }
  }
  update_subtitle();
}

void DistributionPanel::say_waiting() {
  const Source* s = source();
  if (!s || histogram_ || stack_->currentWidget() == empty_) return;
  empty_->clear_actions();
  if (s->is_activation) {
    empty_->set_text(tr("No distribution yet"), tr("The values of activations are seen while a data set is run through the network."));
    empty_->add_action(QStringLiteral("calibrate"), tr("Calibrate"), QStringLiteral("calibrate"));
  } else {
    empty_->set_text(tr("No distribution yet"), tr("It is being read."));
  }
  stack_->setCurrentWidget(empty_);
}

void DistributionPanel::set_histogram(const Histogram& histogram) {
  const Source* s = source();
  if (!s || histogram.site != s->site) return;
  if (!histogram.missing.empty()) return set_message(histogram.site, QString::fromStdString(histogram.missing));
  histogram_ = histogram;
  chart_->set_histogram(histogram);
  stack_->setCurrentWidget(chart_);
  update_subtitle();
}

void DistributionPanel::set_message(const Site& site, const QString& sentence) {
  const Source* s = source();
  if (!s || site != s->site) return;
  histogram_.reset();
  empty_->set_text(tr("No distribution of this tensor"), sentence);
  empty_->clear_actions();
  if (s->is_activation) empty_->add_action(QStringLiteral("calibrate"), tr("Calibrate"), QStringLiteral("calibrate"));
  stack_->setCurrentWidget(empty_);
  update_subtitle();
}

void DistributionPanel::update_subtitle() {
  const Source* s = source();
  if (!s) return set_subtitle({});
  QString text = tr("%1 %2").arg(layer_, s->title.toLower());
  if (histogram_) {
    text += tr(", %1 values").arg(count_text(histogram_->total));
    if (histogram_->from_sample) text += tr(" of the calibration");
    text += log_->isChecked() ? tr(", log counts") : tr(", linear counts");
  }
  set_subtitle(text);
}

}  // namespace quanvas
