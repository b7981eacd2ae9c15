#include "widgets/panels/sweep_dialog.h"

#include <algorithm>

#include <QDialogButtonBox>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "widgets/common/format.h"
#include "widgets/forms/schema_form.h"

namespace quanvas {
namespace {

constexpr int kMinBits = 1, kMaxBits = 16;

constexpr const char* kNearest = "nearest";

std::vector<Choice> rounding_choices(const std::vector<PluginEntry>& passes) {
  std::vector<Choice> out = {{kNearest, SweepDialog::tr("To nearest").toStdString(), {}}};
  for (const PluginEntry& pass : passes)
    if (pass.more.value("stage", "") == "weights" && pass.schema.find("inputs")) out.push_back({pass.id, pass.title, pass.doc});
  return out;
}

Schema sweep_schema(bool some_selected, const std::vector<PluginEntry>& passes) {
  const auto t = [](const char* text) { return SweepDialog::tr(text).toStdString(); };
  Schema s{{text_field("bits", t("Widths"), t("Bits to try, separated by commas; ranges as 8-2."), "8, 7, 6, 5, 4, 3, 2"),
            choice_field("what", t("Of"), t("What is quantized at each width."), "weights",
                         {{"weights", t("Weights"), {}}, {"activations", t("Activations"), {}}, {"both", t("Weights and activations"), {}}}),
            integer_field("samples", t("Samples"), t("Of the evaluation split; 0: all. The standard error of a loss is about √(p(1−p)/n)."), 1000, 0, 1e9)}};
  auto choices = rounding_choices(passes);
  if (choices.size() > 1) {
    s.fields.push_back(choice_field("rounding", t("Rounding"),
                                    t("How each layer's weights are rounded at each width. What that needs of the data is measured once for all widths."),
                                    kNearest, std::move(choices)));
    s.fields.back().enabled_if = EnabledIf{"what", {"weights", "both"}};
  }
  if (some_selected) s.fields.push_back(bool_field("selected", t("Selected only"), t("Only the layers that are selected now."), false));
  return s;
}

QString bits_text_of(const std::vector<int>& bits) {
  QStringList parts;
  for (const int b : bits) parts << QString::number(b);
  return parts.join(QStringLiteral(", "));
}

}  // namespace

std::optional<std::vector<int>> parse_bits(const QString& text) {
  std::vector<int> out;
  const auto add = [&](int b) {
    if (std::find(out.begin(), out.end(), b) == out.end()) out.push_back(b);
  };
  for (const auto& part : text.split(u',', Qt::SkipEmptyParts)) {
    const auto ends = part.trimmed().split(u'-');
    bool ok_a = false, ok_b = false;
    const int a = ends.first().trimmed().toInt(&ok_a), b = ends.last().trimmed().toInt(&ok_b);
    if (ends.size() > 2 || !ok_a || !ok_b || std::min(a, b) < kMinBits || std::max(a, b) > kMaxBits) return std::nullopt;
    for (int v = a; v != b; v += a < b ? 1 : -1) add(v);
    add(b);
  }
  if (out.empty()) return std::nullopt;
  return out;
}

SweepDialog::SweepDialog(const SweepSettings& settings, const std::vector<NodeId>& selected, int layer_count,
                         const std::vector<PluginEntry>& passes, QWidget* parent)
    : QDialog(parent), selected_(selected), layer_count_(layer_count), form_(new SchemaForm(this)), cost_(new QLabel(this)) {
  setWindowTitle(tr("Sweep"));
  setMinimumWidth(400);
  form_->set_schema(sweep_schema(!selected.empty(), passes));
  form_->set_values({{"bits", bits_text_of(settings.bits).toStdString()},
                     {"what", settings.weights && settings.activations ? "both" : settings.activations ? "activations" : "weights"},
                     {"samples", settings.samples},
                     {"rounding", settings.passes.empty() ? kNearest : settings.passes.front().id}});
  cost_->setProperty("role", "muted");
  cost_->setWordWrap(true);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
  ok_ = buttons->button(QDialogButtonBox::Ok);
  ok_->setText(tr("Start"));
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(form_, &SchemaForm::edited, this, &SweepDialog::update_cost);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(8);
  layout->addWidget(form_);
  layout->addWidget(cost_);
  layout->addWidget(buttons);
  update_cost();
}

SweepSettings SweepDialog::settings() const {
  const json v = form_->values();
  SweepSettings s;
  if (const auto bits = parse_bits(QString::fromStdString(v.value("bits", "")))) s.bits = *bits;
  const std::string what = v.value("what", "weights");
  s.weights = what != "activations";
  s.activations = what != "weights";
  s.samples = v.value("samples", 1000);
  if (const std::string rounding = v.value("rounding", kNearest); s.weights && rounding != kNearest) s.passes = {{rounding}};
  if (v.value("selected", false)) s.layers = selected_;
  return s;
}

void SweepDialog::update_cost() {
  const auto bits = parse_bits(QString::fromStdString(form_->values().value("bits", "")));
  form_->set_error("bits", bits ? QString() : tr("Give widths from %1 to %2, for example 8, 6, 4-2.").arg(kMinBits).arg(kMaxBits));
  ok_->setEnabled(bits.has_value());
  if (!bits) return;
  const auto layers = form_->values().value("selected", false) ? selected_.size() : static_cast<std::size_t>(layer_count_);
  cost_->setText(tr("%1 measurements. It can be cancelled and resumed; what was measured is kept.").arg(count_text(static_cast<double>(layers * bits->size()))));
}

}  // namespace quanvas
