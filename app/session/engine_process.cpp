#include "app/session/engine_process.h"

#include <signal.h>

#include <cstdio>

#include <QCoreApplication>
#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QStandardPaths>

#include "core/base/files.h"

namespace quanvas {
namespace {

constexpr int kMessagesKept = 4096;

struct SignalRow {
  int number;
  const char* text;
};
constexpr SignalRow kSignals[] = {
    {SIGKILL, "was killed (signal 9). The system does that when memory runs out: use fewer samples or a smaller model."},
    {SIGSEGV, "crashed (signal 11, segmentation fault)."},
    {SIGABRT, "crashed (signal 6, abort)."},
    {SIGBUS, "crashed (signal 7, bus error): a file that it had mapped may have become shorter."},
    {SIGILL, "crashed (signal 4, illegal instruction): a library was built for another processor."},
    {SIGFPE, "crashed (signal 8, arithmetic error)."},
    {SIGTERM, "was ended by another program (signal 15)."},
};

QString last_line(const QByteArray& messages) {
  const auto lines = messages.trimmed().split('\n');
  QString line = QString::fromLocal8Bit(lines.last()).trimmed();
  const QString prefix = QStringLiteral("quanvas-engine: ");
  if (line.startsWith(prefix)) line.remove(0, prefix.size());
  return line;
}

}  // namespace

QString describe_end(int code, QProcess::ExitStatus status, const QByteArray& messages) {
  if (status == QProcess::CrashExit) {
    for (const auto& row : kSignals)
      if (row.number == code) return QStringLiteral("The engine ") + QString::fromLatin1(row.text);
    return QStringLiteral("The engine was ended by signal %1.").arg(code);
  }
  const QString said = last_line(messages);
  QString sentence = QStringLiteral("The engine ended by itself (exit code %1).").arg(code);
  if (code != 0 && !said.isEmpty()) sentence += QStringLiteral(" It said: ") + said;
  return sentence;
}

EngineProcess::EngineProcess(QObject* parent) : QObject(parent) {
  process_.setStandardInputFile(QProcess::nullDevice());
  process_.setStandardOutputFile(QProcess::nullDevice());
  connect(&process_, &QProcess::readyReadStandardError, this, &EngineProcess::read_messages);
  connect(&process_, &QProcess::finished, this, &EngineProcess::on_finished);
  connect(&process_, &QProcess::errorOccurred, this, [this](QProcess::ProcessError error) {
    if (error != QProcess::FailedToStart) return;
    Q_EMIT ended(QStringLiteral("The engine '%1' does not start: %2. Install Quanvas again, or name the engine in "
                                "QUANVAS_ENGINE.")
                     .arg(program(), process_.errorString()),
                 false);
  });
}

EngineProcess::~EngineProcess() {
  process_.disconnect(this);
  if (is_running()) {
    process_.terminate();
    if (!process_.waitForFinished(2000)) {
      process_.kill();
      process_.waitForFinished(2000);
    }
  }
  if (!socket_.isEmpty()) QFile::remove(socket_);
}

QString EngineProcess::program() {
  const QString given = qEnvironmentVariable("QUANVAS_ENGINE");
  if (!given.isEmpty()) return given;
  const QString beside = QDir(QCoreApplication::applicationDirPath()).filePath(QStringLiteral("quanvas-engine"));
  if (QFileInfo(beside).isExecutable()) return beside;
  const QString found = QStandardPaths::findExecutable(QStringLiteral("quanvas-engine"));
  return found.isEmpty() ? beside : found;
}

void EngineProcess::start() {
  if (!socket_.isEmpty()) QFile::remove(socket_);
  const auto folder = QString::fromStdString(runtime_dir().string());
  const auto pid = QCoreApplication::applicationPid();
  static int windows = 0;
  socket_ = QStringLiteral("%1/engine-%2-%3.sock").arg(folder).arg(pid).arg(++windows);
  messages_.clear();
  killed_.reset();
  process_.start(program(), {QStringLiteral("--listen"), QString::fromStdString(address()),
                             QStringLiteral("--with-parent"), QString::number(pid)});
}

void EngineProcess::kill(const QString& reason, bool again) {
  if (!killed_) killed_ = Killed{reason, again};
  process_.kill();
}

std::string EngineProcess::address() const { return "unix:" + socket_.toStdString(); }

void EngineProcess::read_messages() {
  const QByteArray text = process_.readAllStandardError();
  std::fwrite(text.constData(), 1, static_cast<std::size_t>(text.size()), stderr);
  messages_ = (messages_ + text).right(kMessagesKept);
}

void EngineProcess::on_finished(int code, QProcess::ExitStatus status) {
  read_messages();
  if (const auto by_us = std::exchange(killed_, std::nullopt)) {
    Q_EMIT ended(by_us->reason, by_us->again);
    return;
  }
  Q_EMIT ended(describe_end(code, status, messages_), status == QProcess::CrashExit || code == 0);
}

}  // namespace quanvas
