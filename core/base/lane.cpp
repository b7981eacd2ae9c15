#include "core/base/lane.h"

namespace quanvas {

Lane::Lane() : thread_([this](std::stop_token stop) { work(stop); }) {}

Lane::~Lane() {
  thread_.request_stop();
  thread_.join();
}

void Lane::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

bool Lane::busy() const {
  std::lock_guard lock(mutex_);
  return running_ || !tasks_.empty();
}

void Lane::work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [this] { return !tasks_.empty(); }) && !stop.stop_requested()) {
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    running_ = true;
    lock.unlock();
    task();
    task = nullptr;  // what it captured goes before the lane says that it is free
    lock.lock();
    running_ = false;
  }
}

}  // namespace quanvas
