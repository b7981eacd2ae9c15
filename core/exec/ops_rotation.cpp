// Hadamard of the domain "quanvas": core/graph/rotation_node.h.
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "core/algorithms/hadamard.h"
#include "core/exec/ops.h"
#include "core/graph/rotation_node.h"

namespace quanvas::exec {
namespace {

using algorithms::HadamardTransform;

// Made once: a core of some hundred rows takes longer than a small product.
Result<std::shared_ptr<const HadamardTransform>> transform_of(const HadamardNode& h) {
  static std::mutex mutex;
  static std::map<std::pair<std::int64_t, std::int64_t>, std::shared_ptr<const HadamardTransform>> made;
  std::lock_guard lock(mutex);
  auto& slot = made[{h.size, h.core}];
  if (!slot) {
    QUANVAS_TRY(HadamardTransform t, HadamardTransform::create(h.size, h.core));
    slot = std::make_shared<const HadamardTransform>(std::move(t));
  }
  return slot;
}

std::string refuse(const Node& node) {
  const auto h = hadamard_node(node);
  if (!h) return "its attributes width, size and core are no sizes of a Hadamard transform";
  const auto t = transform_of(*h);
  return t ? std::string() : t.error().message;
}

at::Tensor by_kernel(const HadamardTransform& t, const at::Tensor& x, bool transposed) {
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty(in.sizes(), in.options().requires_grad(false));
  const std::int64_t rows = in.numel() / t.size();
  if (in.scalar_type() == at::kFloat) t.apply(in.data_ptr<float>(), out.data_ptr<float>(), rows, transposed);
  else t.apply(in.data_ptr<double>(), out.data_ptr<double>(), rows, transposed);
  return out;
}

struct SavedTransform : torch::CustomClassHolder {
  explicit SavedTransform(std::shared_ptr<const HadamardTransform> t) : transform(std::move(t)) {}
  std::shared_ptr<const HadamardTransform> transform;
};

// y = x H for blocks of features; dx = dy H'.
struct Differentiated : torch::autograd::Function<Differentiated> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const c10::intrusive_ptr<SavedTransform>& saved) {
    ctx->saved_data["transform"] = c10::IValue::make_capsule(saved);
    return by_kernel(*saved->transform, x, false);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto capsule = ctx->saved_data["transform"].toCapsule();
    return {by_kernel(*static_cast<const SavedTransform*>(capsule.get())->transform, grads[0], true), at::Tensor()};
  }
};

// Where the kernels cannot run.
at::Tensor by_product(const HadamardTransform& t, const at::Tensor& blocks) {
  const std::int64_t n = t.size();
  const at::Tensor h = at::tensor(t.matrix(), at::kDouble).reshape({n, n}).to(blocks.device(), blocks.scalar_type());
  return at::matmul(blocks, h);
}

OpResult hadamard(const OpCall& call) {
  const auto h = hadamard_node(call.node);
  if (!h) return bad_node(refuse(call.node) + ".");
  QUANVAS_TRY(const auto t, transform_of(*h));
  const at::Tensor& x = call.x();
  if (x.dim() < 1 || x.size(-1) != h->width)
    return bad_node("its input is " + sizes_text(x) + ", expected " + std::to_string(h->width) + " features on the last axis.");
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble)
    return bad_node(std::string("its input has elements of type ") + at::toString(x.scalar_type()) + ", expected float32 or float64.");
  at::Tensor in = x;
  if (h->outputs() != h->width) in = at::constant_pad_nd(in, {0, h->outputs() - h->width}, 0);
  Ints sizes = in.sizes().vec(), blocks = sizes;
  blocks.back() = h->blocks();
  blocks.push_back(h->size);
  if (!in.device().is_cpu()) return one(by_product(*t, in.reshape(blocks)).reshape(sizes));
  if (in.requires_grad()) return one(Differentiated::apply(in, c10::make_intrusive<SavedTransform>(t)));
  return one(by_kernel(*t, in, false));
}

}  // namespace

const std::vector<OpRow>& rotation_ops() {
  static const std::vector<OpRow> rows = {{kHadamardOp, 1, hadamard, refuse}};
  return rows;
}

}  // namespace quanvas::exec
