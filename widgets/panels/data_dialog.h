// Quanvas - declares the data set of a project: a reader with its options for each of the three uses, the range of
// samples, the preprocessing. Not modal: "Apply" sends the declaration, the answer is shown in the dialog.
#pragma once

#include <vector>

#include <QDialog>

#include "core/report/report.h"
#include "widgets/models/catalog.h"

class QComboBox;
class QLabel;
class QLineEdit;
class QTabWidget;

namespace quanvas {

class SchemaForm;

class DataDialog : public QDialog {
  Q_OBJECT

 public:
  // readers: the catalog's data set plug-ins.
  DataDialog(const DataSettings& data, const std::vector<PluginEntry>& readers, QWidget* parent = nullptr);
  // What the dialog says now. Ranges that make no sense are shown at their field.
  DataSettings settings() const;
  // Answer of the engine: how many samples it found, or what is wrong.
  void set_status(bool ok, const QString& sentence);
  QString status() const;

  struct Source {
    QComboBox* reader = nullptr;
    QLabel* doc = nullptr;
    SchemaForm *options = nullptr, *range = nullptr;
  };
  const std::vector<Source>& sources() const { return sources_; }  // calibrate, train, evaluate
  SchemaForm* preprocessing_form() const { return preprocessing_; }

 Q_SIGNALS:
  void apply_wanted(const quanvas::DataSettings& data);

 private:
  QWidget* build_source(const DataSource& source, const QString& purpose, bool copyable);
  QWidget* build_preprocessing(const Preprocessing& preprocessing);
  void show_reader(Source& source, const json& options);
  bool has_errors() const;
  DataSource source_settings(const Source& source) const;
  Preprocessing preprocessing_settings() const;

  std::vector<PluginEntry> readers_;
  std::vector<Source> sources_;
  QLineEdit* name_;
  SchemaForm* preprocessing_ = nullptr;
  QLabel* status_;
};

}  // namespace quanvas
