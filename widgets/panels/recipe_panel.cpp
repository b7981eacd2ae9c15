#include "widgets/panels/recipe_panel.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include <QAction>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QToolButton>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "core/recipe/plan.h"
#include "widgets/common/icons.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/models/counted.h"
#include "widgets/panels/issues_panel.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }
constexpr int kBitsRole = Qt::UserRole;
// "conv1: the sentence. What to do."
QString issue_line(const Issue& issue) {
  QString line = issue.where.empty() ? qs(issue.message) : qs(issue.where) + QStringLiteral(": ") + qs(issue.message);
  if (!issue.hint.empty()) line += u' ' + qs(issue.hint);
  return line;
}
constexpr int kNumberWidth = 36, kMarkWidth = 28, kChipColumn = 84;

struct RuleFormat {
  QString chip, tooltip;
  int bits = 0;
};
RuleFormat rule_format(const Rule& rule) {
  if (rule.is_float) return {RecipePanel::tr("float"), RecipePanel::tr("These sites stay float."), 0};
  const auto spec = rule_spec(rule, PresetLibrary::builtin());
  if (!spec) return {QStringLiteral("!"), qs(spec.error().text()), 0};
  const SiteKind kind = rule.select.sites.empty() ? SiteKind::kWeight : rule.select.sites.front();
  return {qs(chip_text(*spec, kind)), qs(describe(*spec)), code_bits(*spec)};
}

QString share_words(const Rule& rule) {
  if (rule.share == "edge") return RecipePanel::tr("One quantizer for each edge; edges that one addition or concatenation reads have one scale.");
  return rule.share == "node" ? RecipePanel::tr("The inputs of each layer share one quantizer.")
                              : RecipePanel::tr("Shares one quantizer with all sites named “%1”.").arg(qs(rule.share));
}

Schema calibration_schema() {
  return {{integer_field("samples", RecipePanel::tr("Samples").toStdString(),
                         RecipePanel::tr("Samples of the calibration split that the statistics are gathered from; 0: all.").toStdString(), 512, 0, 1e9),
           integer_field("seed", RecipePanel::tr("Seed").toStdString(), RecipePanel::tr("Chooses which samples.").toStdString(), 0, 0, 2e9)}};
}

QLabel* heading(const QString& text, QWidget* parent) {
  auto* label = new QLabel(text, parent);
  label->setProperty("role", "title");
  return label;
}

QTreeWidget* make_tree(QWidget* parent, const QStringList& titles, const QString& name) {
  auto* tree = new QTreeWidget(parent);
  tree->setHeaderLabels(titles);
  tree->setRootIsDecorated(false);
  tree->setUniformRowHeights(true);
  tree->setAccessibleName(name);
  tree->setSizeAdjustPolicy(QAbstractScrollArea::AdjustToContents);
  tree->header()->setStretchLastSection(false);
  return tree;
}

// As high as its rows, so that the panel scrolls and not each list in it.
void fit_height(QTreeWidget* tree) {
  const int rows = std::max(1, tree->topLevelItemCount());
  const int header = tree->header()->isHidden() ? 0 : tree->header()->sizeHint().height();
  tree->setFixedHeight(header + rows * std::max(25, tree->sizeHintForRow(0)) + 4);
}

}  // namespace

RecipePanel::RecipePanel(QWidget* parent) : Panel(QStringLiteral("recipe"), tr("Recipe"), parent) {
  auto* content = new QWidget(this);
  auto* layout = new QVBoxLayout(content);
  layout->setContentsMargins(12, 10, 12, 12);
  layout->setSpacing(14);
  for (QWidget* w : {build_header(), build_rules(), build_passes(), build_calibration()}) layout->addWidget(w);
  layout->addStretch(1);
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  outer->addWidget(scroll_page(content, this));
}

QToolButton* RecipePanel::tool(const char* icon_name, const QString& title, QWidget* parent) {
  auto* button = new QToolButton(parent);
  button->setIcon(icon(QLatin1String(icon_name)));
  button->setToolTip(title);
  button->setAccessibleName(title);
  button->setProperty("flat", true);
  return button;
}

QWidget* RecipePanel::build_header() {
  auto* box = new QWidget(this);
  auto* row = new QHBoxLayout(box);
  row->setContentsMargins(0, 0, 0, 0);
  name_ = new QLineEdit(box);
  name_->setAccessibleName(tr("Name of the recipe"));
  auto* file = new QToolButton(box);
  file->setText(tr("Recipes"));
  file->setPopupMode(QToolButton::InstantPopup);
  auto* menu = new QMenu(file);
  builtin_ = menu->addMenu(tr("Built-in"));
  menu->addAction(tr("Load…"), this, &RecipePanel::load_wanted);
  menu->addAction(tr("Save as…"), this, &RecipePanel::save_wanted);
  file->setMenu(menu);
  for (const auto& id : builtin_recipe_ids())
    builtin_->addAction(qs(id), this, [this, id] { Q_EMIT builtin_wanted(qs(id)); });
  row->addWidget(name_, 1);
  row->addWidget(file);
  connect(name_, &QLineEdit::editingFinished, this, [this] {
    if (filling_ || name_->text().toStdString() == recipe_.name) return;
    Recipe r = recipe_;
    r.name = name_->text().toStdString();
    edit(r, tr("Rename recipe to %1").arg(name_->text()));
  });
  return box;
}

RecipePanel::Section RecipePanel::section(const QString& title, const QString& hint) {
  Section s;
  s.box = new QWidget(this);
  s.layout = new QVBoxLayout(s.box);
  s.layout->setContentsMargins(0, 0, 0, 0);
  s.layout->setSpacing(4);
  s.head = new QHBoxLayout;
  s.head->setSpacing(2);
  s.head->addWidget(heading(title, s.box));
  s.head->addSpacing(5);
  auto* words = new QLabel(hint, s.box);
  words->setProperty("role", "muted");
  s.head->addWidget(words);
  s.head->addStretch(1);
  s.layout->addLayout(s.head);
  return s;
}

void RecipePanel::add_button(const Section& section, const char* icon_name, const QString& title, const std::function<void()>& act) {
  auto* button = tool(icon_name, title, section.box);
  connect(button, &QToolButton::clicked, this, act);
  section.head->addWidget(button);
}

void RecipePanel::add_list_buttons(const Section& section, QTreeWidget* list, const ListTitles& titles, const std::function<void(int)>& move,
                                   const std::function<void(int)>& remove) {
  const auto with_current = [this, list](const std::function<void(int)>& fn) {
    return [this, list, fn] {
      if (const int i = current(list); i >= 0) fn(i);
    };
  };
  const std::tuple<const char*, QString, QKeySequence, std::function<void()>> rows[] = {
      {"chevron-up", titles.up, QKeySequence(Qt::ALT | Qt::Key_Up), [move] { move(-1); }},
      {"chevron-down", titles.down, QKeySequence(Qt::ALT | Qt::Key_Down), [move] { move(1); }},
      {"minus", titles.remove, QKeySequence(QKeySequence::Delete), with_current(remove)}};
  for (const auto& [icon_name, title, key, act] : rows) {
    add_button(section, icon_name, title, act);
    auto* action = new QAction(title, list);
    action->setShortcut(key);
    action->setShortcutContext(Qt::WidgetShortcut);
    connect(action, &QAction::triggered, this, act);
    list->addAction(action);
  }
}

QWidget* RecipePanel::build_rules() {
  const Section s = section(tr("Rules"), tr("the last match wins"));
  auto* box = s.box;
  rules_ = make_tree(box, {tr("#"), tr("Sites"), tr("Format"), tr("Decides")}, tr("Rules"));
  rules_->setItemDelegate(new ChipDelegate(kBitsRole, -1, -1, rules_));
  rules_->header()->setMinimumSectionSize(24);
  rules_->header()->setSectionResizeMode(QHeaderView::Fixed);
  rules_->header()->setSectionResizeMode(1, QHeaderView::Stretch);
  rules_->headerItem()->setTextAlignment(3, Qt::AlignRight | Qt::AlignVCenter);
  const auto title_width = [this](int column) { return rules_->fontMetrics().horizontalAdvance(rules_->headerItem()->text(column)) + 22; };
  rules_->header()->resizeSection(0, std::max(kNumberWidth, title_width(0)));
  rules_->header()->resizeSection(2, std::max(kChipColumn, title_width(2)));
  rules_->header()->resizeSection(3, title_width(3));
  add_button(s, "plus", tr("Add a rule…"), [this] { Q_EMIT rule_edit_wanted(-1); });
  add_list_buttons(
      s, rules_, {tr("Move the rule up"), tr("Move the rule down"), tr("Delete the rule")}, [this](int by) { move_rule(by); },
      [this](int i) { edit(without_rule(recipe_, i), tr("Delete rule %1").arg(i + 1)); });
  connect(rules_, &QTreeWidget::itemActivated, this, [this](QTreeWidgetItem* item) { Q_EMIT rule_edit_wanted(rules_->indexOfTopLevelItem(item)); });
  warnings_ = new QLabel(box);
  warnings_->setProperty("role", "warning");
  warnings_->setWordWrap(true);
  s.layout->addWidget(rules_);
  s.layout->addWidget(warnings_);
  return box;
}

QWidget* RecipePanel::build_passes() {
  const Section s = section(tr("Passes"), tr("in this order"));
  auto* box = s.box;
  auto* add = tool("plus", tr("Add a pass"), box);
  add->setPopupMode(QToolButton::InstantPopup);
  add_pass_ = new QMenu(add);
  add_pass_->setToolTipsVisible(true);
  add->setMenu(add_pass_);
  s.head->addWidget(add);
  passes_ = make_tree(box, {tr("Pass"), tr("Problems")}, tr("Passes"));
  passes_->header()->hide();
  passes_->header()->setMinimumSectionSize(kMarkWidth);
  passes_->header()->setSectionResizeMode(0, QHeaderView::Stretch);
  passes_->header()->setSectionResizeMode(1, QHeaderView::Fixed);
  passes_->header()->resizeSection(1, kMarkWidth);
  add_list_buttons(
      s, passes_, {tr("Move the pass up"), tr("Move the pass down"), tr("Remove the pass")}, [this](int by) { move_pass(by); },
      [this](int i) {
        Recipe r = recipe_;
        r.passes.erase(r.passes.begin() + i);
        edit(r, tr("Remove pass %1").arg(entry_title(entries_, recipe_.passes[static_cast<std::size_t>(i)].id)));
      });
  pass_doc_ = new QLabel(box);
  pass_doc_->setProperty("role", "muted");
  pass_doc_->setWordWrap(true);
  pass_form_ = new SchemaForm(box);
  pass_issues_ = new QWidget(box);
  pass_issues_->setObjectName(QStringLiteral("pass-issues"));
  auto* issues = new QVBoxLayout(pass_issues_);
  issues->setContentsMargins(0, 2, 0, 2);
  issues->setSpacing(4);
  pass_scope_ = new QWidget(box);
  auto* scope = new QHBoxLayout(pass_scope_);
  scope->setContentsMargins(0, 0, 0, 0);
  pass_layers_ = new QLabel(pass_scope_);
  pass_layers_->setWordWrap(true);
  pass_layers_->setObjectName(QStringLiteral("pass-layers"));
  scope->addWidget(pass_layers_, 1);
  const auto button = [&](const char* name, const QString& text) {
    auto* b = new QToolButton(pass_scope_);
    b->setObjectName(QLatin1String(name));
    b->setText(text);
    scope->addWidget(b);
    return b;
  };
  pass_selected_ = button("pass-selected", tr("Selection"));
  pass_all_ = button("pass-all", tr("All"));
  connect(pass_selected_, &QToolButton::clicked, this, [this] { limit_pass(selected_, tr("%1: these layers only")); });
  connect(pass_all_, &QToolButton::clicked, this, [this] { limit_pass({}, tr("%1: all layers")); });
  for (QWidget* w : {static_cast<QWidget*>(passes_), static_cast<QWidget*>(pass_doc_), pass_issues_, pass_scope_, static_cast<QWidget*>(pass_form_)}) s.layout->addWidget(w);
  connect(passes_, &QTreeWidget::currentItemChanged, this, [this] { show_pass_form(); });
  connect(passes_, &QTreeWidget::itemChanged, this, [this](QTreeWidgetItem* item) {
    const int i = passes_->indexOfTopLevelItem(item);
    if (filling_ || i < 0) return;
    Recipe r = recipe_;
    auto& pass = r.passes[static_cast<std::size_t>(i)];
    pass.enabled = item->checkState(0) == Qt::Checked;
    edit(r, (pass.enabled ? tr("Switch on %1") : tr("Switch off %1")).arg(entry_title(entries_, pass.id)));
  });
  connect(pass_form_, &SchemaForm::edited, this, [this](const QString& key, const json& value, bool continuous) {
    const int i = current(passes_);
    if (i < 0) return;
    Recipe r = recipe_;
    auto& pass = r.passes[static_cast<std::size_t>(i)];
    pass.options[key.toStdString()] = value;
    edit(r, tr("%1: %2").arg(entry_title(entries_, pass.id), key), continuous ? QStringLiteral("pass/%1/%2").arg(i).arg(key) : QString());
  });
  return box;
}

QWidget* RecipePanel::build_calibration() {
  const Section s = section(tr("Calibration"), {});
  calibration_ = new SchemaForm(s.box);
  calibration_->set_schema(calibration_schema());
  s.layout->addWidget(calibration_);
  connect(calibration_, &SchemaForm::edited, this, [this](const QString& key, const json& value, bool) {
    json j = to_json_value(recipe_.calibration);
    j[key.toStdString()] = value;
    const auto settings = from_json_value<CalibrationSettings>(j, "calibration");
    if (!settings) return calibration_->set_error(key.toStdString(), qs(settings.error().text()));
    Recipe r = recipe_;
    r.calibration = *settings;
    edit(r, tr("Calibration: %1").arg(key), QStringLiteral("calibration/") + key);
  });
  return s.box;
}

void RecipePanel::set_enabled(bool enabled) { setEnabled(enabled); }

int RecipePanel::current(const QTreeWidget* tree) const {
  return tree->currentItem() ? tree->indexOfTopLevelItem(tree->currentItem()) : -1;
}

void RecipePanel::edit(const Recipe& recipe, const QString& label, const QString& merge_key) {
  Q_EMIT recipe_edited(recipe, label, merge_key);
}

int RecipePanel::moved_to(QTreeWidget* list, int by) {
  const int from = current(list), to = from + by;
  if (from < 0 || to < 0 || to >= list->topLevelItemCount()) return -1;
  list->setCurrentItem(list->topLevelItem(to));
  return to;
}

void RecipePanel::move_rule(int by) {
  if (const int to = moved_to(rules_, by); to >= 0)
    edit(with_rule_moved(recipe_, to - by, to), tr("Move rule %1 to %2").arg(to - by + 1).arg(to + 1));
}

void RecipePanel::move_pass(int by) {
  const int to = moved_to(passes_, by);
  if (to < 0) return;
  const QString title = entry_title(entries_, recipe_.passes[static_cast<std::size_t>(to - by)].id);
  edit(with_pass_moved(recipe_, to - by, to), tr("Move %1").arg(title));
}

void RecipePanel::set_passes(const std::vector<PluginEntry>& passes) {
  entries_ = passes;
  add_pass_->clear();
  for (const auto& e : entries_) {
    auto* action = add_pass_->addAction(qs(e.title));
    action->setToolTip(qs(e.doc));
    connect(action, &QAction::triggered, this, [this, id = e.id, title = e.title] {
      Recipe r = recipe_;
      r.passes.push_back({id, true, json::object()});
      edit(r, tr("Add pass %1").arg(qs(title)));
    });
  }
  fill_passes();
}

void RecipePanel::set_recipe(const Recipe& recipe, const std::vector<int>& matches, const std::vector<std::string>& warnings) {
  const bool passes_changed = !(recipe.passes == recipe_.passes) || passes_->topLevelItemCount() == 0;
  recipe_ = recipe;
  filling_ = true;
  if (!name_->hasFocus()) name_->setText(qs(recipe.name));
  set_subtitle(qs(recipe.name) + QStringLiteral(", ") + counted(static_cast<double>(recipe.rules.size()), tr("1 rule"), tr("%1 rules")));
  fill_rules(matches);
  if (passes_changed) {
    fill_passes();
    set_issues({});  // they go by place; what is said of the new list comes
  }
  calibration_->set_values(to_json_value(recipe.calibration));
  QStringList lines;
  for (const auto& w : warnings) lines << qs(w);
  warnings_->setText(lines.join(u'\n'));
  warnings_->setVisible(!lines.isEmpty());
  filling_ = false;
}

void RecipePanel::add_rule_item(int index, int matches) {
  const Rule& rule = recipe_.rules[static_cast<std::size_t>(index)];
  const auto format = rule_format(rule);
  const QString words = qs(describe(rule.select));
  auto* item = new QTreeWidgetItem(rules_, {QString::number(index + 1), rule.share.empty() ? words : tr("%1, shared").arg(words), format.chip, QString::number(matches)});
  item->setData(2, kBitsRole, format.bits);
  QStringList lines = {words};
  if (!rule.share.empty()) lines << share_words(rule);
  if (!rule.note.empty()) lines << qs(rule.note);
  item->setToolTip(1, lines.join(u'\n'));
  item->setToolTip(2, rule.share.empty() ? format.tooltip : format.tooltip + QStringLiteral("\n") + share_words(rule));
  item->setToolTip(3, tr("Sites whose format this rule decides; later rules may win over it."));
  item->setTextAlignment(3, Qt::AlignRight | Qt::AlignVCenter);
}

void RecipePanel::fill_rules(const std::vector<int>& matches) {
  const int row = current(rules_);
  rules_->clear();
  for (std::size_t i = 0; i < recipe_.rules.size(); ++i)
    add_rule_item(static_cast<int>(i), i < matches.size() ? matches[i] : 0);
  if (row >= 0 && row < rules_->topLevelItemCount()) rules_->setCurrentItem(rules_->topLevelItem(row));
  fit_height(rules_);
}

void RecipePanel::fill_passes() {
  const bool outer = filling_;
  filling_ = true;
  const int row = current(passes_);
  // Items are kept: an edit comes from inside one of them, which goes on after the signal.
  const int count = static_cast<int>(recipe_.passes.size());
  while (passes_->topLevelItemCount() > count) delete passes_->takeTopLevelItem(count);
  while (passes_->topLevelItemCount() < count) new QTreeWidgetItem(passes_);
  for (int i = 0; i < count; ++i) {
    const auto& p = recipe_.passes[static_cast<std::size_t>(i)];
    auto* item = passes_->topLevelItem(i);
    item->setText(0, entry_title(entries_, p.id));
    item->setCheckState(0, p.enabled ? Qt::Checked : Qt::Unchecked);
    const auto* entry = find_entry(entries_, p.id);
    item->setToolTip(0, entry ? qs(entry->doc) : tr("The engine has no pass of this name."));
  }
  if (passes_->topLevelItemCount()) passes_->setCurrentItem(passes_->topLevelItem(std::clamp(row, 0, passes_->topLevelItemCount() - 1)));
  fit_height(passes_);
  filling_ = outer;
  show_pass_form();
}

void RecipePanel::show_pass_form() {
  const int i = current(passes_);
  const auto* entry = i < 0 || i >= static_cast<int>(recipe_.passes.size()) ? nullptr : find_entry(entries_, recipe_.passes[static_cast<std::size_t>(i)].id);
  pass_form_->setVisible(entry && !entry->schema.fields.empty());
  pass_doc_->setVisible(entry != nullptr);
  show_pass_layers();
  show_pass_issues();
  if (!entry) return;
  pass_doc_->setText(qs(entry->doc));
  if (to_json_value(pass_form_->schema()) != to_json_value(entry->schema)) pass_form_->set_schema(entry->schema);
  pass_form_->set_values(recipe_.passes[static_cast<std::size_t>(i)].options);
}

void RecipePanel::show_pass_layers() {
  const int i = current(passes_);
  const bool any = i >= 0 && i < static_cast<int>(recipe_.passes.size());
  const auto* entry = any ? find_entry(entries_, recipe_.passes[static_cast<std::size_t>(i)].id) : nullptr;
  // The others change the network as a whole.
  pass_scope_->setVisible(entry && entry->more.contains("stage") && entry->more["stage"] == "weights");
  if (!any) return;
  const Selector& select = recipe_.passes[static_cast<std::size_t>(i)].select;
  const bool all = select == Selector{};
  pass_layers_->setText(all ? tr("Layers: all") : tr("Layers: %1").arg(qs(describe(select))));
  pass_all_->setEnabled(!all);
  pass_selected_->setEnabled(!selected_.empty());
  pass_selected_->setToolTip(selected_.empty() ? tr("Select layers in the graph or the list first.") : tr("Only the selected layers: %n", nullptr, static_cast<int>(selected_.size())));
}

void RecipePanel::set_issues(const std::vector<RecipeIssue>& issues) {
  issues_ = issues;
  const bool outer = std::exchange(filling_, true);
  for (int i = 0; i < passes_->topLevelItemCount(); ++i) {
    std::optional<Severity> worst;
    bool pending = false;
    QStringList lines;
    for (const RecipeIssue& known : issues_) {
      if (known.pass != i) continue;
      pending |= known.is_pending;
      worst = std::max(worst.value_or(Severity::kInfo), known.issue.severity);
      lines << issue_line(known.issue);
    }
    QTreeWidgetItem* item = passes_->topLevelItem(i);
    // What only says what it takes needs no mark in the list.
    const bool marked = worst && *worst != Severity::kInfo;
    item->setIcon(1, marked ? severity_icon(*worst) : pending ? icon(QStringLiteral("stale"), IconRole::kMuted) : QIcon());
    const auto* entry = find_entry(entries_, recipe_.passes[static_cast<std::size_t>(i)].id);
    if (entry) lines.prepend(qs(entry->doc));
    for (const int column : {0, 1}) item->setToolTip(column, lines.mid(0, 8).join(u'\n'));
  }
  filling_ = outer;
  show_pass_issues();
}

// The current pass's, those that concern the whole recipe first.
void RecipePanel::show_pass_issues() {
  constexpr std::size_t kShown = 6;
  QLayout* layout = pass_issues_->layout();
  while (QLayoutItem* item = layout->takeAt(0)) {
    delete item->widget();
    delete item;
  }
  const int current_pass = current(passes_);
  std::vector<const RecipeIssue*> shown;
  const QString said = warnings_->text();
  for (const RecipeIssue& known : issues_)
    if (known.pass == current_pass || (known.pass == -1 && !said.contains(qs(known.issue.message)))) shown.push_back(&known);
  std::stable_sort(shown.begin(), shown.end(), [](const RecipeIssue* a, const RecipeIssue* b) { return a->issue.severity > b->issue.severity; });
  for (std::size_t i = 0; i < std::min(kShown, shown.size()); ++i) {
    const RecipeIssue& known = *shown[i];
    add_issue_line(known.is_pending ? icon(QStringLiteral("stale"), IconRole::kMuted) : severity_icon(known.issue.severity), issue_line(known.issue));
  }
  if (shown.size() > kShown) add_issue_line({}, tr("And %n more.", nullptr, static_cast<int>(shown.size() - kShown)));
  pass_issues_->setVisible(!shown.empty());
}

void RecipePanel::add_issue_line(const QIcon& icon, const QString& text) {
  auto* line = new QWidget(pass_issues_);
  auto* row = new QHBoxLayout(line);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(6);
  constexpr int kIcon = 14;
  auto* mark = new QLabel(line);
  mark->setFixedWidth(kIcon);
  mark->setPixmap(icon.pixmap(QSize(kIcon, kIcon), devicePixelRatioF()));
  row->addWidget(mark, 0, Qt::AlignTop);
  auto* words = new QLabel(text, line);
  words->setWordWrap(true);
  words->setTextInteractionFlags(Qt::TextSelectableByMouse);
  row->addWidget(words, 1);
  pass_issues_->layout()->addWidget(line);
}

void RecipePanel::set_selected_layers(std::vector<std::string> names) {
  if (names == selected_) return;
  selected_ = std::move(names);
  show_pass_layers();
}

void RecipePanel::limit_pass(std::vector<std::string> names, const QString& label) {
  const int i = current(passes_);
  if (i < 0) return;
  Recipe r = recipe_;
  auto& pass = r.passes[static_cast<std::size_t>(i)];
  pass.select = {};
  for (const std::string& name : names) pass.select.names.push_back(quote_pattern(name));
  edit(r, label.arg(entry_title(entries_, pass.id)));
}

}  // namespace quanvas
