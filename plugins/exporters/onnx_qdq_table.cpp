// What ONNX QDQ takes of quantizers: rows with the opset that brought them.
#include <utility>

#include "plugins/exporters/onnx_qdq_check.h"

namespace quanvas::onnx_file {
namespace {

using G = Granularity;
using Z = ZeroPointType;
constexpr int kFloat8Opset = 19, kBlockOpset = 21, kFloat4Opset = 23, kExponentOpset = 24, kTwoBitOpset = 25;

class Rows {
 public:
  Rows(TargetTable& table, const QdqOptions& options)
      : table_(table), newest_(options.opset == 0 ? kNewestOpset : options.opset) {}

  void add(int since, TargetRow row) {
    if (since > newest_) return;
    if (since > kQdqOpset) row.form += " (opset " + std::to_string(since) + ")";
    table_.rows.push_back(std::move(row));
  }
  // The same per tensor and channel, and in blocks, which came later.
  void add_blocks(int since, TargetRow row) {
    TargetRow blocks = row;
    blocks.form += ", in blocks";
    blocks.granularities = {G::kGroup};
    add(since, std::move(row));
    add(std::max(since, kBlockOpset), std::move(blocks));
  }

 private:
  TargetTable& table_;
  int newest_;
};

// Codes of constants are stored as they are: how they were rounded plays no part.
TargetRow weight_row(std::string form, int least, int most) {
  TargetRow row;
  row.form = std::move(form);
  row.sites = {SiteKind::kWeight};
  row.least_bits = least;
  row.most_bits = most;
  row.narrow.reset();
  row.zero_points = {Z::kNone, Z::kInteger};
  row.zero_point_inside.reset();
  row.granularities = {G::kTensor, G::kChannel};
  row.roundings.clear();
  return row;
}

TargetRow activation_row(std::string form, int least, int most) {
  TargetRow row = weight_row(std::move(form), least, most);
  row.sites = {SiteKind::kInput, SiteKind::kOutput};
  row.zero_point_inside = false;
  row.roundings = {Rounding::kHalfEven};
  row.decoupled = false;
  return row;
}

const std::vector<std::string>& float8_formats() {
  static const std::vector<std::string> list = {"e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz"};
  return list;
}

TargetRow of_format(TargetRow row, std::vector<std::string> formats) {
  row.formats = std::move(formats);
  row.zero_points = {Z::kNone};
  row.narrow.reset();
  return row;
}

void add_weights(Rows& rows, const QdqOptions& options) {
  if (options.native) {
    rows.add_blocks(kTwoBitOpset, weight_row("int2 or uint2 initializer + DequantizeLinear", 1, 2));
    rows.add_blocks(kBlockOpset, weight_row("int4 or uint4 initializer + DequantizeLinear", 3, 4));
    TargetRow exponents =
        of_format(weight_row("float8 or float4 initializer, float8e8m0 scales + DequantizeLinear", 1, 32), float8_formats());
    exponents.formats.push_back("e2m1");
    exponents.granularities = {G::kGroup};
    exponents.scales = {ScaleType::kPowerOfTwo};
    rows.add(kExponentOpset, std::move(exponents));
  }
  TargetRow bytes = weight_row("int8 or uint8 initializer + DequantizeLinear", 1, 8);
  bytes.why = "Blocks of scales and wider integers exist from opset 21 on.";
  rows.add_blocks(kQdqOpset, std::move(bytes));
  rows.add_blocks(kBlockOpset, weight_row("int16 or uint16 initializer + DequantizeLinear", 9, 16));
  rows.add_blocks(kFloat8Opset, of_format(weight_row("float8 initializer + DequantizeLinear", 1, 32), float8_formats()));
  rows.add_blocks(kFloat4Opset, of_format(weight_row("float4 initializer + DequantizeLinear", 1, 32), {"e2m1"}));
  TargetRow signs = of_format(weight_row("int8 initializer of -1, 0 and 1 + DequantizeLinear", 1, 32), {"binary", "ternary"});
  signs.why = "QuantizeLinear has no such grids, so activations cannot have them.";
  rows.add_blocks(kQdqOpset, std::move(signs));
}

void add_activations(Rows& rows, const QdqOptions& options) {
  if (options.native) {
    TargetRow two = activation_row("QuantizeLinear to int2 or uint2 + DequantizeLinear", 2, 2);
    two.narrow = false;
    rows.add(kTwoBitOpset, std::move(two));
    TargetRow four = activation_row("QuantizeLinear to int4 or uint4 + DequantizeLinear", 4, 4);
    four.narrow = false;
    four.why = "Clip does not know these types, so codes must fill them.";
    rows.add(kBlockOpset, std::move(four));
  }
  TargetRow bytes = activation_row("QuantizeLinear + Clip where codes are narrower + DequantizeLinear", 1, 8);
  bytes.truncation = true;
  bytes.why = "QuantizeLinear rounds half to even and adds the zero point after it.";
  rows.add(kQdqOpset, bytes);
  TargetRow words = activation_row("QuantizeLinear to int16 or uint16 + DequantizeLinear", 16, 16);
  words.truncation = true;
  words.narrow = false;
  rows.add(kBlockOpset, std::move(words));
  TargetRow limited = activation_row("Clip + QuantizeLinear to int16 or uint16 + DequantizeLinear", 9, 16);
  limited.granularities = {G::kTensor};
  limited.why = "onnxruntime has no Clip of 16 bit codes; real numbers are clipped, which takes one scale.";
  rows.add(kBlockOpset, std::move(limited));
  rows.add(kFloat8Opset, of_format(activation_row("QuantizeLinear to float8 + DequantizeLinear", 1, 32), float8_formats()));
  rows.add(kFloat4Opset, of_format(activation_row("QuantizeLinear to float4 + DequantizeLinear", 1, 32), {"e2m1"}));
  TargetRow dynamic = activation_row("DynamicQuantizeLinear + DequantizeLinear", 8, 8);
  dynamic.is_signed = false;
  dynamic.narrow = false;
  dynamic.zero_points = {Z::kInteger};
  dynamic.granularities = {G::kTensor};
  dynamic.scales = {ScaleType::kFloat32};
  dynamic.dynamic = true;
  dynamic.why = "DynamicQuantizeLinear looks at the whole tensor, so the file is for one sample at a time.";
  rows.add(kQdqOpset, std::move(dynamic));
}

}  // namespace

TargetTable qdq_table(const QdqOptions& options) {
  TargetTable table;
  Rows rows(table, options);
  add_weights(rows, options);
  TargetRow bias = weight_row("int32 initializer + DequantizeLinear", 1, 32);
  bias.sites = {SiteKind::kBias};
  bias.is_signed = true;
  bias.zero_points = {Z::kNone};
  rows.add(kQdqOpset, std::move(bias));
  add_activations(rows, options);
  table.notes = {
      "Operators run in float32 between the quantizers. onnxruntime computes these numbers with graph optimization off; "
      "its optimizer puts integer kernels in their place, which round elsewhere.",
      "onnxruntime 1.30 has no float4 and no float8e8m0 scales on the CPU.",
      "Quantizers that find their scale at run time make a file for one sample at a time."};
  return table;
}

}  // namespace quanvas::onnx_file
