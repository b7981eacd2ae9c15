// Texts that are tokenized already: ids in a file without header or a .npy file.
#include <algorithm>
#include <filesystem>

#include "core/base/guarded.h"
#include "core/data/npy.h"
#include "core/data/sources.h"
#include "core/data/token_windows.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = std::uint64_t{8} << 30;
constexpr char kNpyMagic[] = "\x93NUMPY";

struct TokenType {
  const char* name;
  ElementType type;
};
constexpr TokenType kTypes[] = {{"int16", ElementType::kInt16}, {"int32", ElementType::kInt32}, {"int64", ElementType::kInt64}};
constexpr const char* kUint16 = "uint16";

struct IdSource {
  ElementType type = ElementType::kInt32;
  std::uint64_t data_at = 0, count = 0;
  bool is_unsigned = false;
};

Result<IdSource> npy_source(const SourceFile& file, const std::string& name) {
  const auto read = [&](std::uint64_t at, void* out, std::size_t count) { return file.read(at, out, count); };
  QUANVAS_TRY(const NpyHeader header, read_npy_header(name, file.size(), read));
  return IdSource{header.type, header.data_at, *checked_product(header.shape), false};
}

Result<IdSource> raw_source(const SourceFile& file, const std::string& type, const std::string& name) {
  IdSource out;
  out.is_unsigned = type == kUint16;
  out.type = ElementType::kInt16;
  for (const TokenType& t : kTypes)
    if (type == t.name) out.type = t.type;
  if (file.size() % size_of(out.type) != 0)
    return fail(ErrorCode::kCorrupt, name + " has " + std::to_string(file.size()) + " bytes, which is no multiple of the " +
                                         std::to_string(size_of(out.type)) + " of an " + type + ".",
                "Check the option type, or whether the file is complete.");
  out.count = file.size() / size_of(out.type);
  return out;
}

Result<IdSource> find_source(const SourceFile& file, const std::string& type, const std::string& name) {
  if (file.size() > kMostBytes)
    return fail(ErrorCode::kInvalidArgument, name + " has " + std::to_string(file.size()) + " bytes; at most " +
                                                 std::to_string(kMostBytes) + " are read.");
  char head[sizeof kNpyMagic - 1] = {};
  if (file.size() >= sizeof head) QUANVAS_CHECK(file.read(0, head, sizeof head));
  return std::equal(std::begin(head), std::end(head), kNpyMagic) ? npy_source(file, name) : raw_source(file, type, name);
}

Result<std::vector<std::int32_t>> read_ids(const SourceFile& file, const IdSource& source, std::int64_t most,
                                           const std::string& name) {
  const auto count = static_cast<std::size_t>(most > 0 ? std::min<std::uint64_t>(source.count, static_cast<std::uint64_t>(most))
                                                       : source.count);
  std::vector<std::byte> bytes(count * size_of(source.type));
  QUANVAS_CHECK(file.read(source.data_at, bytes.data(), bytes.size()));
  if (source.type == ElementType::kFloat32 || source.type == ElementType::kFloat64)
    return fail(ErrorCode::kInvalidArgument, name + " holds floating point numbers; token ids are whole numbers.");
  QUANVAS_TRY(const auto whole, to_whole(source.type, bytes.data(), count, name));
  std::vector<std::int32_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t id = source.is_unsigned ? static_cast<std::uint16_t>(whole[i]) : whole[i];
    if (id < INT32_MIN || id > INT32_MAX)
      return fail(ErrorCode::kInvalidArgument, name + ": token " + std::to_string(i) + " has the id " + std::to_string(id) + ".",
                  "Check the file and the type of its numbers.");
    ids[i] = static_cast<std::int32_t>(id);
  }
  return ids;
}

class TokensReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"tokens", "Token ids", "A text that is tokenized already: whole numbers without header, little endian, or a .npy file; "
                                   "cut into windows."};
  }
  Schema schema() const override {
    std::vector<Choice> types;
    for (const TokenType& t : kTypes) types.push_back({t.name, t.name, ""});
    types.push_back({kUint16, kUint16, ""});
    Schema out{{text_field("data", "Data", "File with the ids, one after the other.", ""),
                choice_field("type", "Type", "Of the numbers in a file without header; a .npy file says its own.", "int32", types),
                integer_field("bos", "BOS", "Id of a token that is put before every window; −1: none.", -1, -1, (1 << 24) - 1)}};
    for (Field& f : window_fields()) out.fields.push_back(std::move(f));
    return out;
  }
  json options_for(const json& options, const Shape& expected) const override { return window_options_for(options, expected); }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading tokens", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'tokens'"));
      QUANVAS_TRY(const fs::path path, option_path(options["data"], base, "data", "tokens"));
      const std::string name = "'" + path.string() + "'";
      QUANVAS_TRY(const auto file, SourceFile::open(path));
      QUANVAS_TRY(const IdSource source, find_source(*file, options["type"], name));
      WindowSettings settings = window_settings(options);
      settings.bos = options["bos"];
      QUANVAS_TRY(auto ids, read_ids(*file, source, settings.max_tokens, name));
      return token_windows({std::move(ids)}, settings, name);
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, TokensReader)

}  // namespace
}  // namespace quanvas
