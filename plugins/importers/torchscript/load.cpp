// How LibTorch is let near a file: the archive's list was checked before, another process has tried it.
#include "plugins/importers/torchscript/load.h"

#include <torch/csrc/jit/serialization/import.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "core/base/child.h"
#include "core/base/files.h"
#include "core/base/guarded.h"

namespace quanvas::torchscript {
namespace {

// LibTorch's sentences, as far as they tell more than "it does not work".
Failure cannot_load(const std::string& path, const Archive& archive, std::string what) {
  if (what.find_last_of(".!:") != what.size() - 1) what += '.';
  std::string own;
  for (const auto* names : {&archive.operators, &archive.classes})
    for (const std::string& name : *names) own += (own.empty() ? "" : ", ") + name;
  if (!own.empty())
    return fail(ErrorCode::kUnsupported, "'" + path + "' cannot be read: it uses what is not LibTorch's own (" + own + ").",
                "Export the network without custom operators, or as ONNX.");
  if (what.find("nknown builtin op") != std::string::npos || what.find("produced by") != std::string::npos ||
      what.find("file format version") != std::string::npos)
    return fail(ErrorCode::kUnsupported, "'" + path + "' was made for a newer LibTorch than the one here: " + what,
                "Export it with an older PyTorch, or as ONNX.");
  return fail(ErrorCode::kCorrupt, "'" + path + "' is not a whole TorchScript file: " + what, "Save or copy the model again.");
}

}  // namespace

// LibTorch ends this process on some damaged files: another one reads the file first.
Status check_apart(const std::string& path, const Archive& archive, const JobContext& job) {
  constexpr const char* kVariable = "QUANVAS_TORCHSCRIPT_CHECK";
  QUANVAS_TRY(const std::filesystem::path program,
              find_program("quanvas-torchscript-check", kVariable, "it looks whether LibTorch can read TorchScript files"));
  const ExchangeFolder exchange;
  if (!exchange.is_there())
    return fail(ErrorCode::kIo,
                std::string("Cannot make a folder in '") + runtime_dir().string() + "': " + std::strerror(errno) + ".");
  std::error_code ec;
  const double megabytes = static_cast<double>(std::filesystem::file_size(path, ec)) / 1e6;
  const ChildEnd end = run_program(program, {path}, exchange.file("messages"), job.stop_token(), 120 + megabytes / 10);
  QUANVAS_CHECK(job.check());
  if (!end.started)
    return fail(ErrorCode::kNotFound,
                "The program '" + program.string() + "' does not start; it looks whether LibTorch can read TorchScript files.",
                "Install Quanvas again.");
  if (end.signal == SIGXCPU || end.timed_out) return cannot_load(path, archive, "LibTorch does not come to an end with it");
  if (end.signal == SIGKILL)
    return fail(ErrorCode::kOutOfMemory,
                "The system stopped LibTorch while it read '" + path + "', probably for lack of memory.",
                "Close other programs and try again.");
  if (end.signal != 0)
    return cannot_load(path, archive, "LibTorch crashes when it reads it (signal " + std::to_string(end.signal) + ")");
  if (!end.fine()) return cannot_load(path, archive, end.why());
  return {};
}

Result<torch::jit::Module> load_module(const std::string& path, const Archive& archive) {
  try {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    return module;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "There is not enough memory to read '" + path + "'.");
  } catch (const std::exception& e) {
    return cannot_load(path, archive, first_line(e.what()));
  }
}

}  // namespace quanvas::torchscript
