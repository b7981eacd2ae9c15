// The list of a ZIP archive (with its 64-bit form) as LibTorch writes it:
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
#include "plugins/importers/torchscript_archive.h"

#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>

#include "core/base/hash.h"

namespace quanvas::torchscript {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostRatio = 100;                         // of a packed member
constexpr std::uint64_t kMostUnpacked = std::uint64_t{64} << 20;  // of all packed members: code and pickles
constexpr std::uint64_t kMostList = std::uint64_t{256} << 20;     // bytes of the archive's list
constexpr std::uint64_t kMostText = std::uint64_t{16} << 20;      // bytes of one code file
constexpr std::size_t kMostName = 4096;
constexpr std::size_t kEndSize = 22, kLocatorSize = 20, kEnd64Size = 56, kEntrySize = 46, kHeaderSize = 30;

const char* const kHowToMake =
    "Make a TorchScript file of the network: torch.jit.trace(model, example).save(\"model.ts.pt\"), or "
    "torch.jit.script(model).save(...); or export it as ONNX.";

std::uint64_t number(const std::string& bytes, std::size_t at, int width) {
  std::uint64_t v = 0;
  for (int i = width - 1; i >= 0; --i)
    v = v << 8 | static_cast<std::uint8_t>(bytes[at + static_cast<std::size_t>(i)]);
  return v;
}

std::string shown(const std::string& name) {
  std::string out;
  for (const char c : name.substr(0, 80))
    out += static_cast<unsigned char>(c) < 32 || c == 127 || (c & 0x80) ? '?' : c;
  return out;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string amount(std::uint64_t bytes) {
  char text[32];
  if (bytes < 1000) return std::to_string(bytes) + " bytes";
  const double kilo = static_cast<double>(bytes) / 1e3;
  std::snprintf(text, sizeof text, kilo < 1000 ? "%.1f kB" : "%.1f MB", kilo < 1000 ? kilo : kilo / 1e3);
  return text;
}

std::string counted(std::int64_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  Result<Archive> read() {
    QUANVAS_CHECK(open());
    QUANVAS_CHECK(look_at_head());
    QUANVAS_CHECK(find_list());
    QUANVAS_CHECK(read_list());
    QUANVAS_CHECK(check_places());
    QUANVAS_CHECK(classify());
    QUANVAS_CHECK(read_contents());
    QUANVAS_TRY(out_.hash, file_hash());
    return std::move(out_);
  }

 private:
  std::string path_;
  std::ifstream in_;
  std::uint64_t size_ = 0, list_at_ = 0, list_size_ = 0, count_ = 0;
  Archive out_;

  Failure bad(const std::string& what) const {
    return fail(ErrorCode::kCorrupt, "'" + path_ + "' is not a whole TorchScript file: " + what + ".",
                "Save or copy the model again.");
  }
  Failure hostile(const std::string& what) const {
    return fail(ErrorCode::kCorrupt,
                "'" + path_ + "' is not read: " + what + ". No program writes such a model file.",
                "Use a model from a source that you trust.");
  }
  Failure other(const std::string& what) const {
    return fail(ErrorCode::kUnsupported, "'" + path_ + "' " + what + ".", kHowToMake);
  }

  Status open() {
    std::error_code ec;
    if (fs::is_directory(path_, ec))
      return fail(ErrorCode::kInvalidArgument, "'" + path_ + "' is a folder.", "Give a file.");
    in_.open(path_, std::ios::binary);
    if (!in_)
      return fail(ErrorCode::kIo, "'" + path_ + "' cannot be read.", "Check that it is there and readable.");
    in_.seekg(0, std::ios::end);
    size_ = static_cast<std::uint64_t>(std::max<std::streamoff>(in_.tellg(), 0));
    if (size_ == 0) return bad("it is empty");
    return {};
  }

  Result<std::string> bytes(std::uint64_t at, std::uint64_t n, const char* what) {
    if (at > size_ || n > size_ - at) return bad(std::string("its ") + what + " lies beyond the end of the file");
    std::string out(n, '\0');
    in_.clear();
    in_.seekg(static_cast<std::streamoff>(at));
    in_.read(out.data(), static_cast<std::streamsize>(n));
    if (static_cast<std::uint64_t>(in_.gcount()) != n)
      return fail(ErrorCode::kIo, "'" + path_ + "' cannot be read at byte " + std::to_string(at) + ".");
    return out;
  }

  // What is no archive at all: pickles of torch.save() before version 1.6, and anything else.
  Status look_at_head() {
    QUANVAS_TRY(const std::string head, bytes(0, std::min<std::uint64_t>(size_, 64), "beginning"));
    if (head.compare(0, 2, "PK") == 0) return {};
    static const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
    if (head.compare(0, magic.size(), magic) == 0)
      return other("is a pickle of an old torch.save(): weights, or a Python object, without the network's code");
    if (head.size() > 1 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5)
      return other("is a Python pickle, not TorchScript; pickles run any code and are never read");
    return fail(ErrorCode::kCorrupt,
                "'" + path_ + "' is not a TorchScript file: it does not begin as a ZIP archive does.", kHowToMake);
  }

  Status find_list() {
    const std::uint64_t n = std::min<std::uint64_t>(size_, kEndSize + 0xffff);
    QUANVAS_TRY(const std::string tail, bytes(size_ - n, n, "end"));
    const std::size_t at =
        tail.size() < kEndSize ? std::string::npos : tail.rfind("PK\5\6", tail.size() - kEndSize);
    if (at == std::string::npos)
      return bad("its list of contents is missing; the file ends in the middle, after " + std::to_string(size_) +
                 " bytes");
    if (number(tail, at + 4, 2) != 0 || number(tail, at + 6, 2) != 0) return bad("it is one part of several");
    count_ = number(tail, at + 10, 2);
    list_size_ = number(tail, at + 12, 4);
    list_at_ = number(tail, at + 16, 4);
    const std::uint64_t end = size_ - n + at;
    if (end >= kLocatorSize) {
      QUANVAS_TRY(const std::string locator, bytes(end - kLocatorSize, kLocatorSize, "end"));
      if (locator.compare(0, 4, "PK\6\7") == 0) QUANVAS_CHECK(find_long_list(number(locator, 8, 8)));
    }
    if (list_at_ > end || list_size_ > end - list_at_ || list_size_ > kMostList)
      return bad("its list of contents does not fit into it; the file was cut or changed");
    if (count_ > list_size_ / kEntrySize) return bad("its list of contents is shorter than it says");
    return {};
  }

  Status find_long_list(std::uint64_t at) {
    QUANVAS_TRY(const std::string end, bytes(at, kEnd64Size, "list of contents"));
    if (end.compare(0, 4, "PK\6\6") != 0) return bad("its list of contents is damaged");
    count_ = number(end, 32, 8);
    list_size_ = number(end, 40, 8);
    list_at_ = number(end, 48, 8);
    return {};
  }

  Status read_list() {
    QUANVAS_TRY(const std::string list, bytes(list_at_, list_size_, "list of contents"));
    std::size_t at = 0;
    std::set<std::string> names;
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (list.size() - at < kEntrySize || list.compare(at, 4, "PK\1\2") != 0)
        return bad("entry " + std::to_string(i + 1) + " of its list of contents is damaged");
      const std::size_t name = number(list, at + 28, 2), extra = number(list, at + 30, 2),
                        comment = number(list, at + 32, 2);
      if (list.size() - at - kEntrySize < name + extra + comment)
        return bad("its list of contents ends in the middle");
      Member m;
      m.name = list.substr(at + kEntrySize, name);
      QUANVAS_CHECK(check_name(m.name));
      if (!names.insert(m.name).second) return hostile("it holds '" + shown(m.name) + "' twice");
      QUANVAS_CHECK(read_entry(list, at, list.substr(at + kEntrySize + name, extra), m));
      out_.members.push_back(std::move(m));
      at += kEntrySize + name + extra + comment;
    }
    return {};
  }

  Status check_name(const std::string& name) const {
    if (name.empty() || name.size() > kMostName) return hostile("a name in it is empty or absurdly long");
    if (name.find('\0') != std::string::npos || name.find('\\') != std::string::npos || name[0] == '/')
      return hostile("it holds a file called '" + shown(name) + "'");
    for (std::size_t at = 0; at <= name.size();) {
      const std::size_t end = std::min(name.find('/', at), name.size());
      if (name.compare(at, end - at, "..") == 0)
        return hostile("it holds a file called '" + shown(name) + "', which leaves its folder");
      at = end + 1;
    }
    return {};
  }

  Status read_entry(const std::string& list, std::size_t at, const std::string& extra, Member& m) const {
    const std::uint64_t flags = number(list, at + 8, 2), method = number(list, at + 10, 2);
    m.crc = static_cast<std::uint32_t>(number(list, at + 16, 4));
    m.packed = number(list, at + 20, 4);
    m.size = number(list, at + 24, 4);
    m.header = number(list, at + 42, 4);
    read_long_sizes(extra, m);
    if (flags & 1)
      return fail(ErrorCode::kUnsupported, "'" + path_ + "' is encrypted ('" + shown(m.name) + "').",
                  "Decrypt it first.");
    if (method != 0 && method != 8)
      return fail(ErrorCode::kUnsupported,
                  "'" + path_ + "': '" + shown(m.name) + "' is packed with method " + std::to_string(method) +
                      ", which LibTorch does not know.",
                  "Save the model again.");
    m.deflated = method == 8;
    if (!m.deflated && m.packed != m.size) return bad("'" + shown(m.name) + "' has two different sizes");
    return {};
  }

  static void read_long_sizes(const std::string& extra, Member& m) {
    for (std::size_t at = 0; at + 4 <= extra.size();) {
      const std::uint64_t id = number(extra, at, 2), n = number(extra, at + 2, 2);
      std::size_t field = at + 4;
      const std::size_t end = std::min<std::size_t>(extra.size(), field + n);
      at = field + n;
      if (id != 1) continue;
      for (std::uint64_t* value : {&m.size, &m.packed, &m.header})
        if (*value == 0xffffffff && field + 8 <= end) {
          *value = number(extra, field, 8);
          field += 8;
        }
    }
  }

  // Every member lies in the file, apart from all others, and unpacks to a sane size.
  Status check_places() {
    std::uint64_t unpacked = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
    for (Member& m : out_.members) {
      if (m.deflated &&
          (m.size > kMostRatio * std::max<std::uint64_t>(m.packed, 64) || (unpacked += m.size) > kMostUnpacked))
        return hostile("'" + shown(m.name) + "' is " + amount(m.packed) + " that would become " + amount(m.size));
      if (m.header > list_at_ || kHeaderSize > list_at_ - m.header)
        return bad("'" + shown(m.name) + "' lies beyond its end");
      QUANVAS_TRY(const std::string header, bytes(m.header, kHeaderSize, "contents"));
      if (header.compare(0, 4, "PK\3\4") != 0)
        return bad("'" + shown(m.name) + "' is not where the list of contents says");
      m.begin = m.header + kHeaderSize + number(header, 26, 2) + number(header, 28, 2);
      if (m.begin > list_at_ || m.packed > list_at_ - m.begin)
        return bad("'" + shown(m.name) + "' lies beyond its end");
      QUANVAS_TRY(const std::string name, bytes(m.header + kHeaderSize, number(header, 26, 2), "contents"));
      if (name != m.name)
        return hostile("it calls one file both '" + shown(m.name) + "' and '" + shown(name) + "'");
      places.emplace_back(m.header, m.begin + m.packed);
    }
    std::sort(places.begin(), places.end());
    for (std::size_t i = 1; i < places.size(); ++i)
      if (places[i].first < places[i - 1].second) return hostile("two files in it share bytes");
    return {};
  }

  bool has(const std::string& name) const {
    return std::any_of(out_.members.begin(), out_.members.end(),
                       [&](const Member& m) { return m.name == out_.root + "/" + name; });
  }

  Status classify() {
    if (out_.members.empty()) return other("is an empty archive");
    const std::string& first = out_.members[0].name;
    out_.root = first.substr(0, first.find('/'));
    const bool one_root = std::all_of(out_.members.begin(), out_.members.end(), [&](const Member& m) {
      return m.name.compare(0, out_.root.size() + 1, out_.root + "/") == 0;
    });
    const bool has_code = std::any_of(out_.members.begin(), out_.members.end(), [&](const Member& m) {
      return m.name.compare(0, out_.root.size() + 6, out_.root + "/code/") == 0;
    });
    if (one_root && has("data.pkl") && has_code) return {};
    if (one_root && has("data.pkl"))
      return other(
          "is a checkpoint (state dict or pickled module of torch.save()): weights without the network's code");
    if (one_root && has_code) return bad("it has code, but no 'data.pkl'");
    return other("is a ZIP archive, but no TorchScript file: it has no 'data.pkl' and no 'code/'");
  }

  Result<std::string> text_of(const Member& m) {
    QUANVAS_TRY(std::string packed, bytes(m.begin, m.packed, "contents"));
    if (!m.deflated) return packed;
    std::string out(m.size, '\0');
    z_stream z{};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return fail(ErrorCode::kOutOfMemory, "Not enough memory.");
    z.next_in = reinterpret_cast<Bytef*>(packed.data());
    z.avail_in = static_cast<uInt>(packed.size());
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    const int rc = inflate(&z, Z_FINISH);
    const bool whole = rc == Z_STREAM_END && z.total_out == m.size;
    inflateEnd(&z);
    if (!whole) return bad("'" + shown(m.name) + "' does not unpack to its size");
    return out;
  }

  Status read_contents() {
    for (const Member& m : out_.members) {
      const std::string inner = m.name.substr(out_.root.size() + 1);
      const bool is_tensor = inner.rfind("data/", 0) == 0 || inner.rfind("constants/", 0) == 0;
      if (is_tensor) {
        ++out_.tensors;
        out_.tensor_bytes += m.size;
      }
      if (m.deflated || !is_tensor)
        QUANVAS_CHECK(read_small(m, inner));
      else
        QUANVAS_CHECK(check_sum(m));
    }
    return {};
  }

  Status read_small(const Member& m, const std::string& inner) {
    if (m.size > kMostUnpacked) return check_sum(m);
    QUANVAS_TRY(const std::string text, text_of(m));
    if (crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())) != m.crc)
      return bad("'" + shown(m.name) + "' was changed (its check sum is wrong)");
    if (inner == "version") out_.version = shown(text.substr(0, text.find_first_of("\r\n")));
    if (inner.rfind("code/", 0) != 0 || !ends_with(inner, ".py")) return {};
    if (text.size() > kMostText) return hostile("its code '" + shown(m.name) + "' has " + amount(text.size()));
    out_.code_files.push_back(inner);
    look_at_code(text);
    return {};
  }

  void look_at_code(const std::string& text) {
    out_.code_lines += std::count(text.begin(), text.end(), '\n');
    static const std::regex call(R"(\bops\.([A-Za-z_]\w{0,99})\.(\w{1,100}))"),
        custom(R"(__torch__\.torch\.classes\.(\w{1,99}\.\w{1,99}))");
    for (std::sregex_iterator it(text.begin(), text.end(), call), end; it != end; ++it)
      if ((*it)[1] != "prim" && (*it)[1] != "aten" && (*it)[1] != "quantized") out_.operators.insert((*it)[1].str() + "::" + (*it)[2].str());
    for (std::sregex_iterator it(text.begin(), text.end(), custom), end; it != end; ++it)
      if ((*it)[1].str().rfind("quantized.", 0) != 0) out_.classes.insert((*it)[1]);
  }

  template <class Use>
  Status walk(std::uint64_t at, std::uint64_t n, const Use& use) {
    constexpr std::uint64_t kChunk = 1 << 20;
    for (std::uint64_t done = 0; done < n; done += kChunk) {
      QUANVAS_TRY(const std::string chunk, bytes(at + done, std::min(kChunk, n - done), "contents"));
      use(chunk);
    }
    return {};
  }

  Status check_sum(const Member& m) {
    uLong crc = crc32(0, nullptr, 0);
    QUANVAS_CHECK(walk(m.begin, m.packed, [&](const std::string& chunk) {
      crc = crc32(crc, reinterpret_cast<const Bytef*>(chunk.data()), static_cast<uInt>(chunk.size()));
    }));
    if (crc != m.crc) return bad("'" + shown(m.name) + "' was changed (its check sum is wrong)");
    return {};
  }

  Result<std::string> file_hash() {
    Hasher hasher;
    QUANVAS_CHECK(walk(0, size_, [&](const std::string& chunk) { hasher.bytes(chunk.data(), chunk.size()); }));
    return hasher.hex();
  }
};

std::string listed(const std::set<std::string>& names) {
  std::string out;
  std::size_t n = 0;
  for (const std::string& name : names) {
    if (n++ == 5) return out + " ...";
    out += (out.empty() ? "" : ", ") + name;
  }
  return out;
}

}  // namespace

std::string Archive::content() const {
  std::string out = counted(static_cast<std::int64_t>(code_files.size()), "code file") + " with " +
                    counted(code_lines, "line") + ", " + counted(tensors, "tensor") + " of " + amount(tensor_bytes);
  if (!version.empty()) out += ", archive format " + version;
  if (!operators.empty()) out += ", operators that are not LibTorch's own (" + listed(operators) + ")";
  if (!classes.empty()) out += ", classes of other programs (" + listed(classes) + ")";
  return out;
}

Result<Archive> read_archive(const std::string& path) {
  return Reader(path).read();
}

int probe(const std::string& path, const std::string& head) {
  const bool named = ends_with(path, ".pt") || ends_with(path, ".ts") || ends_with(path, ".jit") ||
                     ends_with(path, ".pth") || ends_with(path, ".ptl");
  const bool zip = head.compare(0, 4, "PK\3\4") == 0;
  if (named) return zip ? 95 : 70;
  return zip && head.find("data.pkl") != std::string::npos ? 60 : 0;
}

}  // namespace quanvas::torchscript
