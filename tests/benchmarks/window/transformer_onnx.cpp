// Writes a transformer encoder with at least so many nodes as ONNX, decomposed as exporters write it (layer
// normalization and GELU as arithmetic, reshapes and transposes around the heads), with one attention mask that is
// made once and feeds every block.
//
//   transformer_onnx NODES FILE.onnx
#include <onnx/onnx_pb.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int kHidden = 64, kHeads = 4, kFeedForward = 128, kTokens = 16;

class Writer {
 public:
  explicit Writer(int nodes) : wanted_(nodes) {
    model_.set_ir_version(8);
    model_.set_producer_name("transformer_onnx");
    model_.add_opset_import()->set_version(13);
    graph().set_name("encoder");
    input("embeddings", onnx::TensorProto::FLOAT, {1, kTokens, kHidden});
    input("attention_mask", onnx::TensorProto::INT64, {1, kTokens});
  }

  const onnx::ModelProto& write() {
    const std::string mask = make_mask();
    std::string x = "embeddings";
    for (int block = 0; graph().node_size() < wanted_; ++block)
      x = encoder_block("layer." + std::to_string(block), x, mask);
    auto* out = graph().add_output();
    out->set_name(x);
    shape(*out, onnx::TensorProto::FLOAT, {1, kTokens, kHidden});
    return model_;
  }

 private:
  onnx::GraphProto& graph() { return *model_.mutable_graph(); }
  static void shape(onnx::ValueInfoProto& value, int type, const std::vector<int>& dims) {
    auto* tensor = value.mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(type);
    for (const int d : dims) tensor->mutable_shape()->add_dim()->set_dim_value(d);
  }
  void input(const std::string& name, int type, const std::vector<int>& dims) {
    auto* in = graph().add_input();
    in->set_name(name);
    shape(*in, type, dims);
  }
  // The output has the node's name.
  std::string node(const std::string& name, const std::string& op, const std::vector<std::string>& inputs) {
    auto* n = graph().add_node();
    n->set_name(name);
    n->set_op_type(op);
    for (const std::string& in : inputs) n->add_input(in);
    n->add_output(name + ":0");
    return name + ":0";
  }
  onnx::NodeProto& last() { return *graph().mutable_node(graph().node_size() - 1); }
  void integers(const std::string& key, const std::vector<std::int64_t>& values) {
    auto* a = last().add_attribute();
    a->set_name(key);
    a->set_type(onnx::AttributeProto::INTS);
    for (const std::int64_t v : values) a->add_ints(v);
  }
  void integer(const std::string& key, std::int64_t value) {
    auto* a = last().add_attribute();
    a->set_name(key);
    a->set_type(onnx::AttributeProto::INT);
    a->set_i(value);
  }
  std::string weight(const std::string& name, const std::vector<int>& dims) {
    auto* t = graph().add_initializer();
    t->set_name(name);
    t->set_data_type(onnx::TensorProto::FLOAT);
    std::int64_t n = 1;
    for (const int d : dims) {
      t->add_dims(d);
      n *= d;
    }
    std::normal_distribution<float> normal(0, 0.05f);
    std::string bytes(static_cast<std::size_t>(n) * sizeof(float), '\0');
    for (std::int64_t i = 0; i < n; ++i) reinterpret_cast<float*>(bytes.data())[i] = normal(random_);
    t->set_raw_data(std::move(bytes));
    return name;
  }
  std::string number(const std::string& name, float value) {
    auto* t = graph().add_initializer();
    t->set_name(name);
    t->set_data_type(onnx::TensorProto::FLOAT);
    t->add_float_data(value);
    return name;
  }
  std::string sizes(const std::string& name, const std::vector<std::int64_t>& values) {
    auto* t = graph().add_initializer();
    t->set_name(name);
    t->set_data_type(onnx::TensorProto::INT64);
    t->add_dims(static_cast<std::int64_t>(values.size()));
    for (const std::int64_t v : values) t->add_int64_data(v);
    return name;
  }

  std::string make_mask() {
    const std::string wide = node("mask.unsqueeze", "Unsqueeze", {"attention_mask", sizes("mask.axes", {1, 2})});
    std::string m = node("mask.cast", "Cast", {wide});
    integer("to", onnx::TensorProto::FLOAT);
    m = node("mask.sub", "Sub", {number("mask.one", 1), m});
    return node("mask.mul", "Mul", {m, number("mask.lowest", -1e4f)});
  }
  std::string normalized(const std::string& at, const std::string& x) {
    const auto mean = [&](const std::string& name, const std::string& in) {
      const std::string out = node(name, "ReduceMean", {in});
      integers("axes", {-1});
      return out;
    };
    const std::string centered = node(at + ".sub", "Sub", {x, mean(at + ".mean", x)});
    std::string v = node(at + ".pow", "Pow", {centered, number(at + ".two", 2)});
    v = node(at + ".add_eps", "Add", {mean(at + ".variance", v), number(at + ".eps", 1e-5f)});
    v = node(at + ".div", "Div", {centered, node(at + ".sqrt", "Sqrt", {v})});
    v = node(at + ".scale", "Mul", {v, weight(at + ".weight", {kHidden})});
    return node(at + ".shift", "Add", {v, weight(at + ".bias", {kHidden})});
  }
  std::string linear(const std::string& at, const std::string& x, int in, int out) {
    const std::string y = node(at + ".matmul", "MatMul", {x, weight(at + ".weight", {in, out})});
    return node(at + ".add", "Add", {y, weight(at + ".bias", {out})});
  }
  std::string heads(const std::string& at, const std::string& x, const std::vector<std::int64_t>& order) {
    std::string y = linear(at, x, kHidden, kHidden);
    y = node(at + ".reshape", "Reshape", {y, sizes(at + ".sizes", {0, 0, kHeads, kHidden / kHeads})});
    y = node(at + ".transpose", "Transpose", {y});
    integers("perm", order);
    return y;
  }
  std::string encoder_block(const std::string& at, const std::string& x, const std::string& mask) {
    const std::string a = at + ".attention";
    const std::string n = normalized(at + ".norm1", x);
    const std::string q = heads(a + ".query", n, {0, 2, 1, 3}), k = heads(a + ".key", n, {0, 2, 3, 1});
    const std::string v = heads(a + ".value", n, {0, 2, 1, 3});
    std::string s = node(a + ".scores", "MatMul", {q, k});
    s = node(a + ".div", "Div", {s, number(a + ".root", 4)});
    s = node(a + ".mask", "Add", {s, mask});
    s = node(a + ".softmax", "Softmax", {s});
    integer("axis", -1);
    s = node(a + ".context", "MatMul", {s, v});
    s = node(a + ".transpose", "Transpose", {s});
    integers("perm", {0, 2, 1, 3});
    s = node(a + ".reshape", "Reshape", {s, sizes(a + ".sizes", {0, 0, kHidden})});
    const std::string first = node(at + ".residual1", "Add", {x, linear(a + ".output", s, kHidden, kHidden)});
    const std::string m = at + ".mlp";
    std::string h = linear(m + ".up", normalized(at + ".norm2", first), kHidden, kFeedForward);
    std::string g = node(m + ".gelu.div", "Div", {h, number(m + ".gelu.root", 1.41421356f)});
    g = node(m + ".gelu.add", "Add", {node(m + ".gelu.erf", "Erf", {g}), number(m + ".gelu.one", 1)});
    g = node(m + ".gelu.mul", "Mul", {h, g});
    g = node(m + ".gelu.half", "Mul", {g, number(m + ".gelu.point5", 0.5f)});
    return node(at + ".residual2", "Add", {first, linear(m + ".down", g, kFeedForward, kHidden)});
  }

  int wanted_;
  onnx::ModelProto model_;
  std::mt19937 random_{1};
};

}  // namespace

int main(int argc, char** argv) {
  const int nodes = argc == 3 ? std::atoi(argv[1]) : 0;
  if (nodes < 1) return std::fprintf(stderr, "usage: transformer_onnx NODES FILE.onnx\n"), 2;
  std::ofstream out(argv[2], std::ios::binary);
  Writer writer(nodes);
  const onnx::ModelProto& model = writer.write();
  if (!model.SerializeToOstream(&out)) return std::fprintf(stderr, "'%s' could not be written.\n", argv[2]), 1;
  std::printf("%d nodes\n", model.graph().node_size());
  return 0;
}
