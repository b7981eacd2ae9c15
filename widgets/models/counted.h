// Quanvas - "1 rule", "3 rules": the right form of a counted noun without a translation file for the source
// language. Both forms are given already translated; %1 in `many` is the number.
#pragma once

#include "widgets/common/format.h"

namespace quanvas {

inline QString counted(double n, const QString& one, const QString& many) { return n == 1 ? one : many.arg(count_text(n)); }

}  // namespace quanvas
