// Quanvas - NumPy's .npy format, versions 1 to 3: little endian, C order. Torch-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/data/sources.h"

namespace quanvas {

struct NpyHeader {
  ElementType type = ElementType::kFloat32;
  Shape shape;                // may be empty: one element
  std::uint64_t data_at = 0;  // offset of the first element
};
// Header of `size` bytes that `read` gives. kCorrupt for anything that numpy.save cannot have written or that is
// shorter than it says, kUnsupported for other element types, byte orders and Fortran order. `name` opens the
// sentences ("'x.npy'").
using ReadBytes = std::function<Status(std::uint64_t offset, void* out, std::size_t count)>;
Result<NpyHeader> read_npy_header(const std::string& name, std::uint64_t size, const ReadBytes& read);

struct FloatArray {
  Shape shape;
  std::vector<float> values;
};
// A whole file, converted to float32. kNotFound, kIo as SourceFile.
Result<FloatArray> read_npy(const std::filesystem::path& path);
// Atomically.
Status write_npy(const std::filesystem::path& path, const Shape& shape, const std::vector<float>& values);
Status write_npy(const std::filesystem::path& path, const Shape& shape, const std::vector<std::int32_t>& values);

}  // namespace quanvas
