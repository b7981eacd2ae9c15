#include "widgets/panels/preset_menu.h"

#include <algorithm>
#include <map>
#include <utility>

#include <QComboBox>
#include <QStandardItemModel>

#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/models/recipe_edits.h"

namespace quanvas {

std::vector<PresetGroup> preset_groups(const PresetLibrary& library, SiteKind kind) {
  // Our own by width, widest first; then those that go by the names of other tools.
  std::map<std::pair<std::string, int>, PresetGroup> groups;
  for (const auto& p : library.all()) {
    if (!fits(p, kind)) continue;
    const int bits = code_bits(p.spec);
    const bool own = !named_after_other_tool(p);
    auto& group = groups[own ? std::pair(std::string(), -bits) : std::pair(p.group, 0)];
    group.title = own ? bits_text(bits) : QString::fromStdString(p.group);
    group.presets.push_back(&p);
  }
  std::vector<PresetGroup> out;
  for (auto& [key, group] : groups) out.push_back(std::move(group));
  return out;
}

void fill_preset_menu(QMenu* menu, const PresetLibrary& library, SiteKind kind,
                      const std::function<void(const Preset&)>& chosen) {
  menu->setToolTipsVisible(true);
  for (const auto& group : preset_groups(library, kind)) {
    auto* sub = menu->addMenu(group.title);
    sub->setToolTipsVisible(true);
    for (const Preset* p : group.presets) {
      auto* action = sub->addAction(QString::fromStdString(p->title));
      action->setToolTip(QString::fromStdString(p->doc));
      QObject::connect(action, &QAction::triggered, menu, [preset = *p, chosen] { chosen(preset); });
    }
  }
}

void fill_preset_combo(QComboBox* combo, const PresetLibrary& library, SiteKind kind) {
  auto* model = new QStandardItemModel(combo);
  for (const auto& group : preset_groups(library, kind)) {
    auto* heading = new QStandardItem(group.title);
    heading->setFlags(Qt::NoItemFlags);
    heading->setFont(text_font(11, QFont::DemiBold));
    model->appendRow(heading);
    for (const Preset* p : group.presets) {
      auto* item = new QStandardItem(QString::fromStdString(p->title));
      item->setData(QString::fromStdString(p->id), Qt::UserRole);
      item->setToolTip(QString::fromStdString(p->doc));
      model->appendRow(item);
    }
  }
  combo->setModel(model);  // deletes the model before it
}

}  // namespace quanvas
