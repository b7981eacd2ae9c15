// Quanvas - the search for the range of least squared error. Private to core/quant.
#pragma once

#include <array>
#include <optional>

#include "core/quant/affine.h"

namespace quanvas::quant {

inline constexpr int kMaxSearchSteps = 100;

inline constexpr int kBracketStart = 10, kBracketRounds = 5;

// Tries fractions of `extreme`: of the threshold (symmetric), or of both ends together, then of the lower, then of
// the upper one (asymmetric). `extreme` itself is always tried and wins ties. errors(candidates, count, out) writes
// the squared error of each candidate.
//   grid        equal steps from `first` / steps on
//   bracketing  kBracketStart equal steps, then kBracketRounds times two points in either gap beside the best: the
//               error need not have a single minimum for the result to be no worse than the start
template <class Errors>
class RangeSearch {
 public:
  RangeSearch(const QuantSpec& spec, const Grid& grid, Range extreme, int steps, int first, const Errors& errors)
      : spec_(spec), grid_(grid), extreme_(extreme), steps_(steps), first_(first), errors_(errors) {}

  Range run() {
    best_ = extreme_;
    const Affine start = affine(spec_, grid_, extreme_);
    errors_(&start, 1, &least_);
    over(true, true);
    if (!is_symmetric(spec_)) {
      over(true, false);
      over(false, true);
    }
    return best_;
  }

 private:
  void over(bool lower, bool upper) {
    const bool bracketing = spec_.search == Search::kBracketing;
    const int steps = bracketing ? kBracketStart : steps_;
    std::array<float, kMaxSearchSteps> shares;
    int count = 0;
    for (int i = bracketing ? 1 : first_; i <= steps; ++i)
      shares[static_cast<std::size_t>(count++)] = static_cast<float>(i) / static_cast<float>(steps);
    const Range before = best_;
    float& share = upper ? upper_share_ : lower_share_;
    share = attempt(before, shares.data(), count, lower, upper).value_or(share);
    if (!bracketing) return;
    float gap = 1.0f / static_cast<float>(steps);
    for (int round = 0; round < kBracketRounds; ++round) {
      gap /= 3;
      count = 0;
      for (const int at : {-2, -1, 1, 2}) {
        const float next = share + static_cast<float>(at) * gap;
        if (next > 0 && next < 1) shares[static_cast<std::size_t>(count++)] = next;
      }
      share = attempt(before, shares.data(), count, lower, upper).value_or(share);
    }
    if (lower && upper) lower_share_ = share;
  }

  // The share that is better than all before, if any is.
  std::optional<float> attempt(const Range& before, const float* shares, int count, bool lower, bool upper) {
    std::array<Affine, kMaxSearchSteps> candidates;
    std::array<Range, kMaxSearchSteps> ranges;
    std::array<double, kMaxSearchSteps> found;
    for (int i = 0; i < count; ++i) {
      Range r = before;
      if (lower) r.lo = extreme_.lo * shares[i];
      if (upper) r.hi = extreme_.hi * shares[i];
      ranges[static_cast<std::size_t>(i)] = r;
      candidates[static_cast<std::size_t>(i)] = affine(spec_, grid_, r);
    }
    errors_(candidates.data(), count, found.data());
    std::optional<float> better;
    for (int i = 0; i < count; ++i) {
      if (!(found[static_cast<std::size_t>(i)] < least_)) continue;
      least_ = found[static_cast<std::size_t>(i)];
      best_ = ranges[static_cast<std::size_t>(i)];
      better = shares[i];
    }
    return better;
  }

  const QuantSpec& spec_;
  const Grid& grid_;
  Range extreme_, best_;
  int steps_, first_;
  const Errors& errors_;
  double least_ = 0;
  float lower_share_ = 1, upper_share_ = 1;  // of the extreme's ends, of the best candidate so far
};

template <class Errors>
Range search_range(const QuantSpec& spec, const Grid& grid, Range extreme, int steps, int first,
                   const Errors& errors) {
  return RangeSearch<Errors>(spec, grid, extreme, steps, first, errors).run();
}

// The same on the elements x; the result is never worse than `extreme` on them.
Range mse_range(const QuantSpec& spec, const Grid& grid, const float* x, std::int64_t n, Range extreme,
                int threads);

}  // namespace quanvas::quant
