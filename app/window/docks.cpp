#include "app/window/docks.h"

#include <algorithm>

#include <QDockWidget>
#include <QInputDialog>
#include <QLineEdit>
#include <QSettings>
#include <QTabBar>
#include <QTimer>

#include "app/window/panels.h"

namespace quanvas {
namespace {

// Raised when panels are added or their names change; older states are then left alone.
constexpr int kStateVersion = 2;
constexpr int kLeftWidth = 506, kRightWidth = 322, kBottomHeight = 236;

QString state_key(const QString& name) { return QStringLiteral("layouts/v%1/%2").arg(kStateVersion).arg(name); }
QString last_key() { return QStringLiteral("window/state-v%1").arg(kStateVersion); }

}  // namespace

Docks::Docks(QMainWindow* window, const Panels& p) : QObject(window), window_(window) {
  headers_timer_.setSingleShot(true);
  headers_timer_.setInterval(0);
  connect(&headers_timer_, &QTimer::timeout, this, &Docks::update_headers);
  window->setDockOptions(QMainWindow::AllowNestedDocks | QMainWindow::AllowTabbedDocks | QMainWindow::AnimatedDocks);
  window->setTabPosition(Qt::AllDockWidgetAreas, QTabWidget::North);
  add(p.layers, Qt::LeftDockWidgetArea);
  add(p.recipe, Qt::LeftDockWidgetArea);
  add(p.target, Qt::LeftDockWidgetArea);
  add(p.inspector, Qt::RightDockWidgetArea);
  for (Panel* panel : {static_cast<Panel*>(p.distribution), static_cast<Panel*>(p.sweep), static_cast<Panel*>(p.error), static_cast<Panel*>(p.runs),
                       static_cast<Panel*>(p.jobs), static_cast<Panel*>(p.issues), static_cast<Panel*>(p.history)})
    add(panel, Qt::BottomDockWidgetArea);
  restore_default();
}

QDockWidget* Docks::add(Panel* panel, Qt::DockWidgetArea area) {
  auto* dock = new QDockWidget(panel->title(), window_);
  dock->setObjectName(panel->objectName());
  dock->setWidget(panel);
  auto* header = new PanelHeader(panel, dock);
  dock->setTitleBarWidget(header);
  window_->addDockWidget(area, dock);
  connect(panel, &Panel::header_changed, dock, [panel, dock] { dock->setWindowTitle(panel->name()); });
  connect(header, &PanelHeader::tab_chosen, this, &Docks::show_panel);
  // One change of the layout sends many of these, and a tab bar is made after the signal that told of its docks.
  const auto later = qOverload<>(&QTimer::start);
  for (auto signal : {&QDockWidget::visibilityChanged, &QDockWidget::topLevelChanged}) connect(dock, signal, &headers_timer_, later);
  connect(dock, &QDockWidget::dockLocationChanged, &headers_timer_, later);
  docks_.emplace_back(panel, dock);
  return dock;
}

// The headers show the tabs; the main window's own tab bars, one more row, have no height.
void Docks::update_headers() {
  for (const auto& [panel, dock] : docks_) {
    const auto others = dock->isFloating() ? QList<QDockWidget*>() : window_->tabifiedDockWidgets(dock);
    std::vector<Panel*> group;
    for (const auto& [p, d] : docks_)
      if (d == dock || (others.contains(d) && !d->isHidden())) group.push_back(p);
    static_cast<PanelHeader*>(dock->titleBarWidget())->set_group(group);
  }
  for (auto* bar : window_->findChildren<QTabBar*>(QString(), Qt::FindDirectChildrenOnly)) {
    if (bar->maximumHeight() == 0) continue;
    bar->setStyleSheet(QStringLiteral("QTabBar, QTabBar::tab { height: 0; min-height: 0; max-height: 0; padding: 0; margin: 0; border: none; font-size: 1px; }"));
    bar->setMaximumHeight(0);
  }
}

void Docks::restore_default() {
  const auto at = [&](const char* name) {
    for (const auto& [panel, dock] : docks_)
      if (panel->objectName() == QLatin1String(name)) return dock;
    return static_cast<QDockWidget*>(nullptr);
  };
  for (const auto& [panel, dock] : docks_) {
    dock->setFloating(false);
    window_->removeDockWidget(dock);
  }
  const auto put = [&](Qt::DockWidgetArea area, const char* name) {
    window_->addDockWidget(area, at(name));
    at(name)->show();
  };
  const auto tab = [&](const char* first, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      window_->addDockWidget(window_->dockWidgetArea(at(first)), at(name));
      window_->tabifyDockWidget(at(first), at(name));
      at(name)->show();
    }
    at(first)->raise();
  };
  put(Qt::LeftDockWidgetArea, "layers");
  tab("layers", {"recipe", "target"});
  put(Qt::RightDockWidgetArea, "inspector");
  put(Qt::BottomDockWidgetArea, "distribution");
  window_->splitDockWidget(at("distribution"), at("sweep"), Qt::Horizontal);
  window_->splitDockWidget(at("sweep"), at("runs"), Qt::Horizontal);
  at("sweep")->show();
  at("runs")->show();
  tab("sweep", {"error"});
  tab("runs", {"jobs", "issues", "history"});
  window_->resizeDocks({at("layers"), at("inspector")}, {kLeftWidth, kRightWidth}, Qt::Horizontal);
  window_->resizeDocks({at("distribution"), at("sweep"), at("runs")}, {kLeftWidth, 476, 462}, Qt::Horizontal);
  window_->resizeDocks({at("distribution")}, {kBottomHeight}, Qt::Vertical);
  update_headers();
}

void Docks::show_panel(Panel* panel) {
  for (const auto& [p, dock] : docks_) {
    if (p != panel) continue;
    dock->show();
    dock->raise();
  }
}

void Docks::fill_panels_menu(QMenu* menu) const {
  for (const auto& [panel, dock] : docks_) menu->addAction(dock->toggleViewAction());
}

bool Docks::apply(const QByteArray& state) {
  if (state.isEmpty() || !window_->restoreState(state, kStateVersion)) return false;
  update_headers();
  return true;
}

QStringList Docks::layout_names() {
  QSettings settings;
  settings.beginGroup(QStringLiteral("layouts/v%1").arg(kStateVersion));
  return settings.childKeys();
}

void Docks::save_as(const QString& name) const { QSettings().setValue(state_key(name), window_->saveState(kStateVersion)); }

void Docks::save_current() const {
  QSettings settings;
  settings.setValue(last_key(), window_->saveState(kStateVersion));
  settings.setValue(QStringLiteral("window/geometry"), window_->saveGeometry());
}

void Docks::restore_last() {
  QSettings settings;
  window_->restoreGeometry(settings.value(QStringLiteral("window/geometry")).toByteArray());
  const QByteArray state = settings.value(last_key()).toByteArray();
  if (!state.isEmpty() && !apply(state)) restore_default();
}

void Docks::fill_layouts_menu(QMenu* menu) {
  connect(menu, &QMenu::aboutToShow, this, [this, menu] {
    menu->clear();
    menu->addAction(tr("Default"), this, &Docks::restore_default);
    const auto names = layout_names();
    if (!names.isEmpty()) menu->addSeparator();
    for (const auto& name : names)
      menu->addAction(name, this, [this, name] {
        if (!apply(QSettings().value(state_key(name)).toByteArray())) restore_default();
      });
    menu->addSeparator();
    menu->addAction(tr("Save layout…"), this, [this] {
      const QString name = QInputDialog::getText(window_, tr("Save layout"), tr("Name")).trimmed().replace(u'/', u'-');
      if (!name.isEmpty()) save_as(name);
    });
    auto* remove = menu->addMenu(tr("Delete layout"));
    remove->setEnabled(!names.isEmpty());
    for (const auto& name : names) remove->addAction(name, this, [name] { QSettings().remove(state_key(name)); });
  });
}

}  // namespace quanvas
