// The whole window with a real engine on the sample network, for tests.
#pragma once

#include <memory>
#include <optional>

#include <gtest/gtest.h>

#include <QFile>
#include <QFileInfo>
#include <QTemporaryDir>
#include <QTest>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"

namespace quanvas {

inline constexpr int kPatienceMs = 60000;

template <class Fn>
inline bool wait_for(Fn fn) {
  return QTest::qWaitFor(fn, kPatienceMs);
}

class WindowTest : public testing::Test {
 protected:
  void build() {
    session_ = std::make_unique<Session>();
    window_ = std::make_unique<MainWindow>(session_->undo_stack());
    window_->keep_layout(false);
    wiring_ = std::make_unique<Wiring>(session_.get(), window_.get());
    window_->show();
  }
  // The sample that the repository carries, copied so that its project is made in the test's own folder.
  void open() {
    if (!QFileInfo::exists(QString::fromUtf8(qgetenv("QUANVAS_ENGINE")))) GTEST_SKIP() << "the engine is not built";
    const QString model = QStringLiteral(QUANVAS_SOURCE_DIR "/projects/lenet5/lenet5.onnx");
    if (!QFileInfo::exists(model)) GTEST_SKIP() << "the sample model is not there";
    const QString copy = folder_.filePath(QStringLiteral("lenet5.onnx"));
    ASSERT_TRUE(QFile::copy(model, copy));
    open_file(copy);
  }
  void open_file(const QString& path) {
    build();
    session_->start();
    Q_EMIT window_->open_wanted(path);
    ASSERT_TRUE(wait_for([&] { return session_->has_project() && window_->shows_project(); })) << window_->start_page()->text().toStdString();
    const auto recipe = builtin_recipe("w4a4");
    ASSERT_TRUE(recipe);
    session_->edit_recipe(*recipe, QStringLiteral("start"));
    ASSERT_TRUE(wait_for([&] { return wiring_->settled(); }));
  }
  NodeId node(const char* name) const { return session_->graph()->find(name)->id; }
  std::optional<QuantSpec> weight(const char* name) const { return session_->plan().find({node(name), SiteKind::kWeight, 0})->spec; }

  QTemporaryDir folder_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<MainWindow> window_;
  std::unique_ptr<Wiring> wiring_;
};

}  // namespace quanvas
