// Quanvas - the readers of files from strangers, each as a function of bytes. The same targets are run by libFuzzer
// (tests/fuzz/CMakeLists.txt, built by clang with its sanitizers) and, shortly, by test_fuzz.
#pragma once

#include <string>
#include <vector>

namespace quanvas::fuzz {

struct Target {
  const char* name;
  void (*read)(const std::string& bytes);  // must return, whatever the bytes are; what it says is not looked at
  std::vector<std::string> (*seeds)();     // small files that are right
};
const std::vector<Target>& targets();

}  // namespace quanvas::fuzz
