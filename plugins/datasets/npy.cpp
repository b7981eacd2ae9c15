// NumPy arrays: .npy files, read piece by piece, and .npz archives, read into memory.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/npy.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"
#include "plugins/datasets/zip_member.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostMember = std::uint64_t{2} << 30;

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
    if (count > 0) std::memcpy(out, memory->data() + at, count);  // an empty member has no data
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

Result<NpyArray> parse_array(ByteSource source) {
  const auto read = [&](std::uint64_t at, void* out, std::size_t count) { return source.read(at, out, count); };
  QUANVAS_TRY(const NpyHeader header, read_npy_header(source.name, source.size(), read));
  if (header.shape.empty() || *checked_product(header.shape) == 0)
    return fail(ErrorCode::kCorrupt,
                source.name + " has the shape " + shape_text(header.shape) + "; samples stand in the first of its dimensions.",
                "Write it again with numpy.save.");
  return NpyArray{std::move(source), header.type, header.shape, header.data_at};
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
