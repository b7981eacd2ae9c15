// Speed of the quantizer kernels. ns_per_element counts one pass; copy_ratio is the time of a parallel copy of the
// same tensor, measured in the same run, over the time of the kernel (1: as fast as copying).
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "core/quant/params.h"
#include "core/quant/statistics.h"

namespace quanvas::quant {
namespace {

std::vector<float> gaussian(std::int64_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = normal(random);
  return x;
}

void parallel_copy(const float* x, float* y, std::int64_t n) {
  const int threads = kernel_threads();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const std::int64_t begin = n * t / threads, end = n * (t + 1) / threads;
    std::memcpy(y + begin, x + begin, static_cast<std::size_t>(end - begin) * sizeof(float));
  }
}

double copy_seconds(const float* x, float* y, std::int64_t n) {
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_copy(x, y, n);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

QuantSpec make_spec(int bits, Granularity granularity, Statistic statistic, int axis = 0) {
  QuantSpec spec;
  spec.bits = bits;
  spec.narrow = true;
  spec.granularity = granularity;
  spec.statistic = statistic;
  spec.axis = axis;
  return spec;
}

struct Setup {
  Shape shape;
  std::vector<float> x, y;
  QuantParams params;
  double copy;

  Setup(Shape s, const QuantSpec& spec) : shape(std::move(s)), x(gaussian(element_count(shape))), y(x.size()) {
    params = *find_params(spec, shape, x.data(), 0);
    copy = copy_seconds(x.data(), y.data(), size());
  }
  std::int64_t size() const { return static_cast<std::int64_t>(x.size()); }
};

template <class F>
void timed(benchmark::State& state, const Setup& setup, const F& work) {
  double best = 1e9;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    work();
    benchmark::ClobberMemory();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  state.counters["ns_per_element"] = best * 1e9 / static_cast<double>(setup.size());
  state.counters["best_ms"] = best * 1e3;
  state.counters["copy_ratio"] = setup.copy / best;
}

const Shape kWeights = {2048, 2048};
const Shape kLarge = {64, 1024, 1024};

void fake(benchmark::State& state, const Shape& shape, const QuantSpec& spec) {
  Setup s(shape, spec);
  timed(state, s, [&] { fake_quantize(s.params, s.params.layout, s.x.data(), s.y.data()); });
}
BENCHMARK_CAPTURE(fake, tensor_4M, kWeights, make_spec(8, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(fake, channel_4M, kWeights, make_spec(4, Granularity::kChannel, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(fake, channel_last_4M, kWeights, make_spec(4, Granularity::kChannel, Statistic::kAbsMax, 1))->UseRealTime();
BENCHMARK_CAPTURE(fake, group32_4M, kWeights, make_spec(4, Granularity::kGroup, Statistic::kAbsMax, 1))->UseRealTime();
BENCHMARK_CAPTURE(fake, group32_strided_4M, kWeights, make_spec(4, Granularity::kGroup, Statistic::kAbsMax, 0))->UseRealTime();
BENCHMARK_CAPTURE(fake, tensor_64M, kLarge, make_spec(8, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(fake, tensor_64K, Shape({256, 256}), make_spec(8, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();

void copy(benchmark::State& state, const Shape& shape) {
  Setup s(shape, make_spec(8, Granularity::kTensor, Statistic::kAbsMax));
  timed(state, s, [&] { parallel_copy(s.x.data(), s.y.data(), s.size()); });
}
BENCHMARK_CAPTURE(copy, 4M, kWeights)->UseRealTime();
BENCHMARK_CAPTURE(copy, 64M, kLarge)->UseRealTime();

void find(benchmark::State& state, const QuantSpec& spec) {
  Setup s(kWeights, spec);
  timed(state, s, [&] { benchmark::DoNotOptimize(find_params(spec, s.shape, s.x.data(), 0)->scale.data()); });
}
QuantSpec percentile99(Granularity g) {
  QuantSpec spec = make_spec(8, g, Statistic::kPercentile);
  spec.percentile = 99;
  return spec;
}
BENCHMARK_CAPTURE(find, absmax_tensor_4M, make_spec(4, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(find, absmax_channel_4M, make_spec(4, Granularity::kChannel, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(find, absmax_group32_4M, make_spec(4, Granularity::kGroup, Statistic::kAbsMax, 1))->UseRealTime();
BENCHMARK_CAPTURE(find, mse_tensor_4M, make_spec(4, Granularity::kTensor, Statistic::kMse))->UseRealTime();
BENCHMARK_CAPTURE(find, mse_channel_4M, make_spec(4, Granularity::kChannel, Statistic::kMse))->UseRealTime();
BENCHMARK_CAPTURE(find, mse_group32_4M, make_spec(4, Granularity::kGroup, Statistic::kMse, 1))->UseRealTime();
BENCHMARK_CAPTURE(find, mse_group32_strided_4M, make_spec(4, Granularity::kGroup, Statistic::kMse, 0))->UseRealTime();
BENCHMARK_CAPTURE(find, percentile_tensor_4M, percentile99(Granularity::kTensor))->UseRealTime();
BENCHMARK_CAPTURE(find, percentile_channel_4M, percentile99(Granularity::kChannel))->UseRealTime();

void facts(benchmark::State& state, const QuantSpec& spec) {
  Setup s(kWeights, spec);
  timed(state, s, [&] { benchmark::DoNotOptimize(measure(s.params, s.params.layout, s.x.data()).error.mse); });
}
BENCHMARK_CAPTURE(facts, channel_int4_4M, make_spec(4, Granularity::kChannel, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(facts, tensor_int8_4M, make_spec(8, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(facts, tensor_int16_4M, make_spec(16, Granularity::kTensor, Statistic::kAbsMax))->UseRealTime();
BENCHMARK_CAPTURE(facts, group32_int4_4M, make_spec(4, Granularity::kGroup, Statistic::kAbsMax, 1))->UseRealTime();

// What a click on a format costs: parameters, facts, and the quantized weights.
void click(benchmark::State& state) {
  const QuantSpec spec = make_spec(4, Granularity::kChannel, Statistic::kAbsMax);
  Setup s(kWeights, spec);
  timed(state, s, [&] {
    const auto params = find_params(spec, s.shape, s.x.data(), 0);
    benchmark::DoNotOptimize(measure(*params, params->layout, s.x.data()).error.mse);
    fake_quantize(*params, params->layout, s.x.data(), s.y.data());
  });
}
BENCHMARK(click)->UseRealTime();

void backward(benchmark::State& state, const QuantSpec& spec, bool learned) {
  Setup s(kWeights, spec);
  const std::vector<float> dy = gaussian(s.size());
  std::vector<float> dscale(s.params.scale.size());
  timed(state, s, [&] {
    fake_quantize_backward(s.params, s.params.layout, s.x.data(), dy.data(), s.y.data(),
                           learned ? dscale.data() : nullptr, false);
  });
}
BENCHMARK_CAPTURE(backward, ste_tensor_4M, make_spec(4, Granularity::kTensor, Statistic::kAbsMax), false)->UseRealTime();
BENCHMARK_CAPTURE(backward, lsq_tensor_4M, make_spec(4, Granularity::kTensor, Statistic::kAbsMax), true)->UseRealTime();
BENCHMARK_CAPTURE(backward, lsq_channel_4M, make_spec(4, Granularity::kChannel, Statistic::kAbsMax), true)->UseRealTime();

void histogram(benchmark::State& state, bool relu) {
  Setup s({32, 128, 32, 32}, make_spec(8, Granularity::kTensor, Statistic::kAbsMax));
  if (relu)
    for (float& v : s.x) v = std::max(v, 0.0f);
  timed(state, s, [&] {
    TensorStatistics statistics;
    statistics.add(s.x.data(), s.shape);
    benchmark::DoNotOptimize(statistics.count());
  });
}
BENCHMARK_CAPTURE(histogram, gaussian_4M, false)->UseRealTime();
BENCHMARK_CAPTURE(histogram, relu_4M, true)->UseRealTime();

void from_histogram(benchmark::State& state, Statistic statistic, ZeroPointType zero_point) {
  Setup s({32, 128, 32, 32}, make_spec(8, Granularity::kTensor, Statistic::kAbsMax));
  TensorStatistics statistics;
  statistics.add(s.x.data(), s.shape);
  QuantSpec spec = make_spec(8, Granularity::kTensor, statistic);
  spec.zero_point = zero_point;
  timed(state, s, [&] { benchmark::DoNotOptimize(find_params(spec, s.shape, statistics, 1)->scale.data()); });
}
BENCHMARK_CAPTURE(from_histogram, percentile, Statistic::kPercentile, ZeroPointType::kNone)->UseRealTime();
BENCHMARK_CAPTURE(from_histogram, mse, Statistic::kMse, ZeroPointType::kNone)->UseRealTime();
BENCHMARK_CAPTURE(from_histogram, mse_asymmetric, Statistic::kMse, ZeroPointType::kInteger)->UseRealTime();

}  // namespace
}  // namespace quanvas::quant
