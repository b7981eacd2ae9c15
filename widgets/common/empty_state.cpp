#include "widgets/common/empty_state.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "widgets/common/icons.h"
#include "widgets/common/theme.h"

namespace quanvas {

EmptyState::EmptyState(const QString& icon_name, const QString& title, const QString& text, QWidget* parent)
    : QWidget(parent),
      icon_name_(icon_name),
      icon_(new QLabel(this)),
      title_(new QLabel(this)),
      text_(new QLabel(this)),
      actions_(new QHBoxLayout) {
  title_->setProperty("role", "title");
  text_->setProperty("role", "muted");
  for (QLabel* label : {icon_, title_, text_}) label->setAlignment(Qt::AlignCenter);
  for (QLabel* label : {title_, text_}) label->setWordWrap(true);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(24, 24, 24, 24);
  column->setSpacing(8);
  column->addStretch(2);
  for (QLabel* label : {icon_, title_, text_}) column->addWidget(label);
  column->addSpacing(4);
  actions_->setAlignment(Qt::AlignCenter);
  actions_->setSpacing(8);
  column->addLayout(actions_);
  column->addStretch(3);
  set_text(title, text);
  repaint_icon();
  connect(&Theme::instance(), &Theme::changed, this, &EmptyState::repaint_icon);
}

void EmptyState::set_text(const QString& title, const QString& text) {
  title_->setText(title);
  text_->setText(text);
  text_->setVisible(!text.isEmpty());
  setAccessibleName(title);
  setAccessibleDescription(text);
}

void EmptyState::set_icon(const QString& icon_name) {
  icon_name_ = icon_name;
  repaint_icon();
}

void EmptyState::repaint_icon() {
  icon_->setPixmap(icon_pixmap(icon_name_, 36, colors().muted, devicePixelRatioF()));
}

QAbstractButton* EmptyState::add_action(const QString& id, const QString& title, const QString& icon_name) {
  const bool main = actions_->isEmpty();
  auto* button = new QPushButton(title, this);
  button->setProperty("primary", main);
  button->setAccessibleName(title);
  if (!icon_name.isEmpty()) button->setIcon(icon(icon_name, main ? IconRole::kOnAccent : IconRole::kText));
  connect(button, &QPushButton::clicked, this, [this, id] { Q_EMIT action_triggered(id); });
  actions_->addWidget(button);
  return button;
}

void EmptyState::clear_actions() {
  while (QLayoutItem* item = actions_->takeAt(0)) {
    delete item->widget();
    delete item;
  }
}

}  // namespace quanvas
