// Fake quantization as an ATen operation: own kernels on the CPU, ATen on other devices, and the
// straight-through gradient (LSQ's for the scale).
#include <stdexcept>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "core/exec/device_quantize.h"
#include "core/exec/runner.h"
#include "core/quant/dynamic.h"
#include "core/quant/gradient.h"
#include "core/quant/params.h"

namespace quanvas::exec {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Shape shape_of(const at::Tensor& x) { return Shape(x.sizes().begin(), x.sizes().end()); }

quant::BlockLayout layout_for(const quant::QuantParams& params, const at::Tensor& x) {
  auto layout = quant::rebatch(params, x.sizes().vec());
  if (!layout) throw std::runtime_error(layout.error().text());
  return *layout;
}

void check(const Status& status) {
  if (!status) throw std::runtime_error(status.error().text());
}

// Parameters of a sample are found by the kernels, so tensors of other devices come over for it.
at::Tensor dynamic_value(const at::Tensor& x, const quant::QuantParams& params) {
  const at::Tensor here = x.cpu();
  at::Tensor y = at::empty(here.sizes(), here.options().requires_grad(false));
  check(quant::fake_quantize_samples(params, shape_of(here), here.data_ptr<float>(), y.data_ptr<float>()));
  return y.to(x.device());
}

at::Tensor forward_value(const at::Tensor& x, const quant::QuantParams& params) {
  if (quant::is_dynamic(params)) return dynamic_value(x, params);
  if (!x.device().is_cpu()) return device_fake_quantize(x, params, layout_for(params, x));
  at::Tensor y = at::empty(x.sizes(), x.options().requires_grad(false));
  quant::fake_quantize(params, layout_for(params, x), x.data_ptr<float>(), y.data_ptr<float>());
  return y;
}

at::Tensor as_kernel_input(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

struct SavedParams : torch::CustomClassHolder {
  explicit SavedParams(quant::QuantParams p) : params(std::move(p)) {}
  quant::QuantParams params;
};

struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                            const at::Tensor& bits, const c10::intrusive_ptr<SavedParams>& saved, bool pass_clipped) {
    ctx->save_for_backward({x});
    ctx->saved_data["params"] = c10::IValue::make_capsule(saved);
    ctx->saved_data["pass_clipped"] = pass_clipped;
    ctx->saved_data["scale"] = scale.requires_grad();
    ctx->saved_data["zero_point"] = zero_point.requires_grad();
    ctx->saved_data["bits"] = bits.requires_grad();
    return forward_value(x, saved->params);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor x = ctx->get_saved_variables()[0];
    const auto capsule = ctx->saved_data["params"].toCapsule();
    const quant::QuantParams& params = static_cast<const SavedParams*>(capsule.get())->params;
    const bool pass_clipped = ctx->saved_data["pass_clipped"].toBool();
    const at::Tensor dy = grads[0].contiguous();
    variable_list out(6);
    if (quant::is_dynamic(params)) {
      out[0] = dynamic_backward(x, dy, params, pass_clipped);
      return out;
    }
    const bool scale = ctx->saved_data["scale"].toBool();
    // Learned parameters lie on the CPU, wherever x is.
    const at::TensorOptions here = at::TensorOptions(at::kFloat);
    const auto n = static_cast<std::int64_t>(params.scale.size());
    const auto layout = layout_for(params, x);
    if (x.device().is_cpu()) {
      out[0] = at::empty(x.sizes(), x.options().requires_grad(false));
      if (scale) out[1] = at::zeros({n}, here);
      quant::fake_quantize_backward(params, layout, x.data_ptr<float>(), dy.data_ptr<float>(), out[0].data_ptr<float>(),
                                    scale ? out[1].data_ptr<float>() : nullptr, pass_clipped);
    } else {
      out[0] = device_backward(x, dy, params, layout, pass_clipped, scale ? &out[1] : nullptr);
      if (scale) out[1] = out[1].to(at::kCPU);
    }
    const bool zero_point = ctx->saved_data["zero_point"].toBool(), bits = ctx->saved_data["bits"].toBool();
    if (!zero_point && !bits) return out;
    const at::Tensor hx = x.cpu(), hdy = dy.cpu();
    if (zero_point) {
      out[2] = at::zeros({n}, here);
      quant::zero_point_gradient(params, layout, hx.data_ptr<float>(), hdy.data_ptr<float>(), out[2].data_ptr<float>());
    }
    if (bits)
      out[3] = at::full({1}, quant::width_gradient(params, layout, hx.data_ptr<float>(), hdy.data_ptr<float>()), here);
    return out;
  }

 private:
  static at::Tensor dynamic_backward(const at::Tensor& x, const at::Tensor& dy, const quant::QuantParams& params,
                                     bool pass_clipped) {
    const at::Tensor hx = x.cpu(), hdy = dy.cpu();
    at::Tensor dx = at::empty(hx.sizes(), hx.options().requires_grad(false));
    check(quant::fake_quantize_backward_samples(params, shape_of(hx), hx.data_ptr<float>(), hdy.data_ptr<float>(),
                                                dx.data_ptr<float>(), pass_clipped));
    return dx.to(x.device());
  }
};

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x, const quant::QuantParams& params) {
  if (x.numel() == 0) return x;
  return forward_value(as_kernel_input(x), params).to(x.scalar_type());
}

at::Tensor fake_quantize_ste(const at::Tensor& x, const LearnedParams& learned, const quant::QuantParams& params,
                             bool pass_clipped) {
  if (x.numel() == 0) return x;
  auto saved = c10::make_intrusive<SavedParams>(params);
  if (learned.scale.defined()) {
    const at::Tensor s = learned.scale.detach().to(at::kCPU, at::kFloat).contiguous();
    if (s.numel() != static_cast<std::int64_t>(params.scale.size()))
      throw std::runtime_error("the scale has " + std::to_string(s.numel()) + " values, the quantizer " +
                               std::to_string(params.scale.size()) + ".");
    saved->params.scale.assign(s.data_ptr<float>(), s.data_ptr<float>() + s.numel());
  }
  const auto leaf = [](const at::Tensor& t) { return t.defined() ? t.reshape({-1}) : at::empty({0}, at::kFloat); };
  return StraightThrough::apply(as_kernel_input(x), leaf(learned.scale), leaf(learned.zero_point), leaf(learned.bits),
                                saved, pass_clipped);
}

at::Tensor fake_quantize_ste(const at::Tensor& x, const at::Tensor& scale, const quant::QuantParams& params,
                             bool pass_clipped) {
  return fake_quantize_ste(x, LearnedParams{scale, {}, {}}, params, pass_clipped);
}

}  // namespace quanvas::exec
