// Operators whose attributes the standard's cases leave out, and those of newer operator sets: one node each,
// against onnxruntime. The first input is fed, the others are initializers.
#include "tests/interop/runtime_support.h"
#include "tests/plugins/import_support.h"

namespace quanvas::interop {
namespace {

using import_test::attribute;
using import_test::Proto;
using I = std::int64_t;
using L = std::vector<std::int64_t>;
using Attribute = onnx::AttributeProto;

Attribute real(const std::string& name, float v) {
  Attribute a;
  a.set_name(name);
  a.set_type(Attribute::FLOAT);
  a.set_f(v);
  return a;
}
Attribute reals(const std::string& name, const std::vector<float>& v) {
  Attribute a;
  a.set_name(name);
  a.set_type(Attribute::FLOATS);
  for (const float f : v) a.add_floats(f);
  return a;
}
Attribute text(const std::string& name, const std::string& v) {
  Attribute a;
  a.set_name(name);
  a.set_type(Attribute::STRING);
  a.set_s(v);
  return a;
}
Attribute texts(const std::string& name, const std::vector<std::string>& v) {
  Attribute a;
  a.set_name(name);
  a.set_type(Attribute::STRINGS);
  for (const auto& s : v) a.add_strings(s);
  return a;
}

struct Input {
  at::Tensor tensor;
  DataType type = DataType::kUndefined;  // of the file, when the tensor's own is not meant
};

struct OpCase {
  std::string name, op;
  int opset;
  std::vector<Input> inputs;  // undefined: omitted
  std::vector<Attribute> attributes;
  int outputs = 1;
  double tolerance = 1e-5;
};

at::Tensor noise(const Shape& shape, std::uint64_t seed, double low = -1, double high = 1) {
  at::Tensor t = at::empty(shape, at::kFloat);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (I i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    t.data_ptr<float>()[i] =
        static_cast<float>(low + (high - low) * static_cast<double>(state >> 33) / 2147483648.0);
  }
  return t;
}
at::Tensor longs(const L& v) {
  return at::tensor(v, at::kLong);
}
at::Tensor whole(const Shape& shape, std::uint64_t seed, double low, double high, at::ScalarType type) {
  return noise(shape, seed, low, high).floor().to(type);
}
at::Tensor truth(const Shape& shape, std::uint64_t seed) {
  return noise(shape, seed) > -0.3;
}
at::Tensor number(double v) {
  return at::scalar_tensor(v, at::kFloat);
}
const Input kNone{};

void add_recurrent(std::vector<OpCase>& out) {
  struct Kind {
    const char* op;
    I gates;
    std::vector<std::string> odd;
    std::vector<float> alpha, beta;  // of one direction
  };
  const Kind kinds[] = {{"LSTM", 4, {"HardSigmoid", "Softsign", "ScaledTanh"}, {0.25f, 1.3f}, {0.4f, 0.7f}},
                        {"GRU", 3, {"HardSigmoid", "Elu"}, {0.25f, 1.3f}, {0.4f}},
                        {"RNN", 1, {"LeakyRelu"}, {0.2f}, {}}};
  for (const Kind& k : kinds)
    for (const std::string direction : {"forward", "reverse", "bidirectional"}) {
      const I d = direction == "bidirectional" ? 2 : 1, n = 5, batch = 3, steps = 6, width = 4;
      const at::Tensor x = noise({steps, batch, width}, 1), w = noise({d, k.gates * n, width}, 2),
                       r = noise({d, k.gates * n, n}, 3);
      const at::Tensor b = noise({d, 2 * k.gates * n}, 4), h = noise({d, batch, n}, 5), c = noise({d, batch, n}, 6);
      const at::Tensor lengths = at::tensor(L{6, 2, 4}, at::kInt), p = noise({d, 3 * n}, 7);
      const std::vector<Attribute> base = {attribute("hidden_size", n), text("direction", direction)};
      const int results = k.gates == 4 ? 3 : 2;
      const std::string name = std::string(k.op) + " " + direction;
      out.push_back({name + " plain", k.op, 14, {{x}, {w}, {r}, {b}}, base, results});
      auto more = base;
      if (k.gates == 3) more.push_back(attribute("linear_before_reset", 1));
      std::vector<Input> all = {{x}, {w}, {r}, {b}, {lengths}, {h}};
      if (k.gates == 4) all.insert(all.end(), {{c}, {p}});
      out.push_back({name + " everything", k.op, 14, all, more, results});
      auto odd = more;
      std::vector<std::string> names;
      std::vector<float> alpha, beta;
      for (I i = 0; i < d; ++i) {
        names.insert(names.end(), k.odd.begin(), k.odd.end());
        alpha.insert(alpha.end(), k.alpha.begin(), k.alpha.end());
        beta.insert(beta.end(), k.beta.begin(), k.beta.end());
      }
      odd.push_back(reals("activation_alpha", alpha));
      if (!beta.empty()) odd.push_back(reals("activation_beta", beta));
      odd.push_back(texts("activations", names));
      odd.push_back(real("clip", 0.4f));
      out.push_back({name + " odd activations, clip", k.op, 14, {{x}, {w}, {r}, {b}}, odd, results});
    }
  out.push_back({"LSTM input_forget",
                 "LSTM",
                 14,
                 {{noise({4, 2, 3}, 1)}, {noise({1, 20, 3}, 2)}, {noise({1, 20, 5}, 3)}},
                 {attribute("hidden_size", 5), attribute("input_forget", 1)},
                 3});
}

void add_resize(std::vector<OpCase>& out) {
  const at::Tensor x = noise({1, 2, 7, 9}, 11);
  for (const std::string mode : {"nearest", "linear", "cubic"})
    for (const std::string rule :
         {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"})
      for (const auto& sizes : {L{1, 2, 11, 15}, L{1, 2, 4, 5}})
        out.push_back({"Resize " + mode + " " + rule + " " + std::to_string(sizes[2]),
                       "Resize",
                       19,
                       {{x}, kNone, kNone, {longs(sizes)}},
                       {text("mode", mode), text("coordinate_transformation_mode", rule)}});
  for (const std::string mode : {"linear", "cubic"})
    for (const I outside : {0, 1})
      out.push_back({"Resize antialias " + mode + (outside ? " excluded" : ""),
                     "Resize",
                     18,
                     {{x}, kNone, kNone, {longs({1, 2, 3, 4})}},
                     {text("mode", mode), attribute("antialias", 1), attribute("exclude_outside", outside)}});
  for (const std::string policy : {"not_larger", "not_smaller"})
    out.push_back({"Resize " + policy,
                   "Resize",
                   18,
                   {{x}, kNone, kNone, {longs({12, 12})}},
                   {text("mode", "linear"), text("keep_aspect_ratio_policy", policy), attribute("axes", L{2, 3})}});
  out.push_back(
      {"Resize crop",
       "Resize",
       13,
       {{x}, {at::tensor({0.0f, 0.0f, -0.2f, 0.1f, 1.0f, 1.0f, 0.8f, 1.3f})}, kNone, {longs({1, 2, 5, 6})}},
       {text("mode", "linear"), text("coordinate_transformation_mode", "tf_crop_and_resize"),
        real("extrapolation_value", 9)}});
}

void add_codes(std::vector<OpCase>& out) {
  const at::Tensor x = noise({4, 8}, 21, -5, 5);
  const auto scale = [](const Shape& s) { return noise(s, 22, 0.05, 0.4); };
  for (const DataType type : {DataType::kInt8, DataType::kUint8, DataType::kInt16, DataType::kUint16}) {
    const std::string name = type_name(type);
    const at::Tensor zero = at::full({8}, 3, at::kInt);
    out.push_back({"QuantizeLinear " + name,
                   "QuantizeLinear",
                   21,
                   {{x}, {scale({8})}, {zero, type}},
                   {attribute("axis", 1)}});
    out.push_back({"QuantizeLinear output_dtype " + name,
                   "QuantizeLinear",
                   21,
                   {{x}, {number(0.1)}},
                   {attribute("output_dtype", static_cast<I>(type))}});
    out.push_back({"QuantizeLinear blocks " + name,
                   "QuantizeLinear",
                   21,
                   {{x}, {scale({4, 2})}, {at::full({4, 2}, 1, at::kInt), type}},
                   {attribute("axis", 1), attribute("block_size", 4)}});
  }
  for (const DataType type :
       {DataType::kInt4, DataType::kUint4, DataType::kInt8, DataType::kUint16, DataType::kInt16}) {
    const at::Tensor codes =
        whole({4, 8}, 23, type == DataType::kInt4 ? -8 : 0, type == DataType::kInt4 ? 8 : 16, at::kInt);
    // Fed: the number that is added to the constants, so that nothing is folded.
    out.push_back({std::string("DequantizeLinear blocks ") + type_name(type),
                   "DequantizeLinear",
                   21,
                   {{scale({4, 4})}, {codes, type}},
                   {attribute("axis", 1), attribute("block_size", 2)}});
  }
  out.push_back({"QLinearConv per channel",
                 "QLinearConv",
                 13,
                 {{whole({2, 3, 6, 6}, 31, 0, 256, at::kByte)},
                  {number(0.02)},
                  {at::tensor({uint8_t{120}}).reshape({})},
                  {whole({4, 3, 3, 3}, 32, -128, 128, at::kChar)},
                  {noise({4}, 33, 0.01, 0.03)},
                  {at::zeros({4}, at::kChar)},
                  {number(0.3)},
                  {at::tensor({uint8_t{128}}).reshape({})},
                  {whole({4}, 34, -500, 500, at::kInt)}},
                 {attribute("pads", L{1, 0, 0, 1})}});
  // Sums that lie on a tie in float32 arithmetic only: x 1, weight 1, the rest is bias.
  struct Near {
    double x_scale, w_scale, y_scale;
    int sum;
  };
  for (const Near& n : {Near{0x1.14af2p-5, 0x1.0ca314p-4, 0x1.fcb818p-8, -205}, Near{0x1.fada38p-5, 0x1.332c38p-6, 0x1.259d8ep-4, 1823},
                        Near{0x1.78fabcp-7, 0x1.13eea6p-5, 0x1.6cb016p-4, 23321}})
    out.push_back({"QLinearConv next to a tie, sum " + std::to_string(n.sum),
                   "QLinearConv",
                   13,
                   {{at::ones({1, 1, 1, 1}, at::kChar)},
                    {number(n.x_scale)},
                    {at::zeros({}, at::kChar)},
                    {at::ones({1, 1, 1, 1}, at::kChar)},
                    {number(n.w_scale)},
                    {at::zeros({}, at::kChar)},
                    {number(n.y_scale)},
                    {at::zeros({}, at::kChar)},
                    {at::tensor({n.sum - 1}, at::kInt)}},
                   {},
                   1,
                   0});
  out.push_back({"QLinearMatMul",
                 "QLinearMatMul",
                 13,
                 {{whole({3, 5}, 35, 0, 256, at::kByte)},
                  {number(0.02)},
                  {at::tensor({uint8_t{120}}).reshape({})},
                  {whole({5, 4}, 36, -128, 128, at::kChar)},
                  {noise({4}, 37, 0.01, 0.03)},
                  {at::zeros({4}, at::kChar)},
                  {number(0.1)},
                  {at::tensor({uint8_t{128}}).reshape({})}},
                 {}});
  out.push_back({"MatMulInteger per column",
                 "MatMulInteger",
                 13,
                 {{whole({3, 5}, 38, 0, 256, at::kByte)},
                  {whole({5, 4}, 39, 0, 256, at::kByte)},
                  {at::tensor({uint8_t{7}}).reshape({})},
                  {whole({4}, 40, 0, 9, at::kByte)}},
                 {}});
  out.push_back({"DynamicQuantizeLinear", "DynamicQuantizeLinear", 13, {{noise({40}, 41, 2, 9)}}, {}, 3});
  for (const DataType type :
       {DataType::kFloat16, DataType::kBfloat16, DataType::kInt8, DataType::kUint8, DataType::kBool})
    out.push_back({std::string("Cast and back ") + type_name(type),
                   "Cast",
                   13,
                   {{noise({50}, 42, 0, 100)}},
                   {attribute("to", static_cast<I>(type))}});
}

void add_windows(std::vector<OpCase>& out) {
  const at::Tensor x = noise({2, 3, 10, 11}, 51);
  const auto window = [](const L& kernel, const L& strides, const L& pads) {
    return std::vector<Attribute>{attribute("kernel_shape", kernel), attribute("strides", strides),
                                  attribute("pads", pads)};
  };
  for (const I ceil : {0, 1}) {
    auto a = window({3, 2}, {2, 2}, {1, 0, 1, 1});
    a.push_back(attribute("ceil_mode", ceil));
    out.push_back({"MaxPool indices", "MaxPool", 12, {{x}}, a, 2});
    auto column = a;
    column.push_back(attribute("storage_order", 1));
    out.push_back({"MaxPool indices by column", "MaxPool", 12, {{x}}, column, 2});
    auto dilated = a;
    dilated.push_back(attribute("dilations", L{2, 2}));
    out.push_back({"MaxPool dilated", "MaxPool", 12, {{x}}, dilated, 2});
    out.push_back({"AveragePool dilated", "AveragePool", 19, {{x}}, dilated});
    auto counted = dilated;
    counted.push_back(attribute("count_include_pad", 1));
    out.push_back({"AveragePool dilated, counts pads", "AveragePool", 19, {{x}}, counted});
    out.push_back({"LpPool dilated", "LpPool", 18, {{x}}, dilated});
  }
  auto p3 = window({2, 3}, {1, 2}, {0, 1, 1, 0});
  p3.push_back(attribute("p", 3));
  out.push_back({"LpPool 3", "LpPool", 11, {{x}}, p3});
  out.push_back({"GlobalLpPool", "GlobalLpPool", 2, {{x}}, {attribute("p", 3)}});
  out.push_back({"MaxPool 3d indices",
                 "MaxPool",
                 12,
                 {{noise({1, 2, 5, 6, 7}, 52)}},
                 window({2, 2, 2}, {2, 1, 2}, L(6, 0)),
                 2});
  out.push_back({"MaxPool 1d indices", "MaxPool", 12, {{noise({1, 2, 9}, 53)}}, window({3}, {2}, {1, 1}), 2});
  out.push_back({"MaxRoiPool",
                 "MaxRoiPool",
                 1,
                 {{x}, {at::tensor({0.f, 0.f, 0.f, 9.f, 8.f, 1.f, 3.f, 2.f, 7.f, 9.f}).reshape({2, 5})}},
                 {attribute("pooled_shape", L{3, 2}), real("spatial_scale", 0.9f)}});
  const at::Tensor rois = at::tensor({0.f, 0.f, 9.f, 8.f, 1.f, 2.f, 7.f, 9.f}).reshape({2, 4});
  for (const std::string rule : {"half_pixel", "output_half_pixel"})
    for (const I ratio : {0, 2})
      out.push_back(
          {"RoiAlign " + rule,
           "RoiAlign",
           16,
           {{x}, {rois}, {longs({0, 1})}},
           {attribute("output_height", 3), attribute("output_width", 2), attribute("sampling_ratio", ratio),
            real("spatial_scale", 0.8f), text("coordinate_transformation_mode", rule)}});
  for (const std::string mode : {"linear", "nearest"})
    for (const std::string padding : {"zeros", "border", "reflection"})
      out.push_back({"GridSample 3d " + mode + " " + padding,
                     "GridSample",
                     20,
                     {{noise({1, 2, 4, 5, 6}, 54)}, {noise({1, 3, 4, 2, 3}, 55, -1.3, 1.3)}},
                     {text("mode", mode), text("padding_mode", padding)}});
  out.push_back({"AffineGrid",
                 "AffineGrid",
                 20,
                 {{noise({2, 2, 3}, 56)}, {longs({2, 3, 4, 5})}},
                 {attribute("align_corners", 1)}});
  out.push_back({"Col2Im", "Col2Im", 18, {{noise({2, 12, 20}, 57)}, {longs({5, 6})}, {longs({2, 2})}}, {}});
  out.push_back(
      {"Col2Im strides, pads",
       "Col2Im",
       18,
       {{noise({1, 12, 12}, 58)}, {longs({6, 5})}, {longs({2, 3})}},
       {attribute("strides", L{2, 1}), attribute("pads", L{0, 0, 0, 1}), attribute("dilations", L{1, 1})}});
  out.push_back({"CenterCropPad", "CenterCropPad", 18, {{x}, {longs({13, 6})}}, {attribute("axes", L{2, 3})}});
  out.push_back({"DeformConv",
                 "DeformConv",
                 19,
                 {{noise({1, 4, 6, 7}, 59)},
                  {noise({6, 2, 3, 3}, 60)},
                  {noise({1, 36, 6, 7}, 61)},
                  {noise({6}, 62)},
                  {noise({1, 18, 6, 7}, 63, 0, 1)}},
                 {attribute("group", 2), attribute("offset_group", 2), attribute("pads", L{1, 1, 1, 1})}});
  out.push_back({"MaxUnpool",
                 "MaxUnpool",
                 11,
                 {{noise({1, 1, 2, 2}, 64)}, {longs({5, 7, 13, 15}).reshape({1, 1, 2, 2})}},
                 {attribute("kernel_shape", L{2, 2}), attribute("strides", L{2, 2})}});
}

void add_transformers(std::vector<OpCase>& out) {
  const at::Tensor q = noise({2, 4, 3, 8}, 71), k = noise({2, 2, 5, 8}, 72), v = noise({2, 2, 5, 6}, 73);
  out.push_back({"Attention", "Attention", 23, {{q}, {k}, {v}}, {}});
  out.push_back(
      {"Attention causal", "Attention", 23, {{q}, {k}, {v}}, {attribute("is_causal", 1), real("scale", 0.2f)}});
  out.push_back({"Attention mask", "Attention", 23, {{q}, {k}, {v}, {noise({3, 5}, 74)}}, {}});
  out.push_back({"Attention mask of booleans", "Attention", 23, {{q}, {k}, {v}, {truth({2, 1, 3, 5}, 75)}}, {}});
  out.push_back({"Attention softcap", "Attention", 23, {{q}, {k}, {v}}, {real("softcap", 0.5f)}});
  out.push_back({"Attention caches",
                 "Attention",
                 23,
                 {{q}, {k}, {v}, kNone, {noise({2, 2, 4, 8}, 76)}, {noise({2, 2, 4, 6}, 77)}},
                 {attribute("is_causal", 1)},
                 3});
  out.push_back({"Attention rank 3",
                 "Attention",
                 23,
                 {{noise({2, 3, 32}, 78)}, {noise({2, 5, 16}, 79)}, {noise({2, 5, 12}, 80)}},
                 {attribute("q_num_heads", 4), attribute("kv_num_heads", 2)}});
  out.push_back({"RMSNormalization", "RMSNormalization", 23, {{noise({2, 3, 8}, 81)}, {noise({8}, 82)}}, {}});
  out.push_back({"RotaryEmbedding",
                 "RotaryEmbedding",
                 23,
                 {{noise({2, 4, 3, 8}, 83)},
                  {noise({10, 4}, 84)},
                  {noise({10, 4}, 85)},
                  {longs({0, 4, 2, 9, 1, 3}).reshape({2, 3})}},
                 {}});
  out.push_back({"RotaryEmbedding interleaved",
                 "RotaryEmbedding",
                 23,
                 {{noise({2, 3, 32}, 86)}, {noise({2, 3, 4}, 87)}, {noise({2, 3, 4}, 88)}},
                 {attribute("interleaved", 1), attribute("num_heads", 4)}});
  out.push_back({"GroupNormalization 18",
                 "GroupNormalization",
                 18,
                 {{noise({2, 6, 4}, 89)}, {noise({3}, 90)}, {noise({3}, 91)}},
                 {attribute("num_groups", 3)}});
  out.push_back({"GroupNormalization 21",
                 "GroupNormalization",
                 21,
                 {{noise({2, 6, 4}, 92)}, {noise({6}, 93)}, {noise({6}, 94)}},
                 {attribute("num_groups", 3)}});
  out.push_back({"Gelu", "Gelu", 20, {{noise({30}, 95, -4, 4)}}, {}});
  out.push_back({"Gelu tanh", "Gelu", 20, {{noise({30}, 96, -4, 4)}}, {text("approximate", "tanh")}});
  out.push_back({"Mish", "Mish", 18, {{noise({30}, 97, -4, 4)}}, {}});
  out.push_back({"Swish", "Swish", 24, {{noise({30}, 98, -4, 4)}}, {real("alpha", 1.7f)}});
  out.push_back({"TensorScatter",
                 "TensorScatter",
                 24,
                 {{noise({2, 2, 6, 3}, 99)}, {noise({2, 2, 2, 3}, 100)}, {longs({1, 4})}},
                 {}});
  out.push_back({"TensorScatter circular",
                 "TensorScatter",
                 24,
                 {{noise({2, 2, 6, 3}, 99)}, {noise({2, 2, 2, 3}, 100)}, {longs({1, 5})}},
                 {text("mode", "circular")}});
}

void add_rest(std::vector<OpCase>& out) {
  const at::Tensor x = noise({3, 4, 5}, 111), matrix = noise({6, 7}, 112);
  for (const std::string reduction : {"none", "add", "mul", "max", "min"}) {
    out.push_back({"ScatterElements " + reduction,
                   "ScatterElements",
                   18,
                   {{matrix}, {whole({2, 7}, 113, -6, 6, at::kLong)}, {noise({2, 7}, 114)}},
                   {attribute("axis", 0), text("reduction", reduction)}});
    if (reduction == "none") out.pop_back();  // equal places in any order
    out.push_back({"ScatterND " + reduction,
                   "ScatterND",
                   18,
                   {{matrix}, {longs({0, 3, 5, -2}).reshape({4, 1})}, {noise({4, 7}, 115)}},
                   {text("reduction", reduction)}});
  }
  out.push_back(
      {"DFT", "DFT", 20, {{noise({2, 9, 1}, 116)}, kNone, {longs({1}).reshape({})}}, {attribute("onesided", 1)}});
  out.push_back({"DFT longer",
                 "DFT",
                 20,
                 {{noise({2, 9, 2}, 117)}, {longs({16}).reshape({})}, {longs({-2}).reshape({})}},
                 {}});
  out.push_back(
      {"DFT inverse", "DFT", 17, {{noise({2, 8, 5, 2}, 118)}}, {attribute("axis", 2), attribute("inverse", 1)}});
  out.push_back({"STFT",
                 "STFT",
                 17,
                 {{noise({2, 32, 1}, 119)}, {longs({4}).reshape({})}, {noise({8}, 120)}, {longs({8}).reshape({})}},
                 {}});
  out.push_back(
      {"Unique unsorted", "Unique", 11, {{whole({30}, 121, 0, 9, at::kFloat)}}, {attribute("sorted", 0)}, 4});
  out.push_back({"Unique axis", "Unique", 11, {{whole({6, 2}, 122, 0, 2, at::kFloat)}}, {attribute("axis", 0)}, 4});
  out.push_back({"TopK smallest",
                 "TopK",
                 11,
                 {{whole({4, 9}, 123, 0, 5, at::kFloat)}, {longs({4})}},
                 {attribute("largest", 0)},
                 2});
  out.push_back(
      {"Mod fmod", "Mod", 13, {{noise({20}, 124, -9, 9)}, {noise({20}, 125, 1, 3)}}, {attribute("fmod", 1)}});
  out.push_back(
      {"Einsum", "Einsum", 12, {{noise({2, 3, 4}, 126)}, {noise({4, 5}, 127)}}, {text("equation", "bij,jk->bki")}});
  out.push_back({"Trilu", "Trilu", 14, {{x}, {longs({-1}).reshape({})}}, {attribute("upper", 0)}});
  out.push_back({"CumSum",
                 "CumSum",
                 14,
                 {{x}, {at::tensor(L{1}, at::kInt).reshape({})}},
                 {attribute("exclusive", 1), attribute("reverse", 1)}});
  out.push_back({"ReverseSequence",
                 "ReverseSequence",
                 10,
                 {{x}, {longs({1, 3, 2, 3})}},
                 {attribute("batch_axis", 1), attribute("time_axis", 0)}});
  out.push_back({"Compress", "Compress", 11, {{x}, {truth({4}, 128)}}, {attribute("axis", 1)}});
  out.push_back({"Det", "Det", 11, {{noise({3, 4, 4}, 129)}}, {}});
  out.push_back({"EyeLike", "EyeLike", 9, {{matrix}}, {attribute("k", -2)}});
  out.push_back({"OneHot",
                 "OneHot",
                 11,
                 {{whole({5}, 130, -4, 4, at::kLong)}, {longs({4})}, {at::tensor({0.5f, 3.f})}},
                 {attribute("axis", 0)}});
  out.push_back({"BitwiseXor",
                 "BitwiseXor",
                 18,
                 {{whole({9}, 131, -99, 99, at::kInt)}, {whole({9}, 132, -99, 99, at::kInt)}},
                 {}});
  out.push_back({"BitwiseNot", "BitwiseNot", 18, {{whole({9}, 133, 0, 99, at::kByte)}}, {}});
  out.push_back({"BitShift",
                 "BitShift",
                 11,
                 {{whole({9}, 134, 0, 255, at::kByte)}, {whole({9}, 135, 0, 9, at::kByte)}},
                 {text("direction", "LEFT")}});
  for (const std::string op : {"ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd"}) {
    out.push_back({op + " 18", op, 18, {{x}, {longs({-1, 0})}}, {attribute("keepdims", 0)}});
    out.push_back({op + " 18 nothing", op, 18, {{x}}, {attribute("noop_with_empty_axes", 1)}});
  }
  out.push_back(
      {"Pad wrap", "Pad", 19, {{x}, {longs({1, 2, 3, 0})}, kNone, {longs({1, 2})}}, {text("mode", "wrap")}});
  out.push_back(
      {"Split num_outputs", "Split", 18, {{matrix}}, {attribute("num_outputs", 3), attribute("axis", 1)}, 3});
  out.push_back({"LpNormalization 1", "LpNormalization", 1, {{x}}, {attribute("p", 1), attribute("axis", 1)}});
  out.push_back({"LayerNormalization",
                 "LayerNormalization",
                 17,
                 {{x}, {noise({4, 5}, 136)}, {noise({4, 5}, 137)}},
                 {attribute("axis", 1)}});
  out.push_back({"Upsample",
                 "Upsample",
                 9,
                 {{noise({1, 2, 3, 4}, 138)}, {at::tensor({1.f, 1.f, 2.f, 3.f})}},
                 {text("mode", "linear")}});
  out.push_back({"Shrink", "Shrink", 9, {{noise({20}, 139, -2, 2)}}, {real("lambd", 0.7f), real("bias", 0.3f)}});
  out.push_back({"NonMaxSuppression",
                 "NonMaxSuppression",
                 11,
                 {{noise({2, 12, 4}, 140, 0, 1)},
                  {noise({2, 3, 12}, 141, 0, 1)},
                  {longs({5})},
                  {at::tensor({0.3f})},
                  {at::tensor({0.2f})}},
                 {attribute("center_point_box", 1)}});
}

void put(onnx::TensorProto& t, const std::string& name, const Input& input) {
  const TensorData data =
      input.type == DataType::kUndefined ? exec::to_data(input.tensor) : exec::to_data(input.tensor, input.type);
  t.set_name(name);
  t.set_data_type(static_cast<int>(data.type));
  for (const auto d : data.shape) t.add_dims(d);
  t.set_raw_data(data.data, data.bytes);
}

// "Dequantize" cases feed the scale: the codes are of types that nothing feeds.
Proto model_of(const OpCase& c) {
  Proto p(c.opset);
  p.model.set_ir_version(c.opset >= 23 ? 11 : c.opset >= 21 ? 10 : 9);
  const bool swapped = c.op == "DequantizeLinear";
  std::vector<std::string> names, dims;
  for (const auto d : c.inputs[0].tensor.sizes()) dims.push_back(std::to_string(d));
  p.input("i0", dims, static_cast<int>(exec::to_data(c.inputs[0].tensor).type));
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    names.push_back(c.inputs[i].tensor.defined() ? "i" + std::to_string(i) : "");
    if (i > 0 && c.inputs[i].tensor.defined()) put(*p.graph.add_initializer(), names.back(), c.inputs[i]);
  }
  if (swapped) std::swap(names[0], names[1]);
  std::vector<std::string> results;
  for (int i = 0; i < c.outputs; ++i) results.push_back("o" + std::to_string(i));
  p.node(c.op, names, results, c.attributes);
  // Through float32, so that every type comes out.
  for (auto& r : results) {
    if (c.opset >= 6) p.node("Cast", {r}, {r + "_f"}, {attribute("to", 1)});
    p.output(c.opset >= 6 ? r + "_f" : r);
  }
  return p;
}

class Operators : public RuntimeTest {};

TEST_F(Operators, GiveWhatOnnxruntimeGives) {
  std::vector<OpCase> cases;
  add_recurrent(cases);
  add_resize(cases);
  add_codes(cases);
  add_windows(cases);
  add_transformers(cases);
  add_rest(cases);
  std::vector<Job> jobs;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string file = path("m" + std::to_string(i) + ".onnx");
    std::ofstream(file, std::ios::binary) << model_of(cases[i]).bytes();
    jobs.push_back({cases[i].name, file, {{"i0", cases[i].inputs[0].tensor}}});
  }
  const std::vector<Answer> answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), jobs.size());
  int compared = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    SCOPED_TRACE(jobs[i].name);
    const auto got = quanvas(jobs[i]);
    if (!got) {
      ADD_FAILURE() << got.error().text();
      continue;
    }
    if (!answers[i].error.empty()) {
      std::cout << "onnxruntime cannot: " << jobs[i].name << ": " << answers[i].error.substr(0, 160) << "\n";
      continue;
    }
    ++compared;
    if (got->size() != answers[i].outputs.size()) {
      ADD_FAILURE() << got->size() << " results";
      continue;
    }
    for (std::size_t k = 0; k < got->size(); ++k)
      EXPECT_LE(relative_difference((*got)[k], answers[i].outputs[k]), cases[i].tolerance)
          << "output " << k << "\n"
          << (*got)[k].reshape({-1}).slice(0, 0, 12) << "\n"
          << answers[i].outputs[k].reshape({-1}).slice(0, 0, 12);
  }
  std::cout << compared << " of " << jobs.size() << " compared\n";
  EXPECT_GT(compared, 100);
}

}  // namespace
}  // namespace quanvas::interop
