#include "widgets/panels/sweep_panel.h"

#include <algorithm>
#include <cmath>

#include <QAbstractButton>
#include <QComboBox>
#include <QLabel>
#include <QPainter>
#include <QStackedLayout>
#include <QToolButton>
#include <QVBoxLayout>

#include "widgets/charts/chart_export.h"
#include "widgets/charts/heat_map.h"
#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"

namespace quanvas {
namespace {

// A drop of 0 points is dark, 25 points and more are yellow; logarithmic between.
double drop_position(double points) { return std::clamp(std::log10(1 + 4 * std::max(0.0, points)) / 2, 0.0, 1.0); }

QString qs(const std::string& s) { return QString::fromStdString(s); }

// "−0.0" would say that something was won.
QString points_text(double points) { return number_text(std::fabs(points) < 0.05 ? 0 : points, 1); }

}  // namespace

SweepPanel::SweepPanel(QWidget* parent)
    : Panel(QStringLiteral("sweep"), tr("Sweep"), parent), map_(new HeatMap(this)), note_(new QLabel(this)), metric_(new QComboBox(this)),
      start_(new QToolButton(this)), resume_(new QToolButton(this)),
      empty_(new EmptyState(QStringLiteral("sweep"), tr("Which width for which layer?"), {}, this)), page_(new QWidget(this)),
      stack_(new QStackedLayout(this)) {
  metric_->addItems({tr("top-1 lost"), tr("output SQNR")});
  metric_->setAccessibleName(tr("Measure"));
  metric_->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  start_->setText(tr("Start…"));
  resume_->setText(tr("Resume"));
  for (auto* b : {start_, resume_}) b->setProperty("flat", true);
  resume_->setToolTip(tr("Go on with the cells that are missing"));
  for (QWidget* w : {static_cast<QWidget*>(metric_), static_cast<QWidget*>(resume_), static_cast<QWidget*>(start_)}) add_header_widget(w);
  note_->setProperty("role", "muted");
  note_->setContentsMargins(10, 0, 10, 6);
  note_->setWordWrap(true);
  auto* layout = new QVBoxLayout(page_);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(2);
  layout->addWidget(map_, 1);
  layout->addWidget(note_);
  stack_->addWidget(empty_);
  stack_->addWidget(page_);
  empty_start_ = empty_->add_action(QStringLiteral("start"), tr("Sweep…"), QStringLiteral("sweep"));
  set_can_start(false, tr("Open a model first."));
  add_chart_menu(map_, {QStringLiteral("sweep"), [this] { return map_->full_size(); },
                        [this](QPainter* p, const QRect& r) { map_->render_all(p, r); }, {}});
  connect(empty_, &EmptyState::action_triggered, this, &SweepPanel::start_wanted);
  connect(start_, &QToolButton::clicked, this, [this] {
    if (running_) Q_EMIT cancel_wanted();
    else Q_EMIT start_wanted();
  });
  connect(resume_, &QToolButton::clicked, this, [this] { Q_EMIT resume_wanted(id_); });
  connect(metric_, &QComboBox::currentIndexChanged, this, &SweepPanel::refresh);
  connect(map_, &HeatMap::cell_clicked, this, [this](int row, int column) {
    if (!sweep_ || row >= static_cast<int>(rows_.size()) || column >= static_cast<int>(sweep_->settings.bits.size())) return;
    Q_EMIT width_chosen(rows_[static_cast<std::size_t>(row)].node, sweep_->settings.bits[static_cast<std::size_t>(column)],
                        sweep_->settings.weights, sweep_->settings.activations);
  });
  connect(map_, &HeatMap::current_changed, this, [this](int row, int) {
    if (row < static_cast<int>(rows_.size())) Q_EMIT layer_clicked(rows_[static_cast<std::size_t>(row)].node);
  });
  refresh();
}

void SweepPanel::set_layers(const std::vector<SweepLayer>& layers) {
  layers_ = layers;
  refresh();
}

void SweepPanel::set_sweep(const std::optional<SweepResult>& sweep, std::int64_t id) {
  sweep_ = sweep;
  id_ = id;
  cells_.clear();
  if (sweep_)
    for (const auto& c : sweep_->cells) cells_[{c.node, c.bits}] = c;
  refresh();
}

void SweepPanel::begin(const SweepSettings& settings) {
  SweepResult fresh;
  fresh.settings = settings;
  set_sweep(fresh, 0);
}

void SweepPanel::add_cell(const SweepCell& cell) {
  if (!sweep_) return;
  cells_[{cell.node, cell.bits}] = cell;
  refresh();
}

void SweepPanel::set_running(bool running) {
  running_ = running;
  refresh();
}

void SweepPanel::set_measured(std::optional<double> drop) {
  measured_ = drop;
  update_note();
}

void SweepPanel::set_can_start(bool can, const QString& why_not) {
  start_->setEnabled(can || running_);
  resume_->setEnabled(can);
  empty_start_->setEnabled(can);
  start_->setToolTip(can ? tr("Measure every layer at every width") : why_not);
  empty_->set_text(tr("Which width for which layer?"),
                   can ? tr("A sweep quantizes one layer at a time at each width and measures what it costs.") : why_not);
}

const SweepCell* SweepPanel::cell(NodeId node, int bits) const {
  const auto it = cells_.find({node, bits});
  return it == cells_.end() ? nullptr : &it->second;
}

bool SweepPanel::by_accuracy() const {
  const bool labels = std::none_of(cells_.begin(), cells_.end(), [](const auto& c) { return std::isnan(cell_loss(c.second)); });
  return labels && metric_->currentIndex() == 0;
}

bool SweepPanel::of_tokens() const {
  return std::any_of(cells_.begin(), cells_.end(), [](const auto& c) { return !std::isnan(c.second.perplexity); });
}

int SweepPanel::assigned_bits(const SweepLayer& layer) const {
  return sweep_ && !sweep_->settings.weights ? layer.activation_bits : layer.weight_bits;
}

void SweepPanel::refresh() {
  start_->setText(running_ ? tr("Cancel") : tr("Start…"));
  const bool unfinished = sweep_ && !sweep_->complete && !running_ && id_ > 0;
  resume_->setVisible(unfinished);
  start_->setVisible(sweep_ || running_);
  metric_->setVisible(sweep_.has_value());
  stack_->setCurrentWidget(sweep_ ? page_ : static_cast<QWidget*>(empty_));
  if (!sweep_) {
    set_subtitle({});
    return;
  }
  const auto& wanted = sweep_->settings.layers;
  rows_.clear();
  for (const auto& l : layers_)
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), l.node) != wanted.end()) rows_.push_back(l);
  const bool accuracy = by_accuracy();
  metric_->setItemText(0, of_tokens() ? tr("perplexity rise") : tr("top-1 lost"));
  set_subtitle(accuracy && of_tokens() ? tr("%; click assigns") : accuracy ? tr("points; click assigns") : tr("dB; click assigns"));
  HeatMapData data;
  for (const int b : sweep_->settings.bits) data.columns << tr("%1 bit").arg(b);
  for (const auto& l : rows_) {
    data.rows << l.name;
    auto& row = data.values.emplace_back();
    for (const int b : sweep_->settings.bits) {
      const SweepCell* c = cell(l.node, b);
      row.push_back(!c ? std::nan("") : accuracy ? cell_loss(*c) * 100 : c->output_sqnr_db);
    }
    const auto& bits = sweep_->settings.bits;
    const auto it = std::find(bits.begin(), bits.end(), assigned_bits(l));
    data.outlined.push_back(it == bits.end() ? -1 : static_cast<int>(it - bits.begin()));
  }
  data.text = [accuracy](double v, int) { return accuracy ? points_text(v) : number_text(v, 1); };
  data.position = [accuracy](double v, int) { return accuracy ? drop_position(v) : error_position(v); };
  data.tooltip = [this](int r, int column) {
    const auto& l = rows_[static_cast<std::size_t>(r)];
    const int bits = sweep_->settings.bits[static_cast<std::size_t>(column)];
    const SweepCell* c = cell(l.node, bits);
    if (!c) return tr("%1 at %2 bit: not measured yet. Click assigns.").arg(l.name).arg(bits);
    if (!std::isnan(c->perplexity))
      return tr("%1 at %2 bit\nperplexity %3, %4 %\nlayer's output %5, network's output %6")
          .arg(l.name).arg(bits).arg(qs(perplexity_digits(c->perplexity)), signed_text(c->perplexity_rise * 100), db_text(c->layer_sqnr_db), db_text(c->output_sqnr_db));
    return tr("%1 at %2 bit\ntop-1 %3, %4 points\nlayer's output %5, network's output %6")
        .arg(l.name).arg(bits).arg(percent_text(c->top1), signed_text(-c->top1_drop * 100), db_text(c->layer_sqnr_db), db_text(c->output_sqnr_db));
  };
  data.clickable = true;
  map_->set_data(std::move(data));
  update_note();
}

std::optional<double> SweepPanel::predicted_drop() const {
  if (!sweep_ || rows_.empty()) return std::nullopt;
  double sum = 0;
  for (const auto& l : rows_) {
    const int bits = assigned_bits(l);
    if (bits == 0 || bits > 16) continue;  // float costs nothing
    const SweepCell* c = cell(l.node, bits);
    if (!c || std::isnan(cell_loss(*c))) return std::nullopt;
    sum += cell_loss(*c);
  }
  return sum;
}

QString SweepPanel::note() const { return note_->text(); }

void SweepPanel::update_note() {
  if (!sweep_) return;
  QString text = tr("outlined: assigned now");
  if (by_accuracy()) {
    const auto predicted = predicted_drop();
    text += predicted ? (of_tokens() ? tr("; predicted rise %1 %") : tr("; predicted loss %1 points")).arg(number_text(*predicted * 100, 2)) : tr("; no prediction: an assigned width was not swept");
    text += measured_ ? tr(", measured %1").arg(number_text(*measured_ * 100, 2)) : tr(", not measured yet: run the recipe");
  }
  const double total = static_cast<double>(rows_.size() * sweep_->settings.bits.size());
  if (!sweep_->complete) text += tr("; %1 of %2 cells").arg(count_text(static_cast<double>(cells_.size())), count_text(total));
  note_->setText(text);
  note_->setToolTip(tr("Predicted: the sum of the single losses at the assigned widths. Errors of several layers do not simply add up;\n"
                       "the measured value beside it says how far to trust the sum."));
}

}  // namespace quanvas
