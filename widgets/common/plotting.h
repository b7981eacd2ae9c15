// Quanvas - the only file that includes qcustomplot.h: it uses Qt's keywords, which this program switches off.
#pragma once

#include <QWidget>

#pragma push_macro("signals")
#pragma push_macro("slots")
#pragma push_macro("emit")
#pragma push_macro("foreach")
#undef signals
#undef slots
#undef emit
#undef foreach
#define signals Q_SIGNALS
#define slots Q_SLOTS
#define emit
#define foreach Q_FOREACH
#include <qcustomplot.h>
#undef signals
#undef slots
#undef emit
#undef foreach
#pragma pop_macro("foreach")
#pragma pop_macro("emit")
#pragma pop_macro("slots")
#pragma pop_macro("signals")

namespace quanvas {

// Gives the plot the theme's colours and fonts: background, axes, ticks, grid. Call it again when
// Theme::changed is emitted; it does not replot.
void style_plot(QCustomPlot& plot);

}  // namespace quanvas
