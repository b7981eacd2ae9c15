// Layers of ONNX QOperator whose input finds its scale at run time.
#include <utility>

#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

constexpr std::int32_t kHalfRange = 128;

class Parts {
 public:
  Parts(const QuantizedModel& model, const DynamicLayer& layer, const MakeConstant& constant, ModelWriter& writer)
      : model_(model), graph_(*model.model->graph), layer_(layer), constant_(constant), writer_(writer) {}

  Status write() {
    const Node& node = layer_.node;
    const bool convolution = node.op == "Conv";
    const TensorId bias = node.input(2);
    QUANVAS_TRY(const std::string weight, codes(convolution));
    Attributes attributes;
    if (convolution)
      for (const char* key : {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"})
        if (const auto it = node.attributes.find(key); it != node.attributes.end()) attributes[key] = it->second;
    const std::string sums = fresh("_sums"), real = fresh("_real_sums"), scale = fresh("_sums_scale");
    QUANVAS_CHECK(writer_.copy({node.name,
                                convolution ? "ConvInteger" : "MatMulInteger",
                                {},
                                {layer_.input.codes, weight, layer_.input.zero_point, zero_},
                                {sums},
                                std::move(attributes),
                                {}}));
    add_attribute(writer_.node("Cast", node.name + "_real", {sums}, {real}), "to", static_cast<std::int64_t>(DataType::kFloat));
    writer_.node("Mul", node.name + "_scale", {layer_.input.scale, scales(convolution)}, {scale});
    const std::string product = bias == kNoTensor ? layer_.result : fresh("_without_bias");
    writer_.node("Mul", node.name + (bias == kNoTensor ? kResult : "_product"), {real, scale}, {product});
    if (bias == kNoTensor) return {};
    QUANVAS_TRY(const std::string added, bias_of(bias, convolution));
    writer_.node("Add", node.name + kResult, {product, added}, {layer_.result});
    return {};
  }

 private:
  const std::string& name(TensorId t) const { return graph_.tensor(t).name; }
  std::string fresh(const char* end) { return writer_.tensor_name(name(layer_.node.outputs[0]) + end); }

  // The weight, and in zero_ its zero point: one number where all are the same.
  Result<std::string> codes(bool convolution) {
    const quant::QuantParams& p = *layer_.weight.params;
    const std::int32_t shift = convolution && p.spec.is_signed ? kHalfRange : 0;
    const DataType type = p.spec.is_signed && !convolution ? DataType::kInt8 : DataType::kUint8;
    std::vector<std::int32_t> values = layer_.stored.codes, zeros;
    for (std::int32_t& v : values) v += shift;
    for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z) + shift);
    bool one = true;
    for (const std::int32_t z : zeros) one = one && z == zeros[0];
    if (one) zeros.resize(1, shift);
    for (const std::vector<std::int32_t>* list : {&values, &zeros})
      for (const std::int32_t v : *list)
        if (v < (type == DataType::kInt8 ? -128 : 0) || v > (type == DataType::kInt8 ? 127 : 255))
          return fail(ErrorCode::kInternal, "A code of '" + name(layer_.weight.tensor) + "' has more than 8 bits.");
    const std::string base = name(layer_.weight.tensor);
    zero_ = constant_(base + "_zero_point", type, one ? Shape{} : Shape{static_cast<std::int64_t>(zeros.size())},
                      pack_codes(type, zeros));
    return constant_(base + "_codes", type, layer_.stored.shape, pack_codes(type, values));
  }

  // [C, 1, 1] in front of pictures: behind the batch it is the axis of channels.
  Shape by_channel(std::int64_t channels, bool convolution) const {
    Shape shape = {channels};
    if (convolution) shape.resize(layer_.stored.shape.size() - 1, 1);
    return shape;
  }

  std::string scales(bool convolution) {
    const quant::QuantParams& p = *layer_.weight.params;
    const bool one = p.spec.granularity != Granularity::kChannel;
    return constant_(name(layer_.weight.tensor) + "_scale", DataType::kFloat,
                     one ? Shape{} : by_channel(static_cast<std::int64_t>(p.scale.size()), convolution), pack_floats(p.scale));
  }

  Result<std::string> bias_of(TensorId bias, bool convolution) {
    if (!convolution) return name(bias);
    const TensorData* data = model_.model->weights->find(name(bias));
    if (!data || data->count() < 1)
      return fail(ErrorCode::kInternal, "The bias '" + name(bias) + "' of '" + layer_.node.name + "' has no data.");
    return constant_(name(bias) + "_by_channel", DataType::kFloat, by_channel(data->count(), true),
                     pack_floats(data->to_floats()));
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const DynamicLayer& layer_;
  const MakeConstant& constant_;
  ModelWriter& writer_;
  std::string zero_;
};

}  // namespace

Status write_dynamic_layer(const QuantizedModel& model, const DynamicLayer& layer, const MakeConstant& constant,
                           ModelWriter& writer) {
  return Parts(model, layer, constant, writer).write();
}

}  // namespace quanvas::onnx_file
