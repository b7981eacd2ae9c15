// quanvas-torchscript-check FILE: lets LibTorch read a TorchScript file and ends: 0 when it could, 1 with its reason in one
// line on standard error. A program of its own because LibTorch ends by a signal, or never, on some damaged files.
#include <sys/resource.h>

#include <torch/script.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "core/base/guarded.h"

namespace {

void limit(int resource, rlim_t most) {
  const rlimit both{most, most};
  ::setrlimit(static_cast<decltype(RLIMIT_AS)>(resource), &both);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: quanvas-torchscript-check FILE\n"), 2;
  std::error_code ec;
  const auto bytes = static_cast<rlim_t>(std::filesystem::file_size(argv[1], ec));
  if (ec) return std::fprintf(stderr, "it cannot be read\n"), 1;
  // What a file that is made to harm may use up: a sound one takes its size, twice while it is read, and a second for 50 MB.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // sanitizers reserve far more than they use
  limit(RLIMIT_AS, (rlim_t{8} << 30) + 4 * bytes);
#endif
  limit(RLIMIT_CPU, 60 + bytes / (rlim_t{10} << 20));
  limit(RLIMIT_CORE, 0);
  try {
    torch::jit::load(argv[1], at::kCPU);
    return 0;
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "%s\n", quanvas::first_line(e.what()).c_str()), 1;
  }
}
