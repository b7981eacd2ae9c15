#include "core/graph/memory.h"

#include <gtest/gtest.h>

#include <functional>

namespace quanvas {
namespace {

struct Row {
  const char* name;
  std::function<void(GraphBuilder&)> make;  // from "x" of 100 values to "y"
  std::int64_t values;                      // alive at once, at most
};

void tensor(GraphBuilder& b, const std::string& name, std::int64_t n) { b.tensor(name, DataType::kFloat, Shape{-1, n}); }

TEST(LiveBytes, AreThoseOfTheWidestPlace) {
  const Row rows[] = {
      {"chain",
       [](GraphBuilder& b) {
         tensor(b, "a", 300);
         tensor(b, "y", 10);
         b.node("a", "Relu", {"x"}, {"a"});
         b.node("y", "Relu", {"a"}, {"y"});
       },
       400},
      {"residual keeps its input",
       [](GraphBuilder& b) {
         tensor(b, "a", 300);
         tensor(b, "c", 200);
         tensor(b, "y", 10);
         b.node("a", "Relu", {"x"}, {"a"});
         b.node("c", "Relu", {"a"}, {"c"});
         b.node("y", "Add", {"c", "x"}, {"y"});
       },
       600},
      {"an operand that is read twice is freed once",
       [](GraphBuilder& b) {
         tensor(b, "a", 300);
         tensor(b, "s", 50);
         tensor(b, "y", 320);
         b.node("a", "Relu", {"x"}, {"a"});
         b.node("s", "Mul", {"a", "a"}, {"s"});
         b.node("y", "Relu", {"s"}, {"y"});
       },
       400},
      {"a result that nobody reads goes at once",
       [](GraphBuilder& b) {
         tensor(b, "a", 300);
         tensor(b, "waste", 500);
         tensor(b, "y", 650);
         b.node("a", "Split", {"x"}, {"a", "waste"});
         b.node("y", "Relu", {"a"}, {"y"});
       },
       950},
      {"weights do not count",
       [](GraphBuilder& b) {
         b.initializer("w", DataType::kFloat, {100, 7000});
         tensor(b, "y", 70);
         b.node("y", "MatMul", {"x", "w"}, {"y"});
       },
       170},
  };
  for (const Row& row : rows) {
    GraphBuilder b;
    tensor(b, "x", 100);
    b.input("x");
    row.make(b);
    b.output("y");
    const auto graph = b.build();
    ASSERT_TRUE(graph) << row.name << ": " << graph.error().text();
    EXPECT_EQ(live_bytes(**graph), 4 * row.values) << row.name;
  }
}

TEST(LiveBytes, OfAbsurdAndUnknownSizesAreSane) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1, std::int64_t{1} << 40, std::int64_t{1} << 40});
  b.input("x");
  std::string last = "x";
  for (int i = 0; i < 50; ++i) {
    const std::string name = "t" + std::to_string(i);
    if (i % 2) b.tensor(name, DataType::kFloat, Shape{std::int64_t{1} << 60, std::int64_t{1} << 60});
    b.node(name, "Relu", {last}, {name});
    last = name;
  }
  b.output(last);
  EXPECT_GT(live_bytes(**b.build()), std::int64_t{1} << 41);
}

}  // namespace
}  // namespace quanvas
