// Low-rank branches: a layer's weight becomes a quantized part and two thin matrices beside it, which stay in float and take
// what the format cannot hold: y = Q(W - A B) x + A B x. SVDQuant (Li et al. 2024, arXiv 2411.05007, section 4.2) takes the
// largest singular values of W itself, LoftQ (Li et al. 2023, arXiv 2310.08659, algorithm 1) those of what quantization lost, in turns.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <ATen/ATen.h>

#include "core/exec/pass_context.h"
#include "core/exec/rebuild.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

constexpr std::int64_t kExact = 1024;    // smaller side up to which all singular values are computed
constexpr std::int64_t kOversample = 16;
constexpr int kPowerIterations = 8;

// The best approximation of w [n, m] of this rank as a [n, rank], b [rank, m], the root of the singular values in each
// (Halko et al. 2011, algorithms 4.4 and 5.1, where the matrix is large).
std::pair<at::Tensor, at::Tensor> approximation(const at::Tensor& w, std::int64_t rank) {
  at::Tensor u, s, vh;
  if (std::min(w.size(0), w.size(1)) <= kExact) {
    std::tie(u, s, vh) = at::linalg_svd(w, /*full_matrices=*/false);
  } else {
    auto generator = at::detail::createCPUGenerator(0);
    at::Tensor q = std::get<0>(at::linalg_qr(w.matmul(at::randn({w.size(1), std::min(rank + kOversample, std::min(w.size(0), w.size(1)))}, generator, w.options()))));
    for (int i = 0; i < kPowerIterations; ++i) {
      q = std::get<0>(at::linalg_qr(w.transpose(0, 1).matmul(q)));
      q = std::get<0>(at::linalg_qr(w.matmul(q)));
    }
    std::tie(u, s, vh) = at::linalg_svd(q.transpose(0, 1).matmul(w), false);
    u = q.matmul(u);
  }
  const at::Tensor root = s.narrow(0, 0, rank).sqrt();
  return {u.narrow(1, 0, rank) * root, root.unsqueeze(1) * vh.narrow(0, 0, rank)};
}

struct Target {
  const Node* node = nullptr;
  Layer layer;
  bool outputs_first = false;  // the weight is [m, n]
  std::int64_t n = 0, m = 0, rank = 0;
  std::optional<QuantSpec> spec;
};

class LowRank final : public Pass {
 public:
  PluginInfo info() const override {
    return {"low-rank", "Low-rank branch",
            "Puts two thin matrices in float beside each linear layer, which take what the format of its weight cannot hold (SVDQuant, Li et al. 2024, arXiv 2411.05007; LoftQ, Li et al. 2023, arXiv 2310.08659). "
            "Behind SmoothQuant the branch takes the outliers that came from the activations."};
  }
  Schema schema() const override {
    return {{choice_field("method", "Method", "What the branch takes.", "svdquant",
                          {{"svdquant", "SVDQuant", "The largest singular values of the weight; the rest is quantized."},
                           {"loftq", "LoftQ", "Those of what quantization in the recipe's format lost, in turns with quantizing."}}),
             integer_field("rank", "Rank", "Columns of the first and rows of the second matrix; at most the layer's smaller side.", 32, 1, 4096),
             integer_field("iterations", "Rounds", "Of quantizing what is left and taking up what that lost; the best is kept.", 1, 1, 100),
             text_field("layers", "Layers", "Names of layers, separated by commas or spaces, with * and ?.", "*")}};
  }
  PassStage stage() const override { return PassStage::kGraph; }

  Result<std::string> apply(PassContext& ctx, const json& options, JobContext&) const override {
    const ModelPtr model = ctx.model;
    const bool loftq = options.at("method").get<std::string>() == "loftq";
    const auto rank = options.at("rank").get<std::int64_t>();
    const int iterations = options.at("iterations").get<int>();
    QUANVAS_TRY(const Plan plan, ctx.plan());
    std::vector<std::string> left;
    const std::vector<Target> targets = find(*model, plan, rank, options.at("layers").get<std::string>(), left);
    std::string what = options.dump();
    for (const Target& t : targets) what += "\n" + t.node->name + (t.spec ? to_json_text(*t.spec) : "");
    std::size_t expected = 0, added = 0;
    for (const Target& t : targets) expected += static_cast<std::size_t>(t.rank * (t.n + t.m)) * 4;
    std::string bytes;
    if (!targets.empty()) {
      QUANVAS_TRY(bytes, ctx.computed(what, [&](JobContext& job) -> Result<std::string> {
        std::string out;
        for (std::size_t i = 0; i < targets.size(); ++i) {
          QUANVAS_CHECK(job.check());
          job.progress("low-rank branches", static_cast<double>(i) / static_cast<double>(targets.size()), targets[i].node->name);
          QUANVAS_TRY(const auto branch, branch_of(*model, targets[i], loftq, iterations, job));
          for (const at::Tensor& part : {branch.first, branch.second}) {
            const at::Tensor x = part.to(at::kFloat).contiguous();
            out.append(reinterpret_cast<const char*>(x.data_ptr<float>()), static_cast<std::size_t>(x.numel()) * 4);
          }
        }
        return out;
      }, [&](const std::string& known) { return known.size() == expected && all_finite(known); }));
    }
    if (bytes.size() != expected) return damaged();
    ModelEdit edit(*model);
    const char* at = bytes.data();
    for (const Target& t : targets) {
      std::vector<double> a, b;
      for (auto* part : {&a, &b}) {
        for (std::int64_t i = 0; i < t.rank * (part == &a ? t.n : t.m); ++i, at += 4) {
          float v = 0;
          std::memcpy(&v, at, 4);
          if (!std::isfinite(v)) return damaged();
          part->push_back(v);
        }
      }
      insert(*model, t, a, b, edit, ctx.layers);
      added += a.size() + b.size();
    }
    ctx.measure = "norm of what is quantized / of the weight";
    if (!targets.empty()) {
      QUANVAS_TRY(ctx.model, edit.finish());
    }
    std::string text = "Put a branch beside " + std::to_string(targets.size()) + (targets.size() == 1 ? " layer, " : " layers, ") + std::to_string(added) + " weights in float";
    if (!left.empty()) text += "; left: " + join_some(left);
    return text + ".";
  }

 private:
  static bool all_finite(const std::string& bytes) {
    for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) {
      float v = 0;
      std::memcpy(&v, bytes.data() + i, 4);
      if (!std::isfinite(v)) return false;
    }
    return true;
  }
  static Failure damaged() { return fail(ErrorCode::kCorrupt, "What the low-rank pass has computed is damaged.", "Change an option of the pass and run the recipe again."); }

  static std::vector<Target> find(const Model& model, const Plan& plan, std::int64_t rank, const std::string& names, std::vector<std::string>& left) {
    std::vector<Target> out;
    const Graph& graph = *model.graph;
    Selector selector;
    std::string name;
    for (const char c : names + ",") {
      if (c != ',' && c != ' ') {
        name += c;
      } else if (!name.empty()) {
        selector.names.push_back(std::exchange(name, {}));
      }
    }
    const auto chosen = selected_layers(graph, selector);
    const std::set<NodeId> wanted(chosen.begin(), chosen.end());
    for (const Layer& layer : find_layers(graph)) {
      if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor || !wanted.count(layer.node)) continue;
      Target t{graph.find(layer.node), layer};
      const std::string why = problem(model, t);
      if (!why.empty()) {
        left.push_back("'" + t.node->name + "': " + why);
        continue;
      }
      t.rank = std::min({rank, t.n, t.m});
      if (const SitePlan* site = plan.find({layer.node, SiteKind::kWeight, 0}); site && site->spec) {
        t.spec = *site->spec;
        if (t.spec->source == ScaleSource::kStored) t.spec->source = ScaleSource::kStatistics;
      }
      out.push_back(std::move(t));
    }
    return out;
  }
  static std::string problem(const Model& model, Target& t) {
    const Node& node = *t.node;
    if (node.op != "MatMul" && node.op != "Gemm") return node.op + " is no linear layer";
    const TensorData* data = initializer_data(model, t.layer.weight);
    if (!data || node.input(1) != t.layer.weight || data->shape.size() != 2 || data->count() == 0) return "its weight is not the second operand, with data in the file";
    if (data->type != DataType::kFloat && data->type != DataType::kDouble) return "its weight is not of float32 numbers";
    if (model.graph->tensor(t.layer.weight).consumers.size() != 1) return "several layers read its weight";
    if (node.op == "Gemm" && (node.integer("transA", 0) != 0 || node.real("alpha", 1) != 1)) return "its input is transposed or its product scaled";
    for (const float v : data->to_floats())
      if (!std::isfinite(v)) return "its weight is not finite";
    t.outputs_first = node.op == "Gemm" && node.integer("transB", 0) != 0;
    t.n = data->shape[t.outputs_first ? 1 : 0];
    t.m = data->shape[t.outputs_first ? 0 : 1];
    return {};
  }

  // [n, m] in float64.
  static at::Tensor weight_of(const Model& model, const Target& t) {
    const TensorData* data = initializer_data(model, t.layer.weight);
    const at::Tensor w = at::tensor(data->to_floats(), at::kFloat).to(at::kDouble).reshape(data->shape);
    return t.outputs_first ? w.transpose(0, 1) : w;
  }
  // In the recipe's format; itself without one.
  static Result<at::Tensor> quantized(const Target& t, const at::Tensor& w) {
    if (!t.spec) return w;
    const at::Tensor x = (t.outputs_first ? w.transpose(0, 1) : w).to(at::kFloat).contiguous();
    const int axis = exec::site_axis(t.layer, *t.node, *t.spec, SiteKind::kWeight);
    QUANVAS_TRY(const auto params, quant::find_params(*t.spec, Shape(x.sizes().begin(), x.sizes().end()), x.data_ptr<float>(), axis));
    at::Tensor y = at::empty_like(x);
    quant::fake_quantize(params, params.layout, x.data_ptr<float>(), y.data_ptr<float>());
    y = y.to(at::kDouble);
    return t.outputs_first ? y.transpose(0, 1) : y;
  }

  static Result<std::pair<at::Tensor, at::Tensor>> branch_of(const Model& model, const Target& t, bool loftq, int iterations, JobContext& job) {
    const at::Tensor w = weight_of(model, t);
    std::pair<at::Tensor, at::Tensor> best;
    double least = HUGE_VAL;
    at::Tensor rest = w;  // what the branch is to take
    if (loftq) {
      QUANVAS_TRY(const at::Tensor q, quantized(t, w));
      rest = t.spec ? w - q : w;
    }
    for (int i = 0; i < iterations; ++i) {
      QUANVAS_CHECK(job.check());
      const auto branch = approximation(rest, t.rank);
      const at::Tensor product = branch.first.matmul(branch.second);
      QUANVAS_TRY(const at::Tensor q, quantized(t, w - product));
      const double error = (w - q - product).square().sum().item<double>();
      if (error < least) least = error, best = branch;
      rest = w - q;
    }
    return best;
  }

  static void insert(const Model& model, const Target& t, const std::vector<double>& a, const std::vector<double>& b, ModelEdit& edit, std::vector<PassLayer>& report) {
    const Graph& graph = *model.graph;
    const TensorData* data = initializer_data(model, t.layer.weight);
    const std::vector<float> w = data->to_floats();
    std::vector<double> rest(w.begin(), w.end());
    double before = 0, after = 0;
    for (std::int64_t i = 0; i < t.n; ++i)
      for (std::int64_t o = 0; o < t.m; ++o) {
        double product = 0;
        for (std::int64_t k = 0; k < t.rank; ++k) product += a[static_cast<std::size_t>(i * t.rank + k)] * b[static_cast<std::size_t>(k * t.m + o)];
        double& v = rest[static_cast<std::size_t>(t.outputs_first ? o * t.n + i : i * t.m + o)];
        before += v * v;
        v -= product;
        after += v * v;
      }
    edit.replace_initializer(*t.node, t.layer.weight, data->type, data->shape, rest);
    const std::string first = edit.new_initializer(t.node->name + ".low_rank_a", data->type, {t.n, t.rank}, a);
    const std::string second = edit.new_initializer(t.node->name + ".low_rank_b", data->type, {t.rank, t.m}, b);
    const TensorInfo &in = graph.tensor(t.node->input(0)), &out = graph.tensor(t.node->outputs[0]);
    const auto fresh = [&](const std::string& wish) {
      std::string name = wish;
      while (graph.tensor(name) != kNoTensor) name += "_";
      return name;
    };
    const std::string thin = fresh(out.name + ".low_rank_thin"), wide = fresh(out.name + ".low_rank_wide"), main = fresh(out.name + ".quantized");
    std::optional<Shape> shape = in.shape;
    if (shape && !shape->empty()) shape->back() = t.rank;
    GraphBuilder& builder = edit.builder();
    builder.tensor(thin, out.type, shape);
    builder.tensor(wide, out.type, out.shape);
    builder.tensor(main, out.type, out.shape);
    // Einsum, for these products are no layers: they stay in float whatever the recipe's rules say of layers.
    const auto equation = [](const char* text) { return Attributes{{"equation", std::string(text)}}; };
    builder.replace_output(t.node->id, out.name, main);
    builder.node(t.node->name + ".low_rank_a", "Einsum", {in.name, first}, {thin}, equation("...i,ir->...r"));
    builder.node(t.node->name + ".low_rank_b", "Einsum", {thin, second}, {wide}, equation("...r,ro->...o"));
    builder.node(t.node->name + ".low_rank_sum", "Add", {main, wide}, {out.name});
    report.push_back({t.node->name, 1, before > 0 ? std::sqrt(after / before) : 1, "rank " + std::to_string(t.rank)});
  }
};

QUANVAS_PLUGIN(Pass, LowRank)

}  // namespace
}  // namespace quanvas
