// The layer table: the filter language row by row, the panel's selection, sorting and copying, and that 10,000
// layers stay quick.
#include <gtest/gtest.h>

#include <cmath>

#include <QElapsedTimer>
#include <QHeaderView>
#include <QItemSelectionModel>
#include <QLineEdit>
#include <QSignalSpy>
#include <QTableView>
#include <QTest>

#include "tests/widgets/panel_sample.h"
#include "widgets/models/table_text.h"
#include "widgets/panels/layers_panel.h"

namespace quanvas {
namespace {

struct FilterRow {
  const char* text;
  const char* names;  // that remain, in graph order
  const char* error = "";
};

QString names_matching(const std::vector<LayerRow>& rows, const LayerFilter& filter) {
  QStringList out;
  for (const auto& r : rows)
    if (filter.matches(r)) out << r.name;
  return out.join(u' ');
}

const char* const kAll = "conv1 relu1 pool1 conv2 relu2 pool2 fc1 fc2 fc3";

TEST(LayerFilterTest, UnderstandsWordsAndConditions) {
  auto p = sample::project();
  QuantSpec wide = p.spec(p.weight("conv1"));
  wide.bits = 8;
  p.set(with_assignment(p.recipe, *p.net.graph, {p.weight("conv1")}, wide));
  p.set(with_assignment(p.recipe, *p.net.graph, {p.weight("fc3")}, std::nullopt));
  auto rows = sample::rows(p);
  rows[0].stale = true;
  const FilterRow table[] = {
      {"", kAll},
      {"   ", kAll},
      {"conv", "conv1 conv2"},
      {"CONV", "conv1 conv2"},
      {"gemm", "fc1 fc2 fc3"},
      {"conv 2", "conv2"},
      {"!conv", "relu1 pool1 relu2 pool2 fc1 fc2 fc3"},
      {"!conv !pool", "relu1 relu2 fc1 fc2 fc3"},
      {"fc?", "fc1 fc2 fc3"},
      {"*1", "conv1 relu1 pool1 fc1"},
      {"name:fc*", "fc1 fc2 fc3"},
      {"type:conv,gemm", "conv1 conv2 fc1 fc2 fc3"},
      {"type=relu", "relu1 relu2"},
      {"type!=gemm !pool !relu", "conv1 conv2"},
      {"bits<=4", "conv2 fc1 fc2"},
      {"bits <= 4", "conv2 fc1 fc2"},
      {"bits=8", "conv1"},
      {"bits:8", "conv1"},
      {"bits!=8", "conv2 fc1 fc2"},
      {"!bits<=4", "conv1 relu1 pool1 relu2 pool2 fc3"},
      {"sqnr<20", "fc1 fc2"},
      {"sqnr<20 bits<=4 name:fc1", "fc1"},
      {"wsqnr>40", "conv1 fc3"},
      {"params>10k", "fc1 fc2"},
      {"params>=48000", "fc1"},
      {"abits=8", "conv1"},
      {"is:stale", "conv1"},
      {"is:float type:gemm", ""},
      {"\"conv1\"", "conv1"},
      {"nothing-like-this", ""},
      {"bits<=", kAll, "'bits<=' needs a value, for example bits<=4."},
      {"bits<=four", kAll, "'four' is not a number; bits needs one."},
      {"colour=red", kAll, "Unknown field 'colour'; use name, type, scope, is, bits, abits, params, macs, sqnr, wsqnr."},
      {"name<3", kAll, "'name' is a text; compare it with ':' or '='."},
      {"is:green", kAll, "'is:green' is unknown; use one of: float, quantized, stale, selected."},
      {"!", kAll, "'!' needs a word or a condition after it."},
      {"\"conv", kAll, "The quotation mark is not closed."},
      {"bits<=nan", kAll, "'nan' is not a number; bits needs one."},
      {"<4", kAll, "Unknown field ''; use name, type, scope, is, bits, abits, params, macs, sqnr, wsqnr."},
  };
  for (const auto& row : table) {
    SCOPED_TRACE(row.text);
    const auto filter = LayerFilter::parse(QString::fromUtf8(row.text));
    EXPECT_EQ(filter.error().toStdString(), row.error);
    EXPECT_EQ(names_matching(rows, filter).toStdString(), row.names);
  }
}

class LayersPanelTest : public testing::Test {
 protected:
  LayersPanelTest() {
    panel_.resize(600, 400);
    panel_.set_rows(sample::rows(project_));
    panel_.show();
  }
  QString cell(int row, int column) const { return panel_.table()->model()->index(row, column).data().toString(); }

  sample::Project project_ = sample::project();
  LayersPanel panel_;
};

TEST_F(LayersPanelTest, RowsOfSomeLayersAreReplacedAlone) {
  auto rows = sample::rows(project_);
  panel_.set_rows(rows);
  panel_.set_selection({rows[1].node});
  auto* model = panel_.table()->model();
  QSignalSpy changed(model, &QAbstractItemModel::dataChanged);
  rows[1].weight_sqnr = 12.5;
  rows[3].weight_sqnr = 7.5;
  LayerRow unknown = rows[0];
  unknown.node = 12345;
  panel_.update_rows({rows[1], rows[3], unknown});
  EXPECT_EQ(model->index(1, LayersModel::kWeightSqnr).data().toString(), QStringLiteral("12.5"));
  EXPECT_EQ(model->index(3, LayersModel::kWeightSqnr).data().toString(), QStringLiteral("7.5"));
  EXPECT_EQ(changed.size(), 2);
  EXPECT_EQ(panel_.selection(), std::vector<NodeId>{rows[1].node});
}

TEST_F(LayersPanelTest, ShowsTheLayersAndCountsThem) {
  EXPECT_EQ(panel_.table()->model()->rowCount(), 9);
  EXPECT_EQ(cell(0, LayersModel::kName), QStringLiteral("conv1"));
  EXPECT_EQ(cell(0, LayersModel::kWeight), QStringLiteral("W4"));
  EXPECT_EQ(cell(0, LayersModel::kParameters), QStringLiteral("150"));
  EXPECT_EQ(cell(3, LayersModel::kWeightSqnr), QStringLiteral("19.6"));
  EXPECT_EQ(cell(1, LayersModel::kWeight), QStringLiteral("–"));
  EXPECT_TRUE(panel_.subtitle().startsWith(QStringLiteral("9 of 9")));
}

TEST_F(LayersPanelTest, TypingFiltersAndABadConditionIsSaid) {
  QTest::keyClicks(panel_.filter_box(), QStringLiteral("sqnr<20"));
  EXPECT_EQ(panel_.table()->model()->rowCount(), 2);
  EXPECT_TRUE(panel_.filter_error().isEmpty());
  QTest::keyClicks(panel_.filter_box(), QStringLiteral(" bits<"));
  EXPECT_EQ(panel_.table()->model()->rowCount(), 9) << "a condition that is not understood hides nothing";
  EXPECT_EQ(panel_.filter_error(), QStringLiteral("'bits<' needs a value, for example bits<=4."));
  panel_.filter_box()->clear();
  EXPECT_TRUE(panel_.filter_error().isEmpty());
  QTest::keyClicks(panel_.filter_box(), QStringLiteral("nothing-like-this"));
  EXPECT_EQ(panel_.empty_text(), QStringLiteral("None of the 9 layers matches. Clear the filter"));
  panel_.filter_box()->clear();
  EXPECT_TRUE(panel_.empty_text().isEmpty());
}

TEST_F(LayersPanelTest, OnlyColumnsWithValuesAreShownAndAllFit) {
  auto* table = panel_.table();
  const auto hidden = [&](int column) { return table->isColumnHidden(column); };
  EXPECT_FALSE(hidden(LayersModel::kOutputSqnr));
  auto rows = sample::rows(project_);
  for (auto& row : rows) {
    row.name = QStringLiteral("/layer1/layer1.0/") + row.name + QStringLiteral("/Conv");
    row.short_name = QStringLiteral("layer1.0.") + row.name.section(u'/', 3, 3);
  }
  for (const int width : {506, 420, 700}) {
    SCOPED_TRACE(width);
    LayersPanel other;
    other.resize(width, 400);
    other.show();
    other.set_rows(rows);
    EXPECT_GE(other.table()->horizontalHeader()->length(), other.table()->viewport()->width());
    if (width >= 506) {
      EXPECT_EQ(other.table()->horizontalHeader()->length(), other.table()->viewport()->width()) << "no scroll bar, no room left over";
    }
  }
  for (auto& row : rows) row.weight_sqnr = row.output_sqnr = std::nan("");
  panel_.set_rows(rows);
  EXPECT_TRUE(hidden(LayersModel::kWeightSqnr));
  EXPECT_TRUE(hidden(LayersModel::kOutputSqnr));
  EXPECT_FALSE(hidden(LayersModel::kWeight));
  EXPECT_EQ(table->horizontalHeader()->length(), table->viewport()->width());
  panel_.set_rows(sample::rows(project_));
  EXPECT_FALSE(hidden(LayersModel::kOutputSqnr)) << "values came";
}

TEST_F(LayersPanelTest, SelectionGoesBothWaysWithoutEcho) {
  QSignalSpy spy(&panel_, &LayersPanel::selection_changed);
  panel_.set_selection({project_.id("conv2"), project_.id("fc1")});
  EXPECT_EQ(spy.count(), 0);
  EXPECT_EQ(panel_.selection(), (std::vector<NodeId>{project_.id("conv2"), project_.id("fc1")}));
  auto* table = panel_.table();
  const QRect rect = table->visualRect(table->model()->index(0, 0));
  QTest::mouseClick(table->viewport(), Qt::LeftButton, Qt::NoModifier, rect.center());
  ASSERT_EQ(spy.count(), 1);
  EXPECT_EQ(spy[0][0].value<std::vector<NodeId>>(), std::vector<NodeId>{project_.id("conv1")});
  QTest::mouseClick(table->viewport(), Qt::LeftButton, Qt::ControlModifier, table->visualRect(table->model()->index(3, 0)).center());
  EXPECT_EQ(panel_.selection().size(), 2u);
}

TEST_F(LayersPanelTest, NewValuesOfTheSameLayersKeepTheSelection) {
  panel_.set_selection({project_.id("fc2")});
  project_.set(uniform_recipe(8, 8));
  QSignalSpy spy(&panel_, &LayersPanel::selection_changed);
  panel_.set_rows(sample::rows(project_));
  EXPECT_EQ(panel_.selection(), std::vector<NodeId>{project_.id("fc2")});
  EXPECT_EQ(spy.count(), 0);
  EXPECT_EQ(cell(0, LayersModel::kWeight), QStringLiteral("W8"));
}

TEST_F(LayersPanelTest, UnknownNumbersStayLastInBothDirections) {
  auto* table = panel_.table();
  for (const auto order : {Qt::AscendingOrder, Qt::DescendingOrder}) {
    table->sortByColumn(LayersModel::kOutputSqnr, order);
    EXPECT_EQ(cell(0, LayersModel::kName), order == Qt::AscendingOrder ? QStringLiteral("fc1") : QStringLiteral("fc3"));
    for (int r = 5; r < 9; ++r) EXPECT_EQ(cell(r, LayersModel::kOutputSqnr), QStringLiteral("–"));
  }
}

TEST_F(LayersPanelTest, CopiesWhatIsVisible) {
  panel_.set_selection({project_.id("conv2")});
  auto* table = panel_.table();
  const std::pair<TableFormat, const char*> formats[] = {
      {TableFormat::kTsv, "Layer\tType\tWeight\tAct.\tParams\tWeight SQNR\tOutput SQNR\nconv2\tConv 5×5\tW4\t"},
      {TableFormat::kCsv, "Layer,Type,Weight,Act.,Params,Weight SQNR,Output SQNR\nconv2,Conv 5×5,W4,"},
      {TableFormat::kMarkdown, "| Layer | Type | Weight | Act. | Params | Weight SQNR | Output SQNR |\n| --- | --- | --- | --- | ---: | --- | --- |\n| conv2 |"}};
  for (const auto& [format, start] : formats) {
    const QString text = table_text(*table, *table->horizontalHeader(), format);
    EXPECT_TRUE(text.startsWith(QString::fromUtf8(start))) << text.toStdString();
  }
  const QString csv = table_text(*table, *table->horizontalHeader(), TableFormat::kCsv);
  EXPECT_TRUE(csv.contains(QStringLiteral("\"2,400\""))) << csv.toStdString();
}

TEST(LayersModelTest, TenThousandLayersAreQuick) {
  std::vector<LayerRow> rows(10000);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].node = static_cast<NodeId>(i);
    rows[i].name = QStringLiteral("/model/layers.%1/proj").arg(i);
    rows[i].output_sqnr = static_cast<double>((i * 7919) % 1000) / 20;
  }
  LayersPanel panel;
  panel.resize(600, 400);
  panel.show();
  QElapsedTimer clock;
  clock.start();
  panel.set_rows(rows);
  panel.table()->sortByColumn(LayersModel::kOutputSqnr, Qt::AscendingOrder);
  panel.filter_box()->setText(QStringLiteral("name:*9/proj sqnr<20"));
  panel.set_rows(rows);
  std::vector<NodeId> all;
  for (const auto& r : rows) all.push_back(r.node);
  panel.filter_box()->clear();
  panel.set_selection(all);
  EXPECT_EQ(panel.selection().size(), rows.size());
  EXPECT_LT(clock.elapsed(), 4000) << "sorting, filtering, replacing and selecting 10,000 rows";
}

}  // namespace
}  // namespace quanvas
