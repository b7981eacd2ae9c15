// ONNX QDQ beyond int8: every row of its table written, audited and opened again.
#include <set>

#include <c10/core/InferenceMode.h>
#include <onnx/checker.h>

#include "core/exec/runner.h"
#include "tests/plugins/export_onnx_support.h"
#include "tests/plugins/import_quantized_support.h"

namespace quanvas {
namespace {

TEST_F(QdqExport, EveryCaseIsWrittenAtTheLowestOpsetAuditedAndComputedAgain) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  for (const QdqCase& c : qdq_cases()) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize_all(odd_net(), c.weight, c.activation, true);
    ASSERT_NO_FATAL_FAILURE(write(model, qdq_json(c)));
    EXPECT_EQ(unequal(model), "");
    const onnx::ModelProto proto = load();
    EXPECT_EQ(proto.opset_import(0).version(), c.opset);
    EXPECT_EQ(proto.ir_version(), c.opset == 13   ? 7
                                  : c.opset == 19 ? 9
                                  : c.opset == 21 ? 10
                                  : c.opset == 23 ? 11
                                  : c.opset == 24 ? 12
                                                  : 13);
    if (c.opset == 13) {
      EXPECT_NO_THROW(onnx::checker::check_model(proto));
    }
    // Clip has no codes of 4 and 2 bits.
    std::map<std::string, int> types;
    for (const auto& t : proto.graph().initializer()) types[t.name()] = t.data_type();
    for (const auto& n : proto.graph().node())
      if (n.op_type() == "Clip") {
        EXPECT_LT(types[n.input(1)], 17) << n.name();
      }
    // The file's own nodes compute what the screen computes, quantizer by quantizer.
    const auto back = exporter().read(model, path(), json::object(), job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_TRUE(back->notes.empty()) << back->notes[0];
    const auto screen = *exec::Runner::create(model.model, &model.quantizers);
    const auto file = *exec::Runner::create(back->model, nullptr);
    const at::Tensor x = input(c.activation.source == ScaleSource::kDynamic ? 1 : 4);
    const auto want = screen->run({x});
    const auto got = file->run_all({x});
    ASSERT_TRUE(want) << want.error().text();
    ASSERT_TRUE(got) << got.error().text();
    std::size_t found = 0;
    for (const auto& [site, params] : model.quantizers) {
      if (!is_activation(site.kind)) continue;
      const auto held = back->sites.find(site);
      ASSERT_NE(held, back->sites.end());
      ++found;
      // What the file holds there is on the quantizer's grid: quantizing it again changes nothing.
      const at::Tensor values = (*got)[static_cast<std::size_t>(back->model->graph->tensor(held->second.tensor))];
      if (!quant::is_dynamic(params)) {
        EXPECT_TRUE(at::equal(values, exec::fake_quantize(values, params))) << held->second.tensor;
      }
      if (params.spec.source != ScaleSource::kDynamic && model.model->graph->find(site.node)->name == "conv" &&
          site.kind == SiteKind::kInput) {
        EXPECT_TRUE(at::equal(values, exec::fake_quantize(x, params)));
      }
    }
    EXPECT_EQ(found, 4u);
    const TensorId y = back->model->graph->outputs()[0];
    EXPECT_LE(((*got)[static_cast<std::size_t>(y)] - (*want)[0]).abs().max().item<double>(), 1e-5 + 1e-2 * (c.opset == 19));
  }
}

// Opened as the recipe of a float network, the file gives the same formats and computes the same numbers.
TEST_F(QdqExport, EveryCaseComesBackAsItsRecipe) {
  const c10::InferenceMode no_gradient;
  for (const QdqCase& c : qdq_cases()) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize_all(odd_net(), c.weight, c.activation, true);
    ASSERT_NO_FATAL_FAILURE(write(model, qdq_json(c)));
    const import_test::Opened rules = import_test::open_file(path(), FileQuantizers::kRules);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    for (const std::string& op : rules.ops()) {
      EXPECT_TRUE(op.find("uantizeLinear") == std::string::npos && op != "Clip") << op << "\n" << rules.all_issues();
    }
    const at::Tensor x = input(c.activation.source == ScaleSource::kDynamic ? 1 : 4);
    const auto want = (*exec::Runner::create(model.model, &model.quantizers))->run({x});
    const auto got = import_test::run(rules, {x});
    ASSERT_TRUE(want && got) << (got ? "" : got.error().text());
    EXPECT_LE(((*got)[0] - (*want)[0]).abs().max().item<double>(), 1e-5);
    const auto after = import_test::quantizers_of(*rules.file);
    ASSERT_TRUE(after) << after.error().text();
    for (const auto& [site, q] : model.quantizers) {
      if (site.kind != SiteKind::kInput) continue;
      const Node* node = rules.graph().find(model.model->graph->find(site.node)->name);
      ASSERT_NE(node, nullptr);
      const auto same = after->find({node->id, site.kind, 0});
      ASSERT_NE(same, after->end());
      EXPECT_EQ(same->second.scale, q.scale);
      EXPECT_EQ(same->second.lo, q.lo);
      EXPECT_EQ(same->second.hi, q.hi);
      EXPECT_EQ(format_name(same->second.spec), format_name(q.spec));
    }
  }
}

// The table is the one source: each of its rows takes one of the cases, and says the opset that the file has.
TEST_F(QdqExport, EveryRowOfTheTableHasACase) {
  std::set<std::string> used, all;
  for (const bool native : {false, true}) {
    const TargetTable table = exporter().table({{"native", native}});
    for (const TargetRow& row : table.rows) EXPECT_TRUE(all.insert((native ? "native " : "") + row.form).second) << row.form;
    for (const QdqCase& c : qdq_cases()) {
      const QuantizedModel model = quantize_all(odd_net(), c.weight, c.activation, true);
      for (const auto& [site, params] : model.quantizers) {
        const TargetVerdict v = judge(table, model.model->graph->find(site.node)->op, site.kind, params.spec);
        ASSERT_NE(v.row, nullptr) << c.name << " " << enum_text(site.kind);
        used.insert((native ? "native " : "") + v.row->form);
      }
    }
  }
  for (const std::string& form : all) EXPECT_TRUE(used.count(form)) << form;
}

// What an opset lacks is refused when it is asked for, and written at its own.
TEST_F(QdqExport, AFixedOpsetRefusesWhatItLacks) {
  for (const QdqCase& c : qdq_cases()) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize_all(odd_net(), c.weight, c.activation);
    json options = qdq_json(c);
    for (const int opset : {13, 19, 21, 23, 24, 25}) {
      options["opset"] = opset;
      const auto refusals = exporter().check(model, options);
      // Narrow types are stored wider where the opset has none.
      const bool plain_lower = c.native && opset < c.opset;
      if (!plain_lower) {
        EXPECT_EQ(refusals.empty(), opset >= c.opset) << opset;
      }
      if (!refusals.empty()) {
        for (const Refusal& r : refusals) EXPECT_FALSE(r.rule.empty());
        continue;
      }
      JobContext job;
      ASSERT_TRUE(exporter().write(model, path(), options, job));
      EXPECT_EQ(unequal(model), "");
      EXPECT_EQ(load().opset_import(0).version(), opset);
    }
  }
  const QuantizedModel newer = quantize_all(odd_net(17), qdq_cases()[0].weight, qdq_cases()[0].activation);
  for (const int opset : {12, 13, 26}) {
    const auto refusals = exporter().check(newer, {{"opset", opset}});
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, "opset");
  }
  EXPECT_TRUE(exporter().check(newer, {{"opset", 17}}).empty());
}

// Four-bit codes are packed over the whole tensor: 27 weights to a row leave no gap, 105 leave one nibble at the end.
TEST_F(QdqExport, FourAndTwoBitCodesArePackedAcrossRows) {
  for (const int bits : {4, 2}) {
    const QuantizedModel model =
        quantize_all(odd_net(), spec(bits, true, false, kNone, kChannel), spec(8, false, false, kNone, kTensor));
    ASSERT_NO_FATAL_FAILURE(write(model, {{"native", true}}));
    const onnx::ModelProto proto = load();
    const onnx::TensorProto* t = find_tensor(proto, "conv.weight_codes");
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->data_type(), bits == 4 ? 22 : 26);
    const std::size_t elements = 4 * 27;
    ASSERT_EQ(t->raw_data().size(), (elements * static_cast<std::size_t>(bits) + 7) / 8);
    std::vector<std::int32_t> codes(elements);
    const quant::QuantParams* params = nullptr;
    for (const auto& [site, p] : model.quantizers)
      if (site.kind == SiteKind::kWeight && model.model->graph->find(site.node)->name == "conv") params = &p;
    quant::quantize_codes(*params, params->layout, model.model->weights->find("conv.weight")->to_floats().data(), codes.data());
    const int mask = (1 << bits) - 1, each = 8 / bits;
    for (std::size_t i = 0; i < elements; ++i) {
      const int byte = static_cast<std::uint8_t>(t->raw_data()[i / static_cast<std::size_t>(each)]);
      EXPECT_EQ(byte >> (bits * static_cast<int>(i % static_cast<std::size_t>(each))) & mask, codes[i] & mask) << i;
    }
  }
}

TEST_F(QdqExport, BlocksSayTheirSizeAndARaggedEnd) {
  const QuantizedModel model =
      quantize_all(odd_net(), in_groups(spec(8, true, true, kNone, kGroup), 2), spec(8, false, false, kNone, kTensor));
  ASSERT_NO_FATAL_FAILURE(write(model));
  onnx::ModelProto proto = load();
  EXPECT_EQ(find_tensor(proto, "conv.weight_zero_point"), nullptr) << "symmetric blocks need none";
  const onnx::TensorProto* scale = find_tensor(proto, "conv.weight_scale");
  ASSERT_NE(scale, nullptr);
  EXPECT_EQ(Shape(scale->dims().begin(), scale->dims().end()), (Shape{4, 2, 3, 3})) << "three channels in groups of two";
  for (auto& n : *proto.mutable_graph()->mutable_node())
    if (n.name() == "dequantize_conv.weight")
      for (auto& a : *n.mutable_attribute())
        if (a.name() == "block_size") {
          EXPECT_EQ(a.i(), 2);
          a.set_i(3);
        }
  store(proto);
  EXPECT_NE(unequal(model), "") << "another block size";
}

TEST_F(QdqExport, PowerOfTwoBlocksBecomeExponents) {
  for (const bool native : {false, true}) {
    const QuantizedModel model =
        quantize_all(odd_net(), minifloat(2, 1, FloatSpecials::kNone, kGroup, ScaleType::kPowerOfTwo, 32),
                     spec(8, false, false, kNone, kTensor));
    ASSERT_NO_FATAL_FAILURE(write(model, {{"native", native}}));
    const onnx::ModelProto proto = load();
    EXPECT_EQ(find_tensor(proto, "fc.weight_scale")->data_type(), native ? 24 : 1);
    EXPECT_EQ(find_tensor(proto, "fc.weight_scale")->raw_data().size(), 7u * 5u * (native ? 1u : 4u));
    EXPECT_EQ(proto.opset_import(0).version(), native ? 24 : 23);
    bool says_type = false;
    for (const auto& n : proto.graph().node())
      if (n.name() == "dequantize_fc.weight")
        for (const auto& a : n.attribute()) says_type = says_type || (a.name() == "output_dtype" && a.i() == 1);
    EXPECT_EQ(says_type, native) << "else the values would be float8e8m0";
  }
}

// The file of a dynamic quantizer is for one sample; what DynamicQuantizeLinear cannot do is refused with the fix.
TEST_F(QdqExport, DynamicScalesMakeAFileForOneSample) {
  const QdqCase c{"", spec(8, true, true, kNone, kChannel), dynamic_uint8(), false, 13};
  const QuantizedModel model = quantize_all(odd_net(), c.weight, c.activation);
  ASSERT_NO_FATAL_FAILURE(write(model));
  const onnx::ModelProto proto = load();
  EXPECT_EQ(nodes_of(proto, "DynamicQuantizeLinear"), 2u);
  EXPECT_EQ(nodes_of(proto, "QuantizeLinear"), 0u);
  for (const auto* infos : {&proto.graph().input(), &proto.graph().output()})
    EXPECT_EQ(infos->Get(0).type().tensor_type().shape().dim(0).dim_value(), 1);
  QuantSpec other = dynamic_uint8();
  other.zero_in_range = false;
  const auto refusals = exporter().check(quantize_all(odd_net(), c.weight, other), json::object());
  ASSERT_EQ(refusals.size(), 2u);
  EXPECT_EQ(refusals[0].rule, "statistic");
  ASSERT_TRUE(refusals[0].fix);
  EXPECT_TRUE(exporter().check(quantize_all(odd_net(), c.weight, *refusals[0].fix), json::object()).empty());
  other = dynamic_uint8();
  other.granularity = Granularity::kRow;
  other.statistic = Statistic::kAbsMax;
  for (const Refusal& r : exporter().check(quantize_all(odd_net(), c.weight, other), json::object()))
    EXPECT_EQ(r.rule, "granularity");
  EXPECT_EQ(exporter().check(quantize_all(odd_net(), c.weight, other), json::object()).size(), 2u);
}

// The place of the zero point is refused with the change that mends it.
TEST_F(QdqExport, AZeroPointInsideTheRoundingIsRefusedWithItsFix) {
  QuantSpec inside = spec(8, false, false, kInteger, kTensor);
  inside.zero_point_inside = true;
  const QuantizedModel model = quantize_all(odd_net(), spec(8, true, true, kNone, kChannel), inside);
  const auto refusals = exporter().check(model, json::object());
  ASSERT_EQ(refusals.size(), 2u);
  EXPECT_EQ(refusals[0].rule, "place of the zero point");
  ASSERT_TRUE(refusals[0].fix);
  EXPECT_FALSE(refusals[0].fix->zero_point_inside);
  // Of weights codes are stored: where it stood plays no part.
  QuantSpec weight = spec(8, false, false, kInteger, kTensor);
  weight.zero_point_inside = true;
  EXPECT_TRUE(
      exporter().check(quantize_all(odd_net(), weight, spec(8, false, false, kInteger, kTensor)), json::object()).empty());
}

// Operators whose form changed between 13 and 25 are brought along.
TEST_F(QdqExport, NodesAreBroughtToTheNewOpset) {
  GraphBuilder b;
  b.set_name("nodes");
  b.set_opset(13);
  const auto real = [&](const char* name, Shape s) { b.tensor(name, DataType::kFloat, std::move(s)); };
  auto weights = std::make_shared<WeightStore>();
  real("x", {-1, 4, 6});
  b.input("x");
  using Ints = std::vector<std::int64_t>;
  b.node("split", "Split", {"x"}, {"a", "b"}, {{"axis", std::int64_t{1}}});
  real("a", {-1, 2, 6});
  real("b", {-1, 2, 6});
  b.node("mean", "ReduceMean", {"a"}, {"m"}, {{"axes", Ints{2}}, {"keepdims", std::int64_t{1}}});
  real("m", {-1, 2, 1});
  b.node("add", "Add", {"b", "m"}, {"s"});
  real("s", {-1, 2, 6});
  b.initializer("w", DataType::kFloat, {6, 3});
  weights->set("w", random_floats({6, 3}, 9));
  b.node("product", "MatMul", {"s", "w"}, {"y"});
  real("y", {-1, 2, 3});
  b.output("y");
  const auto graph = b.build();
  ASSERT_TRUE(graph) << graph.error().text();
  const auto model = std::make_shared<const Model>(Model{*graph, weights, ""});
  const QuantizedModel network =
      quantize_all(model, spec(2, true, false, kNone, kChannel), spec(8, true, false, kNone, kTensor));
  ASSERT_NO_FATAL_FAILURE(write(network, {{"native", true}}));
  const onnx::ModelProto proto = load();
  EXPECT_EQ(proto.opset_import(0).version(), 25);
  for (const auto& n : proto.graph().node()) {
    if (n.op_type() == "ReduceMean") {
      EXPECT_EQ(n.input_size(), 2);
    }
    if (n.op_type() == "Split") {
      EXPECT_EQ(n.attribute_size(), 2);
    }
  }
  JobContext job;
  const c10::InferenceMode no_gradient;
  const auto back = exporter().read(network, path(), json::object(), job);
  ASSERT_TRUE(back) << back.error().text();
  at::manual_seed(1);
  const at::Tensor x = at::rand({3, 4, 6});
  const auto want = (*exec::Runner::create(model, &network.quantizers))->run({x});
  const auto got = (*exec::Runner::create(back->model, nullptr))->run({x});
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_LE(((*got)[0] - (*want)[0]).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace quanvas
