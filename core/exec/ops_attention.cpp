// What transformers are written with since opset 18: group and root-mean-square normalization, rotary positions,
// attention with caches.
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Scale and bias are per group in opset 18, per channel since 21.
OpResult group_norm(const OpCall& call) {
  const at::Tensor& x = call.x();
  const std::int64_t groups = call.node.integer("num_groups", 1);
  if (x.dim() < 2 || groups < 1 || x.size(1) % groups != 0)
    return bad_node("'num_groups' " + std::to_string(groups) + " does not divide the channels of " + sizes_text(x) +
                    ".");
  const auto per_channel = [&](const at::Tensor& t) {
    return t.numel() == groups && groups != x.size(1) ? t.repeat_interleave(x.size(1) / groups) : t;
  };
  return one(at::group_norm(x, groups, per_channel(call.x(1)), per_channel(call.x(2)),
                            call.node.real("epsilon", 1e-5f), false));
}

OpResult rms_norm(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -1), x.dim()));
  Ints axes;
  for (std::int64_t i = axis; i < x.dim(); ++i) axes.push_back(i);
  const at::Tensor mean = at::mean(x * x, axes, true);
  return one(x * at::rsqrt(mean + call.node.real("epsilon", 1e-5f)) * call.x(1));
}

// Heads of [batch, length, heads * size] as [batch, heads, length, size]; rank 4 has them already.
Result<at::Tensor> heads_of(const at::Tensor& x, std::int64_t heads, const char* what) {
  if (x.dim() == 4) return x;
  if (x.dim() != 3 || heads < 1 || x.size(2) % heads != 0)
    return bad_node(std::string("'") + what + "' " + sizes_text(x) + " cannot be cut into " +
                    std::to_string(heads) + " heads.");
  return x.reshape({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor joined_heads(const at::Tensor& x, std::int64_t rank) {
  return rank == 4 ? x : x.transpose(1, 2).reshape({x.size(0), x.size(2), -1});
}

// Rotary positions (Su et al. 2021).
OpResult rotary(const OpCall& call) {
  const at::Tensor& given = call.x();
  QUANVAS_TRY(const at::Tensor x, heads_of(given, call.node.integer("num_heads", 0), "X"));
  std::int64_t width = call.node.integer("rotary_embedding_dim", 0);
  if (width == 0) width = x.size(3);
  if (width < 2 || width % 2 != 0 || width > x.size(3))
    return bad_node("'rotary_embedding_dim' " + std::to_string(width) + " does not fit heads of " +
                    std::to_string(x.size(3)) + ".");
  at::Tensor c = call.x(1), s = call.x(2);
  if (call.has(3)) {
    const at::Tensor at_position = call.x(3).to(at::kLong);
    if (c.dim() != 2 || s.sizes() != c.sizes())
      return bad_node("with positions, the tables must be matrices of one size.");
    const at::Tensor flat = at_position.reshape({-1});
    if (flat.numel() > 0 && (flat.min().item().toLong() < 0 || flat.max().item().toLong() >= c.size(0)))
      return bad_node("a position lies outside the " + std::to_string(c.size(0)) + " of the tables.");
    Ints sizes = at_position.sizes().vec();
    sizes.push_back(c.size(1));
    c = c.index_select(0, flat).reshape(sizes);
    s = s.index_select(0, flat).reshape(sizes);
  }
  if (c.dim() != 3 || c.size(2) != width / 2)
    return bad_node("the tables " + sizes_text(c) + " do not fit a width of " + std::to_string(width) + ".");
  c = c.unsqueeze(1);  // [batch, 1, length, width / 2]
  s = s.unsqueeze(1);
  const at::Tensor turned = x.narrow(3, 0, width), rest = x.narrow(3, width, x.size(3) - width);
  const bool interleaved = call.node.integer("interleaved", 0) != 0;
  const at::Tensor a = interleaved ? turned.slice(3, 0, width, 2) : turned.narrow(3, 0, width / 2);
  const at::Tensor b = interleaved ? turned.slice(3, 1, width, 2) : turned.narrow(3, width / 2, width / 2);
  const at::Tensor re = c * a - s * b, im = s * a + c * b;
  const at::Tensor y = interleaved ? at::stack({re, im}, 4).reshape(turned.sizes()) : at::cat({re, im}, 3);
  return one(joined_heads(at::cat({y, rest}, 3), given.dim()));
}

const double kNever = -std::numeric_limits<double>::infinity();
constexpr double kShutOut = -1000;  // masks of files add -inf, the lowest float, -1e9 or -10000

// 0 where a query may look, -inf where not: true and false of a mask of booleans.
at::Tensor as_bias(const at::Tensor& allowed, const at::Tensor& like) {
  return at::zeros(allowed.sizes(), like.options()).masked_fill(allowed.logical_not(), kNever);
}

Result<at::Tensor> attention_bias(const OpCall& call, const at::Tensor& q, std::int64_t keys, std::int64_t past) {
  const std::int64_t queries = q.size(2), batch = q.size(0);
  at::Tensor bias = at::zeros({1, 1, queries, keys}, q.options());
  if (call.has(3)) {
    at::Tensor mask = call.x(3);
    if (mask.scalar_type() == at::kBool) mask = as_bias(mask, q);
    if (mask.dim() < 1 || mask.size(-1) > keys)
      return bad_node("the mask " + sizes_text(mask) + " does not fit " + std::to_string(keys) + " keys.");
    mask = at::constant_pad_nd(mask.to(q.scalar_type()), {0, keys - mask.size(-1)}, kNever);
    bias = bias + mask;
  }
  const auto longs = q.options().dtype(at::kLong);
  const at::Tensor key = at::arange(keys, longs), query = at::arange(queries, longs).unsqueeze(1);
  at::Tensor lengths;  // valid keys of each batch entry
  if (call.has(6)) {
    lengths = call.x(6).to(at::kLong).reshape({-1, 1, 1, 1});
    if (lengths.size(0) != batch) return bad_node("'nonpad_kv_seqlen' must have one entry per batch entry.");
    bias = bias + as_bias(key.reshape({1, 1, 1, -1}) < lengths, q);
  }
  if (call.node.integer("is_causal", 0)) {
    const at::Tensor before =
        lengths.defined() && !call.has(4) ? lengths - queries : at::full({1, 1, 1, 1}, past, longs);
    bias = bias + as_bias(key <= query + before, q);
  }
  return bias;
}

OpResult attention(const OpCall& call) {
  const Node& node = call.node;
  const std::int64_t rank = call.x().dim();
  QUANVAS_TRY(const at::Tensor q, heads_of(call.x(0), node.integer("q_num_heads", 0), "Q"));
  QUANVAS_TRY(at::Tensor k, heads_of(call.x(1), node.integer("kv_num_heads", 0), "K"));
  QUANVAS_TRY(at::Tensor v, heads_of(call.x(2), node.integer("kv_num_heads", 0), "V"));
  const std::int64_t past = call.has(4) ? call.x(4).size(2) : 0;
  if (call.has(4)) k = at::cat({call.x(4), k}, 2);
  if (call.has(5)) v = at::cat({call.x(5), v}, 2);
  if (k.size(1) < 1 || q.size(1) % k.size(1) != 0 || v.size(1) != k.size(1) || v.size(2) != k.size(2))
    return bad_node("queries " + sizes_text(q) + ", keys " + sizes_text(k) + " and values " + sizes_text(v) +
                    " do not fit together.");
  const std::int64_t shared = q.size(1) / k.size(1);
  const at::Tensor all_k = shared > 1 ? k.repeat_interleave(shared, 1) : k,
                   all_v = shared > 1 ? v.repeat_interleave(shared, 1) : v;
  double scale = node.real("scale", 0);
  if (!call.has_attribute("scale"))
    scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, q.size(3))));
  at::Tensor stages[4];  // products, capped, masked, softmax
  stages[0] = at::matmul(q * std::sqrt(scale), (all_k * std::sqrt(scale)).transpose(2, 3));
  const double cap = node.real("softcap", 0);
  stages[1] = cap > 0 ? at::tanh(stages[0] / cap) * cap : stages[0];
  QUANVAS_TRY(const at::Tensor bias, attention_bias(call, q, k.size(2), past));
  const bool is_watched = call.is_watched();
  // Before the mask: what it shuts out stays as it is, whatever the quantizer's lowest value, and is no score.
  at::Tensor scores;  // as the site sees them
  if (is_watched) {
    const at::Tensor is_open = bias > kShutOut;
    scores = at::where(is_open, stages[1], at::zeros_like(stages[1]));
    stages[2] = at::where(is_open, call.quantized(SiteKind::kInternal, 0, scores), stages[1]) + bias;
  } else {
    stages[2] = stages[1] + bias;
  }
  stages[3] = at::softmax(stages[2], -1);
  const at::Tensor weights = is_watched ? call.quantized(SiteKind::kInternal, 1, stages[3]) : stages[3];
  const std::int64_t shown = node.integer("qk_matmul_output_mode", 0);
  if (shown < 0 || shown > 3)
    return bad_node("'qk_matmul_output_mode' is " + std::to_string(shown) + ", expected 0 to 3.");
  Tensors out{joined_heads(at::matmul(weights, all_v), rank), k, v, stages[shown]};
  if (is_watched) {
    out.push_back(scores);
    out.push_back(stages[3]);
  }
  return out;
}

OpResult swish(const OpCall& call) {
  return one(call.x() * at::sigmoid(call.x() * call.node.real("alpha", 1.0f)));
}

}  // namespace

const std::vector<OpRow>& attention_ops() {
  static const std::vector<OpRow> rows = {{"GroupNormalization", 3, group_norm},
                                          {"RMSNormalization", 2, rms_norm},
                                          {"RotaryEmbedding", 3, rotary},
                                          {"Attention", 3, attention},
                                          {"Swish", 1, swish}};
  return rows;
}

}  // namespace quanvas::exec
