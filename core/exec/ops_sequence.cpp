// Sequences of tensors and optionals.
#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

using Sequence = std::vector<at::Tensor>;

ValuesResult one_value(Value v) {
  Values out;
  out.push_back(std::move(v));
  return out;
}

Result<const Sequence*> sequence_in(const ValueCall& call, std::size_t i = 0) {
  if (!call.has(i) || !call.in[i].sequence)
    return bad_node("its input " + std::to_string(i + 1) + " must be a sequence.");
  return call.in[i].sequence.get();
}

Result<at::Tensor> tensor_in(const ValueCall& call, std::size_t i) {
  if (!call.has(i) || !call.in[i].tensor.defined())
    return bad_node("its input " + std::to_string(i + 1) + " must be a tensor.");
  return call.in[i].tensor;
}

// Position in a sequence of n, negative from the end; `past_end` allows n.
Result<std::size_t> position_in(const ValueCall& call, std::size_t input, std::size_t n, bool past_end) {
  QUANVAS_TRY(const at::Tensor t, tensor_in(call, input));
  QUANVAS_TRY(std::int64_t at, one_integer(t, "position"));
  const auto count = static_cast<std::int64_t>(n);
  const std::int64_t given = at;
  if (at < 0) at += count;
  if (at < 0 || at >= count + (past_end ? 1 : 0))
    return bad_node("the position is " + std::to_string(given) + ", the sequence has " + std::to_string(n) +
                    " entries.");
  return static_cast<std::size_t>(at);
}

ValuesResult construct(const ValueCall& call) {
  Sequence s;
  for (std::size_t i = 0; i < call.in.size(); ++i) {
    QUANVAS_TRY(at::Tensor t, tensor_in(call, i));
    s.push_back(std::move(t));
  }
  return one_value(Value::of(std::move(s)));
}

ValuesResult empty(const ValueCall&) {
  return one_value(Value::of(Sequence{}));
}

ValuesResult at_position(const ValueCall& call) {
  QUANVAS_TRY(const Sequence* s, sequence_in(call));
  QUANVAS_TRY(const std::size_t at, position_in(call, 1, s->size(), false));
  return one_value(Value::of((*s)[at]));
}

ValuesResult insert(const ValueCall& call) {
  QUANVAS_TRY(const Sequence* s, sequence_in(call));
  QUANVAS_TRY(at::Tensor t, tensor_in(call, 1));
  std::size_t at = s->size();
  if (call.has(2)) {
    QUANVAS_TRY(at, position_in(call, 2, s->size(), true));
  }
  Sequence longer = *s;
  longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(at), std::move(t));
  return one_value(Value::of(std::move(longer)));
}

ValuesResult erase(const ValueCall& call) {
  QUANVAS_TRY(const Sequence* s, sequence_in(call));
  if (s->empty()) return bad_node("an empty sequence has nothing to erase.");
  std::size_t at = s->size() - 1;
  if (call.has(1)) {
    QUANVAS_TRY(at, position_in(call, 1, s->size(), false));
  }
  Sequence shorter = *s;
  shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(at));
  return one_value(Value::of(std::move(shorter)));
}

ValuesResult length(const ValueCall& call) {
  QUANVAS_TRY(const Sequence* s, sequence_in(call));
  return one_value(Value::of(at::scalar_tensor(static_cast<std::int64_t>(s->size()), at::kLong)));
}

ValuesResult split(const ValueCall& call) {
  QUANVAS_TRY(const at::Tensor x, tensor_in(call, 0));
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  if (x.dim() == 0) return bad_node("a scalar cannot be split.");
  const bool by_one = !call.has(1);
  Ints sizes;
  if (!by_one && call.in[1].tensor.defined() && call.in[1].tensor.dim() > 0) {
    sizes = int_values(call.in[1].tensor);
  } else {
    std::int64_t each = 1;
    if (!by_one) {
      QUANVAS_TRY(const at::Tensor given, tensor_in(call, 1));
      QUANVAS_TRY(each, one_integer(given, "split"));
    }
    if (each < 1) return bad_node("'split' is " + std::to_string(each) + ", expected at least 1.");
    for (std::int64_t left = x.size(axis); left > 0; left -= each) sizes.push_back(std::min(left, each));
  }
  std::int64_t sum = 0;
  for (const auto s : sizes) {
    if (s < 0 || s > x.size(axis)) return bad_node("'split' holds " + std::to_string(s) + ".");
    sum += s;
  }
  if (sum != x.size(axis))
    return bad_node("'split' adds up to " + std::to_string(sum) + ", the axis has " + std::to_string(x.size(axis)) +
                    ".");
  Sequence parts = at::split_with_sizes(x, sizes, axis);
  if (by_one && call.node.integer("keepdims", 1) == 0)
    for (auto& p : parts) p = p.squeeze(axis);
  return one_value(Value::of(std::move(parts)));
}

ValuesResult concat(const ValueCall& call) {
  QUANVAS_TRY(const Sequence* s, sequence_in(call));
  if (s->empty()) return bad_node("an empty sequence cannot be joined.");
  const bool stack = call.node.integer("new_axis", 0) != 0;
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), (*s)[0].dim() + (stack ? 1 : 0)));
  return one_value(Value::of(stack ? at::stack(*s, axis) : at::cat(*s, axis)));
}

ValuesResult optional(const ValueCall& call) {
  if (call.has(0)) return one_value(call.in[0]);
  Value none;
  none.is_absent = true;
  return one_value(std::move(none));
}

ValuesResult get_element(const ValueCall& call) {
  if (!call.has(0) || call.in[0].is_absent) return bad_node("the optional holds nothing.");
  return one_value(call.in[0]);
}

ValuesResult has_element(const ValueCall& call) {
  return one_value(Value::of(at::scalar_tensor(call.has(0) && !call.in[0].is_absent, at::kBool)));
}

ValuesResult identity(const ValueCall& call) {
  return one_value(call.in[0]);
}

}  // namespace

const std::vector<OpRow>& sequence_ops() {
  static const std::vector<OpRow> rows = {
      {"SequenceConstruct", 1, nullptr, nullptr, construct},
      {"SequenceEmpty", 0, nullptr, nullptr, empty},
      {"SequenceAt", 2, nullptr, nullptr, at_position},
      {"SequenceInsert", 2, nullptr, nullptr, insert},
      {"SequenceErase", 1, nullptr, nullptr, erase},
      {"SequenceLength", 1, nullptr, nullptr, length},
      {"SplitToSequence", 1, nullptr, nullptr, split},
      {"ConcatFromSequence", 1, nullptr, nullptr, concat},
      {"Optional", 0, nullptr, nullptr, optional},
      {"OptionalGetElement", 1, nullptr, nullptr, get_element},
      {"OptionalHasElement", 0, nullptr, nullptr, has_element},
      {"Identity", 1, nullptr, nullptr, identity},
  };
  return rows;
}

}  // namespace quanvas::exec
