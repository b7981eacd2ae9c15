#include "app/window/main_window.h"

#include <QActionGroup>
#include <QApplication>
#include <QCloseEvent>
#include <QComboBox>
#include <QDir>
#include <QDockWidget>
#include <QDragEnterEvent>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QLineEdit>
#include <QMimeData>
#include <QPushButton>
#include <QSettings>
#include <QStackedWidget>
#include <QStatusBar>
#include <QStyledItemDelegate>
#include <QTimer>
#include <QToolBar>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/window/docks.h"
#include "app/window/sheets.h"
#include "core/base/files.h"
#include "widgets/common/icons.h"

namespace quanvas {
namespace {

constexpr int kMostRecent = 12;
const char* const kRecentKey = "recent";
const char* const kThemeKey = "theme";

QString open_filter() {
  return MainWindow::tr("Models and projects (*.onnx *.pt *.ts *.jit *.gguf *.safetensors *.npz *.quanvas);;All files (*)");
}

QString dropped_file(const QMimeData* data) {
  for (const auto& url : data->urls())
    if (url.isLocalFile()) return url.toLocalFile();
  return {};
}

}  // namespace

QString example_path() {
  const QDir resources(QString::fromStdString(resource_dir().string()));
  for (const char* place : {"examples", "projects", "../projects", "../projects/lenet5", "../projects/dscnn"}) {
    const QDir dir(resources.filePath(QLatin1String(place)));
    for (const char* pattern : {"*fashion*.quanvas", "lenet5.quanvas", "lenet5.onnx", "dscnn.quanvas", "dscnn.onnx"})
      for (const auto& entry : dir.entryInfoList({QLatin1String(pattern)}, QDir::Files)) return entry.canonicalFilePath();
  }
  return {};
}

MainWindow::MainWindow(QUndoStack* undo, QWidget* parent) : QMainWindow(parent) {
  setObjectName(QStringLiteral("main-window"));
  setWindowTitle(tr("Quanvas"));
  setAcceptDrops(true);
  resize(1400, 900);
  actions_ = new Actions(this);
  build_panels(undo);
  build_center();
  docks_ = new Docks(this, panels_);
  build_toolbar(undo);
  build_menus();
  status_ = new StatusLine(this);
  statusBar()->setSizeGripEnabled(false);
  statusBar()->setFixedHeight(26);
  statusBar()->addWidget(status_, 1);
  connect_own_actions();
  show_start_page();
}

// Docks hide while the window goes: nothing may lay out headers of a main window that is half gone.
MainWindow::~MainWindow() {
  for (auto* dock : findChildren<QDockWidget*>()) QObject::disconnect(dock, nullptr, docks_, nullptr);
}

void MainWindow::build_panels(QUndoStack* undo) {
  panels_.graph = new GraphView(this);
  panels_.layers = new LayersPanel(this);
  panels_.recipe = new RecipePanel(this);
  panels_.target = new TargetPanel(this);
  panels_.inspector = new InspectorPanel(this);
  panels_.distribution = new DistributionPanel(this);
  panels_.sweep = new SweepPanel(this);
  panels_.error = new ErrorPanel(this);
  panels_.runs = new RunsPanel(this);
  panels_.jobs = new JobsPanel(this);
  panels_.issues = new IssuesPanel(this);
  panels_.history = new HistoryPanel(undo, this);
}

void MainWindow::build_center() {
  auto* page = new QWidget(this);
  auto* layout = new QVBoxLayout(page);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  banner_ = new Banner(page);
  build_search();
  center_ = new QStackedWidget(page);
  start_ = new StartPage(!example_path().isEmpty(), center_);
  center_->addWidget(start_);
  center_->addWidget(panels_.graph);
  layout->addWidget(banner_);
  layout->addWidget(search_bar_);
  layout->addWidget(center_, 1);
  setCentralWidget(page);
  connect(start_, &StartPage::action_triggered, this, [this](const QString& id) {
    if (id == QLatin1String("open")) choose_file();
    else Q_EMIT open_wanted(example_path());
  });
}

void MainWindow::build_search() {
  search_bar_ = new QWidget(this);
  auto* row = new QHBoxLayout(search_bar_);
  row->setContentsMargins(10, 6, 10, 6);
  search_ = new QLineEdit(search_bar_);
  search_->setPlaceholderText(tr("Find nodes by name or type"));
  search_->setAccessibleName(tr("Find in the graph"));
  search_->setClearButtonEnabled(true);
  search_->setMaximumWidth(320);
  search_count_ = new QLabel(search_bar_);
  search_count_->setProperty("role", "muted");
  row->addWidget(search_);
  row->addWidget(search_count_);
  row->addStretch(1);
  search_bar_->hide();
  connect(search_, &QLineEdit::textChanged, this, [this](const QString& text) {
    const int found = panels_.graph->set_search(text);
    search_count_->setText(text.isEmpty() ? QString() : tr("%1 found").arg(found));
  });
  connect(search_, &QLineEdit::returnPressed, this, [this] {
    const bool back = QApplication::keyboardModifiers() & Qt::ShiftModifier;
    panels_.graph->find_next(!back);
  });
  auto* close = new QAction(search_);
  close->setShortcut(Qt::Key_Escape);
  close->setShortcutContext(Qt::WidgetShortcut);
  search_->addAction(close);
  connect(close, &QAction::triggered, this, [this] {
    search_->clear();
    search_bar_->hide();
    panels_.graph->setFocus();
  });
}

QWidget* MainWindow::tool_button(const char* action, bool primary, bool with_text) {
  auto* button = new QToolButton(this);
  QAction* a = actions_->at(QLatin1String(action));
  button->setDefaultAction(a);
  button->setToolButtonStyle(with_text ? Qt::ToolButtonTextOnly : Qt::ToolButtonIconOnly);
  button->setIconSize({16, 16});
  button->setProperty("primary", primary);
  button->setAccessibleName(a->text().remove(u'&'));
  button->setFixedHeight(28);
  return button;
}

void MainWindow::build_toolbar(QUndoStack* undo) {
  auto* bar = addToolBar(tr("Tools"));
  bar->setObjectName(QStringLiteral("toolbar"));
  bar->setMovable(false);
  bar->setContextMenuPolicy(Qt::PreventContextMenu);
  for (const char* id : {"open", "undo", "redo"}) bar->addWidget(tool_button(id, false, qstrcmp(id, "open") == 0));
  bar->addSeparator();
  for (const char* id : {"calibrate", "run", "train", "sweep"}) bar->addWidget(tool_button(id, qstrcmp(id, "run") == 0, true));
  bar->addSeparator();
  auto* label = new QLabel(tr("Colour by"), bar);
  label->setProperty("role", "muted");
  color_by_ = new QComboBox(bar);
  color_by_->setAccessibleName(tr("Colour by"));
  color_by_->setItemDelegate(new QStyledItemDelegate(color_by_));
  for (const ColorBy m : color_by_choices()) color_by_->addItem(color_by_title(m), static_cast<int>(m));
  label->setBuddy(color_by_);
  bar->addWidget(label);
  bar->addWidget(color_by_);
  auto* field = new QPushButton(bar);
  field->setAccessibleName(tr("Go to layer, action, preset"));
  field->setCursor(Qt::IBeamCursor);
  field->setFixedSize(232, 28);
  auto* inside = new QHBoxLayout(field);
  inside->setContentsMargins(10, 0, 10, 0);
  for (const QString& text : {tr("Go to layer, action, preset…"), actions_->at(QStringLiteral("palette"))->shortcut().toString(QKeySequence::NativeText).replace(u'+', u' ')}) {
    auto* part = new QLabel(text, field);
    part->setProperty("role", "muted");
    part->setAttribute(Qt::WA_TransparentForMouseEvents);
    inside->addWidget(part);
    if (inside->count() == 1) inside->addStretch(1);
  }
  palette_field_ = field;
  connect(field, &QPushButton::clicked, this, &MainWindow::open_palette);
  bar->addWidget(field);
  auto* space = new QWidget(bar);
  space->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  bar->addWidget(space);
  pill_ = new EnginePill(bar);
  bar->addWidget(pill_);
  pill_->set_state(EnginePill::State::kStarting, tr("engine: starting"), {});

  const auto bind = [this, undo](const char* id, bool (QUndoStack::*can)() const, QString (QUndoStack::*text)() const, const QString& title) {
    QAction* a = actions_->at(QLatin1String(id));
    const auto update = [a, undo, can, text, title] {
      a->setEnabled((undo->*can)());
      const QString what = (undo->*text)();
      a->setText(what.isEmpty() ? title : title + QStringLiteral(" ") + what);
      a->setToolTip(a->text().remove(u'&') + QStringLiteral(" (%1)").arg(a->shortcut().toString(QKeySequence::NativeText)));
    };
    connect(undo, &QUndoStack::indexChanged, a, update);
    update();
  };
  bind("undo", &QUndoStack::canUndo, &QUndoStack::undoText, tr("&Undo"));
  bind("redo", &QUndoStack::canRedo, &QUndoStack::redoText, tr("&Redo"));
  connect(actions_->at(QStringLiteral("undo")), &QAction::triggered, undo, &QUndoStack::undo);
  connect(actions_->at(QStringLiteral("redo")), &QAction::triggered, undo, &QUndoStack::redo);
  connect(color_by_, &QComboBox::activated, this, [this](int i) { set_color_by(static_cast<ColorBy>(color_by_->itemData(i).toInt())); });
}

void MainWindow::build_menus() {
  actions_->fill(menuBar());
  docks_->fill_panels_menu(actions_->submenu(QStringLiteral("panels")));
  docks_->fill_layouts_menu(actions_->submenu(QStringLiteral("layouts")));
  build_theme_menu();
  build_color_menu();
  build_path_menu();
  auto* recent = actions_->submenu(QStringLiteral("recent"));
  connect(recent, &QMenu::aboutToShow, this, &MainWindow::fill_recent_menu);
  auto* example = actions_->submenu(QStringLiteral("example"));
  const QString path = example_path();
  example->setEnabled(!path.isEmpty());
  if (!path.isEmpty()) example->addAction(tr("Fashion-MNIST"), this, [this, path] { Q_EMIT open_wanted(path); });
}

void MainWindow::build_theme_menu() {
  auto* menu = actions_->submenu(QStringLiteral("theme"));
  auto* group = new QActionGroup(menu);
  const std::pair<ThemeMode, QString> kModes[] = {{ThemeMode::kSystem, tr("As the desktop")}, {ThemeMode::kLight, tr("Light")}, {ThemeMode::kDark, tr("Dark")}};
  for (const auto& [mode, title] : kModes) {
    auto* action = menu->addAction(title);
    action->setCheckable(true);
    action->setChecked(Theme::instance().mode() == mode);
    group->addAction(action);
    connect(action, &QAction::triggered, this, [this, mode = mode] { set_theme(mode); });
    connect(&Theme::instance(), &Theme::changed, action, [action, mode = mode] { action->setChecked(Theme::instance().mode() == mode); });
  }
}

void MainWindow::build_color_menu() {
  auto* menu = actions_->submenu(QStringLiteral("color-by"));
  for (const ColorBy m : color_by_choices()) menu->addAction(color_by_title(m), this, [this, m] { set_color_by(m); });
}

void MainWindow::build_path_menu() {
  auto* group = new QActionGroup(this);
  const std::pair<PathShown, const char*> kPaths[] = {{PathShown::kOff, "path-off"}, {PathShown::kUpstream, "path-upstream"},
                                                      {PathShown::kDownstream, "path-downstream"}, {PathShown::kBoth, "path-both"}};
  for (const auto& [shown, id] : kPaths) {
    QAction* action = actions_->at(QLatin1String(id));
    action->setCheckable(true);
    action->setChecked(panels_.graph->path() == shown);
    group->addAction(action);
    connect(action, &QAction::triggered, this, [this, shown = shown] { panels_.graph->set_path(shown); });
    connect(panels_.graph, &GraphView::path_changed, action, [action, shown = shown](PathShown now) { action->setChecked(now == shown); });
  }
}

void MainWindow::set_color_by(ColorBy measure) {
  color_by_->setCurrentIndex(color_by_->findData(static_cast<int>(measure)));
  panels_.graph->set_color_by(measure);
  Q_EMIT color_by_changed(measure);
}

void MainWindow::connect_own_actions() {
  const auto on = [this](const char* id, auto fn) { connect(actions_->at(QLatin1String(id)), &QAction::triggered, this, fn); };
  on("open", [this] { choose_file(); });
  on("quit", [this] { close(); });
  on("find", [this] {
    search_bar_->show();
    search_->setFocus();
    search_->selectAll();
  });
  on("filter", [this] {
    docks_->show_panel(panels_.layers);
    panels_.layers->filter_box()->setFocus();
  });
  on("palette", [this] { open_palette(); });
  on("zoom-in", [this] { panels_.graph->zoom_in(); });
  on("zoom-out", [this] { panels_.graph->zoom_out(); });
  on("fit", [this] { panels_.graph->fit(); });
  on("expand", [this] { panels_.graph->expand_all(); });
  on("collapse", [this] { panels_.graph->collapse_all(); });
  on("shortcuts", [this] { show_shortcuts(this, actions_->all()); });
  on("save-picture", [this] {
    const QString path = QFileDialog::getSaveFileName(this, tr("Save picture of the graph"), QStringLiteral("graph.svg"), tr("Pictures (*.svg *.pdf *.png)"));
    if (path.isEmpty()) return;
    if (const auto status = panels_.graph->export_image(path); !status)
      banner_->show_message(QStringLiteral("picture"), QStringLiteral("error"), QString::fromStdString(status.error().text()));
  });
  actions_->at(QStringLiteral("cumulative"))->setCheckable(true);
  connect(actions_->at(QStringLiteral("cumulative")), &QAction::toggled, this,
          [this](bool on_) { panels_.graph->set_error_kind(on_ ? ErrorKind::kCumulative : ErrorKind::kIsolated); });
  connect(panels_.graph, &GraphView::search_requested, actions_->at(QStringLiteral("find")), &QAction::trigger);
}

void MainWindow::choose_file() {
  const QString path = QFileDialog::getOpenFileName(this, tr("Open a model or a project"), QSettings().value(QStringLiteral("last-folder")).toString(), open_filter());
  if (path.isEmpty()) return;
  QSettings().setValue(QStringLiteral("last-folder"), QFileInfo(path).absolutePath());
  Q_EMIT open_wanted(path);
}

void MainWindow::show_start_page() { center_->setCurrentWidget(start_); }

void MainWindow::show_project(const QString& name, bool read_only) {
  if (!shows_project()) panels_.graph->setFocus();
  center_->setCurrentWidget(panels_.graph);
  setWindowTitle(read_only ? tr("%1 (read-only) - Quanvas").arg(name) : tr("%1 - Quanvas").arg(name));
}

bool MainWindow::shows_project() const { return center_->currentWidget() == panels_.graph; }

void MainWindow::add_recent(const QString& path) {
  if (path.isEmpty() || !keep_layout_) return;
  QSettings settings;
  auto list = settings.value(QLatin1String(kRecentKey)).toStringList();
  list.removeAll(path);
  list.prepend(path);
  settings.setValue(QLatin1String(kRecentKey), QStringList(list.mid(0, kMostRecent)));
}

void MainWindow::fill_recent_menu() {
  auto* menu = actions_->submenu(QStringLiteral("recent"));
  menu->clear();
  const auto list = QSettings().value(QLatin1String(kRecentKey)).toStringList();
  for (const auto& path : list) {
    auto* action = menu->addAction(QFileInfo(path).fileName(), this, [this, path] { Q_EMIT open_wanted(path); });
    action->setToolTip(path);
    action->setEnabled(QFileInfo::exists(path));
  }
  if (list.isEmpty()) menu->addAction(tr("Nothing yet"))->setEnabled(false);
  else menu->addSeparator();
  if (!list.isEmpty()) menu->addAction(tr("Forget these"), this, [] { QSettings().remove(QLatin1String(kRecentKey)); });
}

void MainWindow::set_theme(ThemeMode mode) {
  Theme::instance().apply(mode);
  if (keep_layout_) QSettings().setValue(QLatin1String(kThemeKey), theme_mode_id(mode));
}

void MainWindow::open_palette() {
  std::vector<PaletteItem> items;
  if (palette_source_) items = palette_source_();
  for (QAction* a : actions_->all()) {
    if (!a->isEnabled() || a->objectName() == QLatin1String("palette")) continue;
    items.push_back({a->text().remove(u'&').remove(u'…'), a->data().toString(), a->shortcut().toString(QKeySequence::NativeText), [a] { a->trigger(); }});
  }
  auto* palette = new Palette(std::move(items), this);
  palette->move(palette_field_->mapToGlobal(QPoint(0, palette_field_->height() + 3)));
  palette->show();
  palette->box()->setFocus();
}

void MainWindow::showEvent(QShowEvent* event) {
  QMainWindow::showEvent(event);
  if (restored_) return;
  restored_ = true;
  start_->setFocus();
  // Docks share out their space when the window has its size, so the default is set again then.
  if (keep_layout_) QTimer::singleShot(0, this, [this] { docks_->restore_last(); });
  else QTimer::singleShot(0, this, [this] { docks_->restore_default(); });
}

void MainWindow::closeEvent(QCloseEvent* event) {
  if (may_close_ && !may_close_()) return event->ignore();
  if (keep_layout_) docks_->save_current();
  QMainWindow::closeEvent(event);
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event) {
  if (!dropped_file(event->mimeData()).isEmpty()) event->acceptProposedAction();
}

void MainWindow::dropEvent(QDropEvent* event) {
  const QString path = dropped_file(event->mimeData());
  if (path.isEmpty()) return;
  event->acceptProposedAction();
  Q_EMIT open_wanted(path);
}

}  // namespace quanvas
