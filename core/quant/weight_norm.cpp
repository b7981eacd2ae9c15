#include "core/quant/weight_norm.h"

#include <algorithm>
#include <cmath>

#include "core/quant/apply.h"
#include "core/quant/decouple.h"
#include "core/quant/parallel.h"
#include "core/quant/strided.h"

namespace quanvas::quant {
namespace {

constexpr double kLn2 = 0.69314718055994530942;
constexpr double kSmallestLength = 1e-10;  // of a row of zeros

// The elements of parameter p side by side, and their numbers.
struct Elements {
  std::vector<float> x;
  std::vector<std::int64_t> index;
  void take(const BlockLayout& layout, std::int64_t p, const float* from) {
    const Strided s = elements_of(layout, p);
    x.clear();
    index.clear();
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t i = 0; i < s.run; ++i) {
        index.push_back(s.base + r * s.stride + i);
        x.push_back(from[index.back()]);
      }
  }
  std::int64_t count() const { return static_cast<std::int64_t>(x.size()); }
};

template <class F>
void over_parameters(const BlockLayout& layout, const float* x, const F& f) {
  parallel_stripes(layout.parameters(), threads_for(layout.elements()),
                   [&](std::int64_t, std::int64_t begin, std::int64_t end) {
                     Elements elements;
                     for (std::int64_t p = begin; p < end; ++p) {
                       elements.take(layout, p, x);
                       if (elements.count() > 0) f(static_cast<std::size_t>(p), elements);
                     }
                   });
}

float center_of(const QuantParams& params, std::size_t p) {
  return params.center.empty() ? 0.0f : params.center[p];
}

// log2 of s T; infinite without a bound.
double bound_exponent(const QuantParams& params, std::size_t p) {
  if (!params.spec.accumulator_bits) return INFINITY;
  return std::log2(static_cast<double>(params.scale[p]) * code_norm_bound(params.spec));
}

// One parameter's gradients.
struct Backward {
  const QuantParams& params;
  const Grid& grid;
  std::size_t p;
  const Elements& e;
  const float* dy;
  bool pass_clipped;

  double scale = 0;            // dL/ds with g held
  double length = 0;           // dL/dg
  double norm = 0, along = 0;  // N; sum of dy u over what passes
  std::vector<char> passes = {};
  std::size_t largest = 0;

  void sums() {
    ElementQuantizer q(grid, params.scale[p], 0);
    q.code_scale = params.code_scale[p];
    q.center = center_of(params, p);
    norm = code_norm(params.spec.decoupled, e.x.data(), e.count(), q.center);
    passes.resize(e.x.size());
    for (std::size_t i = 0; i < e.x.size(); ++i) {
      if (!params.rounding.empty()) q.rounding = params.rounding[static_cast<std::size_t>(e.index[i])];
      const double g = static_cast<double>(dy[e.index[i]]), u = centered(i);
      const double code = q.point(e.x[i], e.index[i]), v = static_cast<double>((e.x[i] - q.center) / q.code_scale);
      const bool inside = q.passes(e.x[i]);
      scale += g * (inside ? code - v : code);
      if (inside && norm > 0) length += g * u / norm;
      passes[i] = inside || pass_clipped;
      if (passes[i]) along += g * u;
      if (std::fabs(u) > std::fabs(centered(largest))) largest = i;
    }
  }

  double centered(std::size_t i) const { return static_cast<double>(e.x[i] - center_of(params, p)); }
  // dN / du
  double norm_slope(std::size_t i) const {
    const double u = centered(i), sign = u > 0 ? 1 : u < 0 ? -1 : 0;
    if (params.spec.decoupled == Decoupling::kL2) return u / norm;
    return params.spec.decoupled == Decoupling::kL1 || i == largest ? sign : 0;
  }

  void write(float* dx) const {
    const double per_norm =
        static_cast<double>(params.scale[p]) / static_cast<double>(params.code_scale[p]);  // g / N
    std::vector<double> du(e.x.size());
    double mean = 0;
    for (std::size_t i = 0; i < du.size(); ++i) {
      const double g = passes[i] ? static_cast<double>(dy[e.index[i]]) : 0;
      du[i] = norm > 0 ? per_norm * (g - along / norm * norm_slope(i)) : g;
      mean += du[i] / static_cast<double>(du.size());
    }
    const bool centers = params.spec.zero_centered;  // the mean follows every element
    for (std::size_t i = 0; i < du.size(); ++i) dx[e.index[i]] = static_cast<float>(du[i] - (centers ? mean : 0));
  }
};

}  // namespace

std::vector<float> present_lengths(const QuantParams& params, const BlockLayout& layout, const float* x) {
  std::vector<float> lengths(params.scale.size());
  over_parameters(layout, x, [&](std::size_t p, const Elements& e) {
    const double norm = code_norm(params.spec.decoupled, e.x.data(), e.count(), center_of(params, p));
    const double g = norm * static_cast<double>(params.scale[p]) / static_cast<double>(params.code_scale[p]);
    lengths[p] = static_cast<float>(std::log2(std::max(g, kSmallestLength)));
  });
  return lengths;
}

void set_lengths(QuantParams& params, const BlockLayout& layout, const float* x,
                 const std::vector<float>& lengths) {
  over_parameters(layout, x, [&](std::size_t p, const Elements& e) {
    decouple(params, p, e.x.data(), e.count(), std::exp2(static_cast<double>(lengths[p])));
  });
}

void decoupled_backward(const QuantParams& params, const BlockLayout& layout, const std::vector<float>& lengths,
                        const float* x, const float* dy, float* dx, float* dscale, float* dlengths,
                        bool pass_clipped) {
  Grid grid = grid_of(params.spec);
  grid.lo = static_cast<double>(params.lo);
  grid.hi = static_cast<double>(params.hi);
  over_parameters(layout, x, [&](std::size_t p, const Elements& e) {
    Backward b{params, grid, p, e, dy, pass_clipped};
    b.sums();
    const double t = static_cast<double>(lengths[p]);
    if (t > bound_exponent(params, p)) {
      b.scale += b.length * code_norm_bound(params.spec);
    } else {
      dlengths[p] += static_cast<float>(b.length * std::exp2(t) * kLn2);
    }
    dscale[p] += static_cast<float>(b.scale);
    b.write(dx);
  });
}

double length_penalty(const QuantParams& params, const std::vector<float>& lengths, double weight, float* dscale,
                      float* dlengths) {
  double sum = 0;
  for (std::size_t p = 0; p < lengths.size() && params.spec.accumulator_bits; ++p) {
    const double above = static_cast<double>(lengths[p]) - bound_exponent(params, p);
    if (above <= 0) continue;
    sum += above;
    dlengths[p] += static_cast<float>(weight);
    dscale[p] -= static_cast<float>(weight / (kLn2 * static_cast<double>(params.scale[p])));
  }
  return sum;
}

}  // namespace quanvas::quant
