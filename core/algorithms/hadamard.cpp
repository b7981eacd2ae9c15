#include "core/algorithms/hadamard.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "core/algorithms/hadamard_kernels.h"
#include "core/quant/parallel.h"

namespace quanvas::algorithms {
namespace {

struct PrimePower {
  std::int64_t prime = 0;
  int degree = 0;
};
std::optional<PrimePower> prime_power(std::int64_t q) {
  if (q < 2) return std::nullopt;
  std::int64_t p = 2;
  while (p * p <= q && q % p != 0) ++p;
  if (q % p != 0) p = q;
  PrimePower out{p, 0};
  for (; q % p == 0; q /= p) ++out.degree;
  return q == 1 ? std::optional(out) : std::nullopt;
}

// q of the core of k rows and by which construction; field 0: none.
HadamardSize core_of(std::int64_t k) {
  if (k < 4 || k % 4 != 0 || k > kMostHadamardCore) return {};
  if (prime_power(k - 1)) return {k, k, k - 1, HadamardCore::kPaley1};  // k - 1 = 3 mod 4
  const std::int64_t q = k / 2 - 1;
  if (q % 4 == 1 && prime_power(q)) return {k, k, q, HadamardCore::kPaley2};
  return {};
}

// The powers of x modulo a monic polynomial over GF(p), as numbers whose digits to the base p are the coefficients; none when
// x does not generate all elements but 0. low: the polynomial's coefficients below the leading one, as such a number.
std::optional<std::vector<std::int64_t>> powers_of_x(const PrimePower& f, std::int64_t q, std::int64_t low) {
  std::vector<std::int64_t> powers = {1};
  const std::int64_t top = q / f.prime;
  for (std::int64_t now = 1;;) {
    const std::int64_t lead = now / top;
    std::int64_t shifted = now % top * f.prime, next = 0;
    // x^k = -low
    for (std::int64_t digit = 1, rest = low; digit < q; digit *= f.prime, rest /= f.prime, shifted /= f.prime) {
      const std::int64_t d = (shifted % f.prime + (f.prime - rest % f.prime) * lead) % f.prime;
      next += d * digit;
    }
    now = next;
    if (now == 0) return std::nullopt;
    if (now == 1) break;
    powers.push_back(now);
    if (static_cast<std::int64_t>(powers.size()) >= q) return std::nullopt;
  }
  return static_cast<std::int64_t>(powers.size()) == q - 1 ? std::optional(std::move(powers)) : std::nullopt;
}

// +1 for squares of GF(q), -1 for other elements, 0 for 0; by element.
std::vector<std::int8_t> quadratic_character(const PrimePower& f, std::int64_t q) {
  std::vector<std::int8_t> chi(static_cast<std::size_t>(q), -1);
  chi[0] = 0;
  if (f.degree == 1) {
    for (std::int64_t a = 1; a < q; ++a) chi[static_cast<std::size_t>(a * a % q)] = 1;
    return chi;
  }
  for (std::int64_t low = 1; low < q; ++low) {
    const auto powers = powers_of_x(f, q, low);
    if (!powers) continue;
    for (std::size_t i = 0; i < powers->size(); i += 2) chi[static_cast<std::size_t>((*powers)[i])] = 1;
    return chi;
  }
  return {};  // every finite field has a generator: not reached
}

std::int64_t difference(const PrimePower& f, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  for (std::int64_t digit = 1; a > 0 || b > 0; digit *= f.prime, a /= f.prime, b /= f.prime)
    out += (a % f.prime - b % f.prime + f.prime) % f.prime * digit;
  return out;
}

std::vector<std::int8_t> make_core(const HadamardSize& size) {
  const std::int64_t q = size.field, m = q + 1;
  const PrimePower f = *prime_power(q);
  const std::vector<std::int8_t> chi = quadratic_character(f, q);
  // Bordered Jacobsthal matrix: skew for q = 3 mod 4, symmetric for q = 1 mod 4.
  std::vector<std::int8_t> s(static_cast<std::size_t>(m * m), 0);
  const auto at = [m](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * m + j); };
  for (std::int64_t i = 1; i < m; ++i) {
    s[at(0, i)] = 1;
    s[at(i, 0)] = static_cast<std::int8_t>(size.kind == HadamardCore::kPaley1 ? -1 : 1);
    for (std::int64_t j = 1; j < m; ++j) s[at(i, j)] = chi[static_cast<std::size_t>(difference(f, i - 1, j - 1))];
  }
  if (size.kind == HadamardCore::kPaley1) {
    for (std::int64_t i = 0; i < m; ++i) s[at(i, i)] = 1;
    return s;
  }
  const std::int64_t k = size.core;
  static constexpr int kOff[2][2] = {{1, 1}, {1, -1}}, kOn[2][2] = {{1, -1}, {-1, -1}};
  std::vector<std::int8_t> h(static_cast<std::size_t>(k * k));
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < k; ++j) {
      const int sign = i / 2 == j / 2 ? kOn[i % 2][j % 2] : s[at(i / 2, j / 2)] * kOff[i % 2][j % 2];
      h[static_cast<std::size_t>(i * k + j)] = static_cast<std::int8_t>(sign);
    }
  return h;
}

bool is_hadamard(const std::vector<std::int8_t>& c, std::int64_t k) {
  for (const std::int8_t v : c)
    if (v != 1 && v != -1) return false;
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      std::int64_t sum = 0;
      for (std::int64_t x = 0; x < k; ++x) sum += c[static_cast<std::size_t>(i * k + x)] * c[static_cast<std::size_t>(j * k + x)];
      if (sum != (i == j ? k : 0)) return false;
    }
  return true;
}

template <class T>
void run(std::int64_t core, std::int64_t n, const std::vector<T>& table, const T* in, T* out, std::int64_t rows) {
  const HadamardKernels& kernels = *hadamard_kernels().back();
  const HadamardRows<T> h{core, n / core, core > 1 ? table.data() : nullptr, static_cast<T>(1 / std::sqrt(static_cast<double>(n)))};
  // Together as many rows as fill a register, so that no stripe has a narrow rest of its own.
  constexpr std::int64_t kRows = 16;
  const std::int64_t blocks = (rows + kRows - 1) / kRows;
  quant::parallel_stripes(blocks, quant::threads_for(rows * n), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kRows, last = std::min(rows, end * kRows);
    if (first >= last) return;
    std::vector<T> scratch(core > 1 ? static_cast<std::size_t>(hadamard_scratch(core)) : 0);
    if constexpr (std::is_same_v<T, float>) kernels.floats(h, in + first * n, out + first * n, last - first, scratch.data());
    else kernels.doubles(h, in + first * n, out + first * n, last - first, scratch.data());
  });
}

}  // namespace

const std::vector<const HadamardKernels*>& hadamard_kernels() {
  static const std::vector<const HadamardKernels*> sets = [] {
    std::vector<const HadamardKernels*> out = {&kHadamard_default};
#if defined(__x86_64__) && defined(__GNUC__)
    const bool fma = __builtin_cpu_supports("fma");
    if (fma && __builtin_cpu_supports("avx2")) out.push_back(&kHadamard_avx2);
    if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      out.push_back(&kHadamard_avx512);
#endif
    return out;
  }();
  return sets;
}

HadamardSize find_hadamard(std::int64_t n) {
  if (n < 1 || n > kMostHadamardSize) return {0, 0, 0, HadamardCore::kNone};
  if (std::has_single_bit(static_cast<std::uint64_t>(n))) return {n, 1, 0, HadamardCore::kNone};
  // The smallest core has the most factors 2 left for the fast part.
  for (int j = std::countr_zero(static_cast<std::uint64_t>(n)); j >= 0; --j)
    if (HadamardSize s = core_of(n >> j); s.field != 0) {
      s.size = n;
      return s;
    }
  return {0, 0, 0, HadamardCore::kNone};
}

Result<HadamardSize> hadamard_size(std::int64_t n) {
  if (const HadamardSize s = find_hadamard(n); s.size != 0) return s;
  if (n < 1) return fail(ErrorCode::kInvalidArgument, "A Hadamard matrix has at least one row, not " + std::to_string(n) + ".");
  std::int64_t below = std::min(n, kMostHadamardSize);
  while (find_hadamard(below).size == 0) --below;
  const std::int64_t above = next_hadamard_size(n);
  return fail(ErrorCode::kInvalidArgument,
              "No Hadamard matrix of " + std::to_string(n) + " rows is known here; the nearest sizes are " + std::to_string(below) +
                  (above > 0 ? " and " + std::to_string(above) : std::string()) + ".",
              "Rotate in blocks of a size that has one, or with a random orthogonal matrix.");
}

std::int64_t next_hadamard_size(std::int64_t n) {
  for (std::int64_t m = std::max<std::int64_t>(1, n); m <= kMostHadamardSize; ++m)
    if (find_hadamard(m).size != 0) return m;
  return 0;
}

std::vector<std::int8_t> paley_core(std::int64_t k) {
  if (k == 1) return {1};
  const HadamardSize size = core_of(k);
  if (size.field == 0) return {};
  static std::mutex mutex;
  static std::map<std::int64_t, std::vector<std::int8_t>> made;
  std::lock_guard lock(mutex);
  auto& core = made[k];
  if (core.empty()) core = make_core(size);
  return core;
}

HadamardTransform::HadamardTransform(std::int64_t n, std::int64_t k, std::vector<std::int8_t> core) : n_(n), k_(k), core_(std::move(core)) {
  for (int t = 0; t < 2 && k > 1; ++t)
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int8_t v = core_[static_cast<std::size_t>(t == 0 ? i * k + j : j * k + i)];
        floats_[t].push_back(static_cast<float>(v));
        doubles_[t].push_back(static_cast<double>(v));
      }
}

Result<HadamardTransform> HadamardTransform::create(std::int64_t n, std::int64_t core) {
  if (core == 0) {
    QUANVAS_TRY(const HadamardSize size, hadamard_size(n));
    core = size.core;
  }
  std::vector<std::int8_t> c = paley_core(core);
  if (c.empty()) return fail(ErrorCode::kInvalidArgument, "There is no Hadamard core of " + std::to_string(core) + " rows.");
  if (n < 1 || n > kMostHadamardSize || n % core != 0 || !std::has_single_bit(static_cast<std::uint64_t>(n / core)))
    return fail(ErrorCode::kInvalidArgument, "A Hadamard matrix of " + std::to_string(n) + " rows is not a power of two times its core of " +
                                                 std::to_string(core) + " rows.");
  return HadamardTransform(n, core, std::move(c));
}

Result<HadamardTransform> HadamardTransform::with_core(std::int64_t n, const std::vector<std::int8_t>& core) {
  std::int64_t k = 1;
  while (k * k < static_cast<std::int64_t>(core.size())) ++k;
  if (k % 4 != 0 || k > kMostHadamardCore || k * k != static_cast<std::int64_t>(core.size()) || !is_hadamard(core, k))
    return fail(ErrorCode::kInvalidArgument, "The core is no Hadamard matrix: its rows are not orthogonal rows of +1 and -1, 4 at least.");
  if (n < 1 || n > kMostHadamardSize || n % k != 0 || !std::has_single_bit(static_cast<std::uint64_t>(n / k)))
    return fail(ErrorCode::kInvalidArgument, "A Hadamard matrix of " + std::to_string(n) + " rows is not a power of two times its core of " +
                                                 std::to_string(k) + " rows.");
  return HadamardTransform(n, k, core);
}

void HadamardTransform::apply(const float* in, float* out, std::int64_t rows, bool transposed) const {
  run(k_, n_, floats_[transposed ? 1 : 0], in, out, rows);
}
void HadamardTransform::apply(const double* in, double* out, std::int64_t rows, bool transposed) const {
  run(k_, n_, doubles_[transposed ? 1 : 0], in, out, rows);
}

std::vector<double> HadamardTransform::matrix() const {
  std::vector<double> h(static_cast<std::size_t>(n_ * n_));
  const double scale = 1 / std::sqrt(static_cast<double>(n_));
  const std::int64_t m = n_ / k_;
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t j = 0; j < n_; ++j) {
      const int c = core_[static_cast<std::size_t>(i / m * k_ + j / m)];
      const bool odd = std::popcount(static_cast<std::uint64_t>(i % m) & static_cast<std::uint64_t>(j % m)) % 2 != 0;
      h[static_cast<std::size_t>(i * n_ + j)] = (odd ? -c : c) * scale;
    }
  return h;
}

}  // namespace quanvas::algorithms
