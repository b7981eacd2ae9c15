#include "app/cli/presets.h"

#include "app/cli/print.h"
#include "core/recipe/preset_names.h"

namespace quanvas::cli {
namespace {

std::string sites_text(const Preset& preset) {
  std::string out;
  for (const SiteKind kind : preset.sites) out += (out.empty() ? "" : ", ") + std::string(enum_text(kind));
  return out.empty() ? "-" : out;
}

}  // namespace

Status presets(const Options& options) {
  const PresetLibrary& library = PresetLibrary::builtin();
  std::vector<Preset> found;
  for (const Preset& p : library.all())
    if (preset_contains(p, options.filter)) found.push_back(p);
  if (found.empty())
    return fail(ErrorCode::kNotFound, "No preset contains '" + options.filter + "'.",
                preset_hint(options.filter, library));
  if (options.json) {
    print_json(to_json_value(found));
    return {};
  }
  Table table({{"id"}, {"for"}, {"code (bit)", Table::Align::kRight}, {"what it is"}});
  for (const Preset& p : found)
    table.row({p.id, sites_text(p), std::to_string(code_bits(p.spec)), describe(p.spec)});
  const std::string all = thousands(static_cast<double>(library.all().size()));
  print(table.text() + "\n" + thousands(static_cast<double>(found.size())) + " of " + all + " presets\n");
  return {};
}

}  // namespace quanvas::cli
