#include "core/project/project.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/base/clock.h"
#include "core/project/migrations.h"
#include "core/project/project_impl.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kHeaderBytes = 100;
constexpr std::size_t kPageSizeAt = 16;
constexpr std::size_t kApplicationIdAt = 68;
constexpr char kMagic[] = "SQLite format 3";

using sqlite::Database;
using sqlite::OpenMode;

// Told from the first bytes, so that a file of another kind is never opened as a database.
Status check_header(const fs::path& path) {
  std::error_code ec;
  const auto status = fs::status(path, ec);
  if (!fs::exists(status)) return fail(ErrorCode::kNotFound, "There is no project '" + path.string() + "'.");
  if (!fs::is_regular_file(status))
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is no file, so it is no project.");
  std::ifstream in(path, std::ios::binary);
  unsigned char head[kHeaderBytes] = {};
  in.read(reinterpret_cast<char*>(head), kHeaderBytes);
  if (!in && !in.eof()) return fail(ErrorCode::kIo, "Cannot read '" + path.string() + "': " + std::strerror(errno) + ".");
  const auto got = static_cast<std::size_t>(in.gcount());
  if (got < kHeaderBytes || std::memcmp(head, kMagic, sizeof kMagic) != 0)
    return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is no Quanvas project.", "Choose a .quanvas file or a model.");
  std::int64_t id = 0;
  for (std::size_t i = 0; i < 4; ++i) id = id << 8 | head[kApplicationIdAt + i];
  if (id != kApplicationId)
    return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is an SQLite file of another program, no Quanvas project.",
                "Choose a .quanvas file or a model.");
  // SQLite reads a last page that is cut short as if zeros followed. Only a WAL may still hold all of it.
  const std::uint64_t stored = static_cast<std::uint64_t>(head[kPageSizeAt]) << 8 | head[kPageSizeAt + 1];
  const std::uint64_t page = stored == 1 ? 65536 : stored;
  const bool settled = !fs::exists(path.string() + "-wal", ec) || fs::file_size(path.string() + "-wal", ec) == 0;
  if (settled && (page == 0 || fs::file_size(path, ec) % page != 0))
    return fail(ErrorCode::kCorrupt, "The project '" + path.string() + "' is damaged: it is truncated.",
                "Open a backup of it, or start a new project from the model.");
  return {};
}

Status check_version(const Database& db, const std::string& path, bool writable) {
  QUANVAS_TRY(const std::int64_t version, db.integer("PRAGMA user_version"));
  if (version > Project::kSchemaVersion)
    return fail(ErrorCode::kUnsupported,
                "The project '" + path + "' was written by a newer version of Quanvas (file version " +
                    std::to_string(version) + "; this program knows " + std::to_string(Project::kSchemaVersion) + ").",
                "Open it with that version.");
  if (version < 1) return fail(ErrorCode::kCorrupt, "The project '" + path + "' is damaged: it has no file version.");
  if (version < Project::kSchemaVersion && !writable)
    return fail(ErrorCode::kReadOnly, "The project '" + path + "' has an older format and cannot be brought up to date, "
                                          "because it is open for reading only.",
                "Open it once where it can be written.");
  return {};
}

Status check_intact(const Database& db, const std::string& path) {
  QUANVAS_TRY(const std::string verdict, db.text("PRAGMA quick_check(1)"));
  if (verdict == "ok") return {};
  return fail(ErrorCode::kCorrupt, "The project '" + path + "' is damaged.",
              "Open a backup of it, or start a new project from the model.");
}

Result<std::unique_ptr<Database>> open_for_writing(const std::string& path) {
  QUANVAS_TRY(auto db, Database::open(path, OpenMode::kReadWrite, path));
  QUANVAS_CHECK(db->run("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL;"));
  QUANVAS_CHECK(check_version(*db, path, true));
  QUANVAS_CHECK(check_schema(*db, path));
  QUANVAS_CHECK(check_intact(*db, path));
  // Some network file systems have no shared memory; SQLite then keeps its rollback journal, which is as safe.
  QUANVAS_CHECK(db->text("PRAGMA journal_mode = WAL"));
  QUANVAS_CHECK(migrate(*db, Project::kSchemaVersion));
  return db;
}

Result<std::unique_ptr<Database>> open_checked(const std::string& path, OpenMode mode) {
  QUANVAS_TRY(auto db, Database::open(path, mode, path));
  QUANVAS_CHECK(check_version(*db, path, false));
  QUANVAS_CHECK(check_schema(*db, path));
  QUANVAS_CHECK(check_intact(*db, path));
  return db;
}

Result<std::unique_ptr<Database>> open_for_reading(const std::string& path) {
  auto db = open_checked(path, OpenMode::kReadOnly);
  if (db) return db;
  // In a folder that cannot be written SQLite cannot make the files that WAL needs. A file whose writer closed
  // it properly has nothing in a WAL, so it may be read as it lies there.
  std::error_code ec;
  const bool settled = !fs::exists(path + "-wal", ec) || fs::file_size(path + "-wal", ec) == 0;
  const ErrorCode code = db.error().code;
  if (!settled || (code != ErrorCode::kIo && code != ErrorCode::kReadOnly)) return db;
  return open_checked(path, OpenMode::kImmutable);
}

// A file of its own under another name, finished before it gets its name: a project is there whole or not at all.
Status write_new(const fs::path& temporary, const std::string& model) {
  QUANVAS_TRY(const auto db, Database::open(temporary.string(), OpenMode::kCreate, temporary.string()));
  QUANVAS_CHECK(db->run("PRAGMA synchronous = FULL"));
  QUANVAS_CHECK(migrate(*db, Project::kSchemaVersion));
  return store(*db, "settings", kModelSetting, model);
}

template <class T>
Result<T> stored_value(const std::string& text, const std::string& what, const std::string& path) {
  auto value = from_json_text<T>(text, what);
  if (value) return value;
  return fail(ErrorCode::kCorrupt, "The project '" + path + "' holds a " + what + " that cannot be read: " +
                                       value.error().message, value.error().hint);
}

}  // namespace

// -- shared with project_artifacts.cpp

std::string stored_path(const fs::path& target, const fs::path& folder) {
  // The folder may be reached through a link; the file's own name stays, even if it is a link elsewhere.
  std::error_code ec;
  fs::path absolute = fs::absolute(target).lexically_normal();
  if (const fs::path parent = fs::weakly_canonical(absolute.parent_path(), ec); !ec) absolute = parent / absolute.filename();
  const fs::path relative = absolute.lexically_relative(folder);
  return relative.empty() || *relative.begin() == ".." ? absolute.string() : relative.string();
}

fs::path resolved_path(const std::string& stored, const fs::path& folder) {
  const fs::path path(stored);
  return (path.is_absolute() ? path : folder / path).lexically_normal();
}

Status store(const Database& db, const std::string& table, const std::string& key, const std::string& value) {
  QUANVAS_TRY(auto statement, db.prepare("INSERT INTO " + table +
                                         " (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"));
  return statement.bind(key).bind(value).run();
}

Status move_into_place(const fs::path& from, const fs::path& to, bool replace) {
  // link() refuses a name that is taken; file systems without hard links get the rename after a look.
  int rc = replace ? -1 : ::link(from.c_str(), to.c_str());
  std::error_code ec;
  if (!replace && rc != 0 && (errno == EEXIST || fs::exists(to, ec)))
    return fail(ErrorCode::kInvalidArgument, "There is already a file '" + to.string() + "'.", "Choose another name or open it.");
  if (rc == 0) ::unlink(from.c_str());
  if (rc != 0) rc = ::rename(from.c_str(), to.c_str());
  if (rc != 0) return fail(ErrorCode::kIo, "Cannot write '" + to.string() + "': " + std::strerror(errno) + ".");
  if (const int fd = ::open(to.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
  return {};
}

Status Project::Impl::writable() const {
  if (read_only_reason.empty()) return {};
  return fail(ErrorCode::kReadOnly, read_only_reason, "Save a copy of the project to work on.");
}

Result<std::string> Project::Impl::lookup(const std::string& table, const std::string& key) const {
  QUANVAS_TRY(auto statement, db->prepare("SELECT value FROM " + table + " WHERE key = ?"));
  QUANVAS_TRY(const bool row, statement.bind(key).step());
  return row ? statement.text(0) : std::string();
}

Result<bool> Project::Impl::has_artifact(const std::string& key) const {
  QUANVAS_TRY(auto statement, db->prepare("SELECT 1 FROM artifacts WHERE key = ?"));
  return statement.bind(key).step();
}

Status Project::Impl::write_run(const Run& run) const {
  if (!run.artifact.empty()) {
    QUANVAS_TRY(const bool known, has_artifact(run.artifact));
    if (!known)
      return fail(ErrorCode::kInvalidArgument, "The run '" + run.name + "' names the artifact '" + run.artifact +
                                                   "', which this project does not hold.");
  }
  const bool with_artifact = !run.artifact.empty();
  QUANVAS_TRY(auto update, db->prepare(std::string("UPDATE runs SET kind = ?, name = ?, created = ?, body = ?, artifact = ") +
                                              (with_artifact ? "?" : "NULL") + " WHERE id = ?"));
  update.bind(enum_text(run.kind)).bind(run.name).bind(run.created).bind(to_json_text(run));
  if (with_artifact) update.bind(run.artifact);
  QUANVAS_CHECK(update.bind(run.id).run());
  if (db->changes() == 1) return {};
  return fail(ErrorCode::kNotFound, "There is no run " + std::to_string(run.id) + " in this project.");
}

// -- opening

Project::Project() : impl_(std::make_unique<Impl>()) {}
Project::~Project() = default;

Result<std::unique_ptr<Project>> Project::create(const std::string& path, const std::string& model_path) {
  std::error_code ec;
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "A project needs a file name.");
  const fs::path target = fs::weakly_canonical(fs::absolute(path), ec);
  if (fs::exists(target, ec))
    return fail(ErrorCode::kInvalidArgument, "There is already a file '" + target.string() + "'.", "Choose another name or open it.");
  if (!fs::is_directory(target.parent_path(), ec))
    return fail(ErrorCode::kNotFound, "There is no folder '" + target.parent_path().string() + "' for the project.",
                "Make it, or choose another folder.");
  fs::path temporary = target;
  temporary += ".new-" + std::to_string(::getpid());
  fs::remove(temporary, ec);
  Status status = write_new(temporary, stored_path(model_path, target.parent_path()));
  if (status) status = move_into_place(temporary, target, /*replace=*/false);
  if (!status) {
    fs::remove(temporary, ec);
    fs::remove(temporary.string() + "-journal", ec);
    return Failure(status.error());
  }
  return open(target.string());
}

Result<std::unique_ptr<Project>> Project::open(const std::string& path) {
  QUANVAS_CHECK(check_header(path));
  std::error_code ec;
  std::unique_ptr<Project> project(new Project);
  Impl& d = *project->impl_;
  const fs::path canonical = fs::canonical(path, ec);
  d.path = ec ? fs::absolute(path).string() : canonical.string();
  d.directory = fs::path(d.path).parent_path();
  if (::access(d.path.c_str(), W_OK) != 0)
    d.read_only_reason = "The project's file is write-protected, so it is open for reading only.";
  else
    d.lock = WriteLock::take(d.path, d.read_only_reason);
  if (d.lock) {
    auto db = open_for_writing(d.path);
    if (!db && db.error().code == ErrorCode::kIo) {
      // A full disk still lets read what is there.
      if (auto readable = open_for_reading(d.path)) {
        d.read_only_reason = db.error().message + " It is open for reading only.";
        d.lock.reset();
        db = std::move(readable);
      }
    }
    if (!db) return Failure(db.error());
    d.db = std::move(*db);
  } else {
    QUANVAS_TRY(d.db, open_for_reading(d.path));
  }
  return project;
}

const std::string& Project::path() const { return impl_->path; }
std::string Project::directory() const { return impl_->directory.string(); }
bool Project::read_only() const { return !impl_->read_only_reason.empty(); }
std::string Project::read_only_reason() const { return impl_->read_only_reason; }

std::string Project::model_path() const {
  const std::lock_guard guard(impl_->mutex);
  const auto stored = impl_->lookup("settings", kModelSetting);
  return stored ? resolved_path(*stored, impl_->directory).string() : std::string();
}

// -- recipe and its history

Result<Recipe> Project::recipe() const {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_TRY(const std::string text, impl_->db->text("SELECT recipe FROM edits ORDER BY id DESC LIMIT 1"));
  if (text.empty()) return Recipe{};
  return stored_value<Recipe>(text, "recipe", impl_->path);
}

Status Project::set_recipe(const Recipe& recipe, const std::string& label) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  QUANVAS_TRY(auto statement, impl_->db->prepare("INSERT INTO edits (label, time, recipe) VALUES (?, ?, ?)"));
  return statement.bind(label).bind(now_utc()).bind(to_json_text(recipe)).run();
}

Result<std::vector<RecipeEdit>> Project::edits(int most) const {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_TRY(auto statement, impl_->db->prepare("SELECT id, label, time, recipe FROM (SELECT * FROM edits ORDER BY id "
                                                 "DESC LIMIT ?) ORDER BY id"));
  statement.bind(std::int64_t{most < 0 ? 0 : most});
  std::vector<RecipeEdit> out;
  while (true) {
    QUANVAS_TRY(const bool row, statement.step());
    if (!row) return out;
    auto after = stored_value<Recipe>(statement.text(3), "recipe", impl_->path);
    if (after)
      out.push_back({statement.integer(0), statement.text(1), statement.text(2), std::move(*after)});
    else
      out.clear();
  }
}

// -- data and texts

Result<DataSettings> Project::data() const {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_TRY(const std::string text, impl_->lookup("settings", kDataSetting));
  if (text.empty()) return DataSettings{};
  return stored_value<DataSettings>(text, "data set declaration", impl_->path);
}

Status Project::set_data(const DataSettings& data) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  return store(*impl_->db, "settings", kDataSetting, to_json_text(data));
}

Result<std::string> Project::value(const std::string& key) const {
  const std::lock_guard guard(impl_->mutex);
  return impl_->lookup("texts", key);
}

Status Project::set_value(const std::string& key, const std::string& text) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  return store(*impl_->db, "texts", key, text);
}

// -- runs

Result<std::int64_t> Project::add_run(const Run& run) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  const auto& db = *impl_->db;
  Run stored = run;
  if (stored.created.empty()) stored.created = now_utc();
  QUANVAS_CHECK(db.transaction([&]() -> Status {
    QUANVAS_TRY(auto insert, db.prepare("INSERT INTO runs (kind, name, created, body) VALUES (?, ?, ?, '')"));
    QUANVAS_CHECK(insert.bind(enum_text(stored.kind)).bind(stored.name).bind(stored.created).run());
    stored.id = db.last_id();
    return impl_->write_run(stored);
  }));
  return stored.id;
}

Status Project::update_run(const Run& run) {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_CHECK(impl_->writable());
  return impl_->db->transaction([&] { return impl_->write_run(run); });
}

Result<std::vector<Run>> Project::runs(std::vector<Issue>* unreadable) const {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_TRY(auto statement, impl_->db->prepare("SELECT body, id, name FROM runs ORDER BY id"));
  std::vector<Run> out;
  while (true) {
    QUANVAS_TRY(const bool row, statement.step());
    if (!row) return out;
    auto run = from_json_text<Run>(statement.text(0), "run");
    if (run)
      out.push_back(std::move(*run));
    else if (unreadable)
      unreadable->push_back({Severity::kError, impl_->path,
                             "Run " + std::to_string(statement.integer(1)) + " (" + statement.text(2) +
                                 ") cannot be read and is left out: " + run.error().message,
                             "The other runs are not affected. Run its recipe again if you need it."});
  }
}

Result<Run> Project::run(std::int64_t id) const {
  const std::lock_guard guard(impl_->mutex);
  QUANVAS_TRY(auto statement, impl_->db->prepare("SELECT body FROM runs WHERE id = ?"));
  QUANVAS_TRY(const bool row, statement.bind(id).step());
  if (!row) return fail(ErrorCode::kNotFound, "There is no run " + std::to_string(id) + " in this project.");
  return stored_value<Run>(statement.text(0), "run", impl_->path);
}

}  // namespace quanvas
