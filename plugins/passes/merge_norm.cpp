// Scales and biases of normalizations become part of the layers behind them, so that a normalization treats all features
// alike: what rotations need, and one tensor less for activations with one scale.
#include <cmath>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "plugins/passes/feature_regions.h"

namespace quanvas {
namespace {

class MergeNorm final : public Pass {
 public:
  PluginInfo info() const override {
    return {"merge-norm", "Merge normalizations",
            "Multiplies the scale and adds the bias of layer and RMS normalizations into all linear layers that read them "
            "(Ashkboos et al. 2024, SliceGPT, section 3.2, arXiv 2401.15024)."};
  }
  Schema schema() const override {
    return {{bool_field("rms", "LayerNorm to RMSNorm",
                        "Takes the mean off where the input of a layer normalization is made, which leaves an RMS normalization "
                        "(SliceGPT, section 3.2, arXiv 2401.15024).", false)}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    QUANVAS_TRY(const MergedNorms merged, merge_norms(ctx.model, options.at("rms").get<bool>(), job));
    report(ctx, merged);
    ctx.model = merged.model;
    std::string text = merged.text();
    text[0] = 'M';
    return text + ".";
  }

 private:
  static void report(PassContext& ctx, const MergedNorms& merged) {
    ctx.measure = "largest weight of an output over their root mean square, mean over outputs";
    for (const Node& node : ctx.model->graph->nodes()) {
      const auto note = merged.notes.find(node.name);
      if (note == merged.notes.end()) continue;
      const Node* now = merged.model->graph->find(node.id);
      PassLayer row{node.name, LinearWeight::of(*ctx.model, node).spread(), std::nan(""), note->second};
      if (now && LinearWeight::fits(*merged.model, *now)) row.after = LinearWeight::of(*merged.model, *now).spread();
      ctx.layers.push_back(std::move(row));
    }
  }
};

QUANVAS_PLUGIN(Pass, MergeNorm)

}  // namespace
}  // namespace quanvas
