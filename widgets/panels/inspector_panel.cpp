#include "widgets/panels/inspector_panel.h"

#include <algorithm>

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QStackedLayout>
#include <QStyledItemDelegate>
#include <QTabBar>
#include <QTextDocument>
#include <QToolButton>
#include <QVBoxLayout>

#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/spec_edits.h"
#include "widgets/panels/facts_view.h"
#include "widgets/panels/preset_menu.h"

namespace quanvas {
namespace {

constexpr int kLeastWidth = 280;  // four tabs and the button beside them

QString qs(const std::string& s) { return QString::fromStdString(s); }

QString link(const QString& id, const QString& text) {
  return QStringLiteral("<a href=\"%1\" style=\"color:%2; text-decoration:none\">%3</a>").arg(id, colors().accent.name(), text.toHtmlEscaped().replace(u' ', QStringLiteral("&nbsp;")));
}

SpecSurroundings surroundings(const InspectorTab& tab, std::size_t i) { return {tab.kind, i < tab.shapes.size() ? tab.shapes[i] : std::nullopt, tab.shared}; }

std::vector<QuantSpec> known_specs(const InspectorTab& tab) {
  std::vector<QuantSpec> out;
  for (const auto& s : tab.specs)
    if (s) out.push_back(*s);
  return out;
}

// Sites that end with the same quantizer share an assignment.
void add_assignment(std::vector<Assignment>& list, const Site& site, const QuantSpec& spec) {
  const auto it = std::find_if(list.begin(), list.end(), [&](const Assignment& a) { return a.spec == spec; });
  if (it == list.end()) list.push_back({{site}, spec});
  else it->sites.push_back(site);
}

QLabel* text_label(QWidget* parent, const char* role) {
  auto* label = new QLabel(parent);
  label->setProperty("role", role);
  label->setWordWrap(true);
  label->setTextInteractionFlags(Qt::LinksAccessibleByMouse | Qt::LinksAccessibleByKeyboard);
  return label;
}

}  // namespace

InspectorPanel::InspectorPanel(QWidget* parent) : Panel(QStringLiteral("inspector"), tr("Inspector"), parent) {
  set_least_width(kLeastWidth);
  stack_ = new QStackedLayout(this);
  empty_ = new EmptyState(QStringLiteral("settings"), tr("Select a layer"),
                          tr("Click a layer in the graph or the table to see and choose its number formats."), this);
  content_ = new QWidget(this);
  build();
  stack_->addWidget(empty_);
  stack_->addWidget(scroll_page(content_, this));
  set_state({});
  connect(&Theme::instance(), &Theme::changed, this, [this] { show_tab(); });
}

QWidget* InspectorPanel::build_preset_row() {
  auto* row = new QWidget(content_);
  auto* layout = new QHBoxLayout(row);
  layout->setContentsMargins(0, 2, 0, 0);  // with the spacing below as far from the form's rows as these are apart
  layout->setSpacing(8);
  auto* label = new QLabel(tr("Preset"), row);
  label->setProperty("role", "muted");
  label->setFixedWidth(92);
  preset_ = new QComboBox(row);
  preset_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  preset_->setMinimumContentsLength(8);
  preset_->setAccessibleName(tr("Preset"));
  preset_->setMaxVisibleItems(24);
  preset_->setItemDelegate(new QStyledItemDelegate(preset_));
  label->setBuddy(preset_);
  layout->addWidget(label);
  layout->addWidget(preset_, 1);
  return row;
}

void InspectorPanel::build() {
  auto* top = new QWidget(content_);
  auto* top_row = new QHBoxLayout(top);
  top_row->setContentsMargins(0, 2, 0, 2);
  top_row->setSpacing(4);
  tabs_ = new QTabBar(top);
  tabs_->setExpanding(false);
  tabs_->setDrawBase(false);
  tabs_->setAccessibleName(tr("Site"));
  float_ = new QToolButton(top);
  float_->setText(tr("Float"));
  float_->setCheckable(true);
  float_->setToolTip(tr("Keep this tensor in float: no quantizer"));
  float_->setAccessibleName(tr("Float"));
  float_->setStyleSheet(QStringLiteral("QToolButton { padding: 2px 6px; }"));
  top_row->addWidget(tabs_);
  top_row->addStretch(1);
  top_row->addWidget(float_);
  form_ = new SchemaForm(content_);
  form_->set_hide_disabled(true);
  // Rarely touched; they would push the error measures out of sight.
  form_->set_advanced({"delay", "truncation", "decoupled", "zero_point_inside", "learn_zero_point", "learn_bits", "scale_domain", "batches",
                       "exponent_bias", "axis", "accumulator_bits"});
  form_->set_refusal([this](const std::string& key, const json& value) {
    const InspectorTab* t = tab();
    if (!t || t->specs.empty()) return QString();
    const auto spec = edited_spec(t->specs.front().value_or(default_spec(t->kind)), t->kind, key, value);
    return spec ? why_not(*spec, surroundings(*t, 0)) : qs(spec.error().text());
  });
  form_->set_blocking([this](const std::string& key) {
    const InspectorTab* t = tab();
    return !t || t->specs.empty() ? QString() : why_closed(t->specs.front().value_or(default_spec(t->kind)), surroundings(*t, 0), key);
  });
  auto* preset_row = build_preset_row();
  which_ = new QComboBox(content_);
  which_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  which_->setMinimumContentsLength(8);
  which_->setMaxVisibleItems(24);
  which_->setAccessibleName(tr("Which of the sites"));
  which_->setToolTip(tr("All sites of this kind, or one of them"));
  tensor_ = text_label(content_, "muted");
  clip_ = text_label(content_, "muted");
  share_ = text_label(content_, "muted");
  problem_ = text_label(content_, "error");
  why_ = text_label(content_, "muted");
  actions_ = text_label(content_, "muted");
  facts_ = new FactsView(content_);
  all_fields_ = new QToolButton(this);
  all_fields_->setText(tr("All fields"));
  all_fields_->setCheckable(true);
  all_fields_->setProperty("flat", true);
  all_fields_->setToolTip(tr("Also show rare fields, and those that do not apply now with the reason"));
  add_header_widget(all_fields_);

  auto* layout = new QVBoxLayout(content_);
  layout->setContentsMargins(12, 0, 12, 10);
  layout->setSpacing(4);
  for (QWidget* w : {static_cast<QWidget*>(top), static_cast<QWidget*>(which_), static_cast<QWidget*>(tensor_), preset_row, static_cast<QWidget*>(form_),
                     static_cast<QWidget*>(clip_), static_cast<QWidget*>(share_), static_cast<QWidget*>(problem_), static_cast<QWidget*>(facts_),
                     static_cast<QWidget*>(why_), static_cast<QWidget*>(actions_)})
    layout->addWidget(w);
  layout->addStretch(1);

  connect(tabs_, &QTabBar::currentChanged, this, [this](int i) {
    if (i < 0) return;
    kind_ = static_cast<SiteKind>(tabs_->tabData(i).toInt());
    show_tab();
    Q_EMIT kind_changed(kind_);
  });
  connect(form_, &SchemaForm::edited, this, &InspectorPanel::take_edit);
  connect(preset_, &QComboBox::activated, this, &InspectorPanel::take_preset);
  connect(which_, &QComboBox::activated, this, [this](int i) {
    chosen_[kind_] = i;
    show_tab();
  });
  connect(float_, &QToolButton::clicked, this, &InspectorPanel::take_float);
  connect(all_fields_, &QToolButton::toggled, this, [this](bool on) { form_->set_hide_disabled(!on); });
  connect(facts_, &FactsView::calibrate_wanted, this, &InspectorPanel::calibrate_wanted);
  for (auto* label : {clip_, share_, why_, actions_}) connect(label, &QLabel::linkActivated, this, &InspectorPanel::take_action);
}

const InspectorTab* InspectorPanel::whole_tab() const {
  for (const auto& t : state_.tabs)
    if (t.kind == kind_) return &t;
  return nullptr;
}

const InspectorTab* InspectorPanel::tab() const {
  const InspectorTab* whole = whole_tab();
  const auto it = chosen_.find(kind_);
  const auto one = static_cast<std::size_t>(it == chosen_.end() ? 0 : it->second);
  return whole && one > 0 && one <= whole->single.size() ? &whole->single[one - 1] : whole;
}

void InspectorPanel::show_sites() {
  const InspectorTab& whole = *whole_tab();
  QStringList names;
  if (!whole.single.empty()) names << tr("All %1").arg(whole.single.size());
  for (const InspectorTab& one : whole.single) names << one.name;
  QStringList shown;
  for (int i = 0; i < which_->count(); ++i) shown << which_->itemText(i);
  if (names != shown) {
    which_->clear();
    which_->addItems(names);
  }
  which_->setVisible(!names.isEmpty());
  if (!names.isEmpty()) which_->setCurrentIndex(std::min(chosen_[kind_], static_cast<int>(names.size()) - 1));
}

SiteKind InspectorPanel::current_kind() const { return kind_; }

void InspectorPanel::set_current_kind(SiteKind kind) {
  for (int i = 0; i < tabs_->count(); ++i)
    if (tabs_->tabData(i).toInt() == static_cast<int>(kind)) tabs_->setCurrentIndex(i);
}

QString InspectorPanel::who() const { return state_.title; }

void InspectorPanel::set_state(const InspectorState& state) {
  if (state.layers != state_.layers) chosen_.clear();
  state_ = state;
  if (state.layers.empty() || state.tabs.empty()) {
    set_title(tr("Inspector"));
    set_subtitle({});
    all_fields_->hide();
    stack_->setCurrentIndex(0);
    return;
  }
  all_fields_->show();
  set_title(state.title);
  set_subtitle(state.description);
  const QSignalBlocker block(tabs_);
  bool same = tabs_->count() == static_cast<int>(state.tabs.size());
  for (int i = 0; same && i < tabs_->count(); ++i)
    same = tabs_->tabData(i).toInt() == static_cast<int>(state.tabs[static_cast<std::size_t>(i)].kind);
  if (!same) {
    while (tabs_->count()) tabs_->removeTab(0);
    // Five fit beside the button only when they are narrow.
    tabs_->setStyleSheet(QStringLiteral("QTabBar::tab { padding: 3px %1px; margin: 3px 0; }").arg(state.tabs.size() > 4 ? 3 : 7));
    for (const auto& t : state.tabs) tabs_->setTabData(tabs_->addTab(site_title(t.kind)), static_cast<int>(t.kind));
  }
  const SiteKind wanted = kind_;
  kind_ = state.tabs.front().kind;
  for (const auto& t : state.tabs)
    if (t.kind == wanted) kind_ = wanted;
  for (int i = 0; i < tabs_->count(); ++i)
    if (tabs_->tabData(i).toInt() == static_cast<int>(kind_)) tabs_->setCurrentIndex(i);
  show_tab();
  stack_->setCurrentIndex(1);
  tabs_->updateGeometry();  // tabs that were added to a hidden bar leave its cached size at nothing
  if (kind_ != wanted) Q_EMIT kind_changed(kind_);
}

void InspectorPanel::show_tab() {
  const InspectorTab* t = tab();
  if (!t) return;
  show_sites();
  tensor_->setText(t->sites.size() == 1 ? t->tensor_texts.front() : tr("%1 tensors").arg(t->sites.size()));
  const bool same = form_kind_ == static_cast<int>(t->kind) && shown_sites_ == t->sites && shown_specs_ == t->specs;
  if (!same) {
    show_form(*t);
    show_problem(t->problem, {});
    shown_sites_ = t->sites;
    shown_specs_ = t->specs;
  }
  form_->set_note("group_size", t->group > 0 ? tr("The axis has %1 elements: one group.").arg(t->group) : QString());
  show_share(*t);
  show_why(*t);
  const bool quantized = !known_specs(*t).empty();
  facts_->setVisible(quantized && state_.layers.size() == 1);
  facts_->set_facts(t->facts, state_.output, state_.stale);
}

void InspectorPanel::show_form(const InspectorTab& t) {
  if (form_kind_ != static_cast<int>(t.kind)) {
    form_kind_ = static_cast<int>(t.kind);
    form_->set_schema(quant_spec_schema(t.kind));
    fill_preset_combo(preset_, PresetLibrary::builtin(), t.kind);
  }
  const auto specs = known_specs(t);
  const bool all_float = specs.empty();
  const bool some_float = !all_float && specs.size() < t.specs.size();
  auto [fields, mixed] = common_fields(all_float ? std::vector<QuantSpec>{default_spec(t.kind)} : specs);
  form_->set_values(fields, mixed);
  form_->setVisible(!all_float);
  float_->setChecked(all_float);
  float_->setText(some_float ? tr("Mixed") : tr("Float"));
  const bool one = mixed.empty() && !some_float && !all_float;
  const QString id = one ? qs(preset_of(specs.front(), t.kind, PresetLibrary::builtin())) : QString();
  preset_->setPlaceholderText(all_float ? tr("float") : one ? tr("custom") : tr("mixed"));
  preset_->setCurrentIndex(id.isEmpty() ? -1 : preset_->findData(id));
  const bool clipped = one && (specs.front().clip_min || specs.front().clip_max);
  clip_->setVisible(clipped);
  if (clipped)
    clip_->setText(tr("Limits set by hand: %1 … %2.").arg(significant_text(specs.front().clip_min.value_or(0)), significant_text(specs.front().clip_max.value_or(0))) +
                   QStringLiteral(" ") + link(QStringLiteral("unclip"), tr("Use the statistic")));
}

void InspectorPanel::show_problem(const QString& sentence, const QString& edited_key) {
  form_->clear_errors();
  problem_->hide();
  if (sentence.isEmpty()) return;
  // The sentence starts with the field's key: "bits is 20; ...".
  const std::string first = sentence.section(u' ', 0, 0).toStdString();
  for (const auto& key : {first, edited_key.toStdString()})
    if (form_->editor(key) && form_->disabled_reason(key).isEmpty()) return form_->set_error(key, sentence);
  problem_->setText(sentence);
  problem_->show();
}

void InspectorPanel::show_share(const InspectorTab& t) {
  QString text;
  if (t.named && t.sharers == 0) text = tr("Several of these tensors share their quantizer with others.");
  else if (t.named && t.share_mates.isEmpty() && t.sharers > 1) text = tr("These %1 tensors share one quantizer.").arg(t.sharers);
  else if (t.named && t.sharers == 1) text = tr("To be shared as “%1”, a name that no other tensor has.").arg(t.share_name.toHtmlEscaped());
  else if (t.named)
    text = tr("Shared with: %1 (as\u00a0“%2”). Edits change all of them.").arg(t.share_mates.toHtmlEscaped(), t.share_name.toHtmlEscaped());
  share_->setVisible(t.named);
  if (t.named) share_->setText(text + QStringLiteral(" ") + link(QStringLiteral("unshare"), tr("Unshare")));
}

void InspectorPanel::show_why(const InspectorTab& t) {
  QString text;
  if (!t.same_rule) text = tr("Set by several rules.");
  else if (t.rule >= 0)
    text = tr("Set by rule %1: %2.").arg(t.rule + 1).arg(QStringLiteral("<span style=\"color:%1\">%2</span>").arg(colors().text.name(), t.rule_words.toHtmlEscaped())) +
           QStringLiteral(" ") + tr("Applies to %1 of %2 layers.").arg(t.rule_layers).arg(state_.layer_count);
  else
    text = t.why.toHtmlEscaped();
  // A rule that won and still left the site float says why.
  if (t.same_rule && t.rule >= 0 && !t.specs.front()) text += QStringLiteral("<br>") + t.why.toHtmlEscaped();
  why_->setText(text);
  QStringList links;
  if (t.sites.size() > 1 && !common_fields(known_specs(t)).second.empty())
    links << link(QStringLiteral("selection"), tr("Apply the first to the selection"));
  if (can_share(t)) links << link(QStringLiteral("share"), tr("Share one quantizer"));
  if (!state_.op.isEmpty()) links << link(QStringLiteral("type"), tr("Apply to all %1").arg(state_.op));
  links << link(QStringLiteral("all"), tr("to all layers")) << link(QStringLiteral("rule"), tr("make a rule…"));
  if (t.own_rule) links << link(QStringLiteral("reset"), tr("remove own rule"));
  actions_->setText(links.join(QStringLiteral(" · ")));
}

bool InspectorPanel::can_share(const InspectorTab& t) const {
  const auto& first = t.specs.front();
  return t.sites.size() > 1 && !t.named && first && sharing_problem(*first, t.kind).empty() &&
         std::all_of(t.specs.begin(), t.specs.end(), [&](const auto& s) { return s == first; });
}

void InspectorPanel::set_all(const InspectorTab& t, const std::optional<QuantSpec>& spec, const QString& label) {
  for (std::size_t i = 0; spec && i < t.sites.size(); ++i)
    if (const QString why = why_not(*spec, surroundings(t, i)); !why.isEmpty()) {
      show_form(t);  // the preset that was picked is not the one that is there
      return show_problem(why, {});
    }
  Q_EMIT assign({{t.sites, spec}}, label, {});
}

void InspectorPanel::take_edit(const QString& key, const json& value, bool continuous) {
  const InspectorTab* t = tab();
  if (!t) return;
  std::vector<Assignment> assignments;
  for (std::size_t i = 0; i < t->sites.size(); ++i) {
    const auto spec = edited_spec(t->specs[i].value_or(default_spec(t->kind)), t->kind, key.toStdString(), value);
    if (!spec) return show_problem(qs(spec.error().text()), key);
    if (const QString problem = why_not(*spec, surroundings(*t, i)); !problem.isEmpty()) return show_problem(problem, key);
    add_assignment(assignments, t->sites[i], *spec);
  }
  const Field* field = form_->schema().find(key.toStdString());
  const QString label = tr("%1 %2: %3 %4").arg(who(), site_word(t->kind), field ? qs(field->title) : key, field ? value_text(*field, value) : QString());
  const QString merge = continuous ? QStringLiteral("%1/%2/%3/%4").arg(t->sites.front().node).arg(t->sites.size()).arg(site_word(t->kind), key) : QString();
  Q_EMIT assign(assignments, label, merge);
}

void InspectorPanel::take_preset(int index) {
  const InspectorTab* t = tab();
  const Preset* preset = PresetLibrary::builtin().find(preset_->itemData(index).toString().toStdString());
  if (t && preset) set_all(*t, preset->spec, tr("%1 %2: %3").arg(who(), site_word(t->kind), qs(preset->title)));
}

void InspectorPanel::take_float(bool on) {
  const InspectorTab* t = tab();
  if (!t) return;
  if (on) set_all(*t, std::nullopt, tr("%1 %2: float").arg(who(), site_word(t->kind)));
  else set_all(*t, default_spec(t->kind), tr("%1 %2: quantize").arg(who(), site_word(t->kind)));
}

void InspectorPanel::take_action(const QString& id) {
  const InspectorTab* t = tab();
  if (!t) return;
  const auto& spec = t->specs.front();
  Selector select;
  select.sites = {t->kind};
  if (t != whole_tab()) select.operand = t->sites.front().operand;
  if (id == QLatin1String("selection")) return set_all(*t, spec, tr("%1 %2: as the first").arg(who(), site_word(t->kind)));
  if (id == QLatin1String("reset")) {
    Q_EMIT reset_wanted(t->sites);
    return;
  }
  if (id == QLatin1String("share") || id == QLatin1String("unshare")) {
    Q_EMIT share_wanted(t->sites, id == QLatin1String("share"));
    return;
  }
  if (id == QLatin1String("unclip")) {
    QuantSpec plain = spec.value_or(QuantSpec{});
    plain.clip_min.reset();
    plain.clip_max.reset();
    return set_all(*t, plain, tr("%1 %2: range from the statistic").arg(who(), site_word(t->kind)));
  }
  if (id == QLatin1String("type") || id == QLatin1String("rule")) {
    if (!state_.op.isEmpty()) select.ops = {state_.op.toStdString()};
  }
  const Rule rule = rule_for(select, spec, t->kind, PresetLibrary::builtin());
  if (id == QLatin1String("rule")) Q_EMIT rule_wanted(rule);
  else Q_EMIT rule_added(rule, id == QLatin1String("type") ? tr("%1 of all %2").arg(site_title(t->kind), state_.op) : tr("%1 of all layers").arg(site_title(t->kind)));
}

QString InspectorPanel::why_text() const {
  QTextDocument document;
  document.setHtml(why_->text());
  return document.toPlainText();
}

QString InspectorPanel::share_text() const {
  QTextDocument document;
  document.setHtml(share_->isHidden() ? QString() : share_->text());
  return document.toPlainText();
}

QString InspectorPanel::facts_text() const { return facts_->text(); }

}  // namespace quanvas
