// Quanvas - what Project holds. Private to core/project.
#pragma once

#include <filesystem>
#include <mutex>

#include "core/project/lock.h"
#include "core/project/project.h"
#include "core/project/sqlite.h"

namespace quanvas {

// Keys of the table `settings`.
inline constexpr const char* kModelSetting = "model";
inline constexpr const char* kDataSetting = "data";

struct Project::Impl {
  std::string path;                 // canonical
  std::filesystem::path directory;
  std::string read_only_reason;     // empty: writable
  std::unique_ptr<WriteLock> lock;  // before db: let go after the database is closed
  std::unique_ptr<sqlite::Database> db;
  mutable std::mutex mutex;

  // With the mutex held.
  Status writable() const;
  Result<std::string> lookup(const std::string& table, const std::string& key) const;
  Result<bool> has_artifact(const std::string& key) const;
  Status write_run(const Run& run) const;  // of an existing row, inside a transaction
  std::filesystem::path artifact_folder() const { return path + ".data"; }
};

// `target` as it is stored in a project in `folder`: relative when it lies below, else absolute.
std::string stored_path(const std::filesystem::path& target, const std::filesystem::path& folder);
std::filesystem::path resolved_path(const std::string& stored, const std::filesystem::path& folder);
Status store(const sqlite::Database& db, const std::string& table, const std::string& key, const std::string& value);
// Gives a finished file its name; kInvalidArgument when the name is taken and `replace` is false.
Status move_into_place(const std::filesystem::path& from, const std::filesystem::path& to, bool replace);

}  // namespace quanvas
