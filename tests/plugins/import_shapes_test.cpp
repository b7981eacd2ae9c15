// Shapes that the user gives to open dimensions.
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

Proto two_inputs() {
  Proto p;
  p.input("image", {"N", "3", "H", "W"});
  p.input("mask", {"N", "1", "H", "W"});
  p.node("Mul", {"image", "mask"}, {"masked"});
  p.node("Shape", {"masked"}, {"sizes"});
  p.node("Reshape", {"masked", "sizes"}, {"y"});
  p.output("y");
  return p;
}

using Shapes = std::map<std::string, Shape>;

TEST(InputShapes, HoldForAllThatHaveTheSameName) {
  struct Row {
    Shapes given;
    const char *image, *mask, *y, *error;
  };
  const Row rows[] = {
      {{}, "?×3×?×?", "?×1×?×?", "?×3×?×?", ""},
      {{{"image", {-1, 3, 32, 48}}}, "?×3×32×48", "?×1×32×48", "?×3×32×48", ""},
      {{{"mask", {-1, 1, 8, -1}}}, "?×3×8×?", "?×1×8×?", "?×3×8×?", ""},
      {{{"image", {-1, 3, 8, 9}}, {"mask", {-1, -1, 8, 9}}}, "?×3×8×9", "?×1×8×9", "?×3×8×9", ""},
      {{{"gone", {-1, -1}}}, "?×3×?×?", "?×1×?×?", "?×3×?×?", ""},
      {{{"image", {1, 4, 8, 9}}}, "", "", "", "The input 'image' cannot be 1×4×8×9: dimension 2 is 3 in the file or by another input."},
      {{{"image", {-1, 3, 8, 9}}, {"mask", {-1, 1, 8, 10}}}, "", "", "", "The input 'mask' cannot be ?×1×8×10: dimension 4 is 9 in the file or by another input."},
      {{{"image", {3, 8, 9}}}, "", "", "", "The input 'image' cannot be 3×8×9: the file gives it 4 dimensions."},
      {{{"picture", {1, 3, 8, 9}}}, "", "", "", "The model has no input 'picture'. Its inputs are: image (?,3,?,?), mask (?,1,?,?)."}};
  const Folder folder;
  const std::string path = folder.file("net.onnx", two_inputs().model.SerializeAsString());
  for (const Row& row : rows) {
    JobContext job;
    ImportOptions options;
    options.shapes = row.given;
    auto file = quanvas::import_file(path, options, job);
    if (*row.error) {
      ASSERT_FALSE(file) << row.error;
      EXPECT_EQ(file.error().text().find(row.error), 0u) << file.error().text();
      continue;
    }
    ASSERT_TRUE(file) << file.error().text();
    const Imported out{std::move(file->model), {}};
    EXPECT_EQ(out.shape("image"), row.image);
    EXPECT_EQ(out.shape("mask"), row.mask);
    EXPECT_EQ(out.shape("y"), row.y);
  }
}

// y is the product of x with the weight of one of two branches, by the number in "rate".
TEST(InputShapes, AnInputThatIsOneIntegerTakesItsValueAndBranchesAreDecided) {
  Proto p;
  p.input("x", {"N", "3"});
  p.input("rate", {}, 7);
  p.floats("fast", {3, 2}, 1);
  p.floats("slow", {3, 2}, 5);
  p.ints("wanted", {16000}, true);
  p.node("Equal", {"rate", "wanted"}, {"is_fast"});
  auto& branch = p.node("If", {"is_fast"}, {"y"});
  for (const std::string key : {"then", "else"}) {
    auto& a = *branch.add_attribute();
    a.set_name(key + "_branch");
    a.set_type(onnx::AttributeProto::GRAPH);
    auto& n = *a.mutable_g()->add_node();
    n.set_op_type("MatMul");
    n.add_input("x");
    n.add_input(key == "then" ? "fast" : "slow");
    n.add_output("product_" + key);
    a.mutable_g()->add_output()->set_name("product_" + key);
  }
  p.output("y");
  struct Row {
    Shapes given;
    std::vector<std::string> ops;
    const char *weight, *error;
  };
  const Row rows[] = {{{}, {"Equal", "If"}, "", ""},
                      {{{"rate", {-1}}}, {"Equal", "If"}, "", ""},
                      {{{"rate", {16000}}}, {"MatMul", "Identity"}, "fast", ""},
                      {{{"rate", {8000}}}, {"MatMul", "Identity"}, "slow", ""},
                      {{{"rate", {1, 2}}}, {}, "", "The input 'rate' cannot be 1×2: the file gives it 0 dimensions."}};
  const Folder folder;
  const std::string path = folder.file("net.onnx", p.model.SerializeAsString());
  for (const Row& row : rows) {
    JobContext job;
    ImportOptions options;
    options.shapes = row.given;
    auto file = quanvas::import_file(path, options, job);
    if (*row.error) {
      ASSERT_FALSE(file) << row.error;
      EXPECT_EQ(file.error().text().find(row.error), 0u) << file.error().text();
      continue;
    }
    ASSERT_TRUE(file) << file.error().text();
    const Imported out{std::move(file->model), {}};
    EXPECT_EQ(out.ops(), row.ops);
    EXPECT_EQ(out.graph().inputs().size(), *row.weight ? 1u : 2u);
    if (*row.weight) EXPECT_NE(out.graph().tensor(row.weight), kNoTensor);
  }
}

TEST(InputShapes, OfAnUnknownRankAreThoseThatAreGiven) {
  Proto p;
  p.input("x", {});
  p.graph.mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  p.node("Relu", {"x"}, {"y"});
  p.output("y");
  const Folder folder;
  const std::string path = folder.file("net.onnx", p.model.SerializeAsString());
  JobContext job;
  ImportOptions options;
  options.shapes["x"] = {-1, 7};
  auto file = quanvas::import_file(path, options, job);
  ASSERT_TRUE(file) << file.error().text();
  const Imported out{std::move(file->model), {}};
  EXPECT_EQ(out.shape("y"), "?×7");
}

}  // namespace
}  // namespace quanvas::import_test
