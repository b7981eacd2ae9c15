#include <gtest/gtest.h>

#include <QApplication>

#include "widgets/common/theme.h"

int main(int argc, char** argv) {
  if (qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
  testing::InitGoogleTest(&argc, argv);
  QApplication app(argc, argv);
  quanvas::Theme::instance().apply(quanvas::ThemeMode::kLight);
  return RUN_ALL_TESTS();
}
