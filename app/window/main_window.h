// Quanvas - the window: menus, toolbar, docks around the graph, status line. It shows and asks; what the session
// has to do with it stands in wiring*.cpp.
#pragma once

#include <functional>

#include <QMainWindow>
#include <QUndoStack>

#include "app/window/actions.h"
#include "app/window/panels.h"
#include "app/window/status_line.h"
#include "widgets/common/theme.h"
#include "widgets/panels/palette.h"

class QComboBox;
class QLineEdit;
class QStackedWidget;

namespace quanvas {

class Docks;

class MainWindow : public QMainWindow {
  Q_OBJECT

 public:
  // undo: not owned.
  explicit MainWindow(QUndoStack* undo, QWidget* parent = nullptr);
  ~MainWindow() override;

  const Panels& panels() const { return panels_; }
  Actions& actions() { return *actions_; }
  StatusLine* status_line() const { return status_; }
  EnginePill* engine_pill() const { return pill_; }
  Banner* banner() const { return banner_; }
  StartPage* start_page() const { return start_; }
  Docks* docks() const { return docks_; }

  void show_start_page();
  // Graph in the middle; name for the title, read_only adds a lock.
  void show_project(const QString& name, bool read_only);
  bool shows_project() const;
  void add_recent(const QString& path);
  void set_theme(ThemeMode mode);
  // What the palette offers beside the actions; asked each time it opens.
  void set_palette_source(std::function<std::vector<PaletteItem>()> source) { palette_source_ = std::move(source); }
  void open_palette();
  // Asked before the window closes; false keeps it open.
  void set_close_guard(std::function<bool()> may_close) { may_close_ = std::move(may_close); }
  void keep_layout(bool keep) { keep_layout_ = keep; }  // false: neither restores nor stores settings

 Q_SIGNALS:
  void open_wanted(const QString& path);
  void color_by_changed(quanvas::ColorBy measure);

 protected:
  void closeEvent(QCloseEvent* event) override;
  void dragEnterEvent(QDragEnterEvent* event) override;
  void dropEvent(QDropEvent* event) override;
  void showEvent(QShowEvent* event) override;

 private:
  void build_panels(QUndoStack* undo);
  void build_center();
  void build_toolbar(QUndoStack* undo);
  void build_menus();
  void build_theme_menu();
  void build_color_menu();
  void build_path_menu();
  void build_search();
  void connect_own_actions();
  void fill_recent_menu();
  void choose_file();
  void set_color_by(ColorBy measure);
  QWidget* tool_button(const char* action, bool primary, bool with_text);

  Panels panels_;
  Actions* actions_;
  Docks* docks_;
  StatusLine* status_;
  EnginePill* pill_;
  Banner* banner_;
  StartPage* start_;
  QStackedWidget* center_;
  QWidget* search_bar_;
  QLineEdit* search_;
  QLabel* search_count_;
  QComboBox* color_by_;
  QWidget* palette_field_ = nullptr;
  std::function<std::vector<PaletteItem>()> palette_source_;
  std::function<bool()> may_close_;
  bool keep_layout_ = true;
  bool restored_ = false;
};

// Path of the Fashion-MNIST example beside the program's resources; empty when it is not installed.
QString example_path();

}  // namespace quanvas
