// Truncated outputs of average pools in networks: the runner against integers, training, rebuilding.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/rebuild.h"
#include "core/exec/train.h"
#include "core/quant/truncate.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using Ints = std::vector<std::int64_t>;
using testing::ModelMaker;
using testing::noise;

struct Pool {
  const char* op;
  Attributes attributes;
  Ints kernel, stride, pad;  // what the attributes say
};
std::vector<Pool> pools(const Shape& picture) {
  const Ints one = {1, 1}, none = {0, 0}, all(picture.begin() + 2, picture.end());
  return {{"AveragePool", {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}, {2, 2}, {2, 2}, none},
          {"AveragePool", {{"kernel_shape", Ints{3, 3}}}, {3, 3}, one, none},
          {"AveragePool",
           {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}, {"count_include_pad", std::int64_t{1}}},
           {3, 3},
           one,
           {1, 1}},
          // One long sum: float32 would lose count.
          {"AveragePool", {{"kernel_shape", all}}, all, one, none},
          {"GlobalAveragePool", {}, all, one, none},
          {"ReduceMean", {{"axes", Ints{2, 3}}}, all, one, none}};
}

ModelPtr one_pool(const Pool& pool, const Shape& picture) {
  ModelMaker m;
  Shape batch = picture;
  batch[0] = -1;
  m.input("x", batch);
  m.node("pool", pool.op, {"x"}, {"y"}, pool.attributes);
  m.output("y");
  return m.build();
}

quant::QuantParams input_params(int bits, bool is_signed, float scale, const Shape& shape) {
  QuantSpec s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.source = ScaleSource::kConstant;
  s.scale_value = static_cast<double>(scale);
  const at::Tensor none = at::zeros(shape);
  return *quant::find_params(s, shape, none.data_ptr<float>(), 1);
}

QuantSpec trunc(int bits, bool is_signed, Rounding rounding) {
  QuantSpec s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.rounding = rounding;
  s.truncation = Truncation::kMsb;
  return s;
}

// The sums of the codes, window by window, as integers.
std::vector<std::int64_t> sums(const std::vector<std::int32_t>& codes, const Shape& picture, const Pool& pool) {
  const std::int64_t height = picture[2], width = picture[3];
  const std::int64_t rows = (height + 2 * pool.pad[0] - pool.kernel[0]) / pool.stride[0] + 1;
  const std::int64_t columns = (width + 2 * pool.pad[1] - pool.kernel[1]) / pool.stride[1] + 1;
  std::vector<std::int64_t> out;
  for (std::int64_t plane = 0; plane < picture[0] * picture[1]; ++plane)
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) {
        std::int64_t sum = 0;
        for (std::int64_t i = 0; i < pool.kernel[0]; ++i)
          for (std::int64_t j = 0; j < pool.kernel[1]; ++j) {
            const std::int64_t y = r * pool.stride[0] + i - pool.pad[0], x = c * pool.stride[1] + j - pool.pad[1];
            if (y >= 0 && y < height && x >= 0 && x < width)
              sum += codes[static_cast<std::size_t>((plane * height + y) * width + x)];
          }
        out.push_back(sum);
      }
  return out;
}

// floor or round half to even of n / t, by integers.
std::int64_t shortened(std::int64_t n, std::int64_t t, Rounding rounding) {
  const std::int64_t down = n >= 0 ? n / t : -((-n + t - 1) / t), rest = n - down * t;
  if (rounding == Rounding::kFloor) return down;
  return down + (2 * rest > t || (2 * rest == t && down % 2 != 0));
}

// Scales that float32 does not hold exactly, sums of up to 21 bits, both signs: bit for bit what the integers give.
TEST(ExecTruncation, PoolsAreSumsOfIntegersBitForBit) {
  for (const Shape& picture : {Shape{3, 4, 7, 9}, Shape{2, 2, 90, 90}})
    for (const Pool& pool : pools(picture)) {
      const ModelPtr model = one_pool(pool, picture);
      const auto layers = find_layers(*model->graph);
      const NodeId id = model->graph->find("pool")->id;
      const Site in{id, SiteKind::kInput, 0}, out{id, SiteKind::kOutput, 0};
      const std::int64_t k = pool.kernel[0] * pool.kernel[1];
      for (const int bits : {8, 4})
        for (const bool is_signed : {false, true})
          // 21 bits: the sum itself.
          for (const auto& [rounding, kept] :
               {std::pair{Rounding::kFloor, 8}, {Rounding::kHalfEven, 8}, {Rounding::kFloor, 21}}) {
            const float scale = 0.0123f;
            exec::QuantizerMap q;
            q[in] = input_params(bits, is_signed, scale, picture);
            auto p =
                exec::truncation(*model->graph, *find_layer(layers, id), trunc(kept, is_signed, rounding), 0, q);
            ASSERT_TRUE(p) << p.error().text();
            q[out] = *p;
            // Mostly large values, so that the sums are.
            at::Tensor x =
                (noise(picture, 5) * (is_signed ? 0.7 : 0.3) + (is_signed ? 0.5 : 0.8)) * (scale * std::exp2(bits));
            if (is_signed) x = x * 0.5;
            std::vector<std::int32_t> codes(static_cast<std::size_t>(x.numel()));
            quant::quantize_codes(q[in], *quant::rebatch(q[in], picture), x.data_ptr<float>(), codes.data());
            const at::Tensor y = testing::run_one(model, x, &q).contiguous();
            const std::vector<std::int64_t> n = sums(codes, picture, pool);
            ASSERT_EQ(y.numel(), static_cast<std::int64_t>(n.size()));
            int more = 0;
            while ((std::int64_t{1} << more) < k) ++more;
            ASSERT_EQ(p->truncated->bits, bits + more);
            const std::int64_t t = std::int64_t{1} << std::max(0, bits + more - kept);
            const float out_scale = scale / static_cast<float>(k) * static_cast<float>(t);
            for (std::size_t i = 0; i < n.size(); ++i) {
              const std::int64_t code = std::clamp(shortened(n[i], t, rounding), p->lo, p->hi);
              const float want = static_cast<float>(code) * out_scale;
              ASSERT_EQ(y.data_ptr<float>()[i], want)
                  << pool.op << ", sum " << n[i] << " of " << k << ", " << enum_text(rounding);
            }
          }
    }
}

TEST(ExecTruncation, FollowsItsInputOrLosesItsQuantizer) {
  const Shape picture = {2, 3, 4, 4};
  const ModelPtr model = one_pool(pools(picture).back(), picture);
  const auto layers = find_layers(*model->graph);
  const NodeId id = model->graph->find("pool")->id;
  const Site in{id, SiteKind::kInput, 0}, out{id, SiteKind::kOutput, 0};
  exec::QuantizerMap q;
  const auto missing = exec::truncation(*model->graph, layers[0], trunc(8, false, Rounding::kFloor), 0, q);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(missing.error().message.find("its input is float"), std::string::npos) << missing.error().message;
  q[in] = input_params(8, false, 0.5f, picture);
  q[out] = *exec::truncation(*model->graph, layers[0], trunc(8, false, Rounding::kFloor), 0, q);
  EXPECT_EQ(q[out].scale[0], 0.5f / 16 * 16);
  q[in] = input_params(6, false, 0.25f, picture);
  ASSERT_TRUE(exec::rebuild_truncations(*model->graph, layers, q));
  EXPECT_EQ(q[out].truncated, (quant::TruncationInput{0.25f / 16, 10}));
  EXPECT_EQ(q[out].scale[0], 0.25f / 16 * 4);
  q.erase(in);
  ASSERT_TRUE(exec::rebuild_truncations(*model->graph, layers, q));
  EXPECT_EQ(q.count(out), 0u);
}

// conv -> relu -> average pool -> gemm, the pool's output truncated
struct Network {
  testing::PatternData data{{1, 8, 8}, 4, 400};
  ModelPtr model;
  exec::QuantizerMap q;
  Site in, out;
  Network() {
    ModelMaker m;
    m.input("x", {-1, 1, 8, 8});
    m.weight("conv.w", noise({6, 1, 3, 3}, 1) * 0.5).weight("fc.w", noise({4, 96}, 3) * 0.15);
    m.shape("c", {-1, 6, 8, 8}).shape("r", {-1, 6, 8, 8}).shape("p", {-1, 6, 4, 4});
    m.node("conv", "Conv", {"x", "conv.w"}, {"c"}, {{"pads", Ints{1, 1, 1, 1}}}).node("relu", "Relu", {"c"}, {"r"});
    m.node("pool", "AveragePool", {"r"}, {"p"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
    m.node("flat", "Flatten", {"p"}, {"f"}).node("fc", "Gemm", {"f", "fc.w"}, {"y"}, {{"transB", std::int64_t{1}}});
    m.output("y");
    model = m.build();
    q = testing::quantize_all(model, noise({32, 1, 8, 8}, 1), 4, 4);
    const NodeId pool = model->graph->find("pool")->id;
    in = {pool, SiteKind::kInput, 0};
    out = {pool, SiteKind::kOutput, 0};
    q[in] = input_params(4, false, 0.11f, {32, 6, 8, 8});
    q[in].spec.source = ScaleSource::kLearned;
    q[in].spec.scale_value.reset();
    const auto layers = find_layers(*model->graph);
    q[out] = *exec::truncation(*model->graph, *find_layer(layers, pool), trunc(4, false, Rounding::kFloor), 0, q);
  }
  exec::TrainResult train(int threads, bool bits = false) {
    exec::set_threads(threads);
    q[in].spec.learn_bits = bits;
    exec::TrainSettings s;
    s.batch = 32;
    s.learning_rate = 5e-3;
    s.validation_samples = 0;
    s.scale_learning_rate = bits ? 0.2 : 0.02;
    s.bits_penalty = bits ? 100 : 0;
    JobContext job;
    auto r = exec::train(model, &q, data, s, "cpu", job);
    EXPECT_TRUE(r) << (r ? "" : r.error().text());
    exec::set_threads(0);
    return r ? *r : exec::TrainResult{};
  }
};

TEST(ExecTruncation, TrainingTakesTheScaleOfTheInputAlong) {
  Network n;
  const auto r = n.train(1);
  const float scale = r.quantizers.at(n.in).scale[0];
  EXPECT_NE(scale, n.q.at(n.in).scale[0]) << "the input's scale is learned";
  EXPECT_EQ(r.quantizers.at(n.out).truncated, (quant::TruncationInput{scale / 4, 6}));
  EXPECT_EQ(r.quantizers.at(n.out).scale[0], scale / 4 * 4);
  EXPECT_NE(r.weights->find("conv.w")->to_floats(), n.model->weights->find("conv.w")->to_floats())
      << "the gradient goes through";
  Network again;
  EXPECT_EQ(again.train(3).quantizers.at(n.out).scale, r.quantizers.at(n.out).scale) << "any number of threads";
}

TEST(ExecTruncation, ALearnedWidthOfTheInputChangesWhatIsCutOff) {
  Network n;
  const auto r = n.train(2, /*bits=*/true);
  const auto& in = r.quantizers.at(n.in);
  ASSERT_LT(in.spec.bits, 4);
  const int sum = in.spec.bits + 2;
  EXPECT_EQ(r.quantizers.at(n.out).truncated->bits, sum);
  EXPECT_EQ(r.quantizers.at(n.out).scale[0], in.scale[0] / 4 * std::exp2(static_cast<float>(std::max(0, sum - 4))));
}

// Straight through inside the codes, nothing where they saturate.
TEST(ExecTruncation, GradientsGoStraightThrough) {
  const auto p = *quant::truncation_params(trunc(4, false, Rounding::kFloor), {5}, {0.5f, 5}, 0);
  const at::Tensor x = testing::tensor({5}, {0.4f, 3.0f, 15.5f, 16.0f, -1.0f}).requires_grad_(true);
  exec::fake_quantize_ste(x, exec::LearnedParams(), p, false).sum().backward();
  EXPECT_TRUE(x.grad().equal(testing::tensor({5}, {1, 1, 1, 0, 0}))) << x.grad();
  x.mutable_grad().reset();
  exec::fake_quantize_ste(x, exec::LearnedParams(), p, true).sum().backward();
  EXPECT_TRUE(x.grad().equal(at::ones({5})));
}

}  // namespace
}  // namespace quanvas
