#include "core/recipe/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <stdexcept>

#include "core/base/utf8.h"

namespace quanvas {
namespace {

constexpr std::size_t kMaxBytes = 16 << 20;
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxNodes = 400000;

struct ParseTrouble : std::runtime_error {
  ParseTrouble(int line_, const std::string& what) : std::runtime_error(what), line(line_) {}
  int line;
};

// Converts the tree to JSON and remembers on which line each key stands.
struct Converter {
  std::map<std::string, int> lines;
  std::size_t nodes = 0;

  json convert(const YAML::Node& node, const std::string& path, int depth) {
    const int line = node.Mark().line + 1;
    lines.emplace(path, line);
    if (depth > kMaxDepth) throw ParseTrouble(line, "the nesting is deeper than " + std::to_string(kMaxDepth) + ".");
    if (++nodes > kMaxNodes) throw ParseTrouble(line, "there are more than 400,000 values; check its aliases.");
    if (node.IsScalar()) return node.Tag() == "!" ? json(node.Scalar()) : yaml_scalar(node.Scalar());
    if (node.IsSequence()) return sequence(node, path, depth);
    if (node.IsMap()) return map(node, path, depth);
    return nullptr;
  }

  json sequence(const YAML::Node& node, const std::string& path, int depth) {
    json out = json::array();
    for (const auto& item : node) out.push_back(convert(item, path + "[" + std::to_string(out.size()) + "]", depth + 1));
    return out;
  }

  json map(const YAML::Node& node, const std::string& path, int depth) {
    json out = json::object();
    for (const auto& item : node) {
      const int line = item.first.Mark().line + 1;
      if (!item.first.IsScalar()) throw ParseTrouble(line, "a key is a list or a map; keys are names.");
      const std::string key = item.first.Scalar();
      const std::string below = path.empty() ? key : path + "." + key;
      if (out.contains(key)) throw ParseTrouble(line, "the key '" + below + "' stands here a second time.");
      lines.emplace(below, line);
      out[key] = convert(item.second, below, depth + 1);
    }
    return out;
  }
};

// Looks at the documents one by one and keeps nothing: the library's own way to read all of them takes some damaged
// texts for documents without end.
struct FirstDocuments : YAML::EventHandler {
  int second_line = 0;  // 0: there is none
  int seen = 0;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++seen == 2) second_line = mark.line + 1;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

json load_document(const std::string& text, const std::string& what, Converter& converter) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  FirstDocuments documents;
  for (int i = 0; i < 2 && parser.HandleNextDocument(documents); ++i) {
  }
  if (documents.second_line > 0)
    throw ParseTrouble(documents.second_line, "a second document begins here; a " + what + " file has one.");
  const YAML::Node document = documents.seen > 0 ? YAML::Load(text) : YAML::Node();
  if (document.IsNull()) throw ParseTrouble(0, "the " + what + " is empty.");
  return converter.convert(document, "", 0);
}

std::string quoted_path(const std::string& message) {
  const auto begin = message.find('\'');
  const auto end = begin == std::string::npos ? begin : message.find('\'', begin + 1);
  return end == std::string::npos ? std::string() : message.substr(begin + 1, end - begin - 1);
}

// Of a key, or of the nearest one above it.
int line_of(const std::map<std::string, int>& lines, std::string path) {
  while (true) {
    if (const auto it = lines.find(path); it != lines.end()) return it->second;
    const auto cut = path.find_last_of(".[");
    if (cut == std::string::npos) return 1;
    path.resize(cut);
  }
}

}  // namespace

json yaml_scalar(const std::string& s) {
  if (s.empty() || s == "~" || s == "null" || s == "Null" || s == "NULL") return nullptr;
  if (s == "true" || s == "True" || s == "TRUE") return true;
  if (s == "false" || s == "False" || s == "FALSE") return false;
  if (s == ".inf" || s == "+.inf") return "inf";
  if (s == "-.inf") return "-inf";
  if (s == ".nan") return "nan";
  const char* begin = s.data() + (s[0] == '+' ? 1 : 0);
  const char* end = s.data() + s.size();
  std::int64_t whole = 0;
  if (const auto r = std::from_chars(begin, end, whole); r.ec == std::errc() && r.ptr == end) return whole;
  double value = 0;
  const bool numeric = begin != end && s.find_first_not_of("+-.0123456789eE") == std::string::npos;
  if (const auto r = std::from_chars(begin, end, value); numeric && r.ec == std::errc() && r.ptr == end) return value;
  return s;
}

Failure YamlText::failure_at(int line, ErrorCode code, const std::string& message, std::string hint) const {
  return fail(code, file_name + ":" + (line > 0 ? std::to_string(line) + ":" : "") + " " + message, std::move(hint));
}

Failure YamlText::failure(const Error& error) const {
  return failure_at(line_of(lines, quoted_path(error.message)), error.code, error.message, error.hint);
}

Result<YamlText> parse_yaml(const std::string& text, const std::string& file_name, const std::string& what) {
  YamlText out{file_name, {}, {}};
  if (text.size() > kMaxBytes)
    return out.failure_at(0, ErrorCode::kInvalidArgument,
                          "the file has " + std::to_string(text.size()) + " bytes; a " + what + " has at most 16 MiB.");
  if (text.find('\0') != std::string::npos)
    return out.failure_at(0, ErrorCode::kCorrupt, "the file holds binary data; a " + what + " is YAML or JSON text.");
  // The library lets other bytes pass, and what is written as JSON later must be UTF-8.
  if (const std::size_t bad = find_bad_utf8(text); bad < text.size())
    return out.failure_at(1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n')),
                          ErrorCode::kCorrupt, "this is no text in UTF-8.", "Convert it, for example with iconv.");
  Converter converter;
  try {
    out.value = load_document(text, what, converter);
  } catch (const ParseTrouble& e) {
    return out.failure_at(e.line, ErrorCode::kInvalidArgument, e.what());
  } catch (const YAML::Exception& e) {
    return out.failure_at(e.mark.line + 1, ErrorCode::kCorrupt, "this is neither YAML nor JSON: " + e.msg + ".");
  }
  out.lines = std::move(converter.lines);
  return out;
}

}  // namespace quanvas
