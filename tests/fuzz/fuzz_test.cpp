// A short run of every target: its seeds, and a few thousand damaged ones, the same each time. What is looked for is
// a crash or a hang; libFuzzer looks longer (docs/fuzzing.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

#include "tests/fuzz/targets.h"

namespace quanvas::fuzz {
namespace {

// QUANVAS_FUZZ_INPUTS=200000: so many instead.
int inputs() {
  const char* const wanted = std::getenv("QUANVAS_FUZZ_INPUTS");
  return wanted ? std::max(1, std::atoi(wanted)) : 1500;
}
constexpr double kHangSeconds = 10;

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string next() {
    std::string out = seeds_[below(seeds_.size())];
    for (std::size_t i = 0, n = 1 + below(4); i < n; ++i) damage(out);
    return out;
  }

 private:
  std::size_t below(std::size_t n) { return n ? static_cast<std::size_t>(random_() % n) : 0; }

  void damage(std::string& s) {
    static const char kEdges[] = {0, 1, 0x7f, static_cast<char>(0x80), static_cast<char>(0xff)};
    switch (below(6)) {
      case 0: s.resize(below(s.size() + 1)); break;
      case 1:
        if (!s.empty()) s[below(s.size())] = static_cast<char>(random_());
        break;
      case 2:
        if (!s.empty()) s[below(s.size())] = kEdges[below(sizeof kEdges)];
        break;
      case 3: s.insert(below(s.size() + 1), std::string(1 + below(9), kEdges[below(sizeof kEdges)])); break;
      case 4: s.erase(below(s.size() + 1), 1 + below(16)); break;
      default: {
        const std::string& other = seeds_[below(seeds_.size())];
        const std::size_t from = below(other.size() + 1);
        s.insert(below(s.size() + 1), other.substr(from, below(64)));
      }
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937_64 random_{7};
};

class Readers : public testing::TestWithParam<Target> {};

TEST_P(Readers, ReturnWhateverTheBytesAre) {
  const std::vector<std::string> seeds = GetParam().seeds();
  ASSERT_FALSE(seeds.empty());
  for (const std::string& seed : seeds) {
    ASSERT_TRUE(!seed.empty() || std::string(GetParam().name) == "shape");
    GetParam().read(seed);
  }
  GetParam().read("");
  Mutator mutator(seeds);
  const int count = inputs();
  for (int i = 0; i < count; ++i) {
    const std::string input = mutator.next();
    const auto start = std::chrono::steady_clock::now();
    GetParam().read(input);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    ASSERT_LT(took.count(), kHangSeconds) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Readers, testing::ValuesIn(targets()), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
});

}  // namespace
}  // namespace quanvas::fuzz
