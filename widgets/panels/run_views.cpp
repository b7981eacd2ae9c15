#include "widgets/panels/run_views.h"

#include <algorithm>
#include <cmath>

#include <QHeaderView>
#include <QLabel>
#include <QPlainTextEdit>
#include <QTabWidget>
#include <QTableWidget>
#include <QVBoxLayout>

#include "core/recipe/recipe.h"
#include "core/report/target_lens.h"
#include "widgets/charts/curve_chart.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/runs_model.h"
#include "widgets/models/table_fit.h"
#include "widgets/models/table_text.h"

namespace quanvas {
namespace {

constexpr int kHeaderRoom = 16;  // a sort arrow, and a larger font than the layer table has

QString qs(const std::string& s) { return QString::fromStdString(s); }

QTableWidget* make_table(const QStringList& titles, QWidget* parent, const QString& name) {
  auto* table = new QTableWidget(0, static_cast<int>(titles.size()), parent);
  table->setHorizontalHeaderLabels(titles);
  table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->setShowGrid(false);
  table->setWordWrap(false);
  table->setAccessibleName(name);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(25);
  table->horizontalHeader()->setHighlightSections(false);
  table->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
  table->setItemDelegate(new RowDelegate(table));
  add_copy_actions(table, table->horizontalHeader());
  table->setContextMenuPolicy(Qt::ActionsContextMenu);
  return table;
}

void right_align_titles(QTableWidget* table, int first, int last) {
  for (int c = first; c <= last; ++c) table->horizontalHeaderItem(c)->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
}

// A cell that sorts by its number (nan last), not by its text.
class NumberItem : public QTableWidgetItem {
 public:
  NumberItem(const QString& text, double value) : QTableWidgetItem(text), value_(value) {
    setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
  }
  bool operator<(const QTableWidgetItem& other) const override {
    const double v = static_cast<const NumberItem&>(other).value_;
    return std::isnan(v) ? !std::isnan(value_) : value_ < v;
  }

 private:
  double value_;
};

void add_row(QTableWidget* table, const std::vector<QTableWidgetItem*>& items) {
  const int row = table->rowCount();
  table->insertRow(row);
  for (std::size_t i = 0; i < items.size(); ++i) table->setItem(row, static_cast<int>(i), items[i]);
}

QTableWidgetItem* text_item(const QString& text) { return new QTableWidgetItem(text); }

QTableWidgetItem* delta_item(double delta, int decimals, bool more_is_good) {
  auto* item = new NumberItem(signed_text(delta, decimals), delta);
  if (std::isfinite(delta) && delta != 0)
    item->setForeground((delta > 0) == more_is_good ? colors().good : colors().warning);
  return item;
}

double sqnr_of(const std::optional<LayerResult>& l, std::optional<TensorError> LayerResult::*field) {
  return l && (*l).*field ? ((*l).*field)->sqnr_db : std::nan("");
}
NumberItem* db_item(double v) { return new NumberItem(number_text(v, 1), v); }

double isolated_delta(const LayerDelta& d) {
  const double a = sqnr_of(d.a, &LayerResult::isolated), b = sqnr_of(d.b, &LayerResult::isolated);
  return a == b ? 0 : b - a;  // two lossless layers do not differ
}

QString formats(const std::optional<LayerResult>& l) {
  if (!l) return missing_text();
  const auto or_float = [](const std::string& s) { return s.empty() ? RunCompareView::tr("float") : qs(s); };
  return or_float(l->weight_format) + QStringLiteral(" ") + or_float(l->activation_format);
}

QWidget* text_page(const QString& text, QWidget* parent) {
  auto* edit = new QPlainTextEdit(text, parent);
  edit->setReadOnly(true);
  edit->setFrameShape(QFrame::NoFrame);
  return edit;
}

}  // namespace

RunCompareView::RunCompareView(const Run& a, const Run& b, QWidget* parent) : QWidget(parent), comparison_(compare(a, b)) {
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(10);
  name_passes(a, b);
  figures_ = build_figures(a, b);
  layers_ = build_layers();
  auto* recipe = new QLabel(recipe_text(), this);
  recipe->setWordWrap(true);
  recipe->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  const auto heading = [&](const QString& text) {
    auto* label = new QLabel(text, this);
    label->setProperty("role", "title");
    layout->addWidget(label);
  };
  layout->addWidget(figures_);
  heading(tr("Layers, SQNR in dB"));
  layout->addWidget(layers_, 1);
  heading(tr("Recipe, from run %1 to run %2").arg(a.id).arg(b.id));
  layout->addWidget(recipe);
}

QTableWidget* RunCompareView::build_figures(const Run& a, const Run& b) {
  auto* table = make_table({QString(), tr("Run %1").arg(a.id), tr("Run %1").arg(b.id), tr("Δ")}, this, tr("Figures"));
  right_align_titles(table, 1, 3);
  table->setSelectionMode(QAbstractItemView::NoSelection);
  table->setFocusPolicy(Qt::NoFocus);
  const auto top1 = [](const Run& r) { return r.accuracy ? run_accuracy_text(*r.accuracy) : missing_text(); };
  const auto size = [](const Run& r) { return r.bytes > 0 ? bytes_text(r.bytes) : missing_text(); };
  const auto bops = [](const Run& r) { return r.bops > 0 ? si_text(r.bops) : missing_text(); };
  const auto cell = [](const QString& text) {
    auto* item = text_item(text);
    item->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
    return item;
  };
  add_row(table, {text_item(tr("Recipe")), cell(qs(a.name)), cell(qs(b.name)), cell({})});
  const bool tokens = (a.accuracy && has_perplexity(*a.accuracy)) || (b.accuracy && has_perplexity(*b.accuracy));
  add_row(table, {text_item(tokens ? tr("Perplexity") : tr("Top-1, %")), cell(top1(a)), cell(top1(b)),
                  tokens ? delta_item(comparison_.perplexity_delta, 3, false) : delta_item(comparison_.top1_delta * 100, 2, true)});
  const auto change = [](double delta, const QString& text) {
    auto* item = delta_item(delta, 0, false);
    item->setText(std::isnan(delta) ? missing_text() : (delta > 0 ? QStringLiteral("+") : QString()) + text);
    return item;
  };
  add_row(table, {text_item(tr("Size")), cell(size(a)), cell(size(b)), change(comparison_.bytes_delta, bytes_text(comparison_.bytes_delta))});
  add_row(table, {text_item(tr("BOPs")), cell(bops(a)), cell(bops(b)), change(comparison_.bops_delta, si_text(comparison_.bops_delta))});
  table->setFixedHeight(table->horizontalHeader()->sizeHint().height() + 4 * 25 + 2);
  table->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
  return table;
}

QTableWidget* RunCompareView::build_layers() {
  const QString a = QString::number(comparison_.a), b = QString::number(comparison_.b);
  auto* table = make_table({tr("Layer"), tr("Formats %1").arg(a), tr("Formats %1").arg(b), tr("Isolated %1").arg(a), tr("Isolated %1").arg(b), tr("Δ"),
                            tr("Cumulative %1").arg(a), tr("Cumulative %1").arg(b), tr("Δ")}, this, tr("Layers"));
  right_align_titles(table, 3, 8);
  for (int c = 3; c <= 8; ++c)
    table->horizontalHeaderItem(c)->setToolTip(c < 6 ? tr("SQNR in dB at the layer's output when only this layer is quantized")
                                                     : tr("SQNR in dB at the layer's output when all layers are quantized"));
  for (const auto& d : comparison_.layers) {
    auto* name = text_item(qs(d.name));
    name->setData(Qt::UserRole, d.node);
    const QString from = formats(d.a), to = formats(d.b);
    auto* format_b = text_item(to);
    if (from != to) {
      QFont font = text_font(12.5, QFont::DemiBold);
      format_b->setFont(font);
    }
    add_row(table, {name, text_item(from), format_b, db_item(sqnr_of(d.a, &LayerResult::isolated)), db_item(sqnr_of(d.b, &LayerResult::isolated)),
                    delta_item(isolated_delta(d), 1, true),
                    db_item(sqnr_of(d.a, &LayerResult::cumulative)), db_item(sqnr_of(d.b, &LayerResult::cumulative)),
                    delta_item(d.cumulative_delta_db, 1, true)});
  }
  table->horizontalHeader()->setSortIndicatorClearable(true);
  table->horizontalHeader()->setSortIndicator(-1, Qt::AscendingOrder);  // the order of the network
  table->setSortingEnabled(true);
  // Names get what the figures leave, and are told apart by their ends.
  for (int c = 1; c < table->columnCount(); ++c) table->setColumnWidth(c, needed_width(*table, c) + kHeaderRoom);
  table->horizontalHeader()->setSectionResizeMode(0, QHeaderView::Stretch);
  table->setTextElideMode(Qt::ElideLeft);
  connect(table, &QTableWidget::itemSelectionChanged, this, [this, table] {
    if (const auto* item = table->item(table->currentRow(), 0)) Q_EMIT layer_clicked(item->data(Qt::UserRole).toInt());
  });
  return table;
}

// Recipes know passes by id, runs by what they are called.
void RunCompareView::name_passes(const Run& a, const Run& b) {
  for (auto& line : comparison_.recipe_differences)
    for (const Run* run : {&a, &b})
      for (const auto& p : run->passes) {
        const std::string with_id = "pass " + p.id;
        if (p.title.empty() || !(line + " ").starts_with(with_id + " ")) continue;
        line = "pass " + p.title + line.substr(with_id.size());
        break;
      }
}

QString RunCompareView::recipe_text() const {
  if (comparison_.recipe_differences.empty()) return tr("No difference.");
  QStringList lines;
  for (const auto& d : comparison_.recipe_differences) lines << qs(d);
  return lines.join(u'\n');
}

RunDetailsView::RunDetailsView(const Run& run, QWidget* parent) : QWidget(parent), tabs_(new QTabWidget(this)) {
  auto* tabs = tabs_;
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(tabs);
  auto* figures = make_table({tr("Figure"), tr("Value")}, tabs, tr("Figures"));
  const auto figure = [&](const QString& name, const QString& value) { add_row(figures, {text_item(name), text_item(value)}); };
  figure(tr("Started"), local_time_text(run.created));
  figure(tr("Took"), duration_text(run.seconds));
  if (run.accuracy) {
    const auto& a = *run.accuracy;
    const bool tokens = has_perplexity(a);
    figure(tokens ? tr("Windows") : tr("Samples"), count_text(a.samples));
    if (tokens) {
      figure(tr("Tokens that were scored"), count_text(a.tokens));
      figure(tr("Perplexity"), run_accuracy_text(a));
      figure(tr("Loss, nats per token"), QStringLiteral("%1 ± %2").arg(number_text(a.loss, 4), number_text(a.loss_stderr, 4)));
    } else {
      figure(tr("Top-1, %"), run_accuracy_text(a));
      figure(tr("Top-5, %"), number_text(a.top5 * 100, 2));
      figure(tr("Loss, nats"), significant_text(a.loss, 4));
    }
    figure(tokens ? tr("Same token as float") : tr("Same class as float"), percent_text(a.agreement));
    figure(tr("SQNR of the output"), db_text(a.output_sqnr_db));
  }
  figure(tr("Size"), change_text(bytes_text(run.bytes_float), bytes_text(run.bytes)));
  figure(tr("BOPs"), run.bops > 0 ? si_text(run.bops) : missing_text());
  for (const auto& [key, value] : run.versions) figure(qs(key), qs(value));
  figure(tr("Model"), qs(run.model_hash));
  figure(tr("Data"), qs(run.data_hash));
  figures->resizeColumnToContents(0);
  figures->horizontalHeader()->setStretchLastSection(true);
  tabs->addTab(figures, tr("Figures"));

  auto* passes = make_table({tr("Pass, layer"), tr("What it did"), tr("Before"), tr("After"), tr("Time")}, tabs, tr("Passes"));
  for (const auto& p : run.passes) {
    add_row(passes, {text_item(qs(p.title)), text_item(qs(p.summary)), text_item({}), text_item({}), new NumberItem(duration_text(p.seconds), p.seconds)});
    QFont bold = passes->font();
    bold.setBold(true);
    passes->item(passes->rowCount() - 1, 0)->setFont(bold);
    for (const auto& l : p.layers) {
      const auto number = [&](double v) {
        auto* item = new NumberItem(std::isnan(v) ? missing_text() : significant_text(v, 4), v);
        item->setToolTip(qs(p.measure));
        return item;
      };
      QString note = qs(l.note);
      if (note.isEmpty()) note = qs(p.measure);
      add_row(passes, {text_item(QStringLiteral("    ") + qs(l.layer)), text_item(note), number(l.before), number(l.after), text_item({})});
    }
  }
  passes->setWordWrap(true);
  passes->resizeColumnsToContents();
  passes->horizontalHeader()->setSectionResizeMode(1, QHeaderView::Stretch);
  passes->resizeRowsToContents();
  tabs->addTab(passes, tr("Passes"));

  auto* issues = make_table({tr("Where"), tr("What"), tr("What to do")}, tabs, tr("Issues"));
  for (const auto& i : run.issues) add_row(issues, {text_item(qs(i.where)), text_item(qs(i.message)), text_item(qs(i.hint))});
  issues->resizeColumnToContents(0);
  issues->horizontalHeader()->setSectionResizeMode(1, QHeaderView::Stretch);
  issues->horizontalHeader()->setSectionResizeMode(2, QHeaderView::Stretch);
  issues->setWordWrap(true);
  issues->resizeRowsToContents();
  tabs->addTab(issues, run.issues.empty() ? tr("Issues") : tr("Issues (%1)").arg(run.issues.size()));

  if (!run.curve.empty()) {
    auto* curve = new CurveChart(tabs);
    curve->set_points(run.curve);
    tabs->addTab(curve, tr("Training"));
  }
  tabs->addTab(text_page(qs(recipe_to_yaml(run.recipe)), tabs), tr("Recipe"));
}

void RunDetailsView::set_exports(const std::vector<ExportReport>& reports) {
  if (reports.empty() || exports_) return;
  exports_ = make_table({tr("Target"), tr("File"), tr("Size"), tr("Exactness"), tr("Quantizers"), tr("Tensors"), tr("Same class"), tr("Accuracy"), tr("First that differs")}, tabs_, tr("Exports"));
  const auto of = [](std::ptrdiff_t part, std::size_t whole) { return whole == 0 ? missing_text() : tr("%1 of %2").arg(part).arg(whole); };
  for (const ExportReport& r : reports) {
    const auto kept = std::count_if(r.audit.begin(), r.audit.end(), [](const AuditRow& a) { return a.equal; });
    const auto same = std::count_if(r.nodes.begin(), r.nodes.end(), [](const NodeAudit& n) { return n.differing == 0; });
    const bool differs = r.first_difference >= 0 && r.first_difference < static_cast<int>(r.nodes.size());
    const std::string both = both_accuracies(r);
    const NodeAudit* first = differs ? &r.nodes[static_cast<std::size_t>(r.first_difference)] : nullptr;
    add_row(exports_, {text_item(qs(r.target)), text_item(qs(r.path)), new NumberItem(bytes_text(r.file_bytes), r.file_bytes),
                       text_item(r.exactness ? QString::fromLatin1(enum_text(*r.exactness)) : missing_text()), text_item(of(kept, r.audit.size())),
                       text_item(of(same, r.nodes.size())), text_item(r.checked_samples > 0 ? percent_text(r.equal_predictions) : missing_text()),
                       text_item(both.empty() ? missing_text() : qs(both)),
                       text_item(first ? tr("%1, %2: %3 steps").arg(qs(first->layer), qs(first->what), significant_text(first->max_steps)) : missing_text())});
  }
  exports_->resizeColumnsToContents();
  tabs_->addTab(exports_, tr("Exports (%1)").arg(reports.size()));
}

}  // namespace quanvas
