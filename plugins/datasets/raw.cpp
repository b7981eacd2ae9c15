// Headerless binary files of a declared element type and shape.
#include <filesystem>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr double kMostOffset = 1e15;

struct RawType {
  const char* name;
  ElementType type;
};
constexpr RawType kTypes[] = {{"int8", ElementType::kInt8},   {"uint8", ElementType::kUint8},
                              {"int16", ElementType::kInt16}, {"int32", ElementType::kInt32},
                              {"float32", ElementType::kFloat32}};

// "49x10x1", "49,10,1" or "49×10×1".
Result<Shape> parse_shape(std::string text) {
  const std::string given = text;
  for (std::size_t at; (at = text.find("×")) != std::string::npos;) text.replace(at, std::string("×").size(), "x");
  Shape shape;
  std::int64_t value = -1;
  for (const char c : text + "x") {
    if (c == ' ') continue;
    if (c >= '0' && c <= '9' && value < 1000000000) {
      value = (value < 0 ? 0 : value * 10) + (c - '0');
    } else if ((c == 'x' || c == ',') && value > 0) {
      shape.push_back(value);
      value = -1;
    } else {
      shape.clear();
      break;
    }
  }
  if (shape.empty() || shape.size() > 8 || !checked_product(shape))
    return fail(ErrorCode::kInvalidArgument, "Option 'shape' of data set reader 'raw' is '" + given + "'.",
                "Give the shape of one sample, such as 49x10x1.");
  return shape;
}

struct RawDeclaration {
  ElementType type = ElementType::kUint8;
  Shape shape;
  std::uint64_t offset = 0;
  double scale = 1, zero_point = 0;
  bool image = false;
  std::uint64_t sample_bytes() const { return *checked_product(shape) * size_of(type); }
};

class RawFile final : public RawDataset {
 public:
  RawFile(std::shared_ptr<const SourceFile> data, RawDeclaration declaration, std::vector<std::uint8_t> labels)
      : data_(std::move(data)), declared_(std::move(declaration)), labels_(std::move(labels)),
        size_(static_cast<std::int64_t>((data_->size() - declared_.offset) / declared_.sample_bytes())) {}

  std::int64_t size() const override { return size_; }
  bool has_labels() const override { return !labels_.empty(); }
  bool is_image() const override { return declared_.image; }

  Result<RawSample> read(std::int64_t index) const override {
    if (index < 0 || index >= size_)
      return fail(ErrorCode::kInvalidArgument,
                  "There is no sample " + std::to_string(index) + " in '" + data_->path().string() + "'.");
    const std::uint64_t bytes = declared_.sample_bytes();
    std::vector<std::byte> raw(bytes);
    QUANVAS_CHECK(data_->read(declared_.offset + static_cast<std::uint64_t>(index) * bytes, raw.data(), raw.size()));
    RawSample sample;
    sample.shape = declared_.shape;
    sample.values.resize(static_cast<std::size_t>(element_count(declared_.shape)));
    to_float(declared_.type, raw.data(), sample.values.size(), sample.values.data());
    if (declared_.scale != 1 || declared_.zero_point != 0)
      for (float& v : sample.values)
        v = static_cast<float>((static_cast<double>(v) - declared_.zero_point) * declared_.scale);
    if (!labels_.empty()) sample.label = labels_[static_cast<std::size_t>(index)];
    return sample;
  }

  std::string content_hash() const override {
    Hasher hasher;
    hasher.text(data_->content_hash()).number(static_cast<int>(declared_.type));
    for (const std::int64_t d : declared_.shape) hasher.number(d);
    hasher.number(static_cast<std::int64_t>(declared_.offset));
    hasher.bytes(&declared_.scale, sizeof(double)).bytes(&declared_.zero_point, sizeof(double)).number(declared_.image);
    return hasher.bytes(labels_.data(), labels_.size()).hex();
  }

 private:
  std::shared_ptr<const SourceFile> data_;
  RawDeclaration declared_;
  std::vector<std::uint8_t> labels_;
  std::int64_t size_;
};

Status check_size(const SourceFile& file, const RawDeclaration& d) {
  const std::uint64_t size = file.size();
  const std::string sample = std::to_string(d.sample_bytes()) + " bytes (shape " + shape_text(d.shape) + ")";
  if (d.offset >= size)
    return fail(ErrorCode::kCorrupt, "'" + file.path().string() + "' has " + std::to_string(size) +
                                         " bytes; the samples should begin at byte " + std::to_string(d.offset) + ".");
  if ((size - d.offset) % d.sample_bytes() != 0)
    return fail(ErrorCode::kCorrupt,
                "'" + file.path().string() + "' has " + std::to_string(size - d.offset) +
                    " bytes of samples, which is no multiple of " + sample + "; it is truncated or declared wrongly.",
                "Check type, shape and offset.");
  return {};
}

Result<std::vector<std::uint8_t>> read_labels(const fs::path& path) {
  QUANVAS_TRY(const auto file, SourceFile::open(path));
  if (file->size() > (std::uint64_t{1} << 31))
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is too large for a file of labels, one byte each.");
  std::vector<std::uint8_t> labels(file->size());
  QUANVAS_CHECK(file->read(0, labels.data(), labels.size()));
  return labels;
}

class RawReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"raw", "Binary without header", "Samples of a declared type and shape, one after the other, little endian; "
                                            "value = (stored − zero point) · scale."};
  }
  Schema schema() const override {
    std::vector<Choice> types;
    for (const RawType& t : kTypes) types.push_back({t.name, t.name, ""});
    return {{text_field("data", "Data", "File with the samples.", ""),
             text_field("labels", "Labels", "File with one byte for each sample; empty: none.", ""),
             choice_field("type", "Type", "Type of the stored numbers, little endian.", "uint8", std::move(types)),
             text_field("shape", "Shape", "Of one sample, without the batch: 49x10x1.", ""),
             integer_field("offset", "Offset", "Bytes before the first sample.", 0, 0, kMostOffset, "bytes"),
             real_field("scale", "Scale", "value = (stored − zero point) · scale.", 1, -1e30, 1e30),
             real_field("zero_point", "Zero point", "value = (stored − zero point) · scale.", 0, -1e10, 1e10),
             bool_field("image", "Pictures", "Samples are height × width (× channels), brought to the model's layout.",
                        false)}};
  }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading binary samples", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'raw'"));
      QUANVAS_TRY(const fs::path path, option_path(options["data"], base, "data", "raw"));
      RawDeclaration d;
      for (const RawType& t : kTypes)
        if (options["type"] == t.name) d.type = t.type;
      QUANVAS_TRY(d.shape, parse_shape(options["shape"]));
      d.offset = options["offset"];
      d.scale = options["scale"];
      d.zero_point = options["zero_point"];
      d.image = options["image"];
      QUANVAS_TRY(auto file, SourceFile::open(path));
      QUANVAS_CHECK(check_size(*file, d));
      std::vector<std::uint8_t> labels;
      if (const std::string text = options["labels"]; !text.empty()) {
        QUANVAS_TRY(const fs::path labels_path, option_path(text, base, "labels", "raw"));
        QUANVAS_TRY(labels, read_labels(labels_path));
        QUANVAS_CHECK(check_label_count((file->size() - d.offset) / d.sample_bytes(), labels.size(), path.string(),
                                        labels_path.string()));
      }
      return std::unique_ptr<RawDataset>(std::make_unique<RawFile>(std::move(file), std::move(d), std::move(labels)));
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, RawReader)

}  // namespace
}  // namespace quanvas
