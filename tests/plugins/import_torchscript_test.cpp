// Every operator that is mapped, as rows: a small network in TorchScript, imported and run beside itself.
#include <algorithm>
#include <cmath>

#include "tests/plugins/torchscript_support.h"

namespace quanvas::torchscript_test {
namespace {

struct Row {
  const char* code;  // of forward(self, x: Tensor) -> what follows its colon
  Shape shape = {2, 3, 6, 6};
  const char* op = "";  // that must be among the nodes
  int torch_nodes = 0;  // run by LibTorch itself
};

at::Tensor pattern(const Shape& shape, double scale = 1) {
  at::manual_seed(5);
  return at::randn(shape) * scale;
}

torch::jit::Module module_with(const std::string& code) {
  torch::jit::Module m("Net");
  const auto weight = [&](const char* name, const Shape& shape) {
    m.register_parameter(name, pattern(shape, 0.3), false);
  };
  weight("w1", {4, 3, 3});
  weight("w2", {4, 3, 3, 3});
  weight("w3", {4, 3, 2, 2, 2});
  weight("depth", {3, 1, 3, 3});
  weight("t1", {3, 4, 3});
  weight("t2", {3, 4, 3, 3});
  weight("b4", {4});
  weight("lin", {5, 6});
  weight("b5", {5});
  weight("square", {6, 6});
  weight("mean", {3});
  weight("gamma", {3});
  weight("beta", {3});
  weight("one", {1});
  weight("table", {7, 4});
  weight("wi", {32, 6});
  weight("wh", {32, 8});
  weight("bi", {32});
  weight("bh", {32});
  weight("wi2", {32, 16});
  weight("gi", {24, 6});
  weight("gh", {24, 8});
  weight("ga", {24});
  weight("gb", {24});
  weight("ri", {8, 6});
  weight("rh", {8, 8});
  weight("ra", {8});
  weight("rb", {8});
  weight("h0", {2, 2, 8});
  weight("h1", {1, 2, 8});
  m.register_buffer("var", pattern({3}).abs() + 0.5);
  m.register_buffer("picks", at::tensor({2, 0, 1, 1}, at::kLong));
  m.register_buffer("mask", at::ones({6, 6}, at::kBool).tril());
  m.define(code);
  m.eval();
  return m;
}

std::string whole(const std::string& code) {
  std::string out = "def forward(self, x):\n";
  if (code.find('\n') == std::string::npos) return out + "  return " + code + "\n";
  return out + code;
}

void check(const Row& row) {
  SCOPED_TRACE(row.code);
  const TempFile file("net.ts.pt");
  std::optional<torch::jit::Module> module;
  ASSERT_NO_THROW(module = module_with(whole(row.code)));
  module->save(file.path());
  const at::Tensor x = pattern(row.shape);
  Tensors theirs;
  flatten(module->forward({x.clone()}), theirs);
  const Read ours = read_trusted(file.path(), {{"x", row.shape}});
  ASSERT_TRUE(ours.imported) << ours.imported.error().text();
  for (const Node& n : ours.graph().nodes()) EXPECT_EQ(exec::unsupported_reason(n), "") << n.name;
  const auto results = run(ours.imported->model, {x});
  ASSERT_TRUE(results) << results.error().text();
  EXPECT_LE(largest_difference(*results, theirs), 1e-5);
  for (std::size_t i = 0; i < theirs.size() && i < results->size(); ++i)
    EXPECT_EQ((*results)[i].scalar_type(), theirs[i].scalar_type());
  EXPECT_EQ(ours.count("TorchScript"), row.torch_nodes) << testing::PrintToString(ours.ops());
  EXPECT_TRUE(*row.op == 0 || ours.count(row.op) > 0) << testing::PrintToString(ours.ops());
  for (std::size_t i = 0; i < theirs.size(); ++i) {  // what is said of the result's shape is true
    const auto& shape = ours.graph().tensor(ours.graph().outputs()[i]).shape;
    if (!shape) continue;
    ASSERT_EQ(shape->size(), static_cast<std::size_t>(theirs[i].dim()));
    for (std::size_t k = 0; k < shape->size(); ++k)
      EXPECT_TRUE((*shape)[k] < 0 || (*shape)[k] == theirs[i].size(static_cast<std::int64_t>(k)))
          << shape_text(*shape);
  }
}

template <std::size_t N>
void check_all(const Row (&rows)[N]) {
  for (const Row& row : rows) check(row);
}

TEST(ImportTorchScript, Layers) {
  const Row rows[] = {
      {"torch.conv2d(x, self.w2, self.b4, [1, 1], [1, 1])", {2, 3, 6, 6}, "Conv"},
      {"torch.conv2d(x, self.w2, None, [2, 1], [0, 1], [1, 2])"},
      {"torch.conv2d(x, self.depth, None, [1, 1], [1, 1], [1, 1], 3)"},
      {"torch.conv2d(x, self.w2, self.b4, [1, 1], \"same\")"},
      {"torch.conv1d(x, self.w1, self.b4, [1], [1])", {2, 3, 9}, "Conv"},
      {"torch.conv3d(x, self.w3, self.b4)", {1, 3, 4, 4, 4}, "Conv"},
      {"torch._convolution(x, self.w2, self.b4, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, False, False, True, "
       "True)",
       {2, 3, 6, 6},
       "Conv"},
      {"torch.conv_transpose2d(x, self.t2, self.b4, [2, 2], [1, 1], [1, 1])", {2, 3, 5, 5}, "ConvTranspose"},
      {"torch.conv_transpose1d(x, self.t1, None, [2], [0])", {2, 3, 5}, "ConvTranspose"},
      {"torch.linear(x, self.lin, self.b5)", {4, 6}, "Gemm"},
      {"torch.linear(x, self.lin)", {4, 6}, "Gemm"},
      {"torch.linear(x, self.lin, self.b5)", {2, 3, 6}, "MatMul"},
      {"torch.addmm(self.b5, x, torch.t(self.lin))", {4, 6}, "Gemm"},
      {"torch.addmm(self.b5, x, torch.t(self.lin), beta=0.5, alpha=2.0)", {4, 6}, "Gemm"},
      {"torch.matmul(x, self.square)", {2, 3, 6, 6}, "MatMul"},
      {"torch.mm(x, self.square)", {4, 6}, "MatMul"},
      {"torch.bmm(x, torch.transpose(x, 1, 2))", {2, 3, 6}, "MatMul"},
      {"torch.baddbmm(x, x, x, beta=0.5, alpha=2.0)", {2, 6, 6}, "MatMul"},
      {"torch.einsum(\"bchw,vw->bchv\", [x, self.lin])", {2, 3, 6, 6}, "Einsum"},
      {"torch.outer(x, self.b5)", {6}},
      {"torch.batch_norm(x, self.gamma, self.beta, self.mean, self.var, False, 0.1, 1e-5, True)",
       {2, 3, 6, 6},
       "BatchNormalization"},
      {"torch.batch_norm(x, None, None, self.mean, self.var, False, 0.1, 1e-3, True)",
       {2, 3, 6},
       "BatchNormalization"},
      {"torch.layer_norm(x, [6], None, None, 1e-5)", {2, 3, 6, 6}, "LayerNormalization"},
      {"torch.layer_norm(x, [6, 6], self.square, self.square, 1e-5)", {2, 3, 6, 6}, "LayerNormalization"},
      {"torch.group_norm(x, 3, self.gamma, self.beta, 1e-5)", {2, 3, 6, 6}, "GroupNormalization"},
      {"torch.group_norm(x, 1, self.gamma, self.beta, 1e-5)"},
      {"torch.instance_norm(x, self.gamma, self.beta, None, None, True, 0.1, 1e-5, True)",
       {2, 3, 6, 6},
       "InstanceNormalization"},
      {"torch.embedding(self.table, torch.argmax(x, 1))", {2, 3}, "Gather"},
      {"(torch._scaled_dot_product_attention(x, x, x))[0]", {2, 3, 6, 6}, "Softmax"},
      {"(torch._scaled_dot_product_attention(x, x, x, None, 0.0, False, True))[0]"},
      {"torch.upsample_nearest2d(x, None, [2.0, 2.0])", {2, 3, 6, 6}, "Resize"},
      {"torch.upsample_nearest2d(x, [9, 12])"},
      {"torch.upsample_bilinear2d(x, [9, 12], False)"},
      {"torch.upsample_bilinear2d(x, [9, 12], True)"},
      {"torch.upsample_bilinear2d(x, None, False, [1.5, 2.0])"},
      {"torch.upsample_linear1d(x, [9], False)", {2, 3, 6}},
      {"torch.upsample_bicubic2d(x, [9, 12], False)"},
  };
  check_all(rows);
}

TEST(ImportTorchScript, Recurrent) {
  const Row rows[] = {
      {"(torch.lstm(x, [self.h1, self.h1], [self.wi, self.wh, self.bi, self.bh], True, 1, 0.0, False, False, "
       "False))",
       {5, 2, 6},
       "LSTM"},
      {"torch.lstm(x, [self.h1, self.h1], [self.wi, self.wh], False, 1, 0.0, False, False, True)",
       {2, 5, 6},
       "LSTM"},
      {"torch.lstm(x, [self.h0, self.h0], [self.wi, self.wh, self.bi, self.bh, self.wi, self.wh, self.bh, "
       "self.bi], True, 1, 0.0, False, True, True)",
       {2, 5, 6},
       "LSTM"},
      {"torch.gru(x, self.h1, [self.gi, self.gh, self.ga, self.gb], True, 1, 0.0, False, False, False)",
       {5, 2, 6},
       "GRU"},
      {"torch.rnn_tanh(x, self.h1, [self.ri, self.rh, self.ra, self.rb], True, 1, 0.0, False, False, False)",
       {5, 2, 6},
       "RNN"},
      {"torch.rnn_relu(x, self.h1, [self.ri, self.rh, self.ra, self.rb], True, 1, 0.0, False, False, False)",
       {5, 2, 6},
       "RNN"},
      {"torch.lstm_cell(x, [self.h1[0], self.h1[0]], self.wi, self.wh, self.bi, self.bh)", {2, 6}, "LSTM"},
      {"torch.gru_cell(x, self.h1[0], self.gi, self.gh, self.ga, self.gb)", {2, 6}, "GRU"},
      {"torch.rnn_tanh_cell(x, self.h1[0], self.ri, self.rh, self.ra, self.rb)", {2, 6}, "RNN"},
      {"torch.rnn_relu_cell(x, self.h1[0], self.ri, self.rh)", {2, 6}, "RNN"},
  };
  check_all(rows);
}

TEST(ImportTorchScript, Activations) {
  const Row rows[] = {
      {"torch.relu(x)", {2, 3}, "Relu"},
      {"torch.relu_(x)", {2, 3}, "Relu"},
      {"torch.relu6(x * 5)", {2, 3}, "Clip"},
      {"torch.hardtanh(x, -0.5, 0.5)", {2, 3}, "Clip"},
      {"torch.leaky_relu(x, 0.2)", {2, 3}, "LeakyRelu"},
      {"torch.elu(x, 0.7)", {2, 3}, "Elu"},
      {"torch.celu(x, 0.7)", {2, 3}, "Celu"},
      {"torch.selu(x)", {2, 3}, "Selu"},
      {"torch.gelu(x)", {2, 3}, "Gelu"},
      {"torch.gelu(x, approximate=\"tanh\")", {2, 3}, "Gelu"},
      {"torch.silu(x)", {2, 3}, "Sigmoid"},
      {"torch.hardswish(x)", {2, 3}, "HardSwish"},
      {"torch.hardsigmoid(x)", {2, 3}, "HardSigmoid"},
      {"torch.sigmoid(x)", {2, 3}, "Sigmoid"},
      {"torch.tanh(x)", {2, 3}, "Tanh"},
      {"torch.softmax(x, 1)", {2, 3, 4}, "Softmax"},
      {"torch.log_softmax(x, -1)", {2, 3, 4}, "LogSoftmax"},
      {"torch.softplus(x)", {2, 3}, "Softplus"},
      {"torch.softplus(x, 2.0)", {2, 3}},
      {"torch.log_sigmoid(x)", {2, 3}},
      {"torch.prelu(x, self.gamma)", {2, 3, 6, 6}, "PRelu"},
      {"torch.prelu(x, self.one)", {2, 3}, "PRelu"},
      {"torch.mish(x)", {2, 3}, "Mish"},
      {"torch.glu(x, 1)", {2, 6}},
      {"torch.dropout(x, 0.5, False) + 1", {2, 3}, "Add"},
      {"torch.contiguous(torch.detach(x)).clone() + 1", {2, 3}},
      {"torch.feature_dropout(torch.alpha_dropout(x, 0.5, False), 0.5, False) + 1", {2, 3}},
  };
  check_all(rows);
}

TEST(ImportTorchScript, Pools) {
  const Row rows[] = {
      {"torch.max_pool2d(x, [2, 2])", {2, 3, 6, 6}, "MaxPool"},
      {"torch.max_pool2d(x, [3, 3], [2, 2], [1, 1], [1, 1], True)"},
      {"torch.max_pool1d(x, [3], [1], [1])", {2, 3, 6}, "MaxPool"},
      {"torch.max_pool3d(x, [2, 2, 2])", {1, 2, 4, 4, 4}},
      {"torch.avg_pool2d(x, [2, 2])", {2, 3, 6, 6}, "AveragePool"},
      {"torch.avg_pool2d(x, [3, 3], [1, 1], [1, 1], False, False)"},
      {"torch.avg_pool2d(x, [3, 3], [1, 1], [1, 1], False, True)"},
      {"torch.avg_pool1d(x, [2])", {2, 3, 6}},
      {"torch.avg_pool3d(x, [2, 2, 2])", {1, 2, 4, 4, 4}},
      {"torch.adaptive_avg_pool2d(x, [1, 1])", {2, 3, 6, 6}, "GlobalAveragePool"},
      {"torch.adaptive_avg_pool2d(x, [3, 2])", {2, 3, 6, 6}, "AveragePool"},
      {"torch.adaptive_avg_pool2d(x, [4, 5])", {2, 3, 6, 6}, "", 1},
      {"torch.adaptive_avg_pool1d(x, [1])", {2, 3, 6}},
      {"(torch.adaptive_max_pool2d(x, [1, 1]))[0]", {2, 3, 6, 6}, "GlobalMaxPool"},
      {"(torch.adaptive_max_pool1d(x, [2]))[0]", {2, 3, 6}, "MaxPool"},
      {"torch.adaptive_avg_pool3d(x, [1, 1, 1])", {1, 2, 4, 4, 4}},
      {"(torch.adaptive_max_pool3d(x, [2, 2, 2]))[0]", {1, 2, 4, 4, 4}},
  };
  check_all(rows);
}

TEST(ImportTorchScript, Arithmetic) {
  const Row rows[] = {
      {"x + 1", {2, 3}, "Add"},
      {"torch.add(x, x, alpha=3)", {2, 3}},
      {"x - self.gamma", {2, 3}, "Sub"},
      {"torch.rsub(x, 2, 3)", {2, 3}},
      {"x * 2.5", {2, 3}, "Mul"},
      {"x / 3", {2, 3}, "Div"},
      {"torch.div(self.picks, 2) + torch.sum(x)", {2, 3}},
      {"torch.div(x, 0.3, rounding_mode=\"floor\")", {2, 3}, "Floor"},
      {"torch.floor_divide(self.picks - 1, 2) + torch.sum(x)", {2, 3}},
      {"torch.remainder(self.picks - 1, 2) + torch.sum(x)", {2, 3}},
      {"torch.pow(x, 2)", {2, 3}},
      {"torch.pow(torch.abs(x), 1.5)", {2, 3}, "Pow"},
      {"torch.sqrt(torch.abs(x))", {2, 3}, "Sqrt"},
      {"torch.rsqrt(torch.abs(x) + 1)", {2, 3}},
      {"torch.exp(x)", {2, 3}, "Exp"},
      {"torch.log(torch.abs(x) + 1)", {2, 3}, "Log"},
      {"torch.neg(x)", {2, 3}, "Neg"},
      {"-torch.erf(x)", {2, 3}, "Erf"},
      {"torch.ceil(x)", {2, 3}},
      {"torch.floor(x)", {2, 3}},
      {"torch.round(x)", {2, 3}},
      {"torch.sign(x)", {2, 3}},
      {"torch.reciprocal(x)", {2, 3}},
      {"torch.sin(x) + torch.cos(x) + torch.tan(x)", {2, 3}},
      {"torch.asin(torch.tanh(x)) + torch.acos(torch.tanh(x)) + torch.atan(x)", {2, 3}},
      {"torch.sinh(x) + torch.cosh(x) + torch.asinh(x) + torch.atanh(torch.tanh(x)) + torch.acosh(torch.abs(x) + "
       "1)",
       {2, 3}},
      {"torch.square(x)", {2, 3}},
      {"torch.clamp(x, -0.5, 0.5)", {2, 3}, "Clip"},
      {"torch.clamp(x, min=0.0)", {2, 3}},
      {"torch.clamp_min(x, 0.1) + torch.clamp_max(x, 0.1)", {2, 3}},
      {"torch.max(x, self.gamma) + torch.min(x, self.gamma)", {2, 3}, "Max"},
      {"torch.maximum(x, self.gamma) + torch.minimum(x, self.gamma)", {2, 3}},
      {"torch.max(x) - torch.min(x)", {2, 3}, "ReduceMax"},
      {"torch.where(x > 0, x, self.gamma)", {2, 3}, "Where"},
      {"torch.masked_fill(x, x < 0, -1.5)", {2, 3}, "Where"},
      {"torch.masked_fill(x, torch.logical_not(self.mask), -1e9)", {2, 6, 6}},
      {"torch.mean(x)", {2, 3}, "ReduceMean"},
      {"torch.mean(x, [1], True)", {2, 3}},
      {"torch.mean(x, [2, 3])"},
      {"torch.sum(x)", {2, 3}, "ReduceSum"},
      {"torch.sum(x, [0, 2])"},
      {"torch.amax(x, [1]) + torch.amin(x, [1])"},
      {"torch.prod(x, 1)", {2, 3}},
      {"torch.logsumexp(x, [1], False)", {2, 3}},
      {"torch.argmax(x, 1)", {2, 3}, "ArgMax"},
      {"torch.argmin(x)", {2, 3}, "ArgMin"},
      {"torch.max(x, 1)", {2, 3}},
      {"torch.min(x, 1, True)", {2, 3}},
      {"torch.var(x, [1], False) + torch.std(x, [1], True)", {2, 5}},
      {"torch.cumsum(x, 1)", {2, 3}, "CumSum"},
      {"x > 0.1", {2, 3}, "Greater"},
      {"torch.ge(x, 0.1)", {2, 3}},
      {"x < self.gamma", {2, 3}},
      {"torch.le(x, x)", {2, 3}},
      {"torch.eq(self.picks, 1) & (torch.sum(x) != 0)", {2, 3}, "Equal"},
      {"torch.logical_or(x > 0, x < -1)", {2, 3}, "Or"},
      {"torch.logical_xor(x > 0, x < 1)", {2, 3}, "Xor"},
      {"torch.logical_and(x, x)", {2, 3}, "And"},
      {"torch.bitwise_not(x > 0) | (x > 1)", {2, 3}},
      {"torch.isnan(x / x) | torch.isinf(x)", {2, 3}},
      {"self.picks * x[0, 0]", {2, 3}},
      {"self.picks + 1.5 * torch.sum(x)", {2, 3}},
  };
  check_all(rows);
}

TEST(ImportTorchScript, ShapesAndPlaces) {
  const Row rows[] = {
      {"torch.view(x, [2, -1])", {2, 3, 6, 6}, "Reshape"},
      {"torch.reshape(x, [-1, 6])"},
      {"torch.flatten(x, 1)", {2, 3, 6, 6}, "Flatten"},
      {"torch.flatten(x)"},
      {"torch.flatten(x, 1, 2)"},
      {"torch.unflatten(x, 1, [2, 3])", {2, 6}},
      {"torch.permute(x, [0, 2, 3, 1])", {2, 3, 6, 6}, "Transpose"},
      {"torch.transpose(x, -1, 1)"},
      {"torch.t(x) + 1", {2, 3}},
      {"torch.unsqueeze(x, -1)", {2, 3}, "Unsqueeze"},
      {"torch.squeeze(x, 1)", {2, 1, 3}, "Squeeze"},
      {"torch.squeeze(x, 0)", {2, 3}},
      {"torch.squeeze(x)", {2, 1, 3, 1}},
      {"torch.expand(x, [4, -1, 3])", {2, 3}},
      {"torch.expand_as(x, self.square)", {6}},
      {"torch.repeat(x, [3, 1, 2])", {2, 3}, "Tile"},
      {"torch.cat([x, x * 2], 1)", {2, 3}, "Concat"},
      {"torch.stack([x, x * 2], -1)", {2, 3}},
      {"torch.split(x, 2, 1)", {2, 5}, "Split"},
      {"torch.split(x, [1, 4], 1)", {2, 5}},
      {"torch.chunk(x, 3, 1)", {2, 7}},
      {"torch.unbind(x, 1)", {2, 3}},
      {"x[:, 1:, ::2]", {2, 3, 6}, "Slice"},
      {"x[:, -2:]", {2, 3}},
      {"torch.narrow(x, 1, 1, 2)", {2, 3}},
      {"x[:, 1]", {2, 3, 4}, "Gather"},
      {"x[..., -1]", {2, 3, 4}},
      {"x[:, self.picks]", {2, 3}, "Gather"},
      {"torch.index_select(x, 1, self.picks)", {2, 3}},
      {"torch.gather(x, 1, torch.argmax(x, 1, True))", {2, 3}, "GatherElements"},
      {"torch.topk(x, 2, 1)", {2, 5}, "TopK"},
      {"torch.flip(x, [1])", {2, 3}},
      {"torch.constant_pad_nd(x, [1, 2, 0, 1], 0.5)", {2, 3, 6, 6}, "Pad"},
      {"torch.pad(x, [1, 1], \"reflect\")", {2, 3, 6}},
      {"torch.reflection_pad2d(x, [1, 2, 1, 1])"},
      {"torch.replication_pad1d(x, [1, 2])", {2, 3, 6}},
      {"torch.pixel_shuffle(x, 2)", {1, 8, 3, 3}, "DepthToSpace"},
      {"torch.tril(x)", {4, 4}, "Trilu"},
      {"torch.triu(x, 1)", {4, 4}},
      {"torch.to(x, 4)", {2, 3}, "Cast"},
      {"torch.type_as(self.picks, x) + x[0, 0]", {2, 3}},
      {"torch.view_as(x, self.square) + 1", {36}},
      {"torch.arange(torch.size(x, 1)) + x", {2, 3}},
      {"torch.zeros([2, 3]) + x", {2, 3}},
      {"torch.ones_like(x) * 2 + x", {2, 3}},
      {"torch.full([2, 3], 1.5) + x", {2, 3}},
      {"torch.zeros_like(x) + torch.full_like(x, 2.0) + torch.new_zeros(x, [3]) + torch.new_ones(x, [3])", {2, 3}},
      {"torch.arange(0, 6, 2) + x", {2, 3}},
      {"torch.roll(x, [1], [1])", {2, 3}, "TorchScript", 1},
      {"torch.atan2(x, x + 1)", {2, 3}, "TorchScript", 1},
      {"torch.sort(x, 1)", {2, 5}, "TorchScript", 1},
  };
  check_all(rows);
}

// Python around the operators: what is known is computed, the rest becomes nodes.
TEST(ImportTorchScript, Programs) {
  const Row rows[] = {
      {"  n = x.size(0)\n  return x.view(n, -1)\n"},
      {"  b, c, h, w = x.size()\n  return x.view([b, c * h, w]) * (h // 2)\n"},
      {"  y = x\n  for i in range(3):\n    y = y * 2 + i\n  return y\n", {2, 3}},
      {"  out = []\n  for i in range(x.size(1)):\n    out.append(x[:, i] * i)\n  return torch.stack(out, 1)\n",
       {2, 3}},
      {"  if x.dim() == 2:\n    y = x + 1\n  else:\n    y = x - 1\n  return y\n", {2, 3}},
      {"  if bool(torch.sum(x) > 100):\n    y = x + 1\n  else:\n    y = torch.relu(x) - 1\n  return y\n",
       {2, 3},
       "If"},
      {"  if bool(torch.sum(x) < 100):\n    n = 2\n    y = x\n  else:\n    n = 5\n    y = x * 2\n  return y * n\n",
       {2, 3},
       "If"},
      {"  y = x\n  n = 0\n  while bool(torch.max(y) < 50):\n    y = y * 2 + 1\n    n += 1\n  return y, n\n",
       {2, 3},
       "Loop"},
      {"  d = {\"a\": x, \"b\": x * 2}\n  return d[\"a\"] + d[\"b\"]\n", {2, 3}},
      {"  t = (x, x + 1)\n  a, b = t\n  return a * b\n", {2, 3}},
      {"  y = x.clone()\n  y.add_(1)\n  y *= 2\n  return y - x\n", {2, 3}},
      {"  assert bool(torch.sum(x) < 1000), \"too much\"\n  return x * 2\n", {2, 3}},
      {"  return x.size(0) * x.size(1), x.sum()\n", {2, 3}},
      {"  s = x.shape[:-1]\n  return x.reshape(s + [2, -1])\n", {2, 3, 4}},
      {"  return torch.max(x, dim=1)[0] / float(x.numel())\n", {2, 3}},
  };
  check_all(rows);
}

TEST(ImportTorchScript, TheBatchIsFree) {
  const TempFile file("net.pt");
  auto m = module_with(
      "def forward(self, x):\n  y = torch.relu(torch.conv2d(x, self.w2, self.b4))\n  return torch.view(y, "
      "[torch.size(y, 0), -1])\n");
  m.save(file.path());
  const Read r = read_trusted(file.path(), {{"x", {1, 3, 5, 5}}});
  ASSERT_TRUE(r.imported) << r.imported.error().text();
  EXPECT_EQ(shape_text(*r.graph().tensor(r.graph().inputs()[0]).shape), "?×3×5×5");
  EXPECT_EQ(shape_text(*r.graph().tensor(r.graph().outputs()[0]).shape), "?×36");
  const at::Tensor x = pattern({3, 3, 5, 5});
  const auto out = run(r.imported->model, {x});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_LE(difference((*out)[0], m.forward({x}).toTensor()), 1e-5);
}

TEST(ImportTorchScript, WithoutShapesTheFirstLayerTells) {
  const TempFile file("net.pt");
  auto m = module_with("def forward(self, x):\n  return torch.relu(torch.conv2d(x, self.w2, self.b4))\n");
  m.save(file.path());
  const Read r = read_trusted(file.path());
  ASSERT_TRUE(r.imported) << r.imported.error().text();
  EXPECT_EQ(shape_text(*r.graph().tensor(r.graph().inputs()[0]).shape), "?×3×?×?");
  const Read wrong = read_trusted(file.path(), {{"picture", {1, 3, 5, 5}}});
  ASSERT_FALSE(wrong.imported);
  EXPECT_NE(wrong.imported.error().text().find("no input 'picture'"), std::string::npos)
      << wrong.imported.error().text();
  EXPECT_NE(wrong.imported.error().text().find("are: x"), std::string::npos);
}

TEST(ImportTorchScript, NamesFollowTheModules) {
  torch::jit::Module conv("Conv2d"), block("Block"), net("Net");
  conv.register_parameter("weight", pattern({4, 3, 3, 3}), false);
  conv.define("def forward(self, x):\n  return torch.conv2d(x, self.weight)\n");
  block.register_module("0", conv);
  block.define("def forward(self, x):\n  return torch.relu(getattr(self, \"0\").forward(x))\n");
  net.register_module("layer1", block);
  net.define("def forward(self, x):\n  return self.layer1.forward(x)\n");
  const TempFile file("net.ts");
  net.save(file.path());
  const Read r = read_trusted(file.path(), {{"x", {1, 3, 5, 5}}});
  ASSERT_TRUE(r.imported) << r.imported.error().text();
  const Node* n = r.graph().find("layer1.0");
  ASSERT_TRUE(n);
  EXPECT_EQ(n->op, "Conv");
  EXPECT_EQ(r.graph().tensor(n->input(1)).name, "layer1.0.weight");
  EXPECT_TRUE(r.graph().find("layer1.relu"));
  EXPECT_EQ(r.graph().find("layer1.relu")->scope, "layer1");
}

// What the graph cannot say is a node with its reason, or a sentence; nothing is silently wrong.
TEST(ImportTorchScript, WhatCannotBeMappedIsSaid) {
  const struct {
    const char* code;
    const char* reason;
  } rows[] = {
      {"  y = x.view(6)\n  y.add_(1)\n  return x\n", "shares memory"},
      {"  x[0].zero_()\n  return x * 2\n", "shares memory"},
      {"  return torch.rand([2]) + x\n", "rand"},
      {"  out = []\n  i = 0\n  while bool(torch.sum(x) > i):\n    out.append(x)\n    i += 1\n  return "
       "torch.stack(out)\n",
       "loop of unknown length"},
      {"  return torch.meshgrid([x, x])\n", "how many tensors"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.code);
    const TempFile file("net.pt");
    module_with(whole(row.code)).save(file.path());
    const Read r = read_trusted(file.path(), {{"x", {2, 3}}});
    std::string said = r.imported ? "" : r.imported.error().text();
    for (const Issue& i : r.issues) said += i.message + "\n";
    EXPECT_NE(said.find(row.reason), std::string::npos) << said;
    EXPECT_TRUE(r.imported || r.imported.error().code != ErrorCode::kInternal);
  }
}

TEST(ImportTorchScript, TrustIsAskedForAndKept) {
  const TempFile file("net.pt");
  module_with("def forward(self, x):\n  return x + 1\n").save(file.path());
  const Read without = read(file.path(), {});
  ASSERT_FALSE(without.imported);
  EXPECT_EQ(without.imported.error().code, ErrorCode::kNeedsTrust);
  for (const char* part : {"code file", "lines", "tensors", "--trust"})
    EXPECT_NE(without.imported.error().text().find(part), std::string::npos) << without.imported.error().text();
  const Read with = read_trusted(file.path());
  ASSERT_TRUE(with.imported);
  ASSERT_EQ(with.imported->trusted.size(), 32u);
  ImportOptions again;
  again.trusted = with.imported->trusted;
  EXPECT_TRUE(read(file.path(), again).imported);
  module_with("def forward(self, x):\n  return x + 2\n").save(file.path());  // another file in its place
  EXPECT_EQ(read(file.path(), again).imported.error().code, ErrorCode::kNeedsTrust);
}

}  // namespace
}  // namespace quanvas::torchscript_test
