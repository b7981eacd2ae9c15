// Quanvas - a workbench on a small network with made-up data, for the tests of the verbs.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "core/plugin/registry.h"
#include "core/workflow/workbench.h"

namespace quanvas::testing {
namespace fs = std::filesystem;

inline constexpr const char* kNetwork = R"(name: tiny
seed: 3
input: [1, 8, 8]
layers:
  - {op: conv, name: conv1, out: 4, kernel: 3, pad: 1}
  - {op: batchnorm, name: bn1}
  - {op: relu, name: relu1}
  - {op: maxpool, name: pool1, kernel: 2}
  - {op: flatten, name: flat}
  - {op: linear, name: fc1, out: 3}
)";

// 96 pictures of 8x8: the class is where the bright bar lies; learnable, and not separable by one pixel.
inline void write_data(const fs::path& dir) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> noise(0, 0.3f);
  std::ofstream data(dir / "x.raw", std::ios::binary), labels(dir / "y.raw", std::ios::binary);
  for (int i = 0; i < 96; ++i) {
    const int label = i % 3;
    float picture[64];
    for (int p = 0; p < 64; ++p) picture[p] = noise(random) + (p / 8 / 3 == label ? 0.7f : 0.0f);
    data.write(reinterpret_cast<const char*>(picture), sizeof picture);
    labels.put(static_cast<char>(label));
  }
}

inline DataSettings data_settings() {
  DataSettings d;
  d.name = "bars";
  DataSource source;
  source.reader = "raw";
  source.options = {{"data", "x.raw"}, {"labels", "y.raw"}, {"type", "float32"}, {"shape", "1x8x8"}};
  d.calibrate = d.train = d.evaluate = source;
  return d;
}

// As on a full disk, no file can be written while this lives.
class FullDisk {
 public:
  FullDisk() {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit none{0, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

class WorkbenchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("quanvas-workbench-" + std::to_string(::getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    std::ofstream(dir_ / "tiny.net.yaml") << kNetwork;
    write_data(dir_);
  }
  void TearDown() override {
    bench_.reset();
    fs::remove_all(dir_);
  }

  void open(int threads = 2) { open_file(dir_ / "tiny.net.yaml", data_settings(), threads); }

  // A network built by the test, on the same data in another shape of a sample.
  void open_model(const ModelPtr& model, const std::string& sample_shape) {
    const fs::path file = dir_ / "model.onnx";
    const Exporter* exporter = Registry<Exporter>::instance().find("onnx");
    QuantizedModel network;
    network.model = model;
    auto written = exporter->write(network, file.string(), exporter->schema().defaults(), job_);
    ASSERT_TRUE(written) << written.error().text();
    DataSettings data = data_settings();
    for (DataSource* source : {&data.calibrate, &data.train, &data.evaluate}) source->options["shape"] = sample_shape;
    open_file(file, data, 2);
  }

  void open_file(const fs::path& file, const DataSettings& data, int threads) {
    bench_.reset();
    EngineOptions options;
    options.threads = threads;
    auto bench = Workbench::open(file.string(), options, job_, (dir_ / "tiny.quanvas").string());
    ASSERT_TRUE(bench) << bench.error().text();
    bench_ = std::move(*bench);
    auto state = bench_->set_data(data);
    ASSERT_TRUE(state) << state.error().text();
    ASSERT_TRUE(state->data_status.can_evaluate) << state->data_status.problem;
  }

  NodeId node(const std::string& name) const {
    const Node* n = bench_->graph()->find(name);
    return n ? n->id : kNoNode;
  }

  quanvas::Run run(const Recipe& recipe) {
    RunRequest request;
    request.recipe = recipe;
    auto result = bench_->run_recipe(request, job_);
    EXPECT_TRUE(result) << result.error().text();
    return result ? *result : quanvas::Run{};
  }

  fs::path dir_;
  JobContext job_;
  std::unique_ptr<Workbench> bench_;
};

}  // namespace quanvas::testing
