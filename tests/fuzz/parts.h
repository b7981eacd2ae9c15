// What the parts of the fuzz targets share: files in memory, and the targets of each part (targets.h).
#pragma once

#include <string>
#include <vector>

#include "core/graph/weights.h"
#include "tests/fuzz/targets.h"

namespace quanvas::fuzz {

using Bytes = std::vector<std::string>;

// Readers take files: one in memory, where the system has such a folder; all of them are removed at the end. The name may
// begin with a folder. The first only says where, the second writes.
std::string scratch_path(const std::string& name);
std::string scratch_file(const std::string& name, const std::string& bytes);
std::string contents(const std::string& path);

// A convolution, a pool and a linear layer, imported once.
ModelPtr small_model();

std::vector<Target> model_targets();
std::vector<Target> weight_targets();
std::vector<Target> onnx_file_targets();
std::vector<Target> gguf_targets();
std::vector<Target> data_targets();
std::vector<Target> text_targets();
std::vector<Target> project_targets();

}  // namespace quanvas::fuzz
