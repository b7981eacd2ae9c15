// Quanvas - what lies on the way to and from some nodes of a network: everything that they depend on (upstream) and
// everything that depends on them (downstream). Pure value, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "widgets/graph/graph_content.h"

namespace quanvas {

enum class PathShown { kOff, kUpstream, kDownstream, kBoth };

class GraphPaths {
 public:
  GraphPaths() = default;
  explicit GraphPaths(const GraphContent& content);

  // Cards (their index in the content) on the other ends of a card's edges.
  std::span<const std::uint32_t> before(std::size_t card) const { return sources_.of(card); }
  std::span<const std::uint32_t> behind(std::size_t card) const { return targets_.of(card); }

  // Linear in cards and edges. From no card: nothing is followed.
  void follow(const std::vector<std::uint32_t>& from, PathShown shown);
  bool followed() const { return !marks_.empty(); }
  // Asked only after something was followed. The nodes that it began from are on the path.
  bool on_path(std::size_t card) const { return marks_[card] != 0; }
  bool edge_on_path(std::size_t edge) const {   // index in GraphContent::edges
    return (marks_[ends_[edge].to] & kLeadsHere) != 0 || (marks_[ends_[edge].from] & kComesFromHere) != 0;
  }
  // Nodes of the network, without those that it began from.
  int upstream() const { return upstream_; }
  int downstream() const { return downstream_; }

 private:
  // kLeadsHere: every edge into the card is on the path; kComesFromHere: every edge out of it.
  enum : std::uint8_t { kStart = 1, kLeadsHere = 2, kComesFromHere = 4 };
  struct Ends {
    std::uint32_t from, to;
  };
  // Neighbours of all cards in one list.
  struct Neighbours {
    std::vector<std::uint32_t> first, cards;
    std::span<const std::uint32_t> of(std::size_t card) const {
      return {cards.data() + first[card], cards.data() + first[card + 1]};
    }
  };
  static Neighbours neighbours(std::size_t cards, const std::vector<Ends>& ends, std::uint32_t Ends::*at,
                               std::uint32_t Ends::*other);
  int walk(const std::vector<std::uint32_t>& from, const Neighbours& next, std::uint8_t mark);

  std::vector<bool> terminal_;        // of cards
  std::vector<Ends> ends_;
  Neighbours sources_, targets_;
  std::vector<std::uint8_t> marks_;   // of cards; empty: nothing is followed
  int upstream_ = 0, downstream_ = 0;
};

}  // namespace quanvas
