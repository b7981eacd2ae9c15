// Quanvas - the target lens: what an export target makes of each layer, why, and the quantizers that would mend it.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/report/target_lens.h"
#include "widgets/models/catalog.h"
#include "widgets/panels/panel.h"

class QComboBox;
class QLabel;
class QStackedLayout;
class QTimer;
class QToolButton;
class QTreeWidget;

namespace quanvas {

class EmptyState;
class SchemaForm;

class TargetPanel : public Panel {
  Q_OBJECT

 public:
  explicit TargetPanel(QWidget* parent = nullptr);
  // The choice stays when the target is still there.
  void set_targets(const std::vector<PluginEntry>& targets);
  // Answers the chosen target; layers: names of all of the network. trouble: why the target could not be asked. is_whole:
  // nothing will be added; else a quiet note says so, once it has lasted for kPatienceMs. What is shown already is left
  // alone, so that nothing flickers: whether it was something new. At most kMostRows rows are made, so that an answer never
  // holds the window.
  bool set_refusals(const QString& target, const std::vector<Refusal>& refusals, const std::set<std::string>& layers, const QString& trouble,
                    bool is_whole = true);
  static constexpr int kPatienceMs = 500;
  static constexpr int kMostRows = 300;
  void choose(const QString& id);  // empty: none
  void forget();                   // what was refused is of another project
  void select_layer(const QString& name);  // the layer that is selected elsewhere
  QString target() const;
  json options() const;

  QComboBox* targets() const { return targets_; }
  QTreeWidget* list() const { return list_; }
  QToolButton* options_button() const { return fold_; }
  QToolButton* fix_button() const { return fix_; }
  QToolButton* fix_all_button() const { return fix_all_; }
  QString summary() const;
  QString note() const;  // that numbers are still asked; empty: they are not, or not for long

 Q_SIGNALS:
  void target_chosen(const QString& id, const quanvas::json& options);  // also when an option of it changed
  void fix_wanted(const QString& layer);     // empty: all that can be mended
  void layer_activated(const QString& name);
  void export_wanted(const QString& target);

 private:
  void show_choice();
  void show_options();
  void update_buttons();
  void show_list(const std::set<std::string>& layers);
  void show_end();  // that all is well, or why nothing is known
  QString chosen_layer() const;

  std::vector<PluginEntry> entries_;
  std::vector<LensLayer> lens_;
  // What is shown.
  std::vector<Refusal> refusals_;
  std::set<std::string> layers_;
  QString trouble_;
  bool is_answered_ = false, is_whole_ = false;
  QTimer* patience_;
  QString layer_;  // selected, here or elsewhere
  QComboBox* targets_;
  QToolButton* fold_;
  SchemaForm* options_;
  QLabel *summary_, *note_;
  QTreeWidget* list_;
  QToolButton *fix_, *fix_all_, *export_;
  EmptyState* empty_;
  QStackedLayout* stack_;
};

// "conv1 weight: bit width ..." without the layer's name, for places that show it already.
QString reason_text(const Refusal& refusal);
// "8 bit signed" or "float": what the mending puts there; empty: nothing can.
QString mending_text(const Refusal& refusal);

}  // namespace quanvas
