// tensor: quantizes an array of a file with any declaration, without a model and so without LibTorch.
#include "app/cli/tensor.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/cli/print.h"
#include "core/base/files.h"
#include "core/data/npy.h"
#include "core/quant/params.h"
#include "core/quant/qtensor.h"
#include "core/quant/truncate.h"
#include "core/recipe/preset_names.h"

namespace quanvas::cli {
namespace {

namespace fs = std::filesystem;
using quant::QuantParams;

constexpr std::uint64_t kMostSpecBytes = 1 << 20;

Failure missing(const std::string& option, const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, option + " is missing: " + why);
}

// A preset's id, or a file with a declaration; 'base' in it names the preset that it changes.
Result<QuantSpec> spec_of(const Options& o) {
  Rule rule;
  std::error_code ec;
  if (fs::exists(o.spec, ec)) {
    QUANVAS_TRY(const std::string text, read_file(o.spec, kMostSpecBytes));
    QUANVAS_TRY(rule.override_fields, parse_json(text, o.spec));
    if (!rule.override_fields.is_object())
      return fail(ErrorCode::kInvalidArgument, "'" + o.spec + "' holds no map of fields.",
                  "Write {\"format\": \"int\", \"bits\": 4, ...}; see docs/file-formats.md.");
    if (const auto base = rule.override_fields.find("base"); base != rule.override_fields.end()) {
      if (!base->is_string()) return fail(ErrorCode::kInvalidArgument, "'base' in '" + o.spec + "' is no text.", "Name a preset.");
      rule.preset = base->get<std::string>();
      rule.override_fields.erase("base");
    }
  } else if (PresetLibrary::builtin().find(o.spec)) {
    rule.preset = o.spec;
  } else {
    return fail(ErrorCode::kNotFound, "There is neither a file nor a preset '" + o.spec + "'.",
                preset_hint(o.spec, PresetLibrary::builtin()));
  }
  // Values as JSON where they are (4, true), else as text (power-of-two).
  for (const std::string& given : o.options) {
    const auto equals = given.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorCode::kInvalidArgument, "--set is '" + given + "'; write FIELD=VALUE.");
    const std::string value = given.substr(equals + 1);
    const json parsed = json::parse(value, nullptr, /*allow_exceptions=*/false);
    rule.override_fields[given.substr(0, equals)] = parsed.is_discarded() ? json(value) : parsed;
  }
  QUANVAS_TRY(QuantSpec spec, rule_spec(rule, PresetLibrary::builtin()));
  if (o.axis) spec.axis = *o.axis;
  if (const std::string problem = check(spec); !problem.empty()) return fail(ErrorCode::kInvalidArgument, problem);
  return spec;
}

// The axis of the scales of a weight: output channels, or what groups divide.
int default_axis(const Options& o, const QuantSpec& spec) {
  const bool transposed = o.layer == "conv-transpose";
  if (spec.granularity == Granularity::kGroup) {
    if (o.kind == "weight") return transposed ? 0 : 1;
    return o.layer == "linear" ? -1 : 1;
  }
  if (spec.granularity == Granularity::kRow) return -1;
  if (o.kind == "activation") return 1;
  return transposed && o.kind == "weight" ? 1 : 0;
}

Result<QuantParams> bias_from_accumulator(const Options& o, const QuantSpec& spec, const FloatArray& x) {
  if (o.input_scale.empty()) return missing("--input-scale", "the bias takes its scale from the accumulator.");
  if (o.weight_scale.empty()) return missing("--weight-scale", "the bias takes its scale from the accumulator.");
  QUANVAS_TRY(const FloatArray input, read_npy(o.input_scale));
  QUANVAS_TRY(const FloatArray weight, read_npy(o.weight_scale));
  if (input.values.size() != 1)
    return fail(ErrorCode::kInvalidArgument, "--input-scale holds " + std::to_string(input.values.size()) +
                                                 " numbers; a bias needs an input with one scale.");
  return quant::bias_params(spec, input.values[0], weight.values, x.shape, 0);
}

// Ranges of activations from the samples: of all together, or of each file as a batch.
Result<QuantParams> from_samples(const Options& o, const QuantSpec& spec, const FloatArray& x, int axis) {
  if (o.calib.empty()) return missing("--calib", "the range of a static activation comes from samples.");
  std::vector<quant::Ranges> batches;
  FloatArray all;
  for (const std::string& path : o.calib) {
    QUANVAS_TRY(const FloatArray sample, read_npy(path));
    if (spec.granularity != Granularity::kTensor && sample.shape.size() != x.shape.size())
      return fail(ErrorCode::kInvalidArgument, "'" + path + "' has shape " + shape_text(sample.shape) + ", the array " +
                                                   shape_text(x.shape) + "; scales per channel need the same axes.");
    if (spec.batches == BatchStatistic::kAll) {
      // Exact statistics of all values: the files one after the other along the first axis.
      if (!all.values.empty() && (sample.shape.size() != all.shape.size() || sample.shape.empty() ||
                                  !std::equal(sample.shape.begin() + 1, sample.shape.end(), all.shape.begin() + 1)))
        return fail(ErrorCode::kInvalidArgument, "'" + path + "' has shape " + shape_text(sample.shape) +
                                                     ", the files before it " + shape_text(all.shape) + ".",
                    "All samples must have the same shape but for the first axis.");
      if (all.values.empty()) all.shape = sample.shape;
      else all.shape[0] += sample.shape[0];
      all.values.insert(all.values.end(), sample.values.begin(), sample.values.end());
      continue;
    }
    QUANVAS_TRY(auto ranges, quant::find_ranges(spec, sample.shape, sample.values.data(), axis));
    if (!batches.empty() && ranges.hi.size() != batches.front().hi.size())
      return fail(ErrorCode::kInvalidArgument, "'" + path + "' has another number of scales than the files before it.");
    batches.push_back(std::move(ranges));
  }
  if (spec.batches == BatchStatistic::kAll) return quant::find_params(spec, all.shape, all.values.data(), axis);
  const quant::Ranges ranges = quant::combine_ranges(spec, batches);
  return quant::params_from_range(ranges.resolved, ranges.layout, ranges.lo, ranges.hi);
}

Result<QuantParams> params_of(const Options& o, const QuantSpec& spec, const FloatArray& x) {
  if (o.kind == "bias" && spec.scale_from_accumulator) return bias_from_accumulator(o, spec, x);
  const int axis = default_axis(o, spec);
  const bool fixed = spec.source == ScaleSource::kConstant || spec.source == ScaleSource::kDynamic ||
                     (spec.clip_max && (spec.clip_min || spec.zero_point == ZeroPointType::kNone));
  if (o.kind == "activation" && !fixed) return from_samples(o, spec, x, axis);
  return quant::find_params(spec, x.shape, x.values.data(), axis);
}

// --param NAME=FILE: replaces what the array gave.
Status take_parameters(const Options& o, const FloatArray& x, QuantParams& params) {
  const bool learned = params.spec.rounding == Rounding::kLearned;
  bool rounds = false;
  for (const std::string& given : o.params) {
    const auto equals = given.find('=');
    const std::string name = given.substr(0, equals);
    if (equals == std::string::npos || (name != "scale" && name != "zero-point" && name != "round"))
      return fail(ErrorCode::kInvalidArgument, "--param is '" + given + "'; write scale=FILE, zero-point=FILE or round=FILE.");
    QUANVAS_TRY(FloatArray values, read_npy(given.substr(equals + 1)));
    const bool round = name == "round";
    if (round && !learned)
      return fail(ErrorCode::kInvalidArgument, "--param round is given, but rounding is not learned.", "Use --set rounding=learned.");
    if (name == "zero-point" && params.zero_point.empty())
      return fail(ErrorCode::kInvalidArgument, "--param zero-point is given, but the declaration has no zero point.");
    const std::size_t needed = round ? x.values.size() : params.scale.size();
    if (values.values.size() != needed)
      return fail(ErrorCode::kInvalidArgument, "--param " + name + " holds " + std::to_string(values.values.size()) +
                                                   " numbers; " + std::to_string(needed) + " are needed.");
    for (const float v : values.values)
      if (!std::isfinite(v) || (name == "scale" && v == 0))
        return fail(ErrorCode::kInvalidArgument, "--param " + name + " holds a number that is " +
                                                     (v == 0 ? "0" : "not finite") + ".");
    const bool two_levels = !params.code_scale.empty() || !params.super_scale.empty();
    if (name == "scale" && two_levels)
      return fail(ErrorCode::kInvalidArgument, "--param scale is given, but the declaration has scales of two kinds.");
    if (name == "zero-point" && params.spec.zero_point == ZeroPointType::kInteger)
      for (const float v : values.values)
        if (v != std::nearbyint(v) || v < static_cast<float>(params.lo) || v > static_cast<float>(params.hi))
          return fail(ErrorCode::kInvalidArgument, "--param zero-point holds " + std::to_string(v) +
                                                       "; it must be a whole number from " + std::to_string(params.lo) + " to " +
                                                       std::to_string(params.hi) + ".");
    rounds |= round;
    (round ? params.rounding : name == "scale" ? params.scale : params.zero_point) = std::move(values.values);
  }
  if (learned && !rounds) return missing("--param round=FILE", "learned rounding has a parameter for each element.");
  return {};
}

Result<quant::TruncationInput> truncation_input(const Options& o) {
  if (o.input_scale.empty()) return missing("--input-scale", "a truncation starts from integers that have a scale.");
  if (o.input_bits == 0) return missing("--input-bits", "how many bits are removed depends on how many there are.");
  QUANVAS_TRY(const FloatArray scale, read_npy(o.input_scale));
  if (scale.values.size() != 1)
    return fail(ErrorCode::kInvalidArgument,
                "--input-scale holds " + std::to_string(scale.values.size()) + " numbers; a truncation needs one.");
  return quant::TruncationInput{scale.values[0], o.input_bits};
}

Result<QuantParams> truncation(const Options& o, const QuantSpec& spec, const FloatArray& x,
                               const quant::TruncationInput& input) {
  float threshold = 0;
  if (spec.truncation == Truncation::kStatistic) {
    QuantSpec plain = spec;
    plain.truncation = Truncation::kNone;
    plain.granularity = Granularity::kTensor;
    std::vector<quant::Ranges> batches;
    for (const std::string& path : o.calib) {
      QUANVAS_TRY(const FloatArray sample, read_npy(path));
      QUANVAS_TRY(auto ranges, quant::find_ranges(plain, sample.shape, sample.values.data(), 0));
      batches.push_back(std::move(ranges));
    }
    if (batches.empty()) {
      QUANVAS_TRY(auto ranges, quant::find_ranges(plain, x.shape, x.values.data(), 0));
      batches.push_back(std::move(ranges));
    }
    threshold = quant::combine_ranges(plain, batches).hi[0];
  }
  return quant::truncation_params(spec, x.shape, input, threshold);
}

// Shape of scales beside the tensor: 1 where all elements share one.
Shape scale_shape(const QuantParams& p, const Shape& shape) {
  const quant::BlockLayout& l = p.layout;
  if (p.scale.size() == 1 || p.spec.granularity == Granularity::kTensor) return {};
  Shape out(shape.size(), 1);
  const auto axis = static_cast<std::size_t>(p.spec.axis.value_or(0));
  if (axis >= shape.size()) return {static_cast<std::int64_t>(p.scale.size())};
  if (p.spec.granularity == Granularity::kChannel) {
    out[axis] = l.dim;
    return out;
  }
  out = shape;
  out[axis] = (l.dim + l.group - 1) / l.group;
  return out;
}

void report(const Options& o, const QuantSpec& spec, const Shape& shape, const SiteFacts& facts, std::size_t scales) {
  if (o.json) {
    json out = to_json_value(facts);
    out["spec"] = to_json_value(spec);
    out["shape"] = shape;
    out["scales"] = scales;
    return print_json(out);
  }
  print(describe(spec) + "\n\nshape          " + shape_text(shape) + "\nscales         " +
        thousands(static_cast<double>(scales)) + "\nSQNR           " + fixed(facts.error.sqnr_db, 2) + " dB\nlargest error  " +
        fixed(facts.error.max_abs, 6) + "\nclipped        " + percent(facts.clipped_share) + " %\ncodes in use   " +
        thousands(facts.codes_used) + " of " + thousands(facts.codes_total) + "\nsize           " +
        fixed(facts.bits_per_element, 3) + " bit for each element\n");
}

}  // namespace

Status tensor(const Options& o) {
  quant::set_kernel_threads(o.threads);
  QUANVAS_TRY(const QuantSpec spec, spec_of(o));
  if (spec.scale_from_accumulator && o.kind != "bias")
    return fail(ErrorCode::kInvalidArgument, "The declaration takes its scale from the accumulator; --kind is " + o.kind + ".",
                "Use --kind bias.");
  if (spec.truncation == Truncation::kNone && o.kind == "trunc")
    return fail(ErrorCode::kInvalidArgument, "--kind is trunc, but the declaration's truncation is none.",
                "Use a preset such as TruncTo8bit, or --set truncation=msb.");
  if (spec.truncation != Truncation::kNone && o.kind != "trunc")
    return fail(ErrorCode::kInvalidArgument, "The declaration truncates integers that have a scale; --kind is " + o.kind + ".",
                "Use --kind trunc.");
  QUANVAS_TRY(const FloatArray x, read_npy(o.in));
  std::vector<float> y(x.values.size());
  std::vector<std::int32_t> codes(o.codes.empty() && o.packed.empty() ? 0 : x.values.size());
  QuantParams params;
  if (o.kind == "trunc") {
    QUANVAS_TRY(const auto input, truncation_input(o));
    QUANVAS_TRY(params, truncation(o, spec, x, input));
  } else {
    QUANVAS_TRY(params, params_of(o, spec, x));
    QUANVAS_CHECK(take_parameters(o, x, params));
  }
  QUANVAS_TRY(const auto layout, quant::rebatch(params, x.shape));
  quant::fake_quantize(params, layout, x.values.data(), y.data());
  if (!codes.empty()) quant::quantize_codes(params, layout, x.values.data(), codes.data());
  const SiteFacts facts = quant::measure(params, layout, x.values.data());
  if (o.on_grid) {
    QUANVAS_TRY([[maybe_unused]] const auto valid, quant::QTensor::from_values(params, x.shape, x.values));
  }
  if (!o.packed.empty()) {
    QUANVAS_TRY(const auto packed, quant::QTensor::from_codes(params, x.shape, codes));
    const std::vector<std::uint8_t> bytes = packed.packed();
    QUANVAS_CHECK(write_file_atomically(o.packed, std::string(bytes.begin(), bytes.end())));
  }
  if (!o.out.empty()) QUANVAS_CHECK(write_npy(o.out, x.shape, y));
  if (!o.codes.empty()) QUANVAS_CHECK(write_npy(o.codes, x.shape, codes));
  const Shape scales = scale_shape(params, x.shape);
  if (!o.scale_out.empty()) QUANVAS_CHECK(write_npy(o.scale_out, scales, params.scale));
  if (!o.zero_point_out.empty())
    QUANVAS_CHECK(write_npy(o.zero_point_out, scales,
                            params.zero_point.empty() ? std::vector<float>(params.scale.size()) : params.zero_point));
  report(o, spec, x.shape, facts, params.scale.size());
  return {};
}

}  // namespace quanvas::cli
