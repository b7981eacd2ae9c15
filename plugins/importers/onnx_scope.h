// Quanvas - names while an ONNX file is read; internal to the importer.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <string>
#include <unordered_map>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {

// Names of one graph, subgraph or function, as they are called in the draft: there every name is used once.
struct Scope {
  const Scope* outer = nullptr;
  std::unordered_map<std::string, std::string> names;
  const std::map<std::string, const onnx::AttributeProto*>* arguments = nullptr;  // of the function that this is in
  int depth = 0;

  const std::string* find(const std::string& name) const {
    for (const Scope* s = this; s; s = s->outer)
      if (const auto it = s->names.find(name); it != s->names.end()) return &it->second;
    return nullptr;
  }
  std::string resolve(const std::string& name) const {
    if (name.empty()) return {};
    const std::string* known = find(name);
    return known ? *known : printable(name);
  }
  // What the function that this is in was called with; null: not given, or in no function.
  const onnx::AttributeProto* argument(const std::string& name) const {
    for (const Scope* s = this; s; s = s->outer) {
      if (!s->arguments) continue;
      const auto it = s->arguments->find(name);
      return it == s->arguments->end() ? nullptr : it->second;
    }
    return nullptr;
  }
};

}  // namespace quanvas::onnx_import
