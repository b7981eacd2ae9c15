// Quanvas - what the steps of canonical() share; internal to core/graph.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include "core/graph/canonical.h"

namespace quanvas::canonical_form {

// A model that is being rewritten: the graph as it was, and the edits.
struct Rewrite {
  const Graph& graph;
  const Kept& kept;
  GraphBuilder builder;
  WeightStore weights;
  std::set<std::string> names;  // of tensors, taken
  std::set<NodeId> gone;
  bool changed = false;

  const Node* producer(TensorId t) const;
  // The only node that reads the tensor, once; null when there are others or the graph gives it away.
  const Node* only_reader(TensorId t) const;
  const TensorData* constant(TensorId t) const;
  std::optional<double> number(TensorId t) const;  // of a constant of one element
  const std::string& name(TensorId t) const { return graph.tensor(t).name; }
  std::string fresh(const std::string& wanted);
  void remove(NodeId id);
};

bool is(const Node* node, const char* op);

void join_biases(Rewrite& r);
void open_recurrent(Rewrite& r);
void open_attention(Rewrite& r);
void join_normalizations(Rewrite& r);
void join_gelus(Rewrite& r);

}  // namespace quanvas::canonical_form
