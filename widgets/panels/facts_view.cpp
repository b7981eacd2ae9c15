#include "widgets/panels/facts_view.h"

#include <cmath>

#include <QCoreApplication>
#include <QGridLayout>
#include <QLabel>
#include <QVariant>

#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/panels/inspector_state.h"

namespace quanvas {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("FactsView", text); }

// One value or "a … b".
QString range_text(double lo, double hi) {
  return lo == hi ? significant_text(lo) : significant_text(lo) + QStringLiteral(" … ") + significant_text(hi);
}

}  // namespace

std::vector<FactRow> fact_rows(const SiteFacts& f, const std::optional<TensorError>& output) {
  std::vector<FactRow> rows;
  const QString site = site_word(f.site.kind);
  rows.push_back({tr("SQNR of the %1").arg(site), db_text(f.error.sqnr_db),
                  tr("10·log10( Σx² / Σ(x−x~)² ): higher is better.") + QStringLiteral("\n") +
                      tr("MSE %1, cosine %2, largest error %3.").arg(significant_text(f.error.mse), number_text(f.error.cosine, 6), significant_text(f.error.max_abs)),
                  f.error.sqnr_db < kPoorSqnrDb});
  if (output)
    rows.push_back({tr("SQNR at the output"), db_text(output->sqnr_db),
                    tr("SQNR at the layer's output when only this layer is quantized, on the calibration sample."),
                    output->sqnr_db < kPoorSqnrDb});
  rows.push_back({tr("Values clipped"), percent_text(f.clipped_share, 2),
                  tr("Share of values beyond the outermost grid points by more than half a step.")});
  rows.push_back({tr("Codes in use"), tr("%1 of %2").arg(count_text(f.codes_used), count_text(f.codes_total)),
                  tr("Distinct codes that occur, of those that the format has.")});
  rows.push_back({tr("Scale"), range_text(f.scale_min, f.scale_max), tr("Smallest and largest scale of the tensor.")});
  if (f.zero_point_min != 0 || f.zero_point_max != 0)
    rows.push_back({tr("Zero point"), f.zero_point_min == f.zero_point_max
                                          ? number_text(f.zero_point_min, 0)
                                          : number_text(f.zero_point_min, 0) + QStringLiteral(" … ") + number_text(f.zero_point_max, 0),
                    tr("Code of the value 0.")});
  if (f.bytes_float > 0)
    rows.push_back({tr("Size"), change_text(bytes_text(f.bytes_float), bytes_text(f.bytes_quantized)), tr("Codes with scales and zero points.")});
  rows.push_back({tr("Bits per element"), bits_text(f.bits_per_element), f.bytes_float > 0 ? tr("The size divided by the number of elements.") : tr("Width of a code.")});
  return rows;
}

FactsView::FactsView(QWidget* parent) : QFrame(parent), grid_(new QGridLayout(this)), sentence_(new QLabel(this)) {
  setProperty("role", "block");
  grid_->setContentsMargins(10, 8, 10, 8);
  grid_->setHorizontalSpacing(8);
  grid_->setVerticalSpacing(3);
  grid_->setColumnStretch(0, 1);
  sentence_->setProperty("role", "muted");
  sentence_->setWordWrap(true);
  sentence_->setTextInteractionFlags(Qt::LinksAccessibleByMouse | Qt::LinksAccessibleByKeyboard);
  grid_->addWidget(sentence_, 0, 0, 1, 2);
  connect(sentence_, &QLabel::linkActivated, this, &FactsView::calibrate_wanted);
}

void FactsView::clear() {
  for (auto* label : labels_) {
    grid_->removeWidget(label);
    delete label;
  }
  labels_.clear();
}

void FactsView::set_sentence(const QString& sentence) {
  clear();
  sentence_->setText(sentence);
  sentence_->show();
}

void FactsView::set_facts(const std::optional<SiteFacts>& facts, const std::optional<TensorError>& output, bool stale) {
  if (!facts) return set_sentence(tr("Measuring…"));
  if (!facts->missing.empty()) {
    const QString text = QString::fromStdString(facts->missing);
    const bool calibrate = text.contains(QLatin1String("alibrat"));
    return set_sentence(calibrate ? QStringLiteral("%1 <a href=\"calibrate\" style=\"color:%2; text-decoration:none\">%3</a>")
                                        .arg(text.toHtmlEscaped(), colors().accent.name(), tr("Calibrate"))
                                  : text);
  }
  clear();
  sentence_->hide();
  for (const auto& row : fact_rows(*facts, output)) add_row(row, stale);
  if (stale) add_row({tr("Measuring again…"), {}, {}}, true);
}

void FactsView::add_row(const FactRow& row, bool stale) {
  const int at = static_cast<int>(labels_.size()) / 2 + 1;
  auto* name = new QLabel(row.name, this);
  auto* value = new QLabel(row.value, this);
  name->setWordWrap(true);
  QFont bold = text_font(12.5, QFont::DemiBold);
  value->setFont(bold);
  value->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
  value->setTextInteractionFlags(Qt::TextSelectableByMouse);
  if (row.warn && !stale) value->setProperty("role", "warning");
  if (stale)
    for (auto* l : {name, value}) l->setProperty("role", "muted");
  for (auto* l : {name, value}) l->setToolTip(row.tooltip);
  value->setAccessibleName(row.name + QStringLiteral(" ") + row.value);
  grid_->addWidget(name, at, 0);
  grid_->addWidget(value, at, 1);
  labels_.push_back(name);
  labels_.push_back(value);
}

QString FactsView::text() const {
  if (labels_.empty()) return sentence_->text();
  QStringList lines;
  for (std::size_t i = 0; i + 1 < labels_.size(); i += 2)
    lines << labels_[i]->text() + QStringLiteral(": ") + labels_[i + 1]->text();
  return lines.join(u'\n');
}

}  // namespace quanvas
