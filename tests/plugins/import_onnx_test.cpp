#include "core/graph/layers.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

using Ops = std::vector<std::string>;

TEST(ImportOnnx, ReadsNodesShapesAndWeights) {
  const Imported m = small_net().import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.graph().name(), "net");
  EXPECT_EQ(m.graph().opset(), 13);
  EXPECT_EQ(m.ops(), (Ops{"Conv", "Relu", "Flatten", "Gemm"}));
  EXPECT_EQ(m.shape("x"), "?×2×6×6");
  EXPECT_EQ(m.shape("c"), "?×3×4×4");
  EXPECT_EQ(m.shape("f"), "?×48");
  EXPECT_EQ(m.shape("y"), "?×4");
  const TensorData* w = m.model->weights->find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->shape, (Shape{3, 2, 3, 3}));
  EXPECT_FLOAT_EQ(w->to_floats()[1], 1.5f);
  EXPECT_EQ(find_layers(m.graph()).size(), 3u);
  EXPECT_TRUE(m.issues.empty());
}

struct TypeRow {
  int type;
  void (*fill)(onnx::TensorProto&);
};

TEST(ImportOnnx, ReadsEveryElementTypeRawAndTyped) {
  const TypeRow rows[] = {
      {1,
       [](auto& t) {
         t.add_float_data(1);
         t.add_float_data(2);
       }},
      {1,
       [](auto& t) {
         const float v[] = {1, 2};
         t.set_raw_data(v, sizeof v);
       }},
      {2,
       [](auto& t) {
         t.add_int32_data(1);
         t.add_int32_data(2);
       }},
      {3,
       [](auto& t) {
         t.add_int32_data(1);
         t.add_int32_data(2);
       }},
      {3,
       [](auto& t) {
         const std::int8_t v[] = {1, 2};
         t.set_raw_data(v, sizeof v);
       }},
      {5,
       [](auto& t) {
         t.add_int32_data(1);
         t.add_int32_data(2);
       }},
      {6,
       [](auto& t) {
         t.add_int32_data(1);
         t.add_int32_data(2);
       }},
      {7,
       [](auto& t) {
         t.add_int64_data(1);
         t.add_int64_data(2);
       }},
      {10,
       [](auto& t) {
         t.add_int32_data(0x3c00);
         t.add_int32_data(0x4000);
       }},
      {10,
       [](auto& t) {
         const std::uint16_t v[] = {0x3c00, 0x4000};
         t.set_raw_data(v, sizeof v);
       }},
      {11,
       [](auto& t) {
         t.add_double_data(1);
         t.add_double_data(2);
       }},
      {12,
       [](auto& t) {
         t.add_uint64_data(1);
         t.add_uint64_data(2);
       }},
      {13,
       [](auto& t) {
         t.add_uint64_data(1);
         t.add_uint64_data(2);
       }},
      {16,
       [](auto& t) {
         t.add_int32_data(0x3f80);
         t.add_int32_data(0x4000);
       }},
  };
  for (const TypeRow& row : rows) {
    Proto p;
    p.input("x", {"N", "2"}, row.type);
    auto& t = *p.graph.add_initializer();
    t.set_name("w");
    t.add_dims(2);
    t.set_data_type(row.type);
    row.fill(t);
    p.node("Add", {"x", "w"}, {"y"});
    p.output("y");
    const Imported m = p.import();
    ASSERT_TRUE(m.model) << m.model.error().text();
    const TensorData* w = m.model->weights->find("w");
    ASSERT_NE(w, nullptr);
    EXPECT_EQ(static_cast<int>(w->type), row.type);
    EXPECT_EQ(w->to_floats(), (std::vector<float>{1, 2})) << row.type;
  }
}

TEST(ImportOnnx, ConstantsBecomeInitializersAndClutterGoes) {
  Proto p;
  p.input("x", {"N", "4"});
  auto& value = *p.node("Constant", {}, {"k"}).add_attribute();
  value.set_name("value_floats");
  value.set_type(onnx::AttributeProto::FLOATS);
  for (const float f : {1.f, 2.f, 3.f, 4.f}) value.add_floats(f);
  p.node("Identity", {"k"}, {"k2"});
  p.node("Identity", {"x"}, {"x2"});
  p.node("Dropout", {"x2"}, {"x3"});
  p.node("Add", {"x3", "k2"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  ASSERT_EQ(m.ops(), Ops{"Add"});
  EXPECT_EQ(m.graph().tensor(m.graph().nodes()[0].input(0)).name, "x");
  EXPECT_EQ(m.model->weights->find("k")->to_floats(), (std::vector<float>{1, 2, 3, 4}));
}

TEST(ImportOnnx, OutputsKeepTheirNames) {
  Proto p;
  p.input("x", {"N", "4"});
  p.node("Relu", {"x"}, {"r"});
  p.node("Identity", {"r"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.ops(), (Ops{"Relu", "Identity"}));
  EXPECT_EQ(m.shape("y"), "?×4");
}

// x.view(x.size(0), -1) as exporters write it.
TEST(ImportOnnx, ShapeArithmeticFoldsForEveryBatch) {
  Proto p;
  p.input("x", {"N", "2", "3", "4"});
  p.node("Shape", {"x"}, {"s"});
  p.ints("zero", {0}, true);
  p.ints("axes", {0});
  p.ints("rest", {-1});
  p.node("Gather", {"s", "zero"}, {"n"}, {attribute("axis", 0)});
  p.node("Unsqueeze", {"n", "axes"}, {"n1"});
  p.node("Concat", {"n1", "rest"}, {"target"}, {attribute("axis", 0)});
  p.node("Reshape", {"x", "target"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  ASSERT_EQ(m.ops(), Ops{"Reshape"});
  EXPECT_EQ(m.shape("y"), "?×24");
  const Node& n = m.graph().nodes()[0];
  EXPECT_EQ(m.model->weights->find(m.graph().tensor(n.input(1)).name)->to_int64(),
            (std::vector<std::int64_t>{0, -1}));
}

struct BatchRow {
  std::vector<std::string> input;
  std::vector<std::int64_t> target;
  std::vector<std::int64_t> rewritten;
  const char* in;
  const char* out;
};

TEST(ImportOnnx, AFixedBatchBecomesFreeWhereThatIsProven) {
  const BatchRow rows[] = {
      {{"1", "2", "3", "4"}, {1, 24}, {0, 24}, "?×2×3×4", "?×24"},
      {{"1", "2", "3", "4"}, {1, -1}, {0, -1}, "?×2×3×4", "?×24"},
      {{"1", "2", "3", "4"}, {-1, 24}, {-1, 24}, "?×2×3×4", "?×24"},
      {{"1", "2", "3", "4"}, {1, 4, 3, 2}, {0, 4, 3, 2}, "?×2×3×4", "?×4×3×2"},
      {{"8", "2", "3", "4"}, {8, 24}, {0, 24}, "?×2×3×4", "?×24"},
      {{"N", "2", "3", "4"}, {0, -1}, {0, -1}, "?×2×3×4", "?×24"},
      // The batch is mixed with other dimensions: stays as it is.
      {{"1", "2", "3", "4"}, {2, 12}, {2, 12}, "1×2×3×4", "2×12"},
      {{"1", "2", "3", "4"}, {24}, {24}, "1×2×3×4", "24"},
      {{"8", "2"}, {8, 2}, {8, 2}, "8×2", "8×2"},
  };
  for (const BatchRow& row : rows) {
    Proto p;
    p.input("x", row.input);
    p.ints("target", row.target);
    p.node("Relu", {"x"}, {"r"});
    p.node("Reshape", {"r", "target"}, {"y"});
    p.output("y");
    const Imported m = p.import();
    ASSERT_TRUE(m.model) << m.model.error().text();
    EXPECT_EQ(m.shape("x"), row.in);
    EXPECT_EQ(m.shape("y"), row.out);
    const Node* reshape = m.only("Reshape");
    ASSERT_NE(reshape, nullptr);
    EXPECT_EQ(m.model->weights->find(m.graph().tensor(reshape->input(1)).name)->to_int64(), row.rewritten);
  }
}

TEST(ImportOnnx, ResizeToSizesIsFreedFromTheBatch) {
  Proto p;
  p.input("x", {"1", "2", "3", "4"});
  p.ints("sizes", {1, 2, 6, 4});
  auto& mode = *p.node("Resize", {"x", "", "", "sizes"}, {"y"}).add_attribute();
  mode.set_name("mode");
  mode.set_type(onnx::AttributeProto::STRING);
  mode.set_s("nearest");
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.shape("y"), "?×2×6×4");
  const Node& n = m.graph().nodes()[0];
  ASSERT_EQ(n.inputs.size(), 3u);
  EXPECT_EQ(m.model->weights->find(m.graph().tensor(n.input(2)).name)->to_floats(),
            (std::vector<float>{1, 1, 2, 1}));
}

struct FoldRow {
  const char* op;
  std::vector<std::string> inputs;
  std::vector<onnx::AttributeProto> attributes;
  std::vector<std::int64_t> values;
  Shape shape;
};

// Against values worked out by hand.
TEST(ImportOnnx, FoldsConstants) {
  const std::vector<std::int64_t> swap = {1, 0};
  const FoldRow rows[] = {
      {"Add", {"a", "b"}, {}, {11, 22, 33}, {3}},
      {"Sub", {"b", "a"}, {}, {9, 18, 27}, {3}},
      {"Mul", {"a", "two"}, {}, {2, 4, 6}, {3}},
      {"Div", {"b", "minus"}, {}, {-3, -6, -10}, {3}},
      {"Concat", {"a", "b"}, {attribute("axis", 0)}, {1, 2, 3, 10, 20, 30}, {6}},
      {"Gather", {"b", "index"}, {}, {30, 10}, {2}},
      {"Slice", {"b", "one", "big"}, {}, {20, 30}, {2}},
      {"Slice", {"b", "minus1", "small", "zero", "minus2"}, {}, {30, 10}, {2}},
      {"Unsqueeze", {"a", "zero"}, {}, {1, 2, 3}, {1, 3}},
      {"Range", {"s1", "s9", "s3"}, {}, {1, 4, 7}, {3}},
      {"Equal", {"a", "a2"}, {}, {1, 0, 1}, {3}},
      {"Where", {"truth", "a", "b"}, {}, {1, 20, 3}, {3}},
      {"Shape", {"matrix"}, {}, {2, 3}, {2}},
      {"Size", {"matrix"}, {}, {6}, {}},
      {"Transpose", {"matrix"}, {attribute("perm", swap)}, {1, 4, 2, 5, 3, 6}, {3, 2}},
      {"Reshape", {"matrix", "flat"}, {}, {1, 2, 3, 4, 5, 6}, {6}},
      {"Expand", {"column", "target"}, {}, {1, 1, 1, 2, 2, 2}, {2, 3}},
      {"ReduceProd", {"a"}, {attribute("keepdims", 0)}, {6}, {}},
      {"Cast", {"half"}, {attribute("to", 7)}, {1, -2}, {2}},
      {"ConstantOfShape", {"two"}, {}, {0, 0}, {2}},
  };
  for (const FoldRow& row : rows) {
    Proto p;
    p.input("x", {"N"});
    p.ints("a", {1, 2, 3});
    p.ints("a2", {1, 9, 3});
    p.ints("b", {10, 20, 30});
    p.ints("two", {2});
    p.ints("minus", {-3});
    p.ints("index", {-1, 0});
    p.ints("one", {1});
    p.ints("zero", {0});
    p.ints("big", {std::int64_t{1} << 62});
    p.ints("minus1", {-1});
    p.ints("small", {-(std::int64_t{1} << 62)});
    p.ints("minus2", {-2});
    p.ints("s1", {1}, true);
    p.ints("s9", {9}, true);
    p.ints("s3", {3}, true);
    p.ints("flat", {-1});
    p.ints("target", {2, 3});
    auto& truth = p.ints("truth", {});
    truth.set_data_type(9);
    truth.set_dims(0, 3);
    for (const int v : {1, 0, 1}) truth.add_int32_data(v);
    auto& matrix = p.ints("matrix", {1, 2, 3, 4, 5, 6});
    matrix.set_dims(0, 2);
    matrix.add_dims(3);
    p.ints("column", {1, 2}).add_dims(1);
    auto& half = p.floats("half", {});
    half.clear_float_data();
    half.add_dims(2);
    half.add_float_data(1.9f);
    half.add_float_data(-2.9f);
    p.node(row.op, row.inputs, {"k"}, row.attributes);
    p.node("Custom", {"x", "k"}, {"y"}).set_domain("test");  // reads k, whatever its type
    p.output("y");
    const Imported m = p.import();
    ASSERT_TRUE(m.model) << row.op << ": " << m.model.error().text();
    ASSERT_EQ(m.ops(), Ops{"Custom"}) << row.op;
    const TensorData* k = m.model->weights->find("k");
    ASSERT_NE(k, nullptr) << row.op;
    EXPECT_EQ(k->to_int64(), row.values) << row.op;
    EXPECT_EQ(k->shape, row.shape) << row.op;
  }
}

TEST(ImportOnnx, DoesNotFoldWhatIsNotDefined) {
  const struct {
    const char* op;
    std::vector<std::string> inputs;
  } rows[] = {{"Div", {"a", "zero"}},
              {"Mul", {"huge", "huge"}},
              {"Gather", {"a", "far"}},
              {"Reshape", {"a", "far"}},
              {"Range", {"s", "s", "s0"}}};
  for (const auto& row : rows) {
    Proto p;
    p.input("x", {"N"});
    p.ints("a", {1, 2, 3});
    p.ints("zero", {0});
    p.ints("huge", {std::int64_t{1} << 62});
    p.ints("far", {77});
    p.ints("s", {1}, true);
    p.ints("s0", {0}, true);
    p.node(row.op, row.inputs, {"k"});
    p.node("Custom", {"x", "k"}, {"y"}).set_domain("test");
    p.output("y");
    const Imported m = p.import();
    ASSERT_TRUE(m.model) << row.op << ": " << m.model.error().text();
    EXPECT_EQ(m.ops(), (Ops{row.op, "Custom"}));
  }
}

TEST(ImportOnnx, WhatCannotRunIsOpaqueWithItsReason) {
  Proto p;
  p.input("x", {"N", "4"});
  p.input("c", {}, 9);
  p.node("MyOp", {"x"}, {"a"}).set_domain("com.vendor");
  p.node("NoSuchOp", {"a"}, {"b"});
  auto& branch = p.node("If", {"c"}, {"d"});
  for (const char* name : {"then_branch", "else_branch"}) {
    auto& g = *branch.add_attribute();
    g.set_name(name);
    g.set_type(onnx::AttributeProto::GRAPH);
    auto& inner = *g.mutable_g()->add_node();
    inner.set_op_type("Relu");
    inner.add_input("b");
    inner.add_output("inner");
    g.mutable_g()->add_output()->set_name("inner");
  }
  p.node("Conv", {"d", "d"}, {"y"}, {attribute("strides", std::vector<std::int64_t>{0, 1})});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  const std::pair<const char*, const char*> reasons[] = {
      {"MyOp", "com.vendor"}, {"NoSuchOp", "no ONNX operator"}, {"Conv", "strides"}};
  for (const auto& [op, reason] : reasons) {
    const Node* n = m.only(op);
    ASSERT_NE(n, nullptr) << op;
    EXPECT_NE(n->opaque_reason.find(reason), std::string::npos) << n->opaque_reason;
  }
  EXPECT_EQ(m.issues.size(), 3u);
  // What the branches read from outside is an input of the node and of its subgraphs.
  const Node* branching = m.only("If");
  EXPECT_EQ(m.graph().tensor(branching->input(1)).name, "b");
  EXPECT_EQ(branching->opaque_reason, "");
  const GraphPtr inside = branching->subgraph("then_branch");
  ASSERT_TRUE(inside);
  EXPECT_EQ(inside->inputs().size(), 1u);
  EXPECT_EQ(inside->nodes()[0].op, "Relu");
  // It survives the way through JSON, hash included.
  const auto again = graph_from_json(graph_to_json(m.graph()));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ((*again)->hash(), m.graph().hash());
}

TEST(ImportOnnx, NewerOperatorSetsStillHaveShapes) {
  Proto p(18);
  p.input("x", {"N", "3", "8", "8"});
  p.ints("axes", {2, 3});
  p.node("ReduceMean", {"x", "axes"}, {"m"}, {attribute("keepdims", 0)});
  p.node("Mish", {"m"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.shape("y"), "?×3");
}

TEST(ImportOnnx, NodesOutOfOrderAreSorted) {
  Proto p;
  p.input("x", {"N", "4"});
  p.node("Relu", {"a"}, {"y"});
  p.node("Sigmoid", {"x"}, {"a"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.ops(), (Ops{"Sigmoid", "Relu"}));
  EXPECT_EQ(m.shape("y"), "?×4");
}

TEST(ImportOnnx, ShapeTroubleIsAnIssueNotAnError) {
  Proto p;
  p.input("x", {"N", "4"});
  p.floats("w", {3, 2});
  p.node("MatMul", {"x", "w"}, {"y"});
  p.output("y");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  ASSERT_EQ(m.issues.size(), 1u);
  EXPECT_EQ(m.issues[0].where, "MatMul_y");
}

TEST(ImportOnnx, ExternalDataBesideTheFile) {
  Folder folder;
  const auto import = [&](const std::string& location, const std::string& offset, const std::string& length) {
    Proto p;
    p.input("x", {"N", "2"});
    auto& t = p.floats("w", {2});
    t.clear_float_data();
    t.set_data_location(onnx::TensorProto::EXTERNAL);
    for (const auto& [key, value] :
         {std::pair{"location", location}, std::pair{"offset", offset}, std::pair{"length", length}}) {
      if (value.empty()) continue;
      auto& e = *t.add_external_data();
      e.set_key(key);
      e.set_value(value);
    }
    p.node("Add", {"x", "w"}, {"y"});
    p.output("y");
    return import_file(folder.file("net.onnx", p.bytes()));
  };
  const float values[] = {7, 1.5f, 2.5f};
  folder.file("w.bin", std::string(reinterpret_cast<const char*>(values), sizeof values));
  std::filesystem::create_symlink("/etc/passwd", folder.path() / "link.bin");
  const Imported good = import("w.bin", "4", "8");
  ASSERT_TRUE(good.model) << good.model.error().text();
  EXPECT_EQ(good.model->weights->find("w")->to_floats(), (std::vector<float>{1.5f, 2.5f}));
  const struct {
    const char *location, *offset, *length;
    ErrorCode code;
  } rows[] = {
      {"../w.bin", "", "", ErrorCode::kUnsupported},
      {"/etc/passwd", "", "", ErrorCode::kUnsupported},
      {"link.bin", "", "", ErrorCode::kUnsupported},
      {"a/../../w.bin", "", "", ErrorCode::kUnsupported},
      {"missing.bin", "", "", ErrorCode::kNotFound},
      {"", "", "", ErrorCode::kCorrupt},
      {"w.bin", "8", "", ErrorCode::kCorrupt},
      {"w.bin", "-1", "", ErrorCode::kCorrupt},
      {"w.bin", "99999999999999999999", "", ErrorCode::kCorrupt},
      {"w.bin", "", "4", ErrorCode::kCorrupt},
      {".", "", "", ErrorCode::kNotFound},
  };
  for (const auto& row : rows) {
    const Imported m = import(row.location, row.offset, row.length);
    ASSERT_FALSE(m.model) << row.location;
    EXPECT_EQ(m.model.error().code, row.code) << m.model.error().text();
    EXPECT_NE(m.model.error().message.find("'w'"), std::string::npos);
  }
}

TEST(ImportOnnx, ManyImportsGiveTheSameHash) {
  const std::string bytes = small_net().bytes();
  const Imported a = import_bytes(bytes), b = import_bytes(bytes);
  ASSERT_TRUE(a.model && b.model);
  EXPECT_EQ(a.graph().hash(), b.graph().hash());
  EXPECT_EQ(a.model->weights->hash(), b.model->weights->hash());
}

}  // namespace
}  // namespace quanvas::import_test
