// What GGUF holds of quantizers.
#include "plugins/exporters/gguf_plan.h"

namespace quanvas::gguf_file {
namespace {

TargetRow weight(std::string form, int least, int most) {
  TargetRow row;
  row.form = std::move(form);
  row.sites = {SiteKind::kWeight};
  row.least_bits = least;
  row.most_bits = most;
  row.narrow.reset();
  row.zero_point_inside.reset();  // codes are stored as they are
  row.granularities = {Granularity::kGroup, Granularity::kChannel, Granularity::kTensor, Granularity::kRow};
  row.group_multiple = 32;
  row.roundings.clear();
  row.dynamic.reset();
  return row;
}

// Scales and offsets that are integers times a float16 of 256 elements.
TargetRow super(std::string form, int least, int most, int multiple, bool is_signed) {
  TargetRow row = weight(std::move(form), least, most);
  row.is_signed = is_signed;
  row.granularities = {Granularity::kGroup};
  row.group_multiple = multiple;
  row.scales = {ScaleType::kQuantized};
  if (!is_signed) row.zero_points = {ZeroPointType::kOffset, ZeroPointType::kNone};
  return row;
}

TargetRow anything(std::string form, std::vector<SiteKind> sites) {
  TargetRow row;
  row.form = std::move(form);
  row.sites = std::move(sites);
  row.formats.clear();
  row.narrow.reset();
  row.zero_points.clear();
  row.zero_point_inside.reset();
  row.granularities.clear();
  row.roundings.clear();
  row.dynamic.reset();
  row.truncation = true;
  return row;
}

}  // namespace

TargetTable gguf_table(const Options& options) {
  std::vector<ScaleType> scales = {ScaleType::kFloat16, ScaleType::kPowerOfTwo};
  if (options.round_scales) scales.insert(scales.end(), {ScaleType::kFloat32, ScaleType::kFloat8});
  const auto plain = [&](TargetRow row) {
    row.scales = scales;
    return row;
  };
  TargetTable table;
  // Rows of several kinds may be as near to a quantizer; the first is named in a refusal.
  TargetRow row = plain(weight("TQ2_0, Q4_0 where rows are no multiple of 256", 1, 2));
  row.is_signed = true;
  row.narrow = true;
  table.rows.push_back(row);
  row = plain(weight("Q4_0", 1, 4));
  row.is_signed = true;
  table.rows.push_back(row);
  row = plain(weight("Q5_0", 5, 5));
  row.is_signed = true;
  table.rows.push_back(row);
  row = plain(weight("Q8_0", 6, 8));
  row.is_signed = true;
  row.why = "6 and 7 bits as part of 8: Q6_K has scales of two levels.";
  table.rows.push_back(row);
  row = plain(weight("Q4_1", 1, 4));
  row.is_signed = false;
  row.zero_points = {ZeroPointType::kOffset, ZeroPointType::kNone};
  table.rows.push_back(row);
  row = plain(weight("Q5_1", 5, 5));
  row.is_signed = false;
  row.zero_points = {ZeroPointType::kOffset, ZeroPointType::kNone};
  table.rows.push_back(row);
  row = plain(weight("Q8_0, codes from 0 on", 6, 7));
  row.is_signed = false;
  table.rows.push_back(row);
  row = plain(weight("codes less the zero point: Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0", 1, 8));
  row.zero_points = {ZeroPointType::kInteger};
  row.why =
      "GGUF has no zero points. Code less zero point needs one bit more, as an offset -zero point x scale must be a float16.";
  table.rows.push_back(row);
  row = super("Q3_K", 1, 3, 16, true);
  row.why = "Super-blocks of 256 elements: sub-blocks of 16 with scales of 6 bits with a sign.";
  table.rows.push_back(row);
  row = super("Q6_K", 4, 6, 16, true);
  row.why = "Super-blocks of 256 elements: sub-blocks of 16 with scales of 8 bits with a sign.";
  table.rows.push_back(row);
  row = super("Q2_K", 1, 2, 16, false);
  row.why = "Super-blocks of 256 elements: sub-blocks of 16 with scales and offsets of 4 bits.";
  table.rows.push_back(row);
  row = super("Q4_K", 1, 4, 32, false);
  row.why = "Super-blocks of 256 elements: sub-blocks of 32 with scales and offsets of 6 bits.";
  table.rows.push_back(row);
  table.rows.push_back(super("Q5_K", 5, 5, 32, false));
  row = plain(weight("TQ1_0, Q4_0 where rows are no multiple of 256", 1, 32));
  row.formats = {"ternary", "binary"};
  row.why = "TQ1_0 has a scale for 256 elements.";
  table.rows.push_back(row);
  row = plain(weight("IQ4_NL", 1, 32));
  row.formats = {"iq4nl"};
  table.rows.push_back(row);
  row = weight("MXFP4", 1, 32);
  row.formats = {"e2m1"};
  row.scales = {ScaleType::kPowerOfTwo};
  row.why = "A zero has no sign there.";
  table.rows.push_back(row);
  row = anything("F32: the values that the codes stand for", {SiteKind::kBias});
  row.why = "llama.cpp adds biases as floats.";
  table.rows.push_back(row);
  row = anything("not written", {SiteKind::kInput, SiteKind::kOutput, SiteKind::kInternal});
  row.why = "GGUF holds weights; llama.cpp quantizes activations itself, in blocks at run time.";
  table.rows.push_back(row);
  table.negative_scales = true;
  const bool rounds = options.round_scales || (options.round_floats && options.float_type != Type::kF32);
  table.exactness = rounds ? Exactness::kNear : Exactness::kWeights;
  table.notes = {
      "Quantizers of activations are not in the file: whoever runs it computes activations in its own way, llama.cpp in Q8 "
      "blocks.",
      "Rows lie along the reduction axis and are cut into blocks of 32 or 256: rows of another length stay float.",
      "A scale for a tensor, a channel or a larger group is repeated in each block."};
  return table;
}

}  // namespace quanvas::gguf_file
