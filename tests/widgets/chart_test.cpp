// Charts: ticks, dragging the clip limits by mouse and keys, hostile values, pictures in three formats.
#include <gtest/gtest.h>

#include <cmath>

#include <QComboBox>
#include <QFile>
#include <QPainter>
#include <QTemporaryDir>
#include <QTest>

#include "widgets/charts/axis.h"
#include "widgets/charts/chart_export.h"
#include "widgets/charts/curve_chart.h"
#include "widgets/charts/error_bars.h"
#include "widgets/charts/heat_map.h"
#include "widgets/charts/histogram_chart.h"
#include "widgets/panels/distribution_panel.h"

namespace quanvas {
namespace {

TEST(AxisTest, TicksAreNiceAndInside) {
  struct Row {
    double lo, hi;
    int wanted;
    std::vector<double> ticks;
  };
  const Row rows[] = {{-1, 1, 4, {-1, -0.5, 0, 0.5, 1}}, {0, 10, 5, {0, 2, 4, 6, 8, 10}}, {0.03, 0.31, 3, {0.1, 0.2, 0.3}},
                      {1, 1, 4, {}},                     {2, 1, 4, {}},                  {0, INFINITY, 4, {}},
                      {NAN, 1, 4, {}}};
  for (const auto& row : rows) {
    const auto ticks = nice_ticks(row.lo, row.hi, row.wanted);
    ASSERT_EQ(ticks.size(), row.ticks.size()) << row.lo << " " << row.hi;
    for (std::size_t i = 0; i < ticks.size(); ++i) EXPECT_NEAR(ticks[i], row.ticks[i], 1e-12);
  }
  EXPECT_EQ(tick_text(-0.5, {-1, -0.5, 0}), QStringLiteral("−0.5"));
  for (const auto& [count, text] : {std::pair{1.0, "1"}, {100.0, "100"}, {1000.0, "1k"}, {2500.0, "2.5k"}, {1e7, "10M"}})
    EXPECT_EQ(count_tick_text(count), QLatin1String(text));
  EXPECT_LE(nice_ticks(1e300, 1e301, 3).size(), 20u);
}

Histogram sample_histogram() {
  Histogram h;
  h.site = {3, SiteKind::kWeight, 0};
  h.lo = -1;
  h.hi = 1;
  for (int i = 0; i < 40; ++i) h.counts.push_back(std::round(300 * std::exp(-0.01 * (i - 20) * (i - 20))));
  h.total = 2400;
  for (int q = -7; q <= 7; ++q) h.grid.push_back(0.1 * q);
  h.clip_lo = -0.7;
  h.clip_hi = 0.7;
  return h;
}

struct Moved {
  double lo, hi;
  bool finished;
};

class HistogramTest : public testing::Test {
 protected:
  HistogramTest() {
    chart_.resize(460, 200);
    chart_.set_histogram(sample_histogram());
    chart_.show();
    QObject::connect(&chart_, &HistogramChart::clip_changed, &chart_, [this](double lo, double hi, bool finished) { moved_.push_back({lo, hi, finished}); });
  }
  void drag(double from, double to) {
    const int y = chart_.height() / 2;
    QTest::mousePress(&chart_, Qt::LeftButton, {}, QPoint(qRound(chart_.x_of(from)), y));
    QTest::mouseMove(&chart_, QPoint(qRound(chart_.x_of((from + to) / 2)), y));
    QTest::mouseMove(&chart_, QPoint(qRound(chart_.x_of(to)), y));
    QTest::mouseRelease(&chart_, Qt::LeftButton, {}, QPoint(qRound(chart_.x_of(to)), y));
  }
  HistogramChart chart_;
  std::vector<Moved> moved_;
};

TEST_F(HistogramTest, DraggingFollowsTheModeAndEndsOnce) {
  struct Row {
    ClipMode mode;
    double from, to, lo, hi;
  };
  const Row rows[] = {{ClipMode::kSymmetric, 0.7, 0.4, -0.4, 0.4}, {ClipMode::kSymmetric, -0.7, -0.3, -0.3, 0.3}, {ClipMode::kUpper, 0.7, 0.5, 0, 0.5},
                      {ClipMode::kBoth, -0.7, -0.2, -0.2, 0.7},    {ClipMode::kBoth, 0.7, 0.9, -0.7, 0.9}};
  for (const auto& row : rows) {
    chart_.set_histogram(sample_histogram());
    chart_.set_clip_mode(row.mode);
    moved_.clear();
    drag(row.from, row.to);
    ASSERT_GE(moved_.size(), 2u);
    EXPECT_NEAR(moved_.back().lo, row.lo, 0.01);
    EXPECT_NEAR(moved_.back().hi, row.hi, 0.01);
    for (std::size_t i = 0; i < moved_.size(); ++i) EXPECT_EQ(moved_[i].finished, i + 1 == moved_.size());
  }
}

TEST_F(HistogramTest, LimitsNeverCrossZeroAndFixedOnesDoNotMove) {
  chart_.set_clip_mode(ClipMode::kBoth);
  drag(0.7, -0.9);
  ASSERT_FALSE(moved_.empty());
  for (const auto& m : moved_) {
    EXPECT_LE(m.lo, 0);
    EXPECT_GE(m.hi, 0);
    EXPECT_GT(m.hi - m.lo, 0);
  }
  chart_.set_histogram(sample_histogram());
  chart_.set_clip_mode(ClipMode::kFixed);
  moved_.clear();
  drag(0.7, 0.2);
  EXPECT_TRUE(moved_.empty());
}

TEST_F(HistogramTest, AnAnswerDuringTheDragDoesNotPullTheHandle) {
  chart_.set_clip_mode(ClipMode::kSymmetric);
  const int y = chart_.height() / 2;
  QTest::mousePress(&chart_, Qt::LeftButton, {}, QPoint(qRound(chart_.x_of(0.7)), y));
  QTest::mouseMove(&chart_, QPoint(qRound(chart_.x_of(0.3)), y));
  chart_.set_histogram(sample_histogram());  // still says 0.7
  QTest::mouseRelease(&chart_, Qt::LeftButton, {}, QPoint(qRound(chart_.x_of(0.3)), y));
  EXPECT_NEAR(moved_.back().hi, 0.3, 0.01);
}

TEST_F(HistogramTest, KeysMoveTheLimit) {
  chart_.set_clip_mode(ClipMode::kBoth);
  chart_.setFocus();
  QTest::keyClick(&chart_, Qt::Key_Left);
  ASSERT_EQ(moved_.size(), 1u);
  EXPECT_LT(moved_[0].hi, 0.7);
  QTest::keyClick(&chart_, Qt::Key_PageUp);
  QTest::keyClick(&chart_, Qt::Key_Right);
  ASSERT_EQ(moved_.size(), 2u);
  EXPECT_GT(moved_[1].lo, -0.7);
}

TEST_F(HistogramTest, HostileValuesArePaintedWithoutHarm) {
  auto h = sample_histogram();
  std::vector<Histogram> all(7, h);
  all[0].counts.clear();
  all[1].counts = {NAN, INFINITY, -5, 1e300};
  all[2].lo = all[2].hi = 0;
  all[3].lo = NAN;
  all[4].clip_hi = INFINITY;
  all[4].hi = 1e308;
  all[4].lo = -1e308;
  all[5].grid.assign(4096, 0.1);
  all[6].grid = {NAN, -INFINITY};
  for (const auto& bad : all) {
    chart_.set_histogram(bad);
    for (const bool log : {true, false}) {
      chart_.set_log(log);
      EXPECT_FALSE(chart_.grab().isNull());
    }
  }
}

TEST(DistributionPanelTest, ModesFollowTheSpecAndOldAnswersAreIgnored) {
  QuantSpec symmetric, channel, upper, both;
  channel.granularity = Granularity::kChannel;
  upper.is_signed = false;
  both.zero_point = ZeroPointType::kInteger;
  EXPECT_EQ(DistributionPanel::clip_mode(symmetric), ClipMode::kSymmetric);
  EXPECT_EQ(DistributionPanel::clip_mode(channel), ClipMode::kFixed);
  EXPECT_EQ(DistributionPanel::clip_mode(upper), ClipMode::kUpper);
  EXPECT_EQ(DistributionPanel::clip_mode(both), ClipMode::kBoth);
  EXPECT_EQ(DistributionPanel::clip_mode(std::nullopt), ClipMode::kFixed);
  DistributionPanel panel;
  panel.resize(460, 240);
  panel.show();
  panel.set_sources(QStringLiteral("conv2"), {{{3, SiteKind::kWeight, 0}, QStringLiteral("Weight"), symmetric, false}, {{3, SiteKind::kInput, 0}, QStringLiteral("Input"), both, true}});
  auto h = sample_histogram();
  h.site.node = 99;
  panel.set_histogram(h);
  EXPECT_FALSE(panel.chart()->histogram().has_value());
  panel.set_histogram(sample_histogram());
  EXPECT_TRUE(panel.chart()->histogram().has_value());
  EXPECT_EQ(panel.subtitle(), QStringLiteral("conv2 weight, 2,400 values, log counts"));
  panel.set_current_kind(SiteKind::kInput);
  EXPECT_FALSE(panel.chart()->histogram().has_value()) << "the weight's histogram is not the input's";
  Histogram missing;
  missing.site = {3, SiteKind::kInput, 0};
  missing.missing = "Calibrate first.";
  panel.set_histogram(missing);
  EXPECT_FALSE(panel.chart()->isVisible());
}

TEST(ChartsTest, HostileValuesDoNoHarm) {
  HeatMap map;
  map.resize(200, 120);
  HeatMapData data;
  data.rows = {QStringLiteral("a"), QString(400, u'x')};
  data.columns = {QStringLiteral("1"), QStringLiteral("2")};
  data.values = {{NAN, INFINITY}};  // a row too few
  data.outlined = {7, -3, 1};
  map.set_data(data);
  EXPECT_FALSE(map.grab().isNull());
  ErrorBars bars;
  bars.resize(300, 100);
  bars.set_bars({{1, "a", NAN, INFINITY}, {2, "b", -INFINITY, -50}});
  EXPECT_FALSE(bars.grab().isNull());
  CurveChart curve;
  curve.set_points({{1, 0, NAN, 0, NAN}, {2, 0, INFINITY, 0, std::nullopt}});
  EXPECT_FALSE(curve.grab().isNull());
}

TEST(ChartsTest, PicturesAreWrittenBySuffix) {
  QTemporaryDir folder;
  const ChartExport chart{QStringLiteral("c"), [] { return QSize(120, 80); }, [](QPainter* p, const QRect& r) { p->drawRect(r.adjusted(5, 5, -5, -5)); }, {}};
  const std::pair<const char*, const char*> starts[] = {{"svg", "<?xml"}, {"pdf", "%PDF"}, {"png", "\x89PNG"}};
  for (const auto& [suffix, start] : starts) {
    const QString path = folder.filePath(QStringLiteral("c.") + QLatin1String(suffix));
    EXPECT_EQ(save_chart(chart, path), QString());
    QFile file(path);
    ASSERT_TRUE(file.open(QIODevice::ReadOnly));
    EXPECT_TRUE(file.readAll().startsWith(start)) << suffix;
  }
  EXPECT_TRUE(save_chart(chart, folder.filePath(QStringLiteral("c.bmp"))).contains(QStringLiteral(".svg, .pdf, .png")));
  EXPECT_TRUE(save_chart(chart, folder.filePath(QStringLiteral("none/c.svg"))).contains(QStringLiteral("could not be written")));
}

}  // namespace
}  // namespace quanvas
