// Quanvas - lets LibTorch read a TorchScript file whose archive has been looked at (torchscript_archive.h).
#pragma once

#include <torch/csrc/jit/api/module.h>

#include "core/base/job.h"
#include "plugins/importers/torchscript_archive.h"

namespace quanvas::torchscript {

// In a process of its own, which LibTorch may end: kCorrupt or kUnsupported with LibTorch's reason.
Status check_apart(const std::string& path, const Archive& archive, const JobContext& job);
// In this process, after check_apart() or when the same bytes have been read before.
Result<torch::jit::Module> load_module(const std::string& path, const Archive& archive);

}  // namespace quanvas::torchscript
