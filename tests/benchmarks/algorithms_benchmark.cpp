// Rounding with error correction beside one product X X' of the same inputs by the same OpenBLAS in the same run.
//   best_ms   of one layer from its inputs to its rounded weights: second moments, factor, rounding, report
//   ratio     that time over the time of the product: lower is better
//   asked     the ratio that docs/benchmarks.md asks for
//   gflops    of the product
// Layer and product take turns, so that both meet the same neighbours on the machine. With one thread the times are
// processor time.
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/algorithms/blas.h"
#include "core/algorithms/hadamard.h"
#include "core/algorithms/learned.h"
#include "core/algorithms/magr.h"
#include "core/algorithms/rounding.h"
#include "core/quant/parallel.h"

namespace quanvas::benchmarks {
namespace {

using namespace algorithms;

double seconds() {
  if (quant::kernel_threads() > 1)
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// A square layer of n inputs and outputs.
struct Layer {
  std::int64_t n = 0, columns = 0;
  std::vector<float> w, x, other, product;  // other: x of the float network

  Layer(std::int64_t inputs, std::int64_t count) : n(inputs), columns(count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto square = static_cast<std::size_t>(n * n), all = static_cast<std::size_t>(n * columns);
    w.resize(square), product.resize(square), x.resize(all), other.resize(all);
    for (float& v : w) v = 0.1f * normal(random);
    std::vector<float> last(static_cast<std::size_t>(columns));
    for (std::size_t i = 0; i < all; ++i) {
      float& l = last[i % last.size()];
      l = 0.8f * l + 0.6f * normal(random);
      x[i] = l;
      other[i] = l + 0.05f * normal(random);
    }
  }
};

template <class T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "%s\n", result.error().text().c_str());
  std::abort();
}

Gram gram_of(const Layer& layer, bool cross, bool rest = false) {
  GramAccumulator sum(layer.n, cross, rest);
  if (!sum.add(layer.x.data(), cross ? layer.other.data() : nullptr, layer.columns, GramAccumulator::Order::kInputs, layer.columns))
    std::abort();
  return need(std::move(sum).finish());
}

quant::ColumnQuantizer quantizer(const Layer& layer, int bits, std::int64_t group) {
  QuantSpec spec;
  spec.bits = bits;
  spec.granularity = group > 0 ? Granularity::kGroup : Granularity::kChannel;
  spec.group_size = static_cast<int>(group);
  const auto params = need(quant::find_params(spec, {layer.n, layer.n}, layer.w.data(), group > 0 ? 1 : 0));
  return need(quant::ColumnQuantizer::create(params, {layer.n, layer.n, 0, layer.n, 1}));
}

void one_gptq(const Layer& layer, const quant::ColumnQuantizer& q, bool act_order) {
  const Gram gram = gram_of(layer, false);
  const Factor factor = need(factorize(gram, {0.01, false, act_order}));
  std::vector<float> w = layer.w;
  benchmark::DoNotOptimize(need(gptq(layer.n, layer.n, w.data(), factor, q)));
}

// Two tensors of values that are no subnormals.
std::vector<float>& tensor(int i) {
  static std::vector<float> both[2] = {std::vector<float>(std::size_t{1} << 24, 0.5f), std::vector<float>(std::size_t{1} << 24, 0.5f)};
  return both[i];
}

struct Row {
  std::string name;
  double asked = 0;
  std::function<void()> work;
  std::function<void()> beside;  // what the time is held against; none: the product
};

std::vector<Row> rows(const std::function<const Layer&(std::int64_t, std::int64_t)>& layer) {
  const auto small = [layer]() -> const Layer& { return layer(1024, 2048); };
  const auto gptq_row = [](const auto& get, std::int64_t group, bool act_order) {
    return [get, group, act_order] {
      static std::map<std::int64_t, std::shared_ptr<quant::ColumnQuantizer>> kept;
      auto& q = kept[get().n * 1000 + group];
      if (!q) q = std::make_shared<quant::ColumnQuantizer>(quantizer(get(), 4, group));
      one_gptq(get(), *q, act_order);
    };
  };
  std::vector<Row> all;
  all.push_back({"gram_1024", 0, [small] { benchmark::DoNotOptimize(gram_of(small(), false)); }, {}});
  all.push_back({"gram_both_1024", 0, [small] { benchmark::DoNotOptimize(gram_of(small(), true)); }, {}});
  all.push_back({"factor_1024", 0, [small] {
                   static const Gram gram = gram_of(small(), false);
                   benchmark::DoNotOptimize(need(factorize(gram, {})));
                 }, {}});
  all.push_back({"gptq_channel_1024", 4, gptq_row(small, 0, false), {}});
  all.push_back({"gptq_act_order_1024", 4, gptq_row(small, 0, true), {}});
  all.push_back({"gptq_group128_1024", 4, gptq_row(small, 128, false), {}});
  all.push_back({"gpfq_1024", 6, [small] {
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   const Gram gram = gram_of(small(), true);
                   std::vector<float> w = small().w;
                   benchmark::DoNotOptimize(need(gpfq(1024, 1024, w.data(), need(moments_of(gram, natural_order(1024))), q)));
                 }, {}});
  all.push_back({"qronos_1024", 6, [small] {
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   const Gram gram = gram_of(small(), true);
                   const Factor factor = need(factorize(gram, {1e-6, true, false}));
                   std::vector<float> w = small().w;
                   benchmark::DoNotOptimize(need(qronos(1024, 1024, w.data(), factor, q)));
                 }, {}});
  // Codes within an accumulator of 18 bits for inputs of 8, beside the same without a bound.
  static const auto bounded = [](const quant::ColumnQuantizer& q) { return need(Accumulator::create({18, 0, AccumulatorOptions::Spread::kTotal, 0, 255}, q)); };
  all.push_back({"axe_gptq_1024", 1.5, [small] {
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   static const Accumulator accumulator = bounded(q);
                   const Gram gram = gram_of(small(), false);
                   const Factor factor = need(factorize(gram, {}));
                   std::vector<float> w = small().w;
                   RoundingOptions options;
                   options.accumulator = &accumulator;
                   benchmark::DoNotOptimize(need(gptq(1024, 1024, w.data(), factor, q, options)));
                 }, gptq_row(small, 0, false)});
  all.push_back({"axe_gpfq_1024", 1.5, [small] {
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   static const Accumulator accumulator = bounded(q);
                   const Gram gram = gram_of(small(), true);
                   std::vector<float> w = small().w;
                   RoundingOptions options;
                   options.accumulator = &accumulator;
                   benchmark::DoNotOptimize(need(gpfq(1024, 1024, w.data(), need(moments_of(gram, natural_order(1024))), q, options)));
                 }, [small] {
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   const Gram gram = gram_of(small(), true);
                   std::vector<float> w = small().w;
                   benchmark::DoNotOptimize(need(gpfq(1024, 1024, w.data(), need(moments_of(gram, natural_order(1024))), q)));
                 }});
  // A layer of 64 outputs and 576 inputs, from its second moments on.
  const auto learn = [layer](LearnedMethod method, int iterations) {
    return [layer, method, iterations] {
      static const Layer& l = layer(576, 1152);
      static const std::vector<float> w(l.w.begin(), l.w.begin() + 64 * 576);
      static const Moments moments = need(moments_of(gram_of(l, false), natural_order(576)));
      static const quant::ColumnQuantizer q = [] {
        QuantSpec spec;
        spec.granularity = Granularity::kChannel;
        spec.bits = 4;
        return need(quant::ColumnQuantizer::create(need(quant::find_params(spec, {64, 576}, w.data(), 0)), {64, 576, 0, 576, 1}));
      }();
      LearnedOptions options;
      options.method = method;
      options.iterations = iterations;
      std::vector<float> now = w;
      benchmark::DoNotOptimize(need(learn_rounding(64, 576, w.data(), now.data(), moments, q, options)));
    };
  };
  all.push_back({"adaround_1000_64x576", 0, learn(LearnedMethod::kGates, 1000), {}});
  all.push_back({"autoround_200_64x576", 0, learn(LearnedMethod::kSigns, 200), {}});
  all.push_back({"magr_20_steps_1024", 0, [small] {
                   static const Gram gram = gram_of(small(), false);
                   std::vector<float> w = small().w;
                   benchmark::DoNotOptimize(need(magr(1024, 1024, w.data(), gram)));
                 }, {}});
  all.push_back({"polish_3_sweeps_1024", 0, [small] {
                   static const Moments moments = need(moments_of(gram_of(small(), false), natural_order(1024)));
                   static const quant::ColumnQuantizer q = quantizer(small(), 4, 0);
                   std::vector<float> w(small().w.size());
                   q.fake_matrix(small().w.data(), w.data());
                   benchmark::DoNotOptimize(need(polish(1024, 1024, small().w.data(), w.data(), moments, q)));
                 }, {}});
  // Seven widths with one factor, beside one run of one width.
  all.push_back({"gptq_w2_to_w8_1024", 3, [small] {
                   static std::vector<quant::ColumnQuantizer> widths;
                   if (widths.empty())
                     for (int bits = 2; bits <= 8; ++bits) widths.push_back(quantizer(small(), bits, 0));
                   const Gram gram = gram_of(small(), false);
                   const Factor factor = need(factorize(gram, {}));
                   for (const auto& q : widths) {
                     std::vector<float> w = small().w;
                     benchmark::DoNotOptimize(need(gptq(1024, 1024, w.data(), factor, q)));
                   }
                 }, gptq_row(small, 0, false)});
  // Rows of 64 MB in all, beside a copy of them.
  for (const std::int64_t n : {1024, 768, 288})
    all.push_back({"hadamard_" + std::to_string(n), n == 288 ? 4.0 : 2.0, [n] {
                     static std::map<std::int64_t, HadamardTransform> made;
                     const HadamardTransform& t = made.try_emplace(n, need(HadamardTransform::create(n))).first->second;
                     t.apply(tensor(0).data(), tensor(1).data(), static_cast<std::int64_t>(tensor(0).size()) / n);
                     benchmark::DoNotOptimize(tensor(1).data());
                   }, [] {
                     const auto all = static_cast<std::int64_t>(tensor(0).size());
                     quant::parallel_stripes(all, quant::threads_for(all), [](std::int64_t, std::int64_t begin, std::int64_t end) {
                       std::memcpy(tensor(1).data() + begin, tensor(0).data() + begin, static_cast<std::size_t>(end - begin) * sizeof(float));
                     });
                     benchmark::DoNotOptimize(tensor(1).data());
                   }});
  all.push_back({"gptq_channel_4096", 5, gptq_row([layer]() -> const Layer& { return layer(4096, 4096); }, 0, false), {}});
  return all;
}

void run(benchmark::State& state, const Row& row, const Layer& layer, int threads) {
  quant::set_kernel_threads(threads);
  omp_set_num_threads(threads);
  auto& product = const_cast<std::vector<float>&>(layer.product);
  const auto multiply = [&] {
    gemm(false, true, layer.n, layer.n, layer.columns, 1.0f, layer.x.data(), layer.columns, layer.x.data(), layer.columns, 0.0f,
         product.data(), layer.n);
  };
  double work = 1e9, beside = 1e9;
  row.work();
  for (auto _ : state) {
    const double a = seconds();
    if (row.beside) row.beside();
    else multiply();
    const double b = seconds();
    row.work();
    const double c = seconds();
    beside = std::min(beside, b - a);
    work = std::min(work, c - b);
    state.SetIterationTime(c - b);
  }
  state.counters["best_ms"] = work * 1e3;
  state.counters["ratio"] = work / beside;
  if (!row.beside)
    state.counters["gflops"] = 2e-9 * static_cast<double>(layer.n) * static_cast<double>(layer.n) * static_cast<double>(layer.columns) / beside;
  if (row.asked > 0) state.counters["asked"] = row.asked;
}

// OpenBLAS chooses its kernels when it is loaded; as the programs do (app/engine/launch.cpp).
void choose_kernels(char** argv) {
#if defined(__x86_64__)
  if (std::getenv("OPENBLAS_CORETYPE")) return;
  __builtin_cpu_init();
  const char* type = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl")
                         ? "SkylakeX"
                     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell"
                                                                                       : nullptr;
  if (!type) return;
  ::setenv("OPENBLAS_CORETYPE", type, 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  ::execv("/proc/self/exe", argv);
#endif
}

}  // namespace
}  // namespace quanvas::benchmarks

int main(int argc, char** argv) {
  using namespace quanvas::benchmarks;
  choose_kernels(argv);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // pages stay, as in the programs (core/exec/runtime.cpp)
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::map<std::int64_t, std::unique_ptr<Layer>> layers;
  const auto layer = [&layers](std::int64_t n, std::int64_t columns) -> const Layer& {
    auto& slot = layers[n];
    if (!slot) slot = std::make_unique<Layer>(n, columns);
    return *slot;
  };
  for (const Row& row : rows(layer))
    for (const int threads : {1, 2}) {
      const bool large = row.name.find("4096") != std::string::npos;
      benchmark::RegisterBenchmark((row.name + "/threads:" + std::to_string(threads)).c_str(),
                                   [row, threads, large, &layer](benchmark::State& state) {
                                     run(state, row, large ? layer(4096, 4096) : layer(1024, 2048), threads);
                                   })
          ->UseManualTime()
          ->MinTime(large ? 4 : 1)
          ->Unit(benchmark::kMillisecond);
    }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
