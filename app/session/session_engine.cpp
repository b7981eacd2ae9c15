// Session: the engine's life. Own engines are started, watched and started again; remote ones only watched.
#include <unistd.h>

#include "app/session/session_impl.h"

namespace quanvas {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kStartsPerMinute = 5;
constexpr auto kConnectPatience = std::chrono::seconds(60);
constexpr int kWatchMs = 500;
constexpr int kSettleMs = 200;
constexpr int kRestMs = 300;
constexpr auto kFlushPatience = std::chrono::seconds(3);

}  // namespace

Session::Impl::Impl(Session* session, const QString& address)
    : q(session), given_address(address), remote(!address.isEmpty()) {
  job_prefix = std::to_string(::getpid()) + "-" + std::to_string(Clock::now().time_since_epoch().count()) + "-";
  settle.setSingleShot(true);
  settle.setInterval(kSettleMs);
  QObject::connect(&settle, &QTimer::timeout, q, [this] { send_edits(); });
  look.rest.setSingleShot(true);
  look.rest.setInterval(kRestMs);
  QObject::connect(&look.rest, &QTimer::timeout, q, [this] { send_numbers(); });
  retry.setSingleShot(true);
  QObject::connect(&retry, &QTimer::timeout, q, [this] { send_edits(); });
  watch.setInterval(kWatchMs);
  QObject::connect(&watch, &QTimer::timeout, q, [this] { check_connection(); });
  if (!remote) make_process();
}

void Session::Impl::make_process() {
  process = std::make_unique<EngineProcess>();
  QObject::connect(process.get(), &EngineProcess::ended, q, [this](const QString& sentence, bool again) { lose_engine(sentence, again); });
}

Session::Impl::~Impl() {
  settle.stop();
  look.rest.stop();
  look.numbers.request_stop();
  retry.stop();
  watch.stop();
  undo.disconnect();
  connecting.request_stop();
  opening.request_stop();
  (void)flush_edits_now();
  if (client) client->abort();
  if (!client && process) process->kill({});  // it may hang in its start; nobody waits for it
  job_threads.clear();  // joins; their calls have been aborted
}

void Session::Impl::start() {
  if (client) return on_gui([this] { Q_EMIT q->engine_ready(); });
  starts.clear();
  launch();
}

void Session::Impl::launch() {
  const auto now = Clock::now();
  while (!starts.empty() && now - starts.front() > std::chrono::minutes(1)) starts.pop_front();
  if (starts.size() >= kStartsPerMinute) {
    Q_EMIT q->engine_lost(QStringLiteral("The engine ended %1 times within a minute and is not started again. "
                                         "Your edits are kept here; start it again when the cause is removed.")
                              .arg(starts.size()));
    return;
  }
  starts.push_back(now);
  if (!remote && !process->is_running()) process->start();
  connect_engine();
}

void Session::Impl::connect_engine() {
  connecting.request_stop();
  connecting = std::stop_source();
  const std::string address = remote ? given_address.toStdString() : process->address();
  link_lane.post([this, address, stop = connecting.get_token()] {
    std::optional<EngineHello> hello;
    json fresh_catalog;
    const auto connected = [&]() -> Result<ClientPtr> {
      QUANVAS_TRY(const ClientPtr fresh, EngineClient::connect(address, kConnectPatience, stop));
      const std::stop_callback give_up(stop, [&] { fresh->abort(); });
      QUANVAS_TRY(hello, fresh->hello());
      QUANVAS_TRY(fresh_catalog, fresh->catalog());
      return fresh;
    }();
    on_gui([this, connected, hello, fresh_catalog, stop] {
      if (stop.stop_requested()) return;
      if (connected) return adopt_engine(*connected, *hello, fresh_catalog);
      if (connected.error().code != ErrorCode::kCancelled) connect_failed(connected.error());
    });
  });
}

void Session::Impl::connect_failed(const Error& error) {
  if (remote) return lose_engine(to_text(error), /*again=*/false);
  // An engine that died meanwhile is reported with the reason of its end, which says more.
  if (!process->is_running()) return;
  // Another release is another release when it is started again, too.
  process->kill(to_text(error), /*again=*/error.code != ErrorCode::kUnsupported);
}

void Session::Impl::adopt_engine(ClientPtr fresh, const EngineHello& hello, json fresh_catalog) {
  client = std::move(fresh);
  unreachable = false;
  versions = hello.versions;
  catalog = std::move(fresh_catalog);
  for (const auto& warning : hello.warnings) add_issue({Severity::kWarning, "engine", warning, {}});
  watch.start();
  Q_EMIT q->engine_ready();
  // Edits that an earlier engine has not confirmed, and what waits for them, go to their project before another one
  // is opened.
  if (has_project && (wanted_path.isEmpty() || !pending.empty() || !waiting_for_edits.empty()))
    return send_open(project_path, true);
  open_wanted();
}

void Session::Impl::check_connection() {
  if (!client) return;
  if (client->is_connected() && !client->lost()) {
    unreachable = false;
    return;
  }
  if (remote) return lose_engine(QStringLiteral("The connection to the engine at %1 was lost.").arg(given_address), true);
  // The process lives but does not answer: it cannot be used any more. Or it has died, and that is about to be told
  // with the reason, so it gets until the next look.
  if (!std::exchange(unreachable, true) || !process->is_running()) return;
  process->kill(QStringLiteral("The engine did not answer any more and was ended."));
}

bool Session::Impl::is_loss(const ClientPtr& asked, const Error& error) {
  if (asked != client) return true;
  return asked && asked->lost() && error.code == ErrorCode::kIo;
}

void Session::Impl::lose_engine(const QString& sentence, bool again) {
  connecting.request_stop();
  watch.stop();
  if (client) client->abort();
  client.reset();
  sending = asking_facts = asking_histogram = false;
  fail_active_jobs(sentence);
  if (!opening_path.isEmpty()) {
    // What was being opened may be what the engine dies of: it is not tried again.
    const QString path = std::exchange(opening_path, {});
    opening.request_stop();
    if (!reopening)
      Q_EMIT q->open_failed(path, QStringLiteral("The engine ended while it opened this file. ") + sentence);
    reopening = false;
  }
  Q_EMIT q->engine_lost(sentence);
  if (again) on_gui([this] {
    if (!client) launch();
  });
}

Status Session::Impl::flush_edits_now() {
  if (!client || !has_project || state.read_only || abandoned) return {};
  const auto asked = client;
  const auto deadline = Clock::now() + kFlushPatience;
  // What is on its way arrives first. When it does not, the engine hangs and would not take more.
  const auto arrived = std::make_shared<std::promise<void>>();
  edit_lane.post([arrived] { arrived->set_value(); });
  const auto late = [] { return fail(ErrorCode::kIo, "The engine does not answer, so the last edits are not stored."); };
  if (arrived->get_future().wait_until(deadline) != std::future_status::ready) return late();
  for (const auto& edit : pending) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (edit.serial <= confirmed_serial) continue;
    if (left.count() <= 0) return late();
    QUANVAS_CHECK(asked->set_recipe(edit.recipe, edit.label.toStdString(), left));
    confirmed_serial = edit.serial;
  }
  return {};
}

}  // namespace quanvas
