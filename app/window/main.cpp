#include <cstdio>

#include <QApplication>
#include <QSettings>
#include <QTimer>

#include "app/session/session.h"
#include "app/session/versions.h"
#include "app/window/main_window.h"
#include "app/window/options.h"
#include "app/window/screenshot.h"
#include "app/window/wiring.h"
#include "core/base/version.h"
#include "widgets/common/plotting.h"

namespace quanvas {
namespace {

// Before QApplication reads it.
void set_platform(const WindowOptions& options) {
  if (!options.screenshot.empty() && qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
  if (options.scale > 0) qputenv("QT_SCALE_FACTOR", QByteArray::number(options.scale));
}

QtMessageHandler default_handler = nullptr;

// The platform of pictures has no window manager to tell sizes to, and says so for every window.
void drop_size_hints(QtMsgType type, const QMessageLogContext& context, const QString& text) {
  if (text.contains(QLatin1String("does not support propagateSizeHints"))) return;
  if (default_handler) default_handler(type, context, text);
}

int run(int argc, char** argv, const WindowOptions& options) {
  if (!options.screenshot.empty()) default_handler = qInstallMessageHandler(drop_size_hints);
  QApplication app(argc, argv);
  QCoreApplication::setOrganizationName(QStringLiteral("quanvas"));
  QCoreApplication::setApplicationName(QStringLiteral("quanvas"));
  QCoreApplication::setApplicationVersion(QStringLiteral(QUANVAS_VERSION));
  const bool picture = !options.screenshot.empty();
  const QString theme = options.theme.empty() ? QSettings().value(QStringLiteral("theme")).toString() : QString::fromStdString(options.theme);
  Theme::instance().apply(theme_mode_from(theme));

  Session session(QString::fromStdString(options.engine));
  MainWindow window(session.undo_stack());
  window.keep_layout(!picture);
  Wiring wiring(&session, &window);
  if (options.width > 0) window.resize(options.width, options.height);
  window.show();
  if (options.width > 0) QTimer::singleShot(0, &window, [&] { window.resize(options.width, options.height); });
  if (picture) new Screenshot(options, &session, &window, &wiring, [](int code) { QCoreApplication::exit(code); });
  if (!options.target.empty())
    QObject::connect(&wiring, &Wiring::opened, &window, [&] { wiring.look_at_target(QString::fromStdString(options.target)); });
  // The window is on the screen before the engine is started.
  QTimer::singleShot(0, &session, [&] {
    session.start();
    if (!options.file.empty()) Q_EMIT window.open_wanted(QString::fromStdString(options.file));
  });
  return app.exec();
}

}  // namespace
}  // namespace quanvas

int main(int argc, char** argv) {
  const auto options = quanvas::parse_window_options({argv + 1, argv + argc});
  if (!options) {
    std::fprintf(stderr, "quanvas: %s\n", options.error().text().c_str());
    return quanvas::exit_code(options.error().code);
  }
  if (options->help) return std::fputs(quanvas::window_help().c_str(), stdout), 0;
  if (options->version)
    return std::printf("quanvas " QUANVAS_VERSION "\nQt %s\nQCustomPlot " QCUSTOMPLOT_VERSION_STR "\n%s\n", qVersion(),
                       quanvas::transport_version()), 0;
  quanvas::set_platform(*options);
  return quanvas::run(argc, argv, *options);
}
