// Files for FINN in both forms.
#include <chrono>
#include <functional>
#include <set>

#include "core/exec/rebuild.h"
#include "tests/plugins/export_site_support.h"
#include "tests/plugins/import_quantized_support.h"

namespace quanvas {
namespace {

using namespace export_site;

const json kThresholds = {{"profile", "multithreshold"}};
const json kForms[] = {json::object(), kThresholds};

class ExportFinn : public TargetTest {
 protected:
  ExportFinn() : TargetTest("finn") {}
};

QuantSpec signed_bits(int bits) {
  return spec(bits, true, false, kNone, kTensor);
}
QuantSpec unsigned_bits(int bits) {
  return spec(bits, false, false, kNone, kTensor);
}

// p, which a MaxPool makes of a ReLU, is unsigned for both its readers; all else is signed.
QuantizedModel small(const QuantSpec& weight, const QuantSpec& act, const QuantSpec& relu, ModelPtr net = small_net()) {
  QuantizedModel model = quantize(std::move(net), {weight, act});
  set_activation(model, "conv2", SiteKind::kInput, 0, relu, 1.5f);
  set_activation(model, "add", SiteKind::kInput, 1, relu, 1.5f);
  // Biases need not be at the accumulator's scale.
  for (auto& [site, p] : model.quantizers)
    if (site.kind == SiteKind::kBias) p.spec.scale_from_accumulator = false;
  return model;
}

struct Case {
  const char* name;
  QuantSpec weight, act, relu;
};
QuantSpec format(const char* name, Granularity granularity = kTensor) {
  QuantSpec s;
  s.format = name;
  s.granularity = granularity;
  return s;
}
QuantSpec per_channel(QuantSpec s) {
  s.granularity = kChannel;
  s.axis = 1;
  return s;
}
const Case kCases[] = {
    {"W4A4", spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4)},
    {"W8A8 per tensor", spec(8, true, false, kNone, kTensor), signed_bits(8), unsigned_bits(8)},
    {"W2A2 narrow", spec(2, true, true, kNone, kTensor), spec(3, true, true, kNone, kTensor), unsigned_bits(2)},
    {"ternary, one bit behind the ReLU", format("ternary", kChannel), signed_bits(6), unsigned_bits(1)},
    {"binary weights", format("binary", kChannel), signed_bits(5), unsigned_bits(3)},
    {"activations per channel", spec(4, true, true, kNone, kChannel), per_channel(signed_bits(5)), unsigned_bits(4)},
};

TEST_F(ExportFinn, EveryRowInBothForms) {
  for (const Case& c : kCases)
    for (const json& form : kForms)
      for (const bool powers : {true, false}) {
        SCOPED_TRACE(std::string(c.name) + form.dump() + (powers ? " powers of two" : ""));
        QuantizedModel model = small(c.weight, c.act, c.relu);
        // Flattened channels are no axis that thresholds run along: f is per tensor.
        set_activation(
            model, "fc", SiteKind::kInput, 0,
            [&] {
              QuantSpec s = c.act;
              s.granularity = kTensor;
              s.axis.reset();
              return s;
            }(),
            3);
        if (powers) round_scales(model);
        ASSERT_NO_FATAL_FAILURE(write(model, form));
        expect_audited(model, form);
        const Difference d = compare(model, noise({6, 1, 8, 8}, 3, 2), form);
        EXPECT_GE(d.sites, 3);
        // Sums of whole numbers times a power of two are exact; else the order of float operations decides ties alone.
        EXPECT_LE(d.steps, powers || form.empty() ? 0 : 0.002 * d.values);
        EXPECT_LE(d.largest, powers || form.empty() ? 1e-6 : 0.1);
      }
}

TEST_F(ExportFinn, TheQuantizerOfAPoolMovesBehindItsReLU) {
  const QuantizedModel model = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  ASSERT_NO_FATAL_FAILURE(write(model));
  std::map<std::string, std::string> maker;
  onnx::ModelProto proto = load();
  for (const auto& n : proto.graph().node())
    for (const auto& t : n.output()) maker[t] = n.op_type();
  std::size_t behind = 0;
  for (const auto& n : proto.graph().node()) {
    if (n.op_type() == "Quant" && maker.count(n.input(0)) && maker[n.input(0)] == "Relu") ++behind;
    if (n.op_type() == "MaxPool") {
      EXPECT_EQ(maker[n.input(0)], "Quant");
    }
    EXPECT_NE(n.op_type(), "Gemm");
    if (n.op_type() == "Conv") {
      EXPECT_EQ(n.input_size(), 2) << "the bias is an Add";
    }
  }
  EXPECT_EQ(behind, 1u);
  ASSERT_NO_FATAL_FAILURE(write(model, kThresholds));
  proto = load();
  std::map<std::string, std::string> types;
  for (const auto& a : proto.graph().quantization_annotation()) {
    ASSERT_EQ(a.quant_parameter_tensor_names_size(), 1);
    EXPECT_EQ(a.quant_parameter_tensor_names(0).key(), "finn_datatype");
    types[a.tensor_name()] = a.quant_parameter_tensor_names(0).value();
  }
  EXPECT_EQ(types["conv1.weight_codes"], "INT4");
  for (const auto& n : proto.graph().node()) {
    EXPECT_NE(n.op_type(), "Relu") << "it is in the thresholds";
    if (n.op_type() == "MultiThreshold") {
      EXPECT_EQ(n.domain(), "finn.custom_op.general");
    }
  }
}

TEST_F(ExportFinn, NodeNamesAreUniqueAndInputsAreNoInitializers) {
  for (const json& form : kForms) {
    ASSERT_NO_FATAL_FAILURE(write(small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4)), form));
    const onnx::ModelProto proto = load();
    std::set<std::string> nodes, tensors;
    ASSERT_EQ(proto.graph().input_size(), 1);
    for (const auto& t : proto.graph().initializer()) EXPECT_TRUE(tensors.insert(t.name()).second) << t.name();
    EXPECT_FALSE(tensors.count(proto.graph().input(0).name()));
    for (const auto& n : proto.graph().node()) {
      EXPECT_FALSE(n.name().empty());
      EXPECT_TRUE(nodes.insert(n.name()).second) << n.name();
      for (const auto& t : n.output()) EXPECT_TRUE(tensors.insert(t).second) << t;
    }
  }
}

// x on every half step: even and odd codes below, in all roundings that thresholds can say.
TEST_F(ExportFinn, TiesFallAsOnTheScreen) {
  std::vector<float> x(64);
  for (int i = 0; i < 64; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i - 32) * 0.125f;
  const at::Tensor input = at::from_blob(x.data(), {1, 1, 8, 8}).clone();
  for (const json& form : kForms)
    for (const Rounding r : {Rounding::kHalfEven, Rounding::kHalfUp, Rounding::kHalfAway, Rounding::kCeil, Rounding::kFloor,
                             Rounding::kTowardZero, Rounding::kDpu}) {
      if (form.empty() && r != Rounding::kHalfEven) continue;
      SCOPED_TRACE(form.dump() + enum_text(r));
      QuantizedModel model = small(spec(4, true, true, kNone, kTensor), signed_bits(5), unsigned_bits(3));
      round_scales(model);
      QuantSpec s = signed_bits(4);
      s.rounding = r;
      set_activation(model, "conv1", SiteKind::kInput, 0, s, 2);
      at_site(model, "conv1", SiteKind::kInput).scale = {0.25f};
      ASSERT_NO_FATAL_FAILURE(write(model, form));
      expect_audited(model, form);
      EXPECT_EQ(compare(model, input, form).steps, 0);
      // A scale whose half float32 rounds: thresholds are found on the quantizer itself.
      at_site(model, "conv1", SiteKind::kInput).scale = {0.1f};
      ASSERT_NO_FATAL_FAILURE(write(model, form));
      expect_audited(model, form);
    }
}

// MatMul, ReLU6 (a Clip) and signs; Gemm with and without transB.
QuantizedModel perceptron(bool transposed, float end, const QuantSpec& hidden, float range) {
  GraphBuilder b;
  b.set_name("perceptron");
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, export_net::random_floats(shape, seed));
  };
  b.tensor("x", DataType::kFloat, Shape{-1, 6});
  b.input("x");
  parameter("w1", {6, 6}, 1);
  parameter("b1", {6}, 2);
  parameter("w2", transposed ? Shape{4, 6} : Shape{6, 4}, 3);
  for (const char* t : {"h", "r"}) b.tensor(t, DataType::kFloat, Shape{-1, 6});
  b.tensor("y", DataType::kFloat, Shape{-1, 4});
  b.initializer("lo", DataType::kFloat, {});
  b.initializer("hi", DataType::kFloat, {});
  weights->set("lo", TensorData::of_floats({}, {0}));
  weights->set("hi", TensorData::of_floats({}, {end}));
  b.node("l1", "Gemm", {"x", "w1", "b1"}, {"h"}, {{"transB", std::int64_t{transposed}}});
  b.node("relu6", "Clip", {"h", "lo", "hi"}, {"r"});
  b.node("l2", "Gemm", {"r", "w2"}, {"y"}, {{"transB", std::int64_t{transposed}}});
  b.output("y");
  QuantizedModel model = quantize(std::make_shared<const Model>(Model{*b.build(), weights, ""}),
                                  {spec(4, true, true, kNone, kChannel), signed_bits(4)});
  set_activation(model, "l2", SiteKind::kInput, 0, hidden, range);
  for (auto& [site, p] : model.quantizers)
    if (site.kind == SiteKind::kBias) p.spec.scale_from_accumulator = false;
  return model;
}

TEST_F(ExportFinn, ClipsAreReLUsWhereNoCodeLiesBeyondThem) {
  for (const json& form : kForms)
    for (const bool transposed : {true, false}) {
      SCOPED_TRACE(form.dump() + std::to_string(transposed));
      QuantizedModel model = perceptron(transposed, 1.5f, unsigned_bits(4), 1.5f);
      ASSERT_NO_FATAL_FAILURE(write(model, form));
      const onnx::ModelProto proto = load();
      for (const auto& n : proto.graph().node()) EXPECT_NE(n.op_type(), "Clip");
      expect_audited(model, form);
      EXPECT_EQ(compare(model, noise({32, 6}, 9, 4), form).steps, 0);
      // Codes beyond the Clip's end would be reached by a ReLU.
      const auto list = refusals(perceptron(transposed, 1.0f, unsigned_bits(4), 1.5f), form);
      EXPECT_TRUE(names(list, "sign", "l2")) << text_of(list);
    }
}

TEST_F(ExportFinn, SignsHaveAScaleOfOne) {
  for (const json& form : kForms) {
    QuantizedModel model = perceptron(true, 1.5f, format("binary"), 1);
    EXPECT_EQ(at_site(model, "l2", SiteKind::kInput).scale[0], 1);
    set_activation(model, "l1", SiteKind::kInput, 0, format("binary"), 1);
    model.quantizers.erase({model.model->graph->find("l2")->id, SiteKind::kInput, 0});
    ASSERT_NO_FATAL_FAILURE(write(model, form));
    expect_audited(model, form);
    at::Tensor x = noise({16, 6}, 9, 2);
    x[0].zero_();
    EXPECT_EQ(compare(model, x, form).steps, 0);
    at_site(model, "l1", SiteKind::kInput).scale = {0.5f};
    EXPECT_TRUE(names(refusals(model, form), "scale", "l1"));
  }
}

// An average of codes, whose sum loses its low bits.
QuantizedModel averaged(int window, float scale, int bits_in, int bits, Rounding rounding) {
  using Ints = std::vector<std::int64_t>;
  GraphBuilder b;
  b.set_name("average");
  b.tensor("x", DataType::kFloat, Shape{-1, 3, 8, 8});
  b.input("x");
  b.tensor("y", DataType::kFloat, Shape{-1, 3, 8 / window, 8 / window});
  b.node("pool", "AveragePool", {"x"}, {"y"}, {{"kernel_shape", Ints{window, window}}, {"strides", Ints{window, window}}});
  b.output("y");
  QuantizedModel out;
  out.model = std::make_shared<const Model>(Model{*b.build(), std::make_shared<const WeightStore>(), ""});
  const Layer layer = find_layers(*out.model->graph)[0];
  const QuantSpec in = signed_bits(bits_in);
  quant::QuantParams p = quant::params_from_range(in, *quant::make_layout(in, {-1, 3, 8, 8}, 1), {-1}, {1});
  p.scale = {scale};
  out.quantizers[{layer.node, SiteKind::kInput, 0}] = p;
  QuantSpec trunc = signed_bits(bits);
  trunc.rounding = rounding;
  trunc.truncation = Truncation::kMsb;
  out.quantizers[{layer.node, SiteKind::kOutput, 0}] = *exec::truncation(*out.model->graph, layer, trunc, 0, out.quantizers);
  return out;
}

TEST_F(ExportFinn, AveragesAreWhatFinnLooksFor) {
  for (const int window : {2, 4})
    for (const float scale : {0.0123f, 0.0625f}) {
      const QuantizedModel model = averaged(window, scale, 6, 6, Rounding::kFloor);
      ASSERT_NO_FATAL_FAILURE(write(model));
      expect_audited(model);
      EXPECT_EQ(compare(model, noise({8, 3, 8, 8}, 3, 0.6f)).steps, 0);
      const onnx::ModelProto proto = load();
      std::vector<std::string> ops;
      for (const auto& n : proto.graph().node()) ops.push_back(n.op_type());
      EXPECT_EQ(ops, (std::vector<std::string>{"Quant", "AveragePool", "Mul", "Trunc"}));
      EXPECT_EQ(proto.graph().node(3).input_size(), 5) << "version 1";
    }
  EXPECT_TRUE(names(refusals(averaged(2, 0.1f, 6, 6, Rounding::kHalfEven)), "rounding", "pool"));
  EXPECT_TRUE(names(refusals(averaged(2, 0.1f, 6, 5, Rounding::kFloor)), "truncation", "pool"));
}

// Whole numbers through QuantAvgPool2d in the form of thresholds.
TEST_F(ExportFinn, AveragesOfThresholdsAreQuantAvgPool) {
  for (const int window : {2, 4})
    for (const int bits : {2, 6, 8})
      for (const float scale : {0.0123f, 0.0625f}) {
        SCOPED_TRACE(std::to_string(window) + ", " + std::to_string(bits));
        const QuantizedModel model = averaged(window, scale, bits, bits, Rounding::kFloor);
        ASSERT_NO_FATAL_FAILURE(write(model, kThresholds));
        expect_audited(model, kThresholds);
        // Everything that opens the file computes the same, bit for bit.
        const float reach = 1.2f * scale * std::exp2(static_cast<float>(bits - 1));
        EXPECT_EQ(compare(model, noise({8, 3, 8, 8}, 3, reach), kThresholds).steps, 0);
        const onnx::ModelProto good = load();
        const auto pool = std::find_if(good.graph().node().begin(), good.graph().node().end(),
                                       [](const auto& n) { return n.op_type() == "QuantAvgPool2d"; });
        ASSERT_NE(pool, good.graph().node().end());
        EXPECT_EQ(pool->domain(), "qonnx.custom_op.general");
        std::map<std::string, std::int64_t> numbers;
        for (const auto& a : pool->attribute()) numbers[a.name()] = a.i();
        EXPECT_EQ(numbers, (std::map<std::string, std::int64_t>{{"kernel", window}, {"stride", window}, {"ibits", bits},
                                                                {"obits", bits}, {"signed", 1}, {"data_layout", 0}}));
        std::map<std::string, std::string> types;
        for (const auto& a : good.graph().quantization_annotation())
          types[a.tensor_name()] = a.quant_parameter_tensor_names(0).value();
        EXPECT_EQ(types[pool->input(0)], "INT" + std::to_string(bits));
        EXPECT_EQ(types[pool->output(0)], "INT" + std::to_string(bits));
        // Another number in any attribute is seen.
        for (const char* name : {"kernel", "stride", "ibits", "obits", "signed"}) {
          onnx::ModelProto bad = good;
          for (auto& n : *bad.mutable_graph()->mutable_node())
            if (n.op_type() == "QuantAvgPool2d")
              for (auto& a : *n.mutable_attribute())
                if (a.name() == name) a.set_i(a.i() == 1 ? 0 : a.i() + 1);
          store(bad);
          const auto rows = exporter().audit(model, path(), kThresholds);
          ASSERT_TRUE(rows);
          EXPECT_FALSE(std::all_of(rows->begin(), rows->end(), [](const AuditRow& r) { return r.equal; })) << name;
        }
      }
  EXPECT_TRUE(names(refusals(averaged(2, 0.1f, 6, 6, Rounding::kHalfEven), kThresholds), "rounding", "pool"));
  EXPECT_TRUE(names(refusals(averaged(2, 0.1f, 6, 5, Rounding::kFloor), kThresholds), "truncation", "pool"));
  EXPECT_TRUE(names(refusals(averaged(3, 0.1f, 6, 6, Rounding::kFloor), kThresholds), "truncation", "pool"));
}

// A window of stride 1 that the model does not say: FINN's conversion asks for it.
TEST_F(ExportFinn, AveragesSayTheirStridesAndPads) {
  QuantizedModel model = averaged(4, 0.0625f, 6, 6, Rounding::kFloor);
  ASSERT_NO_FATAL_FAILURE(write(model));
  const auto file = load();
  int averages = 0;
  for (const auto& n : file.graph().node()) {
    if (n.op_type() != "AveragePool") continue;
    ++averages;
    std::set<std::string> said;
    for (const auto& a : n.attribute()) said.insert(a.name());
    EXPECT_TRUE(said.count("pads") && said.count("strides") && said.count("kernel_shape"));
  }
  EXPECT_GT(averages, 0);
}

// Both forms open as recipes: thresholds become the quantizers that they are.
TEST_F(ExportFinn, FilesOpenAsRecipes) {
  for (const Case& c : kCases)
    for (const json& form : kForms) {
      SCOPED_TRACE(std::string(c.name) + form.dump());
      QuantizedModel model = small(c.weight, c.act, c.relu);
      set_activation(
          model, "fc", SiteKind::kInput, 0,
          [&] {
            QuantSpec s = c.act;
            s.granularity = kTensor;
            s.axis.reset();
            return s;
          }(),
          3);
      round_scales(model);
      ASSERT_NO_FATAL_FAILURE(write(model, form));
      const auto opened = import_test::open_file(path(), FileQuantizers::kRules);
      ASSERT_TRUE(opened.file) << opened.file.error().text();
      const at::Tensor x = noise({5, 1, 8, 8}, 3, 2);
      const auto got = import_test::run(opened, {x});
      ASSERT_TRUE(got) << got.error().text();
      const c10::InferenceMode no_gradient;
      const auto want = (*exec::Runner::create(model.model, &model.quantizers))->run({x});
      ASSERT_TRUE(want);
      EXPECT_LE(import_test::difference((*got)[0], (*want)[0]), 1e-6);
      ASSERT_TRUE(opened.file->recipe) << opened.all_issues();
    }
}

struct RefusalCase {
  const char* name;
  const char* node;
  SiteKind kind;
  std::function<void(quant::QuantParams&)> spoil;
  const char* rule;
};
const RefusalCase kRefusals[] = {
    {"nine bits", "conv1", SiteKind::kInput,
     [](auto& p) {
       p.spec.bits = 9;
       p.lo = -256;
       p.hi = 255;
     },
     "bit width"},
    {"a zero point", "conv1", SiteKind::kInput,
     [](auto& p) {
       p.spec.zero_point = kInteger;
       p.zero_point = {3};
     },
     "zero point"},
    {"a zero point of a weight", "conv1", SiteKind::kWeight,
     [](auto& p) {
       p.spec.zero_point = kInteger;
       p.zero_point.assign(p.scale.size(), 1);
     },
     "zero point"},
    {"unsigned without ReLU", "conv1", SiteKind::kInput,
     [](auto& p) {
       p.spec.is_signed = false;
       p.lo = 0;
       p.hi = 15;
     },
     "sign"},
    {"groups", "fc", SiteKind::kWeight,
     [](auto& p) {
       p.spec.granularity = kGroup;
       p.spec.group_size = 8;
     },
     "granularity"},
    {"a minifloat", "conv1", SiteKind::kInput, [](auto& p) { p.spec.format = "float"; }, "number format"},
    {"the input channels' scales", "fc", SiteKind::kWeight,
     [](auto& p) {
       p.spec.axis = 1;
       p.scale.assign(64, 0.1f);
       p.layout.outer = 5;
       p.layout.dim = 64;
       p.layout.inner = 1;
     },
     "axis of scales"},
};

TEST_F(ExportFinn, RefusalsNameLayerAndRule) {
  const QuantizedModel good = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  for (const json& form : kForms)
    for (const RefusalCase& c : kRefusals) {
      SCOPED_TRACE(std::string(c.name) + form.dump());
      QuantizedModel model = good;
      c.spoil(at_site(model, c.node, c.kind));
      const auto list = refusals(model, form);
      EXPECT_TRUE(names(list, c.rule, c.node)) << text_of(list);
    }
  // Right behind a ReLU: signed, narrow, or one of several readers.
  QuantizedModel model = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  set_activation(model, "relu1", SiteKind::kOutput, 0, signed_bits(4), 2);
  EXPECT_TRUE(names(refusals(model), "sign", "relu1"));
  set_activation(model, "relu1", SiteKind::kOutput, 0, spec(4, false, true, kNone, kTensor), 2);
  EXPECT_TRUE(names(refusals(model), "range of codes", "relu1"));
  set_activation(model, "relu1", SiteKind::kOutput, 0, unsigned_bits(4), 2);
  EXPECT_FALSE(names(refusals(model), "sign", "relu1"));
  EXPECT_TRUE(names(refusals(model), "sign", "conv2")) << "its own unsigned quantizer now stands behind a pool";
  // Rounding: FINN's own thresholds know one.
  model = good;
  at_site(model, "conv1", SiteKind::kInput).spec.rounding = Rounding::kFloor;
  EXPECT_TRUE(names(refusals(model), "rounding", "conv1"));
  EXPECT_TRUE(refusals(model, kThresholds).empty());
}

TEST_F(ExportFinn, TheAuditSeesWhatWasChanged) {
  QuantizedModel model = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  for (const json& form : kForms) {
    ASSERT_NO_FATAL_FAILURE(write(model, form));
    ASSERT_TRUE(all_equal(audit(model, form)));
    const onnx::ModelProto good = load();
    // One bit of each number that a quantizer has, in turn.
    std::size_t tried = 0;
    for (int i = 0; i < good.graph().initializer_size(); ++i) {
      const auto& t = good.graph().initializer(i);
      if (t.data_type() != onnx::TensorProto::FLOAT) continue;
      onnx::ModelProto bad = good;
      (*bad.mutable_graph()->mutable_initializer(i)->mutable_raw_data())[t.raw_data().size() - 2] ^= 0x40;
      store(bad);
      EXPECT_FALSE(all_equal(audit(model, form))) << t.name();
      ++tried;
    }
    EXPECT_GE(tried, 15u);
    for (int i = 0; i < good.graph().quantization_annotation_size(); ++i) {
      onnx::ModelProto bad = good;
      auto& a = *bad.mutable_graph()->mutable_quantization_annotation(i);
      if (a.tensor_name().find("counted") != std::string::npos) continue;
      a.mutable_quant_parameter_tensor_names(0)->set_value("INT7");
      store(bad);
      EXPECT_FALSE(all_equal(audit(model, form))) << a.tensor_name();
    }
    for (const char* name : {"conv1", "conv2", "fc", "add"}) {
      onnx::ModelProto bad = good;
      for (auto& n : *bad.mutable_graph()->mutable_node())
        if (n.name() == name) n.set_input(0, "x");
      store(bad);
      EXPECT_FALSE(all_equal(audit(model, form))) << name;
    }
  }
}

// Shapes without elements claim as many rows as they like.
TEST_F(ExportFinn, EmptyTensorsAreNotWalked) {
  const QuantizedModel model = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  for (const json& form : kForms) {
    ASSERT_NO_FATAL_FAILURE(write(model, form));
    onnx::ModelProto bad = load();
    std::size_t emptied = 0;
    for (auto& t : *bad.mutable_graph()->mutable_initializer()) {
      if (t.data_type() != onnx::TensorProto::FLOAT || t.dims_size() != 2) continue;
      t.set_dims(0, std::int64_t{1} << 62);
      t.set_dims(1, 0);
      t.clear_raw_data();
      t.clear_float_data();
      t.set_raw_data("");
      ++emptied;
    }
    ASSERT_GE(emptied, 1u);
    store(bad);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(all_equal(audit(model, form)));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  }
}

TEST_F(ExportFinn, FailuresAndDamage) {
  const QuantizedModel model = small(spec(4, true, true, kNone, kChannel), signed_bits(4), unsigned_bits(4));
  for (const json& form : kForms) {
    expect_safe_failures(model, form);
    fs::remove_all(folder_ / "folder.onnx");
    expect_hardy_readers(model, form);
  }
}

}  // namespace
}  // namespace quanvas
