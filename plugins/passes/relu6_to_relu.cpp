// Clipped ReLUs become plain ones, so that factors per channel can pass (data-free quantization, Nagel et al. 2019, section
// 5.1.1). The float network changes where values go beyond the limit.
#include <cmath>
#include <limits>
#include <optional>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

constexpr double kNone = std::numeric_limits<float>::max();

// A limit of a Clip, given as an input or, in older files, as an attribute; nothing: it is computed.
std::optional<double> limit_of(const Model& model, const Node& node, std::size_t input, const char* attribute, double fallback) {
  if (node.input(input) == kNoTensor) return node.real(attribute, static_cast<float>(fallback));
  const TensorData* data = initializer_data(model, node.input(input));
  const std::vector<float> values = data ? data->to_floats() : std::vector<float>();
  if (values.size() != 1) return std::nullopt;
  return values[0];
}

class Relu6ToRelu final : public Pass {
 public:
  PluginInfo info() const override {
    return {"relu6-to-relu", "ReLU6 as ReLU",
            "Clips from 0 to a limit, as ReLU6, become ReLU, so that equalization and absorbed biases can pass them (Nagel et "
            "al. 2019). "
            "The float network changes where values go beyond the limit: measure it."};
  }
  Schema schema() const override {
    return {{real_field("limit", "Smallest limit", "Clips with a lower one stay.", 6.0, 1e-6, 1e6)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    QUANVAS_CHECK(job.check());
    const Model& model = *ctx.model;
    const double smallest = options.at("limit").get<double>();
    ModelEdit edit(model);
    std::vector<std::string> left;
    std::size_t found = 0;
    for (const Node& node : model.graph->nodes()) {
      if (node.op != "Clip" || !node.domain.empty() || node.outputs.size() != 1 || node.input(0) == kNoTensor) continue;
      ++found;
      const auto low = limit_of(model, node, 1, "min", -kNone), high = limit_of(model, node, 2, "max", kNone);
      const std::string why = !low || !high          ? "its limits are computed"
                              : *low != 0            ? "its lower limit is not 0"
                              : !(*high >= smallest) ? "its limit is lower"
                                                     : "";
      if (!why.empty()) {
        left.push_back("'" + node.name + "' (" + why + ")");
        continue;
      }
      // Under the same name, so that rules still find it.
      edit.builder().remove_node(node.id);
      edit.builder().node(node.name, "Relu", {model.graph->tensor(node.inputs[0]).name},
                          {model.graph->tensor(node.outputs[0]).name});
    }
    std::string text = "Made ReLUs of " + std::to_string(found - left.size()) + " of " + std::to_string(found) + " clips";
    if (!left.empty()) text += "; left: " + join_some(left);
    if (found > left.size()) {
      text += "; the float network changes where values go beyond the limit";
      QUANVAS_TRY(ctx.model, edit.finish());
    }
    return text + ".";
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Relu6ToRelu)

}  // namespace quanvas
