// Quanvas - learned rounding on second moments: each weight goes up or down to one of the two values of its grid around it,
// all of a layer together, by gradient descent on the output error over the calibration samples.
//
// Both methods learn a number for each weight and need no forward passes: the loss of a row and its gradient come from the
// moments of gram.h, so a step costs m n^2 multiplications and additions whatever the number of samples was.
//   gates  AdaRound (Nagel et al. 2020, arXiv 2004.10568): weight = lower + h(v) (upper - lower), h(v) = clip(1.2 sigmoid(v) -
//          0.1, 0, 1), with lambda sum(1 - |2 h - 1|^beta) added, beta from 20 to 2, which makes h 0 or 1 in the end; Adam
//   signs  AutoRound (Cheng et al. 2023, arXiv 2309.05516): weight = upper where u + v >= 1/2 and else lower, u where the
//          weight lies between both and |v| <= 1/2; steps by the sign of the gradient straight through the rounding. Scales
//          are frozen; with learned ranges: learned_ranges.h
// The loss of a row is the objective of rounding.h over the mean of gap^2 H_jj, gap = upper - lower, so that neither lambda
// nor the rates depend on the scales of inputs and weights.
// The best row of values on the grid that is met on the way is kept; the start counts as met.
#pragma once

#include "core/algorithms/rounding.h"

namespace quanvas::algorithms {

enum class LearnedMethod { kGates, kSigns };
struct LearnedOptions {
  LearnedMethod method = LearnedMethod::kGates;
  int iterations = 1000;
  double rate = 0.01;            // of Adam; signs: ignored, 1 / iterations falling to 0
  double regularization = 3;     // lambda
  double warm_up = 0.2;          // part of the iterations without it
  double beta_start = 20, beta_end = 2;
  std::stop_token stop;
};
struct LearnedReport {
  double before = 0, after = 0;  // objectives of the start on the grid and of the result
  std::int64_t changed = 0;      // weights that differ from the start
  std::int64_t dead = 0;
  // Mean of min(h, 1 - h) over weights with a choice at the end; 0: all are decided. Of signs always.
  double undecided = 0;
};

// w0: the float weights [m, n], whose output is the aim. w: where it starts from, on the grid or not; becomes the result. A
// row that has not become better keeps the start, rounded to nearest. Weights beyond the grid and of dead inputs stay at
// their start.
// Memory: 10 * 4 * 32 n bytes per thread. Work: iterations * m n^2. Threads: rows in stripes of 32.
Result<LearnedReport> learn_rounding(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                                     const quant::ColumnQuantizer& quantizer, const LearnedOptions& options = {});

// The choice of each weight [m, n]: two values of the grid, equal where there is none, and the h that it starts from. A weight w
// that is not on the grid starts where it lies between them; one that an earlier pass has put on the grid near where w0
// lies, on the side that it was put to.
struct Gates {
  std::vector<float> lower, upper, h;
};
Result<Gates> gates_of(std::int64_t m, std::int64_t n, const float* w0, const float* w, const quant::ColumnQuantizer& quantizer);

// h(v) and the v in which it has the value h, 0 <= h <= 1.
double gate(double v);
double gate_inverse(double h);

// The loss of method gates at v [m, n] and its gradient in v, as the descent sees it.
struct GateLoss {
  double loss = 0;
  std::vector<float> gradient;
};
Result<GateLoss> gate_loss(std::int64_t m, std::int64_t n, const float* w0, const float* w, const float* v, const Moments& moments,
                           const quant::ColumnQuantizer& quantizer, double regularization, double beta);

}  // namespace quanvas::algorithms
