// Quanvas - small parts of the window: the status line, the engine pill, the banner, the start page.
#pragma once

#include <QFrame>
#include <QLabel>
#include <QWidget>

#include "widgets/panels/jobs_panel.h"

class QProgressBar;
class QPushButton;

namespace quanvas {

class EmptyState;

// At the bottom: the running job with its progress and a way to cancel it; at the right what is stale and the
// accuracy of the current recipe.
class StatusLine : public QWidget {
  Q_OBJECT

 public:
  explicit StatusLine(QWidget* parent = nullptr);
  void set_job(const JobRow* job, int waiting);      // nullptr: nothing runs
  void set_message(const QString& text);             // shown while nothing runs
  void set_stale(const QString& text);
  void set_accuracy(const QString& html);
  QString job_text() const;
  QString stale_text() const;
  QString accuracy_text() const;

 Q_SIGNALS:
  void cancel_wanted(const QString& job_id);

 private:
  QString job_id_;
  QLabel *title_, *detail_, *eta_, *cancel_, *stale_, *accuracy_;
  QProgressBar* bar_;
};

// "engine: this computer, CPU, 2 threads" with a dot: full when ready, ring while it starts, cross when lost.
class EnginePill : public QLabel {
  Q_OBJECT

 public:
  enum class State { kStarting, kReady, kLost };
  explicit EnginePill(QWidget* parent = nullptr);
  void set_state(State state, const QString& text, const QString& tooltip);

 private:
  void restyle();
  State state_ = State::kStarting;
  QString text_;
};

// One line over the graph that stays until it is closed or no longer true. Not modal.
class Banner : public QFrame {
  Q_OBJECT

 public:
  explicit Banner(QWidget* parent = nullptr);
  // key: what it is about; a later call with the same key replaces it, hide_key(key) takes it away.
  void show_message(const QString& key, const QString& icon_name, const QString& text, const QString& action = {});
  void hide_key(const QString& key);
  QString text() const;

 Q_SIGNALS:
  void action_triggered(const QString& key);

 private:
  QString key_;
  QLabel *icon_, *text_;
  QPushButton* action_;
};

// "Drop an ONNX file here, or open the Fashion-MNIST example".
class StartPage : public QWidget {
  Q_OBJECT

 public:
  explicit StartPage(bool has_example, QWidget* parent = nullptr);
  void set_progress(const QString& text, double fraction);  // while something is being opened
  void set_error(const QString& sentence);                  // empty: none
  void set_idle();
  QString text() const { return shown_; }

 Q_SIGNALS:
  void action_triggered(const QString& id);  // "open", "example"

 private:
  EmptyState* empty_;
  QProgressBar* bar_;
  QLabel* error_;
  QString shown_;
};

}  // namespace quanvas
