#include "plugins/exporters/compressed_forms.h"

#include <algorithm>
#include <cmath>

#include "core/quant/dynamic.h"

namespace quanvas::compressed {
namespace {

using weight_file::LinearLayer;

constexpr float kLargestE4m3 = 448;

bool wants(const json& options, const char* form) {
  const std::string format = options.value("format", std::string("auto"));
  return format == "auto" || format == form;
}

TargetRow weight_row(const char* form) {
  TargetRow r;
  r.form = form;
  r.sites = {SiteKind::kWeight};
  r.ops = {"Gemm", "MatMul"};
  r.narrow.reset();
  r.zero_point_inside.reset();  // codes are stored as they are
  r.roundings.clear();
  return r;
}

TargetRow float_row(const char* form, const char* format, std::vector<Granularity> granularities, std::vector<int> groups,
                    std::vector<ScaleType> scales) {
  TargetRow r = weight_row(form);
  r.formats = {format};
  r.granularities = std::move(granularities);
  r.group_sizes = std::move(groups);
  r.scales = std::move(scales);
  return r;
}

TargetRow input_row(const char* form) {
  TargetRow r = weight_row(form);
  r.sites = {SiteKind::kInput};
  r.roundings = {Rounding::kHalfEven};
  r.decoupled = false;
  return r;
}

bool is_power_of_two(float s) {
  int exponent = 0;
  return s >= 0x1p-126f && s <= 0x1p127f && std::frexp(s, &exponent) == 0.5f;
}

json args(int bits, const char* type, bool symmetric, const char* strategy, json group, json dynamic) {
  return {{"num_bits", bits},
          {"type", type},
          {"symmetric", symmetric},
          {"group_size", std::move(group)},
          {"strategy", strategy},
          {"block_structure", json()},
          {"dynamic", dynamic},
          {"actorder", json()},
          {"observer", dynamic == true ? json() : json("minmax")},
          {"observer_kwargs", json::object()}};
}

}  // namespace

TargetTable table(const json& options) {
  using G = Granularity;
  TargetTable t;
  t.exactness = Exactness::kWeights;
  if (wants(options, kInt) || wants(options, kPack)) {
    TargetRow r = weight_row("int8 tensor, or packed int32 where the inputs are float");
    r.most_bits = 8;
    r.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
    r.granularities = {G::kGroup, G::kChannel, G::kTensor};
    r.why =
        "Codes are signed in the file: unsigned ones and their zero points are moved by half their range, which is exact.";
    t.rows.push_back(std::move(r));
  }
  if (wants(options, kFloat))
    t.rows.push_back(float_row("float8 tensor", "e4m3fn", {G::kChannel, G::kTensor, G::kGroup}, {}, {}));
  if (wants(options, kMxfp8)) t.rows.push_back(float_row("MXFP8", "e4m3fn", {G::kGroup}, {32}, {ScaleType::kPowerOfTwo}));
  if (wants(options, kNvfp4)) {
    t.rows.push_back(float_row("NVFP4", "e2m1", {G::kGroup}, {16}, {ScaleType::kFloat8}));
    t.rows.back().why = "Scales are float8 of one float32.";
  }
  if (wants(options, kMxfp4)) t.rows.push_back(float_row("MXFP4", "e2m1", {G::kGroup}, {32}, {ScaleType::kPowerOfTwo}));
  if (wants(options, kInt) || wants(options, kPack)) {
    TargetRow fixed = input_row("static int input: input_scale, input_zero_point");
    fixed.least_bits = 2;
    fixed.most_bits = 8;
    fixed.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
    t.rows.push_back(fixed);
    TargetRow token = input_row("dynamic int input, by token");
    token.least_bits = 2;
    token.most_bits = 8;
    token.is_signed = true;
    token.granularities = {G::kRow};
    token.dynamic = true;
    t.rows.push_back(token);
  }
  if (wants(options, kInt) || wants(options, kPack) || wants(options, kFloat)) {
    TargetRow fixed = input_row("static float8 input: input_scale");
    fixed.formats = {"e4m3fn"};
    t.rows.push_back(fixed);
    TargetRow token = input_row("dynamic float8 input, by token");
    token.formats = {"e4m3fn"};
    token.granularities = {G::kRow};
    token.dynamic = true;
    t.rows.push_back(token);
  }
  TargetNeed weight;
  weight.ops = {"Gemm", "MatMul"};
  weight.site = SiteKind::kWeight;
  weight.why = "a quantized linear layer has a quantized weight";
  weight.fix.granularity = G::kChannel;
  // Where the chosen format has no such integers, the nearest that it has.
  if (const TargetVerdict nearest = judge(t, "Gemm", weight.site, weight.fix); nearest.fix) weight.fix = *nearest.fix;
  t.needs = {weight};
  t.notes = {
      "Readers compute activations' codes in their own way: those by token with a scale of the largest magnitude divided "
      "by half the number of "
      "steps (127.5), static zero points added before or after the rounding.",
      "Quantizers of outputs, biases and layers other than linear ones have no place."};
  return t;
}

std::string form_of(const LinearLayer& l, const json& options) {
  const QuantSpec& s = l.quantizer->spec;
  const std::string name = format_name(s);
  const std::string given = options.value("format", std::string("auto"));
  std::vector<std::string> fits;
  if (s.format == "int" && s.bits <= 8) {
    // Integer products take bytes; float inputs, of 8 bits or more, packed weights.
    const bool integers = l.input && l.input->spec.format == "int";
    fits = integers ? std::vector<std::string>{kInt, kPack} : std::vector<std::string>{kPack, kInt};
  }
  const bool groups = s.granularity == Granularity::kGroup,
             powers = std::all_of(l.quantizer->scale.begin(), l.quantizer->scale.end(), is_power_of_two);
  if (name == "e4m3fn") {
    if (groups && l.quantizer->layout.group == 32 && powers && !l.input) fits.push_back(kMxfp8);
    fits.push_back(kFloat);
  }
  if (name == "e2m1" && groups && !l.input) {
    if (l.quantizer->layout.group == 16 && s.scale == ScaleType::kFloat8) fits.push_back(kNvfp4);
    if (l.quantizer->layout.group == 32 && powers) fits.push_back(kMxfp4);
  }
  if (given == "auto") return fits.empty() ? std::string() : fits.front();
  return std::find(fits.begin(), fits.end(), given) == fits.end() ? std::string() : given;
}

json scheme_of(const LinearLayer& l, const std::string& form) {
  const QuantSpec& s = l.quantizer->spec;
  const bool is_int = s.format == "int";
  const bool symmetric = !is_int || (s.is_signed && s.zero_point == ZeroPointType::kNone);
  const bool groups = s.granularity == Granularity::kGroup;
  // Packed zero points exist for channels and groups only.
  const char* strategy = form == kNvfp4                                           ? "tensor_group"
                         : groups                                                 ? "group"
                         : s.granularity == Granularity::kTensor && form != kPack ? "tensor"
                                                                                  : "channel";
  json weights = args(code_bits(s), is_int ? "int" : "float", symmetric, strategy,
                      groups ? json(l.quantizer->layout.group) : json(), false);
  if (form == kNvfp4) weights["scale_dtype"] = weights["zp_dtype"] = "torch.float8_e4m3fn";
  if (form == kMxfp4 || form == kMxfp8) weights["scale_dtype"] = weights["zp_dtype"] = "torch.uint8";
  json out = {{"weights", std::move(weights)}, {"input_activations", json()}, {"output_activations", json()}};
  if (l.input) {
    const QuantSpec& in = l.input->spec;
    const bool dynamic = quant::is_dynamic(*l.input), int_in = in.format == "int";
    out["input_activations"] =
        args(code_bits(in), int_in ? "int" : "float", !int_in || (in.is_signed && in.zero_point == ZeroPointType::kNone),
             dynamic ? "token" : "tensor", json(), dynamic);
  }
  return out;
}

TwoLevels two_levels(const std::vector<float>& scale) {
  float most = 0;
  for (const float s : scale) most = std::max(most, s);
  const auto code = [](float s, float divisor) { return small_code(DataType::kFloat8E4M3Fn, s * divisor); };
  TwoLevels out;
  out.divisor = kLargestE4m3 / most;
  // The largest scale is one of the float8 of a binade, nearly always the largest there is.
  constexpr int kSteps = 8;  // neighbours of each divisor that are tried
  for (int mantissa = 15; mantissa > 7 && !out.exact; --mantissa) {
    const float first = std::min(kLargestE4m3, std::ldexp(static_cast<float>(mantissa), 5)) / most;
    float divisor = first;
    for (int k = 0; k < kSteps; ++k) divisor = std::nextafter(divisor, 0.0f);
    for (int k = -kSteps; k <= kSteps && !out.exact; ++k, divisor = std::nextafter(divisor, HUGE_VALF)) {
      out.exact = std::all_of(scale.begin(), scale.end(), [&](float s) {
        return small_value(DataType::kFloat8E4M3Fn, code(s, divisor)) / divisor == s;
      });
      if (out.exact) out.divisor = divisor;
    }
  }
  for (const float s : scale) out.codes.push_back(code(s, out.divisor));
  return out;
}

}  // namespace quanvas::compressed
