// Without LibTorch there is nothing to compare with.
#include "tests/benchmarks/chains.h"

namespace quanvas::benchmarks {

std::function<void()> chain_of(const std::string&, const float*, std::int64_t, std::int64_t) { return {}; }
bool has_chains() { return false; }
void set_chain_threads(int) {}

}  // namespace quanvas::benchmarks
