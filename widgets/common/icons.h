// Quanvas - line icons. Drawn for a 20 px grid with a 1.5 px stroke; they take the theme's colour when they
// are painted, so they follow a change of theme and stay sharp at any scale. GUI thread only.
#pragma once

#include <QIcon>
#include <QPixmap>
#include <QString>
#include <QStringList>

namespace quanvas {

enum class IconRole { kText, kMuted, kAccent, kOnAccent, kWarning, kGood, kError };

// `name` is a file of resources/icons without ".svg": "open", "undo", "redo", "run", "calibrate", "train",
// "sweep", "stop", "export", "zoom-in", "zoom-out", "fit", "search", "warning", "info", "error", "check",
// "stale", "lock", "copy", "settings", "close", "chevron-up|down|left|right", "plus", "minus", "pin",
// "compare", "restore", "history", "layers", "graph", "histogram", "opaque", "tag". Unknown names give a null icon.
QIcon icon(const QString& name, IconRole role = IconRole::kText);
// size in device-independent pixels.
QPixmap icon_pixmap(const QString& name, int size, const QColor& color, double device_pixel_ratio);
QStringList icon_names();

}  // namespace quanvas
