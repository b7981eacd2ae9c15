#include "widgets/forms/schema_form.h"

#include <algorithm>

#include <QGridLayout>
#include <QLabel>

#include "widgets/forms/field_editor.h"

namespace quanvas {
namespace {

constexpr int kLabelWidth = 92;  // as that of the rows which stand above and below forms

QString qs(const std::string& s) { return QString::fromStdString(s); }

QString choice_title(const Field& field, const json& value) {
  if (value.is_boolean()) return value.get<bool>() ? SchemaForm::tr("on") : SchemaForm::tr("off");
  if (!value.is_string()) return qs(value.dump());
  for (const auto& c : field.choices)
    if (c.value == value) return qs(c.title.empty() ? c.value : c.title);
  return qs(value.get<std::string>());
}

QString label_text(const Field& field) {
  const QString title = qs(field.title.empty() ? field.key : field.title);
  const bool in_editor = field.type == FieldType::kInteger || field.type == FieldType::kText;
  return field.unit.empty() || in_editor ? title : QStringLiteral("%1, %2").arg(title, qs(field.unit));
}

}  // namespace

SchemaForm::SchemaForm(QWidget* parent) : QWidget(parent), grid_(new QGridLayout(this)) {
  grid_->setContentsMargins(0, 0, 0, 0);
  grid_->setHorizontalSpacing(8);
  grid_->setVerticalSpacing(0);
  grid_->setColumnMinimumWidth(0, kLabelWidth);
  grid_->setColumnStretch(1, 1);
}

void SchemaForm::set_schema(const Schema& schema) {
  for (auto& r : rows_)
    for (QWidget* w : {static_cast<QWidget*>(r.label), static_cast<QWidget*>(r.editor), static_cast<QWidget*>(r.note), static_cast<QWidget*>(r.error)}) {
      grid_->removeWidget(w);
      w->hide();
      w->deleteLater();  // an edit may be what made us rebuild
    }
  rows_.clear();
  filled_ = false;
  schema_ = schema;
  for (const auto& f : schema.fields) add_row(f);
  set_values(json::object());
}

void SchemaForm::add_row(const Field& field) {
  Row r;
  r.field = field;
  r.label = new QLabel(label_text(field), this);
  r.label->setProperty("role", "muted");
  r.label->setWordWrap(true);
  r.label->setFixedWidth(kLabelWidth);
  r.editor = FieldEditor::create(field, this);
  r.editor->setObjectName(qs(field.key));
  r.editor->focus_widget()->setAccessibleName(qs(field.title));
  r.editor->focus_widget()->setAccessibleDescription(qs(field.doc));
  r.label->setBuddy(r.editor->focus_widget());
  const auto line_below = [this](const char* role) {
    auto* label = new QLabel(this);
    label->setProperty("role", role);
    label->setWordWrap(true);
    label->hide();
    return label;
  };
  r.note = line_below("muted");
  r.error = line_below("error");
  const int at = static_cast<int>(rows_.size()) * 3;
  grid_->addWidget(r.label, at, 0, Qt::AlignVCenter);
  grid_->addWidget(r.editor, at, 1);
  grid_->addWidget(r.note, at + 1, 1);
  grid_->addWidget(r.error, at + 2, 1);
  grid_->setRowMinimumHeight(at, 0);
  r.editor->setContentsMargins(0, 2, 0, 3);
  const std::string key = field.key;
  connect(r.editor, &FieldEditor::edited, this,
          [this, key](const json& value, bool continuous) { take(key, value, continuous); });
  connect(r.editor, &FieldEditor::rejected, this, [this, key](const QString& s) { set_error(key, s); });
  rows_.push_back(r);
}

void SchemaForm::set_values(const json& values, const std::vector<std::string>& mixed) {
  json wanted = schema_.defaults();
  if (values.is_object())
    for (const auto& [key, value] : values.items())
      if (schema_.find(key)) wanted[key] = value;
  if (filled_ && wanted == values_ && mixed == mixed_) return;
  filled_ = true;
  values_ = std::move(wanted);
  mixed_ = mixed;
  for (auto& r : rows_) {
    r.editor->set_value(values_[r.field.key]);
    r.editor->set_mixed(std::find(mixed.begin(), mixed.end(), r.field.key) != mixed.end());
  }
  update_enabled();
}

json SchemaForm::values() const {
  json out = values_;
  for (const auto& key : mixed_) out.erase(key);
  return out;
}

void SchemaForm::take(const std::string& key, const json& value, bool continuous) {
  values_[key] = value;
  mixed_.erase(std::remove(mixed_.begin(), mixed_.end(), key), mixed_.end());
  set_error(key, {});
  update_enabled();
  Q_EMIT edited(qs(key), value, continuous);
}

SchemaForm::Row* SchemaForm::row(const std::string& key) {
  const auto it = std::find_if(rows_.begin(), rows_.end(), [&](const Row& r) { return r.field.key == key; });
  return it == rows_.end() ? nullptr : &*it;
}

void SchemaForm::set_refusal(Refusal refusal) {
  refusal_ = std::move(refusal);
  update_enabled();
}

void SchemaForm::set_blocking(Blocking blocking) {
  blocking_ = std::move(blocking);
  update_enabled();
}

void SchemaForm::set_advanced(std::set<std::string> keys) {
  advanced_ = std::move(keys);
  update_enabled();
}

void SchemaForm::set_hide_disabled(bool hide) {
  hide_disabled_ = hide;
  update_enabled();
}

QString SchemaForm::reason_of(const Field& field, int depth) const {
  // Conditions may hang on each other; a schema whose conditions go in a circle must end, too.
  if (!field.enabled_if || depth > static_cast<int>(rows_.size())) return {};
  const auto& need = *field.enabled_if;
  const Field* other = schema_.find(need.key);
  if (!other) return {};
  if (std::find(mixed_.begin(), mixed_.end(), need.key) != mixed_.end()) return {};
  const QString outer = reason_of(*other, depth + 1);
  if (!outer.isEmpty()) return outer;
  if (values_.contains(need.key) && std::find(need.values.begin(), need.values.end(), values_[need.key]) != need.values.end())
    return {};
  return condition_text(*other, need.values);
}

// A list of whole numbers is a range: "Only when Accumulator is 4 … 32 bit."
QString SchemaForm::condition_text(const Field& other, const std::vector<json>& values) const {
  QStringList titles;
  if (other.type == FieldType::kInteger && values.size() > 2)
    titles << QStringLiteral("%1 … %2 %3").arg(choice_title(other, values.front()), choice_title(other, values.back()), qs(other.unit)).trimmed();
  else
    for (const auto& v : values) titles << choice_title(other, v);
  return tr("Only when %1 is %2.").arg(qs(other.title), titles.join(tr(" or ")));
}

void SchemaForm::update_enabled() {
  for (auto& r : rows_) {
    r.reason = reason_of(r.field);
    if (r.reason.isEmpty() && blocking_) r.reason = blocking_(r.field.key);
    const bool enabled = r.reason.isEmpty();
    const QString tip = enabled ? qs(r.field.doc) : r.reason + QStringLiteral("\n") + qs(r.field.doc);
    r.editor->setEnabled(enabled);
    r.label->setEnabled(enabled);
    r.editor->setToolTip(tip);
    r.label->setToolTip(tip);
    const bool no_choice = r.field.type == FieldType::kChoice && r.field.choices.size() < 2;
    const bool plain = advanced_.count(r.field.key) && values_.contains(r.field.key) &&
                       values_[r.field.key] == r.field.default_value;
    const bool shown = !hide_disabled_ || (enabled && !no_choice && !plain);
    if (refusal_ && enabled && shown)
      r.editor->mark_refused([&](const json& value) { return refusal_(r.field.key, value); });
    r.editor->setVisible(shown);
    r.label->setVisible(shown);
    r.note->setVisible(shown && !r.note->text().isEmpty());
  }
}

void SchemaForm::set_error(const std::string& key, const QString& sentence) {
  Row* r = row(key);
  if (!r) return;
  r->error->setText(sentence);
  r->error->setVisible(!sentence.isEmpty());
}

void SchemaForm::set_note(const std::string& key, const QString& sentence) {
  Row* r = row(key);
  if (!r || r->note->text() == sentence) return;
  r->note->setText(sentence);
  r->note->setVisible(!sentence.isEmpty() && !r->editor->isHidden());
}

void SchemaForm::clear_errors() {
  for (auto& r : rows_) set_error(r.field.key, {});
}

bool SchemaForm::has_errors() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const Row& r) { return !r.error->text().isEmpty(); });
}

FieldEditor* SchemaForm::editor(const std::string& key) const {
  for (const auto& r : rows_)
    if (r.field.key == key) return r.editor;
  return nullptr;
}

QString SchemaForm::disabled_reason(const std::string& key) const {
  for (const auto& r : rows_)
    if (r.field.key == key) return r.reason;
  return {};
}

}  // namespace quanvas
