// Quanvas - the schema of the project file, as numbered steps that are never changed once released.
// Private to core/project.
#pragma once

#include <cstdint>
#include <string>

#include "core/project/sqlite.h"

namespace quanvas {

// "QNVS": tells project files from other SQLite files (PRAGMA application_id).
inline constexpr std::int64_t kApplicationId = 0x514e5653;

// Brings the file from its user_version to `version`, one transaction per step.
Status migrate(const sqlite::Database& db, std::int64_t version);

// Refuses a file whose schema is not, text by text, that of its user_version: views, triggers, generated columns and checks
// of a project from strangers would compute whatever they like. ANALYZE's tables are let be.
Status check_schema(const sqlite::Database& db, const std::string& path);

}  // namespace quanvas
