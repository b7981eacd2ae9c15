// NumPy arrays: .npy files, read piece by piece, and .npz archives, read into memory.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <optional>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"
#include "plugins/datasets/zip_member.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostHeader = 1 << 20;
constexpr std::uint64_t kMostMember = std::uint64_t{2} << 30;

struct NpyType {
  const char* name;
  ElementType type;
};
constexpr NpyType kTypes[] = {{"<f4", ElementType::kFloat32}, {"<f8", ElementType::kFloat64},
                              {"|u1", ElementType::kUint8},   {"|i1", ElementType::kInt8},
                              {"<i2", ElementType::kInt16},   {"<i4", ElementType::kInt32},
                              {"<i8", ElementType::kInt64},   {"<u1", ElementType::kUint8},
                              {"<i1", ElementType::kInt8}};

// Bytes in a file or in memory.
struct ByteSource {
  std::shared_ptr<const SourceFile> file;
  std::shared_ptr<const std::vector<std::byte>> memory;
  std::string name;  // for messages

  std::uint64_t size() const { return memory ? memory->size() : file->size(); }
  Status read(std::uint64_t at, void* out, std::size_t count) const {
    if (!memory) return file->read(at, out, count);
    if (at > memory->size() || count > memory->size() - at)
      return fail(ErrorCode::kCorrupt, name + " ends at byte " + std::to_string(memory->size()) + ".");
    std::memcpy(out, memory->data() + at, count);
    return {};
  }
  std::string content_hash() const { return memory ? hash_bytes(memory->data(), memory->size()) : file->content_hash(); }
};

struct NpyArray {
  ByteSource source;
  ElementType type = ElementType::kFloat32;
  Shape shape;
  std::uint64_t data_at = 0;
};

Failure corrupt(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kCorrupt, name + " " + what, "Write it again with numpy.save.");
}

// The value of 'key' in the header's dictionary, up to the comma or brace that ends it.
std::optional<std::string> header_value(const std::string& header, const std::string& key) {
  auto at = header.find("'" + key + "'");
  if (at == std::string::npos || (at = header.find(':', at)) == std::string::npos) return std::nullopt;
  at = header.find_first_not_of(' ', at + 1);
  if (at == std::string::npos) return std::nullopt;
  const char open = header[at];
  const char close = open == '(' ? ')' : open == '[' ? ']' : open == '\'' ? '\'' : ',';
  auto end = header.find(close, at + 1);
  if (close == ',') end = std::min(end, header.find('}', at));
  if (end == std::string::npos) return std::nullopt;
  return header.substr(at, end - at + (close == ',' ? 0 : 1));
}

std::optional<Shape> parse_tuple(const std::string& text) {
  Shape shape;
  if (text.size() < 2 || text.front() != '(' || text.back() != ')') return std::nullopt;
  std::int64_t value = -1;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (std::isdigit(static_cast<unsigned char>(c))) {
      if (value > (std::int64_t{1} << 53)) return std::nullopt;
      value = (value < 0 ? 0 : value * 10) + (c - '0');
    } else if (c == ',' || c == ')') {
      if (value >= 0) shape.push_back(value);
      value = -1;
    } else if (c != ' ' && c != 'L') {
      return std::nullopt;
    }
  }
  return shape;
}

Result<ElementType> element_type(const std::string& name, const std::string& text) {
  for (const NpyType& t : kTypes)
    if (text == "'" + std::string(t.name) + "'") return t.type;
  const bool big = text.size() > 1 && text[1] == '>';
  return fail(ErrorCode::kUnsupported,
              name + " holds elements of NumPy type " + text.substr(0, 60) + (big ? ", which is big endian." : "."),
              "Convert with astype to float32, float64, uint8, int8, int16, int32 or int64, little endian.");
}

Result<std::string> read_header(const ByteSource& source, std::uint64_t& data_at) {
  unsigned char head[12] = {};
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(sizeof head, source.size()));
  QUANVAS_CHECK(source.read(0, head, count));
  if (count < 10 || std::memcmp(head, "\x93NUMPY", 6) != 0)
    return corrupt(source.name, "is no NumPy array: it does not begin with \\x93NUMPY.");
  if (head[6] < 1 || head[6] > 3)
    return corrupt(source.name, "has version " + std::to_string(head[6]) + " of the NumPy format; 1 to 3 are known.");
  const std::uint64_t begin = head[6] == 1 ? 10 : 12;
  std::uint64_t length = head[8] | head[9] << 8;
  if (head[6] > 1) length |= static_cast<std::uint64_t>(head[10]) << 16 | static_cast<std::uint64_t>(head[11]) << 24;
  if (length > kMostHeader)
    return corrupt(source.name, "declares a header of " + std::to_string(length) + " bytes; at most 1 MiB is plausible.");
  if (begin + length > source.size()) return corrupt(source.name, "ends inside its header.");
  std::string header(length, ' ');
  QUANVAS_CHECK(source.read(begin, header.data(), header.size()));
  data_at = begin + length;
  return header;
}

Result<NpyArray> parse_array(ByteSource source) {
  NpyArray array;
  QUANVAS_TRY(const std::string header, read_header(source, array.data_at));
  const auto type = header_value(header, "descr"), order = header_value(header, "fortran_order"),
             tuple = header_value(header, "shape");
  const auto shape = tuple ? parse_tuple(*tuple) : std::nullopt;
  if (!type || !order || !shape) return corrupt(source.name, "has a header without descr, fortran_order and shape.");
  QUANVAS_TRY(array.type, element_type(source.name, *type));
  if (order->rfind("False", 0) != 0 && shape->size() > 1)
    return fail(ErrorCode::kUnsupported, source.name + " is stored in Fortran order.",
                "Save numpy.ascontiguousarray of it.");
  const auto elements = checked_product(*shape);
  if (!elements || *elements == 0 || shape->empty())
    return corrupt(source.name, "has the shape " + shape_text(*shape) + "; samples stand in the first of its dimensions.");
  const std::uint64_t have = source.size() - array.data_at, per_element = size_of(array.type);
  if (*elements > have / per_element)
    return corrupt(source.name, "is truncated: the shape " + shape_text(*shape) + " needs " + std::to_string(*elements) +
                                    " elements of " + std::to_string(per_element) + " bytes, but there are " +
                                    std::to_string(have) + " bytes.");
  array.shape = *shape;
  array.source = std::move(source);
  return array;
}

// An array of an archive: the named one, or the only one when no name is given.
Result<ByteSource> archive_member(std::shared_ptr<const SourceFile> file, const std::string& array) {
  QUANVAS_TRY(const auto members, zip_members(*file));
  std::string known;
  for (const auto& m : members) known += (known.empty() ? "" : ", ") + fs::path(m.name).stem().string();
  const auto it = std::find_if(members.begin(), members.end(), [&](const ZipMember& m) {
    return m.name == array || m.name == array + ".npy" || (array.empty() && members.size() == 1);
  });
  if (it == members.end())
    return fail(ErrorCode::kNotFound,
                array.empty() ? "'" + file->path().string() + "' holds several arrays; one must be named."
                              : "'" + file->path().string() + "' holds no array '" + array + "'.",
                "Its arrays: " + known + ".");
  QUANVAS_TRY(auto bytes, read_zip_member(*file, *it, kMostMember));
  return ByteSource{nullptr, std::make_shared<const std::vector<std::byte>>(std::move(bytes)),
                    "'" + it->name + "' in '" + file->path().string() + "'"};
}

Result<NpyArray> open_array(const fs::path& path, const std::string& array) {
  QUANVAS_TRY(auto file, SourceFile::open(path));
  char head[2] = {};
  if (file->size() >= 2) QUANVAS_CHECK(file->read(0, head, 2));
  if (head[0] == 'P' && head[1] == 'K') {
    QUANVAS_TRY(ByteSource member, archive_member(file, array));
    return parse_array(std::move(member));
  }
  return parse_array({file, nullptr, "'" + path.string() + "'"});
}

Result<std::vector<std::int64_t>> read_labels(const NpyArray& a) {
  const std::uint64_t count = *checked_product(a.shape);
  if (static_cast<std::int64_t>(count) != a.shape[0])
    return fail(ErrorCode::kInvalidArgument,
                a.source.name + " has the shape " + shape_text(a.shape) + "; labels are one number for each sample.");
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size_of(a.type));
  QUANVAS_CHECK(a.source.read(a.data_at, bytes.data(), bytes.size()));
  return to_whole(a.type, bytes.data(), static_cast<std::size_t>(count), a.source.name);
}

class NpyDataset final : public RawDataset {
 public:
  NpyDataset(NpyArray samples, std::vector<std::int64_t> labels, bool image)
      : samples_(std::move(samples)), labels_(std::move(labels)),
        shape_(samples_.shape.begin() + 1, samples_.shape.end()), image_(image) {}

  std::int64_t size() const override { return samples_.shape[0]; }
  bool has_labels() const override { return !labels_.empty(); }
  bool is_image() const override { return image_; }

  Result<RawSample> read(std::int64_t index) const override {
    if (index < 0 || index >= size())
      return fail(ErrorCode::kInvalidArgument, "There is no sample " + std::to_string(index) + " in " + samples_.source.name + ".");
    RawSample sample;
    sample.shape = shape_;
    sample.values.resize(static_cast<std::size_t>(element_count(shape_)));
    std::vector<std::byte> bytes(sample.values.size() * size_of(samples_.type));
    QUANVAS_CHECK(samples_.source.read(samples_.data_at + static_cast<std::uint64_t>(index) * bytes.size(), bytes.data(),
                                       bytes.size()));
    to_float(samples_.type, bytes.data(), sample.values.size(), sample.values.data());
    if (!labels_.empty()) sample.label = labels_[static_cast<std::size_t>(index)];
    return sample;
  }

  std::string content_hash() const override {
    return Hasher().text(samples_.source.content_hash()).number(image_)
        .bytes(labels_.data(), labels_.size() * sizeof(std::int64_t)).hex();
  }

 private:
  NpyArray samples_;
  std::vector<std::int64_t> labels_;
  Shape shape_;
  bool image_;
};

class NpyReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"npy", "NumPy arrays", "Arrays in .npy files or .npz archives with the samples in the first dimension."};
  }
  Schema schema() const override {
    return {{text_field("data", "Data", ".npy or .npz file with the samples in its first dimension.", ""),
             text_field("data_array", "Array", "Name of the array in an .npz archive; empty: the only one.", ""),
             text_field("labels", "Labels", ".npy or .npz file with one whole number for each sample; empty: none.", ""),
             text_field("labels_array", "Labels' array", "Name of the array in an .npz archive; empty: the only one.", ""),
             bool_field("image", "Pictures",
                        "Samples are height × width (× channels), brought to the model's layout; otherwise they "
                        "keep their shape.",
                        false)}};
  }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading NumPy arrays", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'npy'"));
      QUANVAS_TRY(const fs::path path, option_path(options["data"], base, "data", "npy"));
      QUANVAS_TRY(NpyArray samples, open_array(path, options["data_array"]));
      std::vector<std::int64_t> labels;
      if (const std::string text = options["labels"]; !text.empty()) {
        QUANVAS_TRY(const fs::path labels_path, option_path(text, base, "labels", "npy"));
        QUANVAS_TRY(const NpyArray array, open_array(labels_path, options["labels_array"]));
        QUANVAS_TRY(labels, read_labels(array));
        QUANVAS_CHECK(check_label_count(static_cast<std::uint64_t>(samples.shape[0]), labels.size(), path.string(),
                                        labels_path.string()));
      }
      return std::unique_ptr<RawDataset>(
          std::make_unique<NpyDataset>(std::move(samples), std::move(labels), options["image"].get<bool>()));
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, NpyReader)

}  // namespace
}  // namespace quanvas
