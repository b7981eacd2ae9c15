// Operators against cases computed by hand, with plain loops, or from their ONNX definition.
#include <gtest/gtest.h>

#include <limits>

#include "core/exec/ops.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::ints;
using testing::ModelMaker;
using testing::noise;
using testing::tensor;
using I = std::int64_t;
using L = std::vector<std::int64_t>;

struct OpCase {
  std::string name, op;
  Attributes attributes;
  std::vector<at::Tensor> inputs;  // the first is fed, the others are initializers; undefined: omitted
  at::Tensor expected;
  int opset = 13;
  double tolerance = 1e-6;
};

Result<std::vector<at::Tensor>> run_case(const OpCase& c) {
  ModelMaker m(c.opset);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const std::string name = c.inputs[i].defined() ? "i" + std::to_string(i) : "";
    names.push_back(name);
    if (name.empty()) continue;
    if (i == 0)
      m.input(name, Shape(static_cast<std::size_t>(c.inputs[0].dim()), -1), exec::to_data(c.inputs[0]).type);
    else
      m.weight(name, c.inputs[i]);
  }
  m.node("n", c.op, names, {"y"}, c.attributes).output("y");
  auto runner = exec::Runner::create(m.build(), nullptr);
  if (!runner) return Failure(runner.error());
  return (*runner)->run({c.inputs[0]});
}

const float kInf = std::numeric_limits<float>::infinity();

std::vector<OpCase> cases() {
  const at::Tensor x4 = tensor({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9});
  const at::Tensor ones = at::ones({1, 1, 2, 2});
  const at::Tensor line = tensor({1, 1, 5}, {1, 2, 3, 4, 5});
  const at::Tensor m23 = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  return {
      // Scattering: several updates of one place, for each reduction.
      {"scatter_none", "ScatterElements", {}, {tensor({4}, {5, 5, 5, 5}), ints({1, 3}), tensor({2}, {2, 9})},
       tensor({4}, {5, 2, 5, 9}), 18},
      {"scatter_add", "ScatterElements", {{"reduction", std::string("add")}},
       {tensor({4}, {5, 5, 5, 5}), ints({1, 1, 3}), tensor({3}, {2, 3, 9})}, tensor({4}, {5, 10, 5, 14}), 18},
      {"scatter_mul", "ScatterElements", {{"reduction", std::string("mul")}},
       {tensor({4}, {5, 5, 5, 5}), ints({1, 1, 3}), tensor({3}, {2, 3, 9})}, tensor({4}, {5, 30, 5, 45}), 18},
      {"scatter_max", "ScatterElements", {{"reduction", std::string("max")}},
       {tensor({4}, {5, 5, 5, 5}), ints({1, 1, 3}), tensor({3}, {9, 3, 2})}, tensor({4}, {5, 9, 5, 5}), 18},
      {"scatter_min", "ScatterElements", {{"reduction", std::string("min")}},
       {tensor({4}, {5, 5, 5, 5}), ints({1, 1, 3}), tensor({3}, {9, 3, 2})}, tensor({4}, {5, 3, 5, 2}), 18},
      {"scatter_nd_add", "ScatterND", {{"reduction", std::string("add")}},
       {m23, ints({0, 0}).reshape({2, 1}), tensor({2, 3}, {9, 0, 9, 0, 1, 0})}, tensor({2, 3}, {10, 3, 12, 4, 5, 6}), 18},
      {"scatter_nd_max", "ScatterND", {{"reduction", std::string("max")}},
       {m23, ints({0, 0}).reshape({2, 1}), tensor({2, 3}, {9, 0, 2, 0, 3, 0})}, tensor({2, 3}, {9, 3, 3, 4, 5, 6}), 18},
      {"scatter_nd_min", "ScatterND", {{"reduction", std::string("min")}},
       {m23, ints({0, 0}).reshape({2, 1}), tensor({2, 3}, {9, 0, 2, 0, 3, 7})}, tensor({2, 3}, {0, 0, 2, 4, 5, 6}), 18},
      // Convolutions.
      {"conv", "Conv", {}, {x4, ones}, tensor({1, 1, 2, 2}, {12, 16, 24, 28})},
      {"conv_bias_stride", "Conv", {{"strides", L{2, 2}}, {"pads", L{1, 1, 1, 1}}}, {x4, ones, tensor({1}, {10})},
       tensor({1, 1, 2, 2}, {11, 15, 21, 38})},
      {"conv_asymmetric", "Conv", {{"pads", L{0, 1, 1, 0}}}, {x4, ones},
       tensor({1, 1, 3, 3}, {5, 12, 16, 11, 24, 28, 7, 15, 17})},
      {"conv_same_upper", "Conv", {{"auto_pad", std::string("SAME_UPPER")}}, {x4, ones},
       tensor({1, 1, 3, 3}, {12, 16, 9, 24, 28, 15, 15, 17, 9})},
      {"conv_same_lower", "Conv", {{"auto_pad", std::string("SAME_LOWER")}}, {x4, ones},
       tensor({1, 1, 3, 3}, {1, 3, 5, 5, 12, 16, 11, 24, 28})},
      {"conv_valid", "Conv", {{"auto_pad", std::string("VALID")}}, {x4, ones}, tensor({1, 1, 2, 2}, {12, 16, 24, 28})},
      {"conv_dilated", "Conv", {{"dilations", L{2, 2}}}, {x4, ones}, tensor({1, 1, 1, 1}, {20})},
      {"conv_1d", "Conv", {{"pads", L{1, 0}}}, {line, tensor({1, 1, 2}, {1, 10})},
       tensor({1, 1, 5}, {10, 21, 32, 43, 54})},
      {"conv_groups", "Conv", {{"group", I{2}}}, {tensor({1, 2, 1, 2}, {1, 2, 3, 4}), tensor({2, 1, 1, 1}, {10, 100})},
       tensor({1, 2, 1, 2}, {10, 20, 300, 400})},
      {"conv_3d", "Conv", {}, {tensor({1, 1, 2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8}), at::ones({1, 1, 2, 2, 2})},
       tensor({1, 1, 1, 1, 1}, {36})},
      {"conv_transpose", "ConvTranspose", {{"strides", L{2}}}, {tensor({1, 1, 2}, {1, 2}), tensor({1, 1, 3}, {1, 10, 100})},
       tensor({1, 1, 5}, {1, 10, 102, 20, 200})},
      {"conv_transpose_asymmetric", "ConvTranspose", {{"strides", L{2}}, {"pads", L{1, 0}}},
       {tensor({1, 1, 2}, {1, 2}), tensor({1, 1, 3}, {1, 10, 100}), tensor({1}, {5})}, tensor({1, 1, 4}, {15, 107, 25, 205})},
      {"conv_transpose_output_padding", "ConvTranspose", {{"strides", L{2}}, {"output_padding", L{1}}},
       {tensor({1, 1, 2}, {1, 2}), tensor({1, 1, 1}, {3}), tensor({1}, {1})}, tensor({1, 1, 4}, {4, 1, 7, 1})},
      {"conv_transpose_output_shape", "ConvTranspose",
       {{"strides", L{2}}, {"output_shape", L{4}}, {"auto_pad", std::string("SAME_UPPER")}},
       {tensor({1, 1, 2}, {1, 2}), tensor({1, 1, 3}, {1, 10, 100})}, tensor({1, 1, 4}, {1, 10, 102, 20})},
      {"gemm", "Gemm", {{"transB", I{1}}, {"alpha", 2.0f}, {"beta", 0.5f}}, {m23, tensor({2, 3}, {1, 0, 0, 0, 1, 1}), tensor({2}, {10, 20})},
       tensor({2, 2}, {7, 20, 13, 32})},
      {"gemm_trans_a", "Gemm", {{"transA", I{1}}}, {m23, tensor({2, 1}, {1, 1})}, tensor({3, 1}, {5, 7, 9})},
      {"matmul_batch", "MatMul", {}, {tensor({2, 1, 2}, {1, 2, 3, 4}), tensor({2, 1}, {1, 10})}, tensor({2, 1, 1}, {21, 43})},
      // Pools.
      {"max_pool", "MaxPool", {{"kernel_shape", L{2, 2}}}, {x4}, tensor({1, 1, 2, 2}, {5, 6, 8, 9})},
      {"max_pool_ceil", "MaxPool", {{"kernel_shape", L{2, 2}}, {"strides", L{2, 2}}, {"ceil_mode", I{1}}}, {x4},
       tensor({1, 1, 2, 2}, {5, 6, 8, 9})},
      {"max_pool_dilated", "MaxPool", {{"kernel_shape", L{2}}, {"dilations", L{3}}}, {line}, tensor({1, 1, 2}, {4, 5})},
      {"max_pool_asymmetric_negative", "MaxPool", {{"kernel_shape", L{2}}, {"pads", L{0, 1}}}, {-line},
       tensor({1, 1, 5}, {-1, -2, -3, -4, -5})},
      {"average_pool_excludes_pads", "AveragePool", {{"kernel_shape", L{3}}, {"pads", L{1, 1}}}, {line},
       tensor({1, 1, 5}, {1.5, 2, 3, 4, 4.5})},
      {"average_pool_includes_pads", "AveragePool", {{"kernel_shape", L{3}}, {"pads", L{1, 1}}, {"count_include_pad", I{1}}},
       {line}, tensor({1, 1, 5}, {1, 2, 3, 4, 3})},
      {"average_pool_asymmetric", "AveragePool", {{"kernel_shape", L{2}}, {"pads", L{0, 1}}}, {line},
       tensor({1, 1, 5}, {1.5, 2.5, 3.5, 4.5, 5})},
      {"average_pool_ceil", "AveragePool", {{"kernel_shape", L{2}}, {"strides", L{2}}, {"ceil_mode", I{1}}, {"count_include_pad", I{1}}},
       {line}, tensor({1, 1, 3}, {1.5, 3.5, 5})},
      {"global_average", "GlobalAveragePool", {}, {x4}, tensor({1, 1, 1, 1}, {5})},
      {"global_max", "GlobalMaxPool", {}, {x4}, tensor({1, 1, 1, 1}, {9})},
      // Normalizations.
      {"batch_norm", "BatchNormalization", {{"epsilon", 0.0f}},
       {tensor({1, 2, 1, 1}, {3, 5}), tensor({2}, {2, 1}), tensor({2}, {1, 0}), tensor({2}, {1, 1}), tensor({2}, {4, 16})},
       tensor({1, 2, 1, 1}, {3, 1})},
      {"instance_norm", "InstanceNormalization", {{"epsilon", 0.0f}},
       {tensor({1, 1, 4}, {1, 3, 1, 3}), tensor({1}, {2}), tensor({1}, {10})}, tensor({1, 1, 4}, {8, 12, 8, 12})},
      {"layer_norm", "LayerNormalization", {{"epsilon", 0.0f}}, {tensor({2, 2}, {1, 3, 10, 30}), tensor({2}, {1, 2}), tensor({2}, {0, 1})},
       tensor({2, 2}, {-1, 3, -1, 3}), 17},
      {"lrn", "LRN", {{"size", I{3}}, {"alpha", 3.0f}, {"beta", 1.0f}, {"bias", 1.0f}}, {tensor({1, 3, 1}, {1, 2, 3})},
       tensor({1, 3, 1}, {1.0f / 6, 2.0f / 15, 3.0f / 14})},
      // Activations.
      {"clip_inputs", "Clip", {}, {tensor({3}, {-5, 0.5, 5}), at::scalar_tensor(-1.0f), at::scalar_tensor(2.0f)}, tensor({3}, {-1, 0.5, 2})},
      {"clip_attributes", "Clip", {{"max", 6.0f}, {"min", 0.0f}}, {tensor({3}, {-5, 0.5, 7})}, tensor({3}, {0, 0.5, 6}), 6},
      {"clip_upper_only", "Clip", {}, {tensor({2}, {-5, 7}), at::Tensor(), at::scalar_tensor(2.0f)}, tensor({2}, {-5, 2})},
      {"leaky", "LeakyRelu", {{"alpha", 0.1f}}, {tensor({2}, {-2, 2})}, tensor({2}, {-0.2f, 2})},
      {"prelu_channels", "PRelu", {}, {tensor({1, 2, 1}, {-1, -1}), tensor({2, 1}, {0.5, 0.25})}, tensor({1, 2, 1}, {-0.5, -0.25})},
      {"prelu_old_vector", "PRelu", {}, {tensor({1, 2, 3}, {-1, -1, -1, -1, -1, 4}), tensor({2}, {0.5, 0.25})},
       tensor({1, 2, 3}, {-0.5, -0.5, -0.5, -0.25, -0.25, 4}), 6},
      {"hard_sigmoid", "HardSigmoid", {}, {tensor({3}, {-10, 1, 10})}, tensor({3}, {0, 0.7f, 1})},
      {"hard_swish", "HardSwish", {}, {tensor({3}, {-4, 1, 4})}, tensor({3}, {0, 2.0f / 3, 4}), 14},
      {"selu", "Selu", {{"alpha", 2.0f}, {"gamma", 3.0f}}, {tensor({2}, {-1, 2})}, tensor({2}, {6 * (std::exp(-1.0f) - 1), 6})},
      {"softplus_large", "Softplus", {}, {tensor({2}, {0, 100})}, tensor({2}, {std::log(2.0f), 100})},
      {"softmax_13", "Softmax", {}, {tensor({1, 2, 2}, {0, 0, 0, 0})}, tensor({1, 2, 2}, {0.5, 0.5, 0.5, 0.5})},
      {"softmax_11_matrix", "Softmax", {}, {tensor({1, 2, 2}, {0, 0, 0, 0})}, tensor({1, 2, 2}, {0.25, 0.25, 0.25, 0.25}), 11},
      // Arithmetic.
      {"add_broadcast", "Add", {}, {m23, tensor({3}, {10, 20, 30})}, tensor({2, 3}, {11, 22, 33, 14, 25, 36})},
      {"add_old_axis", "Add", {{"broadcast", I{1}}, {"axis", I{0}}}, {m23, tensor({2}, {10, 20})}, tensor({2, 3}, {11, 12, 13, 24, 25, 26}), 6},
      {"div_integers", "Div", {}, {ints({7, -7}), ints({2, 2})}, ints({3, -3})},
      {"mean_of_three", "Mean", {}, {tensor({1}, {1}), tensor({1}, {2}), tensor({1}, {6})}, tensor({1}, {3})},
      {"round_half_even", "Round", {}, {tensor({4}, {0.5, 1.5, 2.5, -0.5})}, tensor({4}, {0, 2, 2, -0.0f})},
      {"where", "Where", {}, {at::tensor({1, 0}, at::kInt).to(at::kBool), tensor({2}, {1, 2}), tensor({2}, {3, 4})}, tensor({2}, {1, 4})},
      // Shapes.
      {"reshape_zero_minus", "Reshape", {}, {at::ones({2, 3, 4}), ints({0, -1})}, at::ones({2, 12})},
      {"flatten_2", "Flatten", {{"axis", I{2}}}, {at::ones({2, 3, 4})}, at::ones({6, 4})},
      {"flatten_0", "Flatten", {{"axis", I{0}}}, {at::ones({2, 3})}, at::ones({1, 6})},
      {"squeeze_attribute", "Squeeze", {{"axes", L{-1}}}, {at::ones({1, 3, 1})}, at::ones({1, 3}), 11},
      {"squeeze_input", "Squeeze", {}, {at::ones({1, 3, 1}), ints({0})}, at::ones({3, 1})},
      {"squeeze_all", "Squeeze", {}, {at::ones({1, 3, 1})}, at::ones({3})},
      {"unsqueeze", "Unsqueeze", {}, {at::ones({3}), ints({0, -1})}, at::ones({1, 3, 1})},
      {"transpose_reverses", "Transpose", {}, {m23}, tensor({3, 2}, {1, 4, 2, 5, 3, 6})},
      {"slice_10", "Slice", {}, {line, ints({1}), ints({9223372036854775807}), ints({2}), ints({2})}, tensor({1, 1, 2}, {2, 4})},
      {"slice_backwards", "Slice", {}, {line, ints({-1}), ints({-9223372036854775807}), ints({2}), ints({-2})}, tensor({1, 1, 3}, {5, 3, 1})},
      {"slice_1", "Slice", {{"starts", L{-2}}, {"ends", L{1000}}, {"axes", L{2}}}, {line}, tensor({1, 1, 2}, {4, 5}), 9},
      {"pad_value", "Pad", {}, {m23, ints({0, 1, 0, 0}), at::scalar_tensor(9.0f)}, tensor({2, 4}, {9, 1, 2, 3, 9, 4, 5, 6})},
      {"pad_reflect", "Pad", {{"mode", std::string("reflect")}}, {m23, ints({0, 2, 0, 1})}, tensor({2, 6}, {3, 2, 1, 2, 3, 2, 6, 5, 4, 5, 6, 5})},
      {"pad_edge", "Pad", {{"mode", std::string("edge")}}, {tensor({2}, {1, 2}), ints({1, 2})}, tensor({5}, {1, 1, 2, 2, 2})},
      {"pad_2", "Pad", {{"pads", L{0, 0, 0, -1}}, {"value", 0.0f}}, {m23}, tensor({2, 2}, {1, 2, 4, 5}), 10},
      {"gather_negative", "Gather", {{"axis", I{1}}}, {m23, ints({-1, 0})}, tensor({2, 2}, {3, 1, 6, 4})},
      {"gather_scalar", "Gather", {}, {m23, at::scalar_tensor(1, at::kLong)}, tensor({3}, {4, 5, 6})},
      {"expand_both", "Expand", {}, {tensor({3, 1}, {1, 2, 3}), ints({1, 2})}, tensor({3, 2}, {1, 1, 2, 2, 3, 3})},
      {"tile", "Tile", {}, {tensor({1, 2}, {1, 2}), ints({2, 2})}, tensor({2, 4}, {1, 2, 1, 2, 1, 2, 1, 2})},
      {"shape_part", "Shape", {{"start", I{-2}}}, {at::ones({2, 3, 4})}, ints({3, 4}), 15},
      {"constant_of_shape", "ConstantOfShape", {{"value", 2.0f}, {"dtype", I{1}}}, {ints({2, 2})}, tensor({2, 2}, {2, 2, 2, 2})},
      {"depth_to_space_dcr", "DepthToSpace", {{"blocksize", I{2}}}, {tensor({1, 8, 1, 1}, {0, 1, 2, 3, 4, 5, 6, 7})},
       tensor({1, 2, 2, 2}, {0, 2, 4, 6, 1, 3, 5, 7})},
      {"depth_to_space_crd", "DepthToSpace", {{"blocksize", I{2}}, {"mode", std::string("CRD")}}, {tensor({1, 8, 1, 1}, {0, 1, 2, 3, 4, 5, 6, 7})},
       tensor({1, 2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7})},
      // Reductions.
      {"reduce_mean_attribute", "ReduceMean", {{"axes", L{-1}}, {"keepdims", I{0}}}, {m23}, tensor({2}, {2, 5})},
      {"reduce_sum_input", "ReduceSum", {}, {m23, ints({0})}, tensor({1, 3}, {5, 7, 9})},
      {"reduce_max_all", "ReduceMax", {}, {m23}, tensor({1, 1}, {6})},
      {"reduce_prod", "ReduceProd", {{"axes", L{0, 1}}, {"keepdims", I{0}}}, {m23}, at::scalar_tensor(720.0f)},
      {"reduce_l2", "ReduceL2", {{"axes", L{1}}}, {tensor({1, 2}, {3, 4})}, tensor({1, 1}, {5})},
      {"arg_max_last", "ArgMax", {{"axis", I{1}}, {"select_last_index", I{1}}}, {tensor({1, 3}, {7, 1, 7})}, ints({2}).reshape({1, 1})},
      // Resize.
      {"resize_nearest", "Resize", {}, {tensor({1, 1, 2}, {1, 2}), at::Tensor(), tensor({3}, {1, 1, 2})}, tensor({1, 1, 4}, {1, 1, 2, 2})},
      {"resize_linear_half_pixel", "Resize", {{"mode", std::string("linear")}}, {tensor({1, 1, 2}, {0, 4}), at::Tensor(), tensor({3}, {1, 1, 2})},
       tensor({1, 1, 4}, {0, 1, 3, 4})},
      {"resize_linear_align", "Resize", {{"mode", std::string("linear")}, {"coordinate_transformation_mode", std::string("align_corners")}},
       {tensor({1, 1, 2}, {0, 4}), at::Tensor(), at::Tensor(), ints({1, 1, 5})}, tensor({1, 1, 5}, {0, 1, 2, 3, 4})},
      {"upsample", "Upsample", {{"mode", std::string("nearest")}}, {tensor({1, 1, 1, 2}, {1, 2}), tensor({4}, {1, 1, 2, 2})},
       tensor({1, 1, 2, 4}, {1, 1, 2, 2, 1, 1, 2, 2}), 9},
      // Quantization: half to even, saturation, zero point after rounding, one scale per channel.
      {"quantize_uint8", "QuantizeLinear", {}, {tensor({5}, {-1, 0.25, 0.75, 1, 1000}), at::scalar_tensor(0.5f), at::scalar_tensor(10, at::kByte)},
       at::tensor({8, 10, 12, 12, 255}, at::kInt).to(at::kByte)},
      {"quantize_channels", "QuantizeLinear", {{"axis", I{0}}}, {tensor({2, 2}, {1, -1, 1, -1000}), tensor({2}, {1, 2}), at::tensor({0, 0}, at::kInt).to(at::kChar)},
       at::tensor({1, -1, 0, -128}, at::kInt).to(at::kChar).reshape({2, 2})},
      {"dequantize_int32", "DequantizeLinear", {}, {at::tensor({3, -3}, at::kInt), at::scalar_tensor(0.5f)}, tensor({2}, {1.5, -1.5})},
      {"infinity_survives", "Relu", {}, {tensor({2}, {-kInf, kInf})}, tensor({2}, {0, kInf})},
  };
}

TEST(ExecOps, MatchHandComputedCases) {
  for (const OpCase& c : cases()) {
    const auto out = run_case(c);
    ASSERT_TRUE(out) << c.name << ": " << out.error().text();
    const at::Tensor& y = (*out)[0];
    EXPECT_EQ(y.sizes(), c.expected.sizes()) << c.name;
    EXPECT_EQ(y.scalar_type(), c.expected.scalar_type()) << c.name;
    if (y.sizes() != c.expected.sizes()) continue;
    EXPECT_TRUE(at::allclose(y.to(at::kDouble), c.expected.to(at::kDouble), c.tolerance, c.tolerance))
        << c.name << "\n" << y << "\n" << c.expected;
  }
}

TEST(ExecOps, SplitGivesEachPart) {
  ModelMaker m;
  m.input("x", {-1, 5}).weight("sizes", ints({2, 3}));
  m.node("n", "Split", {"x", "sizes"}, {"a", "b"}, {{"axis", I{1}}}).output("a").output("b");
  auto runner = exec::Runner::create(m.build(), nullptr);
  ASSERT_TRUE(runner);
  auto out = (*runner)->run({tensor({1, 5}, {1, 2, 3, 4, 5})});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_TRUE((*out)[0].equal(tensor({1, 2}, {1, 2})));
  EXPECT_TRUE((*out)[1].equal(tensor({1, 3}, {3, 4, 5})));
}

struct BadCase {
  const char* name;
  std::string op;
  Attributes attributes;
  std::vector<at::Tensor> inputs;
  std::string part_of_message;
  int opset = 13;
};

TEST(ExecOps, BadNodesAreErrorsThatNameTheNode) {
  const at::Tensor x = at::ones({1, 2, 4, 4});
  const std::vector<BadCase> rows = {
      {"channels", "Conv", {}, {x, at::ones({1, 3, 2, 2})}, "channels"},
      {"rank", "Conv", {}, {at::ones({2, 2}), at::ones({1, 2, 2, 2})}, "rank 2"},
      {"pads", "Conv", {{"pads", L{1, 1}}}, {x, at::ones({1, 2, 2, 2})}, "'pads' has 2 values, expected 4"},
      {"stride", "Conv", {{"strides", L{0, 1}}}, {x, at::ones({1, 2, 2, 2})}, "'strides' holds 0"},
      {"auto_pad", "MaxPool", {{"kernel_shape", L{2, 2}}, {"auto_pad", std::string("EVEN")}}, {x}, "'auto_pad' is 'EVEN'"},
      {"kernel", "MaxPool", {}, {x}, "'kernel_shape' has 0 values"},
      {"too_large", "MaxPool", {{"kernel_shape", L{9, 9}}}, {x}, "MaxPool 'n' on inputs"},
      {"reshape", "Reshape", {}, {x, ints({5, 7})}, "shape"},
      {"gather", "Gather", {}, {x, ints({7})}, "index is 7"},
      {"axis", "Concat", {{"axis", I{9}}}, {x, x}, "axis is 9"},
      {"step", "Slice", {}, {x, ints({0}), ints({1}), ints({0}), ints({0})}, "step of 0"},
      {"squeeze", "Squeeze", {}, {x, ints({1})}, "cannot be squeezed"},
      {"broadcast", "Add", {}, {x, at::ones({3})}, "Add 'n' on inputs 1"},
      {"unknown", "FancyOp", {}, {x}, "FancyOp"},
      {"recurrent", "LSTM", {}, {x, x, x}, "must have rank 3"},
      {"missing_input", "Conv", {}, {x}, "needs at least 2"},
      {"scale", "QuantizeLinear", {}, {x, at::ones({3})}, "scale 3"},
  };
  for (const BadCase& row : rows) {
    const auto out = run_case({row.name, row.op, row.attributes, row.inputs, {}, row.opset});
    ASSERT_FALSE(out) << row.name;
    EXPECT_NE(out.error().text().find(row.part_of_message), std::string::npos) << row.name << ": " << out.error().text();
    EXPECT_NE(out.error().text().find("'n'"), std::string::npos) << row.name << ": " << out.error().text();
  }
}

TEST(ExecOps, UnsupportedReasonIsEmptyExactlyForWhatRuns) {
  GraphBuilder body;
  body.input("x");
  body.node("n", "Relu", {"x"}, {"y"});
  body.output("y");
  const GraphPtr subgraph = *body.build();
  for (const std::string& op : exec::supported_operators()) {
    Node node;
    node.op = op;
    node.inputs.assign(9, 0);
    node.outputs = {1};
    if (op == "If" || op == "Loop" || op == "Scan" || op == "SequenceMap") {
      EXPECT_NE(exec::unsupported_reason(node), "") << op << " without a subgraph";
      for (const char* key : {"body", "then_branch", "else_branch"}) node.attributes[key] = subgraph;
    }
    if (op == "BitShift") node.attributes["direction"] = std::string("LEFT");
    EXPECT_EQ(exec::unsupported_reason(node), "") << op;
    node.domain = "com.example";
    EXPECT_NE(exec::unsupported_reason(node), "") << op;
  }
  Node opaque;
  opaque.op = "Relu";
  opaque.opaque_reason = "it holds a subgraph";
  EXPECT_EQ(exec::unsupported_reason(opaque), "it holds a subgraph");
}

// rint(float(sum) * float(float(x_scale * w_scale) / y_scale)): in double these three sums go to the code beside it.
TEST(ExecOps, SumsOfCodesAreRoundedInFloat32) {
  struct Row {
    double x_scale, w_scale, y_scale;
    int sum, code;
  };
  for (const Row& r : {Row{0x1.14af2p-5, 0x1.0ca314p-4, 0x1.fcb818p-8, -205, -58}, Row{0x1.fada38p-5, 0x1.332c38p-6, 0x1.259d8ep-4, 1823, 30},
                       Row{0x1.78fabcp-7, 0x1.13eea6p-5, 0x1.6cb016p-4, 23321, 102}}) {
    const auto real = [](double v) { return at::scalar_tensor(v, at::kFloat); };
    const at::Tensor one = at::ones({1, 1, 1, 1}, at::kChar), zero = at::zeros({}, at::kChar);
    const auto out = run_case({"near", "QLinearConv", {}, {one, real(r.x_scale), zero, one, real(r.w_scale), zero, real(r.y_scale), zero, at::tensor({r.sum - 1}, at::kInt)}, {}});
    ASSERT_TRUE(out) << out.error().text();
    EXPECT_EQ(out->at(0).item<int>(), r.code) << r.sum;
  }
}

// A plain loop, no library: convolution with groups, dilation, stride and uneven pads.
TEST(ExecOps, ConvolutionMatchesLoops) {
  const I n = 2, cin = 4, cout = 6, group = 2, h = 9, w = 8, k = 3;
  const L stride = {2, 1}, dilation = {1, 2}, pads = {1, 0, 2, 3};
  const at::Tensor x = noise({n, cin, h, w}, 1), f = noise({cout, cin / group, k, k}, 2), b = noise({cout}, 3);
  const I oh = (h + pads[0] + pads[2] - (k - 1) * dilation[0] - 1) / stride[0] + 1;
  const I ow = (w + pads[1] + pads[3] - (k - 1) * dilation[1] - 1) / stride[1] + 1;
  at::Tensor expected = at::zeros({n, cout, oh, ow}, at::kDouble);
  const auto xa = x.accessor<float, 4>();
  const auto fa = f.accessor<float, 4>();
  auto ea = expected.accessor<double, 4>();
  for (I i = 0; i < n; ++i)
    for (I o = 0; o < cout; ++o)
      for (I y = 0; y < oh; ++y)
        for (I z = 0; z < ow; ++z) {
          double sum = b[o].item().toDouble();
          for (I c = 0; c < cin / group; ++c)
            for (I p = 0; p < k; ++p)
              for (I q = 0; q < k; ++q) {
                const I yy = y * stride[0] - pads[0] + p * dilation[0], zz = z * stride[1] - pads[1] + q * dilation[1];
                if (yy < 0 || yy >= h || zz < 0 || zz >= w) continue;
                sum += static_cast<double>(fa[o][c][p][q]) * xa[i][o / (cout / group) * (cin / group) + c][yy][zz];
              }
          ea[i][o][y][z] = sum;
        }
  const auto out = run_case({"loops", "Conv", {{"strides", stride}, {"dilations", dilation}, {"pads", pads}, {"group", group}}, {x, f, b}, {}});
  ASSERT_TRUE(out) << out.error().text();
  EXPECT_LT(testing::relative_difference((*out)[0], expected), 1e-5);
}

}  // namespace
}  // namespace quanvas
