// Quanvas - an engine of our own: the process quanvas-engine with a private socket. GUI thread.
#pragma once

#include <optional>
#include <string>

#include <QObject>
#include <QProcess>
#include <QString>

namespace quanvas {

class EngineProcess : public QObject {
  Q_OBJECT

 public:
  explicit EngineProcess(QObject* parent = nullptr);
  // Asks the process to end and kills it when it does not within 2 s.
  ~EngineProcess() override;

  // quanvas-engine beside this program, else in PATH; QUANVAS_ENGINE overrides.
  static QString program();

  void start();
  // SIGKILL. ended() then says this reason and not that it was killed; of several the first, which is the cause of those
  // that follow: an engine that is being killed does not answer either.
  void kill(const QString& reason, bool again = true);
  bool is_running() const { return process_.state() != QProcess::NotRunning; }
  std::string address() const;  // of the process started last

 Q_SIGNALS:
  // sentence: how it ended. again: starting it again may help (it crashed or was killed); false when the
  // program is missing or refused to start.
  void ended(const QString& sentence, bool again);

 private:
  void on_finished(int code, QProcess::ExitStatus status);
  void read_messages();

  QProcess process_;
  QString socket_;
  QByteArray messages_;  // the last of what it wrote to its standard error
  struct Killed {
    QString reason;
    bool again = true;
  };
  std::optional<Killed> killed_;  // by us; its end has not been noticed yet
};

// "The engine was killed (signal 9). The system does that when memory runs out."
QString describe_end(int code, QProcess::ExitStatus status, const QByteArray& messages);

}  // namespace quanvas
