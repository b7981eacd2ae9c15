#include "core/base/job.h"

#include <algorithm>

namespace quanvas {

JobContext::JobContext(std::stop_token stop, ProgressFn on_progress, IssueFn on_issue, PartialFn on_partial)
    : stop_(std::move(stop)),
      on_progress_(std::move(on_progress)),
      on_issue_(std::move(on_issue)),
      on_partial_(std::move(on_partial)) {}

Status JobContext::check() const {
  if (stopped()) return fail(ErrorCode::kCancelled, "Stopped on request.");
  return {};
}

void JobContext::progress(const std::string& phase, double fraction, const std::string& detail) {
  if (!on_progress_) return;
  std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  const bool new_phase = phase != last_phase_;
  if (!new_phase && fraction < 1 && now - last_ < std::chrono::milliseconds(33)) return;
  last_ = now;
  last_phase_ = phase;
  Progress p{phase, detail, begin_ + std::clamp(fraction, 0.0, 1.0) * (end_ - begin_), -1};
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (p.fraction > 0.01 && elapsed > 0.5) p.seconds_left = elapsed * (1 - p.fraction) / p.fraction;
  on_progress_(p);
}

void JobContext::issue(Issue issue) {
  std::lock_guard lock(mutex_);
  if (on_issue_) on_issue_(issue);
}

void JobContext::partial(const std::string& kind, const std::string& json) {
  std::lock_guard lock(mutex_);
  if (on_partial_) on_partial_(kind, json);
}

void JobContext::set_range(double begin, double end) {
  std::lock_guard lock(mutex_);
  begin_ = begin;
  end_ = end;
}

}  // namespace quanvas
