// tensor: quantizes an array of a file with any declaration, without a model.
#include "app/cli/verbs.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/base/files.h"
#include "core/data/npy.h"
#include "core/quant/params.h"
#include "core/quant/statistics.h"

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
                "'catalog' lists the presets.");
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
  if (spec.granularity == Granularity::kGroup) return o.kind == "weight" ? (transposed ? 0 : 1) : -1;
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

Result<QuantParams> params_of(const Options& o, const QuantSpec& spec, const FloatArray& x) {
  if (o.kind == "bias" && spec.scale_from_accumulator) return bias_from_accumulator(o, spec, x);
  const int axis = default_axis(o, spec);
  const bool fixed = spec.source == ScaleSource::kConstant || spec.source == ScaleSource::kDynamic ||
                     (spec.clip_max && (spec.clip_min || spec.zero_point == ZeroPointType::kNone));
  if (o.kind != "activation" || fixed) return quant::find_params(spec, x.shape, x.values.data(), axis);
  if (o.calib.empty()) return missing("--calib", "the range of a static activation comes from samples.");
  quant::TensorStatistics statistics;
  for (const std::string& path : o.calib) {
    QUANVAS_TRY(const FloatArray sample, read_npy(path));
    statistics.add(sample.values.data(), sample.shape);
  }
  return quant::find_params(spec, x.shape, statistics, axis);
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

Status tensor(Work& work) {
  const Options& o = work.options;
  quant::set_kernel_threads(o.threads);
  QUANVAS_TRY(const QuantSpec spec, spec_of(o));
  if (spec.scale_from_accumulator && o.kind != "bias")
    return fail(ErrorCode::kInvalidArgument, "The declaration takes its scale from the accumulator; --kind is " + o.kind + ".",
                "Use --kind bias.");
  QUANVAS_TRY(const FloatArray x, read_npy(o.in));
  QUANVAS_TRY(const QuantParams params, params_of(o, spec, x));
  QUANVAS_TRY(const auto layout, quant::rebatch(params, x.shape));
  std::vector<float> y(x.values.size());
  std::vector<std::int32_t> codes(o.codes.empty() ? 0 : x.values.size());
  quant::fake_quantize(params, layout, x.values.data(), y.data());
  if (!codes.empty()) quant::quantize_codes(params, layout, x.values.data(), codes.data());
  const SiteFacts facts = quant::measure(params, layout, x.values.data());
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
