// Quanvas - what the graph view shows on top of the network: formats and errors per node. Values in.
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <QColor>
#include <QString>

#include "core/graph/graph.h"

namespace quanvas {

// Which measure colours the left edge of a card.
enum class ColorBy { kWeightBits, kActivationBits, kOutputError, kOperator, kParameters, kMacs };
QString color_by_title(ColorBy measure);
const std::vector<ColorBy>& color_by_choices();

enum class ErrorKind { kIsolated, kCumulative };  // only this layer quantized; the whole network quantized

struct NodeVisual {
  QString weight_chip;        // "W4"; empty: float or no weight
  double weight_bits = 0;     // of an element; 0: float
  bool weight_hatched = false;       // minifloat, MX: colour of the width, notched
  QString activation_chip;    // "U4": format of the node's output, written on its edges; empty: float
  double activation_bits = 0;
  bool activation_hatched = false;
  QString input_chip;         // format of its input, for edges whose source says nothing (the graph's input)
  // SQNR at the output in dB; nan: not measured.
  double isolated_db = std::numeric_limits<double>::quiet_NaN();
  double cumulative_db = std::numeric_limits<double>::quiet_NaN();
  bool stale = false;         // the errors were measured with an older recipe
  QString problem;            // not empty: badge with this reason (not supported, not executable, refused ...)
  bool is_hopeless = false;   // nothing that the user could choose for this node mends it
  QString note;               // further line of the tooltip ("set by rule 3: ...")

  double shown_db(ErrorKind kind) const { return kind == ErrorKind::kIsolated ? isolated_db : cumulative_db; }
  bool operator==(const NodeVisual& o) const;
};

// A place on the colour scale with its text. Hatched marks carry stripes.
struct LegendEntry {
  QColor color;
  QString text;
  bool hatched = false;
};

}  // namespace quanvas
