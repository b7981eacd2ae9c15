// Quanvas - reads the arrays of an exported C header again: a reader of its own for "static const <type> <name>[<n>] =
// {...};".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::c_header {

// Values of the arrays by name: int8_t, uint8_t, int16_t, int32_t, int64_t and float. kCorrupt: anything in braces that is
// no such list, numbers beyond their type, another count than declared, a name twice.
Result<std::map<std::string, TensorData>> parse_header(const std::string& text, const std::string& path);

Result<std::vector<AuditRow>> audit_header(const QuantizedModel& model, const std::string& path, const std::string& prefix,
                                           bool dense);
Result<ReadBack> read_header(const QuantizedModel& model, const std::string& path, const std::string& prefix, bool dense);

}  // namespace quanvas::c_header
