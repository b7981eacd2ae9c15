// Beginning and end of files as numbers, for networks that look at bytes: one folder of files for each class.
#include <algorithm>
#include <filesystem>
#include <map>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostBytes = 1 << 24;
constexpr std::size_t kMostStripped = 64 << 10;
constexpr std::uint64_t kMostList = 16 << 20;
constexpr std::string_view kWhiteSpace = " \t\n\r\v\f";

struct ByteFile {
  fs::path path;
  std::int64_t label = -1;
};
struct ByteFiles {
  std::vector<ByteFile> files;
  std::vector<std::string> classes;
};
struct Shown {
  std::int64_t begin = 0, end = 0;
  float padding = 0;
  bool strip = false;
};

// Sorted by name; regular files that are not empty, or folders.
Result<std::vector<fs::path>> entries_of(const fs::path& folder, bool folders) {
  std::error_code ec, ignored;
  std::vector<fs::path> out;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    if (folders ? it->is_directory(ignored) : it->is_regular_file(ignored) && it->file_size(ignored) > 0) out.push_back(it->path());
  if (ec) return fail(ErrorCode::kIo, "Cannot read the folder '" + folder.string() + "': " + ec.message() + ".");
  std::sort(out.begin(), out.end());
  return out;
}

// The classes in the order of the network's outputs: a JSON list of names.
Result<std::vector<std::string>> read_classes(const fs::path& path) {
  QUANVAS_TRY(const std::string text, read_file(path, kMostList));
  QUANVAS_TRY(const json list, parse_json(text, "'" + path.string() + "'"));
  auto names = from_json_value<std::vector<std::string>>(list, "the list of labels");
  if (!names || names->empty())
    return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is no JSON list of names.", "Give [\"first\", \"second\", ...].");
  return *names;
}

Result<ByteFiles> scan(const fs::path& folder, const std::vector<std::string>& classes, const std::string& labels_file) {
  QUANVAS_TRY(const auto folders, entries_of(folder, true));
  std::map<std::string, std::int64_t> number;
  for (std::size_t i = 0; i < classes.size(); ++i) number.emplace(classes[i], static_cast<std::int64_t>(i));
  ByteFiles out{{}, classes};
  for (const fs::path& below : folders) {
    QUANVAS_TRY(const auto files, entries_of(below, false));
    if (files.empty()) continue;
    const std::string name = below.filename().string();
    auto label = number.find(name);
    if (label == number.end() && !classes.empty())
      return fail(ErrorCode::kInvalidArgument, "'" + labels_file + "' names no class '" + name + "', but there is a folder '" +
                                                   below.string() + "'.",
                  "A folder's name is the class of its files.");
    if (label == number.end()) {
      label = number.emplace(name, static_cast<std::int64_t>(out.classes.size())).first;
      out.classes.push_back(name);
    }
    for (const fs::path& file : files) out.files.push_back({file, label->second});
  }
  if (!out.files.empty()) return out;
  QUANVAS_TRY(const auto files, entries_of(folder, false));
  for (const fs::path& file : files) out.files.push_back({file, -1});
  if (!out.files.empty()) return out;
  return fail(ErrorCode::kInvalidArgument, "The folder '" + folder.string() + "' holds no files, and no folders with files that are not empty.");
}

class ByteDataset final : public RawDataset {
 public:
  ByteDataset(ByteFiles files, Shown shown) : files_(std::move(files)), shown_(shown) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(files_.files.size()); }
  bool has_labels() const override { return files_.files[0].label >= 0; }
  bool is_image() const override { return false; }
  std::vector<std::string> class_names() const override { return files_.classes; }

  Result<RawSample> read(std::int64_t index) const override {
    return guarded("reading bytes", [&]() -> Result<RawSample> {
      if (index < 0 || index >= size()) return fail(ErrorCode::kInvalidArgument, "There is no file " + std::to_string(index) + ".");
      const ByteFile& one = files_.files[static_cast<std::size_t>(index)];
      QUANVAS_TRY(const auto file, SourceFile::open(one.path));
      RawSample sample;
      sample.shape = {shown_.begin + shown_.end};
      sample.label = one.label;
      sample.values.assign(static_cast<std::size_t>(shown_.begin + shown_.end), shown_.padding);
      QUANVAS_TRY(std::string head, piece(*file, shown_.begin, /*at_end=*/false));
      if (shown_.strip) head.erase(0, std::min(head.find_first_not_of(kWhiteSpace), head.size()));
      head.resize(std::min(head.size(), static_cast<std::size_t>(shown_.begin)));
      QUANVAS_TRY(std::string tail, piece(*file, shown_.end, /*at_end=*/true));
      if (shown_.strip) tail.erase(tail.find_last_not_of(kWhiteSpace) + 1);
      tail.erase(0, tail.size() - std::min(tail.size(), static_cast<std::size_t>(shown_.end)));
      const auto number = [](char c) { return static_cast<float>(static_cast<unsigned char>(c)); };
      std::transform(head.begin(), head.end(), sample.values.begin(), number);
      std::transform(tail.begin(), tail.end(), sample.values.end() - static_cast<std::ptrdiff_t>(tail.size()), number);
      return sample;
    });
  }

  std::string content_hash() const override {
    FileStamps stamps;
    for (const ByteFile& f : files_.files) stamps.add(f.path);
    Hasher hasher;
    hasher.text(remembered_hash(stamps, [this]() -> Result<std::string> {
      Hasher all;
      for (const ByteFile& f : files_.files) {
        QUANVAS_TRY(const auto file, SourceFile::open(f.path));
        all.text(file->content_hash());
      }
      return all.hex();
    }));
    for (const ByteFile& f : files_.files) hasher.number(f.label);
    return hasher.number(shown_.begin).number(shown_.end).number(static_cast<std::int64_t>(shown_.padding)).number(shown_.strip).hex();
  }

 private:
  // The bytes that are shown and those that stripping may take.
  Result<std::string> piece(const SourceFile& file, std::int64_t wanted, bool at_end) const {
    const std::uint64_t most = static_cast<std::uint64_t>(wanted) + (shown_.strip ? kMostStripped : 0);
    std::string out(static_cast<std::size_t>(std::min(file.size(), most)), '\0');
    QUANVAS_CHECK(file.read(at_end ? file.size() - out.size() : 0, out.data(), out.size()));
    return out;
  }

  ByteFiles files_;
  Shown shown_;
};

class BytesReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"bytes", "Bytes of files", "The first and the last bytes of each file as numbers 0 to 255; the folder that it lies in is its "
                                       "class. Files without a byte are left out."};
  }
  Schema schema() const override {
    const double most = static_cast<double>(kMostBytes);
    return {{text_field("folder", "Folder", "Folder with one folder of files for each class, or with files without a class.", ""),
             text_field("labels", "Labels", "JSON list of the classes in the order of the network's outputs; empty: the folders' names in order.", ""),
             integer_field("begin", "Beginning", "Bytes of the beginning, filled up behind.", 1024, 0, most, "bytes"),
             integer_field("end", "End", "Bytes of the end, filled up before.", 1024, 0, most, "bytes"),
             integer_field("padding", "Padding", "Number where there is no byte.", 256, -1, 65535),
             bool_field("strip", "Strip", "Leave white space at the beginning and at the end of the file out (at most 64 KiB of each).", true)}};
  }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading bytes of files", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'bytes'"));
      QUANVAS_TRY(const fs::path folder, option_path(options["folder"], base, "folder", "bytes"));
      const Shown shown{options["begin"], options["end"], options["padding"].get<float>(), options["strip"]};
      if (shown.begin + shown.end == 0)
        return fail(ErrorCode::kInvalidArgument, "The options 'begin' and 'end' of data set reader 'bytes' are both 0, so nothing is read.");
      std::error_code ec;
      if (!fs::is_directory(folder, ec)) return fail(ErrorCode::kNotFound, "There is no folder '" + folder.string() + "'.");
      std::vector<std::string> classes;
      const std::string labels = options["labels"];
      if (!labels.empty()) {
        QUANVAS_TRY(const fs::path path, option_path(labels, base, "labels", "bytes"));
        QUANVAS_TRY(classes, read_classes(path));
      }
      QUANVAS_TRY(ByteFiles files, scan(folder, classes, labels));
      return std::unique_ptr<RawDataset>(std::make_unique<ByteDataset>(std::move(files), shown));
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, BytesReader)

}  // namespace
}  // namespace quanvas
