// Quanvas - the layer table with its filter box. Selection is synchronised with other views by node ids.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "widgets/models/layers_model.h"
#include "widgets/panels/panel.h"

class QLabel;
class QLineEdit;
class QTableView;

namespace quanvas {

class LayersPanel : public Panel {
  Q_OBJECT

 public:
  explicit LayersPanel(QWidget* parent = nullptr);

  void set_rows(std::vector<LayerRow> rows);
  void update_rows(const std::vector<LayerRow>& changed);  // of these layers only
  const std::vector<LayerRow>& rows() const { return model_->rows(); }
  const LayerRow* row(NodeId node) const;                  // null: no layer
  // Without emitting selection_changed.
  void set_selection(const std::vector<NodeId>& nodes);
  std::vector<NodeId> selection() const;

  QLineEdit* filter_box() const { return filter_; }
  QTableView* table() const { return table_; }
  QString filter_error() const;
  QString empty_text() const;  // what stands in place of rows; empty when there are some

 Q_SIGNALS:
  void selection_changed(const std::vector<quanvas::NodeId>& nodes);
  void activated(quanvas::NodeId node);   // double click, Enter: show it in the graph
  // spec none: float.
  void format_chosen(const std::vector<quanvas::NodeId>& nodes, quanvas::SiteKind kind,
                     const std::optional<quanvas::QuantSpec>& spec, const QString& label);
  void rule_wanted(const std::vector<quanvas::NodeId>& nodes);

 protected:
  bool eventFilter(QObject* object, QEvent* event) override;

 private:
  void apply_filter(const QString& text);
  void change_rows(const std::function<void()>& change);
  void take_selection();
  void update_subtitle();
  bool show_columns_with_values();  // whether that changed anything
  void fit_columns();  // to the width of the panel; not once a column was dragged
  void show_menu(const QPoint& at);
  void show_columns_menu(const QPoint& at);
  void add_format_menu(class QMenu* menu, SiteKind kind, const std::vector<NodeId>& nodes);

  LayersModel* model_;
  LayersProxy* proxy_;
  QLineEdit* filter_;
  QLabel *error_, *none_;  // none_: over the table when the filter matches nothing
  QTableView* table_;
  bool syncing_ = false, fitting_ = false, own_widths_ = false, new_layers_ = false;
  std::map<int, bool> own_columns_;  // shown or hidden by hand
};

}  // namespace quanvas
