// Quanvas - content hashes (XXH3, 128 bit, as 32 hex digits): keys of caches, data sets, graphs and artifacts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace quanvas {

// Streaming hash. Strings are hashed with their length, so ("ab","c") and ("a","bc") differ.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& bytes(const void* data, std::size_t size);
  Hasher& text(std::string_view s);
  Hasher& number(std::int64_t v);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_bytes(const void* data, std::size_t size);
std::string hash_text(std::string_view s);

}  // namespace quanvas
