// Which nodes of a draft are quantizers, and what they quantize to.
#include <algorithm>
#include <cmath>

#include "plugins/importers/onnx_quant_parts.h"

namespace quanvas::onnx_import {
namespace {

bool is_op(const DraftNode& n, const char* op) { return n.domain.empty() && n.op == op; }

struct Codes {
  std::int64_t lo = 0, hi = 0;
};
std::optional<Codes> codes_of(DataType type) {
  switch (type) {
    case DataType::kInt8: return Codes{-128, 127};
    case DataType::kUint8: return Codes{0, 255};
    case DataType::kInt16: return Codes{-32768, 32767};
    case DataType::kUint16: return Codes{0, 65535};
    case DataType::kInt4: return Codes{-8, 7};
    case DataType::kUint4: return Codes{0, 15};
    case DataType::kInt32: return Codes{-2147483648ll, 2147483647ll};
    default: return std::nullopt;
  }
}

// Exponent bits, mantissa bits and what is no number, of the minifloats that ONNX has.
std::optional<QuantSpec> minifloat(DataType type) {
  const auto make = [](int exponent, int mantissa, FloatSpecials specials) {
    QuantSpec spec = stored_spec();
    spec.format = "float";
    spec.exponent_bits = exponent;
    spec.mantissa_bits = mantissa;
    spec.specials = specials;
    return spec;
  };
  switch (type) {
    case DataType::kFloat8E4M3Fn: return make(4, 3, FloatSpecials::kNan);
    case DataType::kFloat8E4M3Fnuz: return make(4, 3, FloatSpecials::kFnuz);
    case DataType::kFloat8E5M2: return make(5, 2, FloatSpecials::kIeee);
    case DataType::kFloat8E5M2Fnuz: return make(5, 2, FloatSpecials::kFnuz);
    case DataType::kFloat4E2M1: return make(2, 1, FloatSpecials::kNone);
    default: return std::nullopt;
  }
}

class Finder {
 public:
  explicit Finder(const Draft& draft) : draft_(draft) {
    for (std::size_t i = 0; i < draft.nodes.size(); ++i) {
      if (draft.nodes[i].removed) continue;
      for (const std::string& t : draft.nodes[i].outputs)
        if (!t.empty()) producer_[t] = i;
    }
  }

  Found run() {
    for (std::size_t i = 0; i < draft_.nodes.size(); ++i) {
      const DraftNode& n = draft_.nodes[i];
      if (n.removed || n.outputs.empty()) continue;
      if (is_op(n, "DequantizeLinear"))
        take(i, dequantized(i));
      else if (is_qonnx_operator(n.domain, n.op))
        take(i, n.op == "MultiThreshold" ? threshold_quantizer(draft_, i) : qonnx_quantizer(draft_, i));
      else if (const std::string why = always_left(n); !why.empty())
        found_.left.push_back({i, why});
    }
    leave_unpaired();
    std::erase_if(found_.left, [&](const LeftOver& l) { return used_.count(l.node) > 0; });
    return std::move(found_);
  }

 private:
  const Draft& draft_;
  std::unordered_map<std::string, std::size_t> producer_;
  std::unordered_set<std::size_t> used_;  // nodes of quantizers that were found
  Found found_;

  void take(std::size_t node, Result<Quantizer> found) {
    if (!found) {
      found_.left.push_back({node, found.error().message});
      return;
    }
    used_.insert(found->nodes.begin(), found->nodes.end());
    found->label = draft_.nodes[node].label();
    found_.quantizers.push_back(std::move(*found));
  }

  static std::string always_left(const DraftNode& n) {
    if (!n.domain.empty()) return {};
    if (n.op == "DynamicQuantizeLinear") return "its scale is found anew at each run, and integers read it";
    if (n.op == "ConvInteger" || n.op == "MatMulInteger") return "it computes on integers that no constant scale belongs to";
    if (n.op == "QLinearConv" || n.op == "QLinearMatMul") return "its scales are not constants";
    return {};
  }

  // QuantizeLinear that nothing dequantizes: integers that the network gives, or computes with.
  void leave_unpaired() {
    for (std::size_t i = 0; i < draft_.nodes.size(); ++i)
      if (!draft_.nodes[i].removed && is_op(draft_.nodes[i], "QuantizeLinear") && !used_.count(i) && !feeds_left(i))
        found_.left.push_back({i, "what reads it is not dequantized with the same scale"});
  }
  // It is named already, by the DequantizeLinear behind it.
  bool feeds_left(std::size_t node) const {
    return std::any_of(found_.left.begin(), found_.left.end(), [&](const LeftOver& l) {
      const auto& in = draft_.nodes[l.node].inputs;
      return !in.empty() && in[0] == draft_.nodes[node].outputs[0];
    });
  }

  const DraftNode* node_of(const std::string& tensor) const {
    const auto it = producer_.find(tensor);
    return it == producer_.end() ? nullptr : &draft_.nodes[it->second];
  }

  std::optional<Shape> shape_of(const std::string& tensor) const {
    const TensorFacts* facts = draft_.known(tensor);
    return facts ? facts->shape : std::nullopt;
  }

  // --- ONNX: [QuantizeLinear, Clip...], DequantizeLinear

  Result<Quantizer> dequantized(std::size_t index) const {
    const DraftNode& last = draft_.nodes[index];
    if (const TensorFacts* facts = draft_.known(last.outputs[0]); !facts || facts->type != DataType::kFloat)
      return no_quantizer("it does not give float32 values");
    std::vector<std::size_t> nodes = {index};
    std::vector<const DraftNode*> clips;
    std::string codes = last.input(0);
    const DraftNode* before = node_of(codes);
    while (before && is_op(*before, "Clip")) {
      nodes.push_back(producer_.at(codes));
      clips.push_back(before);
      codes = before->input(0);
      before = node_of(codes);
    }
    Quantizer q;
    q.output = last.outputs[0];
    if (before && is_op(*before, "DynamicQuantizeLinear")) return dynamic(index, *before, codes);
    if (before && is_op(*before, "QuantizeLinear")) {
      nodes.push_back(producer_.at(codes));
      QUANVAS_CHECK(same_numbers(*before, last));
      q.input = before->input(0);
      if (const TensorFacts* facts = draft_.known(q.input); facts && facts->type != DataType::kFloat)
        return no_quantizer("it does not quantize float32 values");
    } else if (!draft_.constant(codes)) {
      return no_quantizer(before ? "the integers that it reads come from " + before->label() + ", not from QuantizeLinear"
                       : std::string("the integers that it reads are an input of the network"));
    }
    if (q.input.empty() && !draft_.constant(codes)) return no_quantizer("it has no input");
    q.nodes.assign(nodes.rbegin(), nodes.rend());
    const TensorFacts* facts = draft_.known(codes);
    QUANVAS_CHECK(set_format(q, facts ? facts->type : DataType::kUndefined, before, clips));
    QUANVAS_CHECK(set_linear_parameters(q, last, draft_.constant(codes) ? codes : q.input));
    take_limits(q);
    QUANVAS_CHECK(settle_zero_point(q));
    QUANVAS_CHECK(set_constant(q, codes));
    return q;
  }

  // 16-bit codes of which a Clip of the real numbers leaves fewer: no runtime clips the codes themselves.
  void take_limits(Quantizer& q) const {
    const DraftNode* clip =
        q.input.empty() || q.scale.size() != 1 || q.spec.format != "int" || q.spec.bits != 16 ? nullptr : node_of(q.input);
    if (!clip || !is_op(*clip, "Clip") || clip->inputs.size() != 3) return;
    std::int64_t codes[2];
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      const TensorData* data = draft_.constant(clip->input(i + 1));
      const std::vector<float> limit = data && data->type == DataType::kFloat ? data->to_floats() : std::vector<float>();
      if (limit.size() != 1 || !(std::fabs(limit[0] / q.scale[0]) < 131072)) return;
      codes[i] = std::llrint(limit[0] / q.scale[0]);
      if (static_cast<float>(codes[i]) * q.scale[0] != limit[0]) return;
      codes[i] += std::llrint(q.zero_point[0]);
    }
    const auto format = format_of_codes(codes[0], codes[1]);
    const std::int64_t least = q.spec.is_signed ? -32768 : 0;
    if (!format || format->is_signed != q.spec.is_signed || format->shift != 0 || codes[0] < least || codes[1] > least + 65535)
      return;
    q.spec.bits = format->bits;
    q.spec.narrow = format->narrow;
    q.nodes.insert(q.nodes.begin(), producer_.at(q.input));
    q.input = clip->input(0);
  }

  // Codes, scale and zero point of one DynamicQuantizeLinear.
  Result<Quantizer> dynamic(std::size_t index, const DraftNode& quantize, const std::string& codes) const {
    const DraftNode& last = draft_.nodes[index];
    if (quantize.outputs.size() != 3 || codes != quantize.outputs[0] || last.input(0) != codes || last.input(1) != quantize.outputs[1] || last.input(2) != quantize.outputs[2])
      return no_quantizer("it dequantizes with another scale or zero point than its DynamicQuantizeLinear gives");
    Quantizer q;
    q.input = quantize.input(0);
    q.output = last.outputs[0];
    q.nodes = {producer_.at(codes), index};
    q.spec.bits = 8;
    q.spec.is_signed = false;
    q.spec.zero_point = ZeroPointType::kInteger;
    q.spec.statistic = Statistic::kMinMax;
    q.spec.source = ScaleSource::kDynamic;
    return q;
  }

  Status same_numbers(const DraftNode& quantize, const DraftNode& dequantize) const {
    for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
      const std::string &a = quantize.input(i), &b = dequantize.input(i);
      if (a == b) continue;
      const TensorData *x = draft_.constant(a), *y = draft_.constant(b);
      const bool absent = (a.empty() && y && is_zero(*y)) || (b.empty() && x && is_zero(*x));
      if (!absent && (!x || !y || x->to_floats() != y->to_floats()))
        return no_quantizer("it dequantizes with another scale or zero point than its QuantizeLinear has");
    }
    if (quantize.integer("axis", 1) != dequantize.integer("axis", 1) ||
        quantize.integer("block_size", 0) != dequantize.integer("block_size", 0)) {
      const TensorData* scale = draft_.constant(dequantize.input(1));
      if (!scale || scale->count() != 1) return no_quantizer("it dequantizes along another axis than its QuantizeLinear");
    }
    return {};
  }
  static bool is_zero(const TensorData& data) {
    const auto values = data.to_floats();
    return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
  }

  Status set_format(Quantizer& q, DataType type, const DraftNode* quantize, const std::vector<const DraftNode*>& clips) const {
    if (auto spec = minifloat(type)) {
      if (!clips.empty()) return no_quantizer("its minifloats are clipped");
      q.spec = std::move(*spec);
      if (quantize && is_op(*quantize, "QuantizeLinear")) q.spec.saturate = quantize->integer("saturate", 1) != 0;
      return {};
    }
    const auto all = codes_of(type);
    if (!all) return no_quantizer(std::string("codes of the type ") + type_name(type) + " are no quantizer of a recipe");
    Codes range = *all;
    for (const DraftNode* clip : clips) {
      QUANVAS_TRY(const Codes limits, limits_of(*clip, range));
      range = limits;
    }
    const TensorData* given = clips.empty() && !quantize ? draft_.constant(draft_.nodes[q.nodes.front()].input(0)) : nullptr;
    return set_codes(q, given && type != DataType::kInt32 ? used(*given, range) : range);
  }

  // Codes narrower than their type need no Clip, so the narrowest range that holds them says how many bits they have.
  static Codes used(const TensorData& data, Codes type) {
    const std::vector<std::int64_t> codes = data.to_int64();
    const auto [lowest, highest] = std::minmax_element(codes.begin(), codes.end());
    if (codes.empty() || (*lowest == 0 && *highest == 0)) return type;
    if (type.lo == 0) {
      std::int64_t hi = 3;
      while (hi < *highest) hi = 2 * hi + 1;
      return *lowest < 0 ? type : Codes{0, std::min(hi, type.hi)};
    }
    std::int64_t half = 2;
    while (-half > *lowest || half <= *highest) half *= 2;
    return {*lowest > -half ? 1 - half : -half, half - 1};
  }

  Result<Codes> limits_of(const DraftNode& clip, Codes range) const {
    for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
      if (clip.input(i).empty()) continue;
      const TensorData* data = draft_.constant(clip.input(i));
      const auto values = data ? data->to_int64() : std::vector<std::int64_t>();
      if (values.size() != 1) return no_quantizer("the limits of its Clip are not constants");
      (i == 1 ? range.lo : range.hi) = i == 1 ? std::max(range.lo, values[0]) : std::min(range.hi, values[0]);
    }
    return range;
  }

  static Status set_codes(Quantizer& q, Codes range) {
    const auto format = format_of_codes(range.lo, range.hi);
    if (!format)
      return no_quantizer("its codes " + std::to_string(range.lo) + " … " + std::to_string(range.hi) + " are those of no integer format");
    q.spec = stored_spec();
    q.spec.bits = format->bits;
    q.spec.is_signed = format->is_signed;
    q.spec.narrow = format->narrow;
    q.zero_point = {static_cast<float>(format->shift)};  // added to the zero point that is read
    return {};
  }

  // tensor: the one that has the layout.
  Status set_linear_parameters(Quantizer& q, const DraftNode& n, const std::string& tensor) const {
    QUANVAS_TRY(const Numbers scale, scales_of(draft_, n.input(1)));
    const float shift = q.zero_point.empty() ? 0.0f : q.zero_point[0];
    q.scale = scale.values;
    q.zero_point.assign(q.scale.size(), 0.0f);
    if (!n.input(2).empty()) {
      QUANVAS_TRY(const Numbers zero, constant_numbers(draft_, n.input(2), "zero point"));
      if (zero.values.size() != q.scale.size()) return no_quantizer("its scale and zero point have different sizes");
      q.zero_point = zero.values;
    }
    for (float& z : q.zero_point) z += shift;
    if (q.scale.size() == 1) return {};
    return set_axis(q, n, scale.shape, shape_of(tensor));
  }

  Status set_axis(Quantizer& q, const DraftNode& n, const Shape& scale, const std::optional<Shape>& x) const {
    if (!x) return no_quantizer("it has several scales, and the shape of what it quantizes is not known");
    const auto rank = static_cast<std::int64_t>(x->size());
    std::int64_t axis = n.integer("axis", 1);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return no_quantizer("its axis " + std::to_string(n.integer("axis", 1)) + " is none of " + shape_text(*x));
    const std::int64_t block = n.integer("block_size", 0), size = (*x)[static_cast<std::size_t>(axis)];
    q.spec.axis = static_cast<int>(axis);
    if (block == 0 && scale.size() == 1 && scale[0] == size) {
      q.spec.granularity = Granularity::kChannel;
      return {};
    }
    Shape blocks = *x;
    if (block > 0 && size > 0) blocks[static_cast<std::size_t>(axis)] = (size + block - 1) / block;
    if (block <= 0 || block > 65536 || scale != blocks)
      return no_quantizer("its scales " + shape_text(scale) + " do not fit " + shape_text(*x) + " along axis " + std::to_string(axis));
    q.spec.granularity = Granularity::kGroup;
    q.spec.group_size = static_cast<int>(block);
    return {};
  }

  // What a constant stands for.
  Status set_constant(Quantizer& q, const std::string& codes) const {
    const std::string& from = q.input.empty() ? codes : q.input;
    const TensorData* data = draft_.constant(from);
    if (!data) return {};
    std::vector<float> values = data->to_floats();
    if (static_cast<std::int64_t>(values.size()) != data->count()) return no_quantizer("the file lacks data of '" + from + "'");
    if (q.input.empty()) {
      quant::Stored stored{q.spec, q.scale, q.zero_point, {}};
      auto params = quant::stored_params(q.spec, data->shape, {}, q.spec.axis.value_or(0), stored);
      if (!params) return no_quantizer(params.error().message);
      decode(q, *params, data->shape, values);
    }
    q.source = from;
    q.input.clear();
    q.values = TensorData::of_floats(data->shape, std::move(values));
    return {};
  }

  // Codes that the file gives to what they stand for: (code + shift - zero point) * scale.
  void decode(const Quantizer& q, const quant::QuantParams& params, const Shape& shape, std::vector<float>& values) const {
    const DraftNode& last = draft_.nodes[q.nodes.back()];
    const TensorData* given = draft_.constant(last.input(2));
    const std::vector<float> zero = given ? given->to_floats() : std::vector<float>();
    const quant::BlockLayout& layout = params.layout;
    const std::int64_t groups = layout.granularity == Granularity::kGroup ? (layout.dim + layout.group - 1) / layout.group : layout.dim;
    const std::vector<std::int64_t> wide = draft_.constant(q.input.empty() ? first_input(q) : q.input)->to_int64();
    const bool exact = q.spec.format == "int" && wide.size() == values.size();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const std::int64_t d = at / layout.inner % std::max<std::int64_t>(layout.dim, 1), o = at / (layout.inner * layout.dim);
      const std::int64_t p = layout.granularity == Granularity::kTensor    ? 0
                             : layout.granularity == Granularity::kChannel ? d
                                                                           : (o * groups + d / layout.group) * layout.inner + at % layout.inner;
      const auto k = static_cast<std::size_t>(p);
      const double z = zero.empty() ? 0 : static_cast<double>(zero[k]);
      const double code = exact ? static_cast<double>(wide[i]) : static_cast<double>(values[i]);
      values[i] = static_cast<float>(code - z) * q.scale[k];
    }
    (void)shape;
  }
  const std::string& first_input(const Quantizer& q) const { return draft_.nodes[q.nodes.front()].inputs[0]; }
};

}  // namespace

std::optional<CodeFormat> format_of_codes(std::int64_t lo, std::int64_t hi) {
  const auto width_of = [](std::int64_t codes) {
    for (int b = 1; b <= 32; ++b)
      if (codes == std::int64_t{1} << b) return b;
    return 0;
  };
  if (hi <= lo || hi - lo > 4294967295ll) return std::nullopt;
  const std::int64_t codes = hi - lo + 1;
  const bool narrow = width_of(codes) == 0;
  const int bits = width_of(codes + narrow);
  if (bits == 0 || (narrow && bits < 2)) return std::nullopt;
  const std::int64_t half = std::int64_t{1} << (bits - 1);
  if (lo == (narrow ? 1 - half : -half)) return CodeFormat{bits, true, narrow, 0};
  return CodeFormat{bits, false, narrow, -lo};
}

Found find_quantizers(const Draft& draft) { return Finder(draft).run(); }

}  // namespace quanvas::onnx_import
