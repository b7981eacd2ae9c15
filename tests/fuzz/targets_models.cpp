// Targets: files of models.
#include <onnx/onnx_pb.h>
#include <zlib.h>

#include <cstdlib>
#include <iterator>
#include <utility>

#include "core/plugin/registry.h"
#include "plugins/importers/onnx_wire.h"
#include "plugins/importers/torchscript_archive.h"
#include "tests/fuzz/parts.h"
#include "tests/fuzz/stored_zip.h"

namespace quanvas::fuzz {
namespace {

void import_as(const char* name, const std::string& bytes) {
  JobContext job;
  auto imported = import_file(scratch_file(name, bytes), {}, job);
  // What was read can be looked at and goes through the window's door.
  if (imported) (void)graph_from_json(graph_to_json(*imported->model.graph));
}

// --- ONNX ---

onnx::ValueInfoProto* value(onnx::ValueInfoProto* v, const char* name, const std::vector<std::int64_t>& dims) {
  v->set_name(name);
  auto* t = v->mutable_type()->mutable_tensor_type();
  t->set_elem_type(onnx::TensorProto::FLOAT);
  for (const std::int64_t d : dims)
    if (d < 0) t->mutable_shape()->add_dim()->set_dim_param("N");
    else t->mutable_shape()->add_dim()->set_dim_value(d);
  return v;
}

onnx::NodeProto* node(onnx::GraphProto& g, const char* op, const std::vector<std::string>& in, const char* out) {
  auto* n = g.add_node();
  n->set_op_type(op);
  for (const auto& t : in) n->add_input(t);
  n->add_output(out);
  return n;
}

void numbers(onnx::GraphProto& g, const char* name, const std::vector<std::int64_t>& dims) {
  auto* t = g.add_initializer();
  t->set_name(name);
  t->set_data_type(onnx::TensorProto::FLOAT);
  std::int64_t n = 1;
  for (const std::int64_t d : dims) {
    t->add_dims(d);
    n *= d;
  }
  t->set_raw_data(std::string(static_cast<std::size_t>(n) * 4, '\x3d'));
}

void whole(onnx::GraphProto& g, const char* name, const std::vector<std::int64_t>& values) {
  auto* t = g.add_initializer();
  t->set_name(name);
  t->set_data_type(onnx::TensorProto::INT64);
  t->add_dims(static_cast<std::int64_t>(values.size()));
  for (const std::int64_t v : values) t->add_int64_data(v);
}

void integers(onnx::NodeProto& n, const char* name, const std::vector<std::int64_t>& values) {
  auto* a = n.add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INTS);
  for (const std::int64_t v : values) a->add_ints(v);
}

onnx::ModelProto empty_model() {
  onnx::ModelProto m;
  m.set_ir_version(8);
  m.add_opset_import()->set_version(13);
  m.mutable_graph()->set_name("g");
  return m;
}

std::string picture_net() {
  onnx::ModelProto m = empty_model();
  auto& g = *m.mutable_graph();
  value(g.add_input(), "x", {-1, 2, 6, 6});
  numbers(g, "w", {3, 2, 3, 3});
  numbers(g, "b", {3});
  integers(*node(g, "Conv", {"x", "w", "b"}, "c"), "pads", {1, 1, 1, 1});
  node(g, "Relu", {"c"}, "r");
  integers(*node(g, "MaxPool", {"r"}, "p"), "kernel_shape", {2, 2});
  node(g, "Shape", {"p"}, "s");
  whole(g, "first", {0});
  node(g, "Gather", {"s", "first"}, "n");
  whole(g, "rest", {-1});
  node(g, "Concat", {"n", "rest"}, "target")->add_attribute()->set_name("axis");
  g.mutable_node(g.node_size() - 1)->mutable_attribute(0)->set_type(onnx::AttributeProto::INT);
  node(g, "Reshape", {"p", "target"}, "f");
  numbers(g, "v", {27, 4});
  node(g, "MatMul", {"f", "v"}, "y");
  value(g.add_output(), "y", {-1, 4});
  return m.SerializeAsString();
}

std::string branching_net() {
  onnx::ModelProto m = empty_model();
  auto& g = *m.mutable_graph();
  value(g.add_input(), "x", {4});
  value(g.add_input(), "c", {})->mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::BOOL);
  auto* choice = node(g, "If", {"c"}, "y");
  for (const char* branch : {"then_branch", "else_branch"}) {
    auto* a = choice->add_attribute();
    a->set_name(branch);
    a->set_type(onnx::AttributeProto::GRAPH);
    a->mutable_g()->set_name(branch);
    node(*a->mutable_g(), branch[0] == 't' ? "Neg" : "Exp", {"x"}, "z");
    value(a->mutable_g()->add_output(), "z", {4});
  }
  value(g.add_output(), "y", {4});
  auto* f = m.add_functions();
  f->set_name("Twice");
  f->set_domain("own");
  f->add_input("a");
  f->add_output("b");
  auto* add = f->add_node();
  add->set_op_type("Add");
  add->add_input("a");
  add->add_input("a");
  add->add_output("b");
  node(g, "Twice", {"y"}, "t")->set_domain("own");
  value(g.add_output(), "t", {4});
  return m.SerializeAsString();
}

std::string quantized_net() {
  onnx::ModelProto m = empty_model();
  auto& g = *m.mutable_graph();
  value(g.add_input(), "x", {-1, 4});
  numbers(g, "scale", {});
  auto* zero = g.add_initializer();
  zero->set_name("zero");
  zero->set_data_type(onnx::TensorProto::INT8);
  zero->set_raw_data(std::string(1, '\0'));
  auto* w = g.add_initializer();
  w->set_name("w");
  w->set_data_type(onnx::TensorProto::INT8);
  w->add_dims(4);
  w->add_dims(3);
  w->set_raw_data("0123456789ab");
  node(g, "QuantizeLinear", {"x", "scale", "zero"}, "q");
  node(g, "DequantizeLinear", {"q", "scale", "zero"}, "d");
  node(g, "DequantizeLinear", {"w", "scale", "zero"}, "wd");
  node(g, "MatMul", {"d", "wd"}, "y");
  numbers(g, "bits", {});
  node(g, "Quant", {"y", "scale", "bits", "bits"}, "z")->set_domain("qonnx.custom_op.general");
  value(g.add_output(), "z", {-1, 3});
  return m.SerializeAsString();
}

std::string dynamic_net() {
  onnx::ModelProto m = empty_model();
  auto& g = *m.mutable_graph();
  value(g.add_input(), "x", {-1, 4});
  numbers(g, "scale", {3});
  for (const char* name : {"w", "zero"}) {
    auto* t = g.add_initializer();
    t->set_name(name);
    t->set_data_type(onnx::TensorProto::INT8);
    if (*name == 'w') t->add_dims(4);
    t->add_dims(*name == 'w' ? 3 : 1);
    t->set_raw_data(*name == 'w' ? "0123456789ab" : "c");
  }
  auto* quantize = node(g, "DynamicQuantizeLinear", {"x"}, "q");
  quantize->add_output("s");
  quantize->add_output("z");
  node(g, "MatMulInteger", {"q", "w", "z", "zero"}, "i");
  auto* to = node(g, "Cast", {"i"}, "f")->add_attribute();
  to->set_name("to");
  to->set_type(onnx::AttributeProto::INT);
  to->set_i(1);
  node(g, "Mul", {"s", "scale"}, "scales");
  node(g, "Mul", {"f", "scales"}, "y");
  value(g.add_output(), "y", {-1, 3});
  return m.SerializeAsString();
}

void read_onnx(const std::string& bytes) { import_as("m.onnx", bytes); }
Bytes onnx_seeds() { return {picture_net(), branching_net(), quantized_net(), dynamic_net()}; }

void read_wire(const std::string& bytes) {
  const auto slim = onnx_import::without_large_tensors(bytes);
  onnx::ModelProto model;
  if (slim) (void)model.ParsePartialFromString(*slim);
}
Bytes wire_seeds() {
  onnx::ModelProto m = empty_model();
  numbers(*m.mutable_graph(), "large", {128, 128});
  Bytes out = onnx_seeds();
  out.push_back(m.SerializeAsString());
  return out;
}

// --- networks as YAML ---

void read_network(const std::string& bytes) { import_as("m.net.yaml", bytes); }
Bytes network_seeds() {
  return {contents(QUANVAS_SOURCE_DIR "/projects/lenet5/lenet5.net.yaml"), contents(QUANVAS_SOURCE_DIR "/projects/dscnn/dscnn.net.yaml")};
}

// --- graphs as the window gets them ---

void read_graph(const std::string& bytes) {
  const json j = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!j.is_discarded()) (void)graph_from_json(j);
}
Bytes graph_seeds() {
  JobContext job;
  Bytes out;
  for (const std::string& seed : {picture_net(), branching_net()})
    if (const auto model = import_model(scratch_file("seed.onnx", seed), job)) out.push_back(graph_to_json(*model->graph).dump());
  return out;
}

// --- TorchScript: the archive, before LibTorch sees it ---

void read_torchscript(const std::string& bytes) {
  if (const auto archive = torchscript::read_archive(scratch_file("m.ts.pt", bytes))) (void)archive->content();
}

Bytes torchscript_seeds() {
  return {stored_zip({{"m/data.pkl", "\x80\x02."},
                      {"m/code/a.py", "def forward(self, x):\n  return ops.own.op(x)\n"},
                      {"m/data/0", "1234"},
                      {"m/version", "3\n"}})};
}

}  // namespace

ModelPtr small_model() {
  static const ModelPtr model = [] {
    JobContext job;
    auto made = import_model(scratch_file("small.onnx", picture_net()), job);
    if (!made) std::abort();
    return std::make_shared<const Model>(std::move(*made));
  }();
  return model;
}

std::vector<Target> model_targets() {
  return {{"onnx", read_onnx, onnx_seeds},
          {"onnx-wire", read_wire, wire_seeds},
          {"network-yaml", read_network, network_seeds},
          {"graph-json", read_graph, graph_seeds},
          {"torchscript", read_torchscript, torchscript_seeds}};
}

}  // namespace quanvas::fuzz
