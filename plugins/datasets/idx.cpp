// IDX files, the format of MNIST and its relatives: big endian, plain or gzip.
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 30;
constexpr std::size_t kStep = 4 << 20;

struct IdxType {
  int code;
  ElementType type;
};
constexpr IdxType kTypes[] = {{0x08, ElementType::kUint8},   {0x09, ElementType::kInt8},
                              {0x0b, ElementType::kInt16},   {0x0c, ElementType::kInt32},
                              {0x0d, ElementType::kFloat32}, {0x0e, ElementType::kFloat64}};

struct IdxArray {
  ElementType type = ElementType::kUint8;
  Shape shape;                    // first dimension: samples
  std::vector<std::byte> values;  // in the machine's byte order
};

// gzread reads plain files as they are.
class GzipFile {
 public:
  explicit GzipFile(const fs::path& path) : file_(gzopen(path.c_str(), "rb")), name_(path.string()) {}
  ~GzipFile() {
    if (file_) gzclose(file_);
  }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  bool is_open() const { return file_ != nullptr; }

  // Up to `count` bytes; fewer only at the end of the file.
  Result<std::size_t> read(std::byte* out, std::size_t count) {
    std::size_t done = 0;
    while (done < count) {
      const auto ask = static_cast<unsigned>(std::min<std::size_t>(count - done, 1u << 30));
      const int got = gzread(file_, out + done, ask);
      if (got < 0) return broken();
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    // A stream that is cut short ends with Z_BUF_ERROR instead of an error of gzread.
    int error = Z_OK;
    gzerror(file_, &error);
    if (done < count && error != Z_OK && error != Z_STREAM_END) return broken();
    return done;
  }

 private:
  Failure broken() {
    int error = 0;
    const std::string what = gzerror(file_, &error);
    return fail(ErrorCode::kCorrupt, "'" + name_ + "' is damaged: the compressed data cannot be read (" +
                                         first_line(what) + ").", "Get the file again.");
  }
  gzFile file_;
  std::string name_;
};

Failure corrupt(const fs::path& path, const std::string& what, const std::string& hint = {}) {
  return fail(ErrorCode::kCorrupt, "'" + path.string() + "' " + what, hint);
}

std::uint32_t big_endian(const std::byte* p) {
  std::uint32_t v = 0;
  for (int i = 0; i < 4; ++i) v = v << 8 | std::to_integer<std::uint32_t>(p[i]);
  return v;
}

void swap_bytes(std::vector<std::byte>& values, std::size_t width) {
  if (width == 1) return;
  for (std::size_t i = 0; i + width <= values.size(); i += width)
    std::reverse(values.begin() + static_cast<std::ptrdiff_t>(i), values.begin() + static_cast<std::ptrdiff_t>(i + width));
}

Result<IdxArray> read_header(GzipFile& file, const fs::path& path) {
  std::byte head[4];
  QUANVAS_TRY(const std::size_t got, file.read(head, sizeof head));
  const int dimensions = std::to_integer<int>(head[3]);
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const IdxType& t) { return t.code == std::to_integer<int>(head[2]); });
  if (got < 4 || head[0] != std::byte{0} || head[1] != std::byte{0} || type == std::end(kTypes) || dimensions < 1)
    return corrupt(path, "is no IDX file: it does not begin with 0, 0, a known type and the number of dimensions.",
                   "MNIST's files are named '…-idx3-ubyte.gz' and '…-idx1-ubyte.gz'.");
  IdxArray array;
  array.type = type->type;
  for (int i = 0; i < dimensions; ++i) {
    std::byte size[4];
    QUANVAS_TRY(const std::size_t bytes, file.read(size, sizeof size));
    if (bytes < 4) return corrupt(path, "ends inside its header.", "Get the file again.");
    array.shape.push_back(big_endian(size));
  }
  return array;
}

Result<IdxArray> read_idx(const fs::path& path) {
  QUANVAS_CHECK(SourceFile::open(path));
  GzipFile file(path);
  if (!file.is_open()) return fail(ErrorCode::kIo, "Cannot read '" + path.string() + "'.");
  QUANVAS_TRY(IdxArray array, read_header(file, path));
  const auto elements = checked_product(array.shape);
  if (!elements || *elements > kMostBytes / size_of(array.type))
    return corrupt(path, "declares the shape " + shape_text(array.shape) + ", more than 16 GiB.");
  const std::uint64_t expected = *elements * size_of(array.type);
  if (expected == 0) return corrupt(path, "has no samples: its shape is " + shape_text(array.shape) + ".");
  // Grows with what is really there: a header may claim anything.
  std::size_t have = 0;
  while (have < expected) {
    const auto step = static_cast<std::size_t>(std::min<std::uint64_t>(kStep, expected - have));
    array.values.resize(have + step);
    QUANVAS_TRY(const std::size_t got, file.read(array.values.data() + have, step));
    have += got;
    if (got < step)
      return corrupt(path, "is truncated: its header says " + std::to_string(expected) + " bytes of values, but it has " +
                               std::to_string(have) + ".", "Get the file again.");
  }
  std::byte more;
  QUANVAS_TRY(const std::size_t extra, file.read(&more, 1));
  if (extra) return corrupt(path, "has more bytes than its header says, " + std::to_string(expected) + ".");
  swap_bytes(array.values, size_of(array.type));
  return array;
}

class IdxDataset final : public RawDataset {
 public:
  IdxDataset(IdxArray samples, std::vector<std::int64_t> labels)
      : samples_(std::move(samples)), labels_(std::move(labels)),
        shape_(samples_.shape.begin() + 1, samples_.shape.end()) {}

  std::int64_t size() const override { return samples_.shape[0]; }
  bool has_labels() const override { return !labels_.empty(); }
  bool is_image() const override { return looks_like_image(shape_); }

  Result<RawSample> read(std::int64_t index) const override {
    if (index < 0 || index >= size())
      return fail(ErrorCode::kInvalidArgument, "There is no sample " + std::to_string(index) + " in this IDX file.");
    RawSample sample;
    sample.shape = shape_;
    const auto count = static_cast<std::size_t>(element_count(shape_));
    sample.values.resize(count);
    to_float(samples_.type, samples_.values.data() + static_cast<std::size_t>(index) * count * size_of(samples_.type),
             count, sample.values.data());
    if (!labels_.empty()) sample.label = labels_[static_cast<std::size_t>(index)];
    return sample;
  }

  std::string content_hash() const override {
    Hasher hasher;
    for (const std::int64_t d : samples_.shape) hasher.number(d);
    hasher.number(static_cast<int>(samples_.type)).bytes(samples_.values.data(), samples_.values.size());
    return hasher.bytes(labels_.data(), labels_.size() * sizeof(std::int64_t)).hex();
  }

 private:
  IdxArray samples_;
  std::vector<std::int64_t> labels_;
  Shape shape_;
};

Result<std::vector<std::int64_t>> read_labels(const fs::path& path) {
  QUANVAS_TRY(const IdxArray array, read_idx(path));
  if (array.shape.size() != 1)
    return fail(ErrorCode::kInvalidArgument,
                "'" + path.string() + "' has shape " + shape_text(array.shape) + "; labels have one dimension.",
                "Labels are in the files named '…-idx1-ubyte'.");
  return to_whole(array.type, array.values.data(), static_cast<std::size_t>(array.shape[0]), "'" + path.string() + "'");
}

class IdxReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"idx", "IDX (MNIST family)", "IDX files as of MNIST and Fashion-MNIST, plain or gzip; pixels stay 0 … 255."};
  }
  Schema schema() const override {
    return {{text_field("images", "Images", "IDX file with the samples in its first dimension.", ""),
             text_field("labels", "Labels", "IDX file with one label for each sample; empty: none.", "")}};
  }
  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading IDX files", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'idx'"));
      QUANVAS_TRY(const fs::path images, option_path(options["images"], base, "images", "idx"));
      QUANVAS_TRY(IdxArray samples, read_idx(images));
      if (samples.shape.size() < 2)
        return fail(ErrorCode::kInvalidArgument, "'" + images.string() + "' has one dimension only; it holds labels.",
                    "Images are in the files named '…-idx3-ubyte'.");
      std::vector<std::int64_t> labels;
      if (const std::string text = options["labels"]; !text.empty()) {
        QUANVAS_TRY(const fs::path path, option_path(text, base, "labels", "idx"));
        QUANVAS_TRY(labels, read_labels(path));
        QUANVAS_CHECK(check_label_count(static_cast<std::uint64_t>(samples.shape[0]), labels.size(), images.string(),
                                        path.string()));
      }
      return std::unique_ptr<RawDataset>(std::make_unique<IdxDataset>(std::move(samples), std::move(labels)));
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, IdxReader)

}  // namespace
}  // namespace quanvas
