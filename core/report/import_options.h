// Quanvas - how a model file is to be read where the file alone does not say; kept with the project, so that it is
// read in the same way each time.
#pragma once

#include <map>
#include <string>

#include "core/base/json.h"
#include "core/graph/graph.h"

namespace quanvas {

// What becomes of the quantizers that a file carries: rules of a recipe for the float network, or nodes that are
// executed as they stand. kUnset: rules, unless a project is there already that was made without them.
enum class FileQuantizers { kUnset, kRules, kNodes };
inline const EnumNames<FileQuantizers>& enum_names(FileQuantizers) {
  static const EnumNames<FileQuantizers> names = {
      {FileQuantizers::kUnset, ""}, {FileQuantizers::kRules, "rules"}, {FileQuantizers::kNodes, "nodes"}};
  return names;
}

struct ImportOptions {
  // Shapes of inputs by name, for those that the file leaves open. A dimension of -1 stays open.
  std::map<std::string, Shape> shapes;
  // What may bring code (TorchScript) is only read when its content has one of these hashes (spaces between them), or
  // when this is kTrustAny. Kept for the user, never in a project: a project may come from strangers as well.
  std::string trusted;
  FileQuantizers quantizers = FileQuantizers::kUnset;
  bool operator==(const ImportOptions&) const = default;
};
inline constexpr const char* kTrustAny = "any";

template <class V>
void visit_fields(V& v, ImportOptions& o) {
  v("shapes", o.shapes);
  v("trusted", o.trusted);
  v("quantizers", o.quantizers);
}

}  // namespace quanvas
