// Quanvas - a thin cover of SQLite: handles that close themselves, errors as values that name the file.
// Not thread-safe; Project holds the lock. Private to core/project.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace quanvas::sqlite {

class Database;

class Statement {
 public:
  Statement(sqlite3_stmt* stmt, const Database& db) : stmt_(stmt), db_(&db) {}
  ~Statement();
  Statement(Statement&& other) noexcept : stmt_(other.stmt_), db_(other.db_), next_(other.next_) { other.stmt_ = nullptr; }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Parameters in order of their ?.
  Statement& bind(const std::string& text);
  Statement& bind(std::int64_t value);
  // True while there is a row.
  Result<bool> step();
  Status run();  // to the end

  std::string text(int column) const;
  std::int64_t integer(int column) const;

 private:
  sqlite3_stmt* stmt_;
  const Database* db_;
  int next_ = 1;
};

enum class OpenMode { kCreate, kReadWrite, kReadOnly, kImmutable };

class Database {
 public:
  // `name` is the path that messages show.
  static Result<std::unique_ptr<Database>> open(const std::string& path, OpenMode mode, const std::string& name);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  Result<Statement> prepare(const std::string& sql) const;
  Status run(const std::string& sql) const;  // one or several statements, results dropped
  Result<std::int64_t> integer(const std::string& sql) const;
  Result<std::string> text(const std::string& sql) const;
  std::int64_t last_id() const;
  int changes() const;

  // BEGIN IMMEDIATE, body, COMMIT; ROLLBACK when the body or the commit fails.
  Status transaction(const std::function<Status()>& body) const;
  // All pages to a new file, as of now, while others may write.
  Status copy_to(const std::string& path) const;

  // What SQLite said last, as a sentence for people.
  Failure failure(int code) const;

 private:
  Database() = default;
  sqlite3* db_ = nullptr;
  std::string name_;
};

}  // namespace quanvas::sqlite
