// Quanvas - the recipe as a list of rules, a list of passes with their options, and the calibration settings.
// Shows a Recipe, emits the changed one.
#pragma once

#include <functional>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/report/report.h"
#include "widgets/models/catalog.h"
#include "widgets/panels/panel.h"

class QHBoxLayout;
class QLabel;
class QLineEdit;
class QMenu;
class QToolButton;
class QTreeWidget;
class QVBoxLayout;

namespace quanvas {

class SchemaForm;

class RecipePanel : public Panel {
  Q_OBJECT

 public:
  explicit RecipePanel(QWidget* parent = nullptr);

  // matches: per rule the number of sites that it decides (that it wins).
  void set_recipe(const Recipe& recipe, const std::vector<int>& matches, const std::vector<std::string>& warnings);
  void set_passes(const std::vector<PluginEntry>& passes);
  // What the engine says of the passes of the recipe that is shown.
  void set_issues(const std::vector<RecipeIssue>& issues);
  void set_enabled(bool enabled);
  QMenu* builtin_menu() const { return builtin_; }
  QTreeWidget* rules() const { return rules_; }
  QTreeWidget* passes() const { return passes_; }
  // Names of the selected layers: a pass can be limited to them.
  void set_selected_layers(std::vector<std::string> names);
  SchemaForm* pass_form() const { return pass_form_; }
  SchemaForm* calibration_form() const { return calibration_; }

 Q_SIGNALS:
  void recipe_edited(const quanvas::Recipe& recipe, const QString& label, const QString& merge_key);
  void rule_edit_wanted(int index);      // -1: a new one
  void load_wanted();
  void save_wanted();
  void builtin_wanted(const QString& id);

 private:
  // A heading with a hint and buttons beside it, above what it is about.
  struct Section {
    QWidget* box = nullptr;
    QVBoxLayout* layout = nullptr;
    QHBoxLayout* head = nullptr;
  };
  struct ListTitles {
    QString up, down, remove;
  };
  Section section(const QString& title, const QString& hint);
  void add_button(const Section& section, const char* icon_name, const QString& title, const std::function<void()>& act);
  // Buttons and keys that move the current item by one and remove it.
  void add_list_buttons(const Section& section, QTreeWidget* list, const ListTitles& titles, const std::function<void(int)>& move,
                        const std::function<void(int)>& remove);
  QWidget* build_header();
  QWidget* build_rules();
  QWidget* build_passes();
  QWidget* build_calibration();
  void fill_rules(const std::vector<int>& matches);
  void fill_passes();
  void show_pass_form();
  void show_pass_layers();
  void show_pass_issues();
  void add_issue_line(const QIcon& icon, const QString& text);
  void limit_pass(std::vector<std::string> names, const QString& label);
  void add_rule_item(int index, int matches);
  void edit(const Recipe& recipe, const QString& label, const QString& merge_key = {});
  // Makes the item that is `by` further the current one; -1 when there is none.
  int moved_to(QTreeWidget* list, int by);
  void move_rule(int by);
  void move_pass(int by);
  int current(const QTreeWidget* tree) const;
  QToolButton* tool(const char* icon_name, const QString& title, QWidget* parent);

  Recipe recipe_;
  std::vector<PluginEntry> entries_;
  QLineEdit* name_;
  QMenu *builtin_, *add_pass_;
  QTreeWidget *rules_, *passes_;
  SchemaForm *pass_form_, *calibration_;
  QLabel *pass_doc_, *warnings_, *pass_layers_;
  QWidget *pass_scope_, *pass_issues_;  // which layers the pass may change; what keeps it from running
  QToolButton *pass_all_, *pass_selected_;
  std::vector<std::string> selected_;
  std::vector<RecipeIssue> issues_;
  bool filling_ = false;
};

}  // namespace quanvas
