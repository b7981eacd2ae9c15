#include "app/window/actions.h"

#include <QCoreApplication>

#include "widgets/common/icons.h"

namespace quanvas {
namespace {

struct Row {
  const char* menu;      // where it stands; rows of a menu follow each other. ">name": in that submenu of the menu above
  const char* id;        // "-": separator; ">name": submenu
  const char* title;
  const char* shortcut;
  const char* icon;
  const char* tip;
};
#define T(text) QT_TRANSLATE_NOOP("Actions", text)
const Row kRows[] = {
    {T("&File"), "open", T("&Open…"), "Ctrl+O", "open", T("Open a model or a project")},
    {T("&File"), ">example", T("Open e&xample"), "", "", ""},
    {T("&File"), ">recent", T("Open &recent"), "", "", ""},
    {T("&File"), "-", "", "", "", ""},
    {T("&File"), "save-copy", T("Save a &copy…"), "Ctrl+Shift+S", "", T("Edits are stored at once; this writes a copy of the project elsewhere")},
    {T("&File"), "save-picture", T("Save &picture of the graph…"), "", "", ""},
    {T("&File"), "-", "", "", "", ""},
    {T("&File"), "quit", T("&Quit"), "Ctrl+Q", "", ""},
    {T("&Edit"), "undo", T("&Undo"), "Ctrl+Z", "undo", ""},
    {T("&Edit"), "redo", T("&Redo"), "Ctrl+Shift+Z", "redo", ""},
    {T("&Edit"), "-", "", "", "", ""},
    {T("&Edit"), "select-all", T("Select &all layers"), "Ctrl+Shift+A", "", ""},
    {T("&Edit"), "select-none", T("Select &none"), "Ctrl+Shift+N", "", ""},
    {T("&Edit"), "find", T("&Find in the graph"), "Ctrl+F", "search", ""},
    {T("&Edit"), "filter", T("F&ilter layers"), "Ctrl+L", "", ""},
    {T("&Edit"), "palette", T("&Go to…"), "Ctrl+K", "", T("Layers, actions and presets by a few letters")},
    {T("&View"), ">panels", T("&Panels"), "", "", ""},
    {T("&View"), ">layouts", T("&Layouts"), "", "", ""},
    {T("&View"), ">color-by", T("&Colour by"), "", "", ""},
    {T("&View"), "cumulative", T("Cumulative &error on the cards"), "", "", T("Error of the newest run with the whole network quantized, instead of each layer alone")},
    {T("&View"), ">theme", T("&Theme"), "", "", ""},
    {T("&View"), "-", "", "", "", ""},
    {T("&View"), ">path", T("&Path of the selection"), "", "", ""},
    {">path", "path-off", T("&No path"), "", "", ""},
    {">path", "path-upstream", T("Path &upstream"), "U", "", T("What the selected nodes depend on stands out")},
    {">path", "path-downstream", T("Path &downstream"), "D", "", T("What depends on the selected nodes stands out")},
    {">path", "path-both", T("Path in &both directions"), "P", "", T("What the selected nodes depend on, and what depends on them, stands out")},
    {T("&View"), "zoom-in", T("Zoom &in"), "Ctrl++", "zoom-in", ""},
    {T("&View"), "zoom-out", T("Zoom &out"), "Ctrl+-", "zoom-out", ""},
    {T("&View"), "fit", T("&Fit the graph"), "Ctrl+0", "fit", ""},
    {T("&View"), "expand", T("Open all &groups"), "", "", ""},
    {T("&View"), "collapse", T("C&lose all groups"), "", "", ""},
    {T("&Model"), "data", T("&Data set…"), "Ctrl+D", "", T("Which samples calibrate, train and evaluate")},
    {T("&Model"), "shapes", T("&Input shapes…"), "", "", T("Sizes of the inputs that the model file leaves open")},
    {T("&Model"), "quantizers", T("&Quantizers of the file…"), "", "", T("Whether the quantizers that the model file carries are rules or nodes")},
    {T("&Model"), "trusted", T("&Trusted files…"), "", "", T("Files whose code may run when they are opened; take that back")},
    {T("&Model"), "-", "", "", "", ""},
    {T("&Model"), "calibrate", T("&Calibrate"), "F6", "calibrate", T("Gather the ranges of activations")},
    {T("&Model"), "evaluate-float", T("&Evaluate in float"), "", "", T("Accuracy of the network as it was imported")},
    {T("&Recipe"), "add-rule", T("&Add a rule…"), "Ctrl+R", "plus", ""},
    {T("&Recipe"), "reset-layer", T("&Remove own rules of the selection"), "", "", T("The selected layers follow the general rules again")},
    {T("&Recipe"), "-", "", "", "", ""},
    {T("&Recipe"), ">builtin", T("&Built-in recipes"), "", "", ""},
    {T("&Recipe"), "load-recipe", T("&Load…"), "", "", ""},
    {T("&Recipe"), "save-recipe", T("&Save as…"), "", "", ""},
    {T("R&un"), "run", T("&Run recipe"), "F5", "run", T("Quantize, evaluate and keep the result")},
    {T("R&un"), "train", T("&Train…"), "F7", "train", T("Quantization-aware training")},
    {T("R&un"), "sweep", T("&Sweep…"), "F8", "sweep", T("Measure each layer at each width")},
    {T("R&un"), "-", "", "", "", ""},
    {T("R&un"), "cancel", T("&Cancel"), "Ctrl+.", "stop", T("Stop the job that runs")},
    {T("&Compare"), "compare", T("&Compare the selected runs"), "Ctrl+Shift+C", "compare", ""},
    {T("&Compare"), "run-details", T("&Details of the run"), "", "info", ""},
    {T("&Compare"), "restore", T("&Restore the run's recipe"), "", "restore", ""},
    {T("E&xport"), "export", T("&Export…"), "Ctrl+E", "export", T("Write the quantized network for a target")},
    {T("E&xport"), "export-run", T("Export the selected &run…"), "", "", ""},
    {T("&Help"), "shortcuts", T("&Shortcuts"), "F1", "", ""},
    {T("&Help"), "about", T("&About Quanvas"), "", "", ""},
};
#undef T

QString translate(const char* text) { return *text ? QCoreApplication::translate("Actions", text) : QString(); }

QString plain(QString title) { return title.remove(u'&').remove(u'…'); }

}  // namespace

Actions::Actions(QWidget* window) : QObject(window), window_(window) {
  QString menu;
  for (const auto& row : kRows) {
    if (*row.menu != '>') menu = plain(translate(row.menu));
    const QString id = QLatin1String(row.id);
    if (id == QLatin1String("-")) continue;
    if (id.startsWith(u'>')) {
      submenus_[id.mid(1)] = new QMenu(translate(row.title), window);
      continue;
    }
    auto* action = new QAction(translate(row.title), window);
    action->setObjectName(id);
    if (*row.shortcut) action->setShortcut(QKeySequence(QLatin1String(row.shortcut)));
    // A letter alone is the graph's own key: menus only show it, or no letter could be typed anywhere.
    if (qstrlen(row.shortcut) == 1) action->setShortcutContext(Qt::WidgetShortcut);
    if (*row.icon) action->setIcon(icon(QLatin1String(row.icon)));
    action->setIconVisibleInMenu(false);
    QString tip = *row.tip ? translate(row.tip) : plain(action->text());
    if (*row.shortcut) tip += QStringLiteral(" (%1)").arg(action->shortcut().toString(QKeySequence::NativeText));
    action->setToolTip(tip);
    action->setData(menu);
    window->addAction(action);
    actions_[id] = action;
    order_.push_back(action);
  }
}

QAction* Actions::at(const QString& id) const {
  const auto it = actions_.find(id);
  Q_ASSERT_X(it != actions_.end(), "Actions", qPrintable(id));
  return it->second;
}

QMenu* Actions::submenu(const QString& id) const { return submenus_.at(id); }

void Actions::enable(const QStringList& ids, bool enabled) {
  for (const auto& id : ids) at(id)->setEnabled(enabled);
}

void Actions::fill(QMenuBar* bar) {
  QMenu* menu = nullptr;
  const char* last = "";
  for (const auto& row : kRows) {
    const QString id = QLatin1String(row.id);
    if (*row.menu == '>') {
      submenu(QLatin1String(row.menu + 1))->addAction(at(id));
      continue;
    }
    if (qstrcmp(row.menu, last) != 0) menu = bar->addMenu(translate(row.menu));
    last = row.menu;
    menu->setToolTipsVisible(true);
    if (id == QLatin1String("-")) menu->addSeparator();
    else if (id.startsWith(u'>')) menu->addMenu(submenu(id.mid(1)));
    else menu->addAction(at(id));
  }
}

}  // namespace quanvas
