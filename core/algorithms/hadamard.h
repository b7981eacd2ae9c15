// Quanvas - orthonormal Hadamard transforms of every size n = K 2^j for which Paley's constructions give a core of K.
//
// H = C x S / sqrt(n) (Kronecker product): C the core [K, K] of +-1 with C C' = K I, S Sylvester's matrix [2^j, 2^j] in its
// natural order, S[a][b] = (-1)^popcount(a & b). A row x becomes x H: 2^j log2(2^j) additions for S and K for each element of
// C. Cores: Paley I, K = q + 1 for a prime power q = 3 mod 4, and Paley II, K = 2 (q + 1) for q = 1 mod 4
// (Paley 1933, "On Orthogonal Matrices"). Cores of Paley II are symmetric, those of Paley I are not: the inverse of x H
// is x H', and only where the core is symmetric or 1 it is x H.
//
// Sizes whose odd part has no Paley core get a larger one: 344 = 343 + 1 although 43, 86 and 172 have none.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/result.h"

namespace quanvas::algorithms {

inline constexpr std::int64_t kMostHadamardCore = 2048;           // larger cores are not looked for
inline constexpr std::int64_t kMostHadamardSize = std::int64_t{1} << 26;

enum class HadamardCore { kNone, kPaley1, kPaley2 };
struct HadamardSize {
  std::int64_t size = 1;   // n
  std::int64_t core = 1;   // K: 1 for powers of two, else 4 or more
  std::int64_t field = 0;  // q, 0 where K is 1
  HadamardCore kind = HadamardCore::kNone;
};

// Whether n has a matrix, and with which core: the smallest, which is the fastest. size 0: there is none.
HadamardSize find_hadamard(std::int64_t n);
// The same as an error that names the sizes next to n that have one; kInvalidArgument.
Result<HadamardSize> hadamard_size(std::int64_t n);
// The smallest size from n on that has a matrix, n at least 1; 0: none up to kMostHadamardSize.
std::int64_t next_hadamard_size(std::int64_t n);
// Row-major [K, K] of +-1 for a K that find_hadamard names (1: the number 1); empty for others.
std::vector<std::int8_t> paley_core(std::int64_t k);

// Immutable; may be used by several threads at once. Rows are contiguous, n values each. Results have the same bits for any
// number of threads and on any processor: sums have one order, and products with +-1 are exact.
class HadamardTransform {
 public:
  // kInvalidArgument: no such size, or `core` is not one of it (0: that of find_hadamard).
  static Result<HadamardTransform> create(std::int64_t n, std::int64_t core = 0);
  // With a core from elsewhere, row-major [K, K] of +-1. kInvalidArgument: C C' is not K I, or n is not K 2^j.
  static Result<HadamardTransform> with_core(std::int64_t n, const std::vector<std::int8_t>& core);

  std::int64_t size() const { return n_; }
  std::int64_t core() const { return k_; }
  // out := in H for each row, with `transposed` in H'; in == out is allowed. Rows are shared out to the caller's kernel threads.
  void apply(const float* in, float* out, std::int64_t rows, bool transposed = false) const;
  void apply(const double* in, double* out, std::int64_t rows, bool transposed = false) const;
  // H, row-major [n, n].
  std::vector<double> matrix() const;

 private:
  HadamardTransform(std::int64_t n, std::int64_t k, std::vector<std::int8_t> core);
  std::int64_t n_ = 1, k_ = 1;
  std::vector<std::int8_t> core_;
  // C and C' as the kernels read them; empty where K is 1.
  std::vector<float> floats_[2];
  std::vector<double> doubles_[2];
};

}  // namespace quanvas::algorithms
