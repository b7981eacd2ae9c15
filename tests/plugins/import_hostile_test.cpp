// Bad files: every answer is a model or a sentence, never a crash.
#include <random>

#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

void expect_sentence(const Imported& m, const std::string& what) {
  if (m.model) return;
  EXPECT_NE(m.model.error().code, ErrorCode::kInternal) << what << ": " << m.model.error().text();
  EXPECT_NE(m.model.error().message.find(".onnx'"), std::string::npos) << what << ": " << m.model.error().message;
}

TEST(ImportHostile, EveryPrefixOfAFileIsRefused) {
  const std::string bytes = small_net().bytes();
  const Folder folder;
  for (std::size_t n = 0; n < bytes.size(); n += n < 64 ? 1 : 7) {
    const Imported m = import_file(folder.file("cut.onnx", bytes.substr(0, n)));
    EXPECT_FALSE(m.model) << n;
    expect_sentence(m, std::to_string(n));
  }
  EXPECT_TRUE(import_file(folder.file("cut.onnx", bytes)).model);
}

TEST(ImportHostile, FlippedBytesNeverCrash) {
  const std::string bytes = small_net().bytes();
  const Folder folder;
  std::mt19937_64 random(7);
  int refused = 0;
  for (int i = 0; i < 600; ++i) {
    std::string bad = bytes;
    for (int k = 0; k <= i % 3; ++k) bad[random() % bad.size()] = static_cast<char>(random());
    const Imported m = import_file(folder.file("flip.onnx", bad));
    expect_sentence(m, std::to_string(i));
    refused += !m.model;
    if (m.model) {
      // What was accepted is a graph that can be written and read again.
      EXPECT_TRUE(graph_from_json(graph_to_json(m.graph()))) << i;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(ImportHostile, NotONNX) {
  const std::string rows[] = {"",
                              "\n",
                              "hello, this is no model\n",
                              std::string(5000, '\0'),
                              std::string(5000, '\xff'),
                              "PK\x03\x04 archive",
                              "\x08\x07",
                              "{\"a\": 1}"};
  for (const std::string& bytes : rows) {
    const Imported m = import_bytes(bytes);
    ASSERT_FALSE(m.model) << bytes.substr(0, 10);
    expect_sentence(m, bytes.substr(0, 10));
    EXPECT_EQ(m.model.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_EQ(import_bytes("hello", "readme.txt").model.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(import_file("/nowhere/net.onnx").model.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(import_file(std::filesystem::temp_directory_path().string()).model.error().code,
            ErrorCode::kInvalidArgument);
}

struct Damage {
  const char* what;
  void (*change)(Proto&);
  const char* message;
};

TEST(ImportHostile, EachDamageHasItsSentence) {
  const Damage rows[] = {
      {"huge dims", [](Proto& p) { p.graph.mutable_initializer(0)->set_dims(0, std::int64_t{1} << 62); }, "'w'"},
      {"overflowing dims",
       [](Proto& p) {
         for (int i = 0; i < 4; ++i) p.graph.mutable_initializer(0)->set_dims(i, std::int64_t{1} << 32);
       },
       "'w'"},
      {"negative dim", [](Proto& p) { p.graph.mutable_initializer(0)->set_dims(0, -3); }, "negative dimension -3"},
      {"too many dims",
       [](Proto& p) {
         for (int i = 0; i < 40; ++i) p.graph.mutable_initializer(0)->add_dims(1);
       },
       "dimensions"},
      {"too little data", [](Proto& p) { p.graph.mutable_initializer(0)->set_dims(0, 4); },
       "needs 288 bytes but has 216"},
      {"too much data", [](Proto& p) { p.graph.mutable_initializer(0)->add_float_data(1); },
       "needs 216 bytes but has 220"},
      {"unknown type", [](Proto& p) { p.graph.mutable_initializer(0)->set_data_type(77); },
       "unknown element type 77"},
      {"initializer twice", [](Proto& p) { *p.graph.add_initializer() = p.graph.initializer(0); },
       "two initializers are called 'w'"},
      {"no name", [](Proto& p) { p.graph.mutable_initializer(0)->clear_name(); }, "no name"},
      {"tensor twice", [](Proto& p) { p.node("Relu", {"x"}, {"c"}); }, "'c' is produced twice"},
      {"cycle", [](Proto& p) { p.graph.mutable_node(1)->set_input(0, "y"); }, "cycle"},
      {"missing tensor", [](Proto& p) { p.graph.mutable_node(1)->set_input(0, "ghost"); }, "'ghost'"},
      {"missing output", [](Proto& p) { p.graph.mutable_output(0)->set_name("ghost"); }, "'ghost'"},
      {"no outputs", [](Proto& p) { p.graph.clear_output(); }, "no outputs"},
      {"no operator", [](Proto& p) { p.graph.mutable_node(1)->clear_op_type(); }, "no operator"},
      {"no opset", [](Proto& p) { p.model.clear_opset_import(); }, "opset_import"},
      {"no graph", [](Proto& p) { p.model.clear_graph(); }, "no graph"},
      {"node without outputs", [](Proto& p) { p.graph.mutable_node(1)->clear_output(); }, "no outputs"},
      {"sparse", [](Proto& p) { p.graph.add_sparse_initializer()->mutable_values()->set_name("sp"); }, "'sp'"},
      {"segment", [](Proto& p) { p.graph.mutable_initializer(0)->mutable_segment()->set_begin(1); }, "segments"},
  };
  for (const Damage& row : rows) {
    Proto p = small_net();
    row.change(p);
    const Imported m = p.import();
    ASSERT_FALSE(m.model) << row.what;
    expect_sentence(m, row.what);
    EXPECT_NE(m.model.error().message.find(row.message), std::string::npos)
        << row.what << ": " << m.model.error().message;
  }
}

// Attributes that make shape inference divide by zero, index out of range or allocate without bound.
TEST(ImportHostile, AbsurdAttributesAndConstants) {
  using Ints = std::vector<std::int64_t>;
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  const struct {
    const char* op;
    std::vector<std::string> inputs;
    std::vector<onnx::AttributeProto> attributes;
  } rows[] = {
      {"Conv", {"x", "w"}, {attribute("strides", Ints{0, 0})}},
      {"Conv", {"x", "w"}, {attribute("dilations", Ints{-1, kHuge})}},
      {"Conv", {"x", "w"}, {attribute("pads", Ints{kHuge, kHuge, kHuge, kHuge})}},
      {"Conv", {"x", "w"}, {attribute("pads", Ints{1})}},
      {"Conv", {"x", "w"}, {attribute("group", 0)}},
      {"Conv", {"x"}, {}},
      {"Conv", {}, {}},
      {"MaxPool", {"x"}, {attribute("kernel_shape", Ints{0, 0})}},
      {"MaxPool", {"x"}, {attribute("kernel_shape", Ints{kHuge, 1}), attribute("strides", Ints{1, 0})}},
      {"DepthToSpace", {"x"}, {attribute("blocksize", 0)}},
      {"Transpose", {"x"}, {attribute("perm", Ints{9, -9, kHuge, 0})}},
      {"Concat", {"x", "x"}, {attribute("axis", kHuge)}},
      {"Concat", {"x", "x"}, {attribute("axis", 63)}},
      {"Softmax", {"x"}, {attribute("axis", -kHuge)}},
      {"Flatten", {"x"}, {attribute("axis", 60)}},
      {"Gather", {"x", "far"}, {attribute("axis", -60)}},
      {"Squeeze", {"x", "far"}, {}},
      {"Unsqueeze", {"x", "far"}, {}},
      {"Reshape", {"x", "far"}, {}},
      {"Expand", {"x", "far"}, {}},
      {"Tile", {"x", "far"}, {}},
      {"Pad", {"x", "far"}, {}},
      {"Slice", {"x", "far", "far"}, {}},
      {"Slice", {"x", "far", "far", "far", "zero"}, {}},
      {"Resize", {"x", "", "", "far"}, {}},
      {"TopK", {"x", "far"}, {}},
      {"OneHot", {"far", "far", "far"}, {}},
      {"ConstantOfShape", {"far"}, {}},
      {"ConstantOfShape", {"negative"}, {}},
      {"Range", {"low", "high", "step"}, {}},
      {"Split", {"x", "far"}, {attribute("axis", 40)}},
      {"ReduceMean", {"x"}, {attribute("axes", Ints{77})}},
      {"LSTM", {"x", "w", "w"}, {attribute("hidden_size", -5)}},
      {"Conv", {"flat", "w"}, {}},
      {"Conv", {"long", "w"}, {}},
      {"Conv", {"x", "long"}, {}},
      {"ConvTranspose", {"flat", "w"}, {}},
      {"ConvInteger", {"far", "far"}, {}},
      {"SequenceAt", {"x", "far"}, {}},
      {"Shape", {"x"}, {attribute("start", -kHuge), attribute("end", kHuge)}},
      {"Cast", {"x"}, {attribute("to", 9999)}},
      {"BatchNormalization", {"x", "w"}, {}},
      {"Gemm", {"w", "w"}, {}},
      {"Einsum", {"x"}, {}},
  };
  for (const int opset : {9, 13, 18}) {
    for (const auto& row : rows) {
      Proto p(opset);
      p.input("x", {"1", "2", "6", "6"});
      p.input("flat", {"1", "2"});
      p.input("long", {"1", "2", "6", "6", "6"});
      p.floats("w", {3, 2, 3, 3});
      p.ints("far", {kHuge, -kHuge, 5, kHuge});
      p.ints("negative", {-4});
      p.ints("zero", {0, 0, 0, 0});
      p.ints("low", {-kHuge}, true);
      p.ints("high", {kHuge}, true);
      p.ints("step", {1}, true);
      p.node(row.op, row.inputs, {"t"}, row.attributes);
      p.node("Relu", {"t"}, {"y"});
      p.output("y");
      const Imported m = p.import();
      expect_sentence(m, row.op);
      EXPECT_TRUE(m.model) << row.op << ": " << m.model.error().text();
    }
  }
}

TEST(ImportHostile, NamesThatAreNoTextAreShownAsBytes) {
  Proto p;
  p.input("x\xff", {"N", "4"});
  p.node("Relu", {"x\xff"}, {"\xc3\x28"}).set_name("caf\xc3\xa9 \xf0\x9f\x98\x80 \xed\xa0\x80");
  p.output("\xc3\x28");
  const Imported m = p.import();
  ASSERT_TRUE(m.model) << m.model.error().text();
  EXPECT_EQ(m.graph().nodes()[0].name, "café 😀 \\xed\\xa0\\x80");
  EXPECT_NE(m.graph().tensor("x\\xff"), kNoTensor);
  EXPECT_NO_THROW(graph_to_json(m.graph()).dump());
}

TEST(ImportHostile, DeepSubgraphsEndInASentence) {
  onnx::GraphProto inner;
  inner.add_output()->set_name("y");
  for (int depth = 0; depth < 200; ++depth) {
    onnx::GraphProto outer;
    auto& n = *outer.add_node();
    n.set_op_type("If");
    n.add_output("y");
    auto& a = *n.add_attribute();
    a.set_name("then_branch");
    a.set_type(onnx::AttributeProto::GRAPH);
    a.mutable_g()->Swap(&inner);
    outer.add_output()->set_name("y");
    inner.Swap(&outer);
  }
  Proto p;
  p.graph.Swap(&inner);
  const Imported m = p.import();
  ASSERT_FALSE(m.model);
  EXPECT_EQ(m.model.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace quanvas::import_test
