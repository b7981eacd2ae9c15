// Artifacts (large bytes beside the project file, named by their content) and copies of projects.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "core/base/files.h"
#include "core/base/hash.h"
#include "core/project/project_impl.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

using sqlite::Database;
using sqlite::OpenMode;

bool is_key(const std::string& key) {
  return key.size() == 32 && key.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Whether the file is there and whole. One that was damaged is written anew.
bool holds(const fs::path& file, const std::string& key) {
  std::error_code ec;
  if (!fs::is_regular_file(file, ec)) return false;
  const auto bytes = read_file(file);
  return bytes && hash_text(*bytes) == key;
}

void sync_folder(const fs::path& folder) {
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

Status make_folder(const fs::path& folder) {
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return fail(ErrorCode::kIo, "Cannot make the folder '" + folder.string() + "': " + ec.message() + ".");
  return {};
}

// Any option that names something that exists beside the project is a path.
void move_paths(json& options, const fs::path& from, const fs::path& to) {
  if (!options.is_object()) return;
  for (auto& [key, value] : options.items()) {
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) continue;
    const fs::path target = resolved_path(value, from);
    std::error_code ec;
    if (fs::exists(target, ec)) value = stored_path(target, to);
  }
}

Result<std::vector<std::string>> artifact_keys(const Database& db) {
  QUANVAS_TRY(auto statement, db.prepare("SELECT key FROM artifacts ORDER BY key"));
  std::vector<std::string> keys;
  while (true) {
    QUANVAS_TRY(const bool row, statement.step());
    if (!row) return keys;
    keys.push_back(statement.text(0));
  }
}

Status copy_artifacts(const Database& db, const fs::path& from, const fs::path& to) {
  QUANVAS_TRY(const auto keys, artifact_keys(db));
  if (keys.empty()) return {};
  QUANVAS_CHECK(make_folder(to));
  for (const std::string& key : keys) {
    if (!is_key(key) || holds(to / key, key)) continue;
    QUANVAS_TRY(const std::string bytes, read_file(from / key));
    QUANVAS_CHECK(write_file_atomically(to / key, bytes));
  }
  sync_folder(to);
  return {};
}

// A name may be reused when a project that nobody has open stands there.
Status check_target(const fs::path& target, const fs::path& source, std::unique_ptr<WriteLock>& lock) {
  std::error_code ec;
  if (!fs::is_directory(target.parent_path(), ec))
    return fail(ErrorCode::kNotFound, "There is no folder '" + target.parent_path().string() + "' for the copy.",
                "Make it, or choose another folder.");
  if (fs::equivalent(target, source, ec))
    return fail(ErrorCode::kInvalidArgument, "The copy would replace the project itself.", "Choose another name.");
  if (!fs::exists(target, ec)) return {};
  {
    auto there = Project::open(target.string());
    if (!there)
      return fail(ErrorCode::kInvalidArgument, "'" + target.string() + "' exists and is no Quanvas project.", "Choose another name.");
    if ((*there)->read_only())
      return fail(ErrorCode::kReadOnly, "The project '" + target.string() + "' cannot be replaced. " + (*there)->read_only_reason());
  }
  std::string reason;
  lock = WriteLock::take(target.string(), reason);
  if (!lock) return fail(ErrorCode::kReadOnly, "The project '" + target.string() + "' cannot be replaced. " + reason);
  // Left over from a writer that was killed, it would be taken for the new file's.
  fs::remove(target.string() + "-wal", ec);
  fs::remove(target.string() + "-shm", ec);
  return {};
}

}  // namespace

Result<std::string> Project::put_artifact(const std::string& bytes) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  const std::string key = hash_text(bytes);
  const fs::path folder = impl_->artifact_folder();
  QUANVAS_CHECK(make_folder(folder));
  if (!holds(folder / key, key)) QUANVAS_CHECK(write_file_atomically(folder / key, bytes));
  // The name must be on the disk before the database speaks of it.
  sync_folder(folder);
  sync_folder(impl_->directory);
  QUANVAS_TRY(auto statement, impl_->db->prepare("INSERT OR IGNORE INTO artifacts (key, bytes) VALUES (?, ?)"));
  QUANVAS_CHECK(statement.bind(key).bind(static_cast<std::int64_t>(bytes.size())).run());
  return key;
}

Result<std::string> Project::artifact(const std::string& key) const {
  const std::lock_guard guard(impl_->mutex);
  const fs::path file = impl_->artifact_folder() / key;
  std::error_code ec;
  if (!is_key(key) || !fs::exists(file, ec))
    return fail(ErrorCode::kNotFound, "The artifact '" + key + "' is missing beside the project '" + impl_->path + "'.",
                "Keep the folder '" + impl_->artifact_folder().filename().string() + "' beside the project file.");
  QUANVAS_TRY(std::string bytes, read_file(file));
  if (hash_text(bytes) != key)
    return fail(ErrorCode::kCorrupt, "The artifact '" + file.string() + "' is damaged: its content does not fit its name.",
                "Run the recipe again.");
  return bytes;
}

Status Project::remove_artifact(const std::string& key) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  if (!is_key(key)) return fail(ErrorCode::kInvalidArgument, "'" + key + "' is no artifact.");
  QUANVAS_TRY(auto used, impl_->db->prepare("SELECT 1 FROM runs WHERE artifact = ?"));
  QUANVAS_TRY(const bool is_used, used.bind(key).step());
  if (is_used) return fail(ErrorCode::kInvalidArgument, "The artifact '" + key + "' is the network of a run.");
  // The database first: a file that it does not know is only lost space.
  QUANVAS_TRY(auto statement, impl_->db->prepare("DELETE FROM artifacts WHERE key = ?"));
  QUANVAS_CHECK(statement.bind(key).run());
  std::error_code ec;
  fs::remove(impl_->artifact_folder() / key, ec);
  return {};
}

Status Project::save_copy(const std::string& path) const {
  std::error_code ec;
  const fs::path target = fs::weakly_canonical(fs::absolute(path), ec);
  std::unique_ptr<WriteLock> target_lock;
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "The copy needs a file name.");
  QUANVAS_CHECK(check_target(target, impl_->path, target_lock));
  QUANVAS_TRY(DataSettings settings, data());
  const fs::path folder = target.parent_path();
  for (DataSource* source : {&settings.calibrate, &settings.train, &settings.evaluate})
    move_paths(source->options, impl_->directory, folder);
  const std::string model = stored_path(model_path(), folder);

  const std::lock_guard guard(impl_->mutex);
  fs::path temporary = target;
  temporary += ".new-" + std::to_string(::getpid());
  const auto write = [&]() -> Status {
    QUANVAS_CHECK(impl_->db->copy_to(temporary.string()));
    QUANVAS_TRY(const auto copy, Database::open(temporary.string(), OpenMode::kReadWrite, target.string()));
    QUANVAS_CHECK(copy->run("PRAGMA synchronous = FULL; PRAGMA journal_mode = DELETE;"));
    QUANVAS_CHECK(store(*copy, "settings", kModelSetting, model));
    QUANVAS_CHECK(store(*copy, "settings", kDataSetting, to_json_text(settings)));
    return copy_artifacts(*copy, impl_->artifact_folder(), target.string() + ".data");
  };
  fs::remove(temporary, ec);
  Status status = write();
  if (status) status = move_into_place(temporary, target, target_lock != nullptr);
  for (const char* suffix : {"", "-wal", "-shm", "-journal"})
    if (!status) fs::remove(temporary.string() + suffix, ec);
  return status;
}

}  // namespace quanvas
