// Trust in a file's code is the user's: kept for its content, never taken from a project.
#include <cstdlib>

#include "core/project/project.h"
#include "core/workflow/workbench.h"
#include "tests/plugins/import_support.h"
#include "tests/plugins/torchscript_support.h"

namespace quanvas::torchscript_test {
namespace {

namespace fs = std::filesystem;

class Trust : public testing::Test {
 protected:
  Trust() {
    if (const char* const home = std::getenv("XDG_DATA_HOME")) home_ = home;
    ::setenv("XDG_DATA_HOME", (folder_.path() / "home").c_str(), 1);
    torch::jit::Module module("m");
    module.define("def forward(self, x):\n  return torch.relu(x)\n");
    module.save((folder_.path() / "m.ts").string());
  }
  ~Trust() override {
    if (home_.empty()) ::unsetenv("XDG_DATA_HOME");
    else ::setenv("XDG_DATA_HOME", home_.c_str(), 1);
  }
  std::string file(const char* name) const { return (folder_.path() / name).string(); }
  Status open(const char* name, const std::string& trusted = {}) const {
    JobContext job;
    ImportOptions import;
    import.trusted = trusted;
    const auto opened = Workbench::open(file(name), {}, job, std::string(name).ends_with(".ts") ? file("p.quanvas") : "", import);
    if (!opened) return Failure(opened.error());
    return {};
  }

  import_test::Folder folder_;
  std::string home_;
};

TEST_F(Trust, HoldsForTheContentThatWasTrusted) {
  EXPECT_EQ(open("m.ts").error().code, ErrorCode::kNeedsTrust);
  ASSERT_TRUE(open("m.ts", kTrustAny));
  EXPECT_TRUE(open("m.ts"));
  EXPECT_TRUE(open("p.quanvas"));
  torch::jit::Module other("other");
  other.define("def forward(self, x):\n  return torch.sigmoid(x)\n");
  other.save(file("m.ts"));
  EXPECT_EQ(open("p.quanvas").error().code, ErrorCode::kNeedsTrust);
}

TEST_F(Trust, IsNotTakenFromAProject) {
  ASSERT_TRUE(open("m.ts", kTrustAny));
  fs::remove_all(folder_.path() / "home");
  {
    const auto project = Project::open(file("p.quanvas"));
    ASSERT_TRUE(project) << project.error().text();
    ASSERT_TRUE((*project)->set_value("import", R"({"shapes":{},"trusted":"any","quantizers":""})"));
  }
  EXPECT_EQ(open("p.quanvas").error().code, ErrorCode::kNeedsTrust);
}

}  // namespace
}  // namespace quanvas::torchscript_test
