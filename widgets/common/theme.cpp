#include "widgets/common/theme.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <QApplication>
#include <QFontDatabase>
#include <QHash>
#include <QPalette>
#include <QStyle>
#include <QStyleFactory>
#include <QToolTip>

#include "widgets/common/style_sheet.h"

namespace quanvas {

namespace {

constexpr std::array<std::pair<ThemeMode, const char*>, 3> kModes = {
    {{ThemeMode::kSystem, "system"}, {ThemeMode::kLight, "light"}, {ThemeMode::kDark, "dark"}}};

Colors make_colors(bool dark, std::array<const char*, 16> hex) {
  Colors c;
  c.dark = dark;
  QColor* const roles[] = {&c.background, &c.panel,     &c.row,    &c.line,  &c.grid,   &c.text,
                           &c.muted,      &c.accent,    &c.on_accent, &c.accent_background,
                           &c.warning,    &c.good,      &c.error,  &c.neutral, &c.edge, &c.histogram};
  for (std::size_t i = 0; i < std::size(roles); ++i) *roles[i] = QColor(hex[i]);
  return c;
}

double channel(int value) {
  const double v = value / 255.0;
  return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
}

double luminance(const QColor& c) {
  return 0.2126 * channel(c.red()) + 0.7152 * channel(c.green()) + 0.0722 * channel(c.blue());
}

struct Stop {
  double at;
  QRgb color;
};

// Piecewise linear in sRGB; `at` rises.
template <std::size_t N>
QColor interpolate(const std::array<Stop, N>& stops, double at) {
  if (at <= stops.front().at) return QColor(stops.front().color);
  for (std::size_t i = 1; i < N; ++i) {
    if (at > stops[i].at) continue;
    const double t = (at - stops[i - 1].at) / (stops[i].at - stops[i - 1].at);
    return mix(QColor(stops[i - 1].color), QColor(stops[i].color), t);
  }
  return QColor(stops.back().color);
}

constexpr std::array<Stop, 7> kBits = {{{1, 0xfffff0a8},
                                        {2, 0xfffde725},
                                        {3, 0xff90d743},
                                        {4, 0xff28ae80},
                                        {6, 0xff2c728e},
                                        {8, 0xff3b528b},
                                        {16, 0xff2a1650}}};
// Nuñez, Anderton, Renslow 2018, ten equidistant colours of the map.
constexpr std::array<Stop, 10> kCividis = {{{0. / 9, 0xff00204d},
                                            {1. / 9, 0xff00336f},
                                            {2. / 9, 0xff39486b},
                                            {3. / 9, 0xff575c6d},
                                            {4. / 9, 0xff707173},
                                            {5. / 9, 0xff8a8779},
                                            {6. / 9, 0xffa69d75},
                                            {7. / 9, 0xffc4b56c},
                                            {8. / 9, 0xffe4cf5b},
                                            {9. / 9, 0xffffea46}}};
constexpr std::array<QRgb, 8> kCategories = {0xff0072b2, 0xffe69f00, 0xff009e73, 0xffcc79a7,
                                             0xff56b4e9, 0xffd55e00, 0xfff0e442, 0xff8c8c8c};

QPalette make_palette(const Colors& c) {
  QPalette p(c.text, c.panel, mix(c.panel, QColor(Qt::white), 0.2), mix(c.panel, QColor(Qt::black), 0.3), c.line,
             c.text, c.panel);
  const std::pair<QPalette::ColorRole, QColor> roles[] = {
      {QPalette::Window, c.panel},          {QPalette::WindowText, c.text},      {QPalette::Base, c.panel},
      {QPalette::AlternateBase, c.row},     {QPalette::Text, c.text},            {QPalette::Button, c.panel},
      {QPalette::ButtonText, c.text},       {QPalette::BrightText, c.error},     {QPalette::Highlight, c.accent},
      {QPalette::HighlightedText, c.on_accent}, {QPalette::ToolTipBase, c.panel}, {QPalette::ToolTipText, c.text},
      {QPalette::PlaceholderText, c.muted}, {QPalette::Link, c.accent},          {QPalette::LinkVisited, c.accent},
      {QPalette::Mid, c.line},              {QPalette::Midlight, c.grid},        {QPalette::Dark, c.line}};
  for (const auto& [role, color] : roles) p.setColor(role, color);
  const QColor faint = mix(c.muted, c.panel, 0.35);
  for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
    p.setColor(QPalette::Disabled, role, faint);
  p.setColor(QPalette::Disabled, QPalette::Highlight, c.line);
  return p;
}

bool desktop_is_dark() {
  static const bool dark = luminance(QApplication::palette().color(QPalette::Window)) < 0.25;
  return dark;
}

}  // namespace

const Colors& light_colors() {
  static const Colors c = make_colors(
      false, {"#f3f4f6", "#ffffff", "#f7f8fa", "#d8dce2", "#e9ebef", "#1d2127", "#69717d", "#1f6feb", "#ffffff",
              "#e7f0ff", "#b35900", "#1a7f5a", "#c0262d", "#c4cad3", "#9aa3af", "#8fb3e6"});
  return c;
}

const Colors& dark_colors() {
  static const Colors c = make_colors(
      true, {"#17191d", "#1f2227", "#23272d", "#343941", "#2b3038", "#dfe2e7", "#8d95a1", "#5aa2ff", "#0b1626",
             "#203551", "#f0a35a", "#4cc38a", "#ff7b7b", "#4a515c", "#6b7482", "#4f7fc0"});
  return c;
}

QString theme_mode_id(ThemeMode mode) {
  for (const auto& [m, id] : kModes)
    if (m == mode) return QString::fromLatin1(id);
  return QStringLiteral("system");
}

ThemeMode theme_mode_from(const QString& id) {
  for (const auto& [m, name] : kModes)
    if (id == QLatin1String(name)) return m;
  return ThemeMode::kSystem;
}

Theme::Theme() : colors_(light_colors()) {}

Theme& Theme::instance() {
  static Theme theme;
  return theme;
}

void Theme::apply(ThemeMode mode) {
  const bool dark = mode == ThemeMode::kDark || (mode == ThemeMode::kSystem && desktop_is_dark());
  mode_ = mode;
  colors_ = dark ? dark_colors() : light_colors();
  if (qApp != nullptr) {
    // Once: with a style sheet set, QApplication::style() is Qt's wrapper and does not tell.
    if (!qApp->property("quanvas_style").toBool()) {
      QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
      qApp->setProperty("quanvas_style", true);
    }
    const QPalette palette = make_palette(colors_);
    QApplication::setPalette(palette);
    QToolTip::setPalette(palette);
    QApplication::setFont(text_font());
    qApp->setStyleSheet(style_sheet(colors_));
  }
  Q_EMIT changed();
}

double contrast_ratio(const QColor& a, const QColor& b) {
  const double la = luminance(a), lb = luminance(b);
  return (std::max(la, lb) + 0.05) / (std::min(la, lb) + 0.05);
}

static QColor find_outline(const QColor& mark, const Colors& theme) {
  const QColor towards = theme.dark ? QColor(Qt::white) : QColor(Qt::black);
  for (int step = 0; step <= 20; ++step) {
    const QColor c = mix(mark, towards, step / 20.0);
    if (contrast_ratio(c, theme.panel) >= 3.0) return c;
  }
  return towards;
}

// Both are asked for every chip of every frame, always for the same few colours. GUI thread, as all that paints.
QColor ink_on(const QColor& background) {
  static const QColor kDark(0x10, 0x18, 0x12), kLight(Qt::white);
  static QHash<QRgb, bool> known;
  const auto it = known.constFind(background.rgb());
  if (it != known.constEnd()) return *it ? kDark : kLight;
  const bool dark = contrast_ratio(background, kDark) >= contrast_ratio(background, kLight);
  known.insert(background.rgb(), dark);
  return dark ? kDark : kLight;
}

QColor outline_of(const QColor& mark, const Colors& theme) {
  static QHash<std::pair<QRgb, QRgb>, QColor> known;
  QColor& outline = known[{mark.rgb(), theme.panel.rgb()}];
  if (!outline.isValid()) outline = find_outline(mark, theme);
  return outline;
}

QColor mix(const QColor& a, const QColor& b, double t) {
  const auto blend = [t](int x, int y) { return static_cast<int>(std::lround(x + (y - x) * t)); };
  return {blend(a.red(), b.red()), blend(a.green(), b.green()), blend(a.blue(), b.blue())};
}

QColor bits_color(double bits, const Colors& theme) {
  if (!std::isfinite(bits) || bits <= 0 || bits > 16) return theme.neutral;
  return interpolate(kBits, bits);
}

QColor cividis(double t, const Colors& theme) {
  if (std::isnan(t)) return theme.neutral;
  return interpolate(kCividis, std::clamp(t, 0.0, 1.0));
}

double error_position(double sqnr_db) {
  if (std::isnan(sqnr_db)) return sqnr_db;
  return std::clamp((45.0 - sqnr_db) / 40.0, 0.0, 1.0);
}

QColor error_color(double sqnr_db, const Colors& theme) { return cividis(error_position(sqnr_db), theme); }

QColor category_color(int index) {
  const int n = static_cast<int>(kCategories.size());
  return QColor(kCategories[static_cast<std::size_t>(((index % n) + n) % n)]);
}

QFont text_font(double pixels, int weight) {
  static const QString family = [] {
    const QStringList all = QFontDatabase::families();
    for (const char* name : {"Inter", "Inter Display", "Noto Sans"})
      if (all.contains(QLatin1String(name))) return QString::fromLatin1(name);
    return QFontDatabase::systemFont(QFontDatabase::GeneralFont).family();
  }();
  QFont font(family);
  font.setPixelSize(std::max(1, static_cast<int>(std::lround(pixels))));
  font.setWeight(static_cast<QFont::Weight>(weight));
  return font;
}

}  // namespace quanvas
