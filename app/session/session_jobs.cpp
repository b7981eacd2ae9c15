// Session: jobs. One thread per job drains its stream; the engine runs one at a time and says "waiting" to the
// others.
#include "app/session/session_impl.h"

namespace quanvas {
namespace {

constexpr int kStopPatienceMs = 2000;
constexpr std::size_t kMostJobs = 200;

bool is_active(const JobStatus& job) {
  using Phase = JobStatus::Phase;
  return job.phase == Phase::kQueued || job.phase == Phase::kRunning || job.phase == Phase::kCancelling;
}

QString percent(double share) { return QString::number(100 * share, 'f', 2) + QStringLiteral(" %"); }

struct Outcome {
  bool ok = true;
  QString sentence;
};

Outcome run_outcome(const std::string& text) {
  const auto run = from_json_text<Run>(text, "run");
  if (!run) return {false, to_text(run.error())};
  QString sentence = QString::fromStdString(run->name);
  if (run->sweep) sentence += QStringLiteral(": %1 cells measured").arg(run->sweep->cells.size());
  if (run->accuracy && run->accuracy->top1 == run->accuracy->top1)  // not nan
    sentence += QStringLiteral(": top-1 %1 ± %2 of %3 samples")
                    .arg(percent(run->accuracy->top1), percent(run->accuracy->top1_stderr))
                    .arg(run->accuracy->samples, 0, 'f', 0);
  if (run->accuracy && has_perplexity(*run->accuracy))
    sentence += QStringLiteral(": %1 of %2 tokens").arg(QString::fromStdString(perplexity_text(*run->accuracy))).arg(run->accuracy->tokens, 0, 'f', 0);
  if (run->id == 0) sentence += QStringLiteral(", not stored; see Issues");
  return {true, sentence + QStringLiteral(".")};
}

Outcome export_outcome(const ExportReport& report) {
  if (!report.refusals.empty())
    return {false, QStringLiteral("Nothing was written: %1 refuses %2 of the choices. The first: %3")
                       .arg(QString::fromStdString(report.target))
                       .arg(report.refusals.size())
                       .arg(QString::fromStdString(report.refusals.front().text()))};
  std::size_t unequal = 0;
  for (const auto& row : report.audit) unequal += row.equal ? 0 : 1;
  if (unequal > 0)
    return {false, QStringLiteral("%1 was written, but %2 of its %3 quantizers differ from the requested ones.")
                       .arg(QString::fromStdString(report.path))
                       .arg(unequal)
                       .arg(report.audit.size())};
  return {true, QStringLiteral("Wrote %1 (%2 bytes); %3 quantizers checked.")
                    .arg(QString::fromStdString(report.path))
                    .arg(report.file_bytes, 0, 'f', 0)
                    .arg(report.audit.size())};
}

}  // namespace

std::string Session::Impl::wire_id(const QString& id) const { return job_prefix + id.toStdString(); }

JobStatus* Session::Impl::find_job(const QString& id) {
  for (auto& job : jobs)
    if (job.id == id) return &job;
  return nullptr;
}

QString Session::Impl::start_job(const std::string& verb, const QString& title, json argument) {
  JobStatus job;
  job.id = QStringLiteral("j%1").arg(next_job++);
  job.title = title;
  job.verb = QString::fromStdString(verb);
  const QString id = job.id;
  if (jobs.size() >= kMostJobs && !is_active(jobs.front())) jobs.erase(jobs.begin());
  jobs.push_back(job);
  job_clocks[id].start();
  Q_EMIT q->jobs_changed();
  // Queued, so that the caller knows the id before it hears of the end.
  on_gui([this, id, argument = std::move(argument)] {
    JobStatus* queued = find_job(id);
    if (!queued || !is_active(*queued)) return;
    if (queued->phase == JobStatus::Phase::kCancelling)
      return end_job(*queued, JobStatus::Phase::kCancelled, QStringLiteral("Stopped on request."));
    if (!client || !has_project)
      return end_job(*queued, JobStatus::Phase::kFailed,
                     client ? QStringLiteral("No project is open.") : QStringLiteral("The engine is not running."));
    after_edits([this, id, argument] { launch_job(id, argument); });
  });
  return id;
}

void Session::Impl::launch_job(const QString& id, const json& argument) {
  JobStatus* job = find_job(id);
  if (!job || !is_active(*job)) return;
  if (job->phase == JobStatus::Phase::kCancelling)
    return end_job(*job, JobStatus::Phase::kCancelled, QStringLiteral("Stopped on request."));
  if (opening_another())
    return end_job(*job, JobStatus::Phase::kFailed, QStringLiteral("Another project is being opened."));
  // Each has a thread of its own, and yet they come to the engine in the order in which they were started.
  const auto queued = std::make_shared<std::promise<void>>();
  const auto before = std::exchange(last_queued, queued->get_future().share());
  job_threads[id] = std::jthread([this, id, argument, verb = job->verb.toStdString(), asked = client,
                                  wire = wire_id(id), queued, before] {
    if (before.valid()) before.wait();
    JobEvents events;
    events.queued = [&] { queued->set_value(); };
    events.progress = [&](const Progress& p) { on_gui([this, id, p] { job_progress(id, p); }); };
    events.issue = [&](const Issue& i) { on_gui([this, i] { add_issue(i); }); };
    events.partial = [&](const std::string& kind, const std::string& text) {
      on_gui([this, id, kind, text] { job_partial(id, kind, text); });
    };
    const auto result = asked->run_job(wire, verb, argument, events);
    const std::uint64_t question = ++last_question;
    std::optional<ProjectState> fresh_state;
    std::optional<std::vector<Run>> fresh_runs;
    // The state last: it says of which project both are.
    if (auto r = asked->runs()) fresh_runs = std::move(*r);
    if (auto s = asked->state()) fresh_state = std::move(*s);
    on_gui([this, id, result, fresh_state, fresh_runs, question, asked] {
      job_threads.erase(id);  // joins; nothing follows in that thread
      if (asked == client) job_ended(id, result, fresh_state, fresh_runs, question);
    });
  });
}

void Session::Impl::job_progress(const QString& id, const Progress& progress) {
  JobStatus* job = find_job(id);
  if (!job || !is_active(*job)) return;
  job->progress = progress;
  job->seconds = static_cast<double>(job_clocks[id].elapsed()) / 1000;
  if (const auto late = stopping.find(id); late != stopping.end()) late->second.heard.start();
  if (job->phase != JobStatus::Phase::kCancelling)
    job->phase = progress.phase == "waiting" ? JobStatus::Phase::kQueued : JobStatus::Phase::kRunning;
  Q_EMIT q->jobs_changed();
}

void Session::Impl::job_partial(const QString& id, const std::string& kind, const std::string& text) {
  if (kind == "sweep-cell") {
    if (const auto cell = from_json_text<SweepCell>(text)) Q_EMIT q->sweep_cell(id.mid(1).toLongLong(), *cell);
  } else if (kind == "train-step") {
    if (const auto point = from_json_text<TrainPoint>(text)) Q_EMIT q->train_point(*point);
  }
}

void Session::Impl::job_ended(const QString& id, const Result<std::string>& result,
                              const std::optional<ProjectState>& fresh_state,
                              const std::optional<std::vector<Run>>& fresh_runs, std::uint64_t question) {
  JobStatus* job = find_job(id);
  if (!job || !is_active(*job)) return;
  // A lost engine is told by lose_engine, for all its jobs and with the reason.
  if (!result && client->lost() && result.error().code == ErrorCode::kIo) return;
  const std::string before = state.statistics_hash;
  const bool was_calibrated = state.calibrated;
  const bool ours = fresh_state && is_ours(*fresh_state) && question > answered_question;
  if (ours) answered_question = question;
  if (ours) set_state(*fresh_state);
  if (ours && fresh_runs) {
    runs = *fresh_runs;
    Q_EMIT q->runs_changed();
  }
  if (state.statistics_hash != before || state.calibrated != was_calibrated) {
    mark_changed(all_layers());
    ask_facts(all_layers());
  }
  ask_checks();
  if (!result) {
    const bool stopped = result.error().code == ErrorCode::kCancelled;
    return end_job(*job, stopped ? JobStatus::Phase::kCancelled : JobStatus::Phase::kFailed, to_text(result.error()));
  }
  Outcome outcome{true, QStringLiteral("Done.")};
  if (job->verb == QStringLiteral("export")) {
    const auto report = from_json_text<ExportReport>(*result, "export");
    outcome = report ? export_outcome(*report) : Outcome{false, to_text(report.error())};
    if (report) Q_EMIT q->export_finished(*report);
  } else if (job->verb == QStringLiteral("calibrate")) {
    outcome.sentence = QStringLiteral("Calibrated.");
  } else {
    outcome = run_outcome(*result);
  }
  job = find_job(id);  // a slot may have started another job
  if (job) end_job(*job, outcome.ok ? JobStatus::Phase::kDone : JobStatus::Phase::kFailed, outcome.sentence);
}

void Session::Impl::end_job(JobStatus& job, JobStatus::Phase phase, const QString& sentence) {
  job.phase = phase;
  job.message = sentence;
  job.seconds = static_cast<double>(job_clocks[job.id].elapsed()) / 1000;
  if (phase == JobStatus::Phase::kDone) job.progress.fraction = 1;
  job.progress.seconds_left = -1;
  const QString id = job.id;
  job_clocks.erase(id);
  stopping.erase(id);
  Q_EMIT q->jobs_changed();
  Q_EMIT q->job_finished(id, phase == JobStatus::Phase::kDone, sentence);
}

void Session::Impl::fail_active_jobs(const QString& sentence) {
  std::vector<QString> active;
  for (const auto& job : jobs)
    if (is_active(job)) active.push_back(job.id);
  for (const auto& id : active) {
    JobStatus* job = find_job(id);
    if (!job || !is_active(*job)) continue;
    const bool stopping = job->phase == JobStatus::Phase::kCancelling;
    end_job(*job, stopping ? JobStatus::Phase::kCancelled : JobStatus::Phase::kFailed,
            stopping ? QStringLiteral("Stopped; the engine was started again.")
                     : QStringLiteral("The job was lost with the engine. ") + sentence);
  }
}

void Session::Impl::cancel(const QString& id) {
  JobStatus* job = find_job(id);
  if (!job || !is_active(*job)) return;
  if (job->phase == JobStatus::Phase::kCancelling) {
    // Asked again after the patience: whatever it still has to finish is not waited for. Sooner it is a double click.
    const auto late = stopping.find(id);
    if (late != stopping.end() && late->second.asked.elapsed() > kStopPatienceMs) end_by_force(*job);
    return;
  }
  job->phase = JobStatus::Phase::kCancelling;
  Q_EMIT q->jobs_changed();
  if (!client) return;
  control_lane.post([asked = client, wire = wire_id(id)] { (void)asked->cancel_job(wire); });
  Stopping& clocks = stopping[id];
  clocks.asked.start();
  clocks.heard.start();
  watch_stopping(id, client);
}

// A job that was stopped may have something to finish, such as measuring what was trained so far: it is late when
// nothing was heard of it for the whole patience, not when it takes longer.
void Session::Impl::watch_stopping(const QString& id, const ClientPtr& asked) {
  const auto clocks = stopping.find(id);
  const JobStatus* job = find_job(id);
  if (clocks == stopping.end() || !job || asked != client) return;
  const qint64 left = kStopPatienceMs - clocks->second.heard.elapsed();
  if (left <= 0) return end_by_force(*job);
  QTimer::singleShot(static_cast<int>(left), q, [this, id, asked] { watch_stopping(id, asked); });
}

void Session::Impl::end_by_force(const JobStatus& job) {
  if (!process) return;
  process->kill(QStringLiteral("'%1' did not stop within %2 s, so the engine was started again.")
                    .arg(job.title)
                    .arg(kStopPatienceMs / 1000));
}

QString Session::start_calibrate() { return impl_->start_job("calibrate", tr("Calibrate"), json::object()); }

QString Session::start_evaluate_float() {
  return impl_->start_job("evaluate-float", tr("Evaluate the float model"), json::object());
}

QString Session::start_run(const std::optional<Recipe>& recipe) {
  RunRequest request;
  request.recipe = recipe ? *recipe : impl_->recipe;
  return impl_->start_job("run", tr("Run %1").arg(QString::fromStdString(request.recipe->name)),
                          to_json_value(request));
}

QString Session::start_sweep(const SweepSettings& settings, std::int64_t resume) {
  return impl_->start_job("sweep", resume ? tr("Resume sweep %1").arg(resume) : tr("Sweep"),
                          {{"settings", to_json_value(settings)}, {"resume", resume}});
}

QString Session::start_export(const ExportRequest& request) {
  return impl_->start_job("export", tr("Export %1").arg(QString::fromStdString(request.target)),
                          to_json_value(request));
}

}  // namespace quanvas
