#include <gtest/gtest.h>

#include <cmath>

#include <QAbstractButton>
#include <QApplication>
#include <QSignalSpy>

#include "widgets/common/empty_state.h"
#include "widgets/common/icons.h"
#include "widgets/common/style_sheet.h"
#include "widgets/common/theme.h"

namespace quanvas {
namespace {

const Colors* const kThemes[] = {&light_colors(), &dark_colors()};

TEST(Theme, ColoursOfTheDesign) {
  const std::pair<double, const char*> bits[] = {{8, "#3b528b"}, {6, "#2c728e"}, {4, "#28ae80"},
                                                 {3, "#90d743"}, {2, "#fde725"}, {16, "#2a1650"}};
  for (const auto& [b, hex] : bits) EXPECT_EQ(bits_color(b).name().toStdString(), hex) << b;
  EXPECT_EQ(light_colors().accent.name().toStdString(), "#1f6feb");
  EXPECT_EQ(dark_colors().background.name().toStdString(), "#17191d");
}

TEST(Theme, BitsBetweenNeighboursAndFloatNeutral) {
  for (const Colors* theme : kThemes) {
    for (const double b : {0.0, -1.0, 17.0, 32.0, double(NAN), double(INFINITY)})
      EXPECT_EQ(bits_color(b, *theme), theme->neutral) << b;
    const QColor five = bits_color(5, *theme);
    EXPECT_EQ(five, mix(bits_color(4, *theme), bits_color(6, *theme), 0.5));
    double last = 1e9;
    for (int b = 1; b <= 16; ++b) {
      const double white = contrast_ratio(bits_color(b, *theme), Qt::white);
      EXPECT_LT(1.0 / white, last) << "more bits must be darker: " << b;
      last = 1.0 / white;
    }
  }
}

TEST(Theme, TextAndMarksCanBeRead) {
  for (const Colors* c : kThemes) {
    EXPECT_GE(contrast_ratio(c->text, c->panel), 7.0);
    EXPECT_GE(contrast_ratio(c->muted, c->panel), 4.5);
    EXPECT_GE(contrast_ratio(c->on_accent, c->accent), 4.5);
    EXPECT_GE(contrast_ratio(c->accent, c->panel), 3.0);
    for (const QColor& word : {c->warning, c->good, c->error}) EXPECT_GE(contrast_ratio(word, c->panel), 4.5);
    for (int b = 1; b <= 16; ++b) {
      const QColor mark = bits_color(b, *c);
      EXPECT_GE(contrast_ratio(ink_on(mark), mark), 4.5) << b;
      EXPECT_GE(contrast_ratio(outline_of(mark, *c), c->panel), 3.0) << b;
    }
    for (double db = 0; db <= 50; db += 2.5)
      EXPECT_GE(contrast_ratio(outline_of(error_color(db, *c), *c), c->panel), 3.0) << db;
  }
}

TEST(Theme, ErrorMap) {
  EXPECT_EQ(error_position(45), 0.0);
  EXPECT_EQ(error_position(INFINITY), 0.0);
  EXPECT_EQ(error_position(-INFINITY), 1.0);
  EXPECT_EQ(error_position(25), 0.5);
  EXPECT_TRUE(std::isnan(error_position(NAN)));
  EXPECT_EQ(error_color(NAN), colors().neutral);
  EXPECT_EQ(cividis(1).name().toStdString(), "#ffea46");
}

TEST(Theme, ChangesAtRunTimeAndSaysSo) {
  Theme& theme = Theme::instance();
  QSignalSpy spy(&theme, &Theme::changed);
  theme.apply(ThemeMode::kDark);
  EXPECT_TRUE(colors().dark);
  EXPECT_EQ(QApplication::palette().color(QPalette::Window), dark_colors().panel);
  theme.apply(ThemeMode::kLight);
  EXPECT_EQ(QApplication::palette().color(QPalette::Window), light_colors().panel);
  EXPECT_EQ(spy.size(), 2);
  for (const ThemeMode m : {ThemeMode::kSystem, ThemeMode::kLight, ThemeMode::kDark})
    EXPECT_EQ(theme_mode_from(theme_mode_id(m)), m);
  EXPECT_EQ(theme_mode_from(QStringLiteral("purple")), ThemeMode::kSystem);
}

TEST(Theme, StyleSheetHasNoOpenNames) {
  for (const Colors* c : kThemes) EXPECT_FALSE(style_sheet(*c).contains(QLatin1Char('@')));
}

TEST(Icons, EveryIconPaintsInItsColour) {
  const QStringList names = icon_names();
  for (const char* needed :
       {"open", "undo", "redo", "run", "calibrate", "train", "sweep", "stop", "export", "zoom-in", "zoom-out", "fit",
        "search", "warning", "info", "error", "check", "stale", "lock", "copy", "settings", "close", "chevron-up",
        "chevron-down", "chevron-left", "chevron-right", "plus", "minus", "pin", "compare", "restore", "history"})
    EXPECT_TRUE(names.contains(QLatin1String(needed))) << needed;
  for (const QString& name : names) {
    const QImage image = icon_pixmap(name, 20, QColor(255, 0, 0), 2).toImage();
    ASSERT_EQ(image.width(), 40) << name.toStdString();
    int painted = 0;
    for (int y = 0; y < 40; ++y)
      for (int x = 0; x < 40; ++x) {
        const QColor pixel = image.pixelColor(x, y);
        if (pixel.alpha() < 200) continue;
        ++painted;
        EXPECT_GT(pixel.red(), 200) << name.toStdString();
        EXPECT_LT(pixel.blue(), 60) << name.toStdString();
      }
    EXPECT_GT(painted, 30) << name.toStdString();
    EXPECT_FALSE(icon(name).isNull());
  }
  EXPECT_TRUE(icon(QStringLiteral("no such icon")).isNull());
  EXPECT_TRUE(icon_pixmap(QStringLiteral("no such icon"), 16, Qt::black, 1).isNull());
}

TEST(EmptyState, ActionsAnswerById) {
  EmptyState state(QStringLiteral("open"), QStringLiteral("No model"), QStringLiteral("Drop a file here."));
  QSignalSpy spy(&state, &EmptyState::action_triggered);
  QAbstractButton* open = state.add_action(QStringLiteral("open"), QStringLiteral("Open…"));
  QAbstractButton* example = state.add_action(QStringLiteral("example"), QStringLiteral("Example"));
  EXPECT_TRUE(open->property("primary").toBool());
  EXPECT_FALSE(example->property("primary").toBool());
  example->click();
  ASSERT_EQ(spy.size(), 1);
  EXPECT_EQ(spy[0][0].toString(), QStringLiteral("example"));
  EXPECT_EQ(state.accessibleName(), QStringLiteral("No model"));
}

}  // namespace
}  // namespace quanvas
