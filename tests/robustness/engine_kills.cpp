// Kills the window's engine with SIGKILL at random moments of its jobs and looks at what is left.
//
//   engine_kills PROJECT [ROUNDS]        (the engine beside it, or named by QUANVAS_ENGINE; changes PROJECT: use a copy)
//
// For each of calibrate, run, train, edit and export: starts the job in a real session behind a real window, kills the
// engine after a random share of the time that the job takes undisturbed, waits for the new engine, and checks that
// every edit made so far and every run that was there is still there, that the exported file is whole, and that the
// window said what happened. Prints a line for each kind; exit code 1 when anything was lost.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <QApplication>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QFile>
#include <QTemporaryDir>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"

namespace quanvas {
namespace {

bool wait_for(const std::function<bool()>& done, int most_ms) {
  QElapsedTimer timer;
  timer.start();
  while (!done() && timer.elapsed() < most_ms) QCoreApplication::processEvents(QEventLoop::AllEvents, 5);
  return done();
}

struct Kind {
  const char* name;
  std::function<QString()> start;  // the id of the job; empty: an edit
};

class Rounds {
 public:
  explicit Rounds(const QString& project) : window_(session_.undo_stack()), wiring_(&session_, &window_), project_(project) {
    window_.keep_layout(false);
    QObject::connect(&session_, &Session::job_finished, [this](const QString& id, bool, const QString& sentence) {
      finished_ = id;
      sentence_ = sentence;
    });
    QObject::connect(&session_, &Session::engine_lost, [this](const QString& sentence) { lost_sentence_ = sentence; });
  }

  bool open() {
    window_.show();
    session_.start();
    Q_EMIT window_.open_wanted(project_);
    return wait_for([&] { return session_.has_project() && wiring_.settled(); }, 60000);
  }

  std::vector<Kind> kinds() {
    return {{"calibrate", [this] { return session_.start_calibrate(); }},
            {"run", [this] { return session_.start_run(); }},
            {"train", [this] { return session_.start_run(with_training()); }},
            {"edit", [this] {
               edit();
               return QString();
             }},
            {"export", [this] {
               ExportRequest request;
               request.target = "onnx-qdq";
               request.path = out();
               return session_.start_export(request);
             }}};
  }

  // The number of rounds in which something was lost.
  int run(const Kind& kind, int rounds, std::mt19937& random) {
    QElapsedTimer timer;
    timer.start();
    const QString first = kind.start();
    wait_for([&] { return first.isEmpty() || finished_ == first; }, 120000);
    whole_size_ = QFile(QString::fromStdString(out())).size();
    const auto whole = static_cast<unsigned>(first.isEmpty() ? 60 : timer.elapsed());
    int lost = 0, untold = 0;
    for (int round = 0; round < rounds; ++round) {
      edit();  // what must survive
      const Recipe recipe = session_.recipe();
      const auto runs = session_.runs().size();
      lost_sentence_.clear();
      sentence_.clear();
      const QString job = kind.start();
      const Recipe expected = job.isEmpty() ? session_.recipe() : recipe;
      wait_for([] { return false; }, static_cast<int>(random() % (whole + 1)));
      ::kill(std::stoi(session_.engine_versions().at("pid")), SIGKILL);
      const bool bad = !wait_for([&] { return !lost_sentence_.isEmpty(); }, 20000);
      untold += bad || !(lost_sentence_.contains(QLatin1String("killed")) || lost_sentence_.contains(QLatin1String("not started again")));
      std::string problem = bad ? "the window did not hear of it" : "";
      const auto is_back = [&] {
        // After several ends within a minute the session waits for a word of the user.
        if (std::exchange(lost_sentence_, {}).contains(QLatin1String("not started again"))) session_.start();
        return session_.engine_is_ready() && session_.has_project() && wiring_.settled();
      };
      if (!wait_for(is_back, 60000))
        problem += session_.engine_is_ready() ? ", not all facts came back" : ", no engine";
      if (!(session_.recipe() == expected)) problem += ", the window's recipe is another";
      // An edit that the dead engine had not confirmed is sent to the new one; asking the file takes a second session.
      if (!(session_.state().recipe == expected) && !stored_is_shown()) problem += ", the stored recipe is another";
      if (session_.runs().size() < runs) problem += ", runs are missing";
      if (kind.name == std::string("export")) {
        QFile file(QString::fromStdString(out()));
        if (!file.open(QIODevice::ReadOnly) || (whole_size_ > 0 && file.size() != whole_size_)) problem += ", the file is broken";
      }
      if (!problem.empty()) std::printf("  %s, round %d: %s\n", kind.name, round, problem.c_str());
      lost += !problem.empty();
    }
    std::printf("%s: %u ms undisturbed, %d kills, %d lost something, %d without a sentence\n", kind.name, whole, rounds, lost, untold);
    std::fflush(stdout);
    return lost;
  }

  // What is stored, seen by a second session: the recipe of this one, and as many runs.
  bool stored_is_shown() {
    Session second;
    bool opened = false;
    QObject::connect(&second, &Session::project_opened, [&] { opened = true; });
    second.start();
    second.open(project_);
    return wait_for([&] { return opened; }, 60000) && second.recipe() == session_.recipe() &&
           second.runs().size() == session_.runs().size();
  }

 private:
  std::string out() const { return folder_.filePath(QStringLiteral("out.onnx")).toStdString(); }
  void edit() {
    Recipe recipe = session_.recipe();
    recipe.calibration.samples = 512;
    recipe.name = "edit " + std::to_string(++edits_);
    session_.edit_recipe(recipe, QStringLiteral("Edit %1").arg(edits_));
  }
  Recipe with_training() const {
    Recipe recipe = session_.recipe();
    PassEntry qat;
    qat.id = "qat";
    qat.options = {{"epochs", 1}, {"max_samples", 6000}};
    recipe.passes.push_back(qat);
    return recipe;
  }

  Session session_;
  MainWindow window_;
  Wiring wiring_;
  QString project_, finished_, sentence_, lost_sentence_;
  QTemporaryDir folder_;
  qint64 whole_size_ = 0;
  int edits_ = 0;
};

int run(int argc, char** argv) {
  QApplication app(argc, argv);
  Rounds rounds(QString::fromLocal8Bit(argv[1]));
  if (!rounds.open()) return std::fprintf(stderr, "The project was not open within a minute.\n"), 2;
  std::mt19937 random(1);
  int lost = 0;
  for (const Kind& kind : rounds.kinds()) lost += rounds.run(kind, argc > 2 ? std::atoi(argv[2]) : 20, random);
  const bool same = rounds.stored_is_shown();
  std::printf("a second session %s\n", same ? "shows the same" : "does NOT show the same");
  return lost > 0 || !same;
}

}  // namespace
}  // namespace quanvas

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: engine_kills PROJECT [ROUNDS]\n"), 2;
  return quanvas::run(argc, argv);
}
