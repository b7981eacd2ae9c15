#include "core/project/migrations.h"

#include <iterator>
#include <map>
#include <string>

#include "core/project/project.h"

namespace quanvas {
namespace {

// Step i leads to user_version i + 1. SQLite keeps these texts as they stand here, and check_schema() compares them.
constexpr const char* kSteps[] = {
    R"(CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
       CREATE TABLE texts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
       CREATE TABLE edits (id INTEGER PRIMARY KEY AUTOINCREMENT, label TEXT NOT NULL, time TEXT NOT NULL,
                           recipe TEXT NOT NULL);
       CREATE TABLE artifacts (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
       CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL,
                          created TEXT NOT NULL, artifact TEXT REFERENCES artifacts (key), body TEXT NOT NULL);)",
};
static_assert(std::size(kSteps) == Project::kSchemaVersion);

using Texts = std::map<std::string, std::string>;  // of tables and the like, by name

Result<Texts> schema_of(const sqlite::Database& db) {
  QUANVAS_TRY(auto statement, db.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"));
  Texts out;
  while (true) {
    QUANVAS_TRY(const bool row, statement.step());
    if (!row) return out;
    out[statement.text(0)] += statement.text(1);
  }
}

bool is_of_analyze(const std::string& text) {
  return text == "CREATE TABLE sqlite_stat1(tbl,idx,stat)" ||
         text == "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)";
}

}  // namespace

Status check_schema(const sqlite::Database& db, const std::string& path) {
  QUANVAS_TRY(const std::int64_t version, db.integer("PRAGMA user_version"));
  QUANVAS_TRY(const auto ours, sqlite::Database::open(":memory:", sqlite::OpenMode::kCreate, path));
  QUANVAS_CHECK(migrate(*ours, version));
  QUANVAS_TRY(const Texts expected, schema_of(*ours));
  QUANVAS_TRY(const Texts found, schema_of(db));
  for (const auto& [name, text] : found) {
    const auto known = expected.find(name);
    if (is_of_analyze(text) || (known != expected.end() && known->second == text)) continue;
    return fail(ErrorCode::kCorrupt, "The project '" + path + "' holds '" + name + "', that Quanvas has not made.",
                "Start a new project from the model.");
  }
  for (const auto& [name, text] : expected)
    if (!found.count(name)) return fail(ErrorCode::kCorrupt, "The project '" + path + "' is damaged: tables are missing.");
  return {};
}

Status migrate(const sqlite::Database& db, std::int64_t target) {
  QUANVAS_TRY(const std::int64_t version, db.integer("PRAGMA user_version"));
  for (auto step = static_cast<std::size_t>(version); step < static_cast<std::size_t>(target); ++step)
    QUANVAS_CHECK(db.transaction([&]() -> Status {
      QUANVAS_CHECK(db.run(kSteps[step]));
      QUANVAS_CHECK(db.run("PRAGMA application_id = " + std::to_string(kApplicationId)));
      return db.run("PRAGMA user_version = " + std::to_string(step + 1));
    }));
  return {};
}

}  // namespace quanvas
