// The attention of the architecture llama, as llama.cpp defines it.
#include <algorithm>
#include <cmath>

#include "plugins/exporters/gguf_probe.h"

namespace quanvas::gguf_file {

std::vector<double> attention(const RopeAttention& form, std::size_t tokens, std::vector<double> q, std::vector<double> k,
                              const std::vector<double>& v) {
  const auto size = static_cast<std::size_t>(form.size), heads = static_cast<std::size_t>(form.heads),
             kv = static_cast<std::size_t>(form.kv_heads);
  const auto rotate = [&](std::vector<double>& x, std::size_t count) {
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t h = 0; h < count; ++h)
        for (std::size_t i = 0; i < size / 2; ++i) {
          const double angle =
              static_cast<double>(t) * std::pow(form.base, -2.0 * static_cast<double>(i) / static_cast<double>(size));
          const std::size_t at = (t * count + h) * size;
          double &a = x[at + (form.halves ? i : 2 * i)], &b = x[at + (form.halves ? i + size / 2 : 2 * i + 1)];
          const double c = std::cos(angle), s = std::sin(angle), a0 = a;
          a = a0 * c - b * s;
          b = a0 * s + b * c;
        }
  };
  rotate(q, heads);
  rotate(k, kv);
  std::vector<double> out(q.size());
  std::vector<double> score(tokens);
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::size_t g = h / (heads / kv);
      double most = -INFINITY, sum = 0;
      for (std::size_t s = 0; s <= t; ++s) {
        score[s] = 0;
        for (std::size_t i = 0; i < size; ++i) score[s] += q[(t * heads + h) * size + i] * k[(s * kv + g) * size + i];
        score[s] /= std::sqrt(static_cast<double>(size));
        most = std::max(most, score[s]);
      }
      for (std::size_t s = 0; s <= t; ++s) sum += score[s] = std::exp(score[s] - most);
      for (std::size_t s = 0; s <= t; ++s)
        for (std::size_t i = 0; i < size; ++i) out[(t * heads + h) * size + i] += score[s] / sum * v[(s * kv + g) * size + i];
    }
  return out;
}

}  // namespace quanvas::gguf_file
