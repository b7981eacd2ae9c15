// Quanvas - the target lens: what an export target makes of each layer, and the recipe that mends what can be mended.
// Values, no state.
#pragma once

#include <string>
#include <vector>

#include "core/report/report.h"

namespace quanvas {

//   legal       the target holds the layer as it is
//   fixable     other quantizers of the layer, or none, would make it so
//   impossible  the target has no form for the layer, whatever its quantizers
enum class LensState { kLegal, kFixable, kImpossible };
inline const EnumNames<LensState>& enum_names(LensState) {
  static const EnumNames<LensState> names = {{LensState::kLegal, "legal"}, {LensState::kFixable, "fixable"},
                                             {LensState::kImpossible, "impossible"}};
  return names;
}

// The key of a project's value with the reports of a run's exports, oldest first, as JSON; run 0: those of the recipe itself.
inline std::string exports_key(std::int64_t run) { return "exports-" + std::to_string(run); }
// "onnx-qdq: net.onnx, 71156 bytes, exactness model, 15 of 15 quantizers as requested, 12 of 12 tensors equal, same class 100.00 %".
std::string summary(const ExportReport& report);
// "Top-1 63.50 % on the screen, 63.75 % of the file", or of perplexity; "" where neither was measured.
std::string both_accuracies(const ExportReport& report);
// "the stored codes stand for the screen's very weights": what a class promises, for people.
const char* meaning(Exactness exactness);
// Whether the file is not what was asked for: a quantizer differs, or too few predictions agree. A file that is near by
// construction promises neither.
bool falls_short(const ExportReport& report);

// Share of predictions that a file must have in common with the screen.
inline constexpr double kLeastEqual = 0.999;

struct LensLayer {
  std::string layer;                  // its name; empty: what concerns the whole model
  LensState state = LensState::kLegal;
  std::vector<Refusal> refusals;
};

bool can_mend(const Refusal& refusal);
// Layers that are refused, in the order of their first refusals. Layers that are not listed are legal.
std::vector<LensLayer> lens(const std::vector<Refusal>& refusals);

// The recipe with rules that put the mended quantizers in place, of one layer or (empty) of all that can be mended.
// `graph` is the network in which the refusals were found, that is after the recipe's graph passes: they make layers and
// sites that the imported one does not have, and whoever shares a quantizer with a mended one gets its format, too. Refusals
// of layers that it does not have are left out. Mending can bring a further refusal about (a bias whose input has become
// float): ask the target again.
Recipe with_fixes(const Recipe& recipe, const Graph& graph, const std::vector<Refusal>& refusals, const std::string& layer = {});

}  // namespace quanvas
