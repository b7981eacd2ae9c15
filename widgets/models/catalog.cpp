#include "widgets/models/catalog.h"

#include <algorithm>

namespace quanvas {

std::vector<PluginEntry> plugin_entries(const json& catalog, const char* kind) {
  std::vector<PluginEntry> out;
  if (!catalog.is_object() || !catalog.contains(kind) || !catalog[kind].is_array()) return out;
  const auto text = [](const json& j, const char* key) {
    return j.contains(key) && j[key].is_string() ? j[key].get<std::string>() : std::string();
  };
  for (const auto& j : catalog[kind]) {
    if (!j.is_object() || text(j, "id").empty()) continue;
    PluginEntry e{text(j, "id"), text(j, "title"), text(j, "doc"), {}, j};
    if (j.contains("schema")) {
      auto schema = from_json_value<Schema>(j["schema"], e.id);
      if (!schema) continue;
      e.schema = std::move(*schema);
    }
    if (e.title.empty()) e.title = e.id;
    out.push_back(std::move(e));
  }
  return out;
}

const PluginEntry* find_entry(const std::vector<PluginEntry>& entries, const std::string& id) {
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.id == id; });
  return it == entries.end() ? nullptr : &*it;
}

QString entry_title(const std::vector<PluginEntry>& entries, const std::string& id) {
  const auto* e = find_entry(entries, id);
  return QString::fromStdString(e ? e->title : id);
}

}  // namespace quanvas
