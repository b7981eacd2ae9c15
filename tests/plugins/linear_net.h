// A small network of linear layers, as language models have them, and quantizers on it; what is common to the tests of the
// exporters of weights.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "core/base/files.h"
#include "core/quant/dynamic.h"
#include "core/quant/stored.h"
#include "core/recipe/plan.h"
#include "plugins/importers/safetensors_file.h"
#include "tests/plugins/export_net.h"

namespace quanvas::linear_net {

namespace fs = std::filesystem;
using export_net::random_floats;

// x[N, in] -> up (MatMul [in, hidden] with bias) -> Relu -> Reshape -> down (Gemm transB [in, hidden]) -> Mul scale
// -> head (MatMul [in, out]) -> y. The names are those that exporters of PyTorch give.
struct Sizes {
  std::int64_t in = 64, hidden = 96, out = 32;
};
inline ModelPtr net(const Sizes& s = {}) {
  GraphBuilder b;
  b.set_name("linear");
  b.set_opset(17);
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, random_floats(shape, seed));
  };
  const auto tensor = [&](const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); };
  tensor("x", {-1, s.in});
  b.input("x");
  parameter("model.up.weight", {s.in, s.hidden}, 11);
  parameter("model.up.bias", {s.hidden}, 12);
  parameter("model.down.weight", {s.in, s.hidden}, 13);
  parameter("model.down.bias", {s.in}, 14);
  parameter("model.norm.weight", {s.in}, 15);
  parameter("onnx::MatMul_77", {s.in, s.out}, 16);
  b.initializer("shape", DataType::kInt64, {2});
  weights->set("shape", TensorData::of_int64({2}, {-1, s.hidden}));
  tensor("u", {-1, s.hidden});
  tensor("r", {-1, s.hidden});
  tensor("v", {-1, s.hidden});
  tensor("d", {-1, s.in});
  tensor("n", {-1, s.in});
  tensor("y", {-1, s.out});
  b.node("/model/up/MatMul", "MatMul", {"x", "model.up.weight", "model.up.bias"}, {"u"});
  b.node("/model/Relu", "Relu", {"u"}, {"r"});
  b.node("/model/Reshape", "Reshape", {"r", "shape"}, {"v"});
  b.node("/model/down/Gemm", "Gemm", {"v", "model.down.weight", "model.down.bias"}, {"d"}, {{"transB", std::int64_t{1}}});
  b.node("/model/norm/Mul", "Mul", {"d", "model.norm.weight"}, {"n"});
  b.node("/lm_head/MatMul", "MatMul", {"n", "onnx::MatMul_77"}, {"y"});
  b.output("y");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "linear.onnx"});
}

// Weights of the linear layers but those left float, by name of their nodes; inputs where there is a spec.
inline QuantizedModel quantize(ModelPtr model, const QuantSpec& weight, const std::optional<QuantSpec>& input = {},
                               const std::set<std::string>& left_float = {}) {
  QuantizedModel out;
  out.model = model;
  const auto check = [](auto result) {
    if (!result) throw std::runtime_error(result.error().text());
    return *result;
  };
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.kind != LayerKind::kCompute || left_float.count(model->graph->find(layer.node)->name)) continue;
    const TensorInfo& tensor = model->graph->tensor(layer.weight);
    const std::vector<float> values = model->weights->find(tensor.name)->to_floats();
    const int axis = weight.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
    out.quantizers[{layer.node, SiteKind::kWeight, 0}] =
        check(quant::find_params(weight, *tensor.shape, values.data(), axis));
    if (!input) continue;
    quant::QuantParams& p = out.quantizers[{layer.node, SiteKind::kInput, 0}];
    if (input->source == ScaleSource::kDynamic) {
      p = check(quant::dynamic_params(*input, 1));
      continue;
    }
    const auto layout = check(quant::make_layout(*input, {1, 64}, 1));
    p = quant::params_from_range(*input, layout, {input->is_signed ? -2.5f : -0.75f}, {2.5f});
  }
  return out;
}

inline QuantSpec ints(int bits, bool is_signed, Granularity granularity, int group = 32) {
  QuantSpec s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.granularity = granularity;
  s.group_size = group;
  if (!is_signed) {
    s.zero_point = ZeroPointType::kInteger;
    s.statistic = Statistic::kMinMax;
  }
  return s;
}
inline QuantSpec half(QuantSpec s) {
  s.scale = ScaleType::kFloat16;
  return s;
}
inline QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials, Granularity granularity, int group = 32) {
  QuantSpec s;
  s.format = "float";
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  s.granularity = granularity;
  s.group_size = group;
  return s;
}

// One layer "fc": MatMul [in, out] or Gemm [out, in], with these codes: the scale is 1, the weights are the codes less the
// zero points (one for each row of [out, groups]; empty: none).
inline QuantizedModel with_codes(std::int64_t out, std::int64_t in, QuantSpec spec, bool transposed,
                                 const std::vector<int>& codes, const std::vector<int>& zeros = {}) {
  GraphBuilder b;
  b.set_name("one");
  b.set_opset(17);
  const Shape shape = transposed ? Shape{in, out} : Shape{out, in};
  b.tensor("x", DataType::kFloat, Shape{-1, in});
  b.tensor("y", DataType::kFloat, Shape{-1, out});
  b.input("x");
  b.initializer("fc.weight", DataType::kFloat, shape);
  if (transposed)
    b.node("fc", "MatMul", {"x", "fc.weight"}, {"y"});
  else
    b.node("fc", "Gemm", {"x", "fc.weight"}, {"y"}, {{"transB", std::int64_t{1}}});
  b.output("y");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  const std::int64_t groups = zeros.empty() ? 1 : static_cast<std::int64_t>(zeros.size()) / out;
  std::vector<float> values(static_cast<std::size_t>(out * in));
  for (std::int64_t o = 0; o < out; ++o)
    for (std::int64_t i = 0; i < in; ++i) {
      const int zero = zeros.empty() ? 0 : zeros[static_cast<std::size_t>(o * groups + i / (in / groups))];
      values[static_cast<std::size_t>(transposed ? i * out + o : o * in + i)] =
          static_cast<float>(codes[static_cast<std::size_t>(o * in + i)] - zero);
    }
  auto weights = std::make_shared<WeightStore>();
  weights->set("fc.weight", TensorData::of_floats(shape, values));
  QuantizedModel model;
  model.model = std::make_shared<const Model>(Model{*graph, weights, "one.onnx"});
  const int axis = (spec.granularity == Granularity::kGroup) == transposed ? 0 : 1;
  spec.zero_point = zeros.empty() ? ZeroPointType::kNone : ZeroPointType::kInteger;
  auto params = quant::find_params(spec, shape, values.data(), axis);
  if (!params) throw std::runtime_error(params.error().text());
  params->scale.assign(params->scale.size(), 1);
  if (!zeros.empty()) {
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t g = 0; g < groups; ++g) {
        const bool by_group = params->scale.size() == static_cast<std::size_t>(out * groups) && groups > 1;
        const std::int64_t at = by_group ? (transposed ? g * out + o : o * groups + g) : o;
        params->zero_point[static_cast<std::size_t>(at)] =
            static_cast<float>(zeros[static_cast<std::size_t>(o * groups + g)]);
      }
  }
  model.quantizers[{model.model->graph->nodes()[0].id, SiteKind::kWeight, 0}] = *params;
  return model;
}

class WeightFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "quanvas-weights-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override {
    fs::permissions(folder_, fs::perms::owner_all);
    fs::remove_all(folder_);
  }

  static const Exporter& exporter(const std::string& id) { return **Registry<Exporter>::instance().get(id, "target"); }
  static json options(const std::string& id, const json& given) {
    const auto complete = exporter(id).schema().complete(given, id);
    if (!complete) throw std::runtime_error(complete.error().text());
    return *complete;
  }
  std::string path(const std::string& name = "out.safetensors") const { return (folder_ / name).string(); }

  void write(const std::string& id, const QuantizedModel& model, const json& given = json::object(),
             const std::string& name = "out.safetensors") {
    const auto refusals = exporter(id).check(model, options(id, given));
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    JobContext job;
    const Status written = exporter(id).write(model, path(name), options(id, given), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  std::vector<AuditRow> audit(const std::string& id, const QuantizedModel& model, const json& given = json::object(),
                              const std::string& name = "out.safetensors") const {
    const auto rows = exporter(id).audit(model, path(name), options(id, given));
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<AuditRow>{});
  }
  static std::set<std::string> rules(const std::vector<Refusal>& refusals) {
    std::set<std::string> out;
    for (const Refusal& r : refusals) out.insert(r.rule);
    return out;
  }
  static bool all_equal(const std::vector<AuditRow>& rows) {
    for (const AuditRow& row : rows)
      if (!row.equal) return false;
    return !rows.empty();
  }
  static std::string text_of(const std::vector<AuditRow>& rows) {
    std::string out;
    for (const AuditRow& r : rows)
      out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + (r.equal ? "\n" : "  DIFFERENT\n");
    return out;
  }
  void overwrite(const std::string& bytes, const std::string& name = "out.safetensors") const {
    std::ofstream(path(name), std::ios::binary) << bytes;
  }

  template <class T>
  std::vector<T> values(const std::string& tensor) const {
    const auto file = safetensors::File::open(path());
    EXPECT_TRUE(file) << file.error().text();
    const auto data = (*file)->tensor(tensor);
    EXPECT_TRUE(data) << data.error().text();
    if (!data) return {};
    std::vector<T> out(data->bytes / sizeof(T));
    std::memcpy(out.data(), data->data, out.size() * sizeof(T));
    return out;
  }

  // The file, opened as any model is, has the same codes at every weight and bias and the same parameters everywhere.
  void expect_reopens(const QuantizedModel& model, const std::string& name = "out.safetensors") const {
    JobContext job;
    const auto opened = import_file(path(name), {}, job);
    ASSERT_TRUE(opened) << opened.error().text();
    ASSERT_TRUE(opened->recipe);
    EXPECT_TRUE(import_model(path(name), job));
    const Graph& graph = *opened->model.graph;
    const auto plan = resolve(graph, *opened->recipe, PresetLibrary::builtin());
    ASSERT_TRUE(plan) << plan.error().text();
    EXPECT_TRUE(plan->warnings.empty()) << plan->warnings.front();
    std::size_t planned = 0;
    for (const SitePlan& s : plan->sites) planned += s.spec.has_value();
    EXPECT_EQ(planned, model.quantizers.size());
    const std::vector<Layer> layers = find_layers(graph);
    for (const auto& [site, params] : model.quantizers) {
      const std::string& node_name = model.model->graph->find(site.node)->name;
      SCOPED_TRACE(node_name + " " + enum_text(site.kind));
      const Node* node = graph.find(node_name);
      ASSERT_NE(node, nullptr);
      const Site there{node->id, site.kind, site.operand};
      const SitePlan* planned_site = plan->find(there);
      ASSERT_TRUE(planned_site && planned_site->spec);
      const QuantSpec& spec = *planned_site->spec;
      EXPECT_EQ(spec.format, params.spec.format);
      EXPECT_EQ(code_bits(spec), code_bits(params.spec));
      if (spec.source != ScaleSource::kStored) continue;
      const Layer& layer = *find_layer(layers, node->id);
      const TensorInfo& tensor = graph.tensor(site_tensor(layer, there));
      const TensorData* data = tensor.is_initializer ? opened->model.weights->find(tensor.name) : nullptr;
      const auto stored = quant::find_stored(*opened->model.weights, quant::stored_key(node->name, there));
      ASSERT_TRUE(stored);
      const auto again =
          quant::stored_params(spec, data ? data->shape : *tensor.shape, data ? data->content_hash() : "", 0, *stored);
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(again->scale, params.scale);
      if (params.spec.zero_point != ZeroPointType::kNone) {
        EXPECT_EQ(again->zero_point, params.zero_point);
      }
      EXPECT_EQ(again->lo, params.lo);
      EXPECT_EQ(again->hi, params.hi);
      if (!data) continue;
      const TensorData* before = model.model->weights->find(tensor.name);
      ASSERT_EQ(data->shape, before->shape);
      const std::vector<float> x = before->to_floats(), y = data->to_floats();
      std::vector<float> wanted(x.size()), shown(y.size());
      std::vector<std::int32_t> codes(x.size()), codes_again(y.size());
      quant::fake_quantize(params, params.layout, x.data(), wanted.data());
      quant::fake_quantize(*again, again->layout, y.data(), shown.data());
      quant::quantize_codes(params, params.layout, x.data(), codes.data());
      quant::quantize_codes(*again, again->layout, y.data(), codes_again.data());
      EXPECT_EQ(codes_again, codes);
      EXPECT_EQ(shown, wanted);
    }
  }

  fs::path folder_;
};

}  // namespace quanvas::linear_net
