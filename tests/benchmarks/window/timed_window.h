// What the programs that measure the window share: an application that times its events, and waiting for paints.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <QApplication>
#include <QElapsedTimer>
#include <QEvent>
#include <QTimer>

namespace quanvas {

// The first paint of anything inside the window after `armed`.
class PaintWatch : public QObject {
 public:
  explicit PaintWatch(QObject* parent) : QObject(parent) { qApp->installEventFilter(this); }
  void arm(std::function<void()> then) { then_ = std::move(then); }

 protected:
  bool eventFilter(QObject*, QEvent* event) override {
    if (event->type() == QEvent::Paint && then_) QTimer::singleShot(0, this, std::exchange(then_, nullptr));
    return false;
  }

 private:
  std::function<void()> then_;
};

// How long each event holds the GUI thread: of events within events only the outermost counts.
class TimedApplication : public QApplication {
 public:
  using QApplication::QApplication;
  bool notify(QObject* receiver, QEvent* event) override {
    if (depth_ > 0) return QApplication::notify(receiver, event);
    const std::string what =
        std::string(receiver->metaObject()->className()) + ", event " + std::to_string(event->type());
    QElapsedTimer timer;
    timer.start();
    ++depth_;
    const bool handled = QApplication::notify(receiver, event);
    --depth_;
    const double ms = static_cast<double>(timer.nsecsElapsed()) / 1e6;
    if (ms > 16) ++over_;
    if (ms > longest_) longest_ = ms, longest_what_ = what;
    return handled;
  }
  void reset() { longest_ = 0, over_ = 0; }
  void report(const char* when) const {
    std::printf("GUI thread %s: longest event %.1f ms (%s), %d over 16 ms\n", when, longest_, longest_what_.c_str(),
                over_);
  }

 private:
  int depth_ = 0, over_ = 0;
  double longest_ = 0;
  std::string longest_what_;
};

inline void print_times(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) {
    return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))];
  };
  std::printf("%s: p50 %.1f ms, p95 %.1f ms, largest %.1f ms\n", what, at(0.5), at(0.95), times.back());
}

inline bool wait_for(const std::function<bool()>& done, int most_ms) {
  QElapsedTimer timer;
  timer.start();
  while (!done() && timer.elapsed() < most_ms) QCoreApplication::processEvents(QEventLoop::AllEvents, 5);
  return done();
}

}  // namespace quanvas
