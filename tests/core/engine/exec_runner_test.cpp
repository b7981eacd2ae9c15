#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <set>

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "core/exec/chunks.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using exec::Environment;
using exec::Runner;
using testing::ModelMaker;
using testing::noise;
using testing::quantize_all;
using testing::same_bits;
using testing::small_cnn;
using testing::tensor;

std::shared_ptr<const Runner> runner_of(const ModelPtr& model, const exec::QuantizerMap* q = nullptr) {
  auto r = Runner::create(model, q);
  EXPECT_TRUE(r) << (r ? "" : r.error().text());
  return r ? *r : nullptr;
}

TEST(ExecRunner, TapsSeeEveryActivationOnce) {
  const ModelPtr model = small_cnn();
  std::vector<std::string> seen;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& t) {
    EXPECT_TRUE(t.defined());
    seen.push_back(model->graph->tensor(id).name);
  };
  ASSERT_TRUE(runner_of(model)->run({noise({2, 1, 8, 8}, 1)}, hooks));
  EXPECT_EQ(seen, (std::vector<std::string>{"x", "c", "r", "p", "f", "y"}));
}

TEST(ExecRunner, MemoryIsFreedAfterTheLastUse) {
  const ModelPtr model = small_cnn();
  std::weak_ptr<int> alive;
  const auto runner = runner_of(model);
  c10::weak_intrusive_ptr<c10::TensorImpl> conv(at::empty({0}).getIntrusivePtr());
  bool freed_before_the_end = false;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& t) {
    const std::string& name = model->graph->tensor(id).name;
    if (name == "c") conv = c10::weak_intrusive_ptr<c10::TensorImpl>(t.getIntrusivePtr());
    if (name == "y") freed_before_the_end = conv.expired();
  };
  ASSERT_TRUE(runner->run({noise({2, 1, 8, 8}, 1)}, hooks));
  EXPECT_TRUE(freed_before_the_end);
}

// Of a chunk, too: it may take seconds.
TEST(ExecRunner, AStoppedJobEndsBehindTheOperatorThatRuns) {
  const auto runner = runner_of(small_cnn());
  std::stop_source stop;
  JobContext job(stop.get_token());
  int seen = 0;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId, const at::Tensor&) {
    if (++seen == 2) stop.request_stop();  // the input, the first operator
  };
  const Status status = exec::parallel_ordered(
      1, job, true,
      [&](std::int64_t) -> Result<std::shared_ptr<void>> {
        const auto done = runner->run({noise({2, 1, 8, 8}, 1)}, hooks);
        EXPECT_FALSE(done);
        EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
        return std::shared_ptr<void>();
      },
      [](std::int64_t, void*) -> Status { return {}; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(seen, 2);
}

TEST(ExecRunner, PartialRunsTakeTheRestFromTheEnvironment) {
  const ModelPtr model = small_cnn();
  const auto runner = runner_of(model);
  const at::Tensor x = noise({2, 1, 8, 8}, 1);
  auto env = runner->run_all({x});
  ASSERT_TRUE(env) << env.error().text();
  const at::Tensor y = (*env)[static_cast<std::size_t>(model->graph->tensor("y"))];
  Environment cut = *env;
  const auto pool = model->graph->tensor("p");
  cut[static_cast<std::size_t>(pool)] = cut[static_cast<std::size_t>(pool)] * 2;
  const auto nodes = model->graph->downstream(model->graph->find("flat")->id);
  ASSERT_TRUE(runner->run_nodes(nodes, cut));
  const at::Tensor bias = runner->weights()[static_cast<std::size_t>(model->graph->tensor("fc.b"))];
  EXPECT_TRUE(at::allclose(cut[static_cast<std::size_t>(model->graph->tensor("y"))] - bias, (y - bias) * 2, 1e-5, 1e-6));
  const Status missing = runner->run_nodes({NodeId{12345}}, cut);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST(ExecRunner, QuantizersActOnWeightsInputsAndOutputs) {
  const ModelPtr model = small_cnn();
  const at::Tensor x = noise({4, 1, 8, 8}, 1);
  exec::QuantizerMap q = quantize_all(model, x, 4, 4);
  const NodeId conv = model->graph->find("conv")->id;
  QuantSpec out;
  out.bits = 3;
  q[{conv, SiteKind::kOutput, 0}] = quant::params_from_range(out, {}, {-1}, {1});
  const auto runner = runner_of(model, &q);
  const at::Tensor w = runner->weights()[static_cast<std::size_t>(model->graph->tensor("conv.w"))];
  for (int c = 0; c < 6; ++c) EXPECT_LE(std::get<0>(at::_unique(w[c])).numel(), 15);
  auto env = runner->run_all({x});
  ASSERT_TRUE(env) << env.error().text();
  EXPECT_LE(std::get<0>(at::_unique((*env)[static_cast<std::size_t>(model->graph->tensor("c"))])).numel(), 8);
  // The same by hand.
  const at::Tensor xq = exec::fake_quantize(x, q.at({conv, SiteKind::kInput, 0}));
  const at::Tensor b = runner->weights()[static_cast<std::size_t>(model->graph->tensor("conv.b"))];
  const at::Tensor expected = exec::fake_quantize(at::conv2d(xq, w, b, 1, 1), q.at({conv, SiteKind::kOutput, 0}));
  EXPECT_TRUE(same_bits((*env)[static_cast<std::size_t>(model->graph->tensor("c"))], expected));
  // Nothing of this touches the model.
  EXPECT_TRUE(same_bits(testing::run_one(model, x), testing::run_one(small_cnn(), x)));
}

TEST(ExecRunner, OperandsOfTwoInputLayersAreCountedAmongActivations) {
  ModelMaker m;
  m.input("a", {-1, 2}).input("b", {-1, 2});
  m.node("add", "Add", {"a", "b"}, {"y"}).node("twice", "Add", {"y", "y"}, {"z"}).output("z");
  const ModelPtr model = m.build();
  std::vector<std::tuple<NodeId, SiteKind, int>> sites;
  exec::RunHooks hooks;
  hooks.quantize = [&](const Site& s, const at::Tensor& x) {
    sites.emplace_back(s.node, s.kind, s.operand);
    return s.kind == SiteKind::kInput && s.operand == 1 ? x * 10 : x;
  };
  auto out = runner_of(model)->run({tensor({1, 2}, {1, 2}), tensor({1, 2}, {3, 4})}, hooks);
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_TRUE((*out)[0].equal(tensor({1, 2}, {31 * 11, 42 * 11})));
  EXPECT_EQ(sites.size(), 6u);
}

TEST(ExecRunner, TiedWeightsAreQuantizedPerReader) {
  ModelMaker m;
  m.input("x", {-1, 2}).weight("w", tensor({2, 2}, {0.3f, 1, -0.7f, 0.2f}));
  m.node("first", "MatMul", {"x", "w"}, {"h"}).node("second", "MatMul", {"h", "w"}, {"y"}).output("y");
  const ModelPtr model = m.build();
  QuantSpec coarse;
  coarse.bits = 2;
  coarse.narrow = true;
  const at::Tensor w = tensor({2, 2}, {0.3f, 1, -0.7f, 0.2f}), x = tensor({1, 2}, {1, 2});
  exec::QuantizerMap q;
  q[{m.id("first"), SiteKind::kWeight, 0}] = *quant::find_params(coarse, {2, 2}, w.data_ptr<float>(), 1);
  const at::Tensor wq = exec::fake_quantize(w, q.begin()->second);
  EXPECT_TRUE(same_bits(testing::run_one(model, x, &q), x.matmul(wq).matmul(w)));
}

struct InputCase {
  const char* name;
  std::vector<at::Tensor> inputs;
  const char* message;
};
TEST(ExecRunner, WrongInputsAreErrors) {
  const std::vector<InputCase> rows = {{"none", {}, "has 1 input"},
                                       {"undefined", {at::Tensor()}, "'x' was not given"},
                                       {"shape", {at::ones({1, 3, 8, 8})}, "model expects"},
                                       {"rank", {at::ones({8, 8})}, "model expects"}};
  const auto runner = runner_of(small_cnn());
  for (const auto& row : rows) {
    auto out = runner->run(row.inputs);
    ASSERT_FALSE(out) << row.name;
    EXPECT_EQ(out.error().code, ErrorCode::kInvalidArgument) << row.name;
    EXPECT_NE(out.error().text().find(row.message), std::string::npos) << row.name << ": " << out.error().text();
  }
}

TEST(ExecRunner, DevicesThatAreNotThereAreErrors) {
  for (const char* device : {"tpu", "cuda:99", "cuda:x"}) {
    auto r = Runner::create(small_cnn(), nullptr, device);
    ASSERT_FALSE(r) << device;
    EXPECT_FALSE(r.error().text().empty());
  }
}

TEST(ExecRunner, MissingDataAndForeignQuantizersAreErrors) {
  const ModelPtr model = small_cnn();
  auto less = std::make_shared<WeightStore>(*model->weights);
  less->erase("fc.w");
  auto broken = std::make_shared<const Model>(Model{model->graph, less, ""});
  auto r = Runner::create(broken, nullptr);
  ASSERT_TRUE(r);
  auto out = (*r)->run({noise({1, 1, 8, 8}, 1)});
  ASSERT_FALSE(out);
  EXPECT_NE(out.error().text().find("fc.w"), std::string::npos) << out.error().text();

  exec::QuantizerMap q = quantize_all(model, noise({1, 1, 8, 8}, 1), 8, 8);
  q[{model->graph->find("fc")->id, SiteKind::kWeight, 0}].layout = {Granularity::kTensor, 1, 1, 7, 1};
  auto wrong = Runner::create(model, &q);
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().text().find("fc"), std::string::npos);
}

TEST(ExecRunner, FixedBatchFollowsTheData) {
  ModelMaker m;
  m.input("x", {1, 4}).weight("shape", testing::ints({1, 2, 2})).weight("flat", testing::ints({1, -1}));
  m.shape("r", {1, 2, 2});
  m.node("reshape", "Reshape", {"x", "shape"}, {"r"}).node("back", "Reshape", {"r", "flat"}, {"y"}).output("y");
  m.shape("r", {1, 2, 2});
  const at::Tensor x = noise({5, 4}, 3);
  EXPECT_TRUE(same_bits(testing::run_one(m.build(), x), x));
}

TEST(ExecRunner, NanAndInfinityRunThrough) {
  const ModelPtr model = small_cnn();
  at::Tensor x = noise({2, 1, 8, 8}, 1);
  x[0][0][0][0] = NAN;
  x[1][0][0][0] = INFINITY;
  const exec::QuantizerMap q = quantize_all(model, noise({2, 1, 8, 8}, 1), 4, 4);
  EXPECT_TRUE(testing::run_one(model, x, &q).isfinite().all().item().toBool());  // codes are always finite
  EXPECT_FALSE(testing::run_one(model, x).isfinite().all().item().toBool());
}

// Runs samples through the chunk workers and returns all outputs in order.
at::Tensor outputs_with_threads(const std::shared_ptr<const Runner>& runner, int threads) {
  exec::set_threads(threads);
  const testing::PatternData data({1, 8, 8}, 4, 300);
  std::vector<at::Tensor> parts;
  JobContext job;
  std::vector<std::int64_t> samples(300);
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::int64_t>(i);
  const Status s = exec::for_each_chunk<at::Tensor>(
      data, samples, "cpu", job, "test",
      [&](exec::Chunk& c) -> Result<at::Tensor> {
        QUANVAS_TRY(auto out, runner->run({c.input}));
        return out[0];
      },
      [&](std::int64_t i, at::Tensor& t) -> Status {
        EXPECT_EQ(i, static_cast<std::int64_t>(parts.size()));
        parts.push_back(t);
        return {};
      });
  EXPECT_TRUE(s);
  exec::set_threads(0);
  c10::InferenceMode guard;
  return at::cat(parts);
}

TEST(ExecChunks, ResultsAreBitEqualForAnyNumberOfThreads) {
  const ModelPtr model = small_cnn();
  const exec::QuantizerMap q = quantize_all(model, noise({8, 1, 8, 8}, 1), 4, 4);
  for (const auto* quantizers : {static_cast<const exec::QuantizerMap*>(nullptr), &q}) {
    const auto runner = runner_of(model, quantizers);
    const at::Tensor one = outputs_with_threads(runner, 1);
    EXPECT_EQ(one.size(0), 300);
    EXPECT_TRUE(same_bits(one, outputs_with_threads(runner, 2)));
    EXPECT_TRUE(same_bits(one, outputs_with_threads(runner, 5)));
  }
}

struct Count {
  std::mutex mutex;
  std::set<std::int64_t> started;
};

TEST(ExecChunks, TheFirstErrorInOrderWins) {
  exec::set_threads(3);
  JobContext job;
  std::vector<std::int64_t> consumed;
  const Status s = exec::parallel_ordered(
      50, job, true,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        if (i == 7) return fail(ErrorCode::kIo, "seven");
        if (i == 8) throw std::runtime_error("eight");
        return std::shared_ptr<void>();
      },
      [&](std::int64_t i, void*) -> Status {
        consumed.push_back(i);
        return {};
      });
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().message, "seven");
  EXPECT_EQ(consumed, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6}));
  exec::set_threads(0);
}

TEST(ExecChunks, ExceptionsBecomeErrors) {
  JobContext job;
  const auto nothing = [](std::int64_t) -> Result<std::shared_ptr<void>> { return std::shared_ptr<void>(); };
  Status s = exec::parallel_ordered(
      3, job, true, [](std::int64_t) -> Result<std::shared_ptr<void>> { throw std::bad_alloc(); },
      [](std::int64_t, void*) -> Status { return {}; });
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::kOutOfMemory);
  s = exec::parallel_ordered(3, job, true, nothing, [](std::int64_t, void*) -> Status { throw std::runtime_error("consumer"); });
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().message, "consumer");
  EXPECT_TRUE(exec::parallel_ordered(0, job, true, nothing, [](std::int64_t, void*) -> Status { return {}; }));
}

TEST(ExecChunks, AStopEndsTheWalk) {
  std::stop_source stop;
  JobContext job(stop.get_token());
  std::int64_t last = -1;
  const Status s = exec::parallel_ordered(
      1000000, job, true, [](std::int64_t) -> Result<std::shared_ptr<void>> { return std::shared_ptr<void>(); },
      [&](std::int64_t i, void*) -> Status {
        last = i;
        if (i == 10) stop.request_stop();
        return {};
      });
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(last, 10);
}

TEST(ExecChunks, LookAheadIsBounded) {
  exec::set_threads(2);
  JobContext job;
  std::mutex mutex;
  std::int64_t highest = -1, worst = 0;
  const Status s = exec::parallel_ordered(
      200, job, true,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        std::lock_guard lock(mutex);
        highest = std::max(highest, i);
        return std::shared_ptr<void>();
      },
      [&](std::int64_t i, void*) -> Status {
        std::lock_guard lock(mutex);
        worst = std::max(worst, highest - i);
        return {};
      });
  EXPECT_TRUE(s);
  EXPECT_LE(worst, 4);
  exec::set_threads(0);
}

TEST(ExecRuntime, ThreadsOfWorkersDoNotLeak) {
  exec::set_threads(2);
  JobContext job;
  ASSERT_TRUE(exec::parallel_ordered(
      4, job, true,
      [](std::int64_t) -> Result<std::shared_ptr<void>> {
        EXPECT_EQ(at::get_num_threads(), 1);
        EXPECT_EQ(quant::kernel_threads(), 1);
        return std::shared_ptr<void>();
      },
      [](std::int64_t, void*) -> Status { return {}; }));
  EXPECT_EQ(at::get_num_threads(), 2);
  EXPECT_EQ(exec::threads(), 2);
  exec::set_threads(0);
  EXPECT_GE(exec::threads(), 1);
}

TEST(ExecRuntime, VersionsSayWhatIsLinked) {
  const auto v = exec::engine_versions();
  for (const char* key : {"torch", "blas", "threads", "cpu_capability", "devices"}) {
    ASSERT_TRUE(v.count(key)) << key;
    EXPECT_FALSE(v.at(key).empty()) << key;
  }
  EXPECT_EQ(exec::has_reference_blas(), v.at("blas").find("reference") != std::string::npos);
}

TEST(ExecTensors, DataMakeTheRoundTrip) {
  const std::vector<at::Tensor> rows = {noise({2, 3}, 1), noise({3}, 2).to(at::kHalf), noise({2}, 3).to(at::kDouble),
                                        testing::ints({1, -2}), at::tensor({1, 0}, at::kInt).to(at::kBool),
                                        at::tensor({7, 200}, at::kInt).to(at::kByte), at::empty({0, 3})};
  for (const at::Tensor& t : rows) {
    const at::Tensor back = exec::to_tensor(exec::to_data(t));
    EXPECT_EQ(back.scalar_type(), t.scalar_type());
    EXPECT_TRUE(t.numel() == 0 ? back.sizes() == t.sizes() : same_bits(back, t));
  }
  TensorData truncated = exec::to_data(noise({4}, 1));
  truncated.bytes = 7;
  EXPECT_FALSE(exec::to_tensor(truncated).defined());
  const std::uint16_t wide[] = {65535, 1};
  EXPECT_TRUE(exec::to_tensor(TensorData::copy_of(DataType::kUint16, {2}, wide, 4)).equal(at::tensor({65535, 1}, at::kInt)));
}

}  // namespace
}  // namespace quanvas
