// Quanvas - what a pass keeps of a layer or block that it has finished (PassContext::finish_part): numbers for its report, and
// weights. In this machine's byte order: parts of a stopped run are for the run after it.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace quanvas::rounding {

inline std::string pack_part(const std::vector<double>& numbers, const std::vector<std::vector<float>>& weights) {
  std::string bytes;
  const auto append = [&](const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); };
  append(numbers.data(), numbers.size() * sizeof(double));
  for (const std::vector<float>& w : weights) append(w.data(), w.size() * sizeof(float));
  return bytes;
}

// numbers and weights have the sizes that are wanted. False: the bytes are of other sizes, or hold what is no number.
inline bool unpack_part(const std::string& bytes, std::vector<double>& numbers, std::vector<std::vector<float>>& weights) {
  std::size_t size = numbers.size() * sizeof(double);
  for (const std::vector<float>& w : weights) size += w.size() * sizeof(float);
  if (bytes.size() != size) return false;
  const char* from = bytes.data();
  bool good = true;
  const auto take = [&](auto& values) {
    std::memcpy(values.data(), from, values.size() * sizeof values[0]);
    from += values.size() * sizeof values[0];
    for (const double v : values) good = good && std::abs(v) < 1e15;  // counts are made of some
  };
  take(numbers);
  for (std::vector<float>& w : weights) take(w);
  return good;
}

}  // namespace quanvas::rounding
