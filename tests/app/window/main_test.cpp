// Settings of the tests lie in a folder of their own; the engine is the one built beside them.
#include <gtest/gtest.h>

#include <QApplication>
#include <QStandardPaths>
#include <QTemporaryDir>

#include "widgets/common/theme.h"

int main(int argc, char** argv) {
  if (qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
  testing::InitGoogleTest(&argc, argv);
  QTemporaryDir home;
  for (const char* name : {"XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}) qputenv(name, home.path().toUtf8());
  if (qEnvironmentVariableIsEmpty("QUANVAS_ENGINE")) qputenv("QUANVAS_ENGINE", QUANVAS_BINARY_DIR "/bin/quanvas-engine");
  QApplication app(argc, argv);
  QCoreApplication::setOrganizationName(QStringLiteral("quanvas"));
  QCoreApplication::setApplicationName(QStringLiteral("quanvas-test"));
  quanvas::Theme::instance().apply(quanvas::ThemeMode::kLight);
  return RUN_ALL_TESTS();
}
