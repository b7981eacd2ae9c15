#include <gtest/gtest.h>

#include <QAction>

#include "app/window/actions.h"
#include "app/window/options.h"

namespace quanvas {
namespace {

TEST(WindowOptionsTest, AreReadAndRefusedWithTheirName) {
  struct Row {
    std::vector<std::string> arguments;
    const char* error;  // start of it; "": fine
  };
  const Row rows[] = {
      {{}, ""},
      {{"net.onnx"}, ""},
      {{"--engine", "unix:/tmp/e.sock", "net.onnx"}, ""},
      {{"--engine=unix:/tmp/e.sock"}, ""},
      {{"--", "-odd.onnx"}, ""},
      {{"--engine", "tcp:1"}, "Option --engine is 'tcp:1'."},
      {{"--engine"}, "Option --engine needs a value."},
      {{"--theme", "pink"}, "Option --theme is 'pink'."},
      {{"--size", "1400"}, "Option --size is '1400'."},
      {{"--size", "1x1"}, "Option --size is '1x1'."},
      {{"--size", "99999x900"}, "Option --size is '99999x900'."},
      {{"--scale", "nan"}, "Option --scale is 'nan'."},
      {{"--scale", "2x"}, "Option --scale is '2x'."},
      {{"--after-ms", "-1"}, "Option --after-ms is '-1'."},
      {{"a.onnx", "b.onnx"}, "Two files are given"},
      {{"--colour"}, "Unknown option '--colour'."},
      {{"--screenshot", "x.png", "--select", "conv1"}, "Option --select needs a file."},
  };
  for (const auto& row : rows) {
    const auto options = parse_window_options(row.arguments);
    SCOPED_TRACE(row.arguments.empty() ? "(none)" : row.arguments.back());
    if (*row.error) {
      ASSERT_FALSE(options);
      EXPECT_EQ(options.error().message.rfind(row.error, 0), 0u) << options.error().message;
    } else {
      EXPECT_TRUE(options) << options.error().message;
    }
  }
  const auto all = parse_window_options({"--screenshot", "a.png", "--size", "1400x900", "--scale", "2", "--select", "conv1", "--after-ms", "50", "--theme", "dark", "x.onnx"});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->width, 1400);
  EXPECT_EQ(all->height, 900);
  EXPECT_EQ(all->scale, 2);
  EXPECT_EQ(all->file, "x.onnx");
  EXPECT_EQ(all->select, "conv1");
}

TEST(ActionsTest, ShortcutsAreUniqueAndEveryRowHasItsTexts) {
  QWidget window;
  Actions actions(&window);
  std::map<QString, QString> keys;
  for (const QAction* a : actions.all()) {
    EXPECT_FALSE(a->text().isEmpty()) << a->objectName().toStdString();
    EXPECT_FALSE(a->toolTip().isEmpty()) << a->objectName().toStdString();
    const QString key = a->shortcut().toString();
    if (key.isEmpty()) continue;
    EXPECT_TRUE(keys.emplace(key, a->objectName()).second) << key.toStdString() << " of " << a->objectName().toStdString();
  }
  QMenuBar bar;
  actions.fill(&bar);
  EXPECT_EQ(bar.actions().size(), 9);
}

}  // namespace
}  // namespace quanvas
