// The executor beside LibTorch, and what calibration and fake-quantization add to the float forward pass.
//   ratio   time of the one over time of the other, medians of turns that alternate: lower is better
//   asked   the ratio that docs/benchmarks.md asks for
//   memory  peak of the tensors that live at once, as a ratio; the weights are not counted
// resnet20 is read from QUANVAS_SHARED (its TorchScript module beside its ONNX file) and left out without.
#include <benchmark/benchmark.h>

#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <fstream>
#include <unistd.h>

#include <c10/core/Allocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "core/data/npy.h"
#include "core/exec/chunks.h"
#include "core/exec/runner.h"
#include "core/workflow/workbench.h"
#include "tests/benchmarks/resnet18.h"

namespace quanvas::benchmarks {
namespace {

namespace fs = std::filesystem;
using Work = std::function<void()>;

[[noreturn]] void stop(const Error& error) {
  std::fprintf(stderr, "%s\n", error.text().c_str());
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) stop(result.error());
  return std::move(*result);
}
void must(const Status& status) {
  if (!status) stop(status.error());
}

double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Peak of what this thread's calls have allocated and not given back.
class Peak : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::int64_t, std::int64_t, c10::Device) override {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  double peak() const { return static_cast<double>(peak_); }

 private:
  std::int64_t live_ = 0, peak_ = 0;
};

double peak_of(const Work& work) {
  const auto peak = std::make_shared<Peak>();
  c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, peak);
  work();
  return peak->peak();
}

// `ours` beside `reference`, in turns.
void compare(benchmark::State& state, const Work& ours, const Work& reference, double asked, bool memory = false) {
  ours();
  reference();
  std::vector<double> a, b;
  for (auto _ : state) {
    const bool first = a.size() % 2 == 0;
    if (first) a.push_back(seconds_of(ours));
    b.push_back(seconds_of(reference));
    if (!first) a.push_back(seconds_of(ours));
    state.SetIterationTime(a.back());
  }
  state.counters["ms"] = 1e3 * median(a);
  state.counters["ratio"] = median(a) / median(b);
  state.counters["asked"] = asked;
  if (memory) state.counters["memory"] = peak_of(ours) / std::max(1.0, peak_of(reference));
}

void add(const std::string& name, std::function<void(benchmark::State&)> row) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(row))->UseManualTime()->Unit(benchmark::kMillisecond);
}

using RunnerPtr = std::shared_ptr<const exec::Runner>;

Work running(RunnerPtr runner, at::Tensor x) {
  return [runner, x] {
    c10::InferenceMode inference;
    benchmark::DoNotOptimize(must(runner->run({x})));
  };
}

void add_resnet18() {
  for (const int batch : {1, 32})
    add("float/resnet18/batch:" + std::to_string(batch), [batch](benchmark::State& state) {
      const Resnet18 net = make_resnet18(1);
      const at::Tensor x = at::randn({batch, 3, 224, 224});
      const RunnerPtr runner = must(exec::Runner::create(as_model(net), nullptr));
      compare(state, running(runner, x), [&] {
        c10::InferenceMode inference;
        benchmark::DoNotOptimize(run_directly(net, x));
      }, 1.05, /*memory=*/true);
    });
}

void add_resnet20(const fs::path& folder) {
  std::error_code ec;
  if (!fs::exists(folder / "resnet20.ts.pt", ec)) return;
  for (const int batch : {1, 32})
    add("float/resnet20/batch:" + std::to_string(batch), [batch, folder](benchmark::State& state) {
      JobContext job;
      const auto model = std::make_shared<const Model>(must(import_model((folder / "resnet20.onnx").string(), job)));
      torch::jit::Module module = torch::jit::load((folder / "resnet20.ts.pt").string());
      module.eval();
      const at::Tensor x = at::randn({batch, 3, 32, 32});
      const RunnerPtr runner = must(exec::Runner::create(model, nullptr));
      compare(state, running(runner, x), [&] {
        c10::InferenceMode inference;
        benchmark::DoNotOptimize(module.forward({x}).toTensor());
      }, 1.05, /*memory=*/true);
    });
}

// A model in a folder of its own, with random samples that calibrate and evaluate. int8 weights and activations.
class Int8Project {
 public:
  Int8Project(const Model& model, Shape sample, std::int64_t samples)
      : folder_(fs::temp_directory_path() / ("quanvas-benchmark-" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
    JobContext job;
    const QuantizedModel network{std::make_shared<const Model>(model), {}, {}};
    must(must(Registry<Exporter>::instance().get("onnx", "exporter"))->write(network, file("model.onnx"), {}, job));
    sample.insert(sample.begin(), samples);
    const at::Tensor x = at::randn(sample);
    const float* const values = x.data_ptr<float>();
    must(write_npy(file("x.npy"), sample, std::vector<float>(values, values + x.numel())));
    bench_ = must(Workbench::open(file("model.onnx"), {}, job, file("model.quanvas")));
    const DataSource source{"npy", {{"data", file("x.npy")}}, 0, -1};
    DataSettings data;
    data.calibrate = data.evaluate = source;
    must(bench_->set_data(data));
    dataset_ = must(open_dataset(source, {}, folder_.string(), {}));
    runner_ = must(exec::Runner::create(std::make_shared<const Model>(must(import_model(file("model.onnx"), job))), nullptr));
  }
  ~Int8Project() {
    bench_.reset();
    std::error_code ec;
    fs::remove_all(folder_, ec);
  }

  void run_float() {
    JobContext job;
    must(exec::for_each_chunk<at::Tensor>(
        *dataset_, choose_samples(dataset_->size(), 0, 0), "cpu", job, "float",
        [&](exec::Chunk& chunk) -> Result<at::Tensor> { return must(runner_->run({chunk.input}))[0]; },
        [](std::int64_t, at::Tensor&) -> Status { return {}; }));
  }
  // Statistics are kept by the seed of the samples' choice: a new one is a new pass.
  void calibrate() {
    JobContext job;
    Recipe recipe = uniform_recipe(8, 8);
    recipe.calibration.samples = 0;
    recipe.calibration.seed = ++seed_;
    must(bench_->set_recipe(recipe, "calibrate"));
    must(bench_->calibrate(job));
  }
  void make_run() {
    JobContext job;
    calibrate();
    RunRequest request;
    request.evaluate = false;
    run_ = must(bench_->run_recipe(request, job)).id;
  }
  void run_quantized() {
    JobContext job;
    must(bench_->evaluate_run(run_, 0, job));
  }

 private:
  std::string file(const char* name) const { return (folder_ / name).string(); }
  fs::path folder_;
  std::unique_ptr<Workbench> bench_;
  DatasetPtr dataset_;
  std::shared_ptr<const exec::Runner> runner_;
  std::int64_t seed_ = 0, run_ = 0;
};

using MakeModel = std::function<Model()>;

void add_int8(const std::string& name, const MakeModel& make, const Shape& sample, std::int64_t samples) {
  add("calibrate/" + name, [=](benchmark::State& state) {
    Int8Project project(make(), sample, samples);
    compare(state, [&] { project.calibrate(); }, [&] { project.run_float(); }, 1.2);
  });
  add("int8/" + name, [=](benchmark::State& state) {
    Int8Project project(make(), sample, samples);
    project.make_run();
    compare(state, [&] { project.run_quantized(); }, [&] { project.run_float(); }, 1.25);
  });
}

void add_quantized(const fs::path& resnet20) {
  add_int8("resnet18", [] { return *as_model(make_resnet18(1)); }, {3, 224, 224}, 64);
  std::error_code ec;
  if (!fs::exists(resnet20, ec)) return;
  const auto load = [=] {
    JobContext job;
    return must(import_model(resnet20.string(), job));
  };
  add_int8("resnet20", load, {3, 32, 32}, 2048);
}

}  // namespace
}  // namespace quanvas::benchmarks

int main(int argc, char** argv) {
  using namespace quanvas;
  benchmark::Initialize(&argc, argv);
  exec::set_threads(0);
  benchmarks::add_resnet18();
  benchmarks::add_resnet20(std::filesystem::path(QUANVAS_SHARED_DIR) / "models/resnet20");
  benchmarks::add_quantized(std::filesystem::path(QUANVAS_SHARED_DIR) / "models/resnet20/resnet20.onnx");
  benchmark::RunSpecifiedBenchmarks();
}
