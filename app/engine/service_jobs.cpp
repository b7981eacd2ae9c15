#include "app/engine/service_jobs.h"

#include "core/base/guarded.h"
#include "core/protocol/wire.h"
#include "core/report/report.h"

namespace quanvas {
namespace {

using protocol::JobEvent;

JobEvent progress_event(const Progress& progress) {
  JobEvent event;
  event.set_progress(to_json_text(progress));
  return event;
}

JobEvent issue_event(const Issue& issue) {
  JobEvent event;
  event.set_issue(to_json_text(issue));
  return event;
}

JobEvent partial_event(const std::string& kind, const std::string& json) {
  JobEvent event;
  event.mutable_partial()->set_kind(kind);
  event.mutable_partial()->set_json(json);
  return event;
}

Error stopped_error() { return {ErrorCode::kCancelled, "Stopped on request.", {}, {}}; }

}  // namespace

void EventQueue::push(JobEvent event) {
  {
    std::lock_guard lock(mutex_);
    if (event.has_progress() && !events_.empty() && events_.back().has_progress())
      events_.back() = std::move(event);
    else
      events_.push_back(std::move(event));
  }
  wake_.notify_one();
}

std::optional<JobEvent> EventQueue::pop(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!wake_.wait_for(lock, patience, [this] { return !events_.empty(); })) return std::nullopt;
  JobEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

bool is_last(const JobEvent& event) { return event.has_result() || event.has_failed(); }

JobEvent failed_event(const Error& error) {
  JobEvent event;
  *event.mutable_failed() = protocol::to_message(error);
  return event;
}

Result<JobPtr> JobLane::start(const std::string& id, JobWork work) {
  auto job = std::make_shared<Job>();
  job->id = id;
  {
    std::lock_guard lock(mutex_);
    if (!jobs_.emplace(id, job).second)
      return fail(ErrorCode::kInvalidArgument, "There is a job '" + id + "' already.", "Give each job an id of its own.");
  }
  if (lane_.busy()) job->events.push(progress_event({"waiting", "another job is running", 0, -1}));
  lane_.post([this, job, work = std::move(work)] { run(job, work); });
  return job;
}

void JobLane::run(const JobPtr& job, const JobWork& work) {
  std::optional<JobEvent> last;
  if (!job->claimed.exchange(true)) {
    JobContext context(
        job->stop.get_token(), [&](const Progress& p) { job->events.push(progress_event(p)); },
        [&](const Issue& i) { job->events.push(issue_event(i)); },
        [&](const std::string& kind, const std::string& json) { job->events.push(partial_event(kind, json)); });
    const auto result = guarded("", [&]() -> Result<std::string> {
      QUANVAS_CHECK(context.check());
      return work(context);
    });
    if (result)
      last.emplace().set_result(*result);
    else
      last = failed_event(result.error());
  }
  {
    std::lock_guard lock(mutex_);
    jobs_.erase(job->id);
  }
  // Only now: who hears of the end may use the id again.
  if (last) job->events.push(std::move(*last));
}

bool JobLane::cancel(const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto it = jobs_.find(id);
  if (it == jobs_.end()) return false;
  it->second->stop.request_stop();
  return true;
}

void JobLane::cancel_all() {
  std::lock_guard lock(mutex_);
  for (auto& [id, job] : jobs_) job->stop.request_stop();
}

void stream_events(const JobPtr& job, const std::function<bool(const JobEvent&)>& write,
                   const std::function<bool()>& gone) {
  bool client_is_there = true;
  while (client_is_there) {
    const auto event = job->events.pop(std::chrono::milliseconds(50));
    if (event) {
      client_is_there = write(*event);
      if (is_last(*event)) return;
    }
    if (gone()) client_is_there = false;
    if (!client_is_there) job->stop.request_stop();
    if (job->stop.stop_requested() && !job->claimed.exchange(true)) {
      if (client_is_there) write(failed_event(stopped_error()));
      return;
    }
  }
}

}  // namespace quanvas
