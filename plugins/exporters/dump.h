// Quanvas - the plain dumps: every code, scale and zero point of a network as tensors with names, and the description
// beside them. What the exporters safetensors and npz write, and what their audits compare.
#pragma once

#include <string>
#include <vector>

#include "plugins/exporters/file_tensors.h"

namespace quanvas::weight_file {

struct DumpTensor {
  std::string name;
  DataType type = DataType::kUndefined;
  Shape shape;
  std::string bytes;  // row-major, little endian
};
struct Dump {
  std::vector<DumpTensor> tensors;
  described::Network network;
};

Field packing_field();
bool is_dense(const json& options);
TargetTable dump_table();
std::vector<Refusal> check_dump(const QuantizedModel& model);
// The narrowest of int8, uint8, int16, int32 that holds the codes of the quantizer.
DataType code_type(const quant::QuantParams& params);
std::string code_bytes(DataType type, const std::vector<std::int32_t>& codes);
// Codes without gaps, least significant bits first, as core/quant/packing.h has them; of binary ones 1 is the positive
// value.
std::string dense_bytes(const quant::QuantParams& params, const std::vector<std::int32_t>& codes);
// has_type: what the file can name; other tensors become bytes.
Result<Dump> make_dump(const QuantizedModel& model, bool dense, bool (*has_type)(DataType), JobContext& job);

// network: the description that the file carries.
Result<std::vector<AuditRow>> audit_dump(const QuantizedModel& model, const described::Source& source,
                                         const described::Network& network);
Result<ReadBack> read_dump(const QuantizedModel& model, const described::Source& source, const described::Network& network);
// One row: what a file holds of a weight or bias against the model.
AuditRow coded_row(const QuantizedModel& model, const PlacedQuantizer& placed, const Result<described::Held>& held);

}  // namespace quanvas::weight_file
