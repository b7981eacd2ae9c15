// Quanvas - what a long piece of work gets from whoever started it: a way to be stopped, a place to say how
// far it is, and a place to report partial trouble that does not end it.
//
// Threads: a JobContext may be used from several threads at once; the callbacks are called under its lock,
// so they need no lock of their own, and progress is throttled to 30 Hz (the last value of a phase always
// goes through).
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>

#include "core/base/result.h"

namespace quanvas {

enum class Severity { kInfo, kWarning, kError };

// One row of the Issues panel. `where` is a layer, file or option; may be empty.
struct Issue {
  Severity severity = Severity::kInfo;
  std::string where;
  std::string message;
  std::string hint;
};

struct Progress {
  std::string phase;      // "calibrate", "train epoch 1" ...
  std::string detail;     // "conv2, layer 3 of 8"
  double fraction = 0;    // 0..1 of the whole job
  double seconds_left = -1;  // estimate; negative while unknown
};

class JobContext {
 public:
  using ProgressFn = std::function<void(const Progress&)>;
  using IssueFn = std::function<void(const Issue&)>;
  // Partial results while the job runs; kind is "sweep-cell", "train-step" ..., json its value.
  using PartialFn = std::function<void(const std::string& kind, const std::string& json)>;

  JobContext() = default;
  explicit JobContext(std::stop_token stop, ProgressFn on_progress = {}, IssueFn on_issue = {},
                      PartialFn on_partial = {});

  bool stopped() const { return stop_.stop_requested(); }
  std::stop_token stop_token() const { return stop_; }
  // kCancelled when stopped; ask per batch, layer and block: QUANVAS_CHECK(job.check()).
  Status check() const;

  void progress(const std::string& phase, double fraction, const std::string& detail = {});
  void issue(Issue issue);
  void partial(const std::string& kind, const std::string& json);

  // The fractions that are reported from now on are mapped to [begin, end] of the whole job.
  void set_range(double begin, double end);

 private:
  std::stop_token stop_;
  ProgressFn on_progress_;
  IssueFn on_issue_;
  PartialFn on_partial_;
  std::mutex mutex_;
  double begin_ = 0, end_ = 1;
  std::string last_phase_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace quanvas
