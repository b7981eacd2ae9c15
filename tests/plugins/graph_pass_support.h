// Quanvas - graph passes that look at data, run by hand, for their tests.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/exec/pass_context.h"
#include "core/recipe/plan.h"
#include "tests/plugins/scaling_nets.h"

namespace quanvas::testing {

// Samples of one tensor, along its first axis.
class Samples final : public Dataset {
 public:
  explicit Samples(at::Tensor x) : x_(x.contiguous()) {}
  std::int64_t size() const override { return x_.size(0); }
  Shape sample_shape() const override { return Shape(x_.sizes().begin() + 1, x_.sizes().end()); }
  bool has_labels() const override { return false; }
  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t*) const override {
    const std::int64_t n = x_.numel() / x_.size(0);
    for (std::size_t i = 0; i < indices.size(); ++i)
      std::copy_n(x_.data_ptr<float>() + indices[i] * n, n, out + static_cast<std::int64_t>(i) * n);
    return {};
  }
  std::string hash() const override { return "samples"; }

 private:
  at::Tensor x_;
};

struct Scaled {
  ModelPtr model;
  std::string text, measure;
  std::vector<PassLayer> layers;
};

// What measured() keeps between runs.
struct Kept {
  std::map<std::string, std::string> bytes;
  bool may_compute = true;
  bool keeps_damaged = false;  // as nothing that keeps measurements should
  int computed = 0;
  std::stop_token stop;
};

inline Result<Scaled> run_pass(const std::string& id, const ModelPtr& model, const json& options, const at::Tensor& samples, Kept* kept = nullptr,
                        const Recipe& recipe = {}, const DatasetPtr& data = nullptr) {
  Kept own;
  Kept& k = kept ? *kept : own;
  PassContext ctx;
  ctx.model = model;
  ctx.calibration_data = data ? data : std::make_shared<Samples>(samples);
  for (std::int64_t i = 0; i < ctx.calibration_data->size(); ++i) ctx.calibration_samples.push_back(i);
  JobContext job(k.stop);
  ctx.measured = [&](const std::string& what, const PassContext::Compute& compute, const PassContext::IsGood& is_good) -> Result<std::string> {
    if (const auto it = k.bytes.find(what); it != k.bytes.end() && (is_good(it->second) || k.keeps_damaged)) return it->second;
    if (!k.may_compute) return fail(ErrorCode::kUnsupported, "not measured");
    ++k.computed;
    QUANVAS_TRY(k.bytes[what], compute(job));
    return k.bytes[what];
  };
  ctx.computed = ctx.measured;
  ctx.plan = [&] { return resolve(*ctx.model->graph, recipe, PresetLibrary::builtin()); };
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(id, "pass"));
  QUANVAS_TRY(const json all, pass->schema().complete(options, id));
  QUANVAS_TRY(const std::string text, pass->apply(ctx, all, job));
  return Scaled{ctx.model, text, ctx.measure, ctx.layers};
}

// Weights and inputs of all layers in these bits.
inline Recipe recipe_of(int weight_bits, int input_bits) {
  Recipe recipe;
  const auto rule = [&](SiteKind kind, int bits, const char* granularity) {
    Rule r;
    r.select.sites = {kind};
    r.override_fields = {{"bits", bits}, {"granularity", granularity}};
    recipe.rules.push_back(r);
  };
  rule(SiteKind::kWeight, weight_bits, "channel");
  if (input_bits > 0) rule(SiteKind::kInput, input_bits, "tensor");
  return recipe;
}

inline at::Tensor samples_of(const Net& net) {
  Shape shape = net.input;
  Shape channels(shape.size(), 1);
  const std::size_t axis = shape.size() == 3 ? 2 : 1;
  channels[axis] = shape[axis];
  return noise(shape, 40) * at::pow(2.0, 4 * noise(channels, 41));
}

}  // namespace quanvas::testing
