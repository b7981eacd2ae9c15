#include "widgets/forms/field_editor.h"

#include <algorithm>
#include <cmath>

#include <QCheckBox>
#include <QComboBox>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QRegularExpression>
#include <QSlider>
#include <QSpinBox>
#include <QStandardItemModel>
#include <QStyledItemDelegate>
#include <QToolButton>
#include <QWheelEvent>

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }

QHBoxLayout* row_layout(QWidget* widget) {
  auto* layout = new QHBoxLayout(widget);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(8);
  return layout;
}

// A wheel over a control inside a scrolling form scrolls the form unless the control has the focus.
template <class Base>
class CalmWheel : public Base {
 public:
  using Base::Base;

 protected:
  void wheelEvent(QWheelEvent* event) override {
    if (this->hasFocus()) Base::wheelEvent(event);
    else event->ignore();
  }
};

class BoolEditor final : public FieldEditor {
 public:
  BoolEditor(const Field& field, QWidget* parent) : FieldEditor(parent), default_(field.default_value) {
    box_ = new QCheckBox(this);
    row_layout(this)->addWidget(box_);
    connect(box_, &QCheckBox::clicked, this, [this] {
      box_->setTristate(false);
      const bool on = box_->checkState() != Qt::Unchecked;
      box_->setText(on ? tr("on") : tr("off"));
      Q_EMIT edited(on, false);
    });
  }
  void set_value(const json& value) override {
    const json& v = value.is_boolean() ? value : default_;
    const bool on = v.is_boolean() && v.get<bool>();
    box_->setTristate(false);
    box_->setChecked(on);
    box_->setText(on ? tr("on") : tr("off"));
  }
  void set_mixed(bool mixed) override {
    if (!mixed) return;
    box_->setTristate(true);
    box_->setCheckState(Qt::PartiallyChecked);
    box_->setText(tr("mixed"));
  }
  void mark_refused(const std::function<QString(const json&)>& refusal) override {
    if (box_->isTristate()) return;
    const QString why = refusal(!box_->isChecked());
    box_->setEnabled(why.isEmpty());
    box_->setToolTip(why.isEmpty() ? QString() : tr("Not now: %1").arg(why));
  }
  QWidget* focus_widget() const override { return box_; }

 private:
  QCheckBox* box_;
  json default_;
};

// What a field's doc says about a value: "Of the training split; 0: all." of 0 "all".
QString word_for(const Field& field, const QString& value) {
  const QRegularExpression pattern(QStringLiteral("\\b%1: ([a-z ]+)[.;,]").arg(value), QRegularExpression::CaseInsensitiveOption);
  const auto match = pattern.match(qs(field.doc));
  return match.hasMatch() ? match.captured(1) : QString();
}
QString word_for_zero(const Field& field) { return field.minimum == 0 ? word_for(field, QStringLiteral("0")) : QString(); }

// A text field claims undo and redo for its own letters. It keeps them while something is typed and not yet taken;
// after that they belong to the window.
bool is_undo(const QEvent* event) {
  if (event->type() != QEvent::ShortcutOverride) return false;
  const auto* key = static_cast<const QKeyEvent*>(event);
  return key->matches(QKeySequence::Undo) || key->matches(QKeySequence::Redo);
}

class MixedSpinBox final : public CalmWheel<QSpinBox> {
 public:
  MixedSpinBox(const QString& unit, QWidget* parent)
      : CalmWheel(parent), unit_(unit.isEmpty() ? QString() : QStringLiteral(" ") + unit) {
    setSuffix(unit_);
    connect(lineEdit(), &QLineEdit::textEdited, this, [this] {
      typed_ = true;
      typed_over_ = typed_over_ || mixed_;
      mixed_ = false;
    });
    connect(this, &QSpinBox::editingFinished, this, [this] { typed_ = false; });
  }
  void set_mixed(bool mixed) {
    mixed_ = mixed;
    typed_ = typed_over_ = false;
    setSuffix(mixed ? QString() : unit_);  // writes the text anew, too
  }
  // A number was typed over "mixed", maybe the one that was there below it.
  bool typed_over() const { return typed_over_; }

 protected:
  QString textFromValue(int value) const override {
    return mixed_ ? FieldEditor::tr("mixed") : QSpinBox::textFromValue(value);
  }
  int valueFromText(const QString& text) const override {
    QString number = text;
    if (!unit_.isEmpty() && number.endsWith(unit_)) number.chop(unit_.size());
    number.replace(QChar(0x2212), u'-').remove(locale().groupSeparator());
    bool ok = false;
    const int v = number.trimmed().toInt(&ok);
    return ok ? v : value();
  }
  QValidator::State validate(QString& text, int& position) const override {
    if (mixed_ && text == FieldEditor::tr("mixed")) return QValidator::Acceptable;
    return QSpinBox::validate(text, position);
  }
  void stepBy(int steps) override {
    if (mixed_) set_mixed(false);  // Qt steps only from a text that is a number
    QSpinBox::stepBy(steps);
  }
  bool event(QEvent* event) override {
    if (!typed_ && is_undo(event)) {
      event->ignore();
      return false;
    }
    return CalmWheel::event(event);
  }
  // Qt would take what is typed here, too, also while the window is being destroyed; the loss of the focus takes it.
  void hideEvent(QHideEvent* event) override { QWidget::hideEvent(event); }

 private:
  QString unit_;
  bool mixed_ = false, typed_ = false, typed_over_ = false;
};

class IntegerEditor final : public FieldEditor {
 public:
  IntegerEditor(const Field& field, QWidget* parent) : FieldEditor(parent), default_(field.default_value) {
    const int lo = static_cast<int>(field.minimum.value_or(-1e9));
    const int hi = static_cast<int>(field.maximum.value_or(1e9));
    auto* layout = row_layout(this);
    if (hi - lo <= 32) {
      slider_ = new CalmWheel<QSlider>(Qt::Horizontal, this);
      slider_->setRange(lo, hi);
      slider_->setPageStep(2);
      slider_->setMinimumWidth(60);
      slider_->setAccessibleName(qs(field.title));
      layout->addWidget(slider_, 1);
      connect(slider_, &QSlider::valueChanged, this, [this](int v) { take(v); });
    }
    // Beside a slider there is little room, and the label says what is counted.
    spin_ = new MixedSpinBox(slider_ ? QString() : qs(field.unit), this);
    spin_->setRange(lo, hi);
    spin_->setSpecialValueText(word_for_zero(field));
    spin_->setKeyboardTracking(false);
    spin_->setLocale(QLocale(QLocale::English, QLocale::UnitedStates));  // "6,000", as everywhere
    spin_->setGroupSeparatorShown(true);
    spin_->setButtonSymbols(slider_ ? QAbstractSpinBox::NoButtons : QAbstractSpinBox::UpDownArrows);
    // A number of three digits, or the word for zero.
    constexpr int kLeast = 62, kMargins = 30;
    if (slider_) spin_->setFixedWidth(std::max(kLeast, spin_->fontMetrics().horizontalAdvance(spin_->specialValueText()) + kMargins));
    layout->addWidget(spin_, slider_ ? 0 : 1);
    connect(spin_, &QSpinBox::valueChanged, this, [this](int v) { take(v); });
    connect(spin_, &QSpinBox::editingFinished, this, [this] { take_typed(); });
  }
  void set_value(const json& value) override {
    const json& v = value.is_number() ? value : default_;
    show(v.is_number() ? static_cast<int>(v.get<double>()) : 0, false);
  }
  void set_mixed(bool mixed) override { show(spin_->value(), mixed); }
  QWidget* focus_widget() const override { return spin_; }

 private:
  void show(int v, bool mixed) {
    const QSignalBlocker a(spin_);
    spin_->set_mixed(false);
    spin_->setValue(v);
    spin_->set_mixed(mixed);
    if (!slider_) return;
    const QSignalBlocker b(slider_);
    slider_->setValue(v);
    slider_->setProperty("mixed", mixed);
  }
  void take(int v) {
    show(v, false);
    Q_EMIT edited(v, true);
  }
  void take_typed() {
    if (spin_->typed_over()) take(spin_->value());
  }

  QSlider* slider_ = nullptr;
  MixedSpinBox* spin_;
  json default_;
};

// Reals, integers of a large range that may be empty.
class NumberEditor final : public FieldEditor {
 public:
  NumberEditor(const Field& field, QWidget* parent) : FieldEditor(parent), field_(field) {
    edit_ = new QLineEdit(this);
    edit_->installEventFilter(this);
    edit_->setPlaceholderText(field.default_value.is_null() ? tr("automatic") : QString());
    auto* layout = row_layout(this);
    layout->addWidget(edit_, 1);
    if (field.type == FieldType::kInteger && !field.unit.empty()) {  // of real numbers it stands in the label
      auto* unit = new QLabel(qs(field.unit), this);
      unit->setProperty("role", "muted");
      layout->addWidget(unit);
    }
    connect(edit_, &QLineEdit::editingFinished, this, [this] { take(); });
    connect(edit_, &QLineEdit::textEdited, this, [this] { touched_ = true; });
  }
  void set_value(const json& value) override {
    touched_ = false;
    const auto number = real_from(value);
    edit_->setPlaceholderText(field_.default_value.is_null() ? tr("automatic") : QString());
    const bool whole = number && field_.type == FieldType::kInteger;
    edit_->setText(!number ? QString() : whole ? QString::number(*number, 'f', 0) : QString::number(*number, 'g', 9));
  }
  void set_mixed(bool mixed) override {
    if (!mixed) return;
    touched_ = false;
    edit_->clear();
    edit_->setPlaceholderText(tr("mixed"));
  }
  QWidget* focus_widget() const override { return edit_; }
  bool eventFilter(QObject* object, QEvent* event) override {
    if (object != edit_ || touched_ || !is_undo(event)) return FieldEditor::eventFilter(object, event);
    event->ignore();
    return true;
  }

 private:
  QString legal() const {
    return tr("Give a number between %1 and %2.")
        .arg(field_.minimum.value_or(-INFINITY))
        .arg(field_.maximum.value_or(INFINITY));
  }
  void take() {
    if (!touched_) return;
    touched_ = false;
    const QString text = edit_->text().trimmed().replace(QChar(0x2212), u'-');
    if (text.isEmpty() && field_.default_value.is_null()) {
      Q_EMIT rejected({});
      Q_EMIT edited(json(), false);
      return;
    }
    bool ok = false;
    const double v = text.toDouble(&ok);
    const bool whole = field_.type != FieldType::kInteger || v == std::floor(v);
    if (!ok || !std::isfinite(v) || !whole || v < field_.minimum.value_or(-INFINITY) ||
        v > field_.maximum.value_or(INFINITY)) {
      Q_EMIT rejected(whole ? legal() : tr("Give a whole number."));
      return;
    }
    Q_EMIT rejected({});
    if (field_.type == FieldType::kInteger) Q_EMIT edited(static_cast<std::int64_t>(v), false);
    else Q_EMIT edited(v, false);
  }

  Field field_;
  QLineEdit* edit_;
  bool touched_ = false;
};

class ChoiceEditor final : public FieldEditor {
 public:
  ChoiceEditor(const Field& field, QWidget* parent) : FieldEditor(parent), default_(field.default_value) {
    combo_ = new CalmWheel<QComboBox>(this);
    combo_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    combo_->setMinimumContentsLength(8);
    combo_->setItemDelegate(new QStyledItemDelegate(combo_));  // the one that the style sheet reaches
    for (const auto& c : field.choices) {
      docs_ << qs(c.doc);
      combo_->addItem(qs(c.title.empty() ? c.value : c.title), qs(c.value));
      if (!c.doc.empty()) combo_->setItemData(combo_->count() - 1, qs(c.doc), Qt::ToolTipRole);
    }
    row_layout(this)->addWidget(combo_, 1);
    connect(combo_, &QComboBox::activated, this,
            [this](int i) { Q_EMIT edited(combo_->itemData(i).toString().toStdString(), false); });
  }
  void set_value(const json& value) override {
    const json& v = value.is_string() ? value : default_;
    combo_->setPlaceholderText({});
    combo_->setCurrentIndex(v.is_string() ? combo_->findData(qs(v.get<std::string>())) : -1);
  }
  void set_mixed(bool mixed) override {
    if (!mixed) return;
    combo_->setPlaceholderText(tr("mixed"));
    combo_->setCurrentIndex(-1);
  }
  void mark_refused(const std::function<QString(const json&)>& refusal) override {
    const auto* items = qobject_cast<QStandardItemModel*>(combo_->model());
    for (int i = 0; items && i < combo_->count(); ++i) {
      const QString why = i == combo_->currentIndex() ? QString() : refusal(combo_->itemData(i).toString().toStdString());
      items->item(i)->setEnabled(why.isEmpty());
      combo_->setItemData(i, why.isEmpty() ? docs_[i] : tr("Not now: %1").arg(why), Qt::ToolTipRole);
    }
  }
  QWidget* focus_widget() const override { return combo_; }

 private:
  QComboBox* combo_;
  QStringList docs_;
  json default_;
};

enum class PathKind { kNone, kFile, kFolder };
// Texts that name a file or folder get a browse button: by unit, else by the key.
PathKind path_kind(const Field& field) {
  static const std::pair<const char*, PathKind> kNames[] = {
      {"file", PathKind::kFile}, {"path", PathKind::kFile}, {"images", PathKind::kFile}, {"labels", PathKind::kFile},
      {"data", PathKind::kFile}, {"tokenizer", PathKind::kFile}, {"folder", PathKind::kFolder}, {"directory", PathKind::kFolder}};
  for (const auto& text : {field.unit, field.key})
    for (const auto& [name, kind] : kNames)
      if (text == name) return kind;
  return PathKind::kNone;
}

class TextEditor final : public FieldEditor {
 public:
  TextEditor(const Field& field, QWidget* parent) : FieldEditor(parent), word_for_empty_(word_for(field, QStringLiteral("empty"))) {
    edit_ = new QLineEdit(this);
    edit_->setPlaceholderText(word_for_empty_);
    auto* layout = row_layout(this);
    layout->addWidget(edit_, 1);
    connect(edit_, &QLineEdit::textEdited, this, [this](const QString& text) { Q_EMIT edited(text.toStdString(), true); });
    if (path_kind(field) != PathKind::kNone) layout->addWidget(browse_button(field));
  }
  void set_value(const json& value) override {
    edit_->setPlaceholderText(word_for_empty_);
    const QString text = value.is_string() ? qs(value.get<std::string>()) : value.is_null() ? QString() : qs(value.dump());
    if (text != edit_->text()) edit_->setText(text);  // the echo of an edit leaves the cursor where it is
  }
  void set_mixed(bool mixed) override {
    if (!mixed) return;
    edit_->clear();
    edit_->setPlaceholderText(tr("mixed"));
  }
  QWidget* focus_widget() const override { return edit_; }

 private:
  QToolButton* browse_button(const Field& field) {
    auto* button = new QToolButton(this);
    button->setText(tr("…"));
    button->setToolTip(tr("Choose"));
    button->setAccessibleName(tr("Choose %1").arg(qs(field.title)));
    const bool folder = path_kind(field) == PathKind::kFolder;
    connect(button, &QToolButton::clicked, this, [this, folder] {
      const QString path = folder ? QFileDialog::getExistingDirectory(this, {}, edit_->text())
                                  : QFileDialog::getOpenFileName(this, {}, edit_->text());
      if (path.isEmpty()) return;
      edit_->setText(path);
      Q_EMIT edited(path.toStdString(), false);
    });
    return button;
  }
  QString word_for_empty_;
  QLineEdit* edit_;
};

}  // namespace

FieldEditor* FieldEditor::create(const Field& field, QWidget* parent) {
  switch (field.type) {
    case FieldType::kBool: return new BoolEditor(field, parent);
    case FieldType::kReal: return new NumberEditor(field, parent);
    case FieldType::kChoice: return new ChoiceEditor(field, parent);
    case FieldType::kText: return new TextEditor(field, parent);
    case FieldType::kInteger: break;
  }
  // A spin box cannot be empty, and holds no more than 32 bits.
  const bool large = field.maximum.value_or(1e18) > 2e9 || field.minimum.value_or(-1e18) < -2e9;
  if (field.default_value.is_null() || large) return new NumberEditor(field, parent);
  return new IntegerEditor(field, parent);
}

}  // namespace quanvas
