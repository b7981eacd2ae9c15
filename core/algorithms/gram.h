// Quanvas - second moments of a layer's input, all that rounding with error correction needs to know of the data.
//
// y = W x, W is [m, n]; the calibration samples give the columns x of X [n, N] in the float network and x~ of X~ [n, N]
// in the quantized one (for a convolution every output position is a column, see im2col.h, and every group has Grams
// of its own).
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "core/base/result.h"

namespace quanvas::algorithms {

// Row-major [n, n] each. Owned; immutable by convention once it is finished. Where papers have the cross Gram G = X X~'
// and S = X X', here are the moments of the difference of both inputs: sums of small numbers instead of differences of
// large sums.
struct Gram {
  std::int64_t inputs = 0;   // n
  std::int64_t columns = 0;  // N
  std::vector<double> h;     // X~ X~', symmetric
  // Empty when both networks have the same input (X = X~):
  std::vector<double> mismatch;  // (X - X~) X~' = G - H
  // (X - X~)(X - X~)' = S + H - G - G', symmetric; for reports alone, may be empty.
  std::vector<double> rest;
  bool has_cross() const { return !mismatch.empty(); }
};

// What the algorithms compute with: float32, inputs in the order in which they are rounded. Row-major [n, n] each.
struct Moments {
  std::int64_t inputs = 0;
  std::vector<std::int32_t> order;  // order[k]: the input that is number k
  std::vector<float> h;             // H
  // Empty when both networks have the same input:
  std::vector<float> mismatch;
  std::vector<float> rest;          // may be empty
  std::vector<char> dead;           // of number k: it was 0 on all samples
  std::int64_t dead_count = 0;
};

// Inputs by their second moments, largest first; equal ones in ascending order.
std::vector<std::int32_t> order_by_moments(const Gram& gram);
std::vector<std::int32_t> natural_order(std::int64_t inputs);
// Memory: 4 n^2 bytes, with the cross Gram 12 n^2. kInvalidArgument: a diagonal that is negative or no number.
Result<Moments> moments_of(const Gram& gram, std::vector<std::int32_t> order, const std::stop_token& stop = {});

// Products of float32 tiles of kTileColumns columns, each added to sums in float64 in the order in which the columns
// came: the result does not depend on the number of threads, nor on how the columns were divided into calls of add().
// Memory: 8 n^2 bytes, of both inputs 16 n^2 and with `rest` 24 n^2, and a tile of 4 n kTileColumns bytes, of both two.
// Threads: one caller at a time; the products run on the caller's kernel threads.
class GramAccumulator {
 public:
  static constexpr std::int64_t kTileColumns = 2048;
  enum class Order {
    kInputs,  // x[input * stride + column]
    kColumns  // x[column * stride + input]
  };
  // n >= 1; cross: columns of both networks come in pairs; rest: with the moments that only reports need.
  explicit GramAccumulator(std::int64_t inputs, bool cross = false, bool rest = true);

  // x: columns of the network whose weights are rounded; reference: the same columns of the float network, null unless
  // `cross`. Errors: kCancelled.
  Status add(const float* x, const float* reference, std::int64_t columns, Order order, std::int64_t stride,
             const std::stop_token& stop = {});
  // What another accumulator of the same kind has summed comes behind what is here.
  Status merge(GramAccumulator&& other, const std::stop_token& stop = {});
  // kInvalidArgument: no columns, or a value that is not finite (or too large for its square), with its input's index.
  Result<Gram> finish(const std::stop_token& stop = {}) &&;
  std::int64_t columns() const { return sums_.columns + filled_; }

 private:
  // Adds the products of a tile.
  Status take(const float* x, std::int64_t stride, std::int64_t columns, const std::stop_token& stop);
  // sum += a b' over `columns` columns.
  Status multiply(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t columns,
                  bool symmetric, std::vector<double>& sum, const std::stop_token& stop);

  Gram sums_;  // lower triangles of h and rest
  bool cross_ = false, rest_ = false;
  std::int64_t filled_ = 0;
  // [n, filled_], rows kTileColumns apart; not touched beyond what is filled.
  std::unique_ptr<float[]> tile_, difference_;
};

}  // namespace quanvas::algorithms
