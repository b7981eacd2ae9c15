// Quanvas - dialogs that only tell: about the program, and the sheet of shortcuts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <QAction>
#include <QWidget>

namespace quanvas {

// versions: of the engine and what it links; may be empty while it starts. The dialogs delete themselves.
void show_about(QWidget* parent, const std::map<std::string, std::string>& versions);
void show_shortcuts(QWidget* parent, const std::vector<QAction*>& actions);

}  // namespace quanvas
