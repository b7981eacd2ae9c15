// Quanvas - a thread with a queue: tasks run one after the other, in the order in which they came.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

namespace quanvas {

// Thread-safe. Tasks must not throw. One thread for all heavy jobs also means one pool of OpenMP threads.
class Lane {
 public:
  Lane();
  // Drops what waits and joins the task that runs.
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void post(std::function<void()> task);
  bool busy() const;  // a task runs or waits

  // Runs fn on the lane and waits for what it returns.
  template <class Fn>
  std::invoke_result_t<Fn> ask(Fn fn) {
    auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Fn>()>>(std::move(fn));
    auto answer = task->get_future();
    post([task] { (*task)(); });
    return answer.get();
  }

 private:
  void work(std::stop_token stop);

  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::function<void()>> tasks_;
  bool running_ = false;
  std::jthread thread_;
};

}  // namespace quanvas
