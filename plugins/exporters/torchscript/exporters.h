// Quanvas - what both TorchScript exporters share: their checks, and reading their files again.
#pragma once

#include "core/plugin/registry.h"

namespace quanvas::torchscript_file {

TargetTable packed_table(const std::string& profile);  // onednn, qnnpack, fbgemm, relay
TargetTable float_table();
// Nodes that TorchScript cannot say here.
std::vector<Refusal> check_nodes(const QuantizedModel& model);
// What quantized:: operators cannot compute, beyond the table.
std::vector<Refusal> check_packed(const QuantizedModel& model, const std::string& profile);

// audit.cpp: from each layer's node of the imported file back to what quantizes its inputs.
Result<std::vector<AuditRow>> audit_torchscript(const QuantizedModel& model, const std::string& path);
// The file as the importer reads it, quantizers as nodes, with the tensors that stand for quantized activations.
Result<ReadBack> read_torchscript(const QuantizedModel& model, const std::string& path, JobContext& job);

}  // namespace quanvas::torchscript_file
