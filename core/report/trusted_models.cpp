#include "core/report/trusted_models.h"

#include <algorithm>
#include <filesystem>

#include "core/base/clock.h"
#include "core/base/files.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMostBytes = 1 << 20;
constexpr std::size_t kLeastCharacters = 8;

fs::path trust_file() { return user_data_dir() / "trusted-models"; }

// A name from a file system may hold anything; a line is one model.
std::string one_line(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20; }, '?');
  return text;
}

bool is_hash(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c); });
}

TrustedModel parse_line(const std::string& line) {
  TrustedModel out;
  const std::size_t first = line.find('\t');
  out.hash = line.substr(0, first);
  if (first == std::string::npos) return out;  // written before places were kept
  const std::size_t second = line.find('\t', first + 1);
  out.since = line.substr(first + 1, second == std::string::npos ? second : second - first - 1);
  if (second != std::string::npos) out.path = line.substr(second + 1);
  return out;
}

Status write(const std::vector<TrustedModel>& models) {
  std::string text;
  for (const auto& m : models) {
    text += m.hash;
    if (!m.since.empty() || !m.path.empty()) text += "\t" + m.since + "\t" + m.path;
    text += "\n";
  }
  return write_file_atomically(trust_file(), text);
}

std::string absolute(const std::string& path) {
  std::error_code ec;
  const fs::path full = fs::absolute(path, ec);
  return ec ? path : full.lexically_normal().string();
}

}  // namespace

std::vector<TrustedModel> trusted_models() {
  std::vector<TrustedModel> out;
  std::error_code ec;
  if (!fs::exists(trust_file(), ec)) return out;
  const auto text = read_file(trust_file(), kMostBytes);
  if (!text) return out;
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    TrustedModel model = parse_line(text->substr(begin, end - begin));
    if (is_hash(model.hash)) out.push_back(std::move(model));
    begin = end + 1;
  }
  return out;
}

std::string trusted_hashes() {
  std::string out;
  for (const auto& m : trusted_models()) out += (out.empty() ? "" : " ") + m.hash;
  return out;
}

void remember_trust(const std::string& hash, const std::string& path) {
  if (!is_hash(hash)) return;
  auto models = trusted_models();
  if (std::any_of(models.begin(), models.end(), [&](const TrustedModel& m) { return m.hash == hash; })) return;
  std::error_code ec;
  if (fs::exists(trust_file(), ec) && !read_file(trust_file(), kMostBytes)) return;  // not to be replaced by one entry
  models.push_back({hash, now_utc(), one_line(absolute(path))});
  (void)write(models);
}

Result<std::vector<TrustedModel>> revoke_trust(const std::string& which) {
  auto models = trusted_models();
  const bool part = which.size() >= kLeastCharacters && is_hash(which);
  const std::string path = one_line(absolute(which));
  const auto is_meant = [&](const TrustedModel& m) { return (part && m.hash.starts_with(which)) || (!m.path.empty() && m.path == path); };
  std::vector<TrustedModel> taken;
  std::copy_if(models.begin(), models.end(), std::back_inserter(taken), is_meant);
  if (taken.empty())
    return fail(ErrorCode::kNotFound, "'" + which + "' is not among the files whose code is trusted.",
                "'quanvas-cli trust' lists them; give a path or the beginning of a hash as it stands there.");
  if (taken.size() > 1 && std::none_of(taken.begin(), taken.end(), [&](const TrustedModel& m) { return m.path == path; }))
    return fail(ErrorCode::kInvalidArgument, "'" + which + "' is the beginning of several hashes.", "Give more of it.");
  std::erase_if(models, is_meant);
  QUANVAS_CHECK(write(models));
  return taken;
}

Status revoke_all_trust() { return write({}); }

}  // namespace quanvas
