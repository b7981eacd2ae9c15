#include "app/window/screenshot.h"

#include <cstdio>

#include <QAction>
#include <QApplication>
#include <QDialog>
#include <QPixmap>

#include "app/window/docks.h"

namespace quanvas {
namespace {

constexpr int kPollMs = 50;
constexpr int kPatienceMs = 60000;

}  // namespace

Screenshot::Screenshot(const WindowOptions& options, Session* session, MainWindow* window, Wiring* wiring, std::function<void(int)> done)
    : QObject(window), options_(options), session_(session), window_(window), wiring_(wiring), done_(std::move(done)) {
  connect(wiring, &Wiring::open_failed, this, &Screenshot::fail);
  connect(&poll_, &QTimer::timeout, this, &Screenshot::look);
  poll_.start(kPollMs);
}

void Screenshot::fail(const QString& sentence) {
  if (std::exchange(over_, true)) return;
  std::fprintf(stderr, "quanvas: %s\n", qPrintable(sentence));
  done_(1);
}

bool Screenshot::select() {
  if (selected_ || options_.select.empty()) return true;
  if (!session_->has_project()) return true;
  const Node* node = session_->graph()->find(options_.select);
  if (!node) {
    fail(tr("There is no layer '%1' in this network.").arg(QString::fromStdString(options_.select)));
    return false;
  }
  selected_ = true;
  wiring_->select({node->id});
  return true;
}

void Screenshot::show() {
  shown_ = true;
  QString id = QString::fromStdString(options_.show);
  // A panel and an action may have one name.
  const bool is_action = id.startsWith(QStringLiteral("action:"));
  if (is_action) id = id.mid(7);
  if (auto* panel = is_action ? nullptr : window_->findChild<Panel*>(id)) return window_->docks()->show_panel(panel);
  // Those of runs are about the newest one.
  if (const auto runs = session_->runs(); !runs.empty()) window_->panels().runs->select({runs.back().id});
  auto* action = window_->findChild<QAction*>(id);
  if (!action) {
    QStringList known;
    for (const auto* a : window_->findChildren<QAction*>())
      if (!a->objectName().isEmpty()) known << a->objectName();
    return fail(tr("There is no panel or action '%1'. Actions: %2.").arg(id, known.join(QStringLiteral(", "))));
  }
  if (!action->isEnabled()) return fail(tr("The action '%1' is not possible now.").arg(id));
  QTimer::singleShot(0, action, &QAction::trigger);  // a dialog runs a loop of its own
}

void Screenshot::look() {
  waited_ms_ += kPollMs;
  const bool wants_project = !options_.file.empty();
  const bool late = waited_ms_ > kPatienceMs;
  if (wants_project && !session_->has_project()) {
    if (late) fail(tr("The file was not open within a minute."));
    return;
  }
  if (wants_project && !selected_ && !select()) return;
  if (wants_project && !wiring_->settled() && !late) return;
  if (!shown_ && !options_.show.empty()) {
    show();
    return;  // what it asks is waited for, too
  }
  poll_.stop();
  QTimer::singleShot(options_.after_ms, this, &Screenshot::write);
}

void Screenshot::write() {
  if (std::exchange(over_, true)) return;
  // Sizes that have changed are handed up one parent at a time: what was shown last may not have its place yet.
  constexpr int kParents = 16;
  for (int i = 0; i < kParents; ++i) QCoreApplication::sendPostedEvents(nullptr, QEvent::LayoutRequest);
  QWidget* shown = window_;
  for (QWidget* top : QApplication::topLevelWidgets())
    if (top->isVisible() && qobject_cast<QDialog*>(top)) shown = top;
  const QPixmap picture = shown->grab();
  if (picture.save(QString::fromStdString(options_.screenshot), "PNG")) return done_(0);
  std::fprintf(stderr, "quanvas: %s\n", qPrintable(tr("%1 could not be written.").arg(QString::fromStdString(options_.screenshot))));
  done_(1);
}

}  // namespace quanvas
