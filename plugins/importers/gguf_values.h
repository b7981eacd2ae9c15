// Quanvas - the numbers in the tensors of GGUF files: what ggml's dequantize_row_* makes of them, with codes and scales
// apart. Source: ggml-quants.c. Reads one row at a time; reentrant.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace quanvas::gguf_in {

struct TypeInfo {
  std::uint32_t type = 0;
  const char* name = "";
  std::uint32_t block = 1, bytes = 4;  // elements and bytes of a block
};
// Null: a type that is not read.
const TypeInfo* type_info(std::uint32_t type);

// value = code * scale + offset, or table[code] * scale; all of one row, each element on its own.
struct Row {
  std::vector<std::int32_t> codes;   // of floats: empty
  std::vector<float> scale, offset;  // offset is what is added
  std::vector<float> values;
};
// bytes: of the row, columns / block * bytes of them. columns is a multiple of the block.
void decode(std::uint32_t type, std::string_view bytes, std::uint64_t columns, Row& out);

}  // namespace quanvas::gguf_in
