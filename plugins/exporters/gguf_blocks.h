// Quanvas - the block formats of GGUF: codes, scales and offsets of one row as the bytes that ggml reads.
//
// Source: ggml-common.h and ggml-quants.c of ggml, file format version 3. Readers of these files
// (plugins/importers/gguf_values.h) share nothing with it. All functions are reentrant.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quanvas::gguf_file {

// ggml_type
enum class Type : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

// What a type is made of.
struct Form {
  Type type = Type::kF32;
  const char* name = "F32";
  int block = 1;                // elements that are stored together, along a row
  int bytes = 4;                // of a block
  int sub_block = 1;            // elements that share one scale
  int lowest = 0, highest = 0;  // codes, in units of the scale; of codebooks and minifloats the codes themselves
  bool has_offset = false;
  // Formats of two levels: bits of a sub-block's scale (and offset), and whether it has a sign; 0: one level.
  int scale_lowest = 0, scale_highest = 0;
  int file_type = 0;  // general.file_type of a file of mostly this
};
const Form& form_of(Type type);
inline bool is_super(const Form& form) {
  return form.scale_highest > 0;
}

// One row of a tensor: value = code * scale + offset, scale and offset one for each sub-block.
struct Row {
  std::vector<std::int32_t> codes;
  std::vector<float> scale, offset;                   // one level; exact in float16, of MXFP4 powers of two
  std::vector<std::int32_t> scale_code, offset_code;  // two levels: of each sub-block
  std::vector<float> super_scale, super_offset;       // two levels: of each block; value = code * super_scale * scale_code -
                                                      // super_offset * offset_code
};

// Appends the row's bytes. The number of codes is a multiple of the block; everything is within the form's limits
// (gguf_fit.h asks that first).
void pack(Type type, const Row& row, std::string& out);
// Appends float32 values as F32, F16 or BF16, rounded half to even.
void pack_floats(Type type, const float* values, std::size_t count, std::string& out);
// What pack_floats() makes of the value, as float32.
float rounded(Type type, float value);

}  // namespace quanvas::gguf_file
