#include "widgets/common/node_names.h"

#include <algorithm>

namespace quanvas {
namespace {

std::string last_part(const std::string& name, std::size_t parts = 1) {
  std::size_t at = name.size();
  for (std::size_t i = 0; i < parts && at != std::string::npos && at > 0; ++i) at = name.find_last_of("/.", at - 1);
  return at == std::string::npos || at == name.size() ? name : name.substr(at + 1);
}

bool made_from_op(const std::string& part, const std::string& op) { return part == op || part.starts_with(op + "_"); }

bool only_digits(const std::string& s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// The scope says which node it is: nothing else is in it.
bool named_by_scope(const Node& node, std::size_t nodes_in_scope) {
  return nodes_in_scope == 1 && !node.scope.empty() && made_from_op(last_part(node.name), node.op);
}

// A number alone says nothing.
QString with_op(const std::string& name, const Node& node) {
  return QString::fromStdString(only_digits(name) ? node.op + " " + name : name);
}

}  // namespace

QString card_name(const Node& node, std::size_t nodes_in_scope) {
  const std::string& whole = named_by_scope(node, nodes_in_scope) ? node.scope : node.name;
  const std::string part = last_part(whole);
  return with_op(only_digits(part) ? last_part(whole, 2) : part, node);
}

QString list_name(const Node& node, std::size_t nodes_in_scope) {
  if (node.name.find('/') == std::string::npos) return with_op(node.name, node);
  if (named_by_scope(node, nodes_in_scope)) return with_op(node.scope, node);
  const std::string part = last_part(node.name);
  return with_op(node.scope.empty() ? part : node.scope + "." + part, node);
}

QString shown_shape(const Shape& shape) { return QString::fromStdString(shape_text(shape)).replace(u'?', u'N'); }

}  // namespace quanvas
