// The path of the selection: what is reached, and what the view makes of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include <QApplication>
#include <QGraphicsScene>
#include <QSignalSpy>
#include <QTest>

#include "tests/widgets/graph_sample.h"
#include "widgets/common/theme.h"
#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_overlays.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {
namespace {

std::vector<std::uint32_t> cards_of(const GraphContent& content, const std::vector<NodeId>& nodes) {
  std::vector<std::uint32_t> out;
  for (const NodeId n : nodes) out.push_back(static_cast<std::uint32_t>(content.index.at(n)));
  return out;
}

// `nodes` Adds that read two earlier values each.
sample::Net random_net(int nodes, unsigned seed) {
  std::mt19937 random(seed);
  GraphBuilder b;
  b.input("x");
  std::vector<std::string> values = {"x"};
  for (int i = 0; i < nodes; ++i) {
    const auto any = [&] { return values[std::uniform_int_distribution<std::size_t>(0, values.size() - 1)(random)]; };
    const std::string name = "n" + std::to_string(i);
    b.node(name, "Add", {any(), any()}, {name + "_out"});
    values.push_back(name + "_out");
  }
  b.output(values.back());
  return sample::finish(b);
}

TEST(GraphPaths, ReachWhatTheGraphSays) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const sample::Net net = random_net(60, seed);
    ASSERT_TRUE(net.graph);
    const GraphContent content = make_content(*net.graph, net.layers);
    GraphPaths paths(content);
    for (const Node& from : net.graph->nodes()) {
      const auto below = net.graph->downstream(from.id);
      paths.follow(cards_of(content, {from.id}), PathShown::kDownstream);
      for (const Node& n : net.graph->nodes())
        EXPECT_EQ(paths.on_path(content.index.at(n.id)), std::count(below.begin(), below.end(), n.id) > 0) << n.name;
      EXPECT_EQ(paths.downstream(), static_cast<int>(below.size()) - 1);
      EXPECT_EQ(paths.upstream(), 0);
      paths.follow(cards_of(content, {from.id}), PathShown::kUpstream);
      for (const Node& n : net.graph->nodes()) {
        const auto reached = net.graph->downstream(n.id);
        EXPECT_EQ(paths.on_path(content.index.at(n.id)), std::count(reached.begin(), reached.end(), from.id) > 0) << n.name;
      }
    }
  }
}

TEST(GraphPaths, OfSeveralNodesIsTheUnion) {
  const sample::Net net = sample::lenet();
  const GraphContent content = make_content(*net.graph, net.layers);
  GraphPaths paths(content);
  EXPECT_FALSE(paths.followed());
  paths.follow(cards_of(content, {net.id("conv2"), net.id("fc2")}), PathShown::kBoth);
  EXPECT_TRUE(paths.followed());
  for (std::size_t c = 0; c < content.cards.size(); ++c) EXPECT_TRUE(paths.on_path(c));
  EXPECT_EQ(paths.upstream(), 7) << "not the selected ones, not the input";
  EXPECT_EQ(paths.downstream(), 5);
  paths.follow(cards_of(content, {net.id("conv2")}), PathShown::kOff);
  EXPECT_FALSE(paths.followed());
  paths.follow({}, PathShown::kBoth);
  EXPECT_FALSE(paths.followed());
}

// A chain of 5,000 diamonds has 2^5000 ways through it: only a linear search comes back.
TEST(GraphPaths, AreFoundInLinearTime) {
  GraphBuilder b;
  b.input("x");
  std::string at = "x";
  for (int i = 0; i < 5000; ++i) {
    const std::string name = "a" + std::to_string(i);
    b.node(name, "Relu", {at}, {name + "_out"});
    b.node("b" + std::to_string(i), "Add", {at, name + "_out"}, {"v" + std::to_string(i)});
    at = "v" + std::to_string(i);
  }
  b.output(at);
  const sample::Net net = sample::finish(b);
  ASSERT_TRUE(net.graph);
  const GraphContent content = make_content(*net.graph, net.layers);
  GraphPaths paths(content);
  paths.follow(cards_of(content, {net.id("b2499")}), PathShown::kBoth);
  EXPECT_EQ(paths.upstream(), 4999);
  EXPECT_EQ(paths.downstream(), 5000);
}

class GraphPathTest : public testing::Test {
 protected:
  void SetUp() override {
    view.resize(900, 800);
    view.show();
    view.setFocus();
    QApplication::processEvents();
  }
  void TearDown() override { Theme::instance().apply(theme_mode_from(QStringLiteral("light"))); }
  void show(const sample::Net& n) {
    net = n;
    ASSERT_TRUE(net.graph);
    view.set_graph(net.graph, net.layers);
    QTRY_VERIFY_WITH_TIMEOUT(!view.layout_pending(), 10000);
  }
  template <class Item>
  std::vector<Item*> items() const {
    std::vector<Item*> out;
    for (QGraphicsItem* item : view.scene()->items())
      if (auto* i = qgraphicsitem_cast<Item*>(item)) out.push_back(i);
    return out;
  }
  CardItem* card(NodeId id) const {
    for (CardItem* c : items<CardItem>())
      if (c->group().empty() && c->node() == id) return c;
    return nullptr;
  }
  CardItem* group_card(const std::string& path) const {
    for (CardItem* c : items<CardItem>())
      if (c->group() == path) return c;
    return nullptr;
  }
  void click(CardItem* c) { QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, view.mapFromScene(c->card_rect().center())); }
  // Names of the nodes that stand out; every other card has stepped back.
  std::set<std::string> standing_out() const {
    std::set<std::string> out;
    for (const CardItem* c : items<CardItem>()) {
      EXPECT_EQ(c->state().fade, c->state().on_path ? Fade::kNone : Fade::kOffPath);
      if (c->state().on_path) out.insert(c->face().title.toStdString());
    }
    return out;
  }
  std::size_t edges_on_path() const {
    const auto all = items<EdgeItem>();
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [](const EdgeItem* e) { return e->state().on_path; }));
  }
  std::string note() const {
    const auto* n = view.findChild<PathNote*>();
    return n->isVisible() ? n->text().toStdString() : std::string();
  }

  GraphView view;
  sample::Net net;
};

TEST_F(GraphPathTest, KeysShowEachDirectionAndTakeItOff) {
  show(sample::lenet());
  QSignalSpy changed(&view, &GraphView::path_changed);
  QTest::keyClick(&view, Qt::Key_U);
  EXPECT_EQ(note(), "Select a node to see its path");
  click(card(net.id("pool1")));
  const std::set<std::string> above = {"input", "conv1", "relu1", "pool1"};
  const std::set<std::string> below = {"pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "fc2", "fc3", "logits"};
  EXPECT_EQ(standing_out(), above);
  EXPECT_EQ(edges_on_path(), 3u);
  EXPECT_EQ(note(), "pool1 depends on 2 nodes");
  QTest::keyClick(&view, Qt::Key_D);
  EXPECT_EQ(view.path(), PathShown::kDownstream);
  EXPECT_EQ(standing_out(), below);
  EXPECT_EQ(note(), "7 nodes depend on pool1");
  QTest::keyClick(&view, Qt::Key_P);
  EXPECT_EQ(edges_on_path(), 11u);
  EXPECT_EQ(note(), "pool1 depends on 2 nodes; 7 nodes depend on it");
  EXPECT_TRUE(view.accessibleDescription().contains(QStringLiteral("pool1 depends on 2 nodes"))) << view.accessibleDescription().toStdString();
  QTest::keyClick(&view, Qt::Key_P);
  EXPECT_EQ(view.path(), PathShown::kOff);
  EXPECT_EQ(note(), "");
  for (const CardItem* c : items<CardItem>()) EXPECT_EQ(c->state().fade, Fade::kNone);
  QTest::keyClick(&view, Qt::Key_D);
  QTest::keyClick(&view, Qt::Key_Escape);
  EXPECT_EQ(view.path(), PathShown::kOff);
  EXPECT_EQ(view.selection().size(), 1u) << "Escape ends the path first";
  QTest::keyClick(&view, Qt::Key_Escape);
  EXPECT_TRUE(view.selection().empty());
  EXPECT_EQ(changed.size(), 6);
}

TEST_F(GraphPathTest, FollowsTheSelectionFromWhereverItComes) {
  show(sample::lenet());
  view.set_path(PathShown::kUpstream);
  view.set_selection({net.id("conv2")});
  EXPECT_EQ(note(), "conv2 depends on 3 nodes");
  QTest::keyClick(&view, Qt::Key_Up);
  EXPECT_EQ(note(), "pool1 depends on 2 nodes");
  view.set_selection({net.id("conv1"), net.id("fc1")});
  EXPECT_EQ(note(), "2 selected nodes depend on 6 nodes");
  view.set_selection({});
  EXPECT_EQ(note(), "Select a node to see its path");
  view.set_graph(nullptr, {});
  EXPECT_EQ(note(), "");
}

TEST_F(GraphPathTest, ASearchFadesMoreThanThePath) {
  show(sample::lenet());
  view.set_selection({net.id("fc1")});
  view.set_path(PathShown::kDownstream);
  view.set_search(QStringLiteral("conv"));
  EXPECT_EQ(card(net.id("conv1"))->state().fade, Fade::kOffPath);
  EXPECT_EQ(card(net.id("fc2"))->state().fade, Fade::kNotFound);
}

TEST_F(GraphPathTest, ClosedGroupsAndBundlesAreOnItWhenAMemberIs) {
  show(sample::residual(9));
  view.set_collapsed({"stage0", "stage1.block1", "stage2"});
  view.set_selection({net.id("/stage1/block0/relu1")});
  view.set_path(PathShown::kUpstream);
  EXPECT_TRUE(group_card("stage0")->state().on_path);
  EXPECT_FALSE(group_card("stage1.block1")->state().on_path);
  EXPECT_FALSE(group_card("stage2")->state().on_path);
  // From stage0 one line stands for two edges, to conv1 and to add; only the first leads to relu1.
  EXPECT_FALSE(card(net.id("/stage1/block0/add"))->state().on_path);
  EXPECT_EQ(edges_on_path(), 3u) << "input to stage0, stage0 to conv1, conv1 to relu1";
  view.set_path(PathShown::kDownstream);
  EXPECT_FALSE(group_card("stage0")->state().on_path);
  EXPECT_TRUE(group_card("stage1.block1")->state().on_path);
  EXPECT_TRUE(group_card("stage2")->state().on_path);
  view.expand_all();
  EXPECT_TRUE(card(net.id("/stage2/block2/relu2"))->state().on_path) << "kept when groups open";
  EXPECT_EQ(card(net.id("/stage0/block0/conv1"))->state().fade, Fade::kOffPath);
  QTest::mouseClick(view.viewport(), Qt::LeftButton, {}, QPoint(4, 790));
  view.set_collapsed({"stage1"});
  view.set_path(PathShown::kBoth);
  view.reveal(net.id("/stage0/block2/relu2"));
  click(group_card("stage1"));
  EXPECT_EQ(standing_out().count("stage1"), 1u);
  EXPECT_EQ(note(), "15 selected nodes depend on 15 nodes; 15 nodes depend on them");
}

TEST_F(GraphPathTest, StubsAreOnItLikeLines) {
  GraphBuilder b;
  b.input("x");
  b.node("early", "Relu", {"x"}, {"e"});
  b.node("aside", "Relu", {"x"}, {"s"});
  std::string at = "e";
  for (int i = 0; i < 60; ++i) {
    const std::string name = "n" + std::to_string(i);
    b.node(name, "Relu", {at}, {name + "_out"});
    at = name + "_out";
  }
  b.node("late", "Add", {at, "e"}, {"l"});
  b.node("last", "Add", {"l", "s"}, {"y"});
  b.output("y");
  show(sample::finish(b));
  view.set_selection({net.id("late")});
  view.set_path(PathShown::kUpstream);
  std::size_t stubs = 0, on_path = 0;
  for (const EdgeItem* e : items<EdgeItem>())
    if (e->is_stub()) ++stubs, on_path += e->state().on_path ? 1 : 0;
  EXPECT_EQ(stubs, 2u);
  EXPECT_EQ(on_path, 1u) << "early to late, not aside to last";
}

// What stands back is still read, and what stands out does so without its colour.
TEST_F(GraphPathTest, CanBeReadInBothThemesAndWithoutColour) {
  show(sample::lenet());
  view.set_visuals(sample::lenet_visuals(net));
  view.set_zoom(1);
  view.centerOn(card(net.id("conv2"))->card_rect().center());
  for (const char* theme : {"light", "dark"}) {
    Theme::instance().apply(theme_mode_from(QLatin1String(theme)));
    const Colors& c = colors();
    const double opacity = opacity_of(Fade::kOffPath, 1);
    const QColor face = mix(c.background, c.panel, opacity);
    EXPECT_GE(contrast_ratio(mix(face, c.text, opacity), face), 3.0) << theme;
    view.set_selection({net.id("conv2")});
    view.set_path(PathShown::kUpstream);
    const QImage image = view.viewport()->grab().toImage().convertToFormat(QImage::Format_Grayscale8);
    const double ratio = image.devicePixelRatio();
    // How much ink a line between two cards has: the sum of differences from the canvas across it.
    const auto ink = [&](const char* upper, const char* lower) {
      const QPointF middle = (card(net.id(upper))->card_rect().center() + card(net.id(lower))->card_rect().center()) / 2;
      const QPoint at = view.mapFromScene(middle);
      const int canvas = qGray(c.background.rgb());
      int sum = 0;
      for (int dx = -8; dx <= 8; ++dx) sum += std::abs(qGray(image.pixel(QPoint(at.x() + dx, at.y()) * ratio)) - canvas);
      return sum;
    };
    EXPECT_GT(ink("pool1", "conv2"), 2.5 * ink("conv2", "relu2")) << theme;
    view.set_path(PathShown::kOff);
  }
}

}  // namespace
}  // namespace quanvas
