// Quanvas - the engine's catalog (JSON: plug-ins with their schemas) as values for forms and menus.
#pragma once

#include <string>
#include <vector>

#include <QString>

#include "core/base/schema.h"

namespace quanvas {

struct PluginEntry {
  std::string id, title, doc;
  Schema schema;
  json more;  // the whole entry: what kinds add ("stage", "extension" ...)
};

// kind: "passes", "exporters", "datasets", "importers", "formats". Entries that cannot be read are left out.
std::vector<PluginEntry> plugin_entries(const json& catalog, const char* kind);
const PluginEntry* find_entry(const std::vector<PluginEntry>& entries, const std::string& id);
QString entry_title(const std::vector<PluginEntry>& entries, const std::string& id);  // the id when unknown

}  // namespace quanvas
