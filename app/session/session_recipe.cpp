// Session: edits. The recipe and its plan change here at once; the engine gets every edit in order, and again
// after it was started again, until it has confirmed it.
#include "app/session/session_impl.h"

#include <map>
#include <set>

#include "core/recipe/pool_sum.h"

namespace quanvas {
namespace {

constexpr auto kEditPatience = std::chrono::seconds(30);
constexpr int kRetryMs = 3000;

using Sharers = std::map<std::string, std::vector<Site>>;
Sharers sharers(const Plan& plan) {
  Sharers out;
  for (const auto& s : plan.sites)
    if (!s.share.empty()) out[s.share].push_back(s.site);
  return out;
}

// Layers with a site whose spec differs, or which shares its scale with others than before. Both plans list the sites of
// the same graph in the same order.
std::vector<NodeId> changed_layers(const Plan& before, const Plan& after) {
  const Sharers shared_before = sharers(before), shared_after = sharers(after);
  const auto with_whom = [](const Sharers& shared, const SitePlan& s) {
    const auto found = shared.find(s.share);
    return found == shared.end() ? nullptr : &found->second;
  };
  std::vector<NodeId> nodes;
  for (std::size_t i = 0; i < after.sites.size(); ++i) {
    const auto& now = after.sites[i];
    bool same = i < before.sites.size() && before.sites[i].site == now.site && before.sites[i].spec == now.spec;
    if (same) {
      const auto *was = with_whom(shared_before, before.sites[i]), *is = with_whom(shared_after, now);
      same = was && is ? *was == *is : was == is;
    }
    if (!same && (nodes.empty() || nodes.back() != now.site.node)) nodes.push_back(now.site.node);
  }
  return nodes;
}

// With the layers whose truncated outputs follow from a changed one, in graph order, for those may follow each other.
std::vector<NodeId> with_followers(std::vector<NodeId> changed, const Plan& plan, const Graph& graph,
                                   const std::vector<Layer>& layers) {
  std::set<NodeId> all(changed.begin(), changed.end());
  for (const Layer& layer : layers) {
    const SitePlan* output = plan.find({layer.node, SiteKind::kOutput, 0});
    if (!output || !output->spec || output->spec->truncation == Truncation::kNone) continue;
    const Site input = quantized_input(graph, layer, [&](const Site& site) {
      const SitePlan* found = plan.find(site);
      return found && found->spec;
    });
    if (input.node != kNoNode && all.count(input.node) > 0 && all.insert(layer.node).second) changed.push_back(layer.node);
  }
  return changed;
}

}  // namespace

void Session::Impl::edit(const Recipe& after, const QString& label, const QString& merge_key) {
  if (!has_project || after == recipe) return;
  if (left_alone(label.toStdString())) return;
  auto legal = resolve(*graph, after, PresetLibrary::builtin());
  if (!legal) return add_issue({Severity::kError, label.toStdString(), legal.error().message, legal.error().hint});
  prepared_plan = std::move(*legal);
  undo.push(new EditRecipe(recipe, after, label, merge_key,
                           [this](const Recipe& r, const QString& l, const QString& key) { apply(r, l, key); }));
}

void Session::Impl::apply(const Recipe& after, const QString& label, const QString& merge_key) {
  Result<Plan> fresh;
  if (prepared_plan)
    fresh = std::move(*std::exchange(prepared_plan, std::nullopt));
  else
    fresh = resolve(*graph, after, PresetLibrary::builtin());
  if (!fresh) return add_issue({Severity::kError, label.toStdString(), fresh.error().message, fresh.error().hint});
  // Passes and calibration bear on every layer's facts.
  const bool everywhere = !(after.passes == recipe.passes) || !(after.calibration == recipe.calibration);
  const auto changed = everywhere ? all_layers() : with_followers(changed_layers(plan, *fresh), *fresh, *graph, layers);
  recipe = after;
  plan = std::move(*fresh);
  state.recipe = recipe;
  mark_changed(changed);
  queue_edit(label, merge_key);
  ask_facts(changed);  // first, so that the engine measures while the views repaint
  ask_checks();
  Q_EMIT q->recipe_changed();
}

void Session::Impl::queue_edit(const QString& label, const QString& merge_key) {
  if (state.read_only) {
    if (!std::exchange(told_read_only, true))
      add_issue({Severity::kWarning, state.project_path,
                 "The project is read-only, so edits are not stored: " + state.read_only_reason,
                 "Save a copy to keep them."});
    return;
  }
  const bool in_flight = sending && pending.size() == 1;
  if (!merge_key.isEmpty() && !pending.empty() && !in_flight && pending.back().merge_key == merge_key) {
    pending.back().recipe = recipe;
    settle.start();
    return;
  }
  pending.push_back({next_serial++, recipe, label, merge_key});
  if (merge_key.isEmpty())
    send_edits();
  else
    settle.start();  // a drag goes on; it is stored when it rests, or with the next other edit
}

void Session::Impl::send_edits() {
  if (!client || sending || reopening) return;
  if (pending.empty()) {
    for (auto& fn : std::exchange(waiting_for_edits, {})) fn();
    return;
  }
  if (!opening_path.isEmpty()) return;
  sending = true;
  edit_lane.post([this, asked = client, edit = pending.front()] {
    const Status status = asked->set_recipe(edit.recipe, edit.label.toStdString(), kEditPatience);
    if (status) confirmed_serial = edit.serial;
    on_gui([this, serial = edit.serial, status, asked] { edit_answered(serial, status, asked); });
  });
}

void Session::Impl::edit_answered(std::int64_t serial, const Status& status, const ClientPtr& asked) {
  while (!pending.empty() && pending.front().serial <= confirmed_serial) pending.pop_front();
  if (asked != client) return;  // the engine was lost meanwhile; what it has not stored is sent again
  sending = false;
  if (!status && is_loss(asked, status.error())) return;
  if (!status && !pending.empty() && pending.front().serial == serial) return edits_failed(status.error());
  if (status) refresh_state();
  if (pending.empty()) edits_stored();
  send_edits();
}

// The edits stay, in their order: the disk may have space again when the next one comes. Only one that makes no sense
// to the engine never will. What waited for the edits does not wait for the disk.
void Session::Impl::edits_failed(const Error& error) {
  const bool never = error.code == ErrorCode::kInvalidArgument;
  Issue issue{Severity::kError, pending.front().label.toStdString(), "The edit was not stored: " + error.message,
              error.hint};
  if (never) {
    add_issue(issue);
    pending.pop_front();
    return send_edits();
  }
  if (pending.size() > 1)
    issue.message = std::to_string(pending.size()) + " edits were not stored: " + error.message;
  retry.start(kRetryMs);
  const auto before = std::exchange(unstored, issue);
  if (!before || before->message != issue.message) {
    if (before) remove_issue(*before);
    add_issue(issue);
    Q_EMIT q->unstored_changed();
  }
  for (auto& fn : std::exchange(waiting_for_edits, {})) fn();
}

void Session::Impl::edits_stored() {
  retry.stop();
  const auto before = std::exchange(unstored, std::nullopt);
  if (!before) return;
  remove_issue(*before);
  Q_EMIT q->unstored_changed();
}

// Whether statistics for the recipe's calibration settings exist is the engine's to say.
void Session::Impl::refresh_state() {
  edit_lane.post([this, asked = client] {
    const auto fresh = asked->state();
    if (fresh) on_gui([this, asked, fresh = *fresh] {
      if (asked != client || !is_ours(fresh)) return;
      const bool same = fresh.calibrated == state.calibrated && fresh.statistics_hash == state.statistics_hash &&
                        fresh.data_hash == state.data_hash;
      if (!same) set_state(fresh);
    });
  });
}

void Session::Impl::after_edits(std::function<void()> fn) {
  if (!client) return add_issue({Severity::kError, "engine", "The engine is not running.", "Wait until it is ready."});
  if (pending.empty() && !sending && !reopening) return fn();
  waiting_for_edits.push_back(std::move(fn));
  settle.stop();
  send_edits();
}

}  // namespace quanvas
