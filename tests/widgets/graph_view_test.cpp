#include "widgets/graph/graph_view.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <QApplication>
#include <QFile>
#include <QGraphicsScene>
#include <QImage>
#include <QPainter>
#include <QScrollBar>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>
#include <QWheelEvent>

#include "tests/widgets/graph_sample.h"
#include "widgets/common/node_names.h"
#include "widgets/common/theme.h"
#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_overlays.h"

namespace quanvas {
namespace {

class GraphViewTest : public testing::Test {
 protected:
  void SetUp() override {
    view.resize(700, 800);
    view.show();
    view.setFocus();
    view.activateWindow();
    QApplication::processEvents();
  }
  void show(const sample::Net& n) {
    net = n;
    ASSERT_TRUE(net.graph);
    view.set_graph(net.graph, net.layers);
    QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 10000);
  }
  CardItem* card(NodeId id) const {
    for (QGraphicsItem* item : view.scene()->items())
      if (auto* c = qgraphicsitem_cast<CardItem*>(item); c != nullptr && c->group().empty() && c->node() == id) return c;
    return nullptr;
  }
  CardItem* group_card(const std::string& path) const {
    for (QGraphicsItem* item : view.scene()->items())
      if (auto* c = qgraphicsitem_cast<CardItem*>(item); c != nullptr && c->group() == path) return c;
    return nullptr;
  }
  FrameItem* frame(const std::string& path) const {
    for (QGraphicsItem* item : view.scene()->items())
      if (auto* f = qgraphicsitem_cast<FrameItem*>(item); f != nullptr && f->group() == path) return f;
    return nullptr;
  }
  QPoint point(const QPointF& scene) const { return view.mapFromScene(scene); }
  void click(NodeId id, Qt::KeyboardModifiers modifiers = {}) {
    QTest::mouseClick(view.viewport(), Qt::LeftButton, modifiers, point(card(id)->card_rect().center()));
  }
  void drag(QPoint from, QPoint to, Qt::MouseButton button = Qt::LeftButton, Qt::KeyboardModifiers m = {}) {
    QTest::mousePress(view.viewport(), button, m, from);
    for (const double t : {0.3, 0.7, 1.0}) {
      QMouseEvent move(QEvent::MouseMove, from + (to - from) * t, view.viewport()->mapToGlobal(from + (to - from) * t),
                       Qt::NoButton, button, m);
      QApplication::sendEvent(view.viewport(), &move);
    }
    QTest::mouseRelease(view.viewport(), button, m, to);
  }
  std::vector<NodeId> ids(std::initializer_list<const char*> names) const {
    std::vector<NodeId> out;
    for (const char* n : names) out.push_back(net.id(n));
    return out;
  }

  GraphView view;
  sample::Net net;
};

TEST_F(GraphViewTest, ClicksSelect) {
  show(sample::lenet());
  QSignalSpy spy(&view, &GraphView::selection_changed);
  click(net.id("conv2"));
  EXPECT_EQ(view.selection(), ids({"conv2"}));
  click(net.id("conv1"), Qt::ControlModifier);
  EXPECT_EQ(view.selection(), ids({"conv1", "conv2"})) << "in graph order";
  click(net.id("conv2"), Qt::ControlModifier);
  EXPECT_EQ(view.selection(), ids({"conv1"}));
  click(net.id("conv1"));
  EXPECT_EQ(spy.size(), 3) << "a click that changes nothing says nothing";
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, QPoint(30, 780));
  EXPECT_TRUE(view.selection().empty());
  ASSERT_EQ(spy.size(), 4);
  EXPECT_TRUE(spy.back()[0].value<std::vector<NodeId>>().empty());
}

TEST_F(GraphViewTest, SettingTheSelectionIsSilent) {
  show(sample::lenet());
  QSignalSpy spy(&view, &GraphView::selection_changed);
  view.set_selection({net.id("fc1"), 12345, -2});
  EXPECT_EQ(view.selection(), ids({"fc1"}));
  EXPECT_TRUE(card(net.id("fc1"))->selected());
  EXPECT_EQ(spy.size(), 0);
}

TEST_F(GraphViewTest, RubberBand) {
  show(sample::lenet());
  const QRectF area = card(net.id("conv1"))->card_rect().united(card(net.id("pool1"))->card_rect());
  drag(point(area.topLeft()) - QPoint(8, 8), point(area.bottomRight()) + QPoint(8, 4), Qt::LeftButton, Qt::ShiftModifier);
  EXPECT_EQ(view.selection(), ids({"conv1", "relu1", "pool1"}));
}

TEST_F(GraphViewTest, DraggingMovesTheView) {
  show(sample::residual(6));
  for (const Qt::MouseButton button : {Qt::LeftButton, Qt::MiddleButton}) {
    const QPointF before = view.mapToScene(QPoint(0, 0));
    const QPoint from = button == Qt::LeftButton ? QPoint(40, 700) : QPoint(350, 400);
    drag(from, from - QPoint(20, 100), button);
    const QPointF moved = view.mapToScene(QPoint(0, 0)) - before;
    EXPECT_NEAR(moved.x() * view.zoom(), 20, 2);
    EXPECT_NEAR(moved.y() * view.zoom(), 100, 2);
  }
  EXPECT_TRUE(view.selection().empty());
}

TEST_F(GraphViewTest, KeysWalkAlongEdges) {
  show(sample::lenet());
  const struct {
    Qt::Key key;
    const char* at;
  } steps[] = {{Qt::Key_Down, "conv1"}, {Qt::Key_Down, "relu1"}, {Qt::Key_Down, "pool1"}, {Qt::Key_Up, "relu1"},
               {Qt::Key_End, "fc3"},    {Qt::Key_Down, "fc3"},   {Qt::Key_Home, "conv1"}, {Qt::Key_Up, "conv1"}};
  for (const auto& step : steps) {
    QTest::keyClick(&view, step.key);
    EXPECT_EQ(view.current(), net.id(step.at));
    EXPECT_EQ(view.selection(), ids({step.at}));
  }
  QTest::keyClick(&view, Qt::Key_Down, Qt::ShiftModifier);
  EXPECT_EQ(view.selection(), ids({"conv1", "relu1"}));
  EXPECT_TRUE(view.accessibleDescription().contains(QStringLiteral("relu1")));
  QSignalSpy activated(&view, &GraphView::node_activated);
  QTest::keyClick(&view, Qt::Key_Return);
  ASSERT_EQ(activated.size(), 1);
  EXPECT_EQ(activated[0][0].toInt(), net.id("relu1"));
  QSignalSpy search(&view, &GraphView::search_requested);
  QTest::keyClick(&view, Qt::Key_F, Qt::ControlModifier);
  EXPECT_EQ(search.size(), 1);
  QTest::keyClick(&view, Qt::Key_A, Qt::ControlModifier);
  EXPECT_EQ(view.selection().size(), net.layers.size());
  QTest::keyClick(&view, Qt::Key_Escape);
  EXPECT_TRUE(view.selection().empty());
}

TEST_F(GraphViewTest, WheelZoomsAtThePointer) {
  show(sample::residual(6));
  view.set_zoom(1);
  const QPoint at(200, 300);
  const QPointF before = view.mapToScene(at);
  QWheelEvent wheel(at, view.viewport()->mapToGlobal(at), {}, {0, 240}, Qt::NoButton, Qt::NoModifier, Qt::NoScrollPhase, false);
  QApplication::sendEvent(view.viewport(), &wheel);
  EXPECT_GT(view.zoom(), 1.2);
  EXPECT_NEAR(view.mapToScene(at).x(), before.x(), 1.5);
  EXPECT_NEAR(view.mapToScene(at).y(), before.y(), 1.5);
  for (int i = 0; i < 100; ++i) view.zoom_in();
  EXPECT_LE(view.zoom(), 4.0);
  for (int i = 0; i < 100; ++i) view.zoom_out();
  EXPECT_GT(view.zoom(), 0.0);
  QTest::keyClick(&view, Qt::Key_0);
  EXPECT_DOUBLE_EQ(view.zoom(), 1.0);
}

TEST_F(GraphViewTest, FitShowsEverything) {
  show(sample::residual(12));
  view.fit();
  const QRectF visible = view.mapToScene(view.viewport()->rect()).boundingRect();
  for (const Node& n : net.graph->nodes()) EXPECT_TRUE(visible.contains(card(n.id)->card_rect())) << n.name;
  auto* map = view.findChild<Minimap*>();
  EXPECT_FALSE(map->isVisible());
  view.set_zoom(1);
  EXPECT_TRUE(map->isVisible());
  const QPointF before = view.mapToScene(view.viewport()->rect().center());
  QTest::mouseClick(map, Qt::LeftButton, {}, QPoint(map->width() / 2, map->height() - 12));
  EXPECT_GT(view.mapToScene(view.viewport()->rect().center()).y(), before.y() + 200);
}

TEST_F(GraphViewTest, LegendAndMapLieOverNothingAtFirst) {
  const std::pair<sample::Net, QSize> rows[] = {{sample::lenet(), {560, 560}}, {sample::lenet(), {340, 900}}, {sample::lenet(), {380, 600}},
                                                {sample::residual(3), {420, 560}}, {sample::residual(12), {560, 560}}};
  for (const auto& [example, size] : rows) {
    SCOPED_TRACE(std::to_string(size.width()) + " x " + std::to_string(size.height()) + ", " + std::to_string(example.layers.size()));
    show(example);
    view.resize(size);
    for (const bool fit : {true, false}) {
      if (fit) view.fit();
      else view.show_start();
      for (const QWidget* overlay : {static_cast<QWidget*>(view.findChild<Legend*>()), static_cast<QWidget*>(view.findChild<Minimap*>())}) {
        if (!overlay->isVisible()) continue;
        for (const Node& n : example.graph->nodes()) {
          const QRect at = view.mapFromScene(card(n.id)->card_rect()).boundingRect();
          EXPECT_FALSE(at.intersects(overlay->geometry())) << n.name << (fit ? " after Fit" : " at the start");
        }
      }
    }
  }
}

TEST_F(GraphViewTest, GroupsCloseAndOpenInPlace) {
  show(sample::residual(9));
  view.set_zoom(1);
  view.reveal(net.id("/stage0/block1/conv1"));
  ASSERT_NE(frame("stage0.block1"), nullptr);
  const QRectF rect = frame("stage0.block1")->frame_rect();
  const QPoint header = point(QPointF(rect.center().x(), rect.top()));
  QTest::mouseDClick(view.viewport(), Qt::LeftButton, {}, header + QPoint(40, 10));
  EXPECT_EQ(frame("stage0.block1"), nullptr);
  CardItem* closed = group_card("stage0.block1");
  ASSERT_NE(closed, nullptr);
  EXPECT_EQ(card(net.id("/stage0/block1/conv1")), nullptr);
  const QRectF shut = closed->card_rect();
  EXPECT_NEAR(point(QPointF(shut.center().x(), shut.top())).y(), header.y(), 1.5) << "the group stays under the pointer";
  EXPECT_NEAR(point(QPointF(shut.center().x(), shut.top())).x(), header.x(), 1.5);
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, point(toggle_rect(shut, true).center()));
  ASSERT_NE(frame("stage0.block1"), nullptr);
  EXPECT_EQ(frame("stage0.block1")->frame_rect(), rect);
}

TEST_F(GraphViewTest, ClosedGroupsSelectAndRevealTheirNodes) {
  show(sample::residual(6));
  view.set_collapsed({"stage0"});
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, point(group_card("stage0")->card_rect().center()));
  EXPECT_EQ(view.selection().size(), 15u);
  view.set_selection({net.id("/stage0/block2/conv2")}, true);
  EXPECT_EQ(group_card("stage0"), nullptr);
  ASSERT_NE(card(net.id("/stage0/block2/conv2")), nullptr);
  EXPECT_TRUE(view.viewport()->rect().contains(point(card(net.id("/stage0/block2/conv2"))->card_rect().center())));
  view.collapse_all();
  EXPECT_NE(group_card("stage0"), nullptr);
  view.expand_all();
  EXPECT_EQ(view.collapsed().size(), 0u);
  const QRectF f = frame("stage1")->frame_rect();
  view.centerOn(f.center().x(), f.top());
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, point(QPointF(f.center().x(), f.top() + 10)));
  EXPECT_EQ(view.selection().size(), 15u) << "a click on a header selects the layers of the group";
}

TEST_F(GraphViewTest, FacesSayWhatTheVisualsSay) {
  show(sample::lenet());
  view.set_visuals(sample::lenet_visuals(net));
  const CardFace& conv2 = card(net.id("conv2"))->face();
  EXPECT_EQ(conv2.title, QStringLiteral("conv2"));
  EXPECT_EQ(conv2.chip, QStringLiteral("W4"));
  EXPECT_EQ(conv2.value, QStringLiteral("22.1\u00a0dB"));
  EXPECT_FALSE(conv2.value_poor);
  EXPECT_TRUE(card(net.id("fc1"))->face().value_poor);
  EXPECT_TRUE(card(net.id("pool1"))->face().value.isEmpty());
  ASSERT_EQ(conv2.marks.size(), 1u);
  EXPECT_EQ(mark_color(conv2.marks[0]), bits_color(4));
  struct Row {
    ColorBy measure;
    QColor color;
    const char* legend;
  };
  const Row rows[] = {{ColorBy::kActivationBits, bits_color(4), "4"},
                      {ColorBy::kOutputError, error_color(22.1), "25\u00a0dB"},
                      {ColorBy::kOperator, category_color(1), "Conv"}};
  for (const Row& row : rows) {
    view.set_color_by(row.measure);
    const auto& entries = view.findChild<Legend*>()->entries();
    EXPECT_TRUE(std::any_of(entries.begin(), entries.end(), [&](const auto& e) { return e.text == QString::fromUtf8(row.legend); }))
        << row.legend;
    EXPECT_EQ(mark_color(card(net.id("conv2"))->face().marks[0]), row.color) << row.legend;
  }
  view.set_color_by(ColorBy::kParameters);
  EXPECT_EQ(mark_color(card(net.id("fc1"))->face().marks[0]), cividis(1)) << "fc1 has most parameters";
  EXPECT_EQ(mark_color(card(net.id("pool1"))->face().marks[0]), colors().neutral);
}

TEST_F(GraphViewTest, OnlyChangedCardsAreRepainted) {
  show(sample::lenet());
  view.set_visuals(sample::lenet_visuals(net));
  QApplication::processEvents();
  QList<QRectF> changed;
  QObject::connect(view.scene(), &QGraphicsScene::changed, [&](const QList<QRectF>& r) { changed += r; });
  QApplication::processEvents();
  changed.clear();
  view.set_visuals(sample::lenet_visuals(net));
  QApplication::processEvents();
  EXPECT_TRUE(changed.isEmpty()) << "the same values repaint nothing";
  auto visuals = sample::lenet_visuals(net);
  visuals[net.id("conv2")].weight_chip = QStringLiteral("W2");
  visuals[net.id("conv2")].weight_bits = 2;
  view.set_visuals(visuals);
  QApplication::processEvents();
  ASSERT_FALSE(changed.isEmpty());
  const QRectF mine = card(net.id("conv2"))->sceneBoundingRect().adjusted(-2, -2, 2, 2);
  for (const QRectF& r : changed) EXPECT_TRUE(mine.contains(r));
}

TEST_F(GraphViewTest, SearchFadesAndSteps) {
  show(sample::lenet());
  EXPECT_EQ(view.set_search(QStringLiteral("CONV")), 2);
  EXPECT_EQ(view.find_next(), net.id("conv1"));
  EXPECT_EQ(view.find_next(), net.id("conv2"));
  EXPECT_EQ(view.find_next(), net.id("conv1"));
  EXPECT_EQ(view.find_next(false), net.id("conv2"));
  EXPECT_EQ(view.set_search(QStringLiteral("nothing like it")), 0);
  EXPECT_EQ(view.find_next(), kNoNode);
  EXPECT_EQ(view.set_search({}), 0);
}

TEST_F(GraphViewTest, LargeGraphsAreLaidOutInTheBackgroundAndTheNewestWins) {
  const sample::Net large = sample::residual(300), other = sample::residual(240);
  QSignalSpy done(&view, &GraphView::layout_finished);
  view.set_graph(large.graph, large.layers);
  EXPECT_TRUE(view.layout_pending());
  view.set_graph(other.graph, other.layers);
  view.expand_all();
  QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 20000);
  QApplication::processEvents();
  EXPECT_EQ(done.size(), 1) << "results that were overtaken are dropped";
  net = other;
  EXPECT_NE(card(other.graph->nodes().back().id), nullptr);
  EXPECT_FALSE(view.scene()->items().isEmpty());
}

// Until its layout has come, the items are those of the network before: they say nothing about this one.
TEST_F(GraphViewTest, ItemsOfTheLastNetworkAreLeftAloneUntilTheNewOneIsLaidOut) {
  const sample::Net large = sample::residual(300), other = sample::residual(70);
  view.set_graph(large.graph, large.layers);
  view.expand_all();
  QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 20000);
  view.set_graph(other.graph, other.layers);
  ASSERT_TRUE(view.layout_pending());
  view.set_selection({other.id("/stage1/block0/conv1")}, true);
  view.set_path(PathShown::kBoth);
  view.set_visuals({{other.id("/stage1/block0/conv1"), {}}});
  view.set_search(QStringLiteral("conv"));
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, view.viewport()->rect().center());
  for (const Qt::Key key : {Qt::Key_Down, Qt::Key_E, Qt::Key_Right}) QTest::keyClick(&view, key);
  QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 20000);
  net = other;
  EXPECT_EQ(card(large.graph->nodes().back().id), nullptr);
}

// From afar very many items are painted in another way, which is not to be seen.
TEST_F(GraphViewTest, ManyItemsFromAfarLookAsTheSceneDoes) {
  show(sample::residual(250));
  view.expand_all();
  QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 20000);
  view.set_zoom(0.2);
  view.centerOn(frame("stage3")->frame_rect().center());
  view.set_legend_visible(false);
  view.set_minimap_visible(false);
  for (const PathShown path : {PathShown::kOff, PathShown::kUpstream}) {
    view.set_selection({net.id("/stage3/block1/relu1")});
    view.set_path(path);
    view.findChild<PathNote*>()->hide();
    QTest::qWait(200);  // at rest lines are smooth
    const QImage seen = view.viewport()->grab().toImage().convertToFormat(QImage::Format_RGB32);
    QImage scene(seen.size(), QImage::Format_RGB32);
    scene.setDevicePixelRatio(seen.devicePixelRatio());
    scene.fill(colors().background);
    QPainter painter(&scene);
    painter.setRenderHints(view.renderHints());
    const QRectF area = view.mapToScene(view.viewport()->rect()).boundingRect();
    view.scene()->render(&painter, QRectF(view.viewport()->rect()), QRectF(area.topLeft(), QSizeF(view.viewport()->size()) / view.zoom()));
    painter.end();
    int different = 0, inked = 0;
    for (int y = 0; y < seen.height(); ++y)
      for (int x = 0; x < seen.width(); ++x) {
        inked += scene.pixel(x, y) != colors().background.rgb() ? 1 : 0;
        different += std::abs(qGray(seen.pixel(x, y)) - qGray(scene.pixel(x, y))) > 40 ? 1 : 0;
      }
    EXPECT_GT(inked, 10000);
    EXPECT_LT(different, inked / 100);
  }
}

TEST_F(GraphViewTest, AViewMayGoWhileItsLayoutIsUnderWay) {
  const sample::Net large = sample::residual(200);
  for (int i = 0; i < 5; ++i) {
    GraphView gone;
    gone.set_graph(large.graph, large.layers);
    EXPECT_TRUE(gone.layout_pending());
  }
  QTest::qWait(100);
}

TEST_F(GraphViewTest, PlaceAndSelectionOutliveAnEditOfTheGraph) {
  show(sample::residual(6));
  view.set_zoom(1);
  view.set_selection(ids({"/stage1/block0/conv1"}), true);
  view.set_collapsed({"stage0.block0"});
  const QPointF centre = view.mapToScene(view.viewport()->rect().center());
  GraphBuilder edit(*net.graph);
  edit.set_attribute(net.id("/stage0/block0/conv1"), "group", std::int64_t{1});
  const auto edited = edit.build();
  ASSERT_TRUE(edited);
  view.set_graph(*edited, find_layers(**edited));
  EXPECT_EQ(view.selection(), ids({"/stage1/block0/conv1"}));
  EXPECT_EQ(view.collapsed(), (std::set<std::string>{"stage0.block0"}));
  EXPECT_NEAR(view.mapToScene(view.viewport()->rect().center()).y(), centre.y(), 2);
  view.set_graph(nullptr, {});
  EXPECT_TRUE(view.selection().empty());
  EXPECT_TRUE(view.scene()->items().isEmpty());
  for (const int key : {Qt::Key_Down, Qt::Key_Home, Qt::Key_E, Qt::Key_F, Qt::Key_Return}) QTest::keyClick(&view, static_cast<Qt::Key>(key));
}

TEST_F(GraphViewTest, PicturesAsFiles) {
  QTemporaryDir folder;
  const auto path = [&](const char* name) { return folder.filePath(QString::fromLatin1(name)); };
  const auto empty = view.export_image(path("empty.png"));
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, ErrorCode::kNotFound);
  show(sample::lenet());
  ASSERT_TRUE(view.export_image(path("net.png"), 2));
  const QImage image(path("net.png"));
  EXPECT_GT(image.height(), 1000);
  for (const char* name : {"net.svg", "net.pdf"}) {
    ASSERT_TRUE(view.export_image(path(name))) << name;
    QFile file(path(name));
    ASSERT_TRUE(file.open(QIODevice::ReadOnly));
    EXPECT_GT(file.size(), 2000) << name;
  }
  const auto unknown = view.export_image(path("net.bmp"));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(unknown.error().hint, "End the file's name in .png, .svg or .pdf.");
  EXPECT_FALSE(view.export_image(QStringLiteral("/no/such/folder/net.png")));
}

TEST_F(GraphViewTest, ContextMenuSelectsWhatIsUnderIt) {
  show(sample::lenet());
  QSignalSpy spy(&view, &GraphView::context_menu_requested);
  const QPoint at = point(card(net.id("fc2"))->card_rect().center());
  QContextMenuEvent event(QContextMenuEvent::Mouse, at, view.viewport()->mapToGlobal(at));
  QApplication::sendEvent(view.viewport(), &event);
  ASSERT_EQ(spy.size(), 1);
  EXPECT_EQ(spy[0][0].toInt(), net.id("fc2"));
  EXPECT_EQ(view.selection(), ids({"fc2"}));
}

TEST(GraphContent, TitlesAreShortAndTell) {
  GraphBuilder b;
  b.input("x");
  const struct {
    const char *name, *op, *title, *in_list;
  } rows[] = {{"/layer1/layer1.0/conv1/Conv", "Relu", "Conv", "layer1.0.conv1.Conv"},
              {"/layer1/layer1.0/act/Relu", "Relu", "act", "layer1.0.act"},
              {"features.0", "Relu", "features.0", "features.0"},
              {"features.1", "Relu", "features.1", "features.1"},
              {"Relu_67", "Relu", "Relu_67", "Relu_67"},
              {"/Relu", "Relu", "Relu", "Relu"},
              {"/0/Relu", "Relu", "Relu 0", "Relu 0"},
              {"7", "Relu", "Relu 7", "Relu 7"},
              {"block/Relu_1", "Relu", "Relu_1", "block.Relu_1"},
              {"block/Relu_2", "Relu", "Relu_2", "block.Relu_2"}};
  std::string at = "x";
  for (const auto& row : rows) {
    b.node(row.name, row.op, {at}, {std::string(row.name) + "_out"});
    at = std::string(row.name) + "_out";
  }
  b.output(at);
  const auto graph = b.build();
  ASSERT_TRUE(graph);
  const GraphContent content = make_content(**graph, find_layers(**graph));
  for (const auto& row : rows)
    EXPECT_EQ(content.find((*graph)->find(row.name)->id)->title.toStdString(), row.title) << row.name;
  std::map<std::string, std::size_t> in_scope;
  for (const Node& n : (*graph)->nodes()) ++in_scope[n.scope];
  for (const auto& row : rows) {
    const Node& n = *(*graph)->find(row.name);
    EXPECT_EQ(list_name(n, in_scope[n.scope]).toStdString(), row.in_list) << row.name;
  }
  EXPECT_EQ(content.cards.size(), std::size(rows) + 2);
  EXPECT_EQ(content.edges.size(), std::size(rows) + 1);
}

TEST(GraphContent, TooltipsEscapeWhatTheFileSays) {
  CardInfo card;
  card.name = QStringLiteral("<img src=x>");
  NodeVisual v;
  v.problem = QStringLiteral("a < b");
  const QString text = tooltip_of(card, v);
  EXPECT_FALSE(text.contains(QStringLiteral("<img")));
  EXPECT_TRUE(text.contains(QStringLiteral("a &lt; b")));
}

}  // namespace
}  // namespace quanvas
