#include "widgets/common/style_sheet.h"

namespace quanvas {

namespace {

// Names in @...@ are replaced by the colour of that role.
const char* const kFrames = R"(
QMainWindow, QDialog { background: @panel@; }
QMainWindow::separator { background: @line@; width: 1px; height: 1px; }
QMainWindow::separator:hover { background: @accent@; }
QDockWidget { titlebar-close-icon: url(:/icons/control-close.svg); titlebar-normal-icon: url(:/icons/control-float.svg); }
QDockWidget::title { background: @panel@; padding: 7px 10px; border-bottom: 1px solid @line@; text-align: left; }
QDockWidget::close-button, QDockWidget::float-button { border: none; padding: 2px; border-radius: 4px; }
QDockWidget::close-button:hover, QDockWidget::float-button:hover { background: @row@; }
QMenuBar { background: @panel@; border-bottom: 1px solid @line@; padding: 1px 4px; }
QMenuBar::item { padding: 4px 8px; border-radius: 4px; background: transparent; }
QMenuBar::item:selected { background: @accent_background@; }
QMenu { background: @panel@; border: 1px solid @line@; padding: 4px; }
QMenu::item { padding: 5px 28px 5px 10px; border-radius: 4px; }
QMenu::item:selected { background: @accent_background@; color: @text@; }
QMenu::item:disabled { color: @faint@; }
QMenu::separator { height: 1px; background: @line@; margin: 4px 6px; }
QMenu::icon { padding-left: 6px; }
QToolBar { qproperty-iconSize: 18px 18px; background: @panel@; border: none; border-bottom: 1px solid @line@; spacing: 6px; padding: 6px 10px; }
QToolBar::separator { width: 1px; background: @line@; margin: 4px 6px; }
QStatusBar { background: @panel@; border-top: 1px solid @line@; color: @muted@; }
QStatusBar::item { border: none; }
QToolTip { background: @panel@; color: @text@; border: 1px solid @line@; padding: 5px 7px; }
QSplitter::handle { background: @line@; }
QSplitter::handle:horizontal { width: 1px; }
QSplitter::handle:vertical { height: 1px; }
QScrollArea { background: @panel@; border: none; }
QGraphicsView { border: none; }
QFrame[role="block"] { background: @row@; border-radius: 6px; }
QLabel { background: transparent; }
QDialogButtonBox { dialogbuttonbox-buttons-have-icons: 0; }
QLabel[role="muted"] { color: @muted@; }
QLabel[role="title"] { font-weight: 600; }
QLabel[role="warning"] { color: @warning@; }
QLabel[role="error"] { color: @error@; }
QLabel[role="good"] { color: @good@; }
QGroupBox { border: none; border-top: 1px solid @line@; margin-top: 18px; padding-top: 8px; font-weight: 600; }
QGroupBox::title { subcontrol-origin: margin; left: 0px; top: 2px; }
)";

const char* const kButtons = R"(
QPushButton { min-height: 18px; padding: 4px 10px; border: 1px solid @line@; border-radius: 6px; background: @panel@; }
QPushButton:hover { background: @row@; border-color: @hover_line@; }
QPushButton:pressed, QPushButton:checked { background: @accent_background@; border-color: @accent@; }
QPushButton:focus { border-color: @accent@; }
QPushButton:disabled { color: @faint@; border-color: @grid@; }
QPushButton[primary="true"], QPushButton:default { background: @accent@; border-color: @accent@; color: @on_accent@; }
QPushButton[primary="true"]:hover, QPushButton:default:hover { background: @accent_hover@; border-color: @accent_hover@; }
QPushButton[primary="true"]:focus, QPushButton:default:focus { border: 1px solid @text@; }
QPushButton[primary="true"]:disabled, QPushButton:default:disabled
  { background: @row@; border-color: @line@; color: @faint@; }
QPushButton::menu-indicator { image: url(:/icons/control-down.svg); width: 10px; right: 6px; subcontrol-position: right center; }
QToolButton { padding: 4px 8px; border: 1px solid @line@; border-radius: 6px; background: @panel@; }
QToolButton[flat="true"], QTabBar QToolButton { border-color: transparent; background: transparent; padding: 3px; }
QToolButton:hover { background: @row@; border-color: @hover_line@; }
QToolButton:pressed, QToolButton:checked { background: @accent_background@; border-color: @accent@; }
QToolButton:focus { border-color: @accent@; }
QToolButton:disabled { color: @faint@; }
QToolButton[primary="true"] { background: @accent@; border-color: @accent@; color: @on_accent@; }
QToolButton[primary="true"]:hover { background: @accent_hover@; border-color: @accent_hover@; }
QToolButton[primary="true"]:focus { border: 1px solid @text@; }
QToolButton[primary="true"]:disabled { background: @row@; border-color: @line@; color: @faint@; }
QToolButton[popupMode="1"] { padding-right: 20px; }
QToolButton[popupMode="2"] { padding-right: 18px; }
QToolButton::menu-button { border: none; width: 16px; }
QToolButton::menu-arrow, QToolButton::menu-indicator
  { image: url(:/icons/control-down.svg); width: 10px; height: 10px; }
QToolButton::menu-indicator { subcontrol-position: right center; right: 5px; }
QCheckBox, QRadioButton { spacing: 6px; padding: 1px; background: transparent; }
QCheckBox::indicator, QGroupBox::indicator { width: 14px; height: 14px; border: 1px solid @field_line@; border-radius: 4px; background: @panel@; }
QCheckBox::indicator:hover, QCheckBox::indicator:focus { border-color: @accent@; }
QCheckBox::indicator:checked, QGroupBox::indicator:checked
  { background: @accent@; border-color: @accent@; image: url(:/icons/control-check-@variant@.svg); }
QCheckBox::indicator:indeterminate
  { background: @accent@; border-color: @accent@; image: url(:/icons/control-mixed-@variant@.svg); }
QCheckBox::indicator:disabled { background: @row@; border-color: @grid@; }
QCheckBox:focus, QRadioButton:focus { color: @accent@; }
QRadioButton::indicator { width: 12px; height: 12px; border: 1px solid @field_line@; border-radius: 7px; background: @panel@; }
QRadioButton::indicator:hover { border-color: @accent@; }
QRadioButton::indicator:checked { border: 4px solid @accent@; width: 6px; height: 6px; }
)";

const char* const kFields = R"(
QLineEdit, QComboBox, QAbstractSpinBox, QPlainTextEdit, QTextEdit
  { border: 1px solid @line@; border-radius: 5px; background: @panel@;
    selection-background-color: @accent@; selection-color: @on_accent@; }
QLineEdit, QComboBox, QAbstractSpinBox { min-height: 18px; padding: 3px 8px; }
QLineEdit:hover, QComboBox:hover, QAbstractSpinBox:hover { border-color: @hover_line@; }
QLineEdit:focus, QComboBox:focus, QAbstractSpinBox:focus, QPlainTextEdit:focus, QTextEdit:focus { border-color: @accent@; }
QLineEdit:disabled, QComboBox:disabled, QAbstractSpinBox:disabled { background: @row@; color: @faint@; border-color: @grid@; }
QLineEdit[invalid="true"], QAbstractSpinBox[invalid="true"] { border-color: @error@; }
QAbstractSpinBox QLineEdit, QComboBox QLineEdit { border: none; padding: 0; background: transparent; min-height: 0; }
QComboBox::drop-down { border: none; width: 20px; }
QComboBox::down-arrow { image: url(:/icons/control-down.svg); width: 10px; height: 10px; }
QComboBox QAbstractItemView { background: @panel@; border: 1px solid @line@; padding: 3px; outline: none;
  selection-background-color: @accent_background@; selection-color: @text@; }
QAbstractSpinBox { padding-right: 16px; }
QAbstractSpinBox::up-button { subcontrol-origin: border; subcontrol-position: top right; width: 15px; border: none; margin: 1px 2px 0 0; }
QAbstractSpinBox::down-button { subcontrol-origin: border; subcontrol-position: bottom right; width: 15px; border: none; margin: 0 2px 1px 0; }
QAbstractSpinBox::up-button:hover, QAbstractSpinBox::down-button:hover { background: @grid@; border-radius: 3px; }
QAbstractSpinBox::up-arrow { image: url(:/icons/control-up.svg); width: 8px; height: 8px; }
QAbstractSpinBox::down-arrow { image: url(:/icons/control-down.svg); width: 8px; height: 8px; }
QSlider::groove:horizontal { height: 4px; border-radius: 2px; background: @line@; }
QSlider::sub-page:horizontal { height: 4px; border-radius: 2px; background: @accent@; }
QSlider::handle:horizontal { width: 12px; height: 12px; margin: -6px 0; border: 2px solid @accent@; border-radius: 8px; background: @panel@; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: @accent_background@; }
QSlider::handle:horizontal:disabled { border-color: @line@; }
QSlider::sub-page:horizontal:disabled { background: @line@; }
QProgressBar { border: none; border-radius: 3px; background: @grid@; max-height: 6px; min-height: 6px; text-align: right; color: transparent; }
QProgressBar::chunk { background: @accent@; border-radius: 3px; }
)";

const char* const kViews = R"(
QAbstractItemView { background: @panel@; alternate-background-color: @row@; border: none; outline: none;
  selection-background-color: @accent_background@; selection-color: @text@; gridline-color: @grid@; }
QTableView::item, QTreeView::item { padding: 2px 6px; border-bottom: 1px solid @grid@; }
QListView::item { padding: 4px 8px; border-radius: 4px; }
QTableView::item:selected, QTreeView::item:selected, QListView::item:selected { background: @accent_background@; color: @text@; }
QTableView::item:hover:!selected, QTreeView::item:hover:!selected, QListView::item:hover:!selected { background: @row@; }
QHeaderView { background: @panel@; }
QHeaderView::section { background: @panel@; color: @muted@; border: none; border-bottom: 1px solid @line@; padding: 5px 6px; font-weight: normal; }
QHeaderView::section:checked { font-weight: normal; }
QHeaderView::section:hover { color: @text@; background: @row@; }
QHeaderView::up-arrow { image: url(:/icons/control-up.svg); width: 9px; height: 9px; subcontrol-position: right center; }
QHeaderView::down-arrow { image: url(:/icons/control-down.svg); width: 9px; height: 9px; subcontrol-position: right center; }
QTableCornerButton::section { background: @panel@; border: none; border-bottom: 1px solid @line@; }
QTabWidget::pane { border: none; background: @panel@; }
QTabWidget::tab-bar { left: 8px; }
QTabBar { background: @panel@; qproperty-drawBase: 0; }
QTabBar::tab { padding: 5px 10px; margin: 5px 2px; border-radius: 5px; color: @muted@; background: transparent; border: 1px solid transparent; }
QTabBar::tab:hover { color: @text@; background: @row@; }
QTabBar::tab:selected { color: @accent_text@; background: @accent_background@; font-weight: 600; }
QTabBar::tab:focus { border-color: @accent@; }
QTabBar::tab:disabled { color: @faint@; }
QTabBar::close-button { image: url(:/icons/control-close.svg); }
QScrollBar { background: transparent; border: none; }
QScrollBar:vertical { width: 11px; }
QScrollBar:horizontal { height: 11px; }
QScrollBar::handle { background: @scroll@; border-radius: 3px; margin: 2px 3px; }
QScrollBar::handle:vertical { min-height: 28px; margin: 2px 3px; }
QScrollBar::handle:horizontal { min-width: 28px; margin: 3px 2px; }
QScrollBar::handle:hover { background: @muted@; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; border: none; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QAbstractScrollArea::corner { background: transparent; }
)";

}  // namespace

QString style_sheet(const Colors& c) {
  const std::pair<const char*, QColor> roles[] = {
      {"background", c.background}, {"panel", c.panel},   {"row", c.row},
      {"line", c.line},             {"grid", c.grid},     {"text", c.text},
      {"muted", c.muted},           {"accent", c.accent}, {"on_accent", c.on_accent},
      {"accent_background", c.accent_background},         {"warning", c.warning},
      {"good", c.good},             {"error", c.error},   {"faint", mix(c.muted, c.panel, 0.35)},
      {"hover_line", mix(c.line, c.muted, 0.5)},          {"field_line", mix(c.line, c.muted, 0.6)},
      {"scroll", mix(c.line, c.muted, 0.25)},
      {"accent_hover", mix(c.accent, c.dark ? QColor(Qt::white) : QColor(Qt::black), 0.1)},
      {"accent_text", c.dark ? c.accent : mix(c.accent, QColor(Qt::black), 0.08)}};
  QString sheet = QString::fromLatin1(kFrames) + QLatin1String(kButtons) + QLatin1String(kFields) +
                  QLatin1String(kViews);
  for (const auto& [name, color] : roles)
    sheet.replace(QLatin1Char('@') + QLatin1String(name) + QLatin1Char('@'), color.name());
  sheet.replace(QLatin1String("@variant@"), QLatin1String(c.dark ? "dark" : "light"));
  return sheet;
}

}  // namespace quanvas
