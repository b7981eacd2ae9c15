#include "core/recipe/quant_spec.h"

#include <algorithm>
#include <cmath>

namespace quanvas {
namespace {

constexpr int kMaxBits = 32;

bool is_integer(const QuantSpec& s) { return s.format == "int"; }
bool is_float(const QuantSpec& s) { return s.format == "float"; }

}  // namespace

const std::vector<Codebook>& codebooks() {
  static const std::vector<Codebook> books = {
      {"nf4", "NormalFloat 4", "Quantiles of the normal distribution (QLoRA, Dettmers et al. 2023, appendix E).",
       {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
        -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
        0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f}},
      {"iq4nl", "IQ4_NL", "The 16 values of GGUF's type 20.",
       {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}}};
  return books;
}

const Codebook* find_codebook(const std::string& id) {
  for (const Codebook& book : codebooks())
    if (book.id == id) return &book;
  return nullptr;
}

int code_bits(const QuantSpec& spec) {
  if (is_float(spec)) return (spec.is_signed ? 1 : 0) + spec.exponent_bits + spec.mantissa_bits;
  if (spec.format == "ternary") return 2;
  if (spec.format == "binary") return 1;
  if (const Codebook* book = find_codebook(spec.format)) {
    int bits = 1;
    while (std::size_t{1} << bits < book->values.size()) ++bits;
    return bits;
  }
  return spec.bits;
}

QuantSpec with_bits(QuantSpec spec, int bits) {
  spec.format = "int";
  spec.bits = bits;
  spec.narrow = spec.narrow && bits > 1;
  if (spec.exponent_rounding == ExponentRounding::kEven) spec.exponent_rounding = ExponentRounding::kCeil;
  if (spec.source == ScaleSource::kConstant) {
    spec.source = ScaleSource::kStatistics;
    spec.scale_value.reset();
  }
  if (spec.source == ScaleSource::kStored) spec.source = ScaleSource::kStatistics;
  return spec;
}

double largest_float(const QuantSpec& spec) {
  const int e = std::clamp(spec.exponent_bits, 1, 8), m = std::clamp(spec.mantissa_bits, 0, 10);
  const bool fnuz = spec.specials == FloatSpecials::kFnuz;
  const int bias = spec.exponent_bias.value_or((1 << (e - 1)) - (fnuz ? 0 : 1));
  // The highest pattern that is a number, as exponent field and mantissa field.
  int exponent = (1 << e) - 1, mantissa = (1 << m) - 1;
  if (spec.specials == FloatSpecials::kIeee) --exponent;
  if (spec.specials == FloatSpecials::kNan && --mantissa < 0) {
    --exponent;
    mantissa = (1 << m) - 1;
  }
  const double fraction = static_cast<double>(mantissa) / (1 << m);
  return exponent > 0 ? std::ldexp(1 + fraction, exponent - bias) : std::ldexp(fraction, 1 - bias);
}

CodeRange code_range(const QuantSpec& spec) {
  if (is_float(spec)) return {0, (std::int64_t{1} << code_bits(spec)) - 1};
  if (const Codebook* book = find_codebook(spec.format)) return {0, static_cast<std::int64_t>(book->values.size()) - 1};
  if (!is_integer(spec)) return {-1, 1};
  const int bits = std::clamp(spec.bits, 1, kMaxBits);
  const std::int64_t half = std::int64_t{1} << (bits - 1);
  if (spec.is_signed) return {spec.narrow ? 1 - half : -half, half - 1};
  return {0, 2 * half - (spec.narrow ? 2 : 1)};
}

}  // namespace quanvas
