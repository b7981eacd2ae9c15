// Quanvas - a form generated from a Schema: one row per field (label, editor, error below). Values in as JSON,
// every edit out as a signal; the form holds no truth of its own. GUI thread.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <QWidget>

#include "core/base/schema.h"

class QGridLayout;
class QLabel;

namespace quanvas {

class FieldEditor;

class SchemaForm : public QWidget {
  Q_OBJECT

 public:
  explicit SchemaForm(QWidget* parent = nullptr);

  // Builds the rows; drops the old ones. Values are the defaults until set_values.
  void set_schema(const Schema& schema);
  const Schema& schema() const { return schema_; }
  // Missing keys show their default. mixed: keys whose fields say "mixed". Values that are shown already leave the
  // editors alone: what is being typed stays.
  void set_values(const json& values, const std::vector<std::string>& mixed = {});
  // What is shown, edits included; keys that are mixed and untouched are left out.
  json values() const;

  // Fields whose enabled_if does not hold are shown disabled with the reason as tooltip (default), or hidden
  // together with choices that have only one value.
  void set_hide_disabled(bool hide);
  bool hides_disabled() const { return hide_disabled_; }
  // Says why a field cannot take a value beside the others as they are; nothing when it can. Asked whenever values
  // change, once for each choice that is shown. Without it every choice can be made.
  using Refusal = std::function<QString(const std::string& key, const json& value)>;
  void set_refusal(Refusal refusal);
  // Says why a field as a whole has no meaning beside the others as they are; nothing when it has. Such a field is
  // disabled with this reason, as one whose enabled_if does not hold.
  using Blocking = std::function<QString(const std::string& key)>;
  void set_blocking(Blocking blocking);
  // Fields that are shown only together with the disabled ones, or when they are not at their default.
  void set_advanced(std::set<std::string> keys);
  // Sentence under a field; empty removes it. A key that the form lacks is ignored.
  void set_error(const std::string& key, const QString& sentence);
  // A quiet sentence under a field that says more about its value; empty removes it.
  void set_note(const std::string& key, const QString& sentence);
  void clear_errors();
  bool has_errors() const;

  FieldEditor* editor(const std::string& key) const;  // nullptr when absent
  QString disabled_reason(const std::string& key) const;  // empty: enabled

 Q_SIGNALS:
  // continuous: one of a series (slider drag) that undo should merge.
  void edited(const QString& key, const quanvas::json& value, bool continuous);

 private:
  struct Row {
    Field field;
    QLabel* label = nullptr;
    FieldEditor* editor = nullptr;
    QLabel *note = nullptr, *error = nullptr;
    QString reason;
  };
  void add_row(const Field& field);
  void take(const std::string& key, const json& value, bool continuous);
  void update_enabled();
  QString reason_of(const Field& field, int depth = 0) const;
  QString condition_text(const Field& other, const std::vector<json>& values) const;
  Row* row(const std::string& key);

  Schema schema_;
  json values_ = json::object();
  std::vector<std::string> mixed_;
  bool filled_ = false;
  Refusal refusal_;
  Blocking blocking_;
  std::set<std::string> advanced_;
  std::vector<Row> rows_;
  QGridLayout* grid_;
  bool hide_disabled_ = false;
};

}  // namespace quanvas
