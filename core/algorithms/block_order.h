// Quanvas - the order of channels in front of a rotation in blocks.
//
// A Hadamard matrix of size b spreads what lies in its block: the largest magnitude behind it is at most the l1 norm of the
// block over b^(1/2). So the blocks should share out the channels' magnitudes evenly ("PeRQ/MixQuant", arXiv 2601.22347).
#pragma once

#include <cstdint>
#include <vector>

namespace quanvas::algorithms {

enum class BlockOrder {
  kMassDiff,  // by mean magnitude, largest first, each into the block with room whose sum of means is the least
  kZigzag,  // by largest magnitude, dealt to the blocks to and fro (Lin et al. 2024, "DuQuant", section 3.3, arXiv 2406.01721)
  kAbsmax,  // as kMassDiff with largest in place of mean magnitudes
  kRandom,  // every order is equally likely
};

// A permutation p of the channels: place j, which belongs to block j / block, gets channel p[j]; within a block channels keep
// their order. mean, absmax: magnitudes of each channel, as many, not negative; those that are not finite count as 0.
// block: 1 or more; the last block holds what is left (zeros fill it up). Where there is one block alone p[j] = j; kMassDiff
// gives that also where it shares out the means at least as evenly. Ties go to the lower channel and block. seed: of kRandom.
std::vector<std::int64_t> block_order(BlockOrder order, const std::vector<double>& mean, const std::vector<double>& absmax,
                                      std::int64_t block, std::uint64_t seed = 0);

// The largest sum of `mean` over the channels of a block; order: as block_order() gives it, empty: p[j] = j. Of the last block
// what is there.
double largest_block(const std::vector<double>& mean, const std::vector<std::int64_t>& order, std::int64_t block);

}  // namespace quanvas::algorithms
