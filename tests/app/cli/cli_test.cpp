// The command line as a user meets it: the program is run, its output, its exit code and its time are looked at.
#include "tests/app/cli/workflow.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

TEST_F(Program, HelpAndVersionAnswerWithoutLoadingTheEngine) {
  for (const auto& program : {kCli, kEngine})
    for (const char* flag : {"--help", "--version"}) {
      const Answer answer = run({flag}, program);
      EXPECT_EQ(answer.code, 0) << program << flag;
      EXPECT_LT(answer.cpu_seconds, 0.1) << program << flag;
      EXPECT_GT(answer.out.size(), 20u);
    }
  const std::string version = run({"--version"}).out;
  for (const char* part : {"quanvas-cli ", "LibTorch ", "gRPC ", "protobuf ", "ONNX ", "SQLite "})
    EXPECT_THAT(version, HasSubstr(part));
}

TEST_F(Program, EverySubcommandHasHelp) {
  for (const char* verb : {"info", "open", "new", "data", "calibrate", "quantize", "run", "evaluate", "train", "sweep",
                           "compare", "export", "dump", "runs", "recipe", "check", "tensor", "presets", "trust", "targets", "catalog"})
    EXPECT_EQ(run({verb, "--help"}).code, 0) << verb;
}

struct BadRow {
  std::vector<std::string> arguments;
  int code;
  const char* says;
};
TEST_F(Program, SaysWhatIsWrong) {
  write("text.onnx", "this is no model");
  write("empty.onnx", "");
  write("broken.quanvas", "SQLite format 3");
  const BadRow rows[] = {
      {{}, 2, "subcommand"},
      {{"fly"}, 2, "subcommand"},
      {{"info"}, 2, "path is required"},
      {{"info", "a.onnx", "--device", "tpu"}, 2, "--device"},
      {{"info", "a.onnx", "--threads", "-1"}, 2, "--threads"},
      {{"quantize", "a.onnx", "--weights", "17"}, 2, "--weights"},
      {{"quantize", "a.onnx", "--samples", "-5"}, 2, "-5 is too small; the least is 0"},
      {{"quantize", "a.onnx", "--weights", "4", "--recipe", "r"}, 2, "--recipe"},
      {{"export", "a.onnx"}, 2, "--target"},
      {{"compare", "a.onnx", "1"}, 2, "b is required"},
      {{"new", "a.onnx"}, 2, "--project"},
      {{"data", "a.onnx", "--images", "x"}, 2, "--reader"},
      {{"info", "missing.onnx"}, 3, "missing.onnx"},
      {{"info", "text.onnx"}, 5, "text.onnx' is not an ONNX file."},
      {{"info", "empty.onnx"}, 5, "empty.onnx"},
      {{"info", "broken.quanvas"}, 5, "broken.quanvas"},
  };
  for (const auto& row : rows) {
    const Answer answer = run(row.arguments);
    std::string command;
    for (const auto& argument : row.arguments) command += argument + " ";
    EXPECT_EQ(answer.code, row.code) << command << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(row.says)) << command;
  }
}

TEST_F(Program, FailuresAreJsonToo) {
  const Answer answer = run({"info", "missing.onnx", "--json"});
  const json value = json::parse(answer.out, nullptr, false);
  ASSERT_TRUE(value.contains("error")) << answer.out;
  EXPECT_EQ(value["error"]["code"], "not-found");
}

TEST_F(Program, TheCatalogListsPlugInsPresetsAndRecipes) {
  const json catalog = run_json({"catalog"});
  for (const char* kind : {"importers", "formats", "passes", "exporters", "datasets", "presets", "recipes"})
    EXPECT_TRUE(catalog.contains(kind) && !catalog[kind].empty()) << kind;
}

TEST_F(Program, PresetsAreListedAndFiltered) {
  const json all = run_json({"presets"});
  ASSERT_EQ(all.size(), run_json({"catalog"})["presets"].size());
  const json some = run_json({"presets", "--filter", "MXINT8"});
  EXPECT_GT(some.size(), 0u);
  EXPECT_LT(some.size(), all.size() / 4);
  for (const auto& p : some) {
    std::string text = p["id"].get<std::string>() + p["title"].get<std::string>() + p["doc"].get<std::string>() + p["group"].get<std::string>();
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    EXPECT_THAT(text, HasSubstr("mxint8"));
  }
  const Answer table = run({"presets", "--filter", "gguf-q4_k"});
  EXPECT_EQ(table.code, 0) << table.err;
  for (const std::string& part : {std::string("gguf-q4_k"), std::string("Integer 4 bit unsigned"), "1 of " + std::to_string(all.size()) + " presets"})
    EXPECT_THAT(table.out, HasSubstr(part));
  const Answer none = run({"presets", "--filter", "no such thing"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("No preset contains 'no such thing'. Closest: "));
}

TEST_F(Program, TrustIsListedAndTakenBack) {
  EXPECT_EQ(run({"trust"}).out, "No file's code is trusted.\n");
  fs::create_directories(folder_ / "data" / "quanvas");
  std::ofstream(folder_ / "data" / "quanvas" / "trusted-models")
      << std::string(64, 'a') << "\n" << std::string(64, 'b') << "\t2026-03-01T12:34:56Z\t/models/b.ts\n";
  const json all = run_json({"trust"});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1], (json{{"hash", std::string(64, 'b')}, {"since", "2026-03-01T12:34:56Z"}, {"path", "/models/b.ts"}}));
  EXPECT_THAT(run({"trust"}).out, HasSubstr("/models/b.ts"));
  const Answer unknown = run({"trust", "--revoke", "/models/c.ts"});
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("'/models/c.ts' is not among the files whose code is trusted."));
  EXPECT_EQ(run({"trust", "--revoke", "/models/b.ts"}).code, 0);
  EXPECT_EQ(run_json({"trust"}).size(), 1u);
  EXPECT_EQ(run({"trust", "--revoke-all"}).code, 0);
  EXPECT_EQ(run_json({"trust"}).size(), 0u);
}

TEST_F(Program, AnUnknownPresetNamesTheClosestAndNotAll) {
  const Answer tensor = run({"tensor", "--spec", "int8-wieght-per-tensor", "--in", "x.npy"});
  EXPECT_EQ(tensor.code, 3);
  EXPECT_THAT(tensor.err, HasSubstr("Closest: int8-weight-per-tensor, "));
  EXPECT_THAT(tensor.err, HasSubstr("'quanvas-cli presets' lists all "));
  EXPECT_LT(tensor.err.size(), 300u);
}

TEST_F(Program, TheEngineRefusesBadAddressesAndAParentThatIsGone) {
  EXPECT_EQ(run({}, kEngine).code, 2);
  EXPECT_EQ(run({"--listen", "tcp:1"}, kEngine).code, 2);
  EXPECT_EQ(run({"--listen", "unix:" + (folder_ / "s").string(), "--with-parent", "4194305"}, kEngine).code, 3);
}

TEST_F(Program, TheEngineEndsWithItsParentAndRemovesItsSocket) {
  const auto socket = folder_ / "engine.sock";
  const pid_t parent = begin("/bin/sleep", {"600"});
  const pid_t engine =
      begin(kEngine, {"--listen", "unix:" + socket.string(), "--with-parent", std::to_string(parent)});
  for (int i = 0; i < 1200 && !fs::exists(socket); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(fs::exists(socket)) << slurp(folder_ / "err");
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_EQ(end(engine).code, 0);
  EXPECT_FALSE(fs::exists(socket));
}

TEST_F(Workflow, FromModelToExport) {
  const json info = run_json({"info", "p.quanvas"});
  EXPECT_EQ(info["nodes"].size(), 4u);
  EXPECT_EQ(info["state"]["data_status"]["evaluation_samples"], 64.0);
  EXPECT_EQ(info["nodes"][0]["parameters"], 40.0);

  EXPECT_EQ(run_json({"calibrate", "p.quanvas", "--samples", "32"})["calibrated"], true);
  const json quantized = run_json({"quantize", "p.quanvas", "--weights", "4", "--activations", "8", "--keep"});
  EXPECT_EQ(quantized["id"], 1);
  EXPECT_EQ(quantized["recipe"]["calibration"]["samples"], 32);
  EXPECT_EQ(quantized["accuracy"]["samples"], 64.0);
  const json coarse = run_json({"quantize", "p.quanvas", "--weights", "2", "--activations", "2", "--name", "coarse"});
  EXPECT_EQ(coarse["name"], "coarse");
  EXPECT_LT(coarse["accuracy"]["output_sqnr_db"].get<double>(), quantized["accuracy"]["output_sqnr_db"].get<double>());
  EXPECT_EQ(run_json({"evaluate", "p.quanvas", "--samples", "16"})["accuracy"]["samples"], 16.0);
  EXPECT_EQ(run_json({"runs", "p.quanvas"}).size(), 3u);
  EXPECT_LT(run_json({"compare", "p.quanvas", "1", "2"})["bytes_delta"].get<double>(), 0);
  const json equalized = run_json({"quantize", "p.quanvas", "--weights", "4", "--activations", "8", "--pass", "equalize:iterations=2,range=width",
                                   "--pass", "bias-correction"});
  EXPECT_EQ(equalized["passes"][1]["id"], "equalize");
  EXPECT_EQ(equalized["recipe"]["passes"][1]["options"]["iterations"], 2);
  EXPECT_EQ(equalized["passes"][2]["id"], "bias-correction");
  EXPECT_EQ(run({"quantize", "p.quanvas", "--pass", "equalise"}).code, 3);
  EXPECT_NE(run({"quantize", "p.quanvas", "--pass", "equalize:rounds=3"}).err.find("has no option 'rounds'"), std::string::npos);
  EXPECT_NE(run({"quantize", "p.quanvas", "--pass", "equalize:iterations"}).err.find("--pass equalize:iterations"), std::string::npos);

  const json swept = run_json({"sweep", "p.quanvas", "--bits", "8,2", "--layers", "fc"});
  EXPECT_EQ(swept["sweep"]["cells"].size(), 2u);
  EXPECT_EQ(run({"sweep", "p.quanvas", "--layers", "nothing*"}).code, 3);
  const json rounded = run_json({"sweep", "p.quanvas", "--bits", "2", "--layers", "fc", "--pass", "gptq:act_order=true"});
  EXPECT_EQ(rounded["sweep"]["settings"]["passes"][0]["id"], "gptq");
  EXPECT_GT(rounded["sweep"]["cells"][0]["layer_sqnr_db"].get<double>(), swept["sweep"]["cells"][1]["layer_sqnr_db"].get<double>());
  EXPECT_EQ(run({"sweep", "p.quanvas", "--pass", "equalize"}).code, 2);

  const json checked = run_json({"check", "p.quanvas", "--weights", "4", "--activations", "8", "--pass", "gptq"});
  EXPECT_NE(checked[0]["issue"]["message"].get<std::string>().find("second moments"), std::string::npos);
  const Answer refused = run({"check", "p.quanvas", "--weights", "0", "--activations", "8", "--pass", "gptq"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.out.find("error: gptq: No layer has a quantized weight"), std::string::npos) << refused.out;

  const json report = run_json({"export", "p.quanvas", "--target", "onnx-qdq", "--out", "q.onnx"});
  EXPECT_GT(fs::file_size(folder_ / "q.onnx"), 100u);
  EXPECT_FALSE(report["audit"].empty());
  for (const auto& row : report["audit"]) EXPECT_EQ(row["equal"], true) << row;
  EXPECT_EQ(run({"export", "p.quanvas", "--target", "nowhere", "--out", "x"}).code, 3);

  EXPECT_EQ(run({"recipe", "p.quanvas", "--out", "r.yaml"}).code, 0);
  EXPECT_EQ(run({"run", "r.yaml", "p.quanvas", "--no-evaluate"}).code, 0);
  EXPECT_EQ(run({"compare", "p.quanvas", "1", "99"}).code, 3);
}

TEST_F(Workflow, AProjectBelongsToOneModel) {
  const std::string before = slurp(folder_ / "p.quanvas");
  write("other.net.yaml", slurp(folder_ / "tiny.net.yaml") + "  - {op: relu, name: last}\n");
  const BadRow rows[] = {
      {{"new", "p.quanvas", "--project", "q.quanvas", "--recipe", "w4a4"}, 2, "is a project already"},
      {{"info", "p.quanvas", "--project", "q.quanvas"}, 2, "is a project already"},
      {{"quantize", "other.net.yaml", "--project", "p.quanvas", "--weights", "4"}, 2, "the project of another model"},
  };
  for (const auto& row : rows) {
    const Answer answer = run(row.arguments);
    EXPECT_EQ(answer.code, row.code) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(row.says));
  }
  EXPECT_FALSE(fs::exists(folder_ / "q.quanvas"));
  EXPECT_TRUE(slurp(folder_ / "p.quanvas") == before);
  EXPECT_EQ(run({"info", "tiny.net.yaml", "--project", "p.quanvas"}).code, 0);
  fs::create_symlink(folder_, folder_ / "link");
  EXPECT_EQ(run({"info", "link/tiny.net.yaml", "--project", "link/p.quanvas"}).code, 0) << "the same by another way";
}

TEST_F(Workflow, InputShapesAreGivenOnceAndKept) {
  // y = Relu(x) with x [N, T], as ONNX.
  const std::string bytes(
    "\010\010\072\105\012\022\012\001\170\022\001\171\032\004\162\145\154\165\042\004\122\145\154\165"
    "\022\001\147\132\025\012\001\170\022\020\012\016\010\001\022\012\012\003\022\001\116\012\003\022"
    "\001\124\142\025\012\001\171\022\020\012\016\010\001\022\012\012\003\022\001\116\012\003\022\001"
    "\124\102\002\020\015", 77);
  std::ofstream(folder_ / "open.onnx", std::ios::binary) << bytes;
  const auto shape_of = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"info", "open.onnx"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Answer answer = run(arguments);
    EXPECT_EQ(answer.code, 0) << answer.err;
    const auto at = answer.out.find("x float32 ");
    return at == std::string::npos ? answer.out : answer.out.substr(at + 10, answer.out.find('\n', at) - at - 10);
  };
  EXPECT_EQ(shape_of({}), "?×?");
  EXPECT_EQ(shape_of({"--shape", "x=?,24"}), "?×24");
  EXPECT_EQ(shape_of({}), "?×24");
  EXPECT_EQ(shape_of({"--shape", "x=?x7"}), "?×7");
  EXPECT_EQ(shape_of({"--shape", "x=?,?"}), "?×?");
  struct Row {
    const char* given;
    int code;
    const char* sentence;
  };
  for (const Row& row : {Row{"x=1,2,3", 2, "The input 'x' cannot be 1×2×3: the file gives it 2 dimensions."},
                         Row{"z=1,2", 3, "The model has no input 'z'. Its inputs are: x (?,?)."},
                         Row{"x=1,two", 2, "--shape x=1,two: 'two' is not a dimension."},
                         Row{"1,2", 2, "--shape 1,2: it names no input."},
                         Row{"x=1,99999999999999999999", 2, "'99999999999999999999' is not a dimension"}}) {
    const Answer answer = run({"info", "open.onnx", "--shape", row.given});
    EXPECT_EQ(answer.code, row.code) << row.given;
    EXPECT_THAT(answer.err, testing::HasSubstr(row.sentence));
  }
  EXPECT_EQ(shape_of({}), "?×?");
}

TEST_F(Workflow, TrainsAFloatNetworkAndAQuantizedOne) {
  const json trained = run_json({"train", "p.quanvas", "--float", "--out", "t.onnx", "--epochs", "2", "--batch", "16",
                                 "--option", "validation_samples=16"});
  EXPECT_FALSE(trained["curve"].empty());
  EXPECT_GT(fs::file_size(folder_ / "t.onnx"), 100u);
  const json run_value = run_json({"train", "p.quanvas", "--weights", "4", "--activations", "4", "--epochs", "1",
                                   "--batch", "16", "--option", "validation_samples=16"});
  EXPECT_FALSE(run_value["curve"].empty());
  EXPECT_EQ(run({"train", "p.quanvas", "--option", "nonsense=1"}).code, 2);
}

TEST_F(Workflow, TablesHaveUnitsAndTheProgressIsNotInThem) {
  const Answer info = run({"info", "p.quanvas"});
  for (const char* part : {"conv1", "Conv", "MACs", "params", "parameters", "noise: 64 calibrate"})
    EXPECT_THAT(info.out, HasSubstr(part));
  const Answer quantized = run({"quantize", "p.quanvas", "--weights", "8", "--activations", "8"});
  EXPECT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_THAT(quantized.out, HasSubstr("SQNR (dB)"));
  EXPECT_THAT(quantized.err, HasSubstr("%"));
  EXPECT_TRUE(run({"quantize", "p.quanvas", "--weights", "8", "--quiet"}).err.find(" % ") == std::string::npos);
}

TEST_F(Workflow, SharedAndDynamicQuantizersComeFromARecipeFile) {
  write("r.yaml",
        "name: mixed\nrules:\n"
        "  - {select: {sites: [weight]}, share: all weights, set: {bits: 6}}\n"
        "  - {select: {kinds: [compute], sites: [input]}, set: {source: dynamic, granularity: row}}\n"
        "  - {select: {names: [conv1], sites: [input]}, set: {batches: ema, statistic: minmax}}\n");
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "r.yaml"}).code, 0);
  EXPECT_THAT(run({"info", "p.quanvas"}).out, HasSubstr("W6 (shared: all weights)"));
  int shared = 0;
  const json info = run_json({"info", "p.quanvas"});
  for (const auto& node : info["nodes"]) shared += node.value("weight_share", "") == "all weights";
  EXPECT_EQ(shared, 2);
  EXPECT_THAT(run({"recipe", "p.quanvas"}).out, HasSubstr("share: all weights"));
  const Answer quantized = run({"quantize", "p.quanvas"});
  EXPECT_EQ(quantized.code, 0) << quantized.err;
  const Answer exported = run({"export", "p.quanvas", "--target", "onnx-qdq", "--out", "q.onnx"});
  EXPECT_NE(exported.code, 0);
  EXPECT_THAT(exported.out + exported.err, HasSubstr("found from each sample at run time"));
}

TEST_F(Workflow, ATargetsRepairsAreMadeAndTheReportIsKept) {
  write("r.yaml",
        "name: odd\nrules:\n"
        "  - {select: {kinds: [compute], sites: [weight]}, set: {bits: 4, zero_point: float, zero_point_inside: true, statistic: minmax}}\n"
        "  - {select: {kinds: [compute], sites: [input]}, set: {source: dynamic, granularity: row}}\n");
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "r.yaml"}).code, 0);
  const Answer refused = run({"export", "p.quanvas", "--target", "onnx-qdq", "--check"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_THAT(refused.out, HasSubstr("zero point"));
  const Answer as_json = run({"export", "p.quanvas", "--target", "onnx-qdq", "--check", "--json"});
  EXPECT_EQ(as_json.code, 4);
  EXPECT_TRUE(json::accept(as_json.out)) << "one document, whatever became of it: " << as_json.out;
  EXPECT_THAT(as_json.err, HasSubstr("refuses"));
  ASSERT_EQ(run({"calibrate", "p.quanvas"}).code, 0);
  const Answer mended = run({"export", "p.quanvas", "--target", "onnx-qdq", "--fix"});
  EXPECT_EQ(mended.code, 0) << mended.out << mended.err;
  EXPECT_THAT(mended.out, HasSubstr("takes everything"));
  const json quantized = run_json({"quantize", "p.quanvas"});
  const std::string id = std::to_string(quantized["id"].get<int>());
  const json report = run_json({"export", "p.quanvas", "--target", "onnx-qdq", "--run", id, "--out", "q.onnx"});
  ASSERT_FALSE(report["nodes"].empty());
  for (const auto& node : report["nodes"]) EXPECT_EQ(node["differing"], 0) << node;
  EXPECT_EQ(report["first_difference"], -1);
  EXPECT_EQ(report["file"]["top1"], report["screen"]["top1"]);
  EXPECT_GT(report["float_bytes"].get<double>(), report["ideal_bytes"].get<double>());
  EXPECT_EQ(report["exactness"], "model");
  EXPECT_THAT(run({"runs", "p.quanvas", "--run", id}).out, HasSubstr("/q.onnx, ")) << "where it is, whatever folder one looks from";
}

// Scales that are rounded on request: the run, its JSON and the report that is kept all say that it is near only.
TEST_F(Workflow, AFileThatIsNearByConstructionSaysSo) {
  write("r.yaml", "name: blocks\nrules:\n  - {select: {ops: [Gemm], sites: [weight]}, set: {bits: 4, granularity: group, group_size: 32}}\n");
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "r.yaml"}).code, 0);
  const json quantized = run_json({"quantize", "p.quanvas"});
  const std::string id = std::to_string(quantized["id"].get<int>());
  const auto exported = [&](const std::string& scales, const char* file, bool as_json) {
    std::vector<std::string> words = {"export", "p.quanvas", "--target", "gguf", "--option", "scales=" + scales, "--run", id, "--out", file};
    if (as_json) words.push_back("--json");
    return run(words);
  };
  const Answer near = exported("round", "near.gguf", true);
  ASSERT_EQ(near.code, 0) << near.out << near.err;
  EXPECT_EQ(json::parse(near.out)["exactness"], "near");
  const Answer words = exported("round", "words.gguf", false);
  EXPECT_THAT(words.out, HasSubstr("Exactness: near, not the screen's arithmetic by construction"));
  const Answer kept = run({"runs", "p.quanvas", "--run", id});
  EXPECT_THAT(kept.out, HasSubstr("near.gguf"));
  EXPECT_THAT(kept.out, HasSubstr("exactness near"));
}

TEST_F(Workflow, ARecipeIsChangedOnlyForATargetThatTakesAllOfIt) {
  const auto recipe = [&] { return run({"recipe", "p.quanvas"}).out; };
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "w8a8"}).code, 0);
  ASSERT_EQ(run({"calibrate", "p.quanvas"}).code, 0);
  const std::string before = recipe();
  // AWQ packs linear layers of eight outputs and more: all would be float.
  const Answer awq = run({"export", "p.quanvas", "--target", "awq", "--fix"});
  EXPECT_EQ(awq.code, 4) << awq.out << awq.err;
  EXPECT_EQ(recipe(), before);
  const Answer both = run({"export", "p.quanvas", "--target", "awq", "--fix", "--check"});
  EXPECT_EQ(both.code, 2) << "one of the two";
  // The DPU takes it mended, and the recipe says that it was.
  const Answer dpu = run({"export", "p.quanvas", "--target", "pyxir", "--fix"});
  EXPECT_EQ(dpu.code, 0) << dpu.out << dpu.err;
  EXPECT_THAT(recipe(), HasSubstr("fit for pyxir"));
}

TEST_F(Workflow, ARunIsCheckedWithItsOwnRecipe) {
  const json run8 = run_json({"run", "w8a8", "p.quanvas"});
  const std::string id = std::to_string(run8["id"].get<int>());
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "dpu-int8"}).code, 0);
  EXPECT_EQ(run({"export", "p.quanvas", "--target", "pyxir", "--check"}).code, 0);
  EXPECT_EQ(run({"export", "p.quanvas", "--target", "pyxir", "--check", "--run", id}).code, 4);
  EXPECT_EQ(run({"export", "p.quanvas", "--target", "pyxir", "--fix", "--run", id}).code, 2);
  EXPECT_EQ(run({"export", "p.quanvas", "--target", "pyxir", "--check", "--run", "999"}).code, 3);
}

TEST_F(Workflow, NothingElseIsReplaced) {
  ASSERT_EQ(run({"recipe", "p.quanvas", "--set", "w8a8"}).code, 0);
  ASSERT_EQ(run({"calibrate", "p.quanvas"}).code, 0);
  write("config.json", "{}");
  for (const char* out : {"other.quanvas", "net.txt", "net", "/dev/null", "none/x.npz"}) {
    const Answer answer = run({"export", "p.quanvas", "--target", "npz", "--out", out});
    EXPECT_NE(answer.code, 0) << out;
    EXPECT_THAT(answer.err, HasSubstr(std::string(out).substr(0, 4)));
  }
  const Answer beside = run({"export", "p.quanvas", "--target", "compressed-tensors", "--fix"});
  ASSERT_EQ(beside.code, 0) << beside.out << beside.err;
  const Answer taken = run({"export", "p.quanvas", "--target", "compressed-tensors", "--out", "a.safetensors"});
  EXPECT_EQ(taken.code, 2) << taken.out;
  EXPECT_THAT(taken.err, HasSubstr("config.json"));
}

TEST_F(Program, TargetsSayWhatTheyTake) {
  const json all = run_json({"targets"});
  ASSERT_GT(all.size(), 1u);
  for (const auto& target : all) EXPECT_FALSE(target["id"].get<std::string>().empty());
  const json one = run_json({"targets", "--target", "onnx-qdq"});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_FALSE(one[0]["rows"].empty());
  EXPECT_THAT(run({"targets"}).out, HasSubstr("onnx-qdq"));
  EXPECT_THAT(run({"targets", "--markdown"}).out, HasSubstr("(`onnx-qdq`)"));
  EXPECT_EQ(run({"targets", "--target", "nowhere"}).code, 3);
}

TEST_F(Workflow, DataFilesMayBeYamlAndTheirMistakesAreNamed) {
  write("data.yaml",
        "name: from file\ncalibrate: {reader: idx, options: {images: images.idx}}\n"
        "preprocessing: {scale: 0.5, mean: [1], layout: nchw}\n");
  const json data = run_json({"data", "p.quanvas", "--data-file", "data.yaml"});
  EXPECT_EQ(data["data"]["preprocessing"]["scale"], 0.5);
  EXPECT_EQ(data["data"]["calibrate"]["options"]["images"], (folder_ / "images.idx").string());
  struct Row {
    const char* text;
    int code;
    const char* says;
  };
  const Row rows[] = {{"name: [", 5, "bad.yaml:"},
                      {"nam: x", 2, "Unknown key 'nam'"},
                      {"name: x\nname: y", 2, "bad.yaml:2: the key 'name' stands here a second time"},
                      {"name: x\npreprocessing:\n  scale: big\n", 2, "bad.yaml:3: 'preprocessing.scale' must be a number"}};
  for (const auto& row : rows) {
    write("bad.yaml", row.text);
    const Answer answer = run({"data", "p.quanvas", "--data-file", "bad.yaml"});
    EXPECT_EQ(answer.code, row.code) << row.text << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(row.says));
  }
  EXPECT_EQ(run({"data", "p.quanvas", "--reader", "idx", "--images", "images.idx"}).code, 2);
  EXPECT_EQ(run({"data", "p.quanvas", "--reader", "tape", "--split", "train"}).code, 3);
}

TEST_F(Workflow, DataThatCannotBeReadAreNotDeclared) {
  const json before = run_json({"data", "p.quanvas"})["data"];
  write("short.idx", "short");
  fs::create_directory(folder_ / "elsewhere");
  const BadRow rows[] = {
      {{"data", "p.quanvas", "--reader", "idx", "--images", "missing.idx", "--split", "calibrate,evaluate"}, 3, "missing.idx"},
      {{"data", "p.quanvas", "--reader", "idx", "--images", "short.idx", "--split", "calibrate,evaluate"}, 5, "--force"},
  };
  for (const auto& row : rows) {
    const Answer answer = run(row.arguments);
    EXPECT_EQ(answer.code, row.code) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(row.says));
    EXPECT_EQ(run_json({"data", "p.quanvas"})["data"], before);
  }
  auto forced = rows[0].arguments;
  forced.push_back("--force");
  EXPECT_EQ(run(forced).code, 0);
  const json after = run_json({"data", "p.quanvas"});
  EXPECT_EQ(after["data"]["evaluate"]["options"]["images"], (folder_ / "missing.idx").string());
  const Answer evaluated = run({"evaluate", "p.quanvas"});
  EXPECT_EQ(evaluated.code, 3) << evaluated.err;
  const auto first = evaluated.err.find("There is no file");
  EXPECT_NE(first, std::string::npos) << evaluated.err;
  EXPECT_EQ(evaluated.err.find("There is no file", first + 1), std::string::npos) << evaluated.err;
}

TEST_F(Workflow, AStoppedTrainingIsStoredAndEndsAsStopped) {
  const pid_t pid = begin(kCli, {"train", "p.quanvas", "--weights", "4", "--activations", "4", "--epochs", "1000", "--batch", "2",
                                 "--option", "validation_samples=16"});
  for (int i = 0; i < 1200 && slurp(folder_ / "err").find("epoch 2") == std::string::npos; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(pid, SIGINT);
  const Answer answer = end(pid);
  EXPECT_EQ(answer.code, 130) << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("training stopped early"));
  EXPECT_EQ(run_json({"runs", "p.quanvas"}).size(), 1u);
}

TEST_F(Workflow, CtrlCStopsCleanly) {
  const pid_t pid = begin(kCli, {"train", "p.quanvas", "--float", "--out", "t.onnx", "--epochs", "1000", "--batch", "2",
                                 "--option", "validation_samples=16"});
  for (int i = 0; i < 1200 && slurp(folder_ / "err").find("train") == std::string::npos; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(pid, SIGINT);
  const Answer answer = end(pid);
  EXPECT_THAT(answer.err, HasSubstr("Stopping"));
  EXPECT_TRUE(answer.code == 0 || answer.code == 130) << answer.code << answer.err;
  EXPECT_EQ(run({"info", "p.quanvas"}).code, 0);
}

}  // namespace
}  // namespace quanvas
