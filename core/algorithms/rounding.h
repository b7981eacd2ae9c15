// Quanvas - rounding the weights of a linear layer so that its output, not each weight, comes close to the float one.
//
// Common to all: W is [m, n] row-major float32, owned by the caller, overwritten with weights on the quantizer's grid
// (exactly the values that fake_quantize() keeps). Scales and zero points are frozen: the quantizer is never found
// again on changed weights. With Q the result, D = Q - W and the moments of gram.h, the objective is the squared error
// of the layer's output over the calibration samples,
//   |Q X~ - W X|^2 = tr(D H D') - 2 tr(W mismatch D') + tr(W rest W'),
// which is tr(D H D') when both networks have the same input. The last term is the same for all Q; without the moments
// `rest` it is left out, and objectives may be negative.
// Threads: rows of W are independent; stripes of them run on the caller's kernel threads (quant::set_kernel_threads).
// Results are the same bits for any number of threads. Errors: kInvalidArgument for shapes that do not match and for
// weights that are not finite, kCancelled (W is then unchanged), kOutOfMemory.
#pragma once

#include <cstdint>
#include <stop_token>

#include "core/algorithms/accumulator.h"
#include "core/algorithms/factor.h"
#include "core/algorithms/gram.h"
#include "core/quant/column.h"

namespace quanvas::algorithms {

struct RoundingOptions {
  // Inputs whose errors are carried on inside a block before the rest of the weights is updated; speed only.
  std::int64_t block = 128;
  // Whether the report's objectives are computed (a product of W with H each).
  bool report = true;
  std::stop_token stop;
  // Codes whose sums no input can make too large (accumulator.h); of the same quantizer. Null: any codes of the grid.
  const Accumulator* accumulator = nullptr;
};

struct RoundingReport {
  double before = 0;   // objective of rounding to nearest (of polish: of the start)
  double after = 0;    // objective of the result
  double damping = 0;  // what was added to the diagonal of H
  int retries = 0;     // times that the damping was made tenfold
  std::int64_t dead = 0;  // inputs that were 0 on all samples; their weights are rounded to the grid's value nearest 0
  // With an accumulator: the largest share of its range that an input can make a sum reach, and the weights whose codes
  // the bound has moved.
  double used = 0;
  std::int64_t bounded = 0;
};

// GPTQ (Frantar et al. 2023, arXiv 2210.17323, algorithm 1): the error of each input's rounding is carried on to the
// inputs that are not yet rounded, w_j -= (w_i - q_i) / U_ii U_ij. Looks at H alone. Memory: 4 m n bytes for
// the result and 4 * 256 n for a panel per thread, with a report three. Work: m n^2 / 2 multiplications and
// additions, with a report as much again (the objective after is the sum of the squared errors that were carried on).
Result<RoundingReport> gptq(std::int64_t m, std::int64_t n, float* w, const Factor& factor,
                            const quant::ColumnQuantizer& quantizer, const RoundingOptions& options = {});

// GPFQ (Lybrand and Saab 2021; Zhang, Zhou and Saab 2023, arXiv 2201.11113, eq. 3) in its form on Gram matrices: q_t is
// the rounding of the least squares solution for input t of what inputs 0..t of the float layer give and inputs 0..t-1
// of the quantized one have not given. No factor, no damping. Memory: as gptq with
// four panels. Work: m n^2 / 2, with a mismatch 3/2 m n^2.
Result<RoundingReport> gpfq(std::int64_t m, std::int64_t n, float* w, const Moments& moments,
                            const quant::ColumnQuantizer& quantizer, const RoundingOptions& options = {});

// Qronos (Zhang et al. 2025, arXiv 2505.11695, algorithm 1): the first input is rounded against the mismatch of X and
// X~ of all others, these take up what is left by least squares; from then on as GPTQ.
// FactorOptions{1e-6, spectral} is the paper's damping. With X = X~ the result is that of gptq().
// Memory: as gpfq. Work: gptq and 2 m n^2.
Result<RoundingReport> qronos(std::int64_t m, std::int64_t n, float* w, const Factor& factor,
                              const quant::ColumnQuantizer& quantizer, const RoundingOptions& options = {});

// Coordinate descent on the objective (as in CDQuant, Nair and Suggala 2024, arXiv 2406.17542, greedy order replaced by
// sweeps): each weight in turn moves to the grid's value nearest to the minimum over it alone, if that lowers the
// objective. Never worse than the start, which is any `w` on the grid; a fixed point cannot be improved by changing one
// weight. w0: the float weights, [m, n]. A row whose objective, computed anew, is not lower keeps its start.
struct PolishOptions {
  int sweeps = 3;  // at most; ends when a sweep changes nothing
  std::stop_token stop;
  // Bounds the codes as RoundingOptions::accumulator does; kInvalidArgument when those of the start are beyond it.
  const Accumulator* accumulator = nullptr;
};
struct PolishReport {
  double before = 0, after = 0;
  std::int64_t changed = 0;  // weights that differ from the start
  double used = 0;           // see RoundingReport
};
Result<PolishReport> polish(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                            const quant::ColumnQuantizer& quantizer, const PolishOptions& options = {});

// Objective of q [m, n] against w [m, n], one value per row of W. Sums in float64 of products in float32.
Result<std::vector<double>> row_objectives(std::int64_t m, std::int64_t n, const float* w, const float* q,
                                           const Moments& moments, const std::stop_token& stop = {});
double objective_sum(const std::vector<double>& rows);

}  // namespace quanvas::algorithms
