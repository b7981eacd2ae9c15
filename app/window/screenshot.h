// Quanvas - a picture of the window once its project is on the screen; for documentation and tests.
#pragma once

#include <functional>

#include <QObject>
#include <QTimer>

#include "app/window/options.h"
#include "app/window/wiring.h"

namespace quanvas {

// Waits until the project is open and all that was asked about it has been answered (at most a minute), selects the
// layer, shows what is to be shown, waits after_ms, writes the PNG and calls done with the exit code; trouble is printed to stderr.
class Screenshot : public QObject {
  Q_OBJECT

 public:
  Screenshot(const WindowOptions& options, Session* session, MainWindow* window, Wiring* wiring, std::function<void(int)> done);

 private:
  void look();
  bool select();
  void show();
  void write();
  void fail(const QString& sentence);

  WindowOptions options_;
  Session* session_;
  MainWindow* window_;
  Wiring* wiring_;
  std::function<void(int)> done_;
  QTimer poll_;
  int waited_ms_ = 0;
  bool selected_ = false, shown_ = false, over_ = false;
};

}  // namespace quanvas
