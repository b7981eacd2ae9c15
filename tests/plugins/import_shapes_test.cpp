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
