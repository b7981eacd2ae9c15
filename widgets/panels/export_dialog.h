// Quanvas - export: the targets with what they refuse, their options, and after the export the audit of the file:
// requested and written, quantizer by quantizer. Not modal: the answers come later.
#pragma once

#include <map>
#include <vector>

#include <QDialog>

#include "core/report/report.h"
#include "widgets/models/catalog.h"

class QLabel;
class QLineEdit;
class QListWidget;
class QPushButton;
class QSpinBox;
class QTableWidget;
class QTabWidget;

namespace quanvas {

class SchemaForm;

class ExportDialog : public QDialog {
  Q_OBJECT

 public:
  // run: id of the run that is exported, 0: the current recipe. stem: file name without suffix. quantizes: the recipe
  // has quantizers; targets that keep them come first then, else last.
  ExportDialog(const std::vector<PluginEntry>& targets, std::int64_t run, const QString& what, const QString& stem, bool quantizes,
               QWidget* parent = nullptr);
  // Empty list: the target takes everything. Until this came the target says "checking".
  void set_refusals(const QString& target, const std::vector<Refusal>& refusals);
  void set_progress(const QString& text);        // while the export runs
  void set_report(const ExportReport& report);
  void set_failed(const QString& sentence);
  QString current_target() const;
  void select_target(const QString& id);
  QListWidget* list() const { return list_; }
  QTableWidget* audit() const { return audit_; }
  QTableWidget* nodes() const { return nodes_; }
  SchemaForm* options() const { return options_; }
  // Asks what the chosen target refuses, with the options as they are.
  void check_current();
  QPushButton* export_button() const { return export_; }
  QLineEdit* path_box() const { return path_; }
  QSpinBox* samples_box() const { return samples_; }
  QString message() const;

 Q_SIGNALS:
  void check_wanted(const QString& target, const quanvas::json& options);
  void export_wanted(const QString& target, const QString& path, const quanvas::json& options, qint64 run, qint64 samples);

 private:
  void show_target();
  void show_refusals(const std::vector<Refusal>& refusals);
  void show_nodes(const ExportReport& report);
  void browse();
  void start();
  void ask_again();  // whether a file may be replaced: the button exports again
  void say(const char* role, const QString& text);

  std::vector<PluginEntry> targets_;
  std::map<QString, std::vector<Refusal>> refusals_;
  std::int64_t run_;
  QString stem_;
  bool own_path_ = false;  // the user chose the path
  bool running_ = false;
  QString may_replace_;    // the file that the user agreed to replace
  QListWidget* list_;
  QLabel *doc_, *message_;
  SchemaForm* options_;
  QLineEdit* path_;
  QSpinBox* samples_;
  QTabWidget* tabs_;
  QTableWidget *audit_, *nodes_;
  QPushButton* export_;
};

}  // namespace quanvas
