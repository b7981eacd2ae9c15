// Quanvas - editors of one option: the control that fits a Field of a Schema. GUI thread; the parent owns them.
#pragma once

#include <functional>

#include <QWidget>

#include "core/base/schema.h"

namespace quanvas {

class FieldEditor : public QWidget {
  Q_OBJECT

 public:
  // bool: check box; integer of up to 32 values: slider and spin box; integer and real: number field (empty =
  // null when the default is null); choice: combo box; text: line edit, with a browse button for paths.
  static FieldEditor* create(const Field& field, QWidget* parent);

  // Shows the value without emitting. A value of the wrong type shows as the field's default.
  virtual void set_value(const json& value) = 0;
  // Several values at once: the control says "mixed" until it is edited.
  virtual void set_mixed(bool mixed) = 0;
  // Why a value cannot be taken now (a sentence), or nothing. Choices that are refused cannot be picked and show the
  // sentence; other editors take every value and leave it to whoever listens. The function is asked at once and not kept.
  virtual void mark_refused(const std::function<QString(const json&)>& /*refusal*/) {}
  // The control that takes the focus and carries the accessible name.
  virtual QWidget* focus_widget() const = 0;

 Q_SIGNALS:
  // continuous: one of a series (slider drag, spin box steps) that undo should merge.
  void edited(const quanvas::json& value, bool continuous);
  // What was typed is no value: a sentence; empty: fine again.
  void rejected(const QString& sentence);

 protected:
  explicit FieldEditor(QWidget* parent) : QWidget(parent) {}
};

}  // namespace quanvas
