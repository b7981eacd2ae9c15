#include "widgets/panels/data_dialog.h"

#include <algorithm>

#include <QComboBox>
#include <QDialogButtonBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QLocale>
#include <QPushButton>
#include <QStyle>
#include <QTabWidget>
#include <QVBoxLayout>

#include "widgets/common/format.h"
#include "widgets/forms/schema_form.h"
#include "widgets/panels/panel.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }
std::string std_tr(const char* text) { return DataDialog::tr(text).toStdString(); }

Schema range_schema() {
  return {{integer_field("begin", std_tr("First sample"), std_tr("Number of the first sample that is used, from 0."), 0, 0, 1e12),
           integer_field("end", std_tr("End"), std_tr("Number of the sample after the last one; −1: to the last."), -1, -1, 1e12)}};
}

Schema preprocessing_schema() {
  return {{real_field("scale", std_tr("Scale"), std_tr("x · scale, then (x − mean) / std. 1/255 = 0.00392156863 brings bytes to 0 … 1."), 1, -1e9, 1e9),
           text_field("mean", std_tr("Mean"), std_tr("One number for each channel or one for all, separated by commas; empty: 0."), ""),
           text_field("std", std_tr("Std"), std_tr("One number for each channel or one for all, separated by commas; empty: 1."), ""),
           integer_field("resize", std_tr("Resize"), std_tr("Length of the shorter side, bilinear; 0: as it is."), 0, 0, 65536, "px"),
           integer_field("crop_width", std_tr("Crop width"), std_tr("Of the centre; 0: as it is."), 0, 0, 65536, "px"),
           integer_field("crop_height", std_tr("Crop height"), std_tr("Of the centre; 0: as it is."), 0, 0, 65536, "px"),
           choice_field("channels", std_tr("Channels"), std_tr("What pictures are converted to."), "",
                        {{"", std_tr("As in the file"), {}}, {"rgb", "RGB", {}}, {"grey", std_tr("Grey"), {}}}),
           choice_field("layout", std_tr("Layout"), std_tr("What the model wants."), "nchw",
                        {{"nchw", std_tr("Channels first (NCHW)"), {}}, {"nhwc", std_tr("Channels last (NHWC)"), {}}})}};
}

std::string list_text(const std::vector<double>& list) {
  QStringList parts;
  for (const double v : list) parts << QString::number(v, 'g', QLocale::FloatingPointShortest);  // comes back as it was
  return parts.join(QStringLiteral(", ")).toStdString();
}

// Empty optional: not a list of numbers.
std::optional<std::vector<double>> parse_list(const std::string& text) {
  std::vector<double> out;
  for (const auto& part : qs(text).split(u',', Qt::SkipEmptyParts)) {
    bool ok = false;
    out.push_back(part.trimmed().toDouble(&ok));
    if (!ok) return std::nullopt;
  }
  return out;
}

}  // namespace

DataDialog::DataDialog(const DataSettings& data, const std::vector<PluginEntry>& readers, QWidget* parent)
    : QDialog(parent), readers_(readers), name_(new QLineEdit(qs(data.name), this)), status_(new QLabel(this)) {
  setWindowTitle(tr("Data set"));
  resize(560, 480);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(10);
  auto* row = new QHBoxLayout;
  auto* label = new QLabel(tr("Name"), this);
  label->setProperty("role", "muted");
  label->setFixedWidth(92);
  label->setBuddy(name_);
  row->addWidget(label);
  row->addWidget(name_, 1);
  layout->addLayout(row);
  auto* tabs = new QTabWidget(this);
  tabs->addTab(build_source(data.calibrate, tr("Samples from which calibration gathers the ranges of activations. Take them from the training data."), false), tr("Calibration"));
  tabs->addTab(build_source(data.train, tr("Labelled samples for quantization-aware training."), true), tr("Training"));
  tabs->addTab(build_source(data.evaluate, tr("Samples on which accuracy is measured; nothing else may see them."), true), tr("Evaluation"));
  tabs->addTab(build_preprocessing(data.preprocessing), tr("Preprocessing"));
  layout->addWidget(tabs, 1);
  status_->setWordWrap(true);
  status_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  layout->addWidget(status_);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
  auto* apply = buttons->addButton(tr("Apply"), QDialogButtonBox::ActionRole);
  apply->setDefault(true);
  connect(apply, &QPushButton::clicked, this, [this] {
    if (has_errors()) return set_status(false, tr("Nothing was applied: correct what is marked first."));
    set_status(true, tr("Looking at the data…"));
    Q_EMIT apply_wanted(settings());
  });
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  layout->addWidget(buttons);
}

QWidget* DataDialog::build_source(const DataSource& source, const QString& purpose, bool copyable) {
  auto* page = new QWidget(this);
  auto* layout = new QVBoxLayout(page);
  layout->setContentsMargins(4, 10, 4, 4);
  layout->setSpacing(6);
  auto* text = new QLabel(purpose, page);
  text->setProperty("role", "muted");
  text->setWordWrap(true);
  layout->addWidget(text);
  Source s;
  s.reader = new QComboBox(page);
  s.reader->setAccessibleName(tr("Reader"));
  s.reader->addItem(tr("None"), QString());
  for (const auto& r : readers_) s.reader->addItem(qs(r.title), qs(r.id));
  if (!source.reader.empty() && s.reader->findData(qs(source.reader)) < 0) s.reader->addItem(tr("%1 (not installed)").arg(qs(source.reader)), qs(source.reader));
  s.reader->setCurrentIndex(s.reader->findData(qs(source.reader)));
  auto* row = new QHBoxLayout;
  auto* label = new QLabel(tr("Reader"), page);
  label->setProperty("role", "muted");
  label->setFixedWidth(92);
  row->addWidget(label);
  row->addWidget(s.reader, 1);
  layout->addLayout(row);
  s.doc = new QLabel(page);
  s.doc->setProperty("role", "muted");
  s.doc->setWordWrap(true);
  s.options = new SchemaForm(page);
  s.range = new SchemaForm(page);
  s.range->set_schema(range_schema());
  s.range->set_values({{"begin", source.begin}, {"end", source.end}});
  layout->addWidget(s.doc);
  layout->addWidget(s.options);
  layout->addWidget(s.range);
  const std::size_t index = sources_.size();
  if (copyable) {
    auto* copy = new QPushButton(tr("Same files as calibration"), page);
    layout->addWidget(copy, 0, Qt::AlignLeft);
    connect(copy, &QPushButton::clicked, this, [this, index] {
      auto& to = sources_[index];
      to.reader->setCurrentIndex(sources_[0].reader->currentIndex());
      show_reader(to, sources_[0].options->values());
    });
  }
  layout->addStretch(1);
  sources_.push_back(s);
  show_reader(sources_.back(), source.options);
  connect(s.reader, &QComboBox::activated, this, [this, index] { show_reader(sources_[index], json::object()); });
  return scroll_page(page, this);
}

void DataDialog::show_reader(Source& source, const json& options) {
  const auto* entry = find_entry(readers_, source.reader->currentData().toString().toStdString());
  source.doc->setText(entry ? qs(entry->doc) : QString());
  source.doc->setVisible(entry);
  source.options->set_schema(entry ? entry->schema : Schema{});
  source.options->set_values(options);
  source.range->setVisible(entry);
}

QWidget* DataDialog::build_preprocessing(const Preprocessing& p) {
  auto* page = new QWidget(this);
  auto* layout = new QVBoxLayout(page);
  layout->setContentsMargins(4, 10, 4, 4);
  preprocessing_ = new SchemaForm(page);
  preprocessing_->set_schema(preprocessing_schema());
  json values = to_json_value(p);
  values["mean"] = list_text(p.mean);
  values["std"] = list_text(p.std);
  preprocessing_->set_values(values);
  connect(preprocessing_, &SchemaForm::edited, this, [this](const QString& key, const json& value, bool) {
    if (key != QLatin1String("mean") && key != QLatin1String("std")) return;
    const bool ok = value.is_string() && parse_list(value.get<std::string>());
    preprocessing_->set_error(key.toStdString(), ok ? QString() : tr("Give numbers separated by commas, for example 0.485, 0.456, 0.406."));
  });
  layout->addWidget(preprocessing_);
  layout->addStretch(1);
  return scroll_page(page, this);
}

bool DataDialog::has_errors() const {
  // The range of a split without a reader is hidden and not sent.
  return preprocessing_->has_errors() || std::any_of(sources_.begin(), sources_.end(), [](const Source& s) {
           return !s.reader->currentData().toString().isEmpty() && (s.options->has_errors() || s.range->has_errors());
         });
}

DataSource DataDialog::source_settings(const Source& s) const {
  DataSource out;
  out.reader = s.reader->currentData().toString().toStdString();
  if (out.reader.empty()) return out;
  out.options = s.options->values();
  const json range = s.range->values();
  out.begin = range["begin"].get<std::int64_t>();
  out.end = range["end"].get<std::int64_t>();
  return out;
}

Preprocessing DataDialog::preprocessing_settings() const {
  json values = preprocessing_->values();
  for (const char* key : {"mean", "std"}) values[key] = parse_list(values[key].get<std::string>()).value_or(std::vector<double>{});
  return from_json_value<Preprocessing>(values).value_or(Preprocessing{});
}

DataSettings DataDialog::settings() const {
  DataSettings d;
  d.name = name_->text().trimmed().toStdString();
  d.calibrate = source_settings(sources_[0]);
  d.train = source_settings(sources_[1]);
  d.evaluate = source_settings(sources_[2]);
  d.preprocessing = preprocessing_settings();
  return d;
}

void DataDialog::set_status(bool ok, const QString& sentence) {
  status_->setText(sentence);
  status_->setProperty("role", ok ? "muted" : "error");
  status_->style()->unpolish(status_);
  status_->style()->polish(status_);
}

QString DataDialog::status() const { return status_->text(); }

}  // namespace quanvas
