// Quanvas - artifacts of runs as bytes: the tensors that differ from the prepared model's, the plan and the quantizers, in
// the safetensors container; and statistics. They lie beside the project file and may come from strangers with it.
// Torch-free.
#pragma once

#include <string>

#include "core/plugin/registry.h"
#include "core/quant/statistics.h"

namespace quanvas {

// base: the prepared model that the network was made from; base_hash says which it was (may be empty).
std::string pack_artifact(const QuantizedModel& network, const Model& base, const std::string& base_hash = "");
// kCorrupt for anything that pack_artifact() cannot have written, kInvalidArgument when base_hash is another one.
Result<QuantizedModel> unpack_artifact(const std::string& bytes, const ModelPtr& base, const std::string& base_hash = "");
std::string pack_statistics(const quant::Statistics& statistics);
Result<quant::Statistics> unpack_statistics(const std::string& bytes);

}  // namespace quanvas
