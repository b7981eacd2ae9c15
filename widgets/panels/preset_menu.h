// Quanvas - presets in menus and combo boxes: those that fit a kind of site, under a heading per bit width.
#pragma once

#include <functional>
#include <vector>

#include <QMenu>

#include "core/recipe/recipe.h"

class QComboBox;

namespace quanvas {

struct PresetGroup {
  QString title;  // "4 bit"
  std::vector<const Preset*> presets;
};
// More bits first. Pointers live as long as the library.
std::vector<PresetGroup> preset_groups(const PresetLibrary& library, SiteKind kind);

// One submenu per group; `chosen` gets the preset.
void fill_preset_menu(QMenu* menu, const PresetLibrary& library, SiteKind kind,
                      const std::function<void(const Preset&)>& chosen);
// Headings are disabled items; the item's data is the preset's id.
void fill_preset_combo(QComboBox* combo, const PresetLibrary& library, SiteKind kind);

}  // namespace quanvas
