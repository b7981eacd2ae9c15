#include "plugins/exporters/code_limits.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/plugin/placement.h"

namespace quanvas {

Result<std::pair<float, float>> clip_limits(const Model& model, const Node& node) {
  std::pair<float, float> out{node.real("min", -INFINITY), node.real("max", INFINITY)};
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
    if (node.input(i) == kNoTensor) continue;
    const std::string& name = model.graph->tensor(node.input(i)).name;
    const TensorData* data = model.weights->find(name);
    const std::vector<float> values = data ? data->to_floats() : std::vector<float>();
    if (values.size() != 1)
      return fail(ErrorCode::kInternal, "The limit '" + name + "' of '" + node.name + "' is no single number.");
    (i == 1 ? out.first : out.second) = values[0];
  }
  return out;
}

bool limits_are_codes(const Model& model, const Node& node, const quant::QuantParams& p) {
  if (node.op != "Clip") return true;
  const auto limits = clip_limits(model, node);
  if (!limits) return false;
  const auto value = [&](std::int64_t code) { return static_cast<float>(code - zero_points(p)[0]) * p.scale[0]; };
  const auto is_value = [&](float limit) {
    std::int32_t code = 0;
    quant::quantize_codes(p, quant::BlockLayout(), &limit, &code);
    return value(code) == limit;
  };
  const auto& [lo, hi] = *limits;
  return (lo <= value(p.lo) || is_value(lo)) && (hi >= value(p.hi) || is_value(hi));
}

}  // namespace quanvas
