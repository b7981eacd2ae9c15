#include "plugins/datasets/zip_member.h"

#include <zlib.h>

#include <algorithm>

namespace quanvas {
namespace {

constexpr std::uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr std::uint32_t kEntrySignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr std::uint32_t kIn64 = 0xffffffff;
constexpr std::size_t kEndBytes = 22, kEntryBytes = 46, kLocalBytes = 30, kLocator64Bytes = 20, kEnd64Bytes = 56;
constexpr std::uint64_t kMostDirectory = 64 << 20;
constexpr std::size_t kStep = 4 << 20;

using Bytes = std::vector<std::byte>;

std::uint64_t little(const Bytes& b, std::size_t at, std::size_t width) {
  std::uint64_t v = 0;
  for (std::size_t i = width; i-- > 0;) v = v << 8 | std::to_integer<std::uint64_t>(b[at + i]);
  return v;
}

Failure broken(const SourceFile& file, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + file.path().string() + "' is a damaged archive: " + what + ".",
              "Write it again with numpy.savez.");
}

Result<Bytes> piece(const SourceFile& file, std::uint64_t offset, std::uint64_t count) {
  if (offset > file.size() || count > file.size() - offset) return broken(file, "it ends too early");
  Bytes out(static_cast<std::size_t>(count));
  QUANVAS_CHECK(file.read(offset, out.data(), out.size()));
  return out;
}

struct Directory {
  std::uint64_t offset = 0, bytes = 0, entries = 0;
};

Result<Directory> find_directory_64(const SourceFile& file, std::uint64_t end_at) {
  if (end_at < kLocator64Bytes) return broken(file, "its ZIP64 directory is missing");
  QUANVAS_TRY(const Bytes locator, piece(file, end_at - kLocator64Bytes, kLocator64Bytes));
  if (little(locator, 0, 4) != kLocator64Signature) return broken(file, "its ZIP64 directory is missing");
  QUANVAS_TRY(const Bytes end, piece(file, little(locator, 8, 8), kEnd64Bytes));
  if (little(end, 0, 4) != kEnd64Signature) return broken(file, "its ZIP64 directory is missing");
  return Directory{little(end, 48, 8), little(end, 40, 8), little(end, 32, 8)};
}

Result<Directory> find_directory(const SourceFile& file) {
  // The end record is last but for a comment of at most 64 KiB.
  const std::uint64_t tail_size = std::min<std::uint64_t>(file.size(), kEndBytes + 65535);
  QUANVAS_TRY(const Bytes tail, piece(file, file.size() - tail_size, tail_size));
  for (std::size_t at = tail.size(); at-- > 0;) {
    if (at + kEndBytes > tail.size() || little(tail, at, 4) != kEndSignature) continue;
    const Directory d{little(tail, at + 16, 4), little(tail, at + 12, 4), little(tail, at + 10, 2)};
    if (d.offset == kIn64 || d.bytes == kIn64 || d.entries == 0xffff)
      return find_directory_64(file, file.size() - tail_size + at);
    return d;
  }
  return broken(file, "it has no directory, so it is truncated or no archive");
}

// Sizes that do not fit 32 bits stand in the extra field 1, in this order, each only when it is needed.
Status read_extra_64(const SourceFile& file, const Bytes& b, std::size_t at, std::size_t end, ZipMember& m) {
  while (at + 4 <= end) {
    const std::uint64_t id = little(b, at, 2), size = little(b, at + 2, 2);
    std::size_t field = at + 4;
    at = field + static_cast<std::size_t>(size);
    if (id != 1) continue;
    for (std::uint64_t* value : {&m.size, &m.compressed, &m.offset}) {
      if (*value != kIn64) continue;
      if (field + 8 > std::min(at, end)) return broken(file, "a ZIP64 size is missing");
      *value = little(b, field, 8);
      field += 8;
    }
  }
  return {};
}

// Feeds a raw deflate stream; ends the stream whatever happens.
class Inflater {
 public:
  Inflater() { ready_ = inflateInit2(&stream_, -MAX_WBITS) == Z_OK; }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // All of `in` to exactly `size` bytes; the output grows with what really comes.
  bool run(Bytes& in, std::uint64_t size, Bytes& out) {
    if (!ready_) return false;
    stream_.next_in = reinterpret_cast<Bytef*>(in.data());
    stream_.avail_in = static_cast<uInt>(in.size());
    int state = Z_OK;
    while (state == Z_OK && out.size() < size) {
      const std::size_t have = out.size();
      const auto step = static_cast<std::size_t>(std::min<std::uint64_t>(kStep, size - have));
      out.resize(have + step);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + have);
      stream_.avail_out = static_cast<uInt>(step);
      state = inflate(&stream_, Z_NO_FLUSH);
      out.resize(have + step - stream_.avail_out);
      if (stream_.avail_out > 0 && state == Z_OK) break;
    }
    return out.size() == size;
  }

 private:
  z_stream stream_{};
  bool ready_ = false;
};

}  // namespace

Result<std::vector<ZipMember>> zip_members(const SourceFile& file) {
  QUANVAS_TRY(const Directory d, find_directory(file));
  if (d.bytes > kMostDirectory) return broken(file, "its directory is unreasonably large");
  QUANVAS_TRY(const Bytes b, piece(file, d.offset, d.bytes));
  std::vector<ZipMember> members;
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < d.entries; ++i) {
    if (at + kEntryBytes > b.size() || little(b, at, 4) != kEntrySignature) return broken(file, "its directory is cut short");
    const auto name = static_cast<std::size_t>(little(b, at + 28, 2)), extra = static_cast<std::size_t>(little(b, at + 30, 2));
    const auto comment = static_cast<std::size_t>(little(b, at + 32, 2));
    if (at + kEntryBytes + name + extra + comment > b.size()) return broken(file, "its directory is cut short");
    ZipMember m;
    m.method = static_cast<int>(little(b, at + 10, 2));
    m.crc = static_cast<std::uint32_t>(little(b, at + 16, 4));
    m.compressed = little(b, at + 20, 4);
    m.size = little(b, at + 24, 4);
    m.offset = little(b, at + 42, 4);
    m.name.assign(reinterpret_cast<const char*>(b.data()) + at + kEntryBytes, name);
    if (little(b, at + 8, 2) & 1) return broken(file, "'" + m.name + "' is encrypted");
    const std::size_t extra_at = at + kEntryBytes + name;
    QUANVAS_CHECK(read_extra_64(file, b, extra_at, extra_at + extra, m));
    members.push_back(std::move(m));
    at = extra_at + extra + comment;
  }
  return members;
}

Result<std::vector<std::byte>> read_zip_member(const SourceFile& file, const ZipMember& member, std::uint64_t most) {
  if (member.size > most || member.compressed > most)
    return fail(ErrorCode::kInvalidArgument, "'" + member.name + "' in '" + file.path().string() + "' has " +
                                                 std::to_string(std::max(member.size, member.compressed)) +
                                                 " bytes; at most " + std::to_string(most) + " are read from an archive.",
                "Save the array as an .npy file, which is read piece by piece.");
  QUANVAS_TRY(const Bytes local, piece(file, member.offset, kLocalBytes));
  if (little(local, 0, 4) != kLocalSignature) return broken(file, "'" + member.name + "' is not where the directory says");
  const std::uint64_t at = member.offset + kLocalBytes + little(local, 26, 2) + little(local, 28, 2);
  QUANVAS_TRY(Bytes data, piece(file, at, member.compressed));
  if (member.method == 8) {
    Bytes plain;
    if (!Inflater().run(data, member.size, plain)) return broken(file, "'" + member.name + "' cannot be decompressed");
    data = std::move(plain);
  } else if (member.method != 0) {
    return fail(ErrorCode::kUnsupported, "'" + member.name + "' in '" + file.path().string() +
                                             "' is compressed with method " + std::to_string(member.method) +
                                             "; only stored and deflated members can be read.");
  }
  uLong crc = ::crc32(0, nullptr, 0);
  for (std::size_t done = 0; done < data.size(); done += kStep)
    crc = ::crc32(crc, reinterpret_cast<const Bytef*>(data.data() + done),
                  static_cast<uInt>(std::min(kStep, data.size() - done)));
  if (data.size() != member.size || crc != member.crc)
    return broken(file, "the checksum of '" + member.name + "' does not fit its bytes");
  return data;
}

}  // namespace quanvas
