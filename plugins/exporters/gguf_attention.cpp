// The attention of the architecture llama, as llama.cpp defines it, and its kin that it does not compute.
#include <algorithm>
#include <cmath>

#include "plugins/exporters/gguf_probe.h"

namespace quanvas::gguf_file {

void rotate(const RopeAttention& form, std::size_t tokens, std::size_t heads, std::vector<double>& x) {
  const auto size = static_cast<std::size_t>(form.size);
  const std::size_t turned = form.rotated < 0 ? size : static_cast<std::size_t>(form.rotated);
  for (std::size_t i = 0; i < turned / 2; ++i) {
    const double frequency = std::pow(form.base, -2.0 * static_cast<double>(i) / static_cast<double>(turned)) / form.factor;
    for (std::size_t t = 0; t < tokens; ++t) {
      const double angle = static_cast<double>(t) * frequency, c = std::cos(angle), s = std::sin(angle);
      for (std::size_t h = 0; h < heads; ++h) {
        const std::size_t at = (t * heads + h) * size;
        double &a = x[at + (form.halves ? i : 2 * i)], &b = x[at + (form.halves ? i + turned / 2 : 2 * i + 1)];
        const double a0 = a;
        a = a0 * c - b * s;
        b = a0 * s + b * c;
      }
    }
  }
}

std::vector<double> attention(const RopeAttention& form, std::size_t tokens, std::vector<double> q, std::vector<double> k,
                              const std::vector<double>& v) {
  const auto size = static_cast<std::size_t>(form.size), heads = static_cast<std::size_t>(form.heads),
             kv = static_cast<std::size_t>(form.kv_heads);
  rotate(form, tokens, heads, q);
  rotate(form, tokens, kv, k);
  const double divisor = form.divisor > 0 ? form.divisor : std::sqrt(static_cast<double>(size));
  std::vector<double> out(q.size());
  std::vector<double> score(tokens);
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::size_t g = h / (heads / kv), end = form.causal ? t + 1 : tokens;
      const std::size_t begin = form.window > 0 && t + 1 > form.window ? t + 1 - form.window : 0;
      double most = -INFINITY, sum = 0;
      for (std::size_t s = begin; s < end; ++s) {
        score[s] = 0;
        for (std::size_t i = 0; i < size; ++i) score[s] += q[(t * heads + h) * size + i] * k[(s * kv + g) * size + i];
        score[s] /= divisor;
        most = std::max(most, score[s]);
      }
      for (std::size_t s = begin; s < end; ++s) sum += score[s] = std::exp(score[s] - most);
      for (std::size_t s = begin; s < end; ++s)
        for (std::size_t i = 0; i < size; ++i) out[(t * heads + h) * size + i] += score[s] / sum * v[(s * kv + g) * size + i];
    }
  return out;
}

std::vector<std::pair<RopeAttention, std::string>> kin(const RopeAttention& form, std::size_t tokens) {
  std::vector<std::pair<RopeAttention, std::string>> out;
  const auto add = [&](auto change, std::string name) {
    RopeAttention other = form;
    change(other);
    out.emplace_back(other, std::move(name));
  };
  for (std::size_t w = 1; w < tokens; ++w)
    add([&](RopeAttention& f) { f.window = w; }, "a sliding window of " + std::to_string(w) + " tokens");
  add([](RopeAttention& f) { f.causal = false; }, "no causal mask");
  add([](RopeAttention& f) { f.rotated = 0; }, "no rotary embedding");
  for (int r = 2; r < form.size; r += 2)
    add([&](RopeAttention& f) { f.rotated = r; }, "a rotary embedding of only " + std::to_string(r) + " of the " +
                                                       std::to_string(form.size) + " elements of a head");
  for (const int factor : {2, 3, 4, 8, 16, 32})
    add([&](RopeAttention& f) { f.factor = factor; },
        "a scaled rotary embedding (positions divided by " + std::to_string(factor) + ")");
  add([](RopeAttention& f) { f.divisor = 1; }, "scores that are not divided by the root of the head's size");
  add([](RopeAttention& f) { f.divisor = f.size; }, "scores divided by the head's size");
  return out;
}

}  // namespace quanvas::gguf_file
