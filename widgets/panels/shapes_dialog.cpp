#include "widgets/panels/shapes_dialog.h"

#include <QDialogButtonBox>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QVBoxLayout>

#include "core/report/shape_entry.h"
#include "widgets/panels/panel.h"

namespace quanvas {

ShapesDialog::ShapesDialog(const std::vector<InputShape>& inputs, QWidget* parent)
    : QDialog(parent), problem_(new QLabel(this)) {
  setWindowTitle(tr("Input shapes"));
  resize(460, 240);
  auto* hint = new QLabel(tr("The model is read again with these shapes. A dimension of ? stays open; the first one is the batch. An input that is one integer takes its value: branches that ask for it are decided."), this);
  hint->setWordWrap(true);
  hint->setProperty("role", "muted");
  auto* page = new QWidget(this);
  auto* form = new QFormLayout(page);
  form->setContentsMargins(0, 0, 0, 0);
  for (const InputShape& input : inputs) {
    auto* edit = new QLineEdit(input.shape ? QString::fromStdString(shape_entry(*input.shape)) : QString(), page);
    edit->setObjectName(QString::fromStdString(input.name));
    edit->setPlaceholderText(tr("unknown, such as 1,3,224,224"));
    auto* label = new QLabel(QStringLiteral("%1 (%2)").arg(QString::fromStdString(input.name), QLatin1String(type_name(input.type))), page);
    label->setBuddy(edit);
    edit->setAccessibleName(tr("Shape of %1").arg(QString::fromStdString(input.name)));
    form->addRow(label, edit);
    rows_.push_back({input.name, edit->text(), edit});
  }
  problem_->setWordWrap(true);
  problem_->setProperty("role", "error");
  problem_->hide();
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
  buttons->button(QDialogButtonBox::Ok)->setText(tr("Read again"));
  connect(buttons, &QDialogButtonBox::accepted, this, &ShapesDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(10);
  layout->addWidget(hint);
  layout->addWidget(scroll_page(page, this), 1);
  layout->addWidget(problem_);
  layout->addWidget(buttons);
}

void ShapesDialog::accept() {
  std::map<std::string, Shape> shapes;
  for (const Row& row : rows_) {
    if (row.edit->text() == row.before) continue;
    auto shape = parse_shape(row.edit->text().toStdString());
    if (!shape) {
      problem_->setText(tr("%1: %2. %3").arg(QString::fromStdString(row.name), QString::fromStdString(shape.error().message),
                                             QString::fromStdString(shape.error().hint)));
      problem_->show();
      row.edit->setFocus();
      return;
    }
    shapes[row.name] = std::move(*shape);
  }
  if (!shapes.empty()) Q_EMIT shapes_wanted(shapes);
  QDialog::accept();
}

}  // namespace quanvas
