// Quanvas - the colours of the program by meaning, the application's palette, style sheet and font.
//
// Light and dark roles are one table each; colours change at run time (Theme::changed) and views read them
// when they paint, so nothing keeps a colour. GUI thread only.
// Bits: viridis, more bits are darker. Error: cividis, dark is good, yellow is bad. Both read in grey and with
// colour-vision deficiency; still every coloured mark stands beside a text or a shape.
#pragma once

#include <QColor>
#include <QFont>
#include <QObject>
#include <QString>

namespace quanvas {

enum class ThemeMode { kSystem, kLight, kDark };
QString theme_mode_id(ThemeMode mode);            // "system", "light", "dark": what settings store
ThemeMode theme_mode_from(const QString& id);     // kSystem for anything else

struct Colors {
  bool dark = false;
  QColor background;         // behind panels, the canvas
  QColor panel;              // docks, cards, fields
  QColor row;                // quiet block inside a panel, hovered row
  QColor line;               // 1 px borders
  QColor grid;               // lines between rows, grid of plots
  QColor text;
  QColor muted;              // secondary text
  QColor accent;             // selection and the one main action
  QColor on_accent;          // text on the accent colour, at least 4.5:1
  QColor accent_background;  // selected row, active tab
  QColor warning;
  QColor good;
  QColor error;
  QColor neutral;            // marks of what is not quantized (float)
  QColor edge;               // lines of the graph
  QColor histogram;          // bars of a distribution
};

class Theme : public QObject {
  Q_OBJECT

 public:
  static Theme& instance();
  // Sets palette, style sheet and font of the QApplication. kSystem follows the desktop's palette as it was
  // when the program started.
  void apply(ThemeMode mode);
  ThemeMode mode() const { return mode_; }
  const Colors& colors() const { return colors_; }

 Q_SIGNALS:
  void changed();

 private:
  Theme();
  ThemeMode mode_ = ThemeMode::kSystem;
  Colors colors_;
};

const Colors& light_colors();
const Colors& dark_colors();
inline const Colors& colors() { return Theme::instance().colors(); }

// Contrast of two opaque colours after WCAG 2.1: 1 to 21.
double contrast_ratio(const QColor& a, const QColor& b);
// Near-black or white, whichever is easier to read on `background`.
QColor ink_on(const QColor& background);
// 1 px outline for a mark of this colour on the panel: at least 3:1 against the panel.
QColor outline_of(const QColor& mark, const Colors& theme);
QColor mix(const QColor& a, const QColor& b, double share_of_b);

// Colour of a bit width, 1..16 (fractions and other widths take the colour between their neighbours; above 8
// it darkens towards #2a1650). Not finite, <= 0 or above 16: the neutral of `theme`, i.e. float.
QColor bits_color(double bits, const Colors& theme = colors());
// Cividis, t in 0..1 (clamped; nan: neutral). 0 dark blue, 1 yellow.
QColor cividis(double t, const Colors& theme = colors());
// SQNR in dB to the place on cividis: 45 dB and more 0, 5 dB and less 1, nan for nan.
double error_position(double sqnr_db);
QColor error_color(double sqnr_db, const Colors& theme = colors());
// Below this SQNR (dB) a number is shown as a warning.
inline constexpr double kPoorSqnrDb = 16.0;
// Distinguishable colour of a category, index 0.. (repeats after 8); after Okabe and Ito.
QColor category_color(int index);

// The text font: Inter when installed, otherwise the desktop's; points as pixels, weight QFont::Normal ...
// Figures are tabular in the fallback fonts; Inter is asked for its tabular variant where Qt can.
QFont text_font(double pixels = 13, int weight = QFont::Normal);

}  // namespace quanvas
