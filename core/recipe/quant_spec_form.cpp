// The form of a QuantSpec: titles, docs, ranges and choices of its fields.
#include "core/recipe/quant_spec.h"

#include <algorithm>

namespace quanvas {
namespace {

constexpr int kMaxBits = 32, kMaxGroup = 65536;

std::vector<Choice> granularity_choices(SiteKind site) {
  std::vector<Choice> out = {
      {"tensor", "Per tensor", "One scale for the whole tensor."},
      {"channel", "Per channel",
       is_activation(site) ? "One scale for each channel (axis 1). Symmetric only."
                           : "One scale for each output channel: no cost at run time on most targets."}};
  if (is_activation(site)) {
    out.push_back({"group", "Per group", "One scale for each block of group_size values along the axis. Dynamic scales only."});
    out.push_back({"row", "Per row (token)", "One scale for each line along the last axis. Dynamic scales only."});
  }
  if (site != SiteKind::kWeight) return out;
  out.push_back({"group", "Per group",
                 "One scale for each block of group_size consecutive weights along the reduction axis."});
  out.push_back({"row", "Per row", "One scale for each line along the last axis."});
  return out;
}

std::vector<Choice> statistic_choices(SiteKind site) {
  std::vector<Choice> out = {
      {"absmax", "Absolute maximum", "t = max |x|: nothing is clipped."},
      {"minmax", "Min / max", "[min x, max x] widened to contain 0: nothing is clipped."},
      {"percentile", "Percentile",
       "The threshold that the given percentage of |x| stays below; with a zero point, of both tails."},
      {"mse", "Least squared error", "The threshold that minimizes Σ (x − x~)² by search."},
      {"kl", "Least KL divergence", "The threshold whose quantized histogram diverges least (Migacz 2017). Symmetric."},
      {"mean", "Mean magnitude", "t = mean |x|. Symmetric; the best scale of a binary format."},
      {"mean-sigma", "Mean + k σ", "t = mean |x| + k · standard deviation of |x|. Symmetric."}};
  out.push_back({"max-mean", "Mean of channel maxima", "t = mean over the channels of max |x|. Per tensor."});
  if (is_activation(site)) return out;
  out.push_back({"l1", "L1 norm", "t = Σ |x|. Symmetric."});
  out.push_back({"l2", "L2 norm", "t = √Σ x². Symmetric."});
  out.push_back({"he", "He initialization", "t = √(2 / fan in), from the shape alone (He et al. 2015). Symmetric."});
  out.push_back({"hqo", "Half-quadratic", "Scale and zero point by half-quadratic splitting (Badri and Shaji 2023)."});
  out.push_back({"max-rms", "RMS of channel maxima", "t = √ of the mean over the channels of (max |x|)². Per tensor."});
  out.push_back({"signed-max", "Signed maximum",
                 "The value of the largest magnitude gets the lowest code; the scale has its sign (GGUF)."});
  return out;
}

// All but "tensor".
std::vector<json> granularities_with_axis(SiteKind site) {
  std::vector<json> out;
  for (const Choice& c : granularity_choices(site))
    if (c.value != "tensor") out.push_back(c.value);
  return out;
}

const char* const kIntOnly = "int";

// A field that may be empty: then it follows from the others.
Field optional_field(Field field) {
  field.default_value = nullptr;
  return field;
}

void add_format_fields(SiteKind site, std::vector<Field>& f) {
  f.push_back(choice_field("format", "Format", "Number format: which values the codes stand for.", "int",
                           {{"int", "Integer", "x~ = (q − z) · s with q = clamp(rint(x / s) + z, lo, hi)."},
                            {"float", "Minifloat", "Sign, exponent and mantissa bits, with subnormals, times a scale."},
                            {"ternary", "Ternary", "−s, 0 or s."},
                            {"binary", "Binary", "−s or s; 0 becomes s."}}));
  for (const Codebook& book : codebooks()) f.back().choices.push_back({book.id, book.title, book.doc});
  f.push_back(when(integer_field("bits", "Bits", "Width of a code; 2^bits codes.", site == SiteKind::kBias ? 32 : 8, 1,
                                 kMaxBits, "bit"),
                   "format", {kIntOnly}));
  f.push_back(when(integer_field("exponent_bits", "Exponent bits", "Width of the exponent.", 4, 1, 7, "bit"), "format", {"float"}));
  f.push_back(when(integer_field("mantissa_bits", "Mantissa bits", "Mantissa bits after the leading one.", 3, 0, 10, "bit"),
                   "format", {"float"}));
  f.push_back(when(optional_field(integer_field("exponent_bias", "Exponent bias",
                                                "What is taken off the exponent's code. Automatic: 2^(exponent bits − 1) − 1, "
                                                "of FNUZ one more.",
                                                0, -64, 127)),
                   "format", {"float"}));
  f.push_back(when(choice_field("specials", "Infinity, NaN", "Patterns that are no numbers.", "nan",
                                {{"none", "None", "Every pattern is a number (OCP MX formats of 4 and 6 bits)."},
                                 {"nan", "NaN only", "All bits set is NaN (OCP E4M3)."},
                                 {"ieee", "As IEEE 754", "The highest exponent is infinity and NaN (OCP E5M2)."},
                                 {"fnuz", "FNUZ", "−0 is NaN; exponent bias one larger."}}),
                   "format", {"float"}));
  f.push_back(when(bool_field("saturate", "Saturate", "Values beyond the largest become it; else infinity or NaN.", true),
                   "format", {"float"}));
  f.push_back(when(real_field("ternary_threshold", "Threshold", "|x| up to this share of the scale becomes 0.", 0.5, 1e-6,
                              1 - 1e-6),
                   "format", {"ternary"}));
}

void add_accumulator_fields(std::vector<Field>& f) {
  constexpr int kLeast = 4, kMost = 32;
  f.push_back(when(optional_field(integer_field("accumulator_bits", "Accumulator",
                                                "Width of a signed accumulator that no input can overflow (A2Q, Colbert et al. "
                                                "2023): bounds the sum of |codes| of each channel. Automatic: not bounded.",
                                                0, kLeast, kMost, "bit")),
                   "format", {kIntOnly}));
  std::vector<json> bounded;
  for (int bits = kLeast; bits <= kMost; ++bits) bounded.push_back(bits);
  f.push_back(when(integer_field("accumulator_input_bits", "Input bits", "Width of the input's codes that the bound holds for.", 8,
                                 1, 16, "bit"),
                   "accumulator_bits", bounded));
  f.push_back(when(bool_field("accumulator_input_signed", "Input signed", "Whether the input's codes have a sign.", false),
                   "accumulator_bits", bounded));
  f.push_back(when(bool_field("zero_centered", "Zero-centered",
                              "The channel's mean is taken off its codes: a wider bound (A2Q+, Colbert et al. 2024).", false),
                   "accumulator_bits", bounded));
}

std::vector<Field> form_fields(SiteKind site) {
  const bool activation = is_activation(site);
  std::vector<Field> f;
  add_format_fields(site, f);
  f.push_back(when(bool_field("signed", "Signed",
                              "Codes −2^(b−1) … 2^(b−1)−1; otherwise 0 … 2^b−1, for tensors without negative values or "
                              "with a zero point.",
                              !activation),
                   "format", {"int", "float"}));
  f.push_back(when(bool_field("narrow", "Narrow range",
                              "Signed: drops the lowest code, so that the range is symmetric (8 bit: −127 … 127). "
                              "Unsigned: drops the highest.",
                              site == SiteKind::kWeight),
                   "format", {kIntOnly}));
  f.push_back(choice_field("granularity", "Granularity", "How many scales the tensor has.",
                           site == SiteKind::kWeight ? "channel" : "tensor", granularity_choices(site)));
  if (site != SiteKind::kBias)
    f.push_back(when(integer_field("group_size", "Group size", "Values that share a scale; the last group may be shorter.",
                                   32, 1, kMaxGroup, "elements"),
                     "granularity", {"group"}));
  f.push_back(when(optional_field(integer_field("axis", "Axis",
                                                "Along which channels, groups or rows run: 0 is the first axis, −1 the last. "
                                                "Automatic: the layer's own.",
                                                0, -8, 7)),
                   "granularity", granularities_with_axis(site)));
  f.push_back(when(choice_field("zero_point", "Zero point", "Code of the value 0.", activation ? "integer" : "none",
                                {{"none", "None (symmetric)", "z = 0: cheaper arithmetic."},
                                 {"integer", "Integer (asymmetric)",
                                  "z = rint(lo − min / s), s = (max − min) / (hi − lo); the range always contains 0."},
                                 {"float", "Float", "z = lo − min / s, not rounded; added before the rounding."},
                                 {"offset", "Offset", "x~ = q · s + m with a real m: the least value (GGUF)."}}),
                   "format", {kIntOnly}));
  f.push_back(when(bool_field("zero_point_inside", "Added before rounding",
                              "rint(x / s + z) as QONNX; else rint(x / s) + z as ONNX and PyTorch.", false),
                   "zero_point", {"integer", "float"}));
  f.push_back(choice_field("statistic", "Range from", "What the clipping threshold, and so the scale, is computed from.",
                           activation ? "minmax" : "absmax", statistic_choices(site)));
  f.push_back(when(choice_field("search", "Search", "How the least squared error is searched for.", "grid",
                                {{"grid", "Grid", "20 thresholds between 0 and the extreme."},
                                 {"bracketing", "Bracketing", "10 thresholds, then ever closer around the best: finer, slower."}}),
                   "statistic", {"mse"}));
  f.push_back(when(real_field("percentile", "Percentile",
                              "Share of |x| (symmetric) or of each tail (with a zero point) that is not clipped.", 99.999,
                              50, 100, "%"),
                   "statistic", {"percentile"}));
  f.push_back(when(real_field("sigma", "k", "Standard deviations above the mean.", 3, 0, 100), "statistic", {"mean-sigma"}));
  f.push_back(choice_field("scale", "Scale", "Which values the scale may take.", "float32",
                           {{"float32", "Float32", "Any positive float32."},
                            {"power-of-two", "Power of two", "2^e: multiplication by the scale is a shift."},
                            {"float16", "Float16", "A float16, rounded up."},
                            {"float8", "Two-level float8", "A float32 for the tensor and an E4M3 for each block (NVFP4)."},
                            {"quantized", "Two-level integer",
                             "An integer for each block, a float16 for several blocks (GGUF's K formats)."}}));
  f.push_back(when(integer_field("scale_bits", "Scale bits", "Width of a block's integer scale.", 6, 2, 8, "bit"), "scale",
                   {"quantized"}));
  f.push_back(when(integer_field("scale_group", "Super-block", "Blocks that share a float16; 0: all of a line.", 8, 0,
                                 kMaxGroup, "blocks"),
                   "scale", {"quantized"}));
  f.push_back(when(choice_field("exponent_rounding", "Exponent", "How the exponent of the scale follows from the threshold t.",
                                "ceil",
                                {{"ceil", "Ceil", "ceil(log2 t) − e: of an integer never clips."},
                                 {"floor", "Floor (OCP MX)", "floor(log2 t) − e: the top of a block may saturate."},
                                 {"round", "Round", "round(log2 t) − e."},
                                 {"fit", "Fit", "ceil(log2(t / largest)): the least that does not clip."},
                                 {"next", "Next", "floor(log2 t) + 1 − e: the least power of two above t (OCP MXINT8)."},
                                 {"even", "Even", "floor(log2 t) − e after rounding t's mantissa to the format's bits."}}),
                   "scale", {"power-of-two"}));
  f.push_back(choice_field("source", "Scale from", "Where the scale comes from, and what training does with it.",
                           "statistics",
                           {{"statistics", "Statistics", "Computed from the values; in training anew at every step."},
                            {"learned", "Learned", "A parameter trained by gradient (LSQ, Esser et al. 2020)."},
                            {"constant", "Constant", "A number that is given; never changed."},
                            {"stored", "Model file",
                             "Scale and zero point that the imported file gives for this tensor and format; where it gives "
                             "none, from the statistic."}}));
  if (activation)
    f.back().choices.push_back({"dynamic", "Dynamic", "Found from each sample at run time; needs no calibration."});
  f.push_back(when(real_field("scale_value", "Scale value", "The constant scale.", 1, 1e-37, 1e37), "source", {"constant"}));
  f.push_back(when(choice_field("scale_domain", "Trained as", "What the gradient changes.", "log",
                                {{"linear", "Scale", "The scale itself."},
                                 {"log", "log2 of the scale", "Steps are relative to the scale, which stays positive."}}),
                   "source", {"learned"}));
  f.push_back(when(bool_field("learn_zero_point", "Learn zero point", "The zero point is trained, too.", false), "source",
                   {"learned"}));
  f.push_back(when(bool_field("learn_bits", "Learn width", "The number of bits is trained, too; at least 2.", false), "source",
                   {"learned"}));
  f.push_back(integer_field("delay", "Delay", "Training steps before quantization begins.", 0, 0, 2147483647, "steps"));
  f.push_back(when(choice_field("rounding", "Rounding", "How x / s becomes a code.", "half-even",
                                {{"half-even", "Half to even", "To the nearest, ties to the even one (IEEE 754)."},
                                 {"half-up", "Half up", "To the nearest, ties upward: floor(v + ½)."},
                                 {"half-away", "Half away from zero", "To the nearest, ties away from 0."},
                                 {"ceil", "Up", "ceil(v)."},
                                 {"floor", "Down", "floor(v)."},
                                 {"toward-zero", "Toward zero", "sign(v) · floor |v|."},
                                 {"dpu", "DPU", "Ties of negative values upward, of positive ones to even."},
                                 {"stochastic", "Stochastic", "Up with the probability of the fraction; seeded."}}),
                   "format", {"int", "float"}));
  if (activation) {
    f.push_back(choice_field("batches", "Batches", "How the calibration's batches count.", "all",
                             {{"all", "Together", "One statistic of all samples."},
                              {"mean", "Mean", "The mean of the batches' statistics."},
                              {"ema", "Moving average", "Exponential moving average over the batches."}}));
    f.push_back(when(real_field("momentum", "Momentum", "Share of the newest batch.", 0.1, 1e-6, 1), "batches", {"ema"}));
  }
  if (site == SiteKind::kOutput) {
    f.push_back(when(choice_field("truncation", "Truncation", "The output of an average pool is a sum of integers that loses low bits.",
                                  "none",
                                  {{"none", "None", "Quantized as any tensor."},
                                   {"msb", "By width", "As many bits as the sum has more than the format."},
                                   {"statistic", "By range", "The power of two that the values of calibration ask for."}}),
                     "format", {kIntOnly}));
  }
  if (site == SiteKind::kWeight) {
    f.push_back(when(choice_field("decoupled", "Second scale", "Codes from a scale of their own: weight normalization.", "none",
                                  {{"none", "None", "One scale for codes and values."},
                                   {"l1", "L1 norm", "s · ‖x‖₁ / g; bounds the accumulator (A2Q)."},
                                   {"l2", "L2 norm", "s · ‖x‖₂ / g."},
                                   {"inf", "Maximum", "s · max |x| / g."}}),
                     "format", {kIntOnly}));
    add_accumulator_fields(f);
  }
  f.push_back(when(integer_field("seed", "Seed", "Of the stochastic rounding.", 0, 0, 2147483647), "rounding", {"stochastic"}));
  return f;
}

Schema make_form(SiteKind site) {
  Schema schema{form_fields(site)};
  if (site != SiteKind::kBias) return schema;
  // A bias is an integer, at the accumulator's scale or at one of its own.
  std::erase_if(schema.fields, [](const Field& f) {
    return f.enabled_if && f.enabled_if->key == "format" && f.enabled_if->values == std::vector<json>{"float"};
  });
  std::erase_if(schema.fields, [](const Field& f) { return f.key == "ternary_threshold"; });
  for (auto& field : schema.fields) {
    if (field.key == "format") field.choices.resize(1);
    const bool of_format = field.enabled_if && field.enabled_if->key == "format";
    if (field.key == "format" || field.key == "bits" || (field.enabled_if && !of_format)) continue;
    field.enabled_if = EnabledIf{"scale_from_accumulator", {false}};
  }
  const auto after_bits = schema.fields.begin() + 2;
  schema.fields.insert(after_bits, bool_field("scale_from_accumulator", "Accumulator scale",
                                              "s = input scale · weight scale, zero point 0: the bias is added to the "
                                              "integer accumulator as it is.",
                                              true));
  return schema;
}

}  // namespace

const Schema& quant_spec_schema(SiteKind site) {
  static const Schema forms[] = {make_form(SiteKind::kWeight), make_form(SiteKind::kBias), make_form(SiteKind::kInput),
                                 make_form(SiteKind::kOutput), make_form(SiteKind::kInternal)};
  return forms[static_cast<std::size_t>(site)];
}
}  // namespace quanvas
