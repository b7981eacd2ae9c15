// Quanvas - the distribution of one site of the selected layer, with its quantizer; its clip limits can be dragged.
#pragma once

#include <optional>
#include <vector>

#include <QTimer>

#include "core/recipe/quant_spec.h"
#include "core/report/report.h"
#include "widgets/charts/histogram_chart.h"
#include "widgets/panels/panel.h"

class QComboBox;
class QStackedLayout;
class QToolButton;

namespace quanvas {

class EmptyState;

class DistributionPanel : public Panel {
  Q_OBJECT

 public:
  struct Source {
    Site site;
    QString title;                   // "Weight", "Input", "Input 2"
    std::optional<QuantSpec> spec;   // what the recipe gives it; none: float
    bool is_activation = false;
  };

  explicit DistributionPanel(QWidget* parent = nullptr);

  // The sites of the layer; empty: nothing selected. The chosen kind of site is kept where possible.
  void set_sources(const QString& layer, const std::vector<Source>& sources);
  std::optional<Site> current_site() const;
  void set_current_kind(SiteKind kind);
  void set_histogram(const Histogram& histogram);  // ignored unless it is of the current site
  void set_message(const Site& site, const QString& sentence);  // could not be had
  HistogramChart* chart() const { return chart_; }
  QComboBox* selector() const { return selector_; }
  // How the limits of this spec may be dragged, and why not.
  static ClipMode clip_mode(const std::optional<QuantSpec>& spec);

 Q_SIGNALS:
  void site_changed(const quanvas::Site& site);   // its histogram is wanted
  // finished: the mouse was released.
  void clip_changed(const quanvas::Site& site, double lo, double hi, bool finished);
  void calibrate_wanted();

 private:
  void show_source();
  void say_waiting();
  void update_subtitle();
  const Source* source() const;

  QString layer_;
  std::vector<Source> sources_;
  std::optional<Histogram> histogram_;
  HistogramChart* chart_;
  QComboBox* selector_;
  QToolButton* log_;
  QStackedLayout* stack_;
  EmptyState* empty_;
  QTimer waiting_;   // an answer that comes soon replaces the picture before it without a flash
};

}  // namespace quanvas
