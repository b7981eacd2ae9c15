#include "core/project/sqlite.h"

#include <sqlite3.h>

#include <algorithm>

namespace quanvas::sqlite {
namespace {

constexpr int kBusyMilliseconds = 5000;

// '?', '#' and '%' mean something in a URI.
std::string uri_of(const std::string& path) {
  std::string out = "file:";
  for (const char c : path) {
    if (c == '?') out += "%3f";
    else if (c == '#') out += "%23";
    else if (c == '%') out += "%25";
    else out += c;
  }
  return out + "?immutable=1";
}

int flags_of(OpenMode mode) {
  switch (mode) {
    case OpenMode::kCreate: return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    case OpenMode::kReadWrite: return SQLITE_OPEN_READWRITE;
    case OpenMode::kReadOnly: return SQLITE_OPEN_READONLY;
    case OpenMode::kImmutable: return SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
  }
  return SQLITE_OPEN_READONLY;
}

struct Known {
  int code;
  ErrorCode kind;
  const char* what;
  const char* hint;
};
constexpr Known kKnown[] = {
    {SQLITE_CORRUPT, ErrorCode::kCorrupt, "is damaged", "Open a backup of it, or start a new project from the model."},
    {SQLITE_NOTADB, ErrorCode::kCorrupt, "is no project file, or it is damaged", "Choose a .quanvas file."},
    {SQLITE_FULL, ErrorCode::kIo, "cannot be written: the disk is full", "Free some space and try again."},
    {SQLITE_IOERR, ErrorCode::kIo, "cannot be read or written", "Check the disk and its free space."},
    {SQLITE_READONLY, ErrorCode::kReadOnly, "is write-protected", "Save a copy of the project elsewhere."},
    {SQLITE_CANTOPEN, ErrorCode::kIo, "cannot be opened", "Check that its folder exists and that you may write to it."},
    {SQLITE_PERM, ErrorCode::kIo, "may not be read", "Check its permissions."},
    {SQLITE_BUSY, ErrorCode::kIo, "is in use by another program", "Try again, or close the other program."},
    {SQLITE_NOMEM, ErrorCode::kOutOfMemory, "needs more memory than there is", ""}};

}  // namespace

Statement::~Statement() { sqlite3_finalize(stmt_); }

Statement& Statement::bind(const std::string& text) {
  sqlite3_bind_text64(stmt_, next_++, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}
Statement& Statement::bind(std::int64_t value) {
  sqlite3_bind_int64(stmt_, next_++, value);
  return *this;
}

Result<bool> Statement::step() {
  const int rc = sqlite3_step(stmt_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return db_->failure(rc);
}

Status Statement::run() {
  while (true) {
    QUANVAS_TRY(const bool more, step());
    if (!more) return {};
  }
}

std::string Statement::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(stmt_, column));
  return data ? std::string(data, static_cast<std::size_t>(sqlite3_column_bytes(stmt_, column))) : std::string();
}
std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(stmt_, column); }

Result<std::unique_ptr<Database>> Database::open(const std::string& path, OpenMode mode, const std::string& name) {
  std::unique_ptr<Database> db(new Database);
  db->name_ = name;
  const std::string target = mode == OpenMode::kImmutable ? uri_of(path) : path;
  const int rc = sqlite3_open_v2(target.c_str(), &db->db_, flags_of(mode) | SQLITE_OPEN_NOMUTEX, nullptr);
  if (rc != SQLITE_OK) return db->failure(rc);
  sqlite3_extended_result_codes(db->db_, 1);
  sqlite3_busy_timeout(db->db_, kBusyMilliseconds);
  // A project comes from anywhere: its schema may not run functions or change SQLite's own tables.
  sqlite3_db_config(db->db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db->db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return db;
}

Database::~Database() { sqlite3_close_v2(db_); }

Result<Statement> Database::prepare(const std::string& sql) const {
  sqlite3_stmt* stmt = nullptr;
  const int rc = sqlite3_prepare_v2(db_, sql.c_str(), static_cast<int>(sql.size()), &stmt, nullptr);
  if (rc != SQLITE_OK) return failure(rc);
  return Statement(stmt, *this);
}

Status Database::run(const std::string& sql) const {
  const int rc = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return failure(rc);
  return {};
}

Result<std::int64_t> Database::integer(const std::string& sql) const {
  QUANVAS_TRY(Statement statement, prepare(sql));
  QUANVAS_TRY(const bool row, statement.step());
  return row ? statement.integer(0) : 0;
}

Result<std::string> Database::text(const std::string& sql) const {
  QUANVAS_TRY(Statement statement, prepare(sql));
  QUANVAS_TRY(const bool row, statement.step());
  return row ? statement.text(0) : std::string();
}

std::int64_t Database::last_id() const { return sqlite3_last_insert_rowid(db_); }
int Database::changes() const { return sqlite3_changes(db_); }

Status Database::transaction(const std::function<Status()>& body) const {
  QUANVAS_CHECK(run("BEGIN IMMEDIATE"));
  Status status = body();
  if (status) status = run("COMMIT");
  // After some errors SQLite has rolled back by itself; then there is nothing left to undo.
  if (!status && !sqlite3_get_autocommit(db_)) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  return status;
}

Status Database::copy_to(const std::string& path) const {
  QUANVAS_TRY(const auto target, open(path, OpenMode::kCreate, path));
  sqlite3_backup* backup = sqlite3_backup_init(target->db_, "main", db_, "main");
  if (!backup) return target->failure(sqlite3_errcode(target->db_));
  const int rc = sqlite3_backup_step(backup, -1);
  const int end = sqlite3_backup_finish(backup);
  if (rc != SQLITE_DONE) return target->failure(rc);
  return end == SQLITE_OK ? Status() : Status(target->failure(end));
}

Failure Database::failure(int code) const {
  std::string said = db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
  std::replace(said.begin(), said.end(), '\n', ' ');
  for (const Known& known : kKnown)
    if (known.code == (code & 0xff))
      return fail(known.kind, "The project '" + name_ + "' " + known.what + " (SQLite: " + said + ").", known.hint);
  return fail(ErrorCode::kInternal, "The project '" + name_ + "' cannot be used: SQLite said '" + said + "'.");
}

}  // namespace quanvas::sqlite
