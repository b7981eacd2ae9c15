#include "core/exec/worker.h"

#include <dlfcn.h>

#include <ATen/Parallel.h>
#include <omp.h>

#include "core/quant/params.h"

namespace quanvas::exec {

namespace {

// XNNPACK (poolings and small layers in inference) has one pool of spinning threads for the whole process, which
// workers would queue for. LibTorch has a switch per thread for this, but does not install its header.
void leave_shared_pool() {
  using Switch = void (*)(bool);
  static const auto set = reinterpret_cast<Switch>(dlsym(RTLD_DEFAULT, "_ZN6caffe219_NoPThreadPoolGuard11set_enabledEb"));
  if (set) set(true);
}

thread_local std::stop_token stop_token_of_thread;

}  // namespace

void set_stop_token(std::stop_token token) { stop_token_of_thread = std::move(token); }
bool stop_requested() { return stop_token_of_thread.stop_requested(); }

void enter_worker() {
  // at::set_num_threads would also change the default of every thread that starts later. OpenMP's own setting
  // belongs to this thread alone, and ATen, oneDNN and OpenBLAS (OpenMP) go by it.
  at::get_num_threads();
  omp_set_num_threads(1);
  quant::set_kernel_threads(1);
  leave_shared_pool();
}

Workers::Workers(int count) {
  for (int i = 0; i < count; ++i) threads_.emplace_back([this] { loop(); });
}

Workers::~Workers() {
  {
    std::lock_guard lock(mutex_);
    quit_ = true;
    work_.notify_all();
  }
  for (auto& t : threads_) t.join();
}

void Workers::run(int tasks, const std::function<void(int)>& task) {
  std::unique_lock lock(mutex_);
  task_ = &task;
  next_ = finished_ = 0;
  tasks_ = tasks;
  work_.notify_all();
  done_.wait(lock, [&] { return finished_ == tasks_; });
  task_ = nullptr;
}

void Workers::loop() {
  enter_worker();
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return quit_ || (task_ && next_ < tasks_); });
    if (quit_) return;
    const auto* task = task_;
    const int index = next_++;
    lock.unlock();
    (*task)(index);
    lock.lock();
    if (++finished_ == tasks_) done_.notify_all();
  }
}

}  // namespace quanvas::exec
