// Quanvas - long verbs of the service: each is a Job with a stop source and a queue of events. The lane's
// thread fills the queue, the call's thread writes it to the client; so a slow client never slows the job,
// and cancelling is answered at once although the job itself looks at its stop token only now and then.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "core/base/lane.h"
#include "core/base/job.h"
#include "engine.pb.h"

namespace quanvas {

// Thread-safe. A progress that nobody has read yet is replaced by the next one; everything else is kept.
class EventQueue {
 public:
  void push(protocol::JobEvent event);
  // Waits at most `patience`.
  std::optional<protocol::JobEvent> pop(std::chrono::milliseconds patience);

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<protocol::JobEvent> events_;
};

bool is_last(const protocol::JobEvent& event);
protocol::JobEvent failed_event(const Error& error);

struct Job {
  std::string id;
  std::stop_source stop;
  EventQueue events;
  std::atomic<bool> claimed = false;  // by the lane that runs it, or by the call that gives it up
};
using JobPtr = std::shared_ptr<Job>;
// Returns the text of the result event (JSON).
using JobWork = std::function<Result<std::string>(JobContext&)>;

// Thread-safe.
class JobLane {
 public:
  // Queues the work. kInvalidArgument when a job of this id is there already.
  Result<JobPtr> start(const std::string& id, JobWork work);
  // False when there is no such job (any more).
  bool cancel(const std::string& id);
  void cancel_all();
  bool busy() const { return lane_.busy(); }

 private:
  void run(const JobPtr& job, const JobWork& work);

  std::mutex mutex_;
  std::map<std::string, JobPtr> jobs_;
  Lane lane_;  // last: its thread uses the members above
};

// Writes the job's events with `write` (false: the client is gone) until the last one. `gone` is asked every
// 50 ms. A job that has not begun when it is stopped ends at once; one that runs goes on by itself until it
// looks at its stop token.
void stream_events(const JobPtr& job, const std::function<bool(const protocol::JobEvent&)>& write,
                   const std::function<bool()>& gone);

}  // namespace quanvas
