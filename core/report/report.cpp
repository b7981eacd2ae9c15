#include "core/report/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace quanvas {
namespace {

// Four significant digits of `perplexity`, three decimals at most; powers of ten where it is far from any text's.
std::string digits_of(double value, double perplexity) {
  if (std::isnan(value)) return "-";
  constexpr double kPlain = 1e6;
  const bool plain = perplexity < kPlain;
  const int whole = plain && perplexity >= 1 ? static_cast<int>(std::log10(perplexity)) : 0;
  char out[64];
  std::snprintf(out, sizeof out, plain ? "%.*f" : "%.*e", std::max(0, 3 - whole), value);
  return out;
}

}  // namespace

std::string perplexity_digits(double perplexity) { return digits_of(perplexity, perplexity); }

std::string perplexity_text(const Accuracy& a) {
  std::string out = perplexity_digits(a.perplexity);
  if (!std::isnan(a.perplexity_stderr)) out += " ± " + digits_of(a.perplexity_stderr, a.perplexity);
  return out + " ppl";
}

std::string Refusal::text() const {
  std::string out = layer.empty() ? std::string("The model") : layer;
  if (!quantizer.empty()) out += (layer.empty() ? ", " : " ") + quantizer;
  out += ": " + rule;
  if (!got.empty()) out += ": " + got;
  if (!allowed.empty()) out += " (taken: " + allowed + ")";
  if (out.back() != '.') out += ".";
  if (!suggestion.empty()) out += " " + suggestion;
  if (out.back() != '.') out += ".";
  return out;
}

}  // namespace quanvas
