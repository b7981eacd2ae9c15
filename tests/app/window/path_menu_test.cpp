// The path of the selection from the menus of the window; no engine is needed.
#include <gtest/gtest.h>

#include <QApplication>
#include <QContextMenuEvent>
#include <QLineEdit>
#include <QMenu>
#include <QTest>
#include <QTimer>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"
#include "tests/widgets/graph_sample.h"
#include "widgets/graph/graph_items.h"

namespace quanvas {
namespace {

class PathMenuTest : public testing::Test {
 protected:
  void SetUp() override {
    window_.keep_layout(false);
    window_.show();
    window_.activateWindow();
    window_.show_project(QStringLiteral("lenet"), false);
    graph().set_graph(net_.graph, net_.layers);
    wiring_.select({net_.id("conv2")});
    QApplication::processEvents();
  }
  GraphView& graph() { return *window_.panels().graph; }
  QAction* action(const char* id) { return window_.actions().at(QLatin1String(id)); }
  // The entry of an open menu, as the pointer meets it.
  static void choose(QMenu* menu, QAction* entry) { QTest::mouseClick(menu, Qt::LeftButton, {}, menu->actionGeometry(entry).center()); }

  sample::Net net_ = sample::lenet();
  Session session_;
  MainWindow window_{session_.undo_stack()};
  Wiring wiring_{&session_, &window_};
};

TEST_F(PathMenuTest, TheViewMenuShowsAndFollowsThePath) {
  QMenu* menu = window_.actions().submenu(QStringLiteral("path"));
  EXPECT_TRUE(action("path-off")->isChecked());
  menu->popup({50, 50});
  choose(menu, action("path-upstream"));
  EXPECT_EQ(graph().path(), PathShown::kUpstream);
  EXPECT_TRUE(action("path-upstream")->isChecked());
  QTest::keyClick(&graph(), Qt::Key_P);
  EXPECT_TRUE(action("path-both")->isChecked());
  EXPECT_FALSE(action("path-upstream")->isChecked());
  QTest::keyClick(&graph(), Qt::Key_Escape);
  EXPECT_TRUE(action("path-off")->isChecked());
}

TEST_F(PathMenuTest, TheContextMenuOfANodeHasIt) {
  bool found = false;
  QTimer::singleShot(0, [&] {
    auto* menu = qobject_cast<QMenu*>(QApplication::activePopupWidget());
    ASSERT_NE(menu, nullptr);
    for (QAction* entry : menu->actions())
      if (entry->menu() == window_.actions().submenu(QStringLiteral("path"))) {
        found = true;
        entry->menu()->popup({60, 60});
        choose(entry->menu(), action("path-downstream"));
      }
    menu->close();
  });
  QContextMenuEvent event(QContextMenuEvent::Keyboard, QPoint(1, 1), graph().mapToGlobal(QPoint(1, 1)));
  QApplication::sendEvent(&graph(), &event);
  EXPECT_TRUE(found);
  EXPECT_EQ(graph().path(), PathShown::kDownstream);
}

TEST_F(PathMenuTest, ItsLettersAreTypedElsewhere) {
  action("find")->setEnabled(true);
  action("find")->trigger();
  auto* box = qobject_cast<QLineEdit*>(QApplication::focusWidget());
  ASSERT_NE(box, nullptr);
  QTest::keyClicks(box, QStringLiteral("up"));
  QTest::keyClick(box, Qt::Key_D);
  EXPECT_EQ(box->text(), QStringLiteral("upd"));
  EXPECT_EQ(graph().path(), PathShown::kOff);
}

}  // namespace
}  // namespace quanvas
