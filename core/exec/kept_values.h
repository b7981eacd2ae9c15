// Quanvas - what passes keep in memory from one run to the next, because it depends on less than a run does: second
// moments of a float network's inputs, say, serve every bit width. Bounded: what was not asked for the longest goes
// first.
#pragma once

#include <any>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace quanvas {

// Thread-safe. Values are shared and never changed.
class KeptValues {
 public:
  explicit KeptValues(std::int64_t limit_bytes) : limit_(limit_bytes) {}

  // Null: it is not kept, or is of another type.
  template <class T>
  std::shared_ptr<const T> find(const std::string& key) {
    std::lock_guard lock(mutex_);
    const auto it = index_.find(key);
    if (it == index_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, it->second);
    const auto* value = std::any_cast<std::shared_ptr<const T>>(&it->second->value);
    return value ? *value : nullptr;
  }

  // Instead of what has that key. Not kept when it alone is beyond the limit.
  template <class T>
  void keep(const std::string& key, std::shared_ptr<const T> value, std::int64_t bytes) {
    std::lock_guard lock(mutex_);
    drop(key);
    if (bytes > limit_) return;
    entries_.push_front({key, std::move(value), bytes});
    index_[key] = entries_.begin();
    bytes_ += bytes;
    while (bytes_ > limit_) drop(entries_.back().key);
  }

  std::int64_t bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  struct Entry {
    std::string key;
    std::any value;
    std::int64_t bytes = 0;
  };
  void drop(std::string key) {
    const auto it = index_.find(key);
    if (it == index_.end()) return;
    bytes_ -= it->second->bytes;
    entries_.erase(it->second);
    index_.erase(it);
  }

  const std::int64_t limit_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the one asked for last first
  std::map<std::string, std::list<Entry>::iterator> index_;
  std::int64_t bytes_ = 0;
};

}  // namespace quanvas
