// Quanvas - orthogonal matrices on features, and what they do to the weights of linear layers.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/algorithms/hadamard.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas {

// An orthogonal matrix R [size, size]; rows of a multiple of `size` values are rotated block by block. Immutable.
class Rotation {
 public:
  // kind: "hadamard", "signs" (the same behind random signs), "orthogonal" (random). kInvalidArgument: no such size;
  // kCancelled.
  static Result<Rotation> create(const std::string& kind, std::int64_t size, std::uint64_t seed, const std::stop_token& stop);
  // Row-major [size, size].
  static Rotation of(std::int64_t size, std::vector<double> matrix);

  std::int64_t size() const { return size_; }
  std::vector<double> matrix() const;
  // x := x R. The same bits for any number of threads. Errors: kCancelled.
  Status apply(std::vector<double>& x, const std::stop_token& stop) const;

 private:
  std::int64_t size_ = 1;
  std::optional<algorithms::HadamardTransform> hadamard_;
  std::vector<double> signs_, dense_;
};

// [rows, columns] to [columns, rows].
std::vector<double> transposed(const std::vector<double>& x, std::int64_t rows, std::int64_t columns);
// w := w R, b := b R.
Status rotate_outputs(LinearWeight& w, const Rotation& r, const std::stop_token& stop);
// w := R' [w; 0], for an input [x, 0] R of so many features.
Status rotate_inputs(LinearWeight& w, const Rotation& r, std::int64_t inputs, const std::stop_token& stop);

}  // namespace quanvas
