// Quanvas - the schema of the project file, as numbered steps that are never changed once released.
// Private to core/project.
#pragma once

#include <cstdint>

#include "core/project/sqlite.h"

namespace quanvas {

// "QNVS": tells project files from other SQLite files (PRAGMA application_id).
inline constexpr std::int64_t kApplicationId = 0x514e5653;

// Brings the file from its user_version to Project::kSchemaVersion, one transaction per step.
Status migrate(const sqlite::Database& db);

}  // namespace quanvas
