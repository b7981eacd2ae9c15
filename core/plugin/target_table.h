// Quanvas - what an export target takes of quantizers, as data. One table per target serves its refusals, the window's
// target lens with its fixes, `quanvas-cli targets`, the documentation and the tests.
//
// A quantizer is legal where one row takes all of it. The table knows declarations (QuantSpec) only; what depends on the
// numbers that calibration finds (a scale of 0, a zero point out of range) is asked by check_quantizers(). Values, no
// state; all functions are reentrant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/recipe/quant_spec.h"
#include "core/report/report.h"

namespace quanvas {

inline constexpr int kOwnAxis = -1;

// One row: a class of quantizers and what the file has for it. An empty list takes everything.
struct TargetRow {
  std::string form;                          // "int8 + Clip", unique in the table, for people
  std::vector<SiteKind> sites;               // not empty
  std::vector<std::string> ops;              // operators of the layer: "Conv"
  std::vector<std::string> formats = {"int"};  // as format_name() says them
  int least_bits = 1, most_bits = 32;        // of integers
  std::optional<bool> is_signed;
  std::optional<bool> narrow = false;        // of integers
  std::vector<ZeroPointType> zero_points = {ZeroPointType::kNone};
  std::optional<bool> zero_point_inside = false;  // asked where there is a zero point
  std::vector<Granularity> granularities = {Granularity::kTensor};
  std::vector<int> group_sizes;              // asked of groups
  int group_multiple = 0;                    // asked of groups: their size is a multiple of this; 0: of nothing
  // Where scales of channels, groups and rows may lie besides the layer's own axis, which is legal always, whether the spec
  // names it or not: on these (0 or more); {kOwnAxis}: nowhere else.
  std::vector<int> axes;
  std::vector<Rounding> roundings = {Rounding::kHalfEven};  // codes of weights and biases are stored as they are: empty
  std::vector<ScaleType> scales;
  std::optional<bool> dynamic = false;       // scales from each sample at run time
  std::optional<bool> accumulator;           // of biases: the scale is input scale x weight scale
  bool truncation = false;                   // may cut low bits off
  bool decoupled = true;                     // may have two scales (core/quant/params.h): only where codes are stored
  std::string why;                           // when not empty: the reason behind the row's limits, for the documentation
};

// A quantizer that must be there: the file has no float form for it.
struct TargetNeed {
  std::vector<std::string> ops;              // operators of the layer; empty: all layers
  SiteKind site = SiteKind::kInput;
  std::string why;                           // "QLinearConv computes codes"
  QuantSpec fix;                             // what the fix puts there
};

struct TargetTable {
  std::vector<TargetRow> rows;
  std::vector<TargetNeed> needs;
  std::vector<std::string> float_ops;   // operators that may stay float; empty: all
  bool allows_float = true;             // layers without any quantizer are written as they are (but for `needs`)
  // Numbers, beyond declarations.
  bool half_scales = false;             // scales are stored as float16: they must be exact there
  bool negative_scales = false;
  Exactness exactness = Exactness::kModel;
  std::vector<std::string> notes;       // what every user of the target should know, a sentence each
};

// "int", "ternary", "binary", a codebook's id; of minifloats "e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e2m3",
// "e3m2", else all that they are: "float e4m3, bias 5, specials none". Unsigned ones have a "u" before it.
std::string format_name(const QuantSpec& spec);
// The row's limits as one line of a table.
std::string describe(const TargetRow& row);

// What a target makes of one quantizer.
struct TargetVerdict {
  const TargetRow* row = nullptr;       // that takes it; null: refused
  std::vector<Refusal> refusals;        // rule, got, allowed, suggestion; layer and quantizer are left empty
  std::optional<QuantSpec> fix;         // the nearest quantizer that the target takes, if there is one
};
// Where the scales of a site lie when its spec names no axis. Calibration writes that axis into the spec: it is the
// layer's own all the same.
struct OwnAxis {
  std::optional<int> axis;  // below 0: from the last on; none: unknown, an axis that the spec names is then another one
  std::size_t rank = 0;     // of the tensor; 0: unknown
};
// `op` of the layer. The table must outlive the verdict.
TargetVerdict judge(const TargetTable& table, const std::string& op, SiteKind site, const QuantSpec& spec);
TargetVerdict judge(const TargetTable& table, const std::string& op, SiteKind site, const QuantSpec& spec, const OwnAxis& own);

// What contradicts itself in the table, a sentence each, with the row's form in it: rows that nothing can reach or that nobody
// can tell apart, needs whose fix is illegal or taken by no row. Empty for every target that is offered. judge() answers with
// such a table, too; a row without sites or with more least than most bits takes nothing.
std::vector<std::string> problems(const TargetTable& table);

// The table as JSON for `quanvas-cli targets --json` and the window.
json table_json(const TargetTable& table);

}  // namespace quanvas
