// Draws the graph as a user sees it, checks that what must be seen is there, and leaves the pictures in the
// build folder (pictures/*.png) to be looked at.
#include <gtest/gtest.h>

#include <QApplication>
#include <QDir>
#include <QImage>
#include <QPainter>
#include <QTest>

#include "tests/widgets/graph_sample.h"
#include "widgets/common/theme.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {
namespace {

QImage picture(QWidget& widget, double ratio) {
  QImage image(widget.size() * ratio, QImage::Format_RGB32);
  image.setDevicePixelRatio(ratio);
  widget.render(&image);
  return image;
}

QImage keep(QWidget& widget, double ratio, const QString& name) {
  const QImage image = picture(widget, ratio);
  const QString folder = QStringLiteral(QUANVAS_BINARY_DIR "/pictures");
  QDir().mkpath(folder);
  EXPECT_TRUE(image.save(folder + QLatin1Char('/') + name + QStringLiteral(".png")));
  return image;
}

int count(const QImage& image, const QColor& color) {
  int n = 0;
  for (int y = 0; y < image.height(); ++y)
    for (int x = 0; x < image.width(); ++x) n += image.pixelColor(x, y) == color ? 1 : 0;
  return n;
}

struct ThemeGuard {
  explicit ThemeGuard(ThemeMode mode) { Theme::instance().apply(mode); }
  ~ThemeGuard() { Theme::instance().apply(ThemeMode::kLight); }
};

class Pictures : public testing::TestWithParam<ThemeMode> {};

TEST_P(Pictures, LeNet) {
  const ThemeGuard guard(GetParam());
  const sample::Net net = sample::lenet();
  ASSERT_TRUE(net.graph);
  GraphView view;
  view.resize(640, 760);
  view.show();
  view.set_graph(net.graph, net.layers);
  auto visuals = sample::lenet_visuals(net);
  visuals[net.id("fc2")].stale = true;
  visuals[net.id("flatten")].problem = QStringLiteral("Flatten cannot be exported.");
  view.set_visuals(visuals);
  view.set_selection({net.id("conv2")});
  QApplication::processEvents();
  const QString name = QStringLiteral("lenet-") + theme_mode_id(GetParam());
  const QImage one = keep(view, 1, name);
  keep(view, 2, name + QStringLiteral("@2x"));
  for (const double bits : {8.0, 4.0, 3.0}) EXPECT_GT(count(one, bits_color(bits)), 200) << bits;
  EXPECT_GT(count(one, colors().accent), 100) << "the selected card's border";
  EXPECT_GT(count(one, colors().panel), 20000);
}

TEST_P(Pictures, GroupsAndMap) {
  const ThemeGuard guard(GetParam());
  const sample::Net net = sample::residual(9);
  ASSERT_TRUE(net.graph);
  GraphView view;
  view.resize(900, 800);
  view.show();
  view.set_graph(net.graph, net.layers);
  std::map<NodeId, NodeVisual> visuals;
  int k = 0;
  for (const Layer& layer : net.layers) {
    if (layer.kind != LayerKind::kCompute) continue;
    NodeVisual v;
    const int widths[] = {8, 6, 4, 3, 2, 4};
    v.weight_bits = widths[k++ % 6];
    v.weight_chip = QStringLiteral("W%1").arg(v.weight_bits);
    v.weight_hatched = k % 6 == 0;
    v.isolated_db = 8.0 + 3 * (k % 11);
    v.activation_chip = QStringLiteral("U8");
    visuals[layer.node] = v;
  }
  view.set_visuals(visuals);
  view.set_collapsed({"stage0.block1", "stage1"});
  view.show_start();
  QApplication::processEvents();
  const QString name = theme_mode_id(GetParam());
  keep(view, 1, QStringLiteral("groups-") + name);
  view.set_color_by(ColorBy::kOutputError);
  view.fit();
  QApplication::processEvents();
  keep(view, 1, QStringLiteral("groups-fit-") + name);
  view.set_zoom(0.55);
  view.set_search(QStringLiteral("conv2"));
  QApplication::processEvents();
  const QImage searched = keep(view, 1, QStringLiteral("groups-search-") + name);
  EXPECT_GT(count(searched, colors().background), 1000);
}

INSTANTIATE_TEST_SUITE_P(Themes, Pictures, testing::Values(ThemeMode::kLight, ThemeMode::kDark));

}  // namespace
}  // namespace quanvas
