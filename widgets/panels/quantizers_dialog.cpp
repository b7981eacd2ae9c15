#include "widgets/panels/quantizers_dialog.h"

#include <QDialogButtonBox>
#include <QLabel>
#include <QPushButton>
#include <QRadioButton>
#include <QVBoxLayout>

namespace quanvas {
namespace {

constexpr int kIndent = 24;

void add_choice(QVBoxLayout* layout, QRadioButton* button, const QString& what) {
  auto* text = new QLabel(what, button->parentWidget());
  text->setWordWrap(true);
  text->setProperty("role", "muted");
  text->setContentsMargins(kIndent, 0, 0, 6);
  button->setAccessibleDescription(what);
  layout->addWidget(button);
  layout->addWidget(text);
}

}  // namespace

QuantizersDialog::QuantizersDialog(FileQuantizers now, QWidget* parent)
    : QDialog(parent), now_(now), rules_(new QRadioButton(tr("&Rules of the recipe"), this)), nodes_(new QRadioButton(tr("&Nodes of the network"), this)) {
  setWindowTitle(tr("Quantizers of the file"));
  setMinimumWidth(440);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(4);
  add_choice(layout, rules_, tr("The network is shown in float, with a recipe that computes what the file computes. Every format can be changed."));
  add_choice(layout, nodes_, tr("The file's quantizers are executed as they stand, and no rule changes them."));
  (now == FileQuantizers::kRules ? rules_ : nodes_)->setChecked(true);
  auto* hint = new QLabel(tr("Runs of one choice say nothing about the other, so the other one opens in a project of its own; this one stays as it is."), this);
  hint->setWordWrap(true);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
  auto* open = buttons->button(QDialogButtonBox::Ok);
  open->setText(tr("Open"));
  open->setEnabled(false);
  connect(rules_, &QRadioButton::toggled, open, [this, open](bool on) { open->setEnabled(on != (now_ == FileQuantizers::kRules)); });
  connect(buttons, &QDialogButtonBox::accepted, this, &QuantizersDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  layout->addWidget(hint);
  layout->addStretch(1);
  layout->addSpacing(8);
  layout->addWidget(buttons);
}

void QuantizersDialog::accept() {
  const auto chosen = rules_->isChecked() ? FileQuantizers::kRules : FileQuantizers::kNodes;
  QDialog::accept();
  if (chosen != now_) Q_EMIT wanted(chosen);
}

}  // namespace quanvas
