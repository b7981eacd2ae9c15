// Operators on codes, each between QuantizeLinear and DequantizeLinear, for tests of the importer and against onnxruntime.
#pragma once

#include <functional>

#include "tests/plugins/import_quantized_support.h"

namespace quanvas::import_test {

struct OperatorCase {
  std::string name;
  Shape x;
  std::function<void(QuantizedProto&)> codes;  // xq (and x2q) to yq, scales ys, yz
  std::function<void(QuantizedProto&)> reals;  // xd (and x2d) to r
  bool is_real = false;                        // the operator itself gives real numbers, y
};

inline std::vector<OperatorCase> operator_cases() {
  using D = DataType;
  using Ints = std::vector<std::int64_t>;
  const char* ms = "com.microsoft";
  const auto pool = std::vector<onnx::AttributeProto>{attribute("kernel_shape", Ints{2, 2}), attribute("strides", Ints{2, 2})};
  const auto weight = [](QuantizedProto& p) {
    p.codes("w", D::kInt8, {5, 10}, -110, 110);
    p.reals("ws", {5}, {0.1f, 0.02f, 0.03f, 0.04f, 0.05f});
    p.codes("wz", D::kInt8, {5}, Ints{0, 0, 0, 0, 0});
    p.codes("b", D::kInt32, {5}, Ints{100, -200, 30, 4000, 0});
  };
  const auto gemm = [=](QuantizedProto& p) {
    weight(p);
    p.reals("bs", {5}, {0.02f * 0.1f, 0.02f * 0.02f, 0.02f * 0.03f, 0.02f * 0.04f, 0.02f * 0.05f});
    p.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {attribute("axis", std::int64_t{0})});
    p.node("DequantizeLinear", {"b", "bs"}, {"bd"}, {attribute("axis", std::int64_t{0})});
    p.node("Gemm", {"xd", "wd", "bd"}, {"r"}, {attribute("transB", std::int64_t{1})});
  };
  const auto unary = [=](const char* op, std::vector<onnx::AttributeProto> attributes) {
    return OperatorCase{op, {2, 4, 6, 6},
                        [=](QuantizedProto& p) { p.own(std::string("QLinear") + op, {"xq", "xs", "xz", "ys", "yz"}, {"yq"}, attributes, ms); },
                        [=](QuantizedProto& p) { p.node(op, {"xd"}, {"r"}, attributes); }};
  };
  const auto binary = [=](const char* op) {
    return OperatorCase{op, {2, 4, 6, 6},
                        [=](QuantizedProto& p) { p.own(std::string("QLinear") + op, {"xq", "xs", "xz", "x2q", "x2s", "x2z", "ys", "yz"}, {"yq"}, {}, ms); },
                        [=](QuantizedProto& p) { p.node(op, {"xd", "x2d"}, {"r"}); }};
  };
  return {
      binary("Add"), binary("Mul"), unary("GlobalAveragePool", {}), unary("AveragePool", pool), unary("Sigmoid", {}),
      unary("LeakyRelu", {real_attribute("alpha", 0.1f)}),
      {"Concat", {2, 4, 6, 6},
       [=](QuantizedProto& p) { p.own("QLinearConcat", {"ys", "yz", "xq", "xs", "xz", "x2q", "x2s", "x2z"}, {"yq"}, {attribute("axis", std::int64_t{1})}, ms); },
       [](QuantizedProto& p) { p.node("Concat", {"xd", "x2d"}, {"r"}, {attribute("axis", std::int64_t{1})}); }},
      {"QGemm to codes", {3, 10},
       [=](QuantizedProto& p) {
         weight(p);
         p.own("QGemm", {"xq", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"}, {"yq"}, {attribute("transB", std::int64_t{1})}, ms);
       },
       gemm},
      {"QGemm to real numbers", {3, 10},
       [=](QuantizedProto& p) {
         weight(p);
         p.own("QGemm", {"xq", "xs", "xz", "w", "ws", "wz", "b"}, {"y"}, {attribute("transB", std::int64_t{1})}, ms);
       },
       gemm, true},
  };
}

// The case as the operator on codes, or written out on real numbers.
inline QuantizedProto operator_file(const OperatorCase& c, bool on_codes) {
  using D = DataType;
  QuantizedProto p(17, c.x);
  p.model.set_ir_version(8);
  p.real("xs", 0.02f), p.code("xz", D::kUint8, 120), p.real("x2s", 0.013f), p.code("x2z", D::kUint8, 99);
  p.real("ys", 0.031f), p.code("yz", D::kUint8, 110);
  p.node("Neg", {"x"}, {"x2"});
  p.node("QuantizeLinear", {"x", "xs", "xz"}, {"xq"});
  p.node("QuantizeLinear", {"x2", "x2s", "x2z"}, {"x2q"});
  if (on_codes) {
    c.codes(p);
  } else {
    p.node("DequantizeLinear", {"xq", "xs", "xz"}, {"xd"});
    p.node("DequantizeLinear", {"x2q", "x2s", "x2z"}, {"x2d"});
    c.reals(p);
    p.node(c.is_real ? "Identity" : "QuantizeLinear", c.is_real ? Names{"r"} : Names{"r", "ys", "yz"}, {c.is_real ? "y" : "yq"});
  }
  if (!c.is_real) p.node("DequantizeLinear", {"yq", "ys", "yz"}, {"y"});
  p.output("y");
  return p;
}

}  // namespace quanvas::import_test
