// From click to repainted error: drags the bits of a layer's weight as the inspector does and waits until the
// graph has been painted with the new facts. A real window, a real engine.
//
//   click_latency PROJECT LAYER [CLICKS]     (the engine beside it, or named by QUANVAS_ENGINE)
//
// Prints start to first paint, p50, p95 and the largest time of the clicks and of their parts in ms, and how long
// the GUI thread was busy with one event at most.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"
#include "tests/benchmarks/window/timed_window.h"

namespace quanvas {
namespace {

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
    const auto connection =
        QObject::connect(&session, &Session::facts_changed, &app, [&](const std::vector<NodeId>& nodes) {
          if (answered || std::find(nodes.begin(), nodes.end(), node->id) == nodes.end() ||
              session.facts_are_stale(node->id))
            return;
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
