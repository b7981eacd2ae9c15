// Quanvas - everything about a network that its view draws and that neither formats nor open groups change. Made once
// per Graph, which takes a while for large ones: any thread. Pure value.
#pragma once

#include <memory>
#include <vector>

#include "widgets/graph/graph_content.h"
#include "widgets/graph/graph_paths.h"

namespace quanvas {

struct PreparedGraph {
  GraphContent content;
  GraphPaths paths;                  // nothing followed
  std::vector<ScopeGroup> groups;
};
using PreparedGraphPtr = std::shared_ptr<const PreparedGraph>;

inline PreparedGraphPtr prepare_graph(const Graph& graph, const std::vector<Layer>& layers) {
  auto out = std::make_shared<PreparedGraph>();
  out->content = make_content(graph, layers);
  out->paths = GraphPaths(out->content);
  out->groups = scope_groups(out->content.layout);
  return out;
}

}  // namespace quanvas
