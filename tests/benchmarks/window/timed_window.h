// What the programs that measure the window share: an application that times its events, and waiting for paints.
#pragma once

#include <algorithm>
#include <cstdio>
#include <ctime>
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

// Time that this thread has computed, in ms: what an event costs also where other programs share the machine.
inline double thread_ms() {
  timespec t;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

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
    const double before = thread_ms();
    ++depth_;
    const bool handled = QApplication::notify(receiver, event);
    --depth_;
    const double ms = static_cast<double>(timer.nsecsElapsed()) / 1e6;
    const double computed = thread_ms() - before;
    if (ms > 16) ++over_;
    if (computed > 16) ++computed_over_;
    if (ms > longest_) longest_ = ms, longest_what_ = what;
    if (computed > most_) most_ = computed, most_what_ = what;
    if (computed > 16 && qEnvironmentVariableIsSet("TIMED_VERBOSE")) std::printf("  %.1f ms: %s\n", computed, what.c_str());
    return handled;
  }
  void reset() { longest_ = most_ = 0, over_ = computed_over_ = 0; }
  void report(const char* when) const {
    std::printf("GUI thread %s: longest event %.1f ms (%s), %d over 16 ms; computed %.1f ms at most (%s), %d over 16 ms\n", when,
                longest_, longest_what_.c_str(), over_, most_, most_what_.c_str(), computed_over_);
  }

 private:
  int depth_ = 0, over_ = 0, computed_over_ = 0;
  double longest_ = 0, most_ = 0;
  std::string longest_what_, most_what_;
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
