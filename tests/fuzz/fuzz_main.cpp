// libFuzzer's entry. The target is named by the environment: QUANVAS_FUZZ=onnx fuzz_readers ...
// QUANVAS_FUZZ_SEEDS=FOLDER writes the target's seeds there and ends.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/targets.h"

namespace {

const quanvas::fuzz::Target* chosen = nullptr;

void write_seeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const std::string& seed : chosen->seeds())
    std::ofstream(folder / ("seed-" + std::to_string(number++)), std::ios::binary) << seed;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* const wanted = std::getenv("QUANVAS_FUZZ");
  for (const auto& target : quanvas::fuzz::targets())
    if (wanted && std::string(wanted) == target.name) chosen = &target;
  if (!chosen) {
    std::fprintf(stderr, "Set QUANVAS_FUZZ to one of:");
    for (const auto& target : quanvas::fuzz::targets()) std::fprintf(stderr, " %s", target.name);
    std::fprintf(stderr, "\n");
    std::exit(2);
  }
  if (const char* const folder = std::getenv("QUANVAS_FUZZ_SEEDS")) {
    write_seeds(folder);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chosen->read(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
