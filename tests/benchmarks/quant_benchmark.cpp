// Speed of the quantizer kernels beside a parallel copy of the same 4096 x 4096 float32 tensor.
//   best_ms  of one call, the least of many; with one thread processor time
//   ratio   that time over the time of the copy: lower is better, 1 is the speed of memory
//   asked   the ratio that docs/benchmarks.md asks for
//   chain   how many times longer LibTorch's tensor operations take for the same (the program with _aten only)
// Copy and kernel take turns, so that both meet the same neighbours on the machine. All results go into buffers
// that have been written before.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/quant/fused.h"
#include "core/quant/packing.h"
#include "core/quant/statistics.h"
#include "tests/benchmarks/chains.h"

namespace quanvas::benchmarks {
namespace {

using namespace quant;
constexpr std::int64_t kRows = 4096, kColumns = 4096, kElements = kRows * kColumns;
const Shape kShape = {kRows, kColumns};

// Memory that has been written once, aligned as tensors are.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t n) : data_(static_cast<T*>(std::aligned_alloc(4096, bytes(n)))) {
    if (!data_) std::abort();
    std::memset(data_.get(), 1, bytes(n));
  }
  T* get() const { return data_.get(); }

 private:
  static std::size_t bytes(std::int64_t n) {
    return (static_cast<std::size_t>(n) * sizeof(T) + 4095) / 4096 * 4096;
  }
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

struct Row {
  std::string name;
  double asked = 0;  // ratio; 0: not asked
  double bytes = 8;  // read and written per element: the ratio is per byte, those of the copy are 8
  std::function<void()> work;
};

struct Data {
  Buffer<float> x{kElements}, y{kElements}, copy{kElements}, dy{kElements}, dx{kElements};
  Buffer<std::int32_t> codes{kElements};
  Buffer<std::uint8_t> packed{kElements};
  std::vector<float> dscale = std::vector<float>(kRows);
  std::vector<std::shared_ptr<void>> kept;
};

// With one thread its processor time, which is the time on the clock when nothing else runs.
double seconds() {
  if (kernel_threads() > 1)
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void parallel_copy(const float* x, float* y) {
  const int threads = kernel_threads();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const std::int64_t begin = kElements * t / threads, end = kElements * (t + 1) / threads;
    std::memcpy(y + begin, x + begin, static_cast<std::size_t>(end - begin) * sizeof(float));
  }
}

QuantSpec spec_of(int bits, Granularity granularity, Statistic statistic = Statistic::kAbsMax, int axis = 0) {
  QuantSpec spec;
  spec.bits = bits;
  spec.narrow = bits == 8;
  spec.granularity = granularity;
  spec.statistic = statistic;
  if (granularity != Granularity::kTensor) spec.axis = axis;
  return spec;
}
QuantSpec group(int bits, int size, int axis, Statistic statistic = Statistic::kAbsMax) {
  QuantSpec spec = spec_of(bits, Granularity::kGroup, statistic, axis);
  spec.group_size = size;
  return spec;
}
QuantSpec mxfp4() {
  QuantSpec spec = group(4, 32, 1);
  spec.format = "float";
  spec.exponent_bits = 2;
  spec.mantissa_bits = 1;
  spec.specials = FloatSpecials::kNone;
  spec.scale = ScaleType::kPowerOfTwo;
  spec.exponent_rounding = ExponentRounding::kFloor;
  return spec;
}
QuantSpec fp8() {
  QuantSpec spec = spec_of(8, Granularity::kChannel);
  spec.format = "float";
  return spec;
}
QuantSpec percentile(double percent, Granularity granularity) {
  QuantSpec spec = spec_of(8, granularity, Statistic::kPercentile);
  spec.percentile = percent;
  return spec;
}
QuantSpec asymmetric(QuantSpec spec) {
  spec.zero_point = ZeroPointType::kInteger;
  spec.is_signed = spec.narrow = false;
  return spec;
}

QuantSpec rounding_down(QuantSpec spec) {
  spec.rounding = Rounding::kFloor;
  return spec;
}
QuantSpec zero_inside(QuantSpec spec) {
  spec = asymmetric(spec);
  spec.zero_point_inside = true;
  return spec;
}
QuantSpec offset(QuantSpec spec) {
  spec = asymmetric(spec);
  spec.zero_point = ZeroPointType::kOffset;
  return spec;
}
QuantSpec nf4() {
  QuantSpec spec = group(4, 64, 1);
  spec.format = "nf4";
  return spec;
}
QuantSpec bracketing(QuantSpec spec) {
  spec.statistic = Statistic::kMse;
  spec.search = Search::kBracketing;
  return spec;
}
QuantSpec mse(QuantSpec spec) {
  spec.statistic = Statistic::kMse;
  return spec;
}

std::vector<Row> rows(Data& d) {
  std::vector<Row> all;
  const auto fused = [&](const char* name, double asked, const QuantSpec& spec, bool look = false) {
    all.push_back({name, asked, 8, [&d, spec, look] {
                     SiteFacts facts;
                     (void)*find_and_quantize(spec, kShape, d.x.get(), 0, d.y.get(), look ? &facts : nullptr);
                   }});
  };
  const auto found = [&](const QuantSpec& spec) { return *find_params(spec, kShape, d.x.get(), 0); };
  const auto fake = [&](const char* name, double asked, const QuantSpec& spec) {
    all.push_back({name, asked, 8, [&d, p = found(spec)] { fake_quantize(p, p.layout, d.x.get(), d.y.get()); }});
  };
  const auto find = [&](const char* name, const QuantSpec& spec) {
    all.push_back({name, 0, 8, [&d, spec] { (void)*find_params(spec, kShape, d.x.get(), 0); }});
  };
  const auto backward = [&](const char* name, double asked, const QuantSpec& spec, bool forward, bool learned) {
    all.push_back({name, asked, 8, [&d, p = found(spec), forward, learned] {
                     if (forward) fake_quantize(p, p.layout, d.x.get(), d.y.get());
                     fake_quantize_backward(p, p.layout, d.x.get(), d.dy.get(), d.dx.get(),
                                            learned ? d.dscale.data() : nullptr, false);
                   }});
  };
  const QuantSpec int8 = spec_of(8, Granularity::kChannel), int4 = spec_of(4, Granularity::kChannel);
  // Statistics included.
  fused("int8_channel", 2, int8);
  fused("int4_group128", 2, group(4, 128, 1));
  fused("mxfp4_group32", 2, mxfp4());
  fused("fp8_channel", 2, fp8());
  fused("int8_percentile", 4, percentile(99.99, Granularity::kTensor));
  fused("int4_mse_channel", 10, spec_of(4, Granularity::kChannel, Statistic::kMse));
  fake("fixed_scale", 1.4, int8);
  const QuantParams p4 = found(int4);
  quantize_codes(p4, p4.layout, d.x.get(), d.codes.get());
  all.push_back({"pack_int4", 2, 4.5, [&d] { pack(d.codes.get(), kElements, 4, d.packed.get()); }});
  backward("forward_backward", 4, int8, true, true);
  // Others, without a figure that was asked for.
  all.push_back({"unpack_int4", 0, 4.5, [&d] { unpack(d.packed.get(), kElements, 4, true, d.codes.get()); }});
  all.push_back(
      {"quantize_packed_int4", 0, 4.5, [&d, p4] { quantize_packed(p4, p4.layout, d.x.get(), d.packed.get()); }});
  fused("int8_tensor", 0, spec_of(8, Granularity::kTensor));
  fused("int8_columns", 0, spec_of(8, Granularity::kChannel, Statistic::kAbsMax, 1));
  fused("uint8_minmax_channel", 0, asymmetric(int8));
  fused("int4_group32", 0, group(4, 32, 1));
  fused("int4_group128_strided", 0, group(4, 128, 0));
  fused("int4_channel_and_facts", 0, int4, true);
  fused("int8_channel_down", 0, rounding_down(int8));
  fused("uint8_channel_zero_inside", 0, zero_inside(int8));
  fused("uint4_group32_offset", 0, offset(group(4, 32, 1)));
  fused("nf4_group64", 0, nf4());
  fake("fixed_tensor", 0, spec_of(8, Granularity::kTensor));
  fake("fixed_columns", 0, spec_of(8, Granularity::kChannel, Statistic::kAbsMax, 1));
  fake("fixed_fp8", 0, fp8());
  find("find_absmax_tensor", spec_of(8, Granularity::kTensor));
  find("find_absmax_group32", group(4, 32, 1));
  find("find_percentile_channel", percentile(99, Granularity::kChannel));
  find("find_percentile_median", percentile(50, Granularity::kTensor));
  find("find_mse_tensor", spec_of(4, Granularity::kTensor, Statistic::kMse));
  find("find_mse_fp8_channel", mse(fp8()));
  find("find_bracketing_channel", bracketing(spec_of(4, Granularity::kChannel)));
  find("find_mse_group128", group(4, 128, 1, Statistic::kMse));
  for (const auto& [name, spec] :
       {std::pair{"measure_int4_channel", int4}, std::pair{"measure_int8_channel", int8}})
    all.push_back({name, 0, 8, [&d, p = found(spec)] { (void)measure(p, p.layout, d.x.get()); }});
  all.push_back(
      {"codes_int8", 0, 8, [&d, p = found(int8)] { quantize_codes(p, p.layout, d.x.get(), d.codes.get()); }});
  backward("backward_straight_through", 0, int8, false, false);
  backward("backward_learned_scale", 0, int8, false, true);
  all.push_back({"histogram", 0, 8, [&d] {
                   TensorStatistics statistics;
                   statistics.add(d.x.get(), kShape);
                 }});
  // What the window shows of 100 million values: six tensors in one histogram, its moments and 512 bins; the statistics
  // take as much memory as for one value of each magnitude.
  constexpr int kTensors = 6;
  all.push_back({"histogram_100_million", 0, 8 * kTensors, [&d] {
                   TensorStatistics statistics;
                   for (int i = 0; i < kTensors; ++i) statistics.add(d.x.get(), kShape);
                   benchmark::DoNotOptimize(statistics.mean() + statistics.stddev());
                   benchmark::DoNotOptimize(statistics.rebin(statistics.minimum(), statistics.maximum(), 512));
                 }});
  return all;
}

// The copy before each call of the work; the least of both.
void run(benchmark::State& state, const Row& row, const Data& d, int threads) {
  set_kernel_threads(threads);
  set_chain_threads(threads);
  double work = 1e9, copy = 1e9, chain = 1e9;
  for (auto _ : state) {
    const double a = seconds();
    parallel_copy(d.x.get(), d.copy.get());
    const double b = seconds();
    row.work();
    const double c = seconds();
    copy = std::min(copy, b - a);
    work = std::min(work, c - b);
    state.SetIterationTime(c - b);
  }
  state.counters["best_ms"] = work * 1e3;
  state.counters["ratio"] = work / copy * 8 / row.bytes;
  if (row.asked > 0) state.counters["asked"] = row.asked;
  const std::function<void()> tensor_operations = chain_of(row.name, d.x.get(), kRows, kColumns);
  if (!tensor_operations) return;
  for (int i = 0; i < 3; ++i) {
    const double begin = seconds();
    tensor_operations();
    chain = std::min(chain, seconds() - begin);
  }
  state.counters["chain"] = chain / work;
}

}  // namespace
}  // namespace quanvas::benchmarks

int main(int argc, char** argv) {
  using namespace quanvas::benchmarks;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  Data data;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < kElements; ++i) data.x.get()[i] = normal(random);
  std::memcpy(data.dy.get(), data.x.get(), static_cast<std::size_t>(kElements) * sizeof(float));
  for (const Row& row : rows(data))
    for (const int threads : {1, 2})
      benchmark::RegisterBenchmark(
          (row.name + "/threads:" + std::to_string(threads)).c_str(),
          [row, threads, &data](benchmark::State& state) { run(state, row, data, threads); })
          ->UseManualTime()
          ->MinTime(1)
          ->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
