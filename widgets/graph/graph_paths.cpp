#include "widgets/graph/graph_paths.h"

namespace quanvas {

GraphPaths::GraphPaths(const GraphContent& content) {
  for (const CardInfo& card : content.cards) terminal_.push_back(card.kind == CardKind::kTerminal);
  const auto number = [&](NodeId id) { return static_cast<std::uint32_t>(content.index.at(id)); };
  ends_.reserve(content.edges.size());
  for (const ContentEdge& e : content.edges) ends_.push_back({number(e.from), number(e.to)});
  sources_ = neighbours(content.cards.size(), ends_, &Ends::to, &Ends::from);
  targets_ = neighbours(content.cards.size(), ends_, &Ends::from, &Ends::to);
}

GraphPaths::Neighbours GraphPaths::neighbours(std::size_t cards, const std::vector<Ends>& ends, std::uint32_t Ends::*at,
                                              std::uint32_t Ends::*other) {
  Neighbours out;
  out.first.assign(cards + 1, 0);
  out.cards.resize(ends.size());
  for (const Ends& e : ends) ++out.first[e.*at + 1];
  for (std::size_t c = 0; c < cards; ++c) out.first[c + 1] += out.first[c];
  std::vector<std::uint32_t> next(out.first.begin(), out.first.end() - 1);
  for (const Ends& e : ends) out.cards[next[e.*at]++] = e.*other;
  return out;
}

void GraphPaths::follow(const std::vector<std::uint32_t>& from, PathShown shown) {
  marks_.clear();
  upstream_ = downstream_ = 0;
  if (from.empty() || shown == PathShown::kOff) return;
  marks_.assign(terminal_.size(), 0);
  for (const std::uint32_t card : from) marks_[card] = kStart;
  if (shown != PathShown::kDownstream) upstream_ = walk(from, sources_, kLeadsHere);
  if (shown != PathShown::kUpstream) downstream_ = walk(from, targets_, kComesFromHere);
}

// Marks everything that is reached; returns how many nodes of the network among them it did not begin from.
int GraphPaths::walk(const std::vector<std::uint32_t>& from, const Neighbours& next, std::uint8_t mark) {
  std::vector<std::uint32_t> open = from;
  for (const std::uint32_t card : from) marks_[card] |= mark;
  int reached = 0;
  while (!open.empty()) {
    const std::uint32_t card = open.back();
    open.pop_back();
    for (const std::uint32_t n : next.of(card)) {
      if ((marks_[n] & mark) != 0) continue;
      marks_[n] |= mark;
      reached += terminal_[n] ? 0 : 1;
      open.push_back(n);
    }
  }
  return reached;
}

}  // namespace quanvas
