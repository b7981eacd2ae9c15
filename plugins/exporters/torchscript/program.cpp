#include "plugins/exporters/torchscript/program.h"

#include <cmath>
#include <cstdio>
#include <set>

namespace quanvas::torchscript_file {
namespace {

// Words of TorchScript, names that a module has already, and those of the attributes that are written.
bool is_taken(const std::string& word) {
  static const std::set<std::string> words = {
      "and",    "as",     "assert",   "break", "class",  "continue", "def",     "del",          "elif",     "else",
      "except", "False",  "for",      "from",  "global", "if",       "import",  "in",           "is",       "lambda",
      "None",   "not",    "or",       "pass",  "print",  "raise",    "return",  "True",         "try",      "while",
      "with",   "yield",  "torch",    "ops",   "self",   "float",    "int",     "bool",         "len",      "list",
      "List",   "Tensor", "training", "layer", "packed", "getattr",  "forward", "getitem",      "annotate", "max",
      "min",    "range",  "zip",      "inf",   "nan",    "str",      "device",  "uninitialized"};
  return words.count(word) > 0;
}

std::string identifier(const std::string& text) {
  std::string out;
  for (const char c : text) out += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
  if (out.empty()) out = "_";
  return is_taken(out) ? out + "_" : out;
}

bool begins_with_digit(const std::string& word) { return word[0] >= '0' && word[0] <= '9'; }

}  // namespace

std::string Program::variable(const std::string& wanted) {
  std::string base = identifier(wanted);
  if (begins_with_digit(base)) base = "t" + base;
  if (base.compare(0, 2, "__") == 0) base = "t" + base;
  std::string name = base;
  for (int i = 2; !variables_.insert(name).second; ++i) name = base + "_" + std::to_string(i);
  return name;
}

std::vector<std::string> Program::module_path(const std::string& layer) {
  std::vector<std::string> path;
  std::string piece;
  for (std::size_t i = 0; i <= layer.size(); ++i) {
    if (i < layer.size() && layer[i] != '.' && layer[i] != '/') {
      piece += layer[i];
      continue;
    }
    if (!piece.empty()) path.push_back(identifier(piece));
    piece.clear();
  }
  if (path.empty()) path = {"layer_"};
  const std::string last = path.back();
  for (int i = 2; modules.count(path) > 0; ++i) path.back() = last + "_" + std::to_string(i);
  return path;
}

std::string Program::reference(const std::vector<std::string>& path) {
  std::string out = "self";
  for (const std::string& piece : path)
    out = begins_with_digit(piece) ? "getattr(" + out + ", \"" + piece + "\")" : out + "." + piece;
  return out;
}

std::string literal(double value) {
  if (std::isnan(value)) return "float(\"nan\")";
  if (std::isinf(value)) return value > 0 ? "float(\"inf\")" : "-float(\"inf\")";
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  std::string out = text;
  if (out.find_first_of(".e") == std::string::npos) out += ".";
  return out;
}

std::string literal(const Ints& values) {
  std::string out = "[";
  for (const std::int64_t v : values) out += (out.size() > 1 ? ", " : "") + std::to_string(v);
  return out + "]";
}

}  // namespace quanvas::torchscript_file
