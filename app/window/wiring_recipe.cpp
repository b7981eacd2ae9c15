// Wiring: the recipe, the facts that answer it, and the selection.
#include "app/window/wiring.h"

#include <algorithm>

#include <QFileDialog>
#include <QFileInfo>
#include <QMenu>

#include "app/window/docks.h"
#include "app/window/views.h"
#include "core/base/files.h"
#include "widgets/common/format.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/panels/preset_menu.h"
#include "widgets/panels/rule_dialog.h"

namespace quanvas {
namespace {

constexpr int kRepaintMs = 33;
constexpr int kBins = 96;
QString qs(const std::string& s) { return QString::fromStdString(s); }

}  // namespace

// --- recipe, facts ---

void Wiring::wire_recipe_views() {
  connect(session_, &Session::recipe_changed, this, [this] {
    show_recipe();
    update_actions();  // formats of weights need no data
    request_histogram();
  });
  connect(session_, &Session::recipe_checked, this, [this] { panels_.recipe->set_issues(session_->recipe_issues()); });
  connect(session_, &Session::facts_changed, this, [this](const std::vector<NodeId>& nodes) {
    fresh_facts_.insert(nodes.begin(), nodes.end());
    schedule_facts();
  });
  connect(panels_.recipe, &RecipePanel::recipe_edited, session_, &Session::edit_recipe);
  connect(panels_.recipe, &RecipePanel::rule_edit_wanted, this, &Wiring::edit_rule);
  connect(panels_.recipe, &RecipePanel::load_wanted, this, &Wiring::load_recipe);
  connect(panels_.recipe, &RecipePanel::save_wanted, this, &Wiring::save_recipe);
  const auto use_builtin = [this](const QString& id) {
    const auto recipe = builtin_recipe(id.toStdString());
    if (recipe) use_recipe(*recipe, tr("Use recipe %1").arg(qs(recipe->name)));
    else say_problem(qs(recipe.error().text()));
  };
  connect(panels_.recipe, &RecipePanel::builtin_wanted, this, use_builtin);
  for (const auto& id : builtin_recipe_ids())
    window_->actions().submenu(QStringLiteral("builtin"))->addAction(qs(id), this, [use_builtin, id] { use_builtin(qs(id)); });
  connect(panels_.inspector, &InspectorPanel::assign, this, &Wiring::assign);
  connect(panels_.inspector, &InspectorPanel::rule_added, this, [this](const Rule& rule, const QString& label) { session_->edit_recipe(with_rule_for_all(session_->recipe(), *session_->graph(), rule), label); });
  connect(panels_.inspector, &InspectorPanel::rule_wanted, this, &Wiring::make_rule);
  connect(panels_.inspector, &InspectorPanel::reset_wanted, this, [this](const std::vector<Site>& sites) {
    session_->edit_recipe(without_own_rules(session_->recipe(), *session_->graph(), sites), tr("Remove own rule"));
  });
  connect(panels_.inspector, &InspectorPanel::share_wanted, this, [this](const std::vector<Site>& sites, bool share) {
    const std::string name = share ? fresh_share_name(session_->recipe(), sites) : std::string();
    session_->edit_recipe(with_share(session_->recipe(), *session_->graph(), sites, name), share ? tr("Share one quantizer") : tr("Unshare"));
  });
  connect(panels_.inspector, &InspectorPanel::calibrate_wanted, this, [this] { window_->actions().at(QStringLiteral("calibrate"))->trigger(); });
  connect(panels_.layers, &LayersPanel::format_chosen, this, &Wiring::assign_kind);
  connect(panels_.layers, &LayersPanel::rule_wanted, this, [this](const std::vector<NodeId>& nodes) {
    Rule draft;
    for (const NodeId id : nodes)
      if (const Node* n = session_->graph()->find(id)) draft.select.names.push_back(quote_pattern(n->name));
    draft.select.sites = {SiteKind::kWeight};
    make_rule(draft);
  });
  connect(panels_.distribution, &DistributionPanel::clip_changed, this, &Wiring::assign_clip);
  connect(panels_.distribution, &DistributionPanel::calibrate_wanted, this, [this] { window_->actions().at(QStringLiteral("calibrate"))->trigger(); });
}

void Wiring::show_recipe(bool new_rows) {
  if (!session_->has_project()) return;
  panels_.recipe->set_recipe(session_->recipe(), views::rule_matches(session_->recipe(), session_->plan()), session_->plan().warnings);
  show_facts(new_rows);
  show_run_marks();
}

// The first answer after a pause is shown with the next event, so that a click is answered at once; answers that
// stream in are shown together, once per kRepaintMs.
void Wiring::schedule_facts() {
  if (facts_timer_.isActive()) return;
  const qint64 since = facts_shown_.isValid() ? facts_shown_.elapsed() : kRepaintMs;
  facts_timer_.start(static_cast<int>(std::clamp<qint64>(kRepaintMs - since, 0, kRepaintMs)));
}

void Wiring::show_facts(bool new_rows) {
  if (!session_->has_project()) return;
  const Run* current = views::current_run(*session_);
  fresh_facts_.clear();
  if (!new_rows) {
    std::vector<LayerRow> rows = panels_.layers->rows();
    refresh_rows(rows, *session_->graph(), session_->layers(), session_->plan(), session_->facts());
    for (auto& row : rows) row.stale = session_->facts_are_stale(row.node);
    panels_.layers->set_rows(std::move(rows));
  }
  panels_.graph->set_visuals(views::node_visuals(*session_, current));
  panels_.error->set_live(views::live_errors(*session_, current));
  panels_.sweep->set_layers(views::sweep_layers(*session_));
  panels_.sweep->set_measured(views::measured_drop(*session_, current));
  window_->status_line()->set_stale(views::stale_line(*session_, current));
  window_->status_line()->set_accuracy(views::accuracy_line(*session_, current));
  show_selection();
}

// Answers stream in for every layer of a network, a few at a time: what they do not change is not worked out again.
void Wiring::show_new_facts() {
  if (!session_->has_project()) return;
  const Run* current = views::current_run(*session_);
  std::vector<LayerRow> rows;
  std::map<NodeId, NodeVisual> visuals;
  bool selected = false;
  for (const NodeId node : std::exchange(fresh_facts_, {})) {
    const LayerRow* shown = panels_.layers->row(node);
    const auto facts = session_->facts().find(node);
    if (shown == nullptr || facts == session_->facts().end()) continue;
    LayerRow& row = rows.emplace_back(*shown);
    set_row_facts(row, facts->second);
    row.stale = session_->facts_are_stale(node);
    NodeVisual visual = panels_.graph->visual(node);
    views::set_facts(visual, facts->second, row.stale);
    visuals[node] = visual;
    selected = selected || std::find(selected_.begin(), selected_.end(), node) != selected_.end();
  }
  panels_.layers->update_rows(rows);
  panels_.graph->update_visuals(visuals);
  panels_.error->set_live(views::live_errors(*session_, current));
  window_->status_line()->set_stale(views::stale_line(*session_, current));
  if (selected) show_selection();
}

void Wiring::assign(const std::vector<Assignment>& assignments, const QString& label, const QString& merge_key) {
  if (const QString why = sharing_refusal(*session_->graph(), session_->plan(), assignments); !why.isEmpty()) return say_problem(why);
  if (assignments.size() == 1) session_->assign(assignments.front().sites, assignments.front().spec, label, merge_key);
  else session_->edit_recipe(with_assignments(session_->recipe(), *session_->graph(), assignments), label, merge_key);
}

void Wiring::assign_kind(const std::vector<NodeId>& nodes, SiteKind kind, const std::optional<QuantSpec>& spec, const QString& label) {
  Assignment a{{}, spec};
  for (const NodeId node : nodes)
    if (const Layer* layer = find_layer(session_->layers(), node))
      for (const auto& site : layer->sites())
        if (site.kind == kind) a.sites.push_back(site);
  if (a.sites.empty()) return say_problem(tr("None of the selected layers has a %1.").arg(site_word(kind)));
  assign({a}, label, {});
}

void Wiring::assign_width(NodeId node, int bits, bool weights, bool activations) {
  const Layer* layer = find_layer(session_->layers(), node);
  const Node* n = session_->graph()->find(node);
  if (!layer || !n) return;
  std::vector<Assignment> list;
  for (const auto& site : layer->sites()) {
    const bool wanted = (site.kind == SiteKind::kWeight && weights) || (site.kind == SiteKind::kInput && activations);
    if (!wanted) continue;
    const auto* p = session_->plan().find(site);
    QuantSpec spec = p && p->spec ? *p->spec : from_json_value<QuantSpec>(quant_spec_schema(site.kind).defaults()).value_or(QuantSpec{});
    spec = with_bits(spec, bits);
    if (bits == 1) spec.narrow = false;
    list.push_back({{site}, spec});
  }
  if (!list.empty()) assign(list, tr("%1: %2 bit").arg(qs(n->name)).arg(bits), {});
}

void Wiring::assign_clip(const Site& site, double lo, double hi, bool finished) {
  const auto* p = session_->plan().find(site);
  const Node* n = session_->graph()->find(site.node);
  if (!p || !p->spec || !n) return;
  QuantSpec spec = *p->spec;
  spec.clip_min = lo;
  spec.clip_max = hi;
  session_->assign({site}, spec, tr("%1 %2: clip %3 … %4").arg(qs(n->name), site_word(site.kind), significant_text(lo), significant_text(hi)),
                   QStringLiteral("clip/%1/%2/%3").arg(site.node).arg(static_cast<int>(site.kind)).arg(drag_));
  if (finished) ++drag_;
}

void Wiring::reset_layers(const std::vector<NodeId>& nodes) {
  std::vector<Site> sites;
  for (const NodeId node : nodes)
    if (const Layer* layer = find_layer(session_->layers(), node))
      for (const auto& site : layer->sites()) sites.push_back(site);
  session_->edit_recipe(without_own_rules(session_->recipe(), *session_->graph(), sites), tr("Remove own rules"));
}

void Wiring::edit_rule(int index) {
  const auto& rules = session_->recipe().rules;
  if (!session_->has_project()) return;
  if (index < 0 || index >= static_cast<int>(rules.size())) return make_rule(Rule{});
  auto* dialog = new RuleDialog(session_->graph(), rules[static_cast<std::size_t>(index)], window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog, index] { session_->edit_recipe(with_rule_at(session_->recipe(), index, dialog->rule()), tr("Change rule %1").arg(index + 1)); });
  dialog->open();
}

void Wiring::make_rule(const Rule& draft) {
  if (!session_->has_project()) return;
  auto* dialog = new RuleDialog(session_->graph(), draft, window_);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QDialog::accepted, this, [this, dialog] {
    const Rule rule = dialog->rule();
    session_->edit_recipe(with_rule(session_->recipe(), rule), tr("Add rule: %1").arg(qs(describe(rule.select))));
  });
  dialog->open();
}

void Wiring::use_recipe(const Recipe& recipe, const QString& label) {
  if (!session_->has_project()) return say_problem(tr("Open a model first."));
  session_->edit_recipe(recipe, label);
}

void Wiring::load_recipe() {
  const QString path = QFileDialog::getOpenFileName(window_, tr("Load a recipe"), {}, tr("Recipes (*.yaml *.yml *.json)"));
  if (path.isEmpty()) return;
  const auto text = read_file(path.toStdString(), 16 << 20);
  if (!text) return say_problem(qs(text.error().text()));
  const auto recipe = parse_recipe(*text, path.toStdString());
  if (!recipe) return say_problem(qs(recipe.error().text()));
  use_recipe(*recipe, tr("Load %1").arg(QFileInfo(path).fileName()));
}

void Wiring::save_recipe() {
  const QString path = QFileDialog::getSaveFileName(window_, tr("Save the recipe"), qs(session_->recipe().name) + QStringLiteral(".yaml"), tr("Recipes (*.yaml)"));
  if (path.isEmpty()) return;
  if (const auto status = write_file_atomically(path.toStdString(), recipe_to_yaml(session_->recipe())); !status) say_problem(qs(status.error().text()));
}

// --- selection ---

void Wiring::wire_selection() {
  connect(panels_.graph, &GraphView::selection_changed, this, [this](const std::vector<NodeId>& nodes) { select(nodes, panels_.graph); });
  connect(panels_.layers, &LayersPanel::selection_changed, this, [this](const std::vector<NodeId>& nodes) { select(nodes, panels_.layers); });
  connect(panels_.layers, &LayersPanel::activated, this, [this](NodeId node) { panels_.graph->set_selection({node}, true); });
  connect(panels_.graph, &GraphView::node_activated, this, [this](NodeId node) {
    select({node}, panels_.graph);
    window_->docks()->show_panel(panels_.inspector);
  });
  connect(panels_.graph, &GraphView::context_menu_requested, this, [this](NodeId node, const QPoint& at) {
    if (node == kNoNode || selected_.empty()) return;
    QMenu menu(window_);
    for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kInput, SiteKind::kOutput}) {
      auto* sub = menu.addMenu(tr("%1 format").arg(site_title(kind)));
      sub->addAction(tr("Float"), this, [this, kind] { assign_kind(selected_, kind, std::nullopt, tr("Set %1 to float").arg(site_word(kind))); });
      sub->addSeparator();
      fill_preset_menu(sub, PresetLibrary::builtin(), kind, [this, kind](const Preset& p) { assign_kind(selected_, kind, p.spec, tr("Set %1 to %2").arg(site_word(kind), qs(p.title))); });
    }
    menu.addAction(window_->actions().at(QStringLiteral("reset-layer")));
    menu.addSeparator();
    menu.addMenu(window_->actions().submenu(QStringLiteral("path")));
    menu.exec(at);
  });
  for (auto* source : {static_cast<QObject*>(panels_.error), static_cast<QObject*>(panels_.sweep)}) {
    if (source == panels_.error) connect(panels_.error, &ErrorPanel::layer_clicked, this, [this](NodeId n) { select({n}); });
    else connect(panels_.sweep, &SweepPanel::layer_clicked, this, [this](NodeId n) { select({n}); });
  }
  connect(panels_.inspector, &InspectorPanel::kind_changed, panels_.distribution, &DistributionPanel::set_current_kind);
  connect(panels_.distribution, &DistributionPanel::site_changed, this, [this](const Site& site) {
    panels_.inspector->set_current_kind(site.kind);
    request_histogram();
  });
  connect(session_, &Session::histogram_ready, this, [this](const Histogram& h) {
    histogram_pending_ = false;
    panels_.distribution->set_histogram(h);
  });
  connect(session_, &Session::histogram_failed, this, [this](const Site& site, const QString& sentence) {
    histogram_pending_ = false;
    panels_.distribution->set_message(site, sentence);
  });
}

void Wiring::select(const std::vector<NodeId>& nodes, const QObject* origin) {
  selected_ = nodes;
  if (origin != panels_.graph) panels_.graph->set_selection(nodes, nodes.size() == 1);
  if (origin != panels_.layers) panels_.layers->set_selection(nodes);
  panels_.error->set_selection(nodes);
  const Node* only = nodes.size() == 1 && session_->has_project() ? session_->graph()->find(nodes.front()) : nullptr;
  if (origin != panels_.target) panels_.target->select_layer(only ? qs(only->name) : QString());
  session_->request_facts(nodes);
  show_selection();
  request_histogram();
}

void Wiring::show_selection() {
  if (!session_->has_project()) return;
  auto state = inspector_state(*session_->graph(), session_->layers(), session_->recipe(), session_->plan(), session_->facts(), selected_);
  if (state.layers.size() == 1) state.stale = session_->facts_are_stale(state.layers.front());
  const NodeId first = state.layers.empty() ? kNoNode : state.layers.front();
  const Node* node = first == kNoNode ? nullptr : session_->graph()->find(first);
  panels_.distribution->set_sources(node ? qs(node->name) : QString(), views::distribution_sources(*session_, first));
  panels_.inspector->set_state(state);
  std::vector<std::string> names;
  for (const NodeId id : state.layers)
    if (const Node* layer = session_->graph()->find(id)) names.push_back(layer->name);
  panels_.recipe->set_selected_layers(std::move(names));
  window_->actions().enable({QStringLiteral("reset-layer")}, !state.layers.empty());
}

void Wiring::request_histogram() {
  const auto site = panels_.distribution->current_site();
  histogram_pending_ = site && session_->has_project();
  if (histogram_pending_) session_->request_histogram(*site, kBins);
}

}  // namespace quanvas
