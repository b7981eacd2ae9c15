// Files for Xilinx' DPU, opened again as networks of whole numbers and shifts.
#include <functional>
#include <set>
#include <sstream>

#include "core/exec/rebuild.h"
#include "tests/plugins/export_site_support.h"
#include "tests/plugins/import_quantized_support.h"

namespace quanvas {
namespace {

using namespace export_site;
using Ints = std::vector<std::int64_t>;

const json kFirst = {{"generation", "1"}};
const json kForms[] = {json::object(), kFirst, {{"domain", "pyxir.onnx"}}};

QuantSpec fixed_point(Rounding rounding = Rounding::kHalfEven) {
  QuantSpec s;
  s.scale = ScaleType::kPowerOfTwo;
  s.rounding = rounding;
  return s;
}

class ExportPyxir : public TargetTest {
 protected:
  ExportPyxir() : TargetTest("pyxir") {}
  std::string text() const {
    std::ifstream in(folder_ / "out_quantize_info.txt");
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

// Convolutions (padded, depthwise), pools, an addition, a product; what lies on edges: quantized where it is made, or where
// it is read. turned: the Gemm is without transB.
ModelPtr network(bool turned, bool one_element_pool) {
  GraphBuilder b;
  b.set_name("dpu");
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, export_net::random_floats(shape, seed));
  };
  const auto out = [&](const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); };
  out("x", {-1, 1, 8, 8});
  b.input("x");
  parameter("w1", {4, 1, 3, 3}, 1);
  parameter("b1", {4}, 2);
  parameter("w2", {4, 1, 3, 3}, 3);
  parameter("w3", turned ? Shape{16, 5} : Shape{5, 16}, 4);
  parameter("b3", {5}, 5);
  for (const char* t : {"c1", "r1"}) out(t, {-1, 4, 8, 8});
  for (const char* t : {"p", "q", "c2", "s"}) out(t, {-1, 4, 4, 4});
  out("a", {-1, 4, 2, 2});
  out("f", {-1, 16});
  out("y", {-1, 5});
  b.node("conv1", "Conv", {"x", "w1", "b1"}, {"c1"}, {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}});
  b.node("relu1", "Relu", {"c1"}, {"r1"});
  b.node("pool1", "MaxPool", {"r1"}, {"p"},
         {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 0, 0}}});
  if (one_element_pool) b.node("pool2", "MaxPool", {"p"}, {"q"}, {{"kernel_shape", Ints{1, 1}}, {"strides", Ints{1, 1}}});
  const std::string p = one_element_pool ? "q" : "p";
  b.node("conv2", "Conv", {p, "w2"}, {"c2"},
         {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}, {"group", std::int64_t{4}}});
  b.node("add", "Add", {"c2", p}, {"s"});
  b.node("average", "AveragePool", {"s"}, {"a"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  b.node("flatten", "Flatten", {"a"}, {"f"}, {{"axis", std::int64_t{1}}});
  b.node("fc", "Gemm", {"f", "w3", "b3"}, {"y"}, {{"transB", std::int64_t{!turned}}});
  b.output("y");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, ""});
}

// Every edge once, where it is read, and the output; `where` kOutput: where it is made.
QuantizedModel quantized(const ModelPtr& net, Rounding rounding = Rounding::kHalfEven, bool where_made = false) {
  QuantizedModel out;
  out.model = net;
  const QuantSpec act = fixed_point(rounding);
  for (const Layer& layer : find_layers(*net->graph)) {
    const Node& node = *net->graph->find(layer.node);
    for (const Site& site : layer.sites()) {
      const TensorInfo& tensor = net->graph->tensor(site_tensor(layer, site));
      if (!is_activation(site.kind)) {
        const auto values = net->weights->find(tensor.name)->to_floats();
        out.quantizers[site] = *quant::find_params(fixed_point(), *tensor.shape, values.data(), layer.channel_axis);
        continue;
      }
      const bool last = site.kind == SiteKind::kOutput && node.name == "fc";
      const bool of_x = site.kind == SiteKind::kInput && node.name == "conv1";
      const bool read = site.kind == SiteKind::kInput && node.op != "Relu" && node.op != "MaxPool";
      const bool made = site.kind == SiteKind::kOutput;
      if (!last && !of_x && !(where_made ? made : read)) continue;
      const float range = node.name == "fc" ? 4.0f : tensor.name == "x" ? 2.0f : tensor.name == "c2" ? 1.0f : 1.9f;
      const auto layout = *quant::make_layout(act, *tensor.shape, 1);
      out.quantizers[site] = quant::params_from_range(act, layout, {-range}, {range});
    }
  }
  return out;
}

TEST_F(ExportPyxir, ComputesTheSameInEveryForm) {
  for (const json& form : kForms)
    for (const bool turned : {false, true})
      for (const bool pool : {false, true})
        for (const bool made : {false, true})
          for (const Rounding r : {Rounding::kHalfEven, Rounding::kDpu}) {
            SCOPED_TRACE(form.dump() + (turned ? " turned" : "") + (pool ? " pool" : "") + (made ? " made " : " read ") +
                         enum_text(r));
            const QuantizedModel model = quantized(network(turned, pool), r, made);
            ASSERT_NO_FATAL_FAILURE(write(model, form));
            expect_audited(model, form);
            const Difference d = compare(model, noise({8, 1, 8, 8}, 3, 2.5f), form);
            EXPECT_GE(d.sites, made ? 6 : 5);
            EXPECT_EQ(d.steps, 0) << d.values;
            EXPECT_EQ(d.largest, 0);
          }
}

// Inputs on ties of both signs, where the two roundings part.
TEST_F(ExportPyxir, TiesFallAsTheFileSays) {
  std::vector<float> x(64);
  for (int i = 0; i < 64; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i - 32) * 0.0078125f;
  const at::Tensor input = at::from_blob(x.data(), {1, 1, 8, 8}).clone();
  for (const Rounding r : {Rounding::kHalfEven, Rounding::kDpu}) {
    QuantizedModel model = quantized(network(false, false), r);
    EXPECT_EQ(at_site(model, "conv1", SiteKind::kInput).scale[0], 0.015625f);
    ASSERT_NO_FATAL_FAILURE(write(model));
    EXPECT_EQ(compare(model, input).steps, 0) << enum_text(r);
    // A file of the other rounding is not the same.
    const Rounding other = r == Rounding::kDpu ? Rounding::kHalfEven : Rounding::kDpu;
    const QuantizedModel apart = quantized(network(false, false), other);
    EXPECT_GT(compare(apart, input).steps, 0) << enum_text(r);
    EXPECT_FALSE(all_equal(audit(apart)));
  }
}

TEST_F(ExportPyxir, PaddingIsALayerOfItsOwnInTheSecondGeneration) {
  const QuantizedModel model = quantized(network(true, true));
  for (const bool second : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(write(model, second ? json::object() : kFirst));
    const onnx::ModelProto proto = load();
    EXPECT_EQ(proto.graph().input(0).type().tensor_type().shape().dim(0).dim_value(), 1);
    std::size_t pads = 0;
    for (const auto& n : proto.graph().node()) {
      if (n.op_type() == "Flatten") {
        EXPECT_EQ(n.domain(), "");
        continue;
      }
      EXPECT_EQ(n.domain(), "pyxir") << n.op_type();
      EXPECT_NE(n.name(), "pool2") << "a pool of one element";
      std::map<std::string, const onnx::AttributeProto*> a;
      for (const auto& attribute : n.attribute()) a[attribute.name()] = &attribute;
      ASSERT_TRUE(a.count("vai_quant"));
      for (const auto& kind : a["vai_quant"]->strings()) {
        ASSERT_TRUE(a.count(kind)) << kind;
        ASSERT_EQ(a[kind]->ints_size(), n.op_type() == "Add" && kind == "vai_quant_in" ? 4 : 2);
        EXPECT_EQ(a[kind]->ints(0), 8) << "bits stand first";
      }
      if (n.op_type() == "Pad") {
        ++pads;
        EXPECT_EQ(a["pads"]->ints_size(), 8);
        EXPECT_EQ(a["mode"]->s(), "constant");
        EXPECT_EQ(std::vector<std::int64_t>(a["vai_quant_in"]->ints().begin(), a["vai_quant_in"]->ints().end()),
                  std::vector<std::int64_t>(a["vai_quant_out"]->ints().begin(), a["vai_quant_out"]->ints().end()));
      }
      if (n.op_type() == "Conv" || n.op_type() == "MaxPool") {
        EXPECT_EQ(a.count("pads"), second ? 0u : 1u);
        EXPECT_EQ(a.count("auto_pad"), second ? 1u : 0u);
      }
      if (n.op_type() == "Gemm") {
        EXPECT_EQ(a["transB"]->i(), 1);
      }
    }
    EXPECT_EQ(pads, second ? 3u : 0u);
    for (const auto& t : proto.graph().initializer()) {
      if (t.data_type() != onnx::TensorProto::FLOAT) continue;
      for (std::size_t i = 0; i + 4 <= t.raw_data().size(); i += 4) {
        float v = 0;
        std::memcpy(&v, t.raw_data().data() + i, 4);
        EXPECT_EQ(v, std::nearbyint(v)) << t.name();
      }
    }
  }
}

TEST_F(ExportPyxir, TheTextSaysWhatTheAttributesDo) {
  const QuantizedModel model = quantized(network(false, false), Rounding::kHalfEven, true);
  ASSERT_NO_FATAL_FAILURE(write(model));
  EXPECT_EQ(exporter().files(path(), complete()).at(1), (folder_ / "out_quantize_info.txt").string());
  std::istringstream lines(text());
  std::vector<std::string> names;
  std::int64_t wanted = 1;
  for (std::string line; std::getline(lines, line); ++wanted) {
    std::istringstream words(line);
    std::int64_t number = 0, count = 0;
    std::string name;
    words >> number >> name;
    EXPECT_EQ(number, wanted);
    for (std::int64_t v = 0; words >> v; ++count)
      if (count % 2 == 0) {
        EXPECT_EQ(v, 8);
      }
    EXPECT_EQ(count, name == "c1_Conv"   ? 8
                     : name == "c2"      ? 6
                     : name == "s"       ? 6
                     : name == "y_Dense" ? 6
                     : name == "y"       ? 2
                                         : 4)
        << name;
    names.push_back(name);
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"x_padded", "c1_Conv", "r1_padded", "p", "p_padded", "c2", "s", "a", "y_Dense", "y"}));
}

// What the importer makes of such a file: a float network with a recipe, and the same results.
TEST_F(ExportPyxir, OpensAsARecipe) {
  const QuantizedModel model = quantized(network(false, false), Rounding::kHalfEven, true);
  ASSERT_NO_FATAL_FAILURE(write(model));
  const auto opened = import_test::open_file(path(), FileQuantizers::kRules);
  ASSERT_TRUE(opened.file) << opened.file.error().text();
  EXPECT_EQ(opened.ops().count("Quant"), 0u) << opened.all_issues();
  const at::Tensor x = noise({3, 1, 8, 8}, 3, 2.5f);
  const auto got = import_test::run(opened, {x});
  ASSERT_TRUE(got) << got.error().text();
  const c10::InferenceMode no_gradient;
  const auto want = (*exec::Runner::create(model.model, &model.quantizers))->run({x});
  ASSERT_TRUE(want);
  EXPECT_TRUE(at::equal((*got)[0], (*want)[0]));
  const std::set<std::string> formats = import_test::formats_of(*opened.file);
  EXPECT_TRUE(formats.count("Conv weight W8")) << *formats.begin();
}

struct RefusalCase {
  const char* name;
  const char* node;
  SiteKind kind;
  std::function<void(quant::QuantParams&)> spoil;
  const char* rule;
};
const RefusalCase kRefusals[] = {
    {"seven bits", "conv1", SiteKind::kWeight,
     [](auto& p) {
       p.spec.bits = 7;
       p.lo = -64;
       p.hi = 63;
     },
     "bit width"},
    {"unsigned", "conv1", SiteKind::kInput,
     [](auto& p) {
       p.spec.is_signed = false;
       p.lo = 0;
       p.hi = 255;
     },
     "sign"},
    {"a zero point", "conv1", SiteKind::kInput,
     [](auto& p) {
       p.spec.zero_point = kInteger;
       p.zero_point = {3};
     },
     "zero point"},
    {"per channel", "conv1", SiteKind::kWeight,
     [](auto& p) {
       p.spec.granularity = kChannel;
       p.spec.axis = 0;
       p.scale.assign(4, 0.25f);
     },
     "granularity"},
    {"no power of two by name", "conv1", SiteKind::kWeight, [](auto& p) { p.spec.scale = ScaleType::kFloat32; },
     "scale type"},
    {"no power of two", "conv1", SiteKind::kInput, [](auto& p) { p.scale = {0.3f}; }, "scale"},
    {"floor", "conv1", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kFloor; }, "rounding"},
    {"two roundings", "add", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kDpu; }, "rounding"},
    {"32 bit bias", "conv1", SiteKind::kBias,
     [](auto& p) {
       p.spec.bits = 32;
       p.lo = INT32_MIN;
       p.hi = INT32_MAX;
     },
     "bit width"},
};

TEST_F(ExportPyxir, RefusalsNameLayerAndRule) {
  const QuantizedModel good = quantized(network(false, false));
  ASSERT_TRUE(refusals(good).empty()) << text_of(refusals(good));
  for (const RefusalCase& c : kRefusals) {
    SCOPED_TRACE(c.name);
    QuantizedModel model = good;
    c.spoil(at_site(model, c.node, c.kind));
    const auto list = refusals(model);
    const bool found = std::any_of(list.begin(), list.end(), [&](const Refusal& r) { return r.rule == c.rule; });
    EXPECT_TRUE(found) << text_of(list);
  }
  // What is missing, and a fix for it.
  for (const auto& [site, params] : good.quantizers) {
    QuantizedModel model = good;
    model.quantizers.erase(site);
    const auto list = refusals(model);
    ASSERT_FALSE(list.empty()) << enum_text(site.kind);
    EXPECT_EQ(list[0].rule, "missing quantizer");
    EXPECT_TRUE(list[0].site && list[0].fix);
  }
}

TEST_F(ExportPyxir, ShapesThatTheDpuLacksAreRefused) {
  const ModelPtr net = network(false, false);
  const auto with = [&](const std::string& node, const std::string& key, Attribute value) {
    GraphBuilder b(*net->graph);
    b.set_attribute(net->graph->find(node)->id, key, std::move(value));
    return std::make_shared<const Model>(Model{*b.build(), net->weights, ""});
  };
  // Averages of padded windows; a MaxPool whose padding a layer of zeros would change.
  QuantizedModel model = quantized(net);
  model.model = with("average", "pads", Ints{1, 1, 1, 1});
  EXPECT_TRUE(names(refusals(model), "padding", "average"));
  // Padding by its name becomes numbers.
  for (const char* mode : {"SAME_UPPER", "SAME_LOWER"})
    for (const json& form : {json::object(), kFirst}) {
      SCOPED_TRACE(std::string(mode) + form.dump());
      GraphBuilder same(*net->graph);
      same.set_attribute(net->graph->find("conv1")->id, "auto_pad", std::string(mode));
      same.set_attribute(net->graph->find("pool1")->id, "auto_pad", std::string(mode));
      model.model = std::make_shared<const Model>(Model{*same.build(), net->weights, ""});
      ASSERT_NO_FATAL_FAILURE(write(model, form));
      EXPECT_EQ(compare(model, noise({4, 1, 8, 8}, 3, 2.5f), form).steps, 0);
    }
  GraphBuilder b(*net->graph);
  b.remove_node(net->graph->find("relu1")->id);
  b.replace_input(net->graph->find("pool1")->id, "r1", "c1");
  const auto bare = std::make_shared<const Model>(Model{*b.build(), net->weights, ""});
  EXPECT_TRUE(names(refusals(quantized(bare)), "padding", "pool1"));
  EXPECT_TRUE(refusals(quantized(bare), kFirst).empty()) << text_of(refusals(quantized(bare), kFirst));
  ASSERT_NO_FATAL_FAILURE(write(quantized(bare), kFirst));
  EXPECT_EQ(compare(quantized(bare), noise({4, 1, 8, 8}, 3, 2.5f), kFirst).steps, 0);
}

TEST_F(ExportPyxir, TheAuditSeesWhatWasChanged) {
  const QuantizedModel model = quantized(network(true, true), Rounding::kHalfEven, true);
  ASSERT_NO_FATAL_FAILURE(write(model));
  ASSERT_TRUE(all_equal(audit(model))) << text_of(audit(model));
  const onnx::ModelProto good = load();
  for (int i = 0; i < good.graph().initializer_size(); ++i) {
    onnx::ModelProto bad = good;
    auto& t = *bad.mutable_graph()->mutable_initializer(i);
    if (t.data_type() != onnx::TensorProto::FLOAT) continue;
    (*t.mutable_raw_data())[t.raw_data().size() - 2] ^= 0x40;
    store(bad);
    EXPECT_FALSE(all_equal(audit(model))) << t.name();
  }
  for (int i = 0; i < good.graph().node_size(); ++i)
    for (const auto& a : good.graph().node(i).attribute()) {
      if (!a.name().starts_with("vai_quant_") || good.graph().node(i).op_type() == "Pad") continue;
      if (good.graph().node(i).op_type() == "Relu" && a.name() == "vai_quant_in") continue;  // no quantizer is there
      onnx::ModelProto bad = good;
      for (auto& changed : *bad.mutable_graph()->mutable_node(i)->mutable_attribute())
        if (changed.name() == a.name()) changed.set_ints(1, a.ints(1) + 1);
      store(bad);
      EXPECT_FALSE(all_equal(audit(model))) << good.graph().node(i).name() << " " << a.name();
    }
  store(good);
  ASSERT_TRUE(all_equal(audit(model)));
  const std::string before = text();
  std::string changed = before;
  changed[changed.find(" c1_Conv 8") + 11] ^= 1;
  std::ofstream(folder_ / "out_quantize_info.txt") << changed;
  EXPECT_FALSE(all_equal(audit(model)));
  fs::remove(folder_ / "out_quantize_info.txt");
  EXPECT_FALSE(exporter().audit(model, path(), complete()));
}

TEST_F(ExportPyxir, FailuresAndDamage) {
  const QuantizedModel model = quantized(network(false, true));
  expect_safe_failures(model);
  expect_hardy_readers(model);
}

// A Concat that takes what it gives, and a tower of them, each of which takes the one below twice.
TEST_F(ExportPyxir, ConcatsWithoutAnEndAreNoLayers) {
  const QuantizedModel model = quantized(network(false, true), Rounding::kHalfEven, true);
  ASSERT_NO_FATAL_FAILURE(write(model));
  const onnx::ModelProto good = load();
  for (const bool circle : {true, false}) {
    onnx::ModelProto bad = good;
    std::string given;
    for (auto& n : *bad.mutable_graph()->mutable_node())
      if (n.name() == "pool1") {
        given = n.output(0);
        n.set_op_type("Concat");
        n.clear_domain();
        n.clear_input();
        for (int i = 0; i < 2; ++i) n.add_input(circle ? given : "tower 0");
      }
    for (int k = 0; k < 60 && !circle; ++k) {
      auto* n = bad.mutable_graph()->add_node();
      n->set_op_type("Concat");
      for (int i = 0; i < 2; ++i) n->add_input("tower " + std::to_string(k + 1));
      n->add_output("tower " + std::to_string(k));
    }
    ASSERT_FALSE(given.empty());
    store(bad);
    const auto rows = exporter().audit(model, path(), complete());
    ASSERT_TRUE(rows) << rows.error().text();
    EXPECT_FALSE(all_equal(*rows));
  }
}

// Attributes that are none: the layer stays one that cannot be run, and says why.
TEST_F(ExportPyxir, OddAttributesAreNamed) {
  const QuantizedModel model = quantized(network(false, false));
  ASSERT_NO_FATAL_FAILURE(write(model));
  const onnx::ModelProto good = load();
  for (const Ints& list :
       {Ints{}, Ints{8}, Ints{8, 1, 8}, Ints{0, 3}, Ints{33, 3}, Ints{8, 1000}, Ints{8, INT64_MIN}, Ints{INT64_MAX, 0}}) {
    onnx::ModelProto bad = good;
    for (auto& n : *bad.mutable_graph()->mutable_node())
      for (auto& a : *n.mutable_attribute())
        if (n.name() == "conv1" && a.name() == "vai_quant_weights") {
          a.clear_ints();
          for (const auto v : list) a.add_ints(v);
        }
    store(bad);
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    const Node* conv = opened->graph->find("conv1");
    ASSERT_NE(conv, nullptr);
    EXPECT_NE(conv->opaque_reason.find("vai_quant_weights"), std::string::npos) << conv->opaque_reason;
  }
}

}  // namespace
}  // namespace quanvas
