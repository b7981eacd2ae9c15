#include "core/exec/chunks.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/base/guarded.h"
#include "core/exec/runner.h"
#include "core/exec/worker.h"

namespace quanvas::exec {
namespace {

using Work = std::function<Result<std::shared_ptr<void>>(std::int64_t)>;

// Workers take chunk numbers in order and never run more than `window` ahead of the consumer, so that memory
// stays bounded when one chunk is slow.
class Pipeline {
 public:
  Pipeline(std::int64_t n, std::int64_t window, const Work& work) : n_(n), window_(window), work_(work) {}

  void run_worker(bool inference, std::stop_token stop) {
    enter_worker();
    set_stop_token(std::move(stop));
    c10::InferenceMode guard(inference);
    while (const auto index = take()) put(*index, guarded("worker", [&] { return work_(*index); }));
  }

  // Blocks until result `index` is there; none when `stopped` says so first.
  std::optional<Result<std::shared_ptr<void>>> wait(std::int64_t index, const std::function<bool()>& stopped) {
    std::unique_lock lock(mutex_);
    while (!ready_.count(index)) {
      if (stopped()) return std::nullopt;
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    auto result = std::move(ready_.at(index));
    ready_.erase(index);
    return result;
  }
  void consumed() {
    std::lock_guard lock(mutex_);
    ++consumed_;
    changed_.notify_all();
  }
  void quit() {
    std::lock_guard lock(mutex_);
    quit_ = true;
    changed_.notify_all();
  }

 private:
  std::optional<std::int64_t> take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return quit_ || next_ >= n_ || next_ < consumed_ + window_; });
    if (quit_ || next_ >= n_) return std::nullopt;
    return next_++;
  }
  void put(std::int64_t index, Result<std::shared_ptr<void>> result) {
    std::lock_guard lock(mutex_);
    ready_.emplace(index, std::move(result));
    changed_.notify_all();
  }

  const std::int64_t n_, window_;
  const Work& work_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, Result<std::shared_ptr<void>>> ready_;
  std::int64_t next_ = 0, consumed_ = 0;
  bool quit_ = false;
};

// Ends the workers however the consumer is left.
struct Crew {
  Pipeline& pipeline;
  std::vector<std::thread> threads;
  ~Crew() {
    pipeline.quit();
    for (auto& t : threads) t.join();
  }
};

}  // namespace

Status parallel_ordered(std::int64_t n, JobContext& job, bool inference, const Work& work,
                        const std::function<Status(std::int64_t, void*)>& consume) {
  QUANVAS_CHECK(job.check());
  if (n <= 0) return {};
  const std::int64_t workers = std::min<std::int64_t>(n, std::max(1, threads()));
  return guarded("chunks", [&]() -> Status {
    Pipeline pipeline(n, 2 * workers, work);
    Crew crew{pipeline, {}};
    for (std::int64_t i = 0; i < workers; ++i) 
      crew.threads.emplace_back([&] { pipeline.run_worker(inference, job.stop_token()); });
    c10::InferenceMode guard(inference);
    for (std::int64_t i = 0; i < n; ++i) {
      auto result = pipeline.wait(i, [&] { return job.stopped(); });
      if (!result) return job.check();
      QUANVAS_TRY(const std::shared_ptr<void> value, std::move(*result));
      QUANVAS_CHECK(consume(i, value.get()));
      pipeline.consumed();
      QUANVAS_CHECK(job.check());
    }
    return {};
  });
}

Result<Chunk> read_chunk(const Dataset& data, std::vector<std::int64_t> samples, std::int64_t index,
                         const std::string& device) {
  Chunk chunk;
  chunk.index = index;
  chunk.samples = std::move(samples);
  const auto n = static_cast<std::int64_t>(chunk.samples.size());
  Shape shape = data.sample_shape();
  shape.insert(shape.begin(), n);
  chunk.input = at::empty(shape, at::kFloat);
  if (data.has_labels()) chunk.labels = at::empty({n}, at::kLong);
  QUANVAS_CHECK(data.read(chunk.samples, chunk.input.data_ptr<float>(),
                          data.has_labels() ? chunk.labels.data_ptr<std::int64_t>() : nullptr));
  if (device != "cpu") {
    chunk.input = chunk.input.to(at::Device(device));
    if (chunk.labels.defined()) chunk.labels = chunk.labels.to(at::Device(device));
  }
  return chunk;
}

}  // namespace quanvas::exec
