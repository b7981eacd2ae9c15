// Quanvas - AXE: codes whose sums no input can make too large for an accumulator (Colbert et al. 2024, arXiv 2409.17092).
// GPTQ, GPFQ and Qronos choose one input's codes after the other; this says of each how far it may go, from what the
// codes of the row before it have used up.
//
// A row's inputs are cut into tiles, in the order in which they lie in the weight; each tile has a signed accumulator of P
// bits. With w the whole numbers that multiply the input's codes x (weight code minus zero point), p the sum of the
// positive and v that of the negative w of a tile and B = 2^(P-1) - 1, what any x in [low, high] can reach is kept in
//   high p + low v <= B   and   low p + high v >= -B,
// at every moment, in whole numbers: as 0 lies in [low, high], the sums on the way are within it, too, in any order. Codes
// count as they stand; the share of an input's zero point, z times the sum of the weights, belongs to the bias. Sums of T =
// n / tile tiles fit P + ceil(log2 T) bits.
// So that the last inputs of a row are not left with nothing, weights are first brought nearer to 0 by the level that the
// projection of the tile's centred weights on the l1 ball of radius 2 B / (high - low) takes off (A2Q+, Colbert et al. 2024,
// arXiv 2401.10432).
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/result.h"
#include "core/quant/column.h"

namespace quanvas::algorithms {

struct AccumulatorOptions {
  int bits = 0;            // P, 2..32; 0: no bound
  std::int64_t tile = 0;   // inputs that one accumulator sums up; 0: all
  // What the inputs not yet rounded make up for: all that the weight has lost, or its rounding alone and not what the
  // bound has taken from it, as the paper's algorithm does. All is better as long as the bound takes a part; where it takes
  // most, what is carried on finds no room and takes it from the inputs behind. Best: both ways, and each row keeps the
  // one of the lower objective, in twice the time.
  enum class Spread { kTotal, kRounding, kBest } spread = Spread::kTotal;
  std::int64_t low = 0, high = 255;  // codes of the input; low <= 0 <= high, 32 bits at most
};

// Immutable after create(); may be used by several threads at once.
class Accumulator {
 public:
  // For a layer with n inputs whose weights the quantizer rounds; keeps a reference to it. kUnsupported: the weights have
  // no whole codes, or those of one tile have several scales. kInvalidArgument: numbers beyond their ranges.
  static Result<Accumulator> create(const AccumulatorOptions& options, const quant::ColumnQuantizer& quantizer);

  const AccumulatorOptions& options() const { return options_; }
  std::int64_t tile() const { return tile_; }
  std::int64_t tiles() const { return tiles_; }
  double most() const { return most_; }  // B
  // No codes of this grid can overflow: results are those without a bound, bit for bit.
  bool never_binds() const { return never_binds_; }
  // Bits that the sum of all tiles fits.
  int outer_bits() const;
  // The largest share of an accumulator that an input can reach with the weights w [m, n], which are on the grid; above 1: it
  // overflows.
  double share(std::int64_t m, std::int64_t n, const float* w) const;
  // The levels that weights are brought nearer to 0 by, [tiles, m], in units of the weights w [m, n].
  Result<std::vector<float>> levels(std::int64_t m, std::int64_t n, const float* w, const std::stop_token& stop = {}) const;

  // What `rows` rows from `first` on have used up.
  class Sums {
   public:
    // levels: of levels(), outlives this. total: what is carried on is all that is lost.
    Sums(const Accumulator& accumulator, const std::vector<float>& levels, std::int64_t first, std::int64_t rows, bool total);
    // x: what the weights [rows] of a column would best be; becomes their value on the grid. kept: unless `total`
    // loses what the bound has taken from x. Each column once, in any order.
    void round(std::int64_t column, float* x, float* kept);
    // For weights that are on the grid already: takes a column's values up as they are; each column once.
    void count(std::int64_t column, const float* x);
    // to: what the values `from` of a column that was counted shall become; where sums would leave the bound it becomes the
    // nearest that does not. change() makes it so.
    void hold_back(std::int64_t column, const float* from, float* to) const;
    void change(std::int64_t column, const float* from, const float* to);
    // Of row first + r: the largest share of an accumulator that an input can reach, and the codes that the bound has moved.
    double used(std::int64_t r) const;
    std::int64_t bounded(std::int64_t r) const { return static_cast<std::int64_t>(bounded_[static_cast<std::size_t>(r)]); }
    bool total() const { return total_; }

   private:
    const Accumulator& accumulator_;
    const std::vector<float>& levels_;
    std::int64_t first_, rows_;
    bool total_;
    std::vector<double> positive_, negative_;  // [tiles, rows], whole numbers
    std::vector<double> bounded_;              // [rows], likewise
    std::vector<float> wish_;
  };

 private:
  Accumulator(const AccumulatorOptions& options, const quant::ColumnQuantizer& quantizer)
      : options_(options), quantizer_(&quantizer) {}

  AccumulatorOptions options_;
  const quant::ColumnQuantizer* quantizer_;
  std::int64_t tile_ = 0, tiles_ = 0;
  double most_ = 0;
  bool never_binds_ = false;
};

// What a row of whole numbers w [n] can make sums of codes in [low, high] reach: largest and smallest.
struct WorstCase {
  std::int64_t most = 0, least = 0;
};
WorstCase worst_case(std::int64_t n, const std::int64_t* w, std::int64_t low, std::int64_t high);

}  // namespace quanvas::algorithms
