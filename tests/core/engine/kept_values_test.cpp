// What passes keep in memory between runs: found again, bounded, the least used goes first.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "core/exec/kept_values.h"

namespace quanvas {
namespace {

std::shared_ptr<const int> number(int v) { return std::make_shared<const int>(v); }

TEST(KeptValues, TheLeastUsedGoesFirst) {
  KeptValues kept(100);
  kept.keep("a", number(1), 40);
  kept.keep("b", number(2), 40);
  ASSERT_TRUE(kept.find<int>("a"));  // now b is the one that was not asked for the longest
  kept.keep("c", number(3), 40);
  EXPECT_TRUE(kept.find<int>("a"));
  EXPECT_FALSE(kept.find<int>("b"));
  EXPECT_EQ(*kept.find<int>("c"), 3);
  EXPECT_EQ(kept.bytes(), 80);
}

TEST(KeptValues, AKeyHasOneValueOfOneType) {
  KeptValues kept(100);
  kept.keep("a", number(1), 60);
  kept.keep("a", number(2), 50);
  EXPECT_EQ(*kept.find<int>("a"), 2);
  EXPECT_EQ(kept.bytes(), 50);
  EXPECT_FALSE(kept.find<std::string>("a"));
  kept.keep("large", number(3), 101);
  EXPECT_FALSE(kept.find<int>("large"));
  EXPECT_TRUE(kept.find<int>("a")) << "what never fits displaces nothing";
}

TEST(KeptValues, ServesSeveralThreads) {
  KeptValues kept(1000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&kept, t] {
      for (int i = 0; i < 500; ++i) {
        kept.keep(std::to_string((i * 7 + t) % 40), number(i), 50);
        if (const auto found = kept.find<int>(std::to_string(i % 40))) EXPECT_GE(*found, 0);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_LE(kept.bytes(), 1000);
}

}  // namespace
}  // namespace quanvas
