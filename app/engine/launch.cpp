#include "app/engine/launch.h"

#include <dlfcn.h>
#include <sqlite3.h>

#include <cstdlib>
#include <filesystem>

#include <google/protobuf/stubs/common.h>
#include <grpcpp/version_info.h>
#include <torch/version.h>

#include "core/base/version.h"

namespace quanvas {
namespace fs = std::filesystem;

std::string version_text(const std::string& program) {
  const int protobuf = GOOGLE_PROTOBUF_VERSION;
  return program + " " QUANVAS_VERSION
         "\nLibTorch " TORCH_VERSION "\ngRPC " GRPC_CPP_VERSION_STRING "\nprotobuf " +
         std::to_string(protobuf / 1000000) + "." + std::to_string(protobuf / 1000 % 1000) + "." +
         std::to_string(protobuf % 1000) + "\nONNX " QUANVAS_ONNX "\nSQLite " SQLITE_VERSION;
}

namespace {

// What the numeric libraries read once, when they are loaded; what the user has set is left alone.
void set_environment() {
  ::setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
#if defined(__x86_64__)
  // OpenBLAS up to 0.3.21 takes its SSE3 kernels on a processor that is newer than itself.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    ::setenv("OPENBLAS_CORETYPE", "SkylakeX", /*overwrite=*/0);
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    ::setenv("OPENBLAS_CORETYPE", "Haswell", /*overwrite=*/0);
#endif
}

}  // namespace

Result<void*> load_runtime(const char* symbol) {
  set_environment();
  std::error_code ec;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  constexpr const char* kName = "libquanvas_runtime.so";
  const fs::path places[] = {folder / kName, folder.parent_path() / "lib" / "quanvas" / kName};
  for (const auto& path : places) {
    if (!fs::exists(path, ec)) continue;
    // GLOBAL: plug-in modules that are opened later find the engine's symbols in it.
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!library)
      return fail(ErrorCode::kIo, "Cannot load '" + path.string() + "': " + ::dlerror() + ".",
                  "Install the packages that it needs (LibTorch, ONNX, gRPC).");
    if (void* function = ::dlsym(library, symbol)) return function;
    return fail(ErrorCode::kInternal, "'" + path.string() + "' has no function '" + symbol + "'.",
                "It belongs to another version of the program; install both from the same package.");
  }
  return fail(ErrorCode::kNotFound, "There is no " + std::string(kName) + " in '" + folder.string() + "' nor in '" +
                                        places[1].parent_path().string() + "'.",
              "Install Quanvas again; the library belongs beside the program.");
}

}  // namespace quanvas
