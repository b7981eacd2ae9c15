// QONNX files: what they hold and compute, what is refused, how their audit and their readers stand damage.
#include <functional>
#include <set>

#include "core/exec/rebuild.h"
#include "tests/plugins/export_site_support.h"
#include "tests/plugins/import_quantized_support.h"

namespace quanvas {
namespace {

using namespace export_site;

class ExportQonnx : public TargetTest {
 protected:
  ExportQonnx() : TargetTest("qonnx") {}
};

QuantSpec inside(QuantSpec s) {
  s.zero_point_inside = true;
  return s;
}
QuantSpec rounded(QuantSpec s, Rounding r) {
  s.rounding = r;
  return s;
}
QuantSpec format(const char* name, Granularity granularity = kTensor) {
  QuantSpec s;
  s.format = name;
  s.granularity = granularity;
  return s;
}
QuantSpec minifloat(int e, int m, FloatSpecials specials, Granularity granularity) {
  QuantSpec s = format("float", granularity);
  s.exponent_bits = e;
  s.mantissa_bits = m;
  s.specials = specials;
  return s;
}
struct Case {
  const char* name;
  Formats formats;
};
const QuantSpec kW8 = spec(8, true, true, kNone, kChannel), kA8 = spec(8, true, false, kNone, kTensor);
const Case kCases[] = {
    {"int8", {kW8, kA8, true}},
    {"int4 and uint4 narrow", {spec(4, true, false, kNone, kTensor), spec(4, false, true, kNone, kTensor), true}},
    {"int2 narrow and uint1", {spec(2, true, true, kNone, kChannel), spec(1, false, false, kNone, kTensor)}},
    {"uint3 with zero points", {spec(3, false, false, kInteger, kChannel), inside(spec(5, false, false, kInteger, kTensor))}},
    {"int12, int16", {spec(12, true, false, kNone, kChannel), spec(16, true, false, kNone, kTensor)}},
    {"signed with a zero point", {kW8, inside(spec(6, true, false, kInteger, kTensor))}},
    {"activations per channel", {kW8, spec(7, true, true, kNone, kChannel)}},
    {"ternary weights", {format("ternary", kChannel), kA8}},
    {"binary weights", {format("binary", kChannel), kA8}},
    {"binary activations", {kW8, format("binary")}},
    {"e4m3fn", {minifloat(4, 3, FloatSpecials::kNan, kChannel), minifloat(4, 3, FloatSpecials::kNan, kTensor)}},
    {"e5m2", {minifloat(5, 2, FloatSpecials::kIeee, kTensor), minifloat(5, 2, FloatSpecials::kIeee, kTensor)}},
    {"e4m3fnuz, e2m1", {minifloat(4, 3, FloatSpecials::kFnuz, kChannel), minifloat(2, 1, FloatSpecials::kNone, kTensor)}},
    {"e3m2, e2m3", {minifloat(3, 2, FloatSpecials::kNone, kTensor), minifloat(2, 3, FloatSpecials::kNone, kTensor)}},
    {"half away", {rounded(kW8, Rounding::kHalfAway), rounded(kA8, Rounding::kHalfAway)}},
    {"up", {rounded(kW8, Rounding::kCeil), rounded(kA8, Rounding::kCeil)}},
    {"down", {rounded(kW8, Rounding::kFloor), rounded(spec(4, false, false, kNone, kTensor), Rounding::kFloor)}},
    {"toward zero", {rounded(kW8, Rounding::kTowardZero), rounded(kA8, Rounding::kTowardZero)}},
    {"ties upward in weights alone", {rounded(kW8, Rounding::kHalfUp), kA8}},
};

TEST_F(ExportQonnx, EveryRowOfTheTableIsWrittenAuditedAndComputesTheSame) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize(small_net(), c.formats);
    ASSERT_NO_FATAL_FAILURE(write(model));
    expect_audited(model);
    const Difference d = compare(model, noise({6, 1, 8, 8}, 3, 2));
    EXPECT_GE(d.sites, 5);
    EXPECT_EQ(d.steps, 0) << d.values;
    EXPECT_LE(d.largest, 1e-6);
  }
}

TEST_F(ExportQonnx, ZeroPointsThatAreFractionsAreAddedBeforeTheRounding) {
  QuantizedModel model = quantize(small_net(), {kW8, kA8});
  QuantSpec s = inside(spec(4, false, false, ZeroPointType::kFloat, kTensor));
  s.statistic = Statistic::kMinMax;
  set_activation(model, "conv1", SiteKind::kInput, 0, s, 2);
  quant::QuantParams& p = at_site(model, "conv1", SiteKind::kInput);
  p.scale = {0.25f};
  p.zero_point = {7.5f};
  ASSERT_NO_FATAL_FAILURE(write(model));
  expect_audited(model);
  // Values on the steps and on the ties of z + x / s.
  std::vector<float> x(64);
  for (int i = 0; i < 64; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i - 32) * 0.0625f;
  const Difference d = compare(model, at::from_blob(x.data(), {1, 1, 8, 8}).clone());
  EXPECT_EQ(d.steps, 0);
  EXPECT_GE(d.sites, 5);
}

// Points exactly between two codes, for even and odd ones below: the place of the zero point and the rounding show there.
TEST_F(ExportQonnx, TiesFallAsOnTheScreen) {
  for (const Rounding r :
       {Rounding::kHalfEven, Rounding::kHalfAway, Rounding::kCeil, Rounding::kFloor, Rounding::kTowardZero})
    for (const float zero : {0.0f, 3.0f, 8.0f}) {
      SCOPED_TRACE(std::string(enum_text(r)) + " " + std::to_string(zero));
      QuantizedModel model = quantize(small_net(), {kW8, kA8});
      QuantSpec s = rounded(spec(4, false, false, zero == 0 ? kNone : kInteger, kTensor), r);
      s.zero_point_inside = zero != 0;
      set_activation(model, "conv1", SiteKind::kInput, 0, s, 2);
      quant::QuantParams& p = at_site(model, "conv1", SiteKind::kInput);
      p.scale = {0.25f};
      p.zero_point.clear();
      if (zero != 0) p.zero_point = {zero};
      ASSERT_NO_FATAL_FAILURE(write(model));
      std::vector<float> x(64);
      for (int i = 0; i < 64; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i - 32) * 0.125f;
      EXPECT_EQ(compare(model, at::from_blob(x.data(), {1, 1, 8, 8}).clone()).steps, 0);
    }
}

TEST_F(ExportQonnx, FilesAreLaidOutForFinnAndItsTools) {
  const QuantizedModel model =
      quantize(small_net(9), {spec(4, true, true, kNone, kChannel), spec(4, true, false, kNone, kTensor), true});
  ASSERT_NO_FATAL_FAILURE(write(model));
  const onnx::ModelProto proto = load();
  ASSERT_EQ(proto.opset_import_size(), 2);
  EXPECT_EQ(proto.opset_import(0).version(), 13);
  EXPECT_EQ(proto.opset_import(1).domain(), "qonnx.custom_op.general");
  EXPECT_EQ(proto.opset_import(1).version(), 2);
  ASSERT_EQ(proto.graph().input_size(), 1);
  std::set<std::string> nodes, tensors;
  std::map<std::string, const onnx::TensorProto*> constants;
  for (const auto& t : proto.graph().initializer()) {
    EXPECT_TRUE(tensors.insert(t.name()).second) << t.name();
    EXPECT_NE(t.name(), proto.graph().input(0).name());
    constants[t.name()] = &t;
  }
  EXPECT_TRUE(constants.count("conv1.weight")) << "a weight keeps its name";
  std::size_t quants = 0;
  for (const auto& n : proto.graph().node()) {
    EXPECT_TRUE(nodes.insert(n.name()).second) << n.name();
    for (const auto& out : n.output()) EXPECT_TRUE(tensors.insert(out).second) << out;
    if (n.op_type() != "Quant") continue;
    ++quants;
    ASSERT_EQ(n.input_size(), 4);
    for (int i = 1; i < 4; ++i) EXPECT_EQ(constants.at(n.input(i))->data_type(), onnx::TensorProto::FLOAT);
    EXPECT_EQ(constants.at(n.input(3))->dims_size(), 0) << "the width is one number without axes";
  }
  // Inputs x, p (read twice), c2, f; outputs c1, c2, s, logits; three weights; two biases.
  EXPECT_EQ(quants, 4u + 4u + 3u + 2u);
  // The network's own Gemm stays what it is, with scales along the weight's rows.
  for (const auto& n : proto.graph().node())
    if (n.op_type() == "Quant" && n.input(0) == "fc.weight") {
      EXPECT_EQ(constants.at(n.input(1))->dims(0), 5);
      EXPECT_EQ(constants.at(n.input(1))->dims(1), 1);
    }
}

TEST_F(ExportQonnx, GroupsAreAReshapeOrRefused) {
  QuantSpec w = spec(4, true, false, kNone, kGroup);
  w.group_size = 16;
  QuantizedModel model = quantize(small_net(), {kW8, kA8});
  const Graph& graph = *model.model->graph;
  const NodeId fc = graph.find("fc")->id;
  const auto values = model.model->weights->find("fc.weight")->to_floats();
  for (const int bits : {4, 0}) {
    QuantSpec s = w;
    if (bits == 0) s = minifloat(2, 1, FloatSpecials::kNone, kGroup), s.group_size = 32, s.scale = ScaleType::kPowerOfTwo;
    model.quantizers[{fc, SiteKind::kWeight, 0}] = *quant::find_params(s, {5, 64}, values.data(), 1);
    model.quantizers.erase({fc, SiteKind::kBias, 0});
    EXPECT_TRUE(names(refusals(model), "granularity", "fc"));
    const json reshape = {{"groups", "reshape"}};
    ASSERT_NO_FATAL_FAILURE(write(model, reshape));
    expect_audited(model, reshape);
    const Difference d = compare(model, noise({3, 1, 8, 8}, 5, 2), reshape);
    EXPECT_EQ(d.steps, 0);
    EXPECT_LE(d.largest, 1e-6);
  }
  QuantSpec ragged = w;
  ragged.group_size = 24;
  model.quantizers[{fc, SiteKind::kWeight, 0}] = *quant::find_params(ragged, {5, 64}, values.data(), 1);
  EXPECT_TRUE(names(refusals(model, {{"groups", "reshape"}}), "group size", "fc"));
}

TEST_F(ExportQonnx, TheOldDomainIsAnOptionAndReadsBack) {
  const QuantizedModel model = quantize(small_net(), {kW8, kA8, true});
  const json old = {{"domain", "onnx.brevitas"}};
  ASSERT_NO_FATAL_FAILURE(write(model, old));
  EXPECT_EQ(load().opset_import(1).domain(), "onnx.brevitas");
  expect_audited(model, old);
  EXPECT_FALSE(all_equal(audit(model)));
  EXPECT_EQ(compare(model, noise({2, 1, 8, 8}, 3, 2), old).steps, 0);
}

// An average of `window` x `window` codes of 0.0123 whose sum loses its low bits.
QuantizedModel averaged(int window, int bits_in, int bits, bool is_signed, Rounding rounding) {
  using Ints = std::vector<std::int64_t>;
  GraphBuilder b;
  b.set_name("average");
  b.tensor("x", DataType::kFloat, Shape{-1, 3, 8, 8});
  b.input("x");
  b.tensor("y", DataType::kFloat, Shape{-1, 3, 9 - window, 9 - window});
  b.node("pool", "AveragePool", {"x"}, {"y"}, {{"kernel_shape", Ints{window, window}}});
  b.output("y");
  QuantizedModel out;
  out.model = std::make_shared<const Model>(Model{*b.build(), std::make_shared<const WeightStore>(), ""});
  const Layer layer = find_layers(*out.model->graph)[0];
  QuantSpec in = spec(bits_in, is_signed, false, kNone, kTensor);
  const auto layout = *quant::make_layout(in, {-1, 3, 8, 8}, 1);
  quant::QuantParams p = quant::params_from_range(in, layout, {-1}, {1});
  p.scale = {0.0123f};
  out.quantizers[{layer.node, SiteKind::kInput, 0}] = p;
  QuantSpec trunc = rounded(spec(bits, is_signed, false, kNone, kTensor), rounding);
  trunc.truncation = Truncation::kMsb;
  out.quantizers[{layer.node, SiteKind::kOutput, 0}] = *exec::truncation(*out.model->graph, layer, trunc, 0, out.quantizers);
  return out;
}

TEST_F(ExportQonnx, SumsLoseTheirLowBitsInBothVersionsOfTrunc) {
  for (const json& form : {json{{"trunc", "2"}}, json{{"trunc", "1"}}, json{{"domain", "onnx.brevitas"}}})
    for (const int window : {2, 3, 4})
      for (const bool is_signed : {true, false})
        for (const Rounding r : {Rounding::kFloor, Rounding::kHalfEven, Rounding::kCeil, Rounding::kTowardZero}) {
          SCOPED_TRACE(form.dump() + std::to_string(window) + (is_signed ? " signed " : " ") + enum_text(r));
          const QuantizedModel model = averaged(window, 6, 6, is_signed, r);
          // Version 1 has no limits: the largest sum, rounded upward, would be one code too many.
          if (!form.contains("trunc") || form["trunc"] == "1")
            if (r == Rounding::kHalfEven || r == Rounding::kCeil) {
              EXPECT_TRUE(names(refusals(model, form), "rounding", "pool"));
              continue;
            }
          ASSERT_NO_FATAL_FAILURE(write(model, form));
          expect_audited(model, form);
          const Difference d = compare(model, noise({16, 3, 8, 8}, 3, 0.5f), form);
          EXPECT_EQ(d.sites, 2);
          EXPECT_EQ(d.steps, 0);
          EXPECT_EQ(d.largest, 0);
        }
  EXPECT_TRUE(names(refusals(averaged(2, 6, 6, true, Rounding::kHalfUp)), "rounding", "pool"));
}

// A file opened as a recipe computes what its nodes compute.
TEST_F(ExportQonnx, FilesOpenAsRecipes) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize(small_net(), c.formats);
    ASSERT_NO_FATAL_FAILURE(write(model));
    const auto opened = import_test::open_file(path(), FileQuantizers::kRules);
    ASSERT_TRUE(opened.file) << opened.file.error().text();
    const at::Tensor x = noise({5, 1, 8, 8}, 3, 2);
    const auto got = import_test::run(opened, {x});
    ASSERT_TRUE(got) << got.error().text();
    const c10::InferenceMode no_gradient;
    const auto want = (*exec::Runner::create(model.model, &model.quantizers))->run({x});
    ASSERT_TRUE(want);
    EXPECT_LE(import_test::difference((*got)[0], (*want)[0]), 1e-6);
    ASSERT_TRUE(opened.file->recipe);
    EXPECT_GE(opened.file->recipe->rules.size(), 2u) << opened.all_issues();
  }
}

struct RefusalCase {
  const char* name;
  SiteKind kind;
  std::function<void(quant::QuantParams&)> spoil;
  const char* rule;
};
const RefusalCase kRefusals[] = {
    {"DPU rounding", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kDpu; }, "rounding"},
    {"ties upward", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kHalfUp; }, "rounding"},
    {"stochastic", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kStochastic; }, "rounding"},
    {"zero point outside", SiteKind::kInput,
     [](auto& p) {
       p.spec.zero_point = kInteger;
       p.spec.zero_point_inside = false;
       p.zero_point = {3};
     },
     "place of the zero point"},
    {"one signed bit", SiteKind::kWeight,
     [](auto& p) {
       p.spec.bits = 1;
       p.spec.narrow = false;
       p.lo = -1;
       p.hi = 0;
     },
     "bit width"},
    {"a codebook", SiteKind::kWeight, [](auto& p) { p.spec.format = "nf4"; }, "number format"},
    {"an unsigned minifloat", SiteKind::kWeight,
     [](auto& p) {
       p.spec = minifloat(4, 3, FloatSpecials::kNan, kChannel);
       p.spec.is_signed = false;
       p.spec.axis = 0;
     },
     "number format"},
    {"an offset", SiteKind::kWeight,
     [](auto& p) {
       p.spec.zero_point = ZeroPointType::kOffset;
       p.zero_point.assign(p.scale.size(), 0.1f);
     },
     "zero point"},
    {"dynamic", SiteKind::kInput,
     [](auto& p) {
       p.spec.source = ScaleSource::kDynamic;
       p.scale.clear();
     },
     "scale source"},
    {"narrowed by a pass", SiteKind::kWeight, [](auto& p) { p.hi = 100; }, "range of codes"},
    {"scale 0", SiteKind::kInput, [](auto& p) { p.scale[0] = 0; }, "scale"},
};

TEST_F(ExportQonnx, RefusalsNameLayerAndRule) {
  const QuantizedModel good = quantize(small_net(), {kW8, kA8});
  for (const RefusalCase& c : kRefusals) {
    SCOPED_TRACE(c.name);
    QuantizedModel model = good;
    c.spoil(at_site(model, "conv1", c.kind));
    const auto list = refusals(model);
    EXPECT_TRUE(names(list, c.rule, "conv1")) << text_of(list);
  }
}

TEST_F(ExportQonnx, ConstantsThatFloat32DoesNotQuantizeToThemselvesAreRefused) {
  QuantizedModel model = quantize(small_net(), {kW8, kA8});
  // Wide codes come back as the values that they stand for, whatever the scale.
  for (int i = 0; i < 40; ++i) {
    for (float& s : at_site(model, "conv1", SiteKind::kBias).scale) s = 4e-10f * std::exp2(static_cast<float>(i) * 0.21f);
    ASSERT_NO_FATAL_FAILURE(write(model));
    expect_audited(model);
  }
  // Between codes, as during the training of a rounding, nothing does.
  quant::QuantParams& p = at_site(model, "conv1", SiteKind::kWeight);
  p.spec.rounding = Rounding::kLearned;
  p.spec.soft_rounding = true;
  p.rounding.assign(static_cast<std::size_t>(p.layout.elements()), 0.2f);
  const auto list = refusals(model);
  EXPECT_TRUE(names(list, "float32 codes", "conv1")) << text_of(list);
}

TEST_F(ExportQonnx, TheAuditSeesWhatWasChanged) {
  const QuantizedModel model =
      quantize(small_net(), {spec(4, true, true, kNone, kChannel), spec(4, true, false, kNone, kTensor)});
  ASSERT_NO_FATAL_FAILURE(write(model));
  ASSERT_TRUE(all_equal(audit(model)));
  const onnx::ModelProto good = load();
  const auto tensor = [](onnx::ModelProto& m, const std::string& end) -> onnx::TensorProto& {
    for (auto& t : *m.mutable_graph()->mutable_initializer())
      if (t.name().ends_with(end)) return t;
    throw std::runtime_error("no tensor " + end);
  };
  const auto node = [](onnx::ModelProto& m, const std::string& name) -> onnx::NodeProto& {
    for (auto& n : *m.mutable_graph()->mutable_node())
      if (n.name() == name) return n;
    throw std::runtime_error("no node " + name);
  };
  const std::vector<std::pair<const char*, std::function<void(onnx::ModelProto&)>>> tampers = {
      {"a weight", [&](auto& m) { (*tensor(m, "conv2.weight").mutable_raw_data())[6] ^= 1; }},
      {"a bias", [&](auto& m) { (*tensor(m, "fc.bias").mutable_raw_data())[2] ^= 1; }},
      {"a scale", [&](auto& m) { (*tensor(m, "x_quantized_scale").mutable_raw_data())[0] ^= 1; }},
      {"a width", [&](auto& m) { (*tensor(m, "x_quantized_bits").mutable_raw_data())[3] = 0x41; }},
      {"narrow",
       [&](auto& m) {
         for (auto& a : *node(m, "quantize_x_quantized").mutable_attribute())
           if (a.name() == "narrow") a.set_i(1);
       }},
      {"signed",
       [&](auto& m) {
         for (auto& a : *node(m, "quantize_x_quantized").mutable_attribute())
           if (a.name() == "signed") a.set_i(0);
       }},
      {"the rounding",
       [&](auto& m) {
         for (auto& a : *node(m, "quantize_x_quantized").mutable_attribute())
           if (a.name() == "rounding_mode") a.set_s("FLOOR");
       }},
      {"a zero point", [&](auto& m) { (*tensor(m, "x_quantized_zero_point").mutable_raw_data())[3] = 0x40; }},
      {"the domain", [&](auto& m) { node(m, "quantize_x_quantized").set_domain("other"); }},
      {"the version", [&](auto& m) { m.mutable_opset_import(1)->set_version(1); }},
      {"the axis",
       [&](auto& m) {
         auto& t = tensor(m, "conv2.weight_quantized_scale");
         t.set_dims(0, 1);
         t.set_dims(1, 4);
       }},
      {"a bypass", [&](auto& m) { node(m, "conv2").set_input(0, "p"); }},
      {"another tensor", [&](auto& m) { node(m, "add").set_input(0, "p_quantized"); }},
      {"a layer is gone", [&](auto& m) { node(m, "fc").set_name("other"); }},
      {"one too many", [&](auto& m) { node(m, "relu1").set_input(0, "x_quantized"); }},
  };
  for (const auto& [name, tamper] : tampers) {
    SCOPED_TRACE(name);
    onnx::ModelProto proto = good;
    tamper(proto);
    store(proto);
    EXPECT_FALSE(all_equal(audit(model)));
  }
}

TEST_F(ExportQonnx, FailuresLeaveTheOldFile) {
  expect_safe_failures(quantize(small_net(), {kW8, kA8}));
}
TEST_F(ExportQonnx, DamagedFilesAreNoTrouble) {
  expect_hardy_readers(quantize(small_net(), {kW8, kA8}));
}

}  // namespace
}  // namespace quanvas
