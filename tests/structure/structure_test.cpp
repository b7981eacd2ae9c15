// Which unit may see which (docs/architecture.md), checked on the sources' includes and on what the built
// binaries need. Every rule carries a planted violation that it must catch.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Strings includes_of(const std::string& text) {
  static const std::regex kInclude(R"(^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"])");
  Strings out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (std::smatch m; std::regex_search(line, m, kInclude)) out.push_back(m[1]);
  return out;
}

struct Rule {
  const char* name;
  Strings folders;       // of the source tree, with everything below; or single files
  bool headers_only;
  const char* forbidden; // regular expression on the whole included path
  const char* planted;   // an include line that breaks the rule
};

constexpr const char* kTorch = R"((torch|ATen|c10|caffe2)/.*)";
constexpr const char* kQt = R"(Q[A-Za-z][A-Za-z0-9]*(/.*)?|Qt[A-Za-z0-9]+/.*|qcustomplot\.h)";

const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {"the window links no LibTorch", {"widgets", "app/session", "app/window"}, false, kTorch, "#include <ATen/ATen.h>"},
      {"the window sees no executor", {"widgets", "app/session", "app/window"}, false, R"(core/exec/.*)",
       "#include \"core/exec/runner.h\""},
      {"the engine has no Qt", {"core", "plugins", "app/engine", "app/cli"}, false, kQt, "#include <QtCore/QString>"},
      {"values, kernels and storage are Torch-free",
       {"core/base", "core/graph", "core/recipe", "core/report", "core/protocol", "core/quant", "core/algorithms", "core/project", "core/plugin",
        "core/workflow/workbench.h"},
       false, kTorch, "#  include <torch/torch.h>"},
      {"data set headers are Torch-free", {"core/data"}, true, kTorch, "#include <c10/core/Device.h>"},
      {"the engine does not see programs, views or plug-ins", {"core"}, false, R"((app|widgets|plugins)/.*)",
       "#include \"plugins/exporters/onnx_write.h\""},
      {"plug-ins see the engine only", {"plugins"}, false, R"((app|widgets)/.*)", "#include \"app/engine/service.h\""},
      {"views see values only", {"widgets"}, false,
       R"(app/.*|plugins/.*|grpc.*|core/(exec|project|plugin|protocol)/.*)", "#include \"app/session/session.h\""},
      {"the session has no views", {"app/session"}, false, R"((widgets|app/window|app/cli)/.*|QtWidgets/.*|QWidget)",
       "#include <QWidget>"},
      {"the window talks to the engine through the session", {"app/window"}, false,
       R"(app/(engine|cli)/.*|grpc.*|core/protocol/.*)", "#include \"core/protocol/engine.pb.h\""},
      {"command line and service do not see each other's verbs", {"app/cli"}, false, R"(app/(window|session)/.*)",
       "#include \"app/window/window.h\""},
  };
  return table;
}

Strings violations(const Rule& rule, const std::string& file, const std::string& text) {
  const std::regex forbidden(rule.forbidden);
  Strings out;
  for (const std::string& include : includes_of(text))
    if (std::regex_match(include, forbidden)) out.push_back(file + " includes " + include + ": " + rule.name);
  return out;
}

bool is_source(const fs::path& path, bool headers_only) {
  const std::string ext = path.extension().string();
  return ext == ".h" || (!headers_only && (ext == ".cpp" || ext == ".inc"));
}

std::vector<fs::path> sources_in(const std::string& folder, bool headers_only) {
  const fs::path root = fs::path(QUANVAS_SOURCE_DIR) / folder;
  std::vector<fs::path> out;
  if (fs::is_regular_file(root)) return {root};
  if (!fs::is_directory(root)) return out;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file() && is_source(entry.path(), headers_only)) out.push_back(entry.path());
  return out;
}

std::string join(const Strings& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

TEST(Structure, IncludesKeepTheRules) {
  for (const Rule& rule : rules()) {
    SCOPED_TRACE(rule.name);
    std::size_t files = 0;
    for (const std::string& folder : rule.folders)
      for (const fs::path& file : sources_in(folder, rule.headers_only)) {
        ++files;
        const Strings found = violations(rule, fs::relative(file, QUANVAS_SOURCE_DIR).string(), read(file));
        EXPECT_TRUE(found.empty()) << join(found);
      }
    EXPECT_GT(files, 0u) << "the rule looks at nothing";
  }
}

TEST(Structure, EveryRuleCatchesItsPlantedViolation) {
  for (const Rule& rule : rules()) {
    SCOPED_TRACE(rule.name);
    EXPECT_EQ(violations(rule, "planted.cpp", std::string("#pragma once\n") + rule.planted + "\nint x;\n").size(), 1u);
    EXPECT_TRUE(violations(rule, "planted.cpp", std::string("// ") + rule.planted + "\n").empty()) << "a comment";
    EXPECT_TRUE(violations(rule, "fine.cpp", "#include <vector>\n#include \"core/base/result.h\"\n").empty());
  }
}

// Units of core/ and the units that each may include; the order of docs/architecture.md.
const std::map<std::string, std::set<std::string>>& units() {
  static const std::set<std::string> values = {"base", "graph", "recipe", "report"};
  const auto with = [](std::set<std::string> more) {
    more.insert(values.begin(), values.end());
    return more;
  };
  static const std::map<std::string, std::set<std::string>> table = {
      {"base", {"base"}},
      {"graph", {"base", "graph"}},
      {"recipe", {"base", "graph", "recipe"}},
      {"report", values},
      {"protocol", with({"protocol", "project", "workflow"})},
      {"quant", with({"quant"})},
      {"algorithms", with({"quant", "algorithms"})},
      {"data", with({"data", "plugin", "quant"})},
      {"plugin", with({"data", "quant", "plugin"})},
      {"project", with({"project"})},
      {"exec", with({"data", "quant", "algorithms", "plugin", "exec"})},
      {"workflow", with({"data", "quant", "algorithms", "plugin", "exec", "project", "workflow"})},
  };
  return table;
}

Strings unit_violations(const std::string& unit, const std::string& file, const std::string& text) {
  static const std::regex kUnit(R"(core/([a-z]+)/.*)");
  Strings out;
  const auto allowed = units().find(unit);
  for (const std::string& include : includes_of(text)) {
    std::smatch m;
    if (!std::regex_match(include, m, kUnit)) continue;
    if (allowed == units().end() || !allowed->second.count(m[1])) out.push_back(file + " includes " + include);
  }
  return out;
}

TEST(Structure, UnitsOfTheEngineSeeOnlyWhatStandsBelowThem) {
  for (const auto& entry : fs::directory_iterator(fs::path(QUANVAS_SOURCE_DIR) / "core")) {
    if (!entry.is_directory()) continue;
    const std::string unit = entry.path().filename().string();
    for (const fs::path& file : sources_in("core/" + unit, false)) {
      const Strings found = unit_violations(unit, fs::relative(file, QUANVAS_SOURCE_DIR).string(), read(file));
      EXPECT_TRUE(found.empty()) << join(found);
    }
  }
  EXPECT_EQ(unit_violations("graph", "planted.h", "#include \"core/recipe/recipe.h\"\n").size(), 1u);
  EXPECT_EQ(unit_violations("project", "planted.h", "#include \"core/workflow/workbench.h\"\n").size(), 1u);
  EXPECT_EQ(unit_violations("unknown", "planted.h", "#include \"core/base/json.h\"\n").size(), 1u);
  EXPECT_TRUE(unit_violations("workflow", "fine.cpp", "#include \"core/exec/runner.h\"\n").empty());
}

// --- what the binaries need -----------------------------------------------------------------------------

Strings needed_of(const std::string& readelf_output) {
  static const std::regex kNeeded(R"(\(NEEDED\)[^\[]*\[([^\]]+)\])");
  Strings out;
  for (std::sregex_iterator it(readelf_output.begin(), readelf_output.end(), kNeeded), end; it != end; ++it)
    out.push_back((*it)[1]);
  return out;
}

Strings forbidden_libraries(const Strings& needed, const char* pattern) {
  Strings out;
  for (const std::string& library : needed)
    if (std::regex_match(library, std::regex(pattern))) out.push_back(library);
  return out;
}

std::string readelf(const fs::path& binary) {
  const std::string command = "readelf -dW '" + binary.string() + "' 2>/dev/null";
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  pclose(pipe);
  return out;
}

constexpr const char* kTorchLibraries = R"(lib(torch|c10|caffe2|onnx).*)";
constexpr const char* kQtLibraries = R"(lib(Qt[0-9]|qcustomplot).*)";
constexpr const char* kEither = R"(lib(torch|c10|caffe2|onnx|Qt[0-9]|qcustomplot).*)";

struct BinaryRule {
  const char* file;
  const char* forbidden;
};
const BinaryRule kBinaries[] = {
    {"quanvas", kTorchLibraries},
    {"quanvas-cli", kEither},
    {"quanvas-engine", kEither},
    {"libquanvas_runtime.so", kQtLibraries},
};

TEST(Structure, BinariesNeedOnlyTheirOwnWorld) {
  std::size_t looked_at = 0;
  for (const BinaryRule& rule : kBinaries) {
    const fs::path binary = fs::path(QUANVAS_BINARY_DIR) / "bin" / rule.file;
    if (!fs::exists(binary)) continue;
    const Strings needed = needed_of(readelf(binary));
    if (needed.empty() && std::system("readelf --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "readelf (binutils) is not installed";
    ASSERT_FALSE(needed.empty()) << binary;
    EXPECT_TRUE(forbidden_libraries(needed, rule.forbidden).empty())
        << rule.file << " needs " << join(forbidden_libraries(needed, rule.forbidden));
    ++looked_at;
  }
  if (looked_at == 0) GTEST_SKIP() << "no binaries are built in " << QUANVAS_BINARY_DIR << "/bin";
}

TEST(Structure, BinaryRulesCatchPlantedLibraries) {
  const std::string output =
      " 0x0000000000000001 (NEEDED)             Shared library: [libtorch_cpu.so.1.13]\n"
      " 0x0000000000000001 (NEEDED)             Shared library: [libQt6Core.so.6]\n"
      " 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n"
      " 0x000000000000000e (SONAME)             Library soname: [libQt6Other.so]\n";
  const Strings needed = needed_of(output);
  ASSERT_EQ(needed.size(), 3u);
  EXPECT_EQ(forbidden_libraries(needed, kTorchLibraries), (Strings{"libtorch_cpu.so.1.13"}));
  EXPECT_EQ(forbidden_libraries(needed, kQtLibraries), (Strings{"libQt6Core.so.6"}));
  EXPECT_EQ(forbidden_libraries(needed, kEither).size(), 2u);
}

// --- texts ------------------------------------------------------------------------------------------------

// Paths of the machine on which something was built have no place in the sources.
Strings machine_paths(const std::string& file, const std::string& text) {
  static const std::regex kPath(R"((^|[^A-Za-z0-9_./])/(work|root|home/[a-z]+|tmp/b-[a-z]+)/)");
  Strings out;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (std::regex_search(line, kPath)) out.push_back(file + ":" + std::to_string(number) + ": " + line);
  }
  return out;
}

TEST(Structure, SourcesNameNoMachinePaths) {
  const std::set<std::string> kinds = {".h", ".cpp", ".inc", ".md", ".txt", ".cmake", ".json", ".yaml", ".js", ".proto", ".sh", ""};
  for (const char* folder : {"app", "cmake", "core", "docs", "packaging", "plugins", "resources", "widgets", "projects", "tests"}) {
    const fs::path root = fs::path(QUANVAS_SOURCE_DIR) / folder;
    if (!fs::is_directory(root)) continue;
    for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
      if (it->path().filename() == "node_modules") it.disable_recursion_pending();
      if (!it->is_regular_file() || !kinds.count(it->path().extension().string()) || it->file_size() > (1u << 20)) continue;
      const Strings found = machine_paths(fs::relative(it->path(), QUANVAS_SOURCE_DIR).string(), read(it->path()));
      EXPECT_TRUE(found.empty()) << join(found);
    }
  }
  EXPECT_EQ(machine_paths("planted", std::string("see /") + "work/main/core").size(), 1u);
  EXPECT_EQ(machine_paths("planted", std::string("\"/") + "home/someone/x\"").size(), 1u);
  EXPECT_TRUE(machine_paths("fine", "build/work/x and /usr/share/quanvas and ~/.local").empty());
}

}  // namespace
