// The rows of the benchmark as chains of LibTorch's tensor operations, for comparison. No Torch header here: the
// benchmark is also built without it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace quanvas::benchmarks {

// What quanvas computes in that row, on x of [rows, columns], by tensor operations; null where there is no such chain.
std::function<void()> chain_of(const std::string& row, const float* x, std::int64_t rows, std::int64_t columns);
bool has_chains();
void set_chain_threads(int threads);

}  // namespace quanvas::benchmarks
