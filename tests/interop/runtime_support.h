// onnxruntime and our executor on the same files, for the tests of tests/interop.
#pragma once

#include <sys/wait.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "core/base/files.h"
#include "core/exec/runner.h"
#include "core/plugin/registry.h"

namespace quanvas::interop {

namespace fs = std::filesystem;
constexpr int kNotInstalled = 77;

struct NamedInput {
  std::string name;
  at::Tensor tensor;
};

struct Job {
  std::string name, model;  // the model's path
  std::vector<NamedInput> inputs;
};

struct Answer {
  std::string error;  // onnxruntime's, when it cannot run the model
  std::vector<at::Tensor> outputs;
};

inline const char* js_type(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "float64";
    case at::kChar:
      return "int8";
    case at::kByte:
      return "uint8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    case at::kBool:
      return "bool";
    default:
      return "float32";
  }
}

inline DataType type_of_js(const std::string& type) {
  for (int t = 1; t < 17; ++t)
    if (type == type_name(static_cast<DataType>(t))) return static_cast<DataType>(t);
  return DataType::kUndefined;
}

class RuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-runtime-" + std::to_string(getpid()));
    fs::create_directories(folder_);
    if (std::system("node --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "node is not installed";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // One answer per job; none when onnxruntime is not installed.
  std::vector<Answer> onnxruntime(const std::vector<Job>& jobs) {
    json list = json::array();
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      json inputs = json::object();
      for (std::size_t k = 0; k < jobs[i].inputs.size(); ++k) {
        const at::Tensor t = jobs[i].inputs[k].tensor.contiguous();
        const std::string file = path("in" + std::to_string(i) + "_" + std::to_string(k));
        std::ofstream(file, std::ios::binary)
            .write(static_cast<const char*>(t.data_ptr()), static_cast<std::streamsize>(t.nbytes()));
        inputs[jobs[i].inputs[k].name] = {
            {"type", js_type(t.scalar_type())}, {"dims", t.sizes().vec()}, {"file", file}};
      }
      list.push_back({{"model", jobs[i].model}, {"out", path("out" + std::to_string(i))}, {"inputs", inputs}});
    }
    std::ofstream(path("jobs.json")) << list.dump();
    const std::string command =
        "node '" QUANVAS_SOURCE_DIR "/tests/interop/run_many.js' '" + path("jobs.json") + "' 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    const int status = pclose(pipe);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotInstalled) return {};
    const auto start = text.find("{\"results\"");
    EXPECT_NE(start, std::string::npos) << text;
    if (start == std::string::npos) return {};
    std::vector<Answer> answers;
    const json parsed = json::parse(text.substr(start));
    for (const json& r : parsed["results"]) {
      Answer a;
      a.error = r.value("error", "");
      if (a.error.empty())
        for (const json& o : r["outputs"]) {
          const auto bytes = read_file(o["file"].get<std::string>());
          const Shape shape = o["dims"].get<Shape>();
          a.outputs.push_back(
              exec::to_tensor(TensorData::copy_of(type_of_js(o["type"]), shape, bytes->data(), bytes->size())));
        }
      answers.push_back(std::move(a));
    }
    return answers;
  }

  // The job through our importer and executor.
  static Result<std::vector<at::Tensor>> quanvas(const Job& job) {
    JobContext context;
    QUANVAS_TRY(Model model, import_model(job.model, context));
    QUANVAS_TRY(const auto runner, exec::Runner::create(std::make_shared<const Model>(std::move(model)), nullptr));
    std::vector<at::Tensor> inputs;
    for (const TensorId id : runner->graph().inputs())
      for (const NamedInput& i : job.inputs)
        if (i.name == runner->graph().tensor(id).name) inputs.push_back(i.tensor);
    return runner->run(inputs);
  }

  fs::path folder_;
};

// max |a - b| / max |b|; integers: 0 or 1.
inline double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return 1e9;
  if (a.numel() == 0) return 0;
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (!b.is_floating_point()) return at::equal(x, y) ? 0 : 1;
  const at::Tensor same = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
  const at::Tensor difference = at::where(same, at::zeros_like(x), (x - y).abs());
  const double scale = at::where(y.isfinite(), y.abs(), at::zeros_like(y)).max().item().toDouble();
  const double most = difference.max().item().toDouble();
  return std::isnan(most) ? 1e9 : most / std::max(scale, 1e-30);
}

}  // namespace quanvas::interop
