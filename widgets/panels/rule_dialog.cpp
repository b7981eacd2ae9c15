#include "widgets/panels/rule_dialog.h"

#include <algorithm>
#include <set>

#include <QDialogButtonBox>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

#include "core/recipe/plan.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/panels/inspector_state.h"
#include "widgets/panels/panel.h"
#include "widgets/models/counted.h"

namespace quanvas {
namespace {

constexpr SiteKind kSites[] = {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput, SiteKind::kInternal};
const char* const kFloat = "\x01" "float";
const char* const kGiven = "\x01" "given";

std::string std_tr(const char* text) { return RuleDialog::tr(text).toStdString(); }

std::string joined(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& s : list) out += (out.empty() ? "" : ", ") + s;
  return out;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  for (const auto& part : QString::fromStdString(text).split(u',', Qt::SkipEmptyParts))
    if (const QString t = part.trimmed(); !t.isEmpty()) out.push_back(t.toStdString());
  return out;
}

std::string known_ops(const Graph& graph) {
  std::set<std::string> ops;
  for (const auto& layer : find_layers(graph))
    if (const Node* n = graph.find(layer.node)) ops.insert(n->op);
  return joined({ops.begin(), ops.end()});
}

// The draft's own format. A combo box cuts what does not fit, so the title has its first clauses; the tip has all.
Choice given_choice(const Rule& draft) {
  constexpr qsizetype kMostLetters = 46;
  const auto spec = rule_spec(draft, PresetLibrary::builtin());
  if (!spec) return {kGiven, std_tr("As before"), {}};
  const QString whole = QString::fromStdString(describe(*spec));
  QString title = whole;
  while (title.size() > kMostLetters && title.contains(u',')) title.truncate(title.lastIndexOf(u','));
  if (title != whole) title += QStringLiteral(", …");
  return {kGiven, title.toStdString(), whole.toStdString()};
}

Field format_choices(const Rule& draft) {
  std::vector<Choice> choices;
  const bool own = !draft.is_float && (draft.preset.empty() || !draft.override_fields.empty());
  if (own) choices.push_back(given_choice(draft));
  choices.push_back({kFloat, std_tr("Float (not quantized)"), {}});
  for (const auto& p : PresetLibrary::builtin().all()) choices.push_back({p.id, p.title + " (" + p.group + ")", p.doc});
  const std::string value = own ? kGiven : draft.is_float ? kFloat : draft.preset;
  return choice_field("format", std_tr("Format"), std_tr("What the selected sites get."), value, choices);
}

Schema rule_schema(const Graph& graph, const Rule& draft) {
  Schema s;
  for (const SiteKind kind : kSites)
    s.fields.push_back(bool_field(std::string("site-") + enum_text(kind), site_title(kind).toStdString(),
                                  std_tr("Sites of this kind; none ticked means all four."), false));
  s.fields.push_back(text_field("ops", std_tr("Types"), std_tr("ONNX operators, separated by commas; empty: all. In this network: ") + known_ops(graph), ""));
  std::vector<Choice> kinds = {{"", std_tr("Any"), {}}};
  for (const auto& [kind, name] : enum_names(LayerKind{})) kinds.push_back({name, name, {}});
  s.fields.push_back(choice_field("kind", std_tr("Kind"), std_tr("Kind of layer."), "", kinds));
  s.fields.push_back(text_field("names", std_tr("Names"), std_tr("Node names, separated by commas; * and ? are wildcards, a backslash takes the next character as it is; empty: all."), ""));
  s.fields.push_back(text_field("scope", std_tr("Scope"), std_tr("Prefix of the scope path, for example layer1; empty: all."), ""));
  s.fields.push_back(choice_field("position", std_tr("Position"), std_tr("Among the compute layers."), "",
                                  {{"", std_tr("Anywhere"), {}}, {"first", std_tr("First"), {}}, {"last", std_tr("Last"), {}},
                                   {"not-first", std_tr("Not first"), {}}, {"not-last", std_tr("Not last"), {}}, {"inner", std_tr("Neither first nor last"), {}}}));
  s.fields.push_back(bool_field("depthwise", std_tr("Depthwise only"), std_tr("Convolutions with as many groups as input channels."), false));
  s.fields.push_back(format_choices(draft));
  s.fields.push_back(text_field("share", std_tr("Share as"), std_tr("Sites with the same name here share one scale and zero point, found on all their values together; they need one format, per tensor. node: the inputs of each layer share, so that adding or concatenating integers needs no rescaling. edge: each tensor between operators has one quantizer whoever reads it, and edges that an addition, a concatenation or a maximum pooling needs on one scale share it. Empty: each has its own."), ""));
  s.fields.push_back(text_field("note", std_tr("Note"), std_tr("Shown in the list of rules."), ""));
  return s;
}

json rule_values(const Rule& rule) {
  json v = json::object();
  for (const SiteKind kind : rule.select.sites) v[std::string("site-") + enum_text(kind)] = true;
  v["ops"] = joined(rule.select.ops);
  v["kind"] = rule.select.kinds.size() == 1 ? enum_text(rule.select.kinds.front()) : "";
  v["names"] = joined(rule.select.names);
  v["scope"] = rule.select.scope;
  v["position"] = rule.select.position;
  v["depthwise"] = rule.select.depthwise_only;
  v["share"] = rule.share;
  v["note"] = rule.note;
  return v;
}

}  // namespace

RuleDialog::RuleDialog(GraphPtr graph, const Rule& draft, QWidget* parent)
    : QDialog(parent), graph_(std::move(graph)), draft_(draft), form_(new SchemaForm(this)), count_(new QLabel(this)) {
  setWindowTitle(tr("Rule"));
  setMinimumWidth(460);
  form_->set_schema(rule_schema(*graph_, draft_));
  form_->set_values(rule_values(draft_));
  count_->setWordWrap(true);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
  ok_ = buttons->button(QDialogButtonBox::Ok);
  ok_->setText(tr("Set rule"));
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  form_->set_blocking([this](const std::string& key) {
    return key == "share" && form_->values().value("format", "") == kFloat ? tr("A site that stays float has no quantizer to share.") : QString();
  });
  connect(form_, &SchemaForm::edited, this, &RuleDialog::update_matches);
  auto* layout = new QVBoxLayout(this);
  layout->setSpacing(8);
  layout->addWidget(form_);
  layout->addWidget(count_);
  layout->addWidget(buttons);
  update_matches();
}

Rule RuleDialog::rule() const {
  const json v = form_->values();
  Rule r;
  for (const SiteKind kind : kSites)
    if (v.value(std::string("site-") + enum_text(kind), false)) r.select.sites.push_back(kind);
  r.select.ops = split(v.value("ops", ""));
  const std::string kind = v.value("kind", "");
  // Several kinds at once can only come from a recipe file: kept while the field says "any".
  if (const auto k = enum_value<LayerKind>(kind)) r.select.kinds = {*k};
  else if (draft_.select.kinds.size() > 1) r.select.kinds = draft_.select.kinds;
  r.select.names = split(v.value("names", ""));
  r.select.scope = v.value("scope", "");
  r.select.position = v.value("position", "");
  r.select.depthwise_only = v.value("depthwise", false);
  r.select.operand = draft_.select.operand;
  r.note = v.value("note", "");
  r.share = QString::fromStdString(v.value("share", "")).trimmed().toStdString();
  const std::string format = v.value("format", "");
  r.is_float = format == kFloat;
  if (r.is_float) r.share.clear();
  if (format == kGiven) {
    r.preset = draft_.preset;
    r.override_fields = draft_.override_fields;
  } else if (!r.is_float) {
    r.preset = format;
  }
  return r;
}

// Empty: the name can stand. Otherwise what is wrong with it, or what would come of it.
QString RuleDialog::share_problem(const Rule& rule) const {
  if (rule.share.empty()) return {};
  if (rule.share.starts_with("#")) return tr("A name does not begin with '#'.");
  const auto spec = rule_spec(rule, PresetLibrary::builtin());
  if (!spec) return {};
  auto kinds = rule.select.sites;
  if (rule.share == "node") {
    if (!kinds.empty() && std::find(kinds.begin(), kinds.end(), SiteKind::kInput) == kinds.end())
      return tr("“node” joins the inputs of a layer; tick Input.");
    kinds = {SiteKind::kInput};
  }
  if (rule.share == "edge") {
    std::erase_if(kinds, [](SiteKind k) { return k != SiteKind::kInput && k != SiteKind::kOutput; });
    if (!rule.select.sites.empty() && kinds.empty()) return tr("“edge” joins tensors between operators; tick Input or Output.");
    return {};
  }
  for (const SiteKind kind : kinds)
    if (const std::string problem = sharing_problem(*spec, kind); !problem.empty())
      return tr("These sites would stay float: %1.").arg(QString::fromStdString(problem));
  return {};
}

void RuleDialog::update_matches() {
  const Rule now = rule();
  const Selector& select = now.select;
  form_->set_error("share", share_problem(now));
  ok_->setEnabled(!now.share.starts_with("#"));
  matches_ = count_matches(*graph_, select);
  count_->setProperty("role", matches_ ? "muted" : "warning");
  count_->setText(tr("%1: %2").arg(QString::fromStdString(describe(select)), counted(matches_, tr("1 site matches"), tr("%1 sites match"))));
  count_->setStyleSheet(QString());  // polishes the changed role
}

}  // namespace quanvas
