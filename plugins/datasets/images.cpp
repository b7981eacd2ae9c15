// Folders of JPEG and PNG files, with a CSV of labels or one folder for each class. Decoded when asked for.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/data/sources.h"
#include "core/plugin/registry.h"
#include "plugins/datasets/image_decode.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostPictureBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kMostListBytes = std::uint64_t{256} << 20;
constexpr std::int64_t kMostClasses = 1000000;

struct Picture {
  fs::path path;
  std::int64_t label = -1;
};
struct PictureList {
  std::vector<Picture> pictures;
  std::vector<std::string> classes;
};

bool is_picture(const fs::path& path) {
  std::string e = path.extension().string();
  std::transform(e.begin(), e.end(), e.begin(), [](unsigned char c) { return std::tolower(c); });
  return e == ".jpg" || e == ".jpeg" || e == ".png";
}

Result<std::vector<fs::path>> sorted_entries(const fs::path& folder) {
  std::error_code ec;
  std::vector<fs::path> out;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) out.push_back(it->path());
  if (ec) return fail(ErrorCode::kIo, "Cannot read the folder '" + folder.string() + "': " + ec.message() + ".");
  std::sort(out.begin(), out.end());
  return out;
}

Failure no_pictures(const fs::path& folder) {
  return fail(ErrorCode::kInvalidArgument, "The folder '" + folder.string() + "' holds no .jpg, .jpeg or .png files.");
}

// Pictures in the folder itself have no label; those in folders below it have the folder's number.
Result<PictureList> scan_folder(const fs::path& folder) {
  QUANVAS_TRY(const auto entries, sorted_entries(folder));
  PictureList list;
  for (const auto& entry : entries)
    if (is_picture(entry) && may_be_file(entry)) list.pictures.push_back({entry, -1});
  if (!list.pictures.empty()) return list;
  for (const auto& entry : entries) {
    std::error_code ec;
    if (!fs::is_directory(entry, ec)) continue;
    QUANVAS_TRY(const auto below, sorted_entries(entry));
    const auto label = static_cast<std::int64_t>(list.classes.size());
    bool any = false;
    for (const auto& file : below) {
      if (!is_picture(file) || !may_be_file(file)) continue;
      list.pictures.push_back({file, label});
      any = true;
    }
    if (any) list.classes.push_back(entry.filename().string());
  }
  if (list.pictures.empty()) return no_pictures(folder);
  return list;
}

// One line of a CSV file (RFC 4180: fields in quotes may hold commas and doubled quotes).
std::vector<std::string> csv_fields(const std::string& line) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      out.back() += line[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      out.emplace_back();
    } else if (c != '\r') {
      out.back() += c;
    }
  }
  return out;
}

struct Columns {
  std::size_t file = 0, label = 0, name = SIZE_MAX;
};

Result<Columns> find_columns(const std::vector<std::string>& header, const fs::path& csv) {
  const auto column = [&](std::initializer_list<const char*> names) {
    for (const char* name : names)
      if (const auto it = std::find(header.begin(), header.end(), name); it != header.end())
        return static_cast<std::size_t>(it - header.begin());
    return SIZE_MAX;
  };
  const Columns c{column({"file"}), column({"class_index", "label"}), column({"name"})};
  if (c.file == SIZE_MAX || c.label == SIZE_MAX)
    return fail(ErrorCode::kInvalidArgument,
                csv.string() + ":1: the first line must name the columns 'file' and 'class_index' (or 'label').");
  return c;
}

Failure bad_line(const fs::path& csv, std::size_t line, const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, csv.string() + ":" + std::to_string(line) + ": " + what);
}

Result<PictureList> read_list(const fs::path& csv, const fs::path& folder) {
  QUANVAS_TRY(const std::string text, read_file(csv, kMostListBytes));
  PictureList list;
  Columns columns;
  std::map<std::int64_t, std::string> names;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const auto fields = csv_fields(text.substr(at, end - at));
    at = end + 1;
    if (++number == 1) {
      QUANVAS_TRY(columns, find_columns(fields, csv));
      continue;
    }
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (fields.size() <= std::max(columns.file, columns.label) || fields[columns.file].empty())
      return bad_line(csv, number, "it has too few fields.");
    const std::string& label = fields[columns.label];
    std::int64_t value = -1;
    const auto r = std::from_chars(label.data(), label.data() + label.size(), value);
    if (r.ec != std::errc() || r.ptr != label.data() + label.size() || value < 0 || value > kMostClasses)
      return bad_line(csv, number, "the class '" + label + "' is no whole number from 0.");
    list.pictures.push_back({folder / fields[columns.file], value});
    if (columns.name < fields.size()) names.emplace(value, fields[columns.name]);
  }
  if (list.pictures.empty()) return fail(ErrorCode::kInvalidArgument, "'" + csv.string() + "' lists no pictures.");
  if (!names.empty()) list.classes.resize(static_cast<std::size_t>(names.rbegin()->first) + 1);
  for (auto& [label, name] : names) list.classes[static_cast<std::size_t>(label)] = name;
  return list;
}

class ImageDataset final : public RawDataset {
 public:
  explicit ImageDataset(PictureList list) : list_(std::move(list)) {
    labelled_ = std::all_of(list_.pictures.begin(), list_.pictures.end(), [](const Picture& p) { return p.label >= 0; });
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(list_.pictures.size()); }
  bool has_labels() const override { return labelled_; }
  bool is_image() const override { return true; }
  std::vector<std::string> class_names() const override { return list_.classes; }

  Result<RawSample> read(std::int64_t index) const override {
    return guarded("decoding a picture", [&]() -> Result<RawSample> {
      if (index < 0 || index >= size())
        return fail(ErrorCode::kInvalidArgument, "There is no picture " + std::to_string(index) + ".");
      const Picture& picture = list_.pictures[static_cast<std::size_t>(index)];
      QUANVAS_TRY(const std::string bytes, read_file(picture.path, kMostPictureBytes));
      QUANVAS_TRY(const DecodedImage image, decode_image(bytes, picture.path.string()));
      RawSample sample;
      sample.shape = {image.height, image.width, image.channels};
      sample.values.assign(image.pixels.begin(), image.pixels.end());
      sample.label = picture.label;
      return sample;
    });
  }

  // Of all files' bytes in order: a changed picture is a changed data set, a moved folder is not.
  std::string content_hash() const override {
    FileStamps stamps;
    for (const Picture& p : list_.pictures) stamps.add(p.path);
    Hasher hasher;
    hasher.text(remembered_hash(stamps, [this]() -> Result<std::string> {
      Hasher all;
      for (const Picture& p : list_.pictures) {
        QUANVAS_TRY(const std::string bytes, read_file(p.path, kMostPictureBytes));
        all.text(bytes);
      }
      return all.hex();
    }));
    for (const Picture& p : list_.pictures) hasher.number(p.label);
    return hasher.hex();
  }

 private:
  PictureList list_;
  bool labelled_ = false;
};

class ImagesReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"images", "Folder of pictures",
            "JPEG and PNG files with a CSV of labels, or with one folder for each class; pixels stay 0 … 255."};
  }
  Schema schema() const override {
    return {{text_field("folder", "Folder", "Folder with the pictures, or with one folder of pictures for each class.", ""),
             text_field("labels", "Labels",
                        "CSV file with the columns file and class_index (or label), and maybe name; its order is the "
                        "order of the samples. Empty: all pictures by name, classes from the folders.",
                        "")}};
  }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading a folder of pictures", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'images'"));
      QUANVAS_TRY(const fs::path folder, option_path(options["folder"], base, "folder", "images"));
      std::error_code ec;
      if (!fs::is_directory(folder, ec))
        return fail(ErrorCode::kNotFound, "There is no folder '" + folder.string() + "'.");
      PictureList list;
      if (const std::string text = options["labels"]; !text.empty()) {
        QUANVAS_TRY(const fs::path csv, option_path(text, base, "labels", "images"));
        QUANVAS_TRY(list, read_list(csv, folder));
      } else {
        QUANVAS_TRY(list, scan_folder(folder));
      }
      return std::unique_ptr<RawDataset>(std::make_unique<ImageDataset>(std::move(list)));
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, ImagesReader)

}  // namespace
}  // namespace quanvas
