// What is said of exceptions of libraries.
#include <gtest/gtest.h>

#include "core/base/guarded.h"

namespace quanvas {
namespace {

TEST(FirstLine, IsTheFirstThatSaysSomething) {
  const std::pair<const char*, const char*> rows[] = {
      {"broken", "broken"},
      {"broken\nException raised from f at g.cpp:1", "broken"},
      {"\n\nUnknown operator:\n  aten::x\n", "Unknown operator:"},
      {"  \r\n broken \r\n", "broken"},
      {"", "it gave no reason"},
      {"\n \t\n", "it gave no reason"},
  };
  for (const auto& [what, said] : rows) EXPECT_EQ(first_line(what), said) << what;
}

TEST(Guarded, ExceptionsBecomeErrors) {
  const auto thrown = guarded("here", []() -> Result<int> { throw std::runtime_error("\nno such layer"); });
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().code, ErrorCode::kInternal);
  EXPECT_NE(thrown.error().text().find("no such layer"), std::string::npos);
  const auto memory = guarded("here", []() -> Result<int> { throw std::bad_alloc(); });
  EXPECT_EQ(memory.error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(*guarded("here", []() -> Result<int> { return 3; }), 3);
}

}  // namespace
}  // namespace quanvas
