// Speed of the quantizer kernels beside a parallel copy of the same 4096 x 4096 float32 tensor.
//   ms      of one call, the least of many; with one thread processor time
//   ratio   that time over the time of the copy: lower is better, 1 is the speed of memory
//   asked   the ratio that docs/benchmarks.md asks for
//   chain   how many times longer LibTorch's tensor operations take for the same (the program with _aten only)
// Copy and kernel take turns, so that both meet the same neighbours on the machine. All results go into buffers that
// have been written before.
#include <algorithm>
#include <chrono>
#include <cstdio>
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
  static std::size_t bytes(std::int64_t n) { return (static_cast<std::size_t>(n) * sizeof(T) + 4095) / 4096 * 4096; }
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

struct Row {
  std::string name;
  double asked = 0;       // ratio; 0: not asked
  double bytes = 8;       // read and written per element: the ratio is per byte, those of the copy are 8
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
  all.push_back({"quantize_packed_int4", 0, 4.5, [&d, p4] { quantize_packed(p4, p4.layout, d.x.get(), d.packed.get()); }});
  fused("int8_tensor", 0, spec_of(8, Granularity::kTensor));
  fused("int8_columns", 0, spec_of(8, Granularity::kChannel, Statistic::kAbsMax, 1));
  fused("uint8_minmax_channel", 0, asymmetric(int8));
  fused("int4_group32", 0, group(4, 32, 1));
  fused("int4_group128_strided", 0, group(4, 128, 0));
  fused("int4_channel_and_facts", 0, int4, true);
  fake("fixed_tensor", 0, spec_of(8, Granularity::kTensor));
  fake("fixed_columns", 0, spec_of(8, Granularity::kChannel, Statistic::kAbsMax, 1));
  fake("fixed_fp8", 0, fp8());
  find("find_absmax_tensor", spec_of(8, Granularity::kTensor));
  find("find_absmax_group32", group(4, 32, 1));
  find("find_percentile_channel", percentile(99, Granularity::kChannel));
  find("find_percentile_median", percentile(50, Granularity::kTensor));
  find("find_mse_tensor", spec_of(4, Granularity::kTensor, Statistic::kMse));
  find("find_mse_group128", group(4, 128, 1, Statistic::kMse));
  for (const auto& [name, spec] : {std::pair{"measure_int4_channel", int4}, std::pair{"measure_int8_channel", int8}})
    all.push_back({name, 0, 8, [&d, p = found(spec)] { (void)measure(p, p.layout, d.x.get()); }});
  all.push_back({"codes_int8", 0, 8, [&d, p = found(int8)] { quantize_codes(p, p.layout, d.x.get(), d.codes.get()); }});
  backward("backward_straight_through", 0, int8, false, false);
  backward("backward_learned_scale", 0, int8, false, true);
  all.push_back({"histogram", 0, 8, [&d] {
                   TensorStatistics statistics;
                   statistics.add(d.x.get(), kShape);
                 }});
  return all;
}

struct Times {
  double work = 1e9, copy = 1e9;
};

Times measured(const Data& d, const std::function<void()>& work, double limit, int least) {
  Times t;
  const double start = seconds();
  for (int i = 0; i < least || seconds() - start < limit; ++i) {
    const double a = seconds();
    parallel_copy(d.x.get(), d.copy.get());
    const double b = seconds();
    work();
    const double c = seconds();
    t.copy = std::min(t.copy, b - a);
    t.work = std::min(t.work, c - b);
  }
  return t;
}

int main_program(int argc, char** argv) {
  std::string only;
  double limit = 2;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string(argv[i]) == "--only") only = argv[i + 1];
    else if (std::string(argv[i]) == "--seconds") limit = std::atof(argv[i + 1]);
  }
  if (argc % 2 == 0) {
    std::puts("--only TEXT: rows whose name holds it.  --seconds S: for each row and number of threads, default 2.");
    return 2;
  }
  Data d;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < kElements; ++i) d.x.get()[i] = normal(random);
  std::memcpy(d.dy.get(), d.x.get(), static_cast<std::size_t>(kElements) * sizeof(float));
  const std::vector<Row> all = rows(d);
  std::printf("%-28s %6s", "4096 x 4096 float32", "asked");
  for (const int threads : {1, 2})
    std::printf(" | %d thread%s: %8s %6s %6s", threads, threads > 1 ? "s" : " ", "ms", "ratio", "chain");
  std::puts("");
  for (const Row& row : all) {
    if (row.name.find(only) == std::string::npos) continue;
    std::printf("%-28s %6s", row.name.c_str(), row.asked > 0 ? std::to_string(row.asked).substr(0, row.asked < 10 ? 3 : 2).c_str() : "");
    const std::function<void()> chain = chain_of(row.name, d.x.get(), kRows, kColumns);
    for (const int threads : {1, 2}) {
      set_kernel_threads(threads);
      set_chain_threads(threads);
      const Times t = measured(d, row.work, limit, 5);
      std::printf(" | %19.2f %6.2f", t.work * 1e3, t.work / t.copy * 8 / row.bytes);
      if (chain) std::printf(" %6.1f", measured(d, chain, limit / 2, 2).work / t.work);
      else std::printf(" %6s", "");
      std::fflush(stdout);
    }
    std::puts("");
  }
  return 0;
}

}  // namespace
}  // namespace quanvas::benchmarks

int main(int argc, char** argv) { return quanvas::benchmarks::main_program(argc, argv); }
