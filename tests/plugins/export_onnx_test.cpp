#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include <gtest/gtest.h>
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>

#include "core/base/files.h"
#include "tests/plugins/export_net.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using export_net::Formats;
using export_net::quantize;
using export_net::small_net;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

class ExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-export-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static const Exporter& exporter(const std::string& id) { return **Registry<Exporter>::instance().get(id, "target"); }
  std::string path(const std::string& name = "out.onnx") const { return (folder_ / name).string(); }

  void write(const std::string& id, const QuantizedModel& model) {
    JobContext job;
    const Status written = exporter(id).write(model, path(), json::object(), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  onnx::ModelProto load() const {
    onnx::ModelProto proto;
    std::ifstream in(path(), std::ios::binary);
    EXPECT_TRUE(proto.ParseFromIstream(&in));
    return proto;
  }
  void store(const onnx::ModelProto& proto) const {
    std::ofstream out(path(), std::ios::binary);
    proto.SerializeToOstream(&out);
  }
  void overwrite(const std::string& bytes) const { std::ofstream(path(), std::ios::binary) << bytes; }
  std::vector<AuditRow> audit(const std::string& id, const QuantizedModel& model) const {
    const auto rows = exporter(id).audit(model, path(), json::object());
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<AuditRow>{});
  }
  fs::path folder_;
};

std::size_t count_nodes(const onnx::ModelProto& proto, const std::string& op) {
  std::size_t n = 0;
  for (const auto& node : proto.graph().node()) n += node.op_type() == op;
  return n;
}

bool all_equal(const std::vector<AuditRow>& rows) {
  for (const AuditRow& row : rows)
    if (!row.equal) return false;
  return !rows.empty();
}

std::string text_of(const std::vector<AuditRow>& rows) {
  std::string out;
  for (const AuditRow& r : rows)
    out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + (r.equal ? "\n" : "  DIFFERENT\n");
  return out;
}

Formats plain() { return {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), false}; }

struct FormatCase {
  const char* name;
  Formats formats;
  bool clips;
};
const FormatCase kFormats[] = {
    {"w8 per channel, u8 asymmetric", plain(), false},
    {"w8 wide per tensor, s8", {spec(8, true, false, kNone, kTensor), spec(8, true, false, kNone, kTensor)}, false},
    {"w8, s8 narrow", {spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kTensor)}, true},
    {"w4 per channel, u4", {spec(4, true, true, kNone, kChannel), spec(4, false, false, kNone, kTensor)}, true},
    {"w3, s5", {spec(3, true, true, kNone, kTensor), spec(5, true, false, kNone, kTensor)}, true},
    {"w2, u2", {spec(2, true, true, kNone, kChannel), spec(2, false, false, kNone, kTensor)}, true},
    {"w8 asymmetric", {spec(8, false, false, kInteger, kChannel), spec(7, false, false, kInteger, kTensor)}, true},
    {"outputs too", {spec(8, true, true, kNone, kChannel), spec(8, true, false, kNone, kTensor), true}, false},
    {"activations per channel", {spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kChannel)}, true},
};

TEST_F(ExportTest, EveryFormatIsAcceptedValidAndAudited) {
  for (const FormatCase& c : kFormats) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize(small_net(), c.formats);
    const auto refusals = exporter("onnx-qdq").check(model, json::object());
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
    const onnx::ModelProto proto = load();
    EXPECT_NO_THROW(onnx::checker::check_model(proto));
    EXPECT_EQ(proto.opset_import(0).version(), 13);
    EXPECT_EQ(count_nodes(proto, "Clip") > 0, c.clips);
    const auto rows = audit("onnx-qdq", model);
    EXPECT_EQ(rows.size(), model.quantizers.size());
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    for (const AuditRow& row : rows) EXPECT_GT(row.bytes, 0) << row.layer;
  }
}

TEST_F(ExportTest, EqualQuantizersOnOneTensorShareOnePair) {
  const QuantizedModel model = quantize(small_net(), plain());
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  // Sites: x, p (conv2), c2 and p (add), f (fc): p is read twice with the same parameters.
  EXPECT_EQ(count_nodes(load(), "QuantizeLinear"), 4u);
  QuantizedModel apart = model;
  Site of_p{};
  for (const auto& [site, params] : model.quantizers)
    if (site.kind == SiteKind::kInput && model.model->graph->find(site.node)->name == "conv2") of_p = site;
  apart.quantizers[of_p].scale[0] *= 2;
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", apart));
  EXPECT_EQ(count_nodes(load(), "QuantizeLinear"), 5u);
  EXPECT_TRUE(all_equal(audit("onnx-qdq", apart)));
}

TEST_F(ExportTest, NamesInputsAndOutputsOfTheModelStay) {
  Formats formats = plain();
  formats.outputs = true;
  const QuantizedModel model = quantize(small_net(), formats);
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  const onnx::ModelProto proto = load();
  ASSERT_EQ(proto.graph().input_size(), 1);
  ASSERT_EQ(proto.graph().output_size(), 1);
  EXPECT_EQ(proto.graph().input(0).name(), "x");
  EXPECT_EQ(proto.graph().output(0).name(), "logits");
  EXPECT_EQ(proto.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "N");
  std::set<std::string> nodes, tensors;
  for (const auto& n : proto.graph().node()) {
    EXPECT_TRUE(nodes.insert(n.name()).second) << n.name();
    for (const auto& out : n.output()) EXPECT_TRUE(tensors.insert(out).second) << out;
  }
  for (const auto& t : proto.graph().initializer()) {
    EXPECT_TRUE(tensors.insert(t.name()).second) << t.name();
    EXPECT_TRUE(t.has_raw_data()) << t.name();
    EXPECT_NE(t.name(), "fc.weight") << "the float weight is not needed";
  }
  for (const Node& n : model.model->graph->nodes()) EXPECT_TRUE(nodes.count(n.name)) << n.name;
}

onnx::TensorProto& tensor_ending(onnx::ModelProto& proto, const std::string& end) {
  for (auto& t : *proto.mutable_graph()->mutable_initializer())
    if (t.name().ends_with(end)) return t;
  throw std::runtime_error("no tensor " + end);
}
onnx::NodeProto& node_named(onnx::ModelProto& proto, const std::string& name) {
  for (auto& n : *proto.mutable_graph()->mutable_node())
    if (n.name() == name) return n;
  throw std::runtime_error("no node " + name);
}

// The audit is worth something only if it sees every one of these.
struct TamperCase {
  const char* name;
  std::function<void(onnx::ModelProto&)> tamper;
};
const TamperCase kTampers[] = {
    {"one code of a weight", [](auto& m) { (*tensor_ending(m, "conv2.weight_codes").mutable_raw_data())[7] ^= 1; }},
    {"one code of a bias", [](auto& m) { (*tensor_ending(m, "fc.bias_codes").mutable_raw_data())[0] ^= 1; }},
    {"a weight's scale", [](auto& m) { (*tensor_ending(m, "fc.weight_scale").mutable_raw_data())[0] ^= 1; }},
    {"an activation's zero point", [](auto& m) { (*tensor_ending(m, "x_dequantized_zero_point").mutable_raw_data())[0] ^= 1; }},
    {"a clip limit", [](auto& m) { (*tensor_ending(m, "x_dequantized_code_max").mutable_raw_data())[0] ^= 1; }},
    {"a clip is bypassed", [](auto& m) { node_named(m, "dequantize_x_dequantized").set_input(0, "x_dequantized_codes"); }},
    {"a quantizer is bypassed", [](auto& m) { node_named(m, "conv2").set_input(0, "p"); }},
    {"the wrong tensor is read", [](auto& m) { node_named(m, "add").set_input(0, "p_dequantized"); }},
    {"a layer is gone", [](auto& m) { node_named(m, "fc").set_name("other"); }},
    {"the axis", [](auto& m) { node_named(m, "dequantize_conv2.weight").mutable_attribute(0)->set_i(1); }},
    {"a float layer is quantized", [](auto& m) { node_named(m, "relu1").set_input(0, "x_dequantized"); }},
    {"quantize and dequantize differ",
     [](auto& m) { node_named(m, "quantize_x_dequantized").set_input(1, "conv2.weight_scale"); }},
};

TEST_F(ExportTest, AuditSeesEveryTampering) {
  const Formats formats{spec(4, true, true, kNone, kChannel), spec(6, false, false, kInteger, kTensor)};
  const QuantizedModel model = quantize(small_net(), formats);
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  ASSERT_TRUE(all_equal(audit("onnx-qdq", model)));
  const onnx::ModelProto good = load();
  for (const TamperCase& c : kTampers) {
    SCOPED_TRACE(c.name);
    onnx::ModelProto proto = good;
    c.tamper(proto);
    store(proto);
    EXPECT_FALSE(all_equal(audit("onnx-qdq", model)));
  }
}

TEST_F(ExportTest, FloatFileHoldsGraphAndWeightsBitForBit) {
  for (const int opset : {9, 11, 13, 15}) {
    SCOPED_TRACE(opset);
    QuantizedModel model;
    model.model = small_net(opset);
    EXPECT_FALSE(exporter("onnx").needs_quantizers());
    ASSERT_TRUE(exporter("onnx").check(model, json::object()).empty());
    ASSERT_NO_FATAL_FAILURE(write("onnx", model));
    onnx::ModelProto proto = load();
    EXPECT_NO_THROW(onnx::checker::check_model(proto));
    EXPECT_EQ(proto.opset_import(0).version(), opset);
    EXPECT_EQ(proto.graph().input_size(), 1);
    ASSERT_EQ(static_cast<std::size_t>(proto.graph().node_size()), model.model->graph->nodes().size());
    const onnx::NodeProto& conv = node_named(proto, "conv2");
    for (const auto& a : conv.attribute())
      if (a.name() == "pads") {
        EXPECT_EQ(a.type(), onnx::AttributeProto::INTS);
        EXPECT_EQ(std::vector<std::int64_t>(a.ints().begin(), a.ints().end()), (std::vector<std::int64_t>{1, 1, 1, 1}));
      }
    EXPECT_EQ(conv.attribute_size(), 3);
    const auto rows = audit("onnx", model);
    EXPECT_EQ(rows.size(), 5u);
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    (*tensor_ending(proto, "fc.weight").mutable_raw_data())[3] ^= 1;
    store(proto);
    EXPECT_FALSE(all_equal(audit("onnx", model)));
  }
}

// A network of opset 9 whose operators changed their form until 13.
ModelPtr old_net(Shape softmax_input) {
  GraphBuilder b;
  b.set_name("old");
  b.set_opset(9);
  b.tensor("x", DataType::kFloat, softmax_input);
  b.input("x");
  using Ints = std::vector<std::int64_t>;
  b.node("limit", "Clip", {"x"}, {"a"}, {{"min", 0.0f}, {"max", 6.0f}});
  b.node("drop", "Dropout", {"a"}, {"b"}, {{"ratio", 0.5f}});
  b.node("wide", "Unsqueeze", {"b"}, {"c"}, {{"axes", Ints{0}}});
  b.node("narrow", "Squeeze", {"c"}, {"d"}, {{"axes", Ints{0}}});
  b.tensor("d", DataType::kFloat, softmax_input);
  b.node("probability", "Softmax", {"d"}, {"y"});
  b.tensor("y", DataType::kFloat, softmax_input);
  b.output("y");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, std::make_shared<const WeightStore>(), ""});
}

TEST_F(ExportTest, OldOperatorsAreBroughtToOpset13) {
  QuantizedModel model;
  model.model = old_net({-1, 10});
  ASSERT_TRUE(exporter("onnx-qdq").check(model, json::object()).empty());
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  onnx::ModelProto proto = load();
  EXPECT_NO_THROW(onnx::checker::check_model(proto));
  EXPECT_EQ(node_named(proto, "limit").input_size(), 3);
  EXPECT_EQ(node_named(proto, "narrow").input_size(), 2);
  ASSERT_EQ(node_named(proto, "probability").attribute_size(), 1);
  EXPECT_EQ(node_named(proto, "probability").attribute(0).i(), 1);
}

TEST_F(ExportTest, OldSoftmaxOverSeveralDimensionsIsRefused) {
  QuantizedModel model;
  model.model = old_net({-1, 10, 4});
  const auto refusals = exporter("onnx-qdq").check(model, json::object());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].layer, "probability");
  EXPECT_TRUE(exporter("onnx").check(model, json::object()).empty()) << "its own opset can say it";
}

// One node with an attribute, as a file.
onnx::ModelProto one_node(const std::string& op, const std::function<void(onnx::NodeProto&)>& fill) {
  onnx::ModelProto model;
  model.set_ir_version(7);
  auto* set = model.add_opset_import();
  set->set_domain("");
  set->set_version(13);
  auto* graph = model.mutable_graph();
  graph->set_name("one");
  const auto value = [](onnx::ValueInfoProto& v, const char* name, int type) {
    v.set_name(name);
    v.mutable_type()->mutable_tensor_type()->set_elem_type(type);
    v.mutable_type()->mutable_tensor_type()->mutable_shape()->add_dim()->set_dim_value(2);
  };
  value(*graph->add_input(), "x", op == "ConstantOfShape" ? onnx::TensorProto::INT64 : onnx::TensorProto::BOOL);
  value(*graph->add_output(), "y", onnx::TensorProto::FLOAT);
  auto* node = graph->add_node();
  node->set_name("n");
  node->set_op_type(op);
  node->add_input("x");
  node->add_output("y");
  fill(*node);
  return model;
}

TEST_F(ExportTest, TensorsAndSubgraphsAsAttributesAreKeptOrRefused) {
  JobContext job;
  struct Fill {
    int type;
    float value;
  };
  for (const Fill fill : {Fill{onnx::TensorProto::FLOAT, 1.5f}, {onnx::TensorProto::INT64, -3}, {onnx::TensorProto::INT32, 7},
                          {onnx::TensorProto::FLOAT16, 0.5f}, {onnx::TensorProto::DOUBLE, -2.25f}, {onnx::TensorProto::BOOL, 1}}) {
    SCOPED_TRACE(fill.type);
    store(one_node("ConstantOfShape", [&](onnx::NodeProto& n) {
      auto* a = n.add_attribute();
      a->set_name("value");
      a->set_type(onnx::AttributeProto::TENSOR);
      a->mutable_t()->add_dims(1);
      a->mutable_t()->set_data_type(fill.type);
      if (fill.type == onnx::TensorProto::FLOAT) a->mutable_t()->add_float_data(fill.value);
      else if (fill.type == onnx::TensorProto::DOUBLE) a->mutable_t()->add_double_data(fill.value);
      else if (fill.type == onnx::TensorProto::INT64) a->mutable_t()->add_int64_data(static_cast<std::int64_t>(fill.value));
      else if (fill.type == onnx::TensorProto::FLOAT16) a->mutable_t()->add_int32_data(float_to_half(fill.value));
      else a->mutable_t()->add_int32_data(static_cast<int>(fill.value));
    }));
    const onnx::ModelProto before = load();
    auto imported = import_model(path(), job);
    ASSERT_TRUE(imported) << imported.error().text();
    QuantizedModel model;
    model.model = std::make_shared<const Model>(std::move(*imported));
    ASSERT_TRUE(exporter("onnx").check(model, json::object()).empty());
    ASSERT_NO_FATAL_FAILURE(write("onnx", model));
    const onnx::ModelProto after = load();
    ASSERT_EQ(after.graph().node_size(), 1);
    EXPECT_EQ(after.graph().node(0).attribute(0).t().SerializeAsString(), before.graph().node(0).attribute(0).t().SerializeAsString());
  }
  store(one_node("If", [](onnx::NodeProto& n) {
    for (const char* branch : {"then_branch", "else_branch"}) {
      auto* a = n.add_attribute();
      a->set_name(branch);
      a->set_type(onnx::AttributeProto::GRAPH);
      a->mutable_g()->set_name(branch);
    }
  }));
  auto imported = import_model(path(), job);
  ASSERT_TRUE(imported) << imported.error().text();
  QuantizedModel model;
  model.model = std::make_shared<const Model>(std::move(*imported));
  for (const char* target : {"onnx", "onnx-qdq"}) {
    const auto refusals = exporter(target).check(model, json::object());
    ASSERT_EQ(refusals.size(), 1u) << target;
    EXPECT_EQ(refusals[0].layer, "n");
    EXPECT_EQ(refusals[0].rule, "operator");
  }
}

// Debian's libonnx-testdata: every operator's own test model, imported, written and checked by ONNX.
TEST_F(ExportTest, WhatOnnxTestsWithIsWrittenValid) {
  const fs::path data = "/usr/share/libonnx-testdata/data/node";
  if (!fs::is_directory(data)) GTEST_SKIP() << "libonnx-testdata is not installed";
  JobContext job;
  int written = 0;
  std::string broken;
  for (const auto& entry : fs::directory_iterator(data)) {
    const fs::path file = entry.path() / "model.onnx";
    onnx::ModelProto original;
    std::ifstream in(file, std::ios::binary);
    if (!original.ParseFromIstream(&in)) continue;
    try {
      onnx::checker::check_model(original);
    } catch (const std::exception&) {
      continue;
    }
    auto imported = import_model(file.string(), job);
    if (!imported) continue;
    QuantizedModel model;
    model.model = std::make_shared<const Model>(std::move(*imported));
    if (!exporter("onnx").check(model, json::object()).empty()) continue;
    ASSERT_NO_FATAL_FAILURE(write("onnx", model));
    ++written;
    try {
      onnx::checker::check_model(load());
    } catch (const std::exception& e) {
      broken += entry.path().filename().string() + ": " + e.what() + "\n";
    }
  }
  EXPECT_TRUE(broken.empty()) << broken;
  EXPECT_GT(written, 500);
}

TEST_F(ExportTest, FailedWriteLeavesTheOldFile) {
  const QuantizedModel model = quantize(small_net(), plain());
  JobContext job;
  const Status nowhere = exporter("onnx-qdq").write(model, path("no/such/folder/out.onnx"), json::object(), job);
  ASSERT_FALSE(nowhere);
  EXPECT_NE(nowhere.error().message.find("out.onnx"), std::string::npos) << nowhere.error().text();
  ASSERT_TRUE(write_file_atomically(path(), "old"));
  std::stop_source stop;
  stop.request_stop();
  JobContext stopped(stop.get_token());
  const Status cancelled = exporter("onnx-qdq").write(model, path(), json::object(), stopped);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(*read_file(path()), "old");
}

TEST_F(ExportTest, AuditOfDamagedFilesIsAnErrorNotACrash) {
  const QuantizedModel model = quantize(small_net(), plain());
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  const std::string good = *read_file(path());
  for (std::size_t keep = 0; keep < good.size(); keep += good.size() / 40) {
    overwrite(good.substr(0, keep));
    const auto rows = exporter("onnx-qdq").audit(model, path(), json::object());
    EXPECT_TRUE(!rows || !all_equal(*rows)) << keep << " of " << good.size() << " bytes";
  }
  std::mt19937 generator(7);
  for (int i = 0; i < 150; ++i) {
    std::string bad = good;
    for (int k = 0; k < 8; ++k) {
      const std::size_t at = generator() % bad.size();
      bad[at] = static_cast<char>(generator());
    }
    overwrite(bad);
    (void)exporter("onnx-qdq").audit(model, path(), json::object());
    (void)exporter("onnx").audit(model, path(), json::object());
  }
  EXPECT_FALSE(exporter("onnx-qdq").audit(model, path("missing.onnx"), json::object()));
}

// Initializers without a single element, one after the other: nothing to compare is not the same as equal.
TEST_F(ExportTest, EmptyInitializersAreNotEqual) {
  const QuantizedModel model = quantize(small_net(), plain());
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", model));
  const onnx::ModelProto good = load();
  std::size_t scales = 0;
  for (int i = 0; i < good.graph().initializer_size(); ++i) {
    onnx::ModelProto bad = good;
    auto& t = *bad.mutable_graph()->mutable_initializer(i);
    if (t.name().ends_with("_scale")) ++scales;
    t.clear_dims();
    t.add_dims(0);
    t.set_raw_data("");
    store(bad);
    EXPECT_FALSE(all_equal(audit("onnx-qdq", model))) << t.name();
  }
  EXPECT_GE(scales, 6u);
}

}  // namespace
}  // namespace quanvas
