// Files beyond protobuf's 2 GiB, and weights that stay in their file until they are looked at. The large files are
// sparse: they take no room on the disk.
#include <fstream>

#include "plugins/importers/onnx_wire.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

namespace fs = std::filesystem;
using onnx_import::without_large_tensors;

// A field of protobuf's wire format with its length, and the start of one whose content follows.
std::string varint(std::uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out.push_back(static_cast<char>(0x80 | (v & 0x7f)));
  out.push_back(static_cast<char>(v));
  return out;
}
std::string open_field(int field, std::uint64_t length) {
  return varint(static_cast<std::uint64_t>(field) << 3 | 2) + varint(length);
}

void add_value(onnx::ValueInfoProto& v, const std::string& name, const std::vector<std::int64_t>& dims) {
  v.set_name(name);
  auto* t = v.mutable_type()->mutable_tensor_type();
  t->set_elem_type(onnx::TensorProto::FLOAT);
  for (const std::int64_t d : dims) t->mutable_shape()->add_dim()->set_dim_value(d);
}

// y[1, columns] = x[1, rows] * w, without the initializer w.
onnx::ModelProto product(std::int64_t rows, std::int64_t columns) {
  onnx::ModelProto m;
  m.set_ir_version(8);
  m.add_opset_import()->set_version(13);
  auto& g = *m.mutable_graph();
  g.set_name("g");
  add_value(*g.add_input(), "x", {1, rows});
  add_value(*g.add_output(), "y", {1, columns});
  auto& n = *g.add_node();
  n.set_op_type("MatMul");
  n.add_input("x");
  n.add_input("w");
  n.add_output("y");
  return m;
}

onnx::TensorProto tensor(const std::string& name, std::int64_t rows, std::int64_t columns) {
  onnx::TensorProto t;
  t.set_name(name);
  t.set_data_type(onnx::TensorProto::FLOAT);
  t.add_dims(rows);
  t.add_dims(columns);
  return t;
}

double anonymous_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      double kib = 0;
      status >> kib;
      return kib / 1024;
    }
  return 0;
}

float element(const TensorData& t, std::int64_t i) {
  float v;
  std::memcpy(&v, t.data + static_cast<std::size_t>(i) * sizeof v, sizeof v);
  return v;
}

void put_float_at(const fs::path& path, std::uint64_t at, float v) {
  std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(at));
  out.write(reinterpret_cast<const char*>(&v), sizeof v);
}

constexpr std::int64_t kRows = 50000, kColumns = 12000;  // 2.4 GB
constexpr std::uint64_t kBytes = static_cast<std::uint64_t>(kRows) * kColumns * 4;

void expect_last(const Imported& file, double before) {
  ASSERT_TRUE(file.model) << file.model.error().text();
  const TensorData* const w = file.model->weights->find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->bytes, kBytes);
  EXPECT_EQ(element(*w, kRows * kColumns - 1), 7.5f);
  EXPECT_EQ(element(*w, 1), 0.0f);
  EXPECT_LT(anonymous_mib() - before, 200);
}

TEST(Large, AModelOfMoreThanTwoGigabytesInOneFile) {
  const Folder folder;
  onnx::ModelProto model = product(kRows, kColumns);
  const std::string graph = model.graph().SerializeAsString();
  model.clear_graph();
  const std::string head = tensor("w", kRows, kColumns).SerializeAsString() + open_field(9, kBytes);
  const std::string initializer = open_field(5, head.size() + kBytes) + head;
  const std::string text = model.SerializeAsString() + open_field(7, graph.size() + initializer.size() + kBytes) + graph + initializer;
  const std::string path = folder.file("large.onnx", text);
  fs::resize_file(path, text.size() + kBytes);
  put_float_at(path, text.size() + kBytes - 4, 7.5f);
  const double before = anonymous_mib();
  expect_last(import_file(path), before);
  // Cut off, it is no whole file.
  fs::resize_file(path, text.size() + kBytes - 1);
  const Imported cut = import_file(path);
  ASSERT_FALSE(cut.model);
  EXPECT_NE(cut.model.error().message.find("large.onnx' is not a whole ONNX file: it cannot be read beyond byte "), std::string::npos)
      << cut.model.error().text();
}

TEST(Large, ExternalDataStaysInItsFile) {
  const Folder folder;
  onnx::ModelProto model = product(kRows, kColumns);
  onnx::TensorProto& w = *model.mutable_graph()->add_initializer();
  w = tensor("w", kRows, kColumns);
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  for (const auto& [key, value] : {std::pair<std::string, std::string>{"location", "weights.bin"}, {"offset", "4096"}}) {
    auto& e = *w.add_external_data();
    e.set_key(key);
    e.set_value(value);
  }
  const std::string data = folder.file("weights.bin", "x");
  fs::resize_file(data, 4096 + kBytes);
  put_float_at(data, 4096 + kBytes - 4, 7.5f);
  const double before = anonymous_mib();
  expect_last(import_file(folder.file("m.onnx", model.SerializeAsString())), before);
  fs::resize_file(data, 4096 + kBytes - 4);
  const Imported cut = import_file((folder.path() / "m.onnx").string());
  ASSERT_FALSE(cut.model);
  EXPECT_NE(cut.model.error().message.find("needs 2400000000 bytes at 4096 of 'weights.bin', which has 2400004092"), std::string::npos)
      << cut.model.error().text();
}

// Initializers of both sizes, a Constant and one in a subgraph.
onnx::ModelProto with_tensors() {
  onnx::ModelProto m = product(4, 5);
  auto& g = *m.mutable_graph();
  const auto fill = [](onnx::TensorProto& t, const std::string& name, std::int64_t rows, char seed) {
    t = tensor(name, rows, 16);
    std::string raw(static_cast<std::size_t>(rows) * 64, 0);
    for (std::size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<char>(seed + static_cast<char>(i * 7));
    t.set_raw_data(raw);
    t.set_doc_string("kept");
  };
  fill(*g.add_initializer(), "small", 16, 1);
  fill(*g.add_initializer(), "large", 1024, 2);
  auto& constant = *g.add_node()->add_attribute();
  constant.set_name("value");
  fill(*constant.mutable_t(), "c", 2048, 3);
  auto& branch = *g.add_node()->add_attribute();
  branch.set_name("then_branch");
  fill(*branch.mutable_g()->add_initializer(), "inner", 4096, 4);
  return m;
}

void expect_same(const onnx::TensorProto& slim, const onnx::TensorProto& whole, const std::string& file) {
  EXPECT_EQ(slim.name(), whole.name());
  EXPECT_EQ(slim.doc_string(), "kept");
  ASSERT_EQ(slim.dims_size(), 2);
  if (whole.raw_data().size() < onnx_import::kLargeTensor) {
    EXPECT_EQ(slim.raw_data(), whole.raw_data());
    return;
  }
  EXPECT_FALSE(slim.has_raw_data());
  EXPECT_EQ(slim.data_location(), onnx::TensorProto::EXTERNAL);
  ASSERT_EQ(slim.external_data_size(), 2);
  EXPECT_EQ(file.substr(std::stoul(slim.external_data(0).value()), std::stoul(slim.external_data(1).value())), whole.raw_data());
}

TEST(Large, WhatIsLeftOutIsFoundInTheFile) {
  const onnx::ModelProto whole = with_tensors();
  const std::string file = whole.SerializeAsString();
  const auto text = without_large_tensors(file);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_LT(text->size(), 3000u);
  onnx::ModelProto slim;
  ASSERT_TRUE(slim.ParseFromString(*text));
  for (int i = 0; i < 2; ++i) expect_same(slim.graph().initializer(i), whole.graph().initializer(i), file);
  expect_same(slim.graph().node(1).attribute(0).t(), whole.graph().node(1).attribute(0).t(), file);
  expect_same(slim.graph().node(2).attribute(0).g().initializer(0), whole.graph().node(2).attribute(0).g().initializer(0), file);
  EXPECT_EQ(slim.graph().node(0).SerializeAsString(), whole.graph().node(0).SerializeAsString());
}

TEST(Large, DamagedTextIsRefusedOrReadAndNeverCrashes) {
  const std::string file = with_tensors().SerializeAsString();
  EXPECT_FALSE(without_large_tensors(std::string_view(file).substr(0, file.size() - 1)));
  for (std::size_t n = 0; n < file.size(); n += n < 400 ? 1 : 997) (void)without_large_tensors(std::string_view(file).substr(0, n));
  for (std::size_t i = 0; i < 400; ++i)
    for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
      std::string damaged = file;
      damaged[i] = static_cast<char>(value);
      (void)without_large_tensors(damaged);
    }
  // Graphs in attributes of graphs without end.
  std::string deep;
  for (int i = 0; i < 5000; ++i) {
    deep = open_field(6, deep.size()) + deep;  // attribute: graph
    deep = open_field(5, deep.size()) + deep;  // node: attribute
    deep = open_field(1, deep.size()) + deep;  // graph: node
    if (i % 1000 == 999) {
      const std::string model = open_field(7, deep.size()) + deep;
      EXPECT_FALSE(without_large_tensors(model)) << i;
    }
  }
}

}  // namespace
}  // namespace quanvas::import_test
