// Quanvas - the inspector: the quantizer of the selected layers' sites as a generated form, live facts, and why
// it is so. Shows an InspectorState, emits what the user wants; the state comes back changed.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "widgets/models/recipe_edits.h"
#include "widgets/panels/inspector_state.h"
#include "widgets/panels/panel.h"

class QComboBox;
class QGridLayout;
class QLabel;
class QStackedLayout;
class QTabBar;
class QToolButton;

namespace quanvas {

class EmptyState;
class FactsView;
class SchemaForm;

class InspectorPanel : public Panel {
  Q_OBJECT

 public:
  explicit InspectorPanel(QWidget* parent = nullptr);

  void set_state(const InspectorState& state);
  const InspectorState& state() const { return state_; }
  void set_current_kind(SiteKind kind);
  SiteKind current_kind() const;

  SchemaForm* form() const { return form_; }
  QComboBox* preset_combo() const { return preset_; }
  QToolButton* float_button() const { return float_; }
  QTabBar* tabs() const { return tabs_; }
  QComboBox* site_combo() const { return which_; }  // one of several sites of a kind; hidden where there is only one
  QString why_text() const;     // as shown, without markup
  QString share_text() const;   // with whom the quantizer is shared; empty: with none
  QString facts_text() const;   // "SQNR of the weight: 19.6 dB\n..."

 Q_SIGNALS:
  // One undo step. merge_key not empty: consecutive edits with the same key are one step.
  void assign(const std::vector<quanvas::Assignment>& assignments, const QString& label, const QString& merge_key);
  // A rule for all layers of a type or all layers, to stand last.
  void rule_added(const quanvas::Rule& rule, const QString& label);
  void rule_wanted(const quanvas::Rule& draft);       // opens the rule dialog
  void reset_wanted(const std::vector<quanvas::Site>& sites);
  // These sites shall share one quantizer, or each have its own.
  void share_wanted(const std::vector<quanvas::Site>& sites, bool share);
  void calibrate_wanted();
  void kind_changed(quanvas::SiteKind kind);          // another tab

 private:
  void build();
  QWidget* build_preset_row();
  const InspectorTab* whole_tab() const;
  const InspectorTab* tab() const;
  void show_sites();
  void show_tab();
  void show_form(const InspectorTab& tab);
  void show_share(const InspectorTab& tab);
  void show_why(const InspectorTab& tab);
  bool can_share(const InspectorTab& tab) const;
  void show_problem(const QString& sentence, const QString& edited_key);
  void take_edit(const QString& key, const json& value, bool continuous);
  void take_preset(int index);
  void take_float(bool on);
  void take_action(const QString& id);
  void set_all(const InspectorTab& tab, const std::optional<QuantSpec>& spec, const QString& label);
  QString who() const;  // "conv2" or "3 layers"

  InspectorState state_;
  SiteKind kind_ = SiteKind::kWeight;
  int form_kind_ = -1;
  std::map<SiteKind, int> chosen_;  // of the selected layer: 0 all sites of the kind, else the number of one of them
  // What the form shows: new facts alone leave it, and an error in it, as it is.
  std::vector<Site> shown_sites_;
  std::vector<std::optional<QuantSpec>> shown_specs_;
  QStackedLayout* stack_;
  QWidget* content_;
  EmptyState* empty_;
  QTabBar* tabs_;
  QComboBox *preset_, *which_;
  QToolButton *float_, *all_fields_;
  SchemaForm* form_;
  QLabel *tensor_, *clip_, *share_, *problem_, *why_, *actions_;
  FactsView* facts_;
};

}  // namespace quanvas
