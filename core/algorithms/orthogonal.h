// Quanvas - random orthogonal matrices from a seed.
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "core/base/result.h"

namespace quanvas::algorithms {

inline constexpr std::int64_t kMostOrthogonalSize = 8192;

// A generator of its own, so that a seed means the same draws on every machine (Steele, Lea and Flood 2014, "splitmix64").
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits();
  double uniform();  // in (0, 1)
  double normal();   // mean 0, variance 1

 private:
  std::uint64_t state_;
  double kept_ = 0;
  bool has_kept_ = false;
};

// Q [n, n], row-major, of the decomposition Q R of a matrix of normal numbers with the signs of R's diagonal moved into Q:
// every orthogonal matrix is equally likely (Mezzadri 2007, "How to generate random matrices from the classical compact
// groups"). In double: Q Q' is I to about 1e-15 n. The same bits for any number of threads.
// kInvalidArgument: n below 1 or above kMostOrthogonalSize.
// kCancelled. From 512 on by OpenBLAS, whose last bits depend on the processor: 4 n^3 products.
Result<std::vector<double>> random_orthogonal(std::int64_t n, std::uint64_t seed, const std::stop_token& stop = {});

// out := in Q for rows of n values, with Q [n, n] row-major; in and out do not overlap. The same bits for any number of threads.
// Errors: kCancelled.
Status multiply_rows(const double* in, double* out, std::int64_t rows, const std::vector<double>& q, std::int64_t n,
                     const std::stop_token& stop = {});

// n signs, +1 or -1. With D their diagonal matrix and H a Hadamard matrix, D H is what QuaRot calls a randomized Hadamard
// matrix: x -> (x D) H. Signs behind H would change no magnitude.
std::vector<double> random_signs(std::int64_t n, std::uint64_t seed);

}  // namespace quanvas::algorithms
