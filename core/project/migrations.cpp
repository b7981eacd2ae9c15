#include "core/project/migrations.h"

#include <iterator>
#include <string>

#include "core/project/project.h"

namespace quanvas {
namespace {

// Step i leads to user_version i + 1.
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

}  // namespace

Status migrate(const sqlite::Database& db) {
  QUANVAS_TRY(const std::int64_t version, db.integer("PRAGMA user_version"));
  for (auto step = static_cast<std::size_t>(version); step < std::size(kSteps); ++step)
    QUANVAS_CHECK(db.transaction([&]() -> Status {
      QUANVAS_CHECK(db.run(kSteps[step]));
      QUANVAS_CHECK(db.run("PRAGMA application_id = " + std::to_string(kApplicationId)));
      return db.run("PRAGMA user_version = " + std::to_string(step + 1));
    }));
  return {};
}

}  // namespace quanvas
