// Small ONNX files made in memory, for the tests of the importer.
#pragma once

#include <onnx/onnx_pb.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::import_test {

struct Imported {
  Result<Model> model;
  std::vector<Issue> issues;
  const Graph& graph() const { return *model->graph; }
  const Node* only(const std::string& op) const {
    const Node* found = nullptr;
    for (const Node& n : graph().nodes())
      if (n.op == op) found = found ? nullptr : &n;
    return found;
  }
  std::vector<std::string> ops() const {
    std::vector<std::string> out;
    for (const Node& n : graph().nodes()) out.push_back(n.op);
    return out;
  }
  std::string shape(const std::string& tensor) const {
    const TensorId t = graph().tensor(tensor);
    return t == kNoTensor || !graph().tensor(t).shape ? "none" : shape_text(*graph().tensor(t).shape);
  }
};

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "quanvas-import-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  std::string file(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return (path_ / name).string();
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline Imported import_file(const std::string& path) {
  Imported out{fail(ErrorCode::kInternal, "not run"), {}};
  JobContext job({}, {}, [&](const Issue& i) { out.issues.push_back(i); });
  out.model = import_model(path, job);
  return out;
}

inline Imported import_bytes(const std::string& bytes, const std::string& name = "net.onnx") {
  const Folder folder;
  return import_file(folder.file(name, bytes));
}

inline onnx::AttributeProto attribute(const std::string& name, std::int64_t v) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INT);
  a.set_i(v);
  return a;
}
inline onnx::AttributeProto attribute(const std::string& name, const std::vector<std::int64_t>& v) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INTS);
  for (const auto i : v) a.add_ints(i);
  return a;
}

struct Proto {
  onnx::ModelProto model;
  onnx::GraphProto& graph = *model.mutable_graph();

  explicit Proto(std::int64_t opset = 13) {
    model.set_ir_version(7);
    model.add_opset_import()->set_version(opset);
    graph.set_name("net");
  }
  Proto(const Proto& other) : model(other.model), graph(*model.mutable_graph()) {}

  onnx::ValueInfoProto& value(onnx::ValueInfoProto& v, const std::string& name,
                              const std::vector<std::string>& dims, int type = 1) {
    v.set_name(name);
    auto* t = v.mutable_type()->mutable_tensor_type();
    t->set_elem_type(type);
    t->mutable_shape();
    for (const std::string& d : dims) {
      auto* dim = t->mutable_shape()->add_dim();
      if (d.find_first_not_of("0123456789-") == std::string::npos)
        dim->set_dim_value(std::stoll(d));
      else
        dim->set_dim_param(d);
    }
    return v;
  }
  void input(const std::string& name, const std::vector<std::string>& dims, int type = 1) {
    value(*graph.add_input(), name, dims, type);
  }
  void output(const std::string& name) {
    auto& v = *graph.add_output();
    v.set_name(name);
    v.mutable_type()->mutable_tensor_type()->set_elem_type(1);
  }
  onnx::TensorProto& floats(const std::string& name, const std::vector<std::int64_t>& dims, float first = 0.5f) {
    auto& t = *graph.add_initializer();
    t.set_name(name);
    t.set_data_type(1);
    for (const auto d : dims) t.add_dims(d);
    const std::int64_t n = element_count(dims);
    for (std::int64_t i = 0; i < n; ++i) t.add_float_data(first + static_cast<float>(i));
    return t;
  }
  onnx::TensorProto& ints(const std::string& name, const std::vector<std::int64_t>& values, bool scalar = false) {
    auto& t = *graph.add_initializer();
    t.set_name(name);
    t.set_data_type(7);
    if (!scalar) t.add_dims(static_cast<std::int64_t>(values.size()));
    for (const auto v : values) t.add_int64_data(v);
    return t;
  }
  onnx::NodeProto& node(const std::string& op, const std::vector<std::string>& in,
                        const std::vector<std::string>& out,
                        const std::vector<onnx::AttributeProto>& attributes = {}) {
    auto& n = *graph.add_node();
    n.set_op_type(op);
    n.set_name(op + "_" + (out.empty() ? "" : out[0]));
    for (const auto& t : in) n.add_input(t);
    for (const auto& t : out) n.add_output(t);
    for (const auto& a : attributes) *n.add_attribute() = a;
    return n;
  }
  std::string bytes() const { return model.SerializeAsString(); }
  Imported import() const { return import_bytes(bytes()); }
};

// Conv, Relu, Flatten, Gemm on a 2x6x6 picture.
inline Proto small_net() {
  Proto p;
  p.input("x", {"N", "2", "6", "6"});
  p.floats("w", {3, 2, 3, 3});
  p.floats("b", {3});
  p.floats("fc", {4, 48});
  p.node("Conv", {"x", "w", "b"}, {"c"}, {attribute("kernel_shape", std::vector<std::int64_t>{3, 3})});
  p.node("Relu", {"c"}, {"r"});
  p.node("Flatten", {"r"}, {"f"});
  p.node("Gemm", {"f", "fc"}, {"y"}, {attribute("transB", 1)});
  p.output("y");
  return p;
}

}  // namespace quanvas::import_test
