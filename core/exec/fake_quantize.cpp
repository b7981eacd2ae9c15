// Fake quantization as an ATen operation: own kernels on the CPU, ATen on other devices, and the
// straight-through gradient (LSQ's for the scale).
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "core/exec/runner.h"
#include "core/quant/params.h"

namespace quanvas::exec {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

quant::BlockLayout layout_for(const quant::QuantParams& params, const at::Tensor& x) {
  auto layout = quant::rebatch(params, x.sizes().vec());
  if (!layout) throw std::runtime_error(layout.error().text());
  return *layout;
}

// One parameter per element, or one that broadcasts, for the devices without own kernels.
at::Tensor spread(const std::vector<float>& values, const quant::QuantParams& params, const quant::BlockLayout& layout,
                  const at::Tensor& x) {
  const at::Tensor v = at::tensor(values, at::kFloat).to(x.device());
  if (params.layout.granularity == Granularity::kTensor) return v.reshape({});
  const Shape block = {layout.outer, layout.dim, layout.inner};
  if (params.layout.granularity == Granularity::kChannel)
    return v.reshape({1, layout.dim, 1}).expand(block).reshape(x.sizes());
  const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
  return v.reshape({layout.outer, groups, 1, layout.inner})
      .expand({layout.outer, groups, layout.group, layout.inner})
      .reshape({layout.outer, groups * layout.group, layout.inner})
      .narrow(1, 0, layout.dim)
      .reshape(x.sizes());
}

struct DeviceTerms {
  at::Tensor scale, zero, ratio, rounded, codes;
};
DeviceTerms device_terms(const at::Tensor& x, const quant::QuantParams& p) {
  if (p.spec.format != "int" || p.spec.rounding != Rounding::kHalfEven || p.spec.zero_point_inside)
    throw std::runtime_error("quantizers other than integers rounded half to even are computed on the CPU only.");
  const auto layout = layout_for(p, x);
  DeviceTerms t;
  t.scale = spread(p.scale, p, layout, x);
  t.zero = p.zero_point.empty() ? at::zeros({}, x.options()) : spread(p.zero_point, p, layout, x);
  t.ratio = at::nan_to_num(x / t.scale, 0.0, std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity());
  t.rounded = at::round(t.ratio) + t.zero;
  t.codes = at::clamp(t.rounded, static_cast<double>(p.lo), static_cast<double>(p.hi));
  return t;
}

at::Tensor forward_value(const at::Tensor& x, const quant::QuantParams& params) {
  if (!x.device().is_cpu()) {
    const DeviceTerms t = device_terms(x, params);
    return (t.codes - t.zero) * t.scale;
  }
  at::Tensor y = at::empty(x.sizes(), x.options().requires_grad(false));
  quant::fake_quantize(params, layout_for(params, x), x.data_ptr<float>(), y.data_ptr<float>());
  return y;
}

at::Tensor as_kernel_input(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

struct SavedParams : torch::CustomClassHolder {
  explicit SavedParams(quant::QuantParams p) : params(std::move(p)) {}
  quant::QuantParams params;
};

// dscale of a tensor on another device, by ATen.
at::Tensor device_backward(const at::Tensor& x, const at::Tensor& dy, const quant::QuantParams& p, bool pass_clipped,
                           at::Tensor* dscale) {
  const DeviceTerms t = device_terms(x, p);
  const at::Tensor inside = t.rounded == t.codes;
  if (dscale) {
    const at::Tensor local = dy * at::where(inside, t.codes - t.zero - t.ratio, t.codes - t.zero);
    const auto layout = layout_for(p, x);
    at::Tensor sums = local.reshape({layout.outer, layout.dim, layout.inner});
    if (p.layout.granularity == Granularity::kTensor) {
      sums = sums.sum().reshape({1});
    } else if (p.layout.granularity == Granularity::kChannel) {
      sums = sums.sum(at::IntArrayRef{0, 2});
    } else {
      const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
      sums = at::constant_pad_nd(sums, {0, 0, 0, groups * layout.group - layout.dim}, 0)
                 .reshape({layout.outer, groups, layout.group, layout.inner})
                 .sum(2)
                 .reshape({-1});
    }
    *dscale = sums;
  }
  return pass_clipped ? dy : dy * inside;
}

struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale,
                            const c10::intrusive_ptr<SavedParams>& saved, bool pass_clipped) {
    ctx->save_for_backward({x});
    ctx->saved_data["params"] = c10::IValue::make_capsule(saved);
    ctx->saved_data["pass_clipped"] = pass_clipped;
    ctx->saved_data["learned"] = scale.requires_grad();
    ctx->saved_data["scale_device"] = scale.device();  // learned scales lie on the CPU, wherever x is
    return forward_value(x, saved->params);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor x = ctx->get_saved_variables()[0];
    const auto capsule = ctx->saved_data["params"].toCapsule();
    const quant::QuantParams& params = static_cast<const SavedParams*>(capsule.get())->params;
    const bool learned = ctx->saved_data["learned"].toBool(), pass_clipped = ctx->saved_data["pass_clipped"].toBool();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx, dscale;
    if (x.device().is_cpu()) {
      dx = at::empty(x.sizes(), x.options().requires_grad(false));
      if (learned) dscale = at::zeros({static_cast<std::int64_t>(params.scale.size())}, dx.options());
      quant::fake_quantize_backward(params, layout_for(params, x), x.data_ptr<float>(), dy.data_ptr<float>(),
                                    dx.data_ptr<float>(), learned ? dscale.data_ptr<float>() : nullptr, pass_clipped);
    } else {
      dx = device_backward(x, dy, params, pass_clipped, learned ? &dscale : nullptr);
      if (learned) dscale = dscale.to(ctx->saved_data["scale_device"].toDevice());
    }
    return {dx, dscale, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x, const quant::QuantParams& params) {
  if (x.numel() == 0) return x;
  return forward_value(as_kernel_input(x), params).to(x.scalar_type());
}

at::Tensor fake_quantize_ste(const at::Tensor& x, const at::Tensor& scale, const quant::QuantParams& params,
                             bool pass_clipped) {
  if (x.numel() == 0) return x;
  auto saved = c10::make_intrusive<SavedParams>(params);
  if (scale.defined()) {
    const at::Tensor s = scale.detach().to(at::kCPU, at::kFloat).contiguous();
    if (s.numel() != static_cast<std::int64_t>(params.scale.size()))
      throw std::runtime_error("the scale has " + std::to_string(s.numel()) + " values, the quantizer " +
                               std::to_string(params.scale.size()) + ".");
    saved->params.scale.assign(s.data_ptr<float>(), s.data_ptr<float>() + s.numel());
  }
  const at::Tensor leaf = scale.defined() ? scale.reshape({-1}) : at::empty({0}, x.options().requires_grad(false));
  return StraightThrough::apply(as_kernel_input(x), leaf, saved, pass_clipped);
}

}  // namespace quanvas::exec
