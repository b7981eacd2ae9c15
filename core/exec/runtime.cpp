// Threads, memory and versions of what the engine links.
#include <dlfcn.h>
#include <malloc.h>

#include <atomic>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <omp.h>
#include <torch/csrc/api/include/torch/version.h>

#include "core/exec/runner.h"
#include "core/quant/params.h"

namespace quanvas::exec {
namespace {

std::atomic<int> thread_count{0};

int all_cores() {
  const int omp = omp_get_num_procs();  // honours the affinity mask
  return omp > 0 ? omp : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Big tensors come and go; keeping their pages saves the page faults, which cost more than the arithmetic.
void tune_allocator() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (!mallopt(M_MMAP_THRESHOLD, 1 << 30)) mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, 64 << 20);
  });
}

template <class Fn>
Fn symbol(const char* name) {
  return reinterpret_cast<Fn>(dlsym(RTLD_DEFAULT, name));
}

// The pthread build of OpenBLAS has one pool for the whole process, so callers on several threads would wait
// for each other: it gets one thread. The OpenMP build follows the calling thread's own setting.
void limit_blas() {
  const auto kind = symbol<int (*)()>("openblas_get_parallel");
  const auto set = symbol<void (*)(int)>("openblas_set_num_threads");
  constexpr int kPthreads = 1;
  if (kind && set && kind() == kPthreads) set(1);
}

std::string blas_library() {
  Dl_info info{};
  void* gemm = dlsym(RTLD_DEFAULT, "sgemm_");
  if (!gemm || !dladdr(gemm, &info) || !info.dli_fname) return {};
  char resolved[PATH_MAX];
  return realpath(info.dli_fname, resolved) ? resolved : info.dli_fname;
}

std::string blas_name() {
  if (const auto config = symbol<const char* (*)()>("openblas_get_config")) {
    const auto kind = symbol<int (*)()>("openblas_get_parallel");
    static const char* const kinds[] = {"sequential", "pthread", "OpenMP"};
    const int k = kind ? kind() : -1;
    const auto core = symbol<const char* (*)()>("openblas_get_corename");
    return std::string(config()) + (k >= 0 && k < 3 ? std::string(" (") + kinds[k] + ")" : "") +
           (core ? std::string(", kernels for ") + core() : "");
  }
  const std::string library = blas_library();
  if (library.empty()) return "unknown";
  return (has_reference_blas() ? "reference BLAS, " : "") + library;
}

// at::native::get_cpu_capability is not exported by every build; the configuration text always names it.
std::string capability() {
  constexpr std::string_view key = "CPU capability usage: ";
  const std::string config = at::show_config();
  const auto begin = config.find(key);
  if (begin == std::string::npos) return "unknown";
  const auto value = begin + key.size();
  return config.substr(value, config.find_first_of("\n,", value) - value);
}

}  // namespace

void set_threads(int threads) {
  tune_allocator();
  const int n = threads > 0 ? threads : all_cores();
  thread_count = n;
  at::set_num_threads(n);
  omp_set_num_threads(n);
  limit_blas();
  quant::set_default_kernel_threads(n);
}

int threads() {
  const int n = thread_count;
  return n > 0 ? n : all_cores();
}

bool has_reference_blas() {
  if (dlsym(RTLD_DEFAULT, "openblas_get_config")) return false;
  const std::string library = blas_library();
  if (library.empty()) return false;
  for (const char* good : {"openblas", "mkl", "blis", "atlas", "Accelerate"})
    if (library.find(good) != std::string::npos) return false;
  return true;
}

std::map<std::string, std::string> engine_versions() {
  std::map<std::string, std::string> v;
  v["torch"] = TORCH_VERSION;
  v["blas"] = blas_name();
  v["threads"] = std::to_string(threads());
  v["cpu_capability"] = capability();
  const bool cuda = at::hasCUDA();
  v["devices"] = cuda ? "cpu, cuda (" + std::to_string(at::getNumGPUs()) + ")" : "cpu";
  return v;
}

}  // namespace quanvas::exec
