// Quanvas - what one card shows at the moment, as plain values: from the node's texts, its visual and the chosen
// measure. Cards are repainted only when their face differs.
#pragma once

#include <vector>

#include <QString>

#include "widgets/graph/graph_content.h"
#include "widgets/graph/node_visual.h"

namespace quanvas {

// One part of the coloured left edge. `value` is kept instead of a colour, because colours change with the theme.
struct Mark {
  enum class Scale { kNone, kBits, kError, kCategory, kAmount } scale = Scale::kNone;
  double value = 0;      // bits, dB, index of the category, 0..1 on the amount scale
  bool hatched = false;
  double share = 1;      // of the edge's height
  bool operator==(const Mark&) const = default;
};
QColor mark_color(const Mark& mark);

struct CardFace {
  CardKind kind = CardKind::kLayer;
  QString title, subtitle;
  QString chip;          // weight format
  double chip_bits = 0;
  bool chip_hatched = false;
  QString value;         // "22.1 dB"
  bool value_poor = false, stale = false, problem = false, hopeless = false, closed_group = false;
  std::vector<Mark> marks;
  bool operator==(const CardFace&) const = default;
};

struct FaceOptions {
  ColorBy color_by = ColorBy::kWeightBits;
  ErrorKind error = ErrorKind::kIsolated;
};

Mark mark_of(const CardInfo& card, const NodeVisual& visual, const GraphContent& content, const FaceOptions& options);
CardFace face_of(const CardInfo& card, const NodeVisual& visual, const GraphContent& content,
                 const FaceOptions& options);
// A closed group: how many nodes and layers, the worst error inside, its layers' colours side by side.
CardFace face_of(const PlacedGroup& group, const std::map<NodeId, NodeVisual>& visuals, const GraphContent& content,
                 const FaceOptions& options);
std::vector<LegendEntry> legend_of(const GraphContent& content, const std::map<NodeId, NodeVisual>& visuals,
                                   const FaceOptions& options);
// Several lines of rich text; everything from the file is escaped.
QString tooltip_of(const CardInfo& card, const NodeVisual& visual);
// One sentence for screen readers.
QString spoken(const CardInfo& card, const NodeVisual& visual, ErrorKind error);

}  // namespace quanvas
