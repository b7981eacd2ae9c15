// Rotations: features are multiplied by an orthogonal matrix where they are made and by its inverse where they are read, so that
// no feature stands out any more (Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", arXiv
// 2404.00456; Liu et al. 2024, "SpinQuant", arXiv 2405.16406, whose R1, R2 and R4 these are). Fused ones only change weights;
// an online one is an operator in front of a layer (core/graph/rotation_node.h), whose inverse is in the layer's weight.
#include <cstdio>
#include <optional>
#include <utility>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "core/recipe/recipe.h"
#include "plugins/passes/learn_rotations.h"
#include "plugins/passes/permute_features.h"

namespace quanvas {
namespace {

class Rotate final : public Pass {
 public:
  PluginInfo info() const override {
    return {"rotate", "Rotate features",
            "Rotates the features between layers so that none stands out, and the weights back: the float network computes the same "
            "(QuaRot, Ashkboos et al. 2024, arXiv 2404.00456; SpinQuant, Liu et al. 2024, arXiv 2405.16406)."};
  }
  Schema schema() const override {
    return {{choice_field("kind", "Rotation", "The matrix of the rotations that are folded into weights.", "signs",
                          {{"signs", "Randomized Hadamard", "A Hadamard matrix behind random signs (QuaRot, section 4)."},
                           {"hadamard", "Hadamard", "The Hadamard matrix itself."},
                           {"orthogonal", "Random orthogonal", "Any size; every orthogonal matrix is equally likely (SpinQuant, section 3.1)."},
                           {"none", "None", "Only merged normalizations and online rotations."}}),
             integer_field("seed", "Seed", "Of random signs and random orthogonal matrices.", 0, 0, 2147483647),
             integer_field("block", "Block", "Features that are rotated among themselves; 0: all of a tensor, or of a head.", 0, 0, 67108864),
             bool_field("residual", "Whole features", "Rotates tensors between layers over all their features: R1 of SpinQuant (section 3.1).", true),
             bool_field("heads", "Within heads",
                        "Rotates values within each attention head, up to the output projection: R2 of SpinQuant (section 3.1).", true),
             choice_field("permute", "Order of features",
                          "Features are put into another order before rotations in blocks (Block above 0), so that no block has more of them "
                          "than the others; folded into the weights (PeRQ/MixQuant, arXiv 2601.22347). Looks at the calibration data.", "none",
                          {{"none", "As it is", ""},
                           {"massdiff", "MassDiff", "By mean magnitude, the largest first, each into the block with the least sum so far."},
                           {"zigzag", "Zigzag", "By largest magnitude, dealt to the blocks to and fro (DuQuant, Lin et al. 2024, arXiv 2406.01721)."},
                           {"absmax", "Largest magnitude", "As MassDiff, by largest in place of mean magnitudes."},
                           {"random", "Random", "From the seed."}}),
             choice_field("learn", "Learning", "What becomes of the matrices that are folded into weights.", "none",
                          {{"none", "None", "They stay as they are."},
                           {"spinquant", "Cayley descent (SpinQuant)",
                            "They are learned for the loss of the network in the recipe's formats, from these on "
                            "(SpinQuant, Liu et al. 2024, section 3.2)."}}),
             when(integer_field("learn_steps", "Steps", "Of the descent; 0: none.", 100, 0, 100000), "learn", {"spinquant"}),
             when(integer_field("learn_batch", "Batch", "Calibration samples per step.", 8, 1, 4096, "samples"), "learn", {"spinquant"}),
             when(real_field("learn_rate", "Learning rate",
                             "Of the first step; falls to 0 along half a cosine. No step is longer than 1 / |A|_1 (SpinQuant, section 3.2).", 1.5,
                             1e-6, 1000),
                  "learn", {"spinquant"}),
             when(real_field("learn_momentum", "Momentum", "What is kept of the directions of earlier steps (Li et al. 2020, Cayley SGD).", 0, 0, 0.99),
                  "learn", {"spinquant"}),
             when(bool_field("learn_weights", "Weights in their formats",
                             "Off: only activations are quantized while rotations are learned, as for weights that GPTQ rounds afterwards.", true),
                  "learn", {"spinquant"}),
             choice_field("online", "Online", "Layers whose input is rotated while the network runs, the inverse in their weights.", "none",
                          {{"none", "None", "Only weights change."},
                           {"products", "Behind activations",
                            "Layers behind gates and activation functions, as down projections: R4 (QuaRot, section 4, stage 1b)."},
                           {"rest", "All others", "Every linear layer whose input no other rotation reaches."}}),
             when(text_field("layers", "Layers", "Names of layers for online rotations, separated by commas or spaces, with * and ?.", "*"),
                  "online", {"products", "rest"}),
             when(bool_field("expand", "Pad with zeros",
                             "Inputs of online rotations without a Hadamard matrix of their size get zeros up to the next that has one (Franco et al. 2025, arXiv 2503.17513).", false),
                  "online", {"products", "rest"}),
             when(integer_field("expand_step", "Further sizes", "Pads to so many Hadamard sizes above the first (arXiv 2503.17513).", 0, 0, 16), "expand",
                  {true}),
             bool_field("merge", "Merge normalizations",
                        "Runs merge-norm before, without which scales of normalizations stop rotations (QuaRot, section 4, stage 1a).", true),
             when(bool_field("rms", "LayerNorm to RMSNorm",
                             "The same for the means that layer normalizations take off (SliceGPT, arXiv 2401.15024, section 3.2).", true),
                  "merge", {true})}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const RotateOptions o = rotate_options(options);
    const bool merge = options.at("merge").get<bool>(), rms = options.at("rms").get<bool>();
    ModelPtr model = ctx.model;
    std::string more;  // for the summary
    if (merge) {
      QUANVAS_TRY(const MergedNorms merged, merge_norms(model, rms, job));
      model = merged.model;
      if (merged.norms > 0) more = "; " + merged.text();
    }
    const std::string made_by = std::string("merge ") + (merge ? rms ? "rms" : "scales" : "nothing");
    if (const std::string order = options.at("permute").get<std::string>(); order != "none") {
      Rotator rotator(model, o);
      QUANVAS_CHECK(rotator.plan(job));
      QUANVAS_TRY(Permuted permuted, permute_features(ctx, model, rotator.blocks(), block_order_of(order), o.seed, made_by));
      model = std::move(permuted.model);
      more += "; " + permuted.text;
    }
    Learned learned;
    if (options.at("learn").get<std::string>() != "none") {
      QUANVAS_TRY(learned, learn(ctx, model, o, options, more, job));
    }
    Rotator rotator(model, o);
    QUANVAS_CHECK(rotator.plan(job));
    if (learned) rotator.replace(*learned);
    QUANVAS_CHECK(rotator.apply(job));
    if (rotator.changed()) {
      QUANVAS_TRY(model, rotator.finish());
    }
    const std::string text = rotator.text() + more + ".";
    ctx.model = std::move(model);
    ctx.measure = "largest weight of an output over their root mean square, mean over outputs";
    ctx.layers = std::move(rotator).rows();
    return text;
  }

 private:
  static RotateOptions rotate_options(const json& options) {
    RotateOptions o;
    o.kind = options.at("kind").get<std::string>();
    o.seed = options.at("seed").get<std::uint64_t>();
    o.block = options.at("block").get<std::int64_t>();
    o.residual = options.at("residual").get<bool>();
    o.heads = options.at("heads").get<bool>();
    o.online = options.at("online").get<std::string>();
    o.layers = options.at("layers").get<std::string>();
    o.expand = options.at("expand").get<bool>();
    o.step = options.at("expand_step").get<std::int64_t>();
    return o;
  }
  static algorithms::BlockOrder block_order_of(const std::string& name) {
    using algorithms::BlockOrder;
    if (name == "massdiff") return BlockOrder::kMassDiff;
    return name == "zigzag" ? BlockOrder::kZigzag : name == "absmax" ? BlockOrder::kAbsmax : BlockOrder::kRandom;
  }

  // None: what `rotate` takes without learning is what it should take. `model` has its normalizations merged and its features
  // in their order.
  using Learned = std::optional<std::vector<Rotation>>;
  static Result<Learned> learn(PassContext& ctx, const ModelPtr& model, const RotateOptions& o, const json& options, std::string& text, JobContext& job) {
    LearnOptions l;
    l.steps = options.at("learn_steps").get<int>();
    l.batch = options.at("learn_batch").get<int>();
    l.rate = options.at("learn_rate").get<double>();
    l.momentum = options.at("learn_momentum").get<double>();
    l.weights = options.at("learn_weights").get<bool>();
    l.seed = o.seed;
    if (l.steps == 0) return Learned();
    Rotator rotator(model, o);
    QUANVAS_CHECK(rotator.plan(job));
    std::vector<Rotation> start = rotator.rotations();
    if (start.empty()) {
      text += "; learned nothing, as no rotation is folded into weights";
      return Learned();
    }
    std::vector<TurnedTensor> turned;
    QUANVAS_CHECK(rotator.apply(job, &turned));
    QUANVAS_TRY(const ModelPtr fused, rotator.finish());
    // The recipe's formats on the network that will have them.
    const ModelPtr before = std::exchange(ctx.model, fused);
    auto plan = ctx.plan();
    ctx.model = before;
    if (!plan) return Failure(plan.error());
    std::string what = "learned;" + options.dump();
    for (const SitePlan& s : plan->sites)
      if (s.spec) what += ";" + to_json_text(s.site) + to_json_text(*s.spec) + s.share;
    LearnedRotations found;
    QUANVAS_TRY(const std::string bytes, ctx.measured(what, [&](JobContext& own) -> Result<std::string> {
      QUANVAS_TRY(const auto loss, RotationLoss::create(ctx, fused, *plan, turned, start, l));
      QUANVAS_TRY(const LearnedRotations done, learn_rotations(*loss, l, own));
      return to_bytes(done);
    }, [&](const std::string& known) { return from_bytes(known, start, found); }));
    if (!from_bytes(bytes, start, found)) return fail(ErrorCode::kCorrupt, "The learned rotations are damaged.", "Run the recipe again.");
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "loss on calibration samples kept for it %.4f → %.4f", found.before, found.after);
    text += found.step == 0 ? "; learning found no better rotations ("
                            : "; learned in " + std::to_string(found.step) + " of " + std::to_string(l.steps) + " steps (";
    text += std::string(numbers) + ")";
    if (found.step == 0) return Learned();
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = Rotation::of(start[i].size(), std::move(found.matrices[i]));
    return Learned(std::move(start));
  }
};

QUANVAS_PLUGIN(Pass, Rotate)

}  // namespace
}  // namespace quanvas
