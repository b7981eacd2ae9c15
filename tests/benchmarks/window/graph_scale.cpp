// Large graphs in the window: time from the click on a model to its painted graph, memory, the time of a frame while
// panning and zooming, also with the path of a selection, and that of a change of the selection then. A real window, a
// real engine.
//
//   graph_scale MODEL [FRAMES]     (the engine beside it, or named by QUANVAS_ENGINE)
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <QMouseEvent>
#include <QScrollBar>
#include <QTemporaryDir>
#include <QWheelEvent>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"
#include "tests/benchmarks/window/timed_window.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {
namespace {

// Resident memory of this process in MB.
double memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::atof(line.c_str() + 6) / 1024;
  return 0;
}

// What an event and the repaint after it take: ms that pass, and ms that this thread computes.
class Frames {
 public:
  template <class Act>
  void add(GraphView& view, const Act& act) {
    QElapsedTimer timer;
    timer.start();
    const double before = thread_ms();
    act();
    view.viewport()->repaint();
    computed_.push_back(thread_ms() - before);
    passed_.push_back(static_cast<double>(timer.nsecsElapsed()) / 1e6);
  }
  void print(const std::string& what) const {
    print_times(what.c_str(), passed_);
    print_times("    of that computed", computed_);
  }

 private:
  std::vector<double> passed_, computed_;
};

void wheel(GraphView& view, int delta) {
  const QPointF at(view.viewport()->width() / 2.0, view.viewport()->height() / 2.0);
  QWheelEvent event(at, view.viewport()->mapToGlobal(at), {}, {0, delta}, Qt::NoButton, Qt::NoModifier,
                    Qt::NoScrollPhase, false);
  QCoreApplication::sendEvent(view.viewport(), &event);
}

void drag(GraphView& view, const QPoint& from, const QPoint& to, QEvent::Type type) {
  const QPoint at = type == QEvent::MouseButtonPress ? from : to;
  QMouseEvent event(type, at, view.viewport()->mapToGlobal(at),
                    type == QEvent::MouseMove ? Qt::NoButton : Qt::MiddleButton,
                    type == QEvent::MouseButtonRelease ? Qt::NoButton : Qt::MiddleButton, Qt::NoModifier);
  QCoreApplication::sendEvent(view.viewport(), &event);
}

void measure_frames(GraphView& view, const char* when, int frames) {
  Frames pans, zooms;
  const QPoint middle(view.viewport()->width() / 2, view.viewport()->height() / 2);
  for (int i = 0; i < frames; ++i) {
    const QPoint to = middle + QPoint(0, i % 40 < 20 ? -37 : 37);
    drag(view, middle, to, QEvent::MouseButtonPress);
    pans.add(view, [&] { drag(view, middle, to, QEvent::MouseMove); });
    drag(view, middle, to, QEvent::MouseButtonRelease);
  }
  for (int i = 0; i < frames; ++i) zooms.add(view, [&] { wheel(view, i % 20 < 10 ? 60 : -60); });
  pans.print(std::string("frame while panning, ") + when);
  zooms.print(std::string("frame while zooming, ") + when);
}

// Both directions from one node after the other.
void measure_path(GraphView& view, int frames) {
  view.set_path(PathShown::kBoth);
  const auto& nodes = view.graph()->nodes();
  Frames selections;
  for (int i = 0; i < frames; ++i) {
    const NodeId node = nodes[nodes.size() * static_cast<std::size_t>(i) / static_cast<std::size_t>(frames)].id;
    selections.add(view, [&] { view.set_selection({node}); });
  }
  selections.print("another node's path, all groups open");
  measure_frames(view, "path shown, all groups open", frames);
  view.set_path(PathShown::kOff);
}

int run(int argc, char** argv) {
  TimedApplication app(argc, argv);
  Theme::instance().apply(theme_mode_from(QStringLiteral("light")));
  const QTemporaryDir data;  // a project of its own each time
  qputenv("XDG_DATA_HOME", data.path().toLocal8Bit());
  PaintWatch watch(&app);
  Session session;
  MainWindow window(session.undo_stack());
  window.keep_layout(false);
  Wiring wiring(&session, &window);
  window.resize(1400, 900);
  window.show();
  session.start();
  auto* view = window.findChild<GraphView*>();
  if (!view) return std::fprintf(stderr, "The window has no graph.\n"), 1;
  wait_for([&] { return session.engine_is_ready(); }, 5000);
  app.reset();
  const double before = memory();
  bool painted = false, laid_out = false;
  QElapsedTimer timer;
  QObject::connect(view, &GraphView::layout_finished, &app, [&] {
    laid_out = true;
    watch.arm([&] { painted = true; });
  });
  timer.start();
  Q_EMIT window.open_wanted(QString::fromLocal8Bit(argv[1]));
  if (!wait_for([&] { return laid_out && painted && view->graph(); }, 120000))
    return std::fprintf(stderr, "No graph was painted within two minutes.\n"), 1;
  std::printf("%zu nodes; click to painted graph: %lld ms\n", view->graph()->nodes().size(),
              static_cast<long long>(timer.elapsed()));
  wait_for([&] { return session.has_project() && wiring.settled(); }, 120000);
  std::printf("click to all facts: %lld ms; memory of the window: %.0f MB, before %.0f MB\n",
              static_cast<long long>(timer.elapsed()), memory(), before);
  app.report("while opening");
  const int frames = argc > 2 ? std::atoi(argv[2]) : 200;
  view->show_start();
  measure_frames(*view, "at the start", frames);
  view->fit();
  measure_frames(*view, "all in view", frames);
  if (view->has_groups()) {
    timer.restart();
    laid_out = false;
    view->expand_all();
    wait_for([&] { return laid_out || !view->layout_pending(); }, 120000);
    std::printf("all groups open: %lld ms\n", static_cast<long long>(timer.elapsed()));
    measure_frames(*view, "all groups open, all in view", frames);
    measure_path(*view, frames);
    view->set_zoom(0.7);
    measure_frames(*view, "all groups open, readable", frames);
    std::printf("memory of the window: %.0f MB\n", memory());
  }
  return 0;
}

}  // namespace
}  // namespace quanvas

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: graph_scale MODEL [FRAMES]\n"), 2;
  return quanvas::run(argc, argv);
}
