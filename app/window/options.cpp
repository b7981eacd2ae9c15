#include "app/window/options.h"

#include <charconv>
#include <cmath>
#include <functional>

namespace quanvas {
namespace {

using Take = std::function<Status(WindowOptions&, const std::string&)>;

Failure wrong(const char* option, const std::string& value, const std::string& expected) {
  return fail(ErrorCode::kInvalidArgument, std::string("Option ") + option + " is '" + value + "'.", "Give " + expected + ".");
}

bool parse_int(const std::string& text, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

Status take_size(WindowOptions& o, const std::string& v) {
  const auto x = v.find('x');
  if (x == std::string::npos || !parse_int(v.substr(0, x), o.width) || !parse_int(v.substr(x + 1), o.height) || o.width < 200 ||
      o.height < 150 || o.width > 20000 || o.height > 20000)
    return wrong("--size", v, "width and height in pixels, for example 1400x900");
  return {};
}

Status take_scale(WindowOptions& o, const std::string& v) {
  char* end = nullptr;
  o.scale = std::strtod(v.c_str(), &end);
  if (end == v.c_str() || *end || !(o.scale >= 0.5 && o.scale <= 4)) return wrong("--scale", v, "a number from 0.5 to 4");
  return {};
}

Status take_theme(WindowOptions& o, const std::string& v) {
  if (v != "light" && v != "dark" && v != "system") return wrong("--theme", v, "one of light, dark, system");
  o.theme = v;
  return {};
}

Status take_after(WindowOptions& o, const std::string& v) {
  if (!parse_int(v, o.after_ms) || o.after_ms < 0 || o.after_ms > 600000) return wrong("--after-ms", v, "milliseconds from 0 to 600000");
  return {};
}

struct Row {
  const char* option;
  const char* value;
  const char* doc;
  Take take;
};
const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {"--engine", "unix:PATH", "Use the engine that listens on this socket instead of starting one.",
       [](WindowOptions& o, const std::string& v) -> Status {
         if (v.rfind("unix:", 0) != 0 || v.size() < 6) return wrong("--engine", v, "unix: and the path of the engine's socket");
         o.engine = v;
         return {};
       }},
      {"--theme", "NAME", "light, dark or system.", take_theme},
      {"--screenshot", "FILE", "Draw the window off screen once the file is open, write a PNG and quit.",
       [](WindowOptions& o, const std::string& v) -> Status { return o.screenshot = v, Status{}; }},
      {"--size", "WxH", "Size of the window in pixels.", take_size},
      {"--scale", "S", "Device pixels per pixel.", take_scale},
      {"--select", "LAYER", "Select the layer of this name.", [](WindowOptions& o, const std::string& v) -> Status { return o.select = v, Status{}; }},
      {"--target", "ID", "Look through this export target: which layers it can hold.",
       [](WindowOptions& o, const std::string& v) -> Status { return o.target = v, Status{}; }},
      {"--show", "ID", "Bring a panel to the front (recipe, runs ...) or trigger an action (action:sweep), on the newest run; of a dialog that it opens the picture is taken.",
       [](WindowOptions& o, const std::string& v) -> Status { return o.show = v, Status{}; }},
      {"--after-ms", "N", "Wait so long before the picture is drawn.", take_after},
  };
  return table;
}

}  // namespace

Result<WindowOptions> parse_window_options(const std::vector<std::string>& arguments) {
  WindowOptions out;
  bool only_files = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    if (only_files || name.empty() || name[0] != '-') {
      if (!out.file.empty()) return fail(ErrorCode::kInvalidArgument, "Two files are given: '" + out.file + "' and '" + name + "'.", "Give one.");
      out.file = name;
      continue;
    }
    if (name == "--") {
      only_files = true;
      continue;
    }
    if (name == "--help" || name == "-h") out.help = true;
    if (name == "--version") out.version = true;
    if (name == "--help" || name == "-h" || name == "--version") continue;
    std::string value;
    bool has_value = false;
    if (const auto eq = name.find('='); eq != std::string::npos) {
      value = name.substr(eq + 1);
      name = name.substr(0, eq);
      has_value = true;
    }
    const Row* row = nullptr;
    for (const auto& r : rows())
      if (name == r.option) row = &r;
    if (!row) return fail(ErrorCode::kInvalidArgument, "Unknown option '" + name + "'.", "quanvas --help lists them.");
    if (!has_value && i + 1 == arguments.size()) return fail(ErrorCode::kInvalidArgument, "Option " + name + " needs a value.", std::string("Give ") + row->value + ".");
    if (!has_value) value = arguments[++i];
    QUANVAS_CHECK(row->take(out, value));
  }
  if (!out.screenshot.empty() && out.file.empty() && !out.select.empty())
    return fail(ErrorCode::kInvalidArgument, "Option --select needs a file.", "Name the project or model to open.");
  return out;
}

std::string window_help() {
  std::string out = "Usage: quanvas [options] [project or model]\n\nWorkbench for neural-network quantization.\n\nOptions:\n";
  const auto line = [&](std::string left, const std::string& doc) {
    left.resize(std::max<std::size_t>(left.size() + 2, 26), ' ');
    out += "  " + left + doc + "\n";
  };
  for (const auto& r : rows()) line(std::string(r.option) + " " + r.value, r.doc);
  line("--version", "Print the version and quit.");
  line("-h, --help", "Print this text and quit.");
  return out;
}

}  // namespace quanvas
