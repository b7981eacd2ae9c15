// Quanvas - the style sheet of the whole application, made from the theme's colours. Used by Theme::apply only.
// Property hooks for widgets: QPushButton[primary="true"], QLabel[role="muted"|"title"|"warning"|"error"|"good"],
// QFrame[role="block"] (quiet block), QToolButton[flat="true"].
#pragma once

#include <QString>

#include "widgets/common/theme.h"

namespace quanvas {

QString style_sheet(const Colors& colors);

}  // namespace quanvas
