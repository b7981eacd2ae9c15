// Networks of LibTorch's less common operators on codes, for the tests of TorchScript files.
#pragma once

#include <cmath>

#include "tests/plugins/export_dynamic_nets.h"
#include "tests/plugins/torchscript_export_support.h"

namespace quanvas::torchscript_export {

using export_net::NetBuilder;
using Sizes = std::vector<std::int64_t>;

// x[N,4,8,8]: curves between convolutions, and behind one another.
inline ModelPtr curves_net() {
  NetBuilder n("curves", {-1, 4, 8, 8});
  std::string t = n.node("Conv", "conv1", {"x", n.weight("conv1.w", {8, 4, 3, 3}), n.weight("conv1.b", {8})}, {-1, 8, 8, 8},
                         {{"pads", Sizes{1, 1, 1, 1}}, {"kernel_shape", Sizes{3, 3}}});
  t = n.node("LeakyRelu", "leaky", {t}, {-1, 8, 8, 8}, {{"alpha", 0.1f}});
  t = n.node("Conv", "conv2", {t, n.weight("conv2.w", {8, 1, 3, 3}), n.weight("conv2.b", {8})}, {-1, 8, 8, 8},
             {{"pads", Sizes{1, 1, 1, 1}}, {"kernel_shape", Sizes{3, 3}}, {"group", std::int64_t{8}}});
  t = n.node("HardSwish", "swish", {t}, {-1, 8, 8, 8});
  t = n.node("Elu", "elu", {t}, {-1, 8, 8, 8}, {{"alpha", 0.7f}});
  t = n.node("Sigmoid", "sigmoid", {t}, {-1, 8, 8, 8});
  return n.done(n.node("Tanh", "tanh", {t}, {-1, 8, 8, 8}));
}

// x[N,4,8,8]: one curve behind a convolution.
inline ModelPtr curve_net(const char* op) {
  NetBuilder n("curve", {-1, 4, 8, 8});
  const std::string t = n.node("Conv", "conv", {"x", n.weight("conv.w", {8, 4, 3, 3}), n.weight("conv.b", {8})}, {-1, 8, 8, 8},
                               {{"pads", Sizes{1, 1, 1, 1}}, {"kernel_shape", Sizes{3, 3}}});
  return n.done(n.node(op, "curve", {t}, {-1, 8, 8, 8}));
}

// x[N,2,4,6,5]: convolutions over three axes, one in groups with uneven pads.
inline ModelPtr volume_net() {
  NetBuilder n("volume", {-1, 2, 4, 6, 5});
  std::string t = n.node("Conv", "conv1", {"x", n.weight("conv1.w", {4, 2, 3, 3, 3}), n.weight("conv1.b", {4})},
                         {-1, 4, 4, 6, 5}, {{"pads", Sizes{1, 1, 1, 1, 1, 1}}, {"kernel_shape", Sizes{3, 3, 3}}});
  t = n.node("Relu", "relu", {t}, {-1, 4, 4, 6, 5});
  return n.done(n.node("Conv", "conv2", {t, n.weight("conv2.w", {4, 1, 2, 2, 2}), n.weight("conv2.b", {4})}, {-1, 4, 4, 3, 2},
                       {{"pads", Sizes{0, 0, 0, 1, 0, 0}},
                        {"strides", Sizes{1, 2, 2}},
                        {"kernel_shape", Sizes{2, 2, 2}},
                        {"group", std::int64_t{4}}}));
}

// x[N,6,8]: linear layers of rows.
inline ModelPtr rows_net() {
  NetBuilder n("rows", {-1, 6, 8});
  std::string t = n.node("MatMul", "first", {"x", n.weight("first.w", {8, 16}), n.weight("first.b", {16})}, {-1, 6, 16});
  t = n.node("Relu", "relu", {t}, {-1, 6, 16});
  t = n.node("MatMul", "second", {t, n.weight("second.w", {16, 4})}, {-1, 6, 4});
  t = n.node("Flatten", "flatten", {t}, {-1, 24}, {{"axis", std::int64_t{1}}});
  return n.done(n.node("Gemm", "last", {t, n.weight("last.w", {5, 24}), n.weight("last.b", {5})}, {-1, 5},
                       {{"transB", std::int64_t{1}}}));
}

inline void set_codes(quant::QuantParams& p, float scale, float zero) {
  p.scale = {scale};
  p.zero_point = {zero};
}

// Everything in uint8 by the ranges of a run, weights by channel; powers of two as scales where asked.
inline QuantizedModel on_codes(ModelPtr net, bool power_of_two) {
  const auto as = [&](QuantSpec s) { return power_of_two ? export_net::power_of_two(s) : s; };
  QuantizedModel model = export_net::quantize_codes_of(
      net, {as(spec(8, true, true, kNone, kChannel)), as(spec(8, false, false, kInteger, kTensor))});
  // The one scale that LibTorch has for these results.
  if (net->graph->find("sigmoid")) {
    set_codes(at_site(model, "sigmoid", SiteKind::kOutput), 1.0f / 256, 0);
    set_codes(at_site(model, "tanh", SiteKind::kInput), 1.0f / 256, 0);
    set_codes(at_site(model, "tanh", SiteKind::kOutput), 1.0f / 128, 128);
  }
  return model;
}

}  // namespace quanvas::torchscript_export
