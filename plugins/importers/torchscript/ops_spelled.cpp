// Quantizers that a program spells out in float arithmetic.
#include <algorithm>
#include <cmath>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

class Finder {
 public:
  explicit Finder(Draft& draft) : draft_(draft) {
    for (std::size_t i = 0; i < draft.nodes.size(); ++i)
      for (const std::string& t : draft.nodes[i].outputs) producer_[t] = i;
  }
  void run() {
    for (std::size_t i = 0; i < draft_.nodes.size(); ++i)
      if (is(i, "Mul")) dequantizer(i);
  }

 private:
  Draft& draft_;
  std::unordered_map<std::string, std::size_t> producer_;

  bool is(std::size_t i, const char* op) const {
    return draft_.nodes[i].domain.empty() && draft_.nodes[i].op == op && draft_.nodes[i].bodies.empty();
  }
  const DraftNode* made_by(const std::string& tensor, const char* op) const {
    const auto it = producer_.find(tensor);
    return it != producer_.end() && is(it->second, op) ? &draft_.nodes[it->second] : nullptr;
  }
  std::optional<std::vector<float>> constant(const std::string& tensor) const {
    const TensorData* data = draft_.constant(tensor);
    if (!data || data->to_floats().empty()) return std::nullopt;
    return data->to_floats();
  }

  // [codes] -> [Cast] -> [Sub z] -> Mul s. codes: Clip of whole numbers, or of QuantizeLinear.
  void dequantizer(std::size_t index) {
    const DraftNode mul = draft_.nodes[index];
    const auto scale = constant(mul.input(1));
    if (!scale || std::any_of(scale->begin(), scale->end(), [](float s) { return !(s > 0) || !std::isfinite(s); })) return;
    std::string codes = mul.input(0);
    std::vector<float> zero(scale->size(), 0);
    if (const DraftNode* sub = made_by(codes, "Sub")) {
      const auto z = constant(sub->input(1));
      if (!z || (z->size() != 1 && z->size() != scale->size())) return;
      zero = z->size() == 1 ? std::vector<float>(scale->size(), (*z)[0]) : *z;
      codes = sub->input(0);
    }
    if (const DraftNode* cast = made_by(codes, "Cast")) codes = cast->input(0);
    const std::optional<std::int64_t> axis = axis_of(mul.input(1));
    if (!axis) return;
    if (const DraftNode* q = through_clip(codes)) return from_integers(index, codes, *q, *scale, zero);
    spelled(index, codes, *scale, zero, *axis);
  }

  // -1: one number for all.
  std::optional<std::int64_t> axis_of(const std::string& tensor) const {
    std::int64_t axis = -1;
    const Shape& shape = draft_.constant(tensor)->shape;
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (shape[i] != 1) {
        if (axis >= 0) return std::nullopt;
        axis = static_cast<std::int64_t>(i);
      }
    return axis;
  }

  const DraftNode* through_clip(std::string codes) const {
    if (const DraftNode* clip = made_by(codes, "Clip")) codes = clip->input(0);
    return made_by(codes, "QuantizeLinear");
  }

  // The numbers of QuantizeLinear are those of the arithmetic behind it.
  void from_integers(std::size_t index, const std::string& codes, const DraftNode& q, const std::vector<float>& scale,
                     const std::vector<float>& zero) {
    const auto s = constant(q.input(1)), z = constant(q.input(2));
    if (!s || !z || *s != scale || *z != zero) return;
    DraftNode& mul = draft_.nodes[index];
    mul.op = "DequantizeLinear";
    mul.inputs = {codes, q.input(1), q.input(2)};
    mul.attributes = q.attributes;
  }

  // Clip(Round(x / s) [+ z])
  void spelled(std::size_t index, const std::string& codes, const std::vector<float>& scale, const std::vector<float>& zero,
               std::int64_t axis) {
    const DraftNode* clip = made_by(codes, "Clip");
    if (!clip) return;
    const auto lo = constant(clip->input(1)), hi = constant(clip->input(2));
    if (!lo || !hi || lo->size() != 1 || hi->size() != 1) return;
    std::string steps = clip->input(0);
    std::vector<float> added(scale.size(), 0);
    if (const DraftNode* add = made_by(steps, "Add")) {
      const auto z = constant(add->input(1));
      if (!z || (z->size() != 1 && z->size() != scale.size())) return;
      added = z->size() == 1 ? std::vector<float>(scale.size(), (*z)[0]) : *z;
      steps = add->input(0);
    }
    const DraftNode* round = made_by(steps, "Round");
    const DraftNode* divide = round ? made_by(round->input(0), "Div") : nullptr;
    if (!divide || added != zero) return;
    const auto by = constant(divide->input(1));
    if (!by || *by != scale || axis_of(divide->input(1)) != axis) return;
    const bool is_signed = (*lo)[0] < 0;
    const float least = is_signed ? -128.0f : 0.0f, most = is_signed ? 127.0f : 255.0f;
    if ((*lo)[0] < least || (*hi)[0] > most || (*lo)[0] > (*hi)[0] || (*lo)[0] != std::nearbyint((*lo)[0]) ||
        (*hi)[0] != std::nearbyint((*hi)[0]))
      return;
    for (const float z : zero)
      if (z != std::nearbyint(z) || z < least || z > most) return;
    write(index, divide->input(0), scale, zero, axis, is_signed, (*lo)[0] != least || (*hi)[0] != most, (*lo)[0], (*hi)[0]);
  }

  std::string integers(const std::string& name, DataType type, const Shape& shape, const std::vector<float>& values) {
    std::vector<std::uint8_t> bytes;
    for (const float v : values) bytes.push_back(static_cast<std::uint8_t>(static_cast<std::int32_t>(v)));
    draft_.constants[name] = TensorData::copy_of(type, shape, bytes.data(), bytes.size());
    draft_.facts[name] = {type, shape};
    return name;
  }

  void write(std::size_t index, const std::string& x, const std::vector<float>& scale, const std::vector<float>& zero,
             std::int64_t axis, bool is_signed, bool clips, float lo, float hi) {
    const DataType type = is_signed ? DataType::kInt8 : DataType::kUint8;
    DraftNode& mul = draft_.nodes[index];
    const std::string base = mul.outputs[0];
    const Shape shape = axis < 0 ? Shape{} : Shape{static_cast<std::int64_t>(scale.size())};
    const Attributes along = axis < 0 ? Attributes{} : Attributes{{"axis", axis}};
    const std::string s = base + ".scale", z = integers(base + ".zero_point", type, shape, zero), q = base + ".integers";
    draft_.constants[s] = TensorData::of_floats(shape, scale);
    draft_.facts[s] = {DataType::kFloat, shape};
    const TensorFacts* known = draft_.known(mul.outputs[0]);
    const std::optional<Shape> whole = known ? known->shape : std::nullopt;
    DraftNode quantize;
    quantize.name = base + ".quantize";
    quantize.op = "QuantizeLinear";
    quantize.inputs = {x, s, z};
    quantize.outputs = {q};
    quantize.attributes = along;
    draft_.facts[q] = {type, whole};
    std::string codes = q;
    std::vector<DraftNode> made = {std::move(quantize)};
    if (clips) {
      DraftNode limit;
      limit.name = base + ".limit";
      limit.op = "Clip";
      codes = base + ".limited";
      limit.inputs = {q, integers(base + ".least", type, {}, {lo}), integers(base + ".most", type, {}, {hi})};
      limit.outputs = {codes};
      draft_.facts[codes] = {type, whole};
      made.push_back(std::move(limit));
    }
    mul.op = "DequantizeLinear";
    mul.inputs = {codes, s, z};
    mul.attributes = along;
    inserted_.emplace_back(index, std::move(made));
  }

 public:
  // New nodes stand before the one that reads them.
  void insert() {
    std::vector<DraftNode> out;
    std::size_t next = 0;
    for (std::size_t i = 0; i < draft_.nodes.size(); ++i) {
      if (next < inserted_.size() && inserted_[next].first == i)
        for (DraftNode& n : inserted_[next++].second) out.push_back(std::move(n));
      out.push_back(std::move(draft_.nodes[i]));
    }
    draft_.nodes = std::move(out);
  }

 private:
  std::vector<std::pair<std::size_t, std::vector<DraftNode>>> inserted_;
};

}  // namespace

void find_spelled_quantizers(Draft& draft) {
  Finder finder(draft);
  finder.run();
  finder.insert();
}

}  // namespace quanvas::torchscript
