#include "widgets/graph/card_face.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <QCoreApplication>

#include "widgets/common/format.h"
#include "widgets/common/theme.h"

namespace quanvas {

namespace {

QString tr(const char* source) { return QCoreApplication::translate("GraphView", source); }

constexpr int kCategories = 7;

struct Choice {
  ColorBy measure;
  const char* title;
};
constexpr Choice kChoices[] = {{ColorBy::kWeightBits, "Weight bits"},     {ColorBy::kActivationBits, "Activation bits"},
                               {ColorBy::kOutputError, "Output error"},   {ColorBy::kOperator, "Operator"},
                               {ColorBy::kParameters, "Parameters"},      {ColorBy::kMacs, "MACs"}};

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Logarithmic: the largest is 1, a thousandth of it 0.
double amount(double value, double most) {
  return std::clamp(1 + std::log10(value / most) / 3, 0.0, 1.0);
}

Mark amount_mark(double value, double most) {
  return value > 0 && most > 0 ? Mark{Mark::Scale::kAmount, amount(value, most), false, 1} : Mark{};
}

const NodeVisual& visual_of(const std::map<NodeId, NodeVisual>& visuals, NodeId id) {
  static const NodeVisual none;
  const auto it = visuals.find(id);
  return it == visuals.end() ? none : it->second;
}

double order_value(const Mark& m) { return m.scale == Mark::Scale::kNone ? 1e9 : m.value; }

// Equal marks side by side, each as high as its share of the layers.
std::vector<Mark> merged(std::vector<Mark> marks) {
  std::stable_sort(marks.begin(), marks.end(),
                   [](const Mark& a, const Mark& b) { return order_value(a) < order_value(b); });
  std::vector<Mark> out;
  for (const Mark& m : marks) {
    const bool equal = !out.empty() && out.back().scale == m.scale && same(out.back().value, m.value) &&
                       out.back().hatched == m.hatched;
    if (equal) {
      out.back().share += 1;
    } else {
      out.push_back(m);
    }
  }
  for (Mark& m : out) m.share /= static_cast<double>(std::max<std::size_t>(1, marks.size()));
  return out.empty() ? std::vector<Mark>{Mark{}} : out;
}

void add_bits_legend(std::vector<LegendEntry>& out, const std::map<NodeId, NodeVisual>& visuals, bool weight) {
  std::set<double, std::greater<>> widths = {8, 6, 4, 3, 2};
  bool hatched = false;
  for (const auto& [id, v] : visuals) {
    const double bits = weight ? v.weight_bits : v.activation_bits;
    hatched = hatched || (weight ? v.weight_hatched : v.activation_hatched);
    if (bits > 0 && bits <= 16) widths.insert(bits);
  }
  out.push_back({colors().neutral, tr("float"), false});
  for (const double b : widths) out.push_back({bits_color(b), number_text(b, b == std::floor(b) ? 0 : 1), false});
  if (hatched) out.push_back({colors().neutral, tr("striped: minifloat, MX"), true});
}

QString line(const QString& label, const QString& value) {
  return QStringLiteral("<br>%1: %2").arg(label, value.toHtmlEscaped());
}

}  // namespace

QString color_by_title(ColorBy measure) {
  for (const Choice& c : kChoices)
    if (c.measure == measure) return tr(c.title);
  return {};
}

const std::vector<ColorBy>& color_by_choices() {
  static const std::vector<ColorBy> all = [] {
    std::vector<ColorBy> out;
    for (const Choice& c : kChoices) out.push_back(c.measure);
    return out;
  }();
  return all;
}

bool NodeVisual::operator==(const NodeVisual& o) const {
  return weight_chip == o.weight_chip && same(weight_bits, o.weight_bits) && weight_hatched == o.weight_hatched &&
         activation_chip == o.activation_chip && same(activation_bits, o.activation_bits) &&
         activation_hatched == o.activation_hatched && input_chip == o.input_chip &&
         same(isolated_db, o.isolated_db) && same(cumulative_db, o.cumulative_db) && stale == o.stale &&
         problem == o.problem && is_hopeless == o.is_hopeless && note == o.note;
}

QColor mark_color(const Mark& mark) {
  switch (mark.scale) {
    case Mark::Scale::kBits: return bits_color(mark.value);
    case Mark::Scale::kError: return error_color(mark.value);
    case Mark::Scale::kCategory: return category_color(static_cast<int>(mark.value));
    case Mark::Scale::kAmount: return cividis(mark.value);
    case Mark::Scale::kNone: break;
  }
  return colors().neutral;
}

Mark mark_of(const CardInfo& card, const NodeVisual& v, const GraphContent& content, const FaceOptions& options) {
  switch (options.color_by) {
    case ColorBy::kWeightBits:
      return v.weight_bits > 0 ? Mark{Mark::Scale::kBits, v.weight_bits, v.weight_hatched, 1} : Mark{};
    case ColorBy::kActivationBits:
      return v.activation_bits > 0 ? Mark{Mark::Scale::kBits, v.activation_bits, v.activation_hatched, 1} : Mark{};
    case ColorBy::kOutputError: {
      const double db = v.shown_db(options.error);
      return std::isnan(db) ? Mark{} : Mark{Mark::Scale::kError, db, false, 1};
    }
    case ColorBy::kOperator: {
      const auto it = content.op_rank.find(card.op);
      if (!card.layer || it == content.op_rank.end()) return {};
      return {Mark::Scale::kCategory, static_cast<double>(std::min(it->second, kCategories)), false, 1};
    }
    case ColorBy::kParameters: return amount_mark(card.parameters, content.most_parameters);
    case ColorBy::kMacs: return amount_mark(card.macs, content.most_macs);
  }
  return {};
}

CardFace face_of(const CardInfo& card, const NodeVisual& v, const GraphContent& content, const FaceOptions& options) {
  CardFace face;
  face.kind = card.kind;
  face.title = card.title;
  face.subtitle = card.subtitle;
  face.chip = v.weight_chip;
  face.chip_bits = v.weight_bits;
  face.chip_hatched = v.weight_hatched;
  const double db = v.shown_db(options.error);
  if (!std::isnan(db)) face.value = db_text(db);
  face.value_poor = db < kPoorSqnrDb;
  face.stale = v.stale;
  face.problem = !v.problem.isEmpty() || !card.opaque_reason.isEmpty();
  face.hopeless = v.is_hopeless;
  face.marks = {mark_of(card, v, content, options)};
  return face;
}

CardFace face_of(const PlacedGroup& group, const std::map<NodeId, NodeVisual>& visuals, const GraphContent& content,
                 const FaceOptions& options) {
  CardFace face;
  face.closed_group = true;
  face.title = QString::fromStdString(group.title);
  double worst = std::numeric_limits<double>::infinity();
  bool measured = false;
  int layers = 0;
  std::vector<Mark> marks;
  for (const NodeId id : group.nodes) {
    const CardInfo* card = content.find(id);
    if (card == nullptr) continue;
    const NodeVisual& v = visual_of(visuals, id);
    layers += card->layer ? 1 : 0;
    const double db = v.shown_db(options.error);
    measured = measured || !std::isnan(db);
    if (db < worst) worst = db;
    face.stale = face.stale || v.stale;
    face.problem = face.problem || !v.problem.isEmpty() || !card->opaque_reason.isEmpty();
    face.hopeless = face.hopeless || v.is_hopeless;
    const Mark mark = mark_of(*card, v, content, options);
    if (mark.scale != Mark::Scale::kNone || card->kind == CardKind::kLayer) marks.push_back(mark);
  }
  face.marks = merged(std::move(marks));
  const QString nodes = count_text(static_cast<double>(group.nodes.size()));
  face.subtitle = layers == static_cast<int>(group.nodes.size())
                      ? tr("%1 layers").arg(nodes)
                      : tr("%1 nodes · %2 layers").arg(nodes, count_text(layers));
  if (measured) face.value = QStringLiteral("≥ ") + db_text(worst);
  face.value_poor = measured && worst < kPoorSqnrDb;
  return face;
}

std::vector<LegendEntry> legend_of(const GraphContent& content, const std::map<NodeId, NodeVisual>& visuals,
                                   const FaceOptions& options) {
  std::vector<LegendEntry> out;
  switch (options.color_by) {
    case ColorBy::kWeightBits:
    case ColorBy::kActivationBits:
      add_bits_legend(out, visuals, options.color_by == ColorBy::kWeightBits);
      break;
    case ColorBy::kOutputError:
      out.push_back({colors().neutral, tr("not measured"), false});
      for (const int db : {45, 35, 25, 15, 5}) {
        const QString sign = db == 45 ? QStringLiteral("≥ ") : db == 5 ? QStringLiteral("≤ ") : QString();
        out.push_back({error_color(db), sign + db_text(db, 0), false});
      }
      break;
    case ColorBy::kOperator:
      for (int rank = 0; rank <= kCategories; ++rank)
        for (const auto& [op, r] : content.op_rank)
          if (r == rank) out.push_back({category_color(rank), rank == kCategories ? tr("other layers") : op, false});
      out.push_back({colors().neutral, tr("no layer"), false});
      break;
    case ColorBy::kParameters:
    case ColorBy::kMacs: {
      const double most = options.color_by == ColorBy::kMacs ? content.most_macs : content.most_parameters;
      out.push_back({colors().neutral, tr("none"), false});
      if (!(most > 0)) break;
      for (int step = 3; step >= 0; --step) {
        const double value = most * std::pow(10.0, -step);
        out.push_back({cividis(amount(value, most)), (step == 3 ? QStringLiteral("≤ ") : QString()) + si_text(value), false});
      }
      break;
    }
  }
  return out;
}

QString tooltip_of(const CardInfo& card, const NodeVisual& v) {
  QString text = QStringLiteral("<b>%1</b><br>%2").arg(card.name.toHtmlEscaped(), card.description.toHtmlEscaped());
  if (!card.shape.isEmpty()) text += line(tr("Output"), card.shape);
  if (card.parameters > 0) text += line(tr("Parameters"), count_text(card.parameters));
  if (card.macs > 0) text += line(tr("MACs"), si_text(card.macs));
  if (!v.weight_chip.isEmpty()) text += line(tr("Weight"), v.weight_chip);
  if (!v.input_chip.isEmpty()) text += line(tr("Input"), v.input_chip);
  if (!v.activation_chip.isEmpty()) text += line(tr("Result"), v.activation_chip);
  if (!std::isnan(v.isolated_db)) text += line(tr("SQNR, only this layer quantized"), db_text(v.isolated_db));
  if (!std::isnan(v.cumulative_db)) text += line(tr("SQNR, whole network quantized"), db_text(v.cumulative_db));
  if (v.stale) text += QStringLiteral("<br><i>%1</i>").arg(tr("Measured before the last edit."));
  if (!v.note.isEmpty()) text += QStringLiteral("<br>") + v.note.toHtmlEscaped();
  for (const QString& reason : {card.opaque_reason, v.problem})
    if (!reason.isEmpty())
      text += QStringLiteral("<br><span style=\"color:%1\">%2</span>").arg(colors().warning.name(), reason.toHtmlEscaped());
  return text;
}

QString spoken(const CardInfo& card, const NodeVisual& v, ErrorKind error) {
  QStringList parts = {card.title, card.description};
  if (!v.weight_chip.isEmpty()) parts << tr("weight %1").arg(v.weight_chip);
  if (!v.activation_chip.isEmpty()) parts << tr("result %1").arg(v.activation_chip);
  if (!std::isnan(v.shown_db(error))) parts << tr("error at the output %1").arg(db_text(v.shown_db(error)));
  if (v.stale) parts << tr("stale");
  for (const QString& reason : {card.opaque_reason, v.problem})
    if (!reason.isEmpty()) parts << reason;
  return parts.join(QStringLiteral(", "));
}

}  // namespace quanvas
