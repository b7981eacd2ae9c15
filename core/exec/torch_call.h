// Quanvas - one operator of LibTorch, called by name: what an imported TorchScript network uses and the graph's own
// set of operators lacks. Only operators that compute: none that write to their arguments, open files, or draw
// random numbers. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/graph/graph.h"

namespace quanvas::exec {

// arguments: a list in the order of the operator's schema; an entry is a number, truth value, text, null or a list,
// or stands for an input: {"tensor": 0}, or {"number": 1} for the number in it.
struct TorchCall {
  std::string op;        // "aten::roll"
  std::string overload;  // "" mostly
  json arguments;
};

// The call that a node "TorchScript" of the domain "torch" stands for.
Result<TorchCall> torch_call_of(const Node& node);
std::string torch_refusal(const TorchCall& call);  // why it is not run; empty: it is
// As many results as `outputs`, from an operator that gives that many tensors, or one list of them.
Result<std::vector<at::Tensor>> run_torch(const TorchCall& call, const std::vector<at::Tensor>& inputs,
                                          std::size_t outputs);

}  // namespace quanvas::exec
