#include "widgets/panels/train_dialog.h"

#include <algorithm>

#include <QComboBox>
#include <QDialogButtonBox>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "widgets/forms/schema_form.h"
#include "widgets/panels/panel.h"

namespace quanvas {

Recipe with_pass(const Recipe& recipe, const PassEntry& pass) {
  Recipe out = recipe;
  const auto it = std::find_if(out.passes.begin(), out.passes.end(), [&](const PassEntry& p) { return p.id == pass.id; });
  if (it == out.passes.end()) out.passes.push_back(pass);
  else *it = pass;
  return out;
}

TrainDialog::TrainDialog(const std::vector<PluginEntry>& passes, const Recipe& recipe, QWidget* parent)
    : QDialog(parent), passes_(passes), recipe_(recipe), choice_(new QComboBox(this)), doc_(new QLabel(this)), form_(new SchemaForm(this)) {
  setWindowTitle(tr("Train"));
  resize(440, 520);
  for (const auto& p : passes_) choice_->addItem(QString::fromStdString(p.title));
  choice_->setVisible(passes_.size() > 1);
  choice_->setAccessibleName(tr("Pass"));
  doc_->setWordWrap(true);
  doc_->setProperty("role", "muted");
  auto* page = new QWidget(this);
  auto* inner = new QVBoxLayout(page);
  inner->setContentsMargins(0, 0, 0, 0);
  inner->addWidget(form_);
  inner->addStretch(1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
  buttons->button(QDialogButtonBox::Ok)->setText(tr("Train"));
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(choice_, &QComboBox::currentIndexChanged, this, &TrainDialog::show_pass);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(10);
  layout->addWidget(choice_);
  layout->addWidget(doc_);
  layout->addWidget(scroll_page(page, this), 1);
  layout->addWidget(buttons);
  show_pass();
}

void TrainDialog::show_pass() {
  const auto& entry = passes_[static_cast<std::size_t>(std::max(0, choice_->currentIndex()))];
  doc_->setText(QString::fromStdString(entry.doc));
  form_->set_schema(entry.schema);
  for (const auto& p : recipe_.passes)
    if (p.id == entry.id) form_->set_values(p.options);
}

PassEntry TrainDialog::pass() const {
  const auto& entry = passes_[static_cast<std::size_t>(std::max(0, choice_->currentIndex()))];
  return {entry.id, true, form_->values()};
}

}  // namespace quanvas
