// GraphView: what stands out and what steps back: selection, search, path.
#include <algorithm>

#include <QAccessible>

#include "widgets/common/format.h"
#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_overlays.h"
#include "widgets/graph/graph_view.h"
#include "widgets/models/counted.h"

namespace quanvas {

namespace {

// The middle of a long name says least.
QString shortened(const QString& name) {
  constexpr qsizetype kMost = 36;
  return name.size() <= kMost ? name : name.left(kMost / 2) + QChar(0x2026) + name.right(kMost / 2);
}

}  // namespace

Fade GraphView::fade_of(bool found, bool on_path) const {
  if (!search_.isEmpty() && !found) return Fade::kNotFound;
  return paths_.followed() && !on_path ? Fade::kOffPath : Fade::kNone;
}

void GraphView::refresh_states() {
  if (items_are_old()) return;
  // The ring of the current node says nothing where it is the whole selection.
  const bool focus = hasFocus() && !(selected_.size() == 1 && selected_.count(current_) > 0);
  const bool followed = paths_.followed();
  const auto on_path = [&](NodeId id) {
    const auto it = content().index.find(id);
    return followed && it != content().index.end() && paths_.on_path(it->second);
  };
  for (const auto& [id, card] : node_cards_) {
    const bool path = on_path(id);
    card->set_state({selected_.count(id) > 0, focus && id == current_, path, fade_of(found_.count(id) > 0, path)});
  }
  std::set<std::string> shut_around_current;
  if (const auto it = hidden_in_.find(current_); it != hidden_in_.end()) shut_around_current.insert(it->second);
  for (const auto& [path, card] : group_cards_) {
    const std::vector<NodeId> nodes = nodes_of(*card);
    const auto in = [&](const std::set<NodeId>& set) {
      return !set.empty() && std::any_of(nodes.begin(), nodes.end(), [&](NodeId n) { return set.count(n) > 0; });
    };
    const bool passed = followed && std::any_of(nodes.begin(), nodes.end(), on_path);
    card->set_state({in(selected_), focus && shut_around_current.count(path) > 0, passed, fade_of(in(found_), passed)});
  }
  for (std::size_t e = 0; e < edges_.size(); ++e) {
    EdgeState state;
    for (const std::size_t k : layout_.edges[e].edges) {
      const LayoutEdge& l = content().layout.edges[k];
      state.on_path = state.on_path || (followed && paths_.edge_on_path(k));
      state.touches = state.touches || (!followed && (selected_.count(l.from) > 0 || selected_.count(l.to) > 0));
    }
    state.fade = fade_of(false, state.on_path);
    edges_[e]->set_state(state);
  }
}

void GraphView::set_path(PathShown shown) {
  if (path_ == shown) return;
  path_ = shown;
  follow_path();
  Q_EMIT path_changed(shown);
}

// Once per selection; frames only read the states of their items.
void GraphView::follow_path() {
  const bool before = paths_.followed() || !path_note_->text().isEmpty();
  std::vector<std::uint32_t> cards;
  if (path_ != PathShown::kOff)
    for (const NodeId id : selected_)
      if (const auto it = content().index.find(id); it != content().index.end()) cards.push_back(static_cast<std::uint32_t>(it->second));
  paths_.follow(cards, path_);
  refresh_states();
  if (!before && path_ == PathShown::kOff) return;
  refresh_minimap();
  path_note_->set_text(path_sentence());
  place_overlays();
  describe_current();
}

QString GraphView::path_sentence() const {
  if (!paths_.followed()) return path_ == PathShown::kOff || !graph_ ? QString() : tr("Select a node to see its path");
  const CardInfo* first = content().find(*selected_.begin());
  const bool one = selected_.size() == 1;
  const QString what = one && first != nullptr ? shortened(first->name) : tr("%1 selected nodes").arg(count_text(static_cast<double>(selected_.size())));
  const QString before = counted(paths_.upstream(), tr("1 node"), tr("%1 nodes"));
  const QString behind = counted(paths_.downstream(), tr("1 node depends on"), tr("%1 nodes depend on"));
  const QString depends = (one ? tr("%1 depends on %2") : tr("%1 depend on %2")).arg(what, before);
  switch (path_) {
    case PathShown::kUpstream: return depends;
    case PathShown::kDownstream: return behind + QStringLiteral(" ") + what;
    default: return depends + QStringLiteral("; ") + behind + QStringLiteral(" ") + (one ? tr("it") : tr("them"));
  }
}

void GraphView::describe_current() {
  const CardInfo* card = content().find(current_);
  if (card == nullptr) return;
  QStringList parts = {spoken(*card, visual(current_), options_.error), tr("%1 of %2").arg(content().index.at(current_) + 1).arg(content().cards.size())};
  if (paths_.followed()) parts << path_sentence();
  setAccessibleDescription(parts.join(QStringLiteral(", ")));
  QAccessibleEvent event(this, QAccessible::DescriptionChanged);
  QAccessible::updateAccessibility(&event);
}

}  // namespace quanvas
