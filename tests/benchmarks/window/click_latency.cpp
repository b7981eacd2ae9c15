// From click to repainted error: drags the bits of a layer's weight as the inspector does and waits until the
// graph has been painted with the new facts. A real window, a real engine.
//
//   click_latency PROJECT LAYER [CLICKS]     (the engine beside it, or named by QUANVAS_ENGINE)
//
// Prints start to first paint, p50, p95 and the largest time of the clicks and of their parts in ms, and how long the
// GUI thread was busy with one event at most.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <QApplication>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QTimer>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"

namespace quanvas {
namespace {

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
    const std::string what = std::string(receiver->metaObject()->className()) + ", event " + std::to_string(event->type());
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
    std::printf("GUI thread %s: longest event %.1f ms (%s), %d over 16 ms\n", when, longest_, longest_what_.c_str(), over_);
  }

 private:
  int depth_ = 0, over_ = 0;
  double longest_ = 0;
  std::string longest_what_;
};

void print_times(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) { return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))]; };
  std::printf("%s: p50 %.1f ms, p95 %.1f ms, largest %.1f ms\n", what, at(0.5), at(0.95), times.back());
}

bool wait_for(const std::function<bool()>& done, int most_ms) {
  QElapsedTimer timer;
  timer.start();
  while (!done() && timer.elapsed() < most_ms) QCoreApplication::processEvents(QEventLoop::AllEvents, 5);
  return done();
}

int run(int argc, char** argv) {
  QElapsedTimer since_start;
  since_start.start();
  TimedApplication app(argc, argv);
  Theme::instance().apply(theme_mode_from(QStringLiteral("light")));
  PaintWatch watch(&app);
  qint64 first_paint = -1;
  watch.arm([&] { first_paint = since_start.elapsed(); });
  Session session;
  MainWindow window(session.undo_stack());
  window.keep_layout(false);
  Wiring wiring(&session, &window);
  window.resize(1400, 900);
  window.show();
  wait_for([&] { return first_paint >= 0; }, 5000);
  std::printf("start to first paint: %lld ms\n", static_cast<long long>(first_paint));
  session.start();
  Q_EMIT window.open_wanted(QString::fromLocal8Bit(argv[1]));
  if (!wait_for([&] { return session.has_project() && wiring.settled(); }, 60000)) {
    std::fprintf(stderr, "The project was not open within a minute.\n");
    return 1;
  }
  std::printf("start to project with all facts: %lld ms\n", static_cast<long long>(since_start.elapsed()));
  app.report("from start to there");
  app.reset();
  const Node* node = session.graph()->find(argv[2]);
  if (!node) return std::fprintf(stderr, "There is no layer '%s'.\n", argv[2]), 1;
  wiring.select({node->id});
  const Site site{node->id, SiteKind::kWeight, 0};
  const int clicks = argc > 3 ? std::atoi(argv[3]) : 100;
  std::vector<double> edits, answers, paints;
  for (int i = 0; i < clicks; ++i) {
    wait_for([&] { return wiring.settled(); }, 5000);
    QuantSpec spec = session.plan().find(site)->spec.value_or(QuantSpec{});
    spec.bits = spec.bits == 4 ? 5 : 4;
    bool painted = false, answered = false;
    QElapsedTimer timer;
    const auto connection = QObject::connect(&session, &Session::facts_changed, &app, [&](const std::vector<NodeId>& nodes) {
      if (answered || std::find(nodes.begin(), nodes.end(), node->id) == nodes.end() || session.facts_are_stale(node->id)) return;
      answered = true;
      answers.push_back(static_cast<double>(timer.nsecsElapsed()) / 1e6);
      watch.arm([&] { painted = true; });
    });
    timer.start();
    session.assign({site}, spec, QStringLiteral("Set bits"));
    edits.push_back(static_cast<double>(timer.nsecsElapsed()) / 1e6);
    if (!wait_for([&] { return painted; }, 5000)) return std::fprintf(stderr, "No answer within 5 s.\n"), 1;
    paints.push_back(static_cast<double>(timer.nsecsElapsed()) / 1e6);
    QObject::disconnect(connection);
  }
  print_times("click to the edit done (GUI thread)", edits);
  print_times("click to the engine's answer", answers);
  print_times("click to repainted error", paints);
  app.report("during the clicks");
  return 0;
}

}  // namespace
}  // namespace quanvas

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: click_latency PROJECT LAYER [CLICKS]\n"), 2;
  return quanvas::run(argc, argv);
}
