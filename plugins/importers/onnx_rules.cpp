// Shapes and types of operators and attributes that came after the library's newest operator set.
#include <algorithm>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

using Facts = std::vector<TensorFacts>;

class Rule {
 public:
  Rule(const DraftNode& node, const Knowledge& known) : n_(node), known_(known) {}

  std::optional<Facts> result() const {
    static const std::unordered_set<std::string> kSame = {
        "Gelu",      "Mish",      "GroupNormalization", "RMSNormalization",
        "Swish",     "HardSwish", "RotaryEmbedding",    "TensorScatter",
        "BitwiseNot"};
    if (kSame.count(n_.op)) return Facts{{type(0), shape(0)}};
    if (n_.op.starts_with("Bitwise")) return Facts{{type(0), broadcast()}};
    if (n_.op == "Cast") return Facts{{static_cast<DataType>(n_.integer("to", 0)), shape(0)}};
    if (n_.op == "CastLike") return Facts{{type(1), shape(0)}};
    if (n_.op == "QuantizeLinear") return Facts{{code_type(), shape(0)}};
    if (n_.op == "DequantizeLinear") return Facts{{real_type(), shape(0)}};
    if (n_.op == "Split") return split();
    if (n_.op == "Attention") return attention();
    if (n_.op == "CenterCropPad") return center_crop_pad();
    // The type is known, the sizes follow from what the file says.
    static const std::unordered_set<std::string> kTypeOnly = {
        "Col2Im", "DeformConv", "AffineGrid", "Pad", "LpPool", "DFT", "Resize", "MaxPool", "AveragePool"};
    if (kTypeOnly.count(n_.op)) return Facts{{type(0), std::nullopt}};
    return std::nullopt;
  }

 private:
  const DraftNode& n_;
  const Knowledge& known_;

  DataType type(std::size_t i) const { return known_.type(n_.input(i)); }
  std::optional<Shape> shape(std::size_t i) const {
    const Shape* s = n_.input(i).empty() ? nullptr : known_.shape(n_.input(i));
    return s ? std::optional(*s) : std::nullopt;
  }
  static std::optional<std::size_t> axis_of(std::int64_t axis, const Shape& s) {
    if (axis < 0) axis += static_cast<std::int64_t>(s.size());
    if (axis < 0 || axis >= static_cast<std::int64_t>(s.size())) return std::nullopt;
    return static_cast<std::size_t>(axis);
  }

  DataType code_type() const {
    if (const auto t = n_.integer("output_dtype", 0); t != 0) return static_cast<DataType>(t);
    return n_.input(2).empty() ? DataType::kUint8 : type(2);
  }
  DataType real_type() const {
    if (const auto t = n_.integer("output_dtype", 0); t != 0) return static_cast<DataType>(t);
    return type(1);
  }

  std::optional<Shape> broadcast() const {
    const auto a = shape(0), b = shape(1);
    if (!a || !b) return std::nullopt;
    Shape out = a->size() >= b->size() ? *a : *b;
    const Shape& other = a->size() >= b->size() ? *b : *a;
    for (std::size_t i = 1; i <= other.size(); ++i) {
      std::int64_t& o = out[out.size() - i];
      const std::int64_t d = other[other.size() - i];
      if (o == 1)
        o = d;
      else if (d != 1 && d != o)
        return std::nullopt;
    }
    return out;
  }

  // In equal parts, the last one smaller.
  std::optional<Facts> split() const {
    Facts out(n_.outputs.size(), TensorFacts{type(0), std::nullopt});
    const auto x = shape(0);
    const auto axis = x ? axis_of(n_.integer("axis", 0), *x) : std::nullopt;
    const auto sizes = n_.input(1).empty() ? std::nullopt : known_.value(n_.input(1));
    if (!axis || (!n_.input(1).empty() && (!sizes || !sizes->is_number() || sizes->cells.size() != out.size())))
      return out;
    const auto parts = static_cast<std::int64_t>(out.size());
    std::int64_t left = (*x)[*axis];
    if (left < 0 && !sizes) return out;
    const std::int64_t each = (left + parts - 1) / parts;
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i].shape = *x;
      (*out[i].shape)[*axis] = sizes ? sizes->cells[i].integer : std::clamp<std::int64_t>(left, 0, each);
      left -= each;
    }
    return out;
  }

  std::optional<Facts> attention() const {
    Facts out(n_.outputs.size(), TensorFacts{type(0), std::nullopt});
    const auto q = shape(0), v = shape(2);
    if (!q || !v || q->size() != v->size() || q->size() < 3) return out;
    out[0].shape = *q;
    const std::int64_t heads = n_.integer("q_num_heads", 0), shared = n_.integer("kv_num_heads", 0),
                       width = v->back();
    if (q->size() == 4)
      out[0].shape->back() = width;
    else
      out[0].shape->back() = width > 0 && heads > 0 && shared > 0 ? width / shared * heads : kUnknownDim;
    return out;
  }

  std::optional<Facts> center_crop_pad() const {
    auto x = shape(0);
    const auto target = known_.value(n_.input(1));
    if (!x || !target) return Facts{{type(0), std::nullopt}};
    auto axes = n_.integers("axes");
    if (!axes) {
      axes.emplace();
      for (std::size_t i = 0; i < x->size(); ++i) axes->push_back(static_cast<std::int64_t>(i));
    }
    for (std::size_t i = 0; i < axes->size(); ++i) {
      const auto axis = axis_of((*axes)[i], *x);
      if (!axis || i >= target->cells.size()) return Facts{{type(0), std::nullopt}};
      (*x)[*axis] = target->cells[i].symbol ? target->cells[i].symbol : target->cells[i].integer;
    }
    return Facts{{type(0), x}};
  }
};

}  // namespace

std::optional<std::vector<TensorFacts>> newer_rule(const DraftNode& node, const Knowledge& known) {
  return Rule(node, known).result();
}

}  // namespace quanvas::onnx_import
