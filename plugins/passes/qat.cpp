#include <cmath>
#include <cstdio>

#include "core/exec/pass_context.h"
#include "core/exec/train.h"
#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100 * share);
  return text;
}

std::string summary(const exec::TrainResult& result, double before) {
  std::string text;
  if (result.best_epoch == 0)
    text = "No epoch was better than the start, which is kept";
  else
    text = "Kept the state after epoch " + std::to_string(result.best_epoch);
  if (!std::isnan(result.best_top1)) text += ": top-1 on held-out training samples " + percent(before) + " → " + percent(result.best_top1);
  return text + (result.cancelled ? "; stopped early." : ".");
}

class Qat final : public Pass {
 public:
  PluginInfo info() const override {
    return {"qat", "Quantization-aware training",
            "Trains weights and scales through the quantizers with a straight-through gradient and learned step "
            "sizes (LSQ, Esser et al. 2020), the scales in the log2 domain (TQT, Jain et al. 2020). At 1 bit let "
            "bias correction run first, or the network starts with nothing to learn from."};
  }
  PassStage stage() const override { return PassStage::kTraining; }
  std::vector<Issue> check(const PassQuestion& question, const json&) const override { return rounding::broken_bound(question); }

  Schema schema() const override {
    return {{
        integer_field("epochs", "Epochs", "Passes over the training samples.", 1, 1, 1000),
        integer_field("batch", "Batch", "Samples per step.", 128, 2, 65536, "samples"),
        choice_field("optimizer", "Optimizer", "Adam (Kingma, Ba 2015) or SGD with momentum 0.9.", "adam",
                     {{"adam", "Adam", ""}, {"sgd", "SGD, momentum 0.9", ""}}),
        real_field("learning_rate", "Learning rate", "Of weights and biases, at the first step.", 1e-3, 1e-8, 10),
        choice_field("scales", "Scales", "Which quantizers learn their scale.", "all",
                     {{"all", "All", "Every quantizer without fixed clip limits."},
                      {"recipe", "As the recipe says", "Those whose source is 'learned'."},
                      {"none", "None", "Weights follow their statistic, activations stay."}}),
        when(real_field("scale_learning_rate", "Scale learning rate", "Of log2(scale), at the first step.", 2e-2, 0,
                        1),
             "scales", {"all", "recipe"}),
        when(real_field("bits_penalty", "Width penalty",
                        "Added to the loss for each bit that the learned widths have on average over their "
                        "elements; 0: none.",
                        0, 0, 1000),
             "scales", {"all", "recipe"}),
        when(real_field("accumulator_penalty", "Accumulator penalty",
                        "Added to the loss for each power of two that a channel's length is above what its "
                        "accumulator bounds "
                        "(A2Q, Colbert et al. 2023); 0: none.",
                        0, 0, 1000),
             "scales", {"all", "recipe"}),
        choice_field("schedule", "Schedule", "Learning rates over the steps.", "cosine",
                     {{"cosine", "Cosine to 0", ""}, {"constant", "Constant", ""}}),
        real_field("weight_decay", "Weight decay", "Decoupled (Loshchilov, Hutter 2019), of weights only.", 0, 0,
                   1),
        integer_field("max_samples", "Samples", "Of the training split; 0: all.", 0, 0, 1e9, "samples"),
        integer_field(
            "validation_samples", "Validation",
            "Held out from the end of the training split, at most a fifth; the best epoch on them is kept.", 1000,
            0, 1e9, "samples"),
        bool_field("augment_flip", "Mirror", "Mirror pictures left to right at random.", false),
        integer_field("seed", "Seed", "Order of the samples.", 0, 0, 1e15),
    }};
  }

  Result<std::string> apply(PassContext& ctx, const json& o, JobContext& job) const override {
    if (!ctx.training_data)
      return fail(ErrorCode::kInvalidArgument, "Quantization-aware training needs training data, and none are declared.",
                  "Declare a labelled training split in the data settings, or switch the pass 'qat' off.");
    if (ctx.quantized.quantizers.empty())
      return fail(ErrorCode::kInvalidArgument, "Nothing is quantized, so there is nothing to train for.",
                  "Give some layers a format, or switch the pass 'qat' off.");
    exec::TrainSettings s;
    s.epochs = o["epochs"];
    s.batch = o["batch"];
    s.optimizer = o["optimizer"];
    s.learning_rate = o["learning_rate"];
    s.scale_learning_rate = o["scale_learning_rate"];
    s.bits_penalty = o["bits_penalty"];
    s.accumulator_penalty = o["accumulator_penalty"];
    s.learn_scales = o["scales"] != "none";
    s.force_learned = o["scales"] == "all";
    s.schedule = o["schedule"];
    s.weight_decay = o["weight_decay"];
    s.max_samples = o["max_samples"];
    s.validation_samples = o["validation_samples"];
    s.augment_flip = o["augment_flip"];
    s.seed = o["seed"];
    const Model& model = *ctx.quantized.model;
    QUANVAS_TRY(exec::TrainResult result, exec::train(ctx.quantized.model, &ctx.quantized.quantizers, *ctx.training_data, s,
                                                      ctx.device, job));
    const double before = result.curve.empty() ? 0 : result.curve.front().top1.value_or(0);
    const std::string text = summary(result, before);
    ctx.quantized.model = std::make_shared<const Model>(Model{model.graph, result.weights, model.source});
    ctx.quantized.quantizers = std::move(result.quantizers);
    ctx.curve.insert(ctx.curve.end(), result.curve.begin(), result.curve.end());
    ctx.stopped_early = ctx.stopped_early || result.cancelled;
    return text;
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Qat)

}  // namespace quanvas
