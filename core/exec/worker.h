// Quanvas - threads of the executor; internal to core/exec.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace quanvas::exec {

// To be called first in a thread of ours: from then on LibTorch, OpenMP and our kernels use one thread in it.
void enter_worker();

// Whether the job that this thread works for has been stopped: asked between operators, and by those that may run for ever (Loop). Threads
// that were given no token are never stopped.
void set_stop_token(std::stop_token token);
bool stop_requested();

// A fixed crew for many short rounds (the shards of a training step). run() is not reentrant; `task` must not
// throw. Owned and used by one thread.
class Workers {
 public:
  explicit Workers(int count);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Calls task(0) ... task(tasks - 1) on the crew and returns when all are done.
  void run(int tasks, const std::function<void(int)>& task);

 private:
  void loop();
  std::mutex mutex_;
  std::condition_variable work_, done_;
  const std::function<void(int)>* task_ = nullptr;
  int next_ = 0, tasks_ = 0, finished_ = 0;
  bool quit_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quanvas::exec
