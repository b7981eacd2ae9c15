// Opening a project or a model as the command line says.
#include <charconv>

#include "app/cli/verbs.h"

namespace quanvas::cli {
namespace {

Failure bad_shape(const std::string& given, const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "--shape " + given + ": " + what + ".",
              "Give an input and its dimensions, ? for one that stays open: --shape image=1,3,224,224.");
}

// "224": a dimension; "?" or "-1": open.
Result<std::int64_t> dimension(const std::string& text, const std::string& given) {
  if (text == "?") return -1;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < -1)
    return bad_shape(given, "'" + text + "' is not a dimension");
  return value;
}

// Dimensions with commas or x between them; nothing: a scalar.
Result<Shape> dimensions(const std::string& text, const std::string& given) {
  Shape out;
  for (std::size_t at = 0; !text.empty() && at <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(",x", at), text.size());
    QUANVAS_TRY(const std::int64_t d, dimension(text.substr(at, end - at), given));
    out.push_back(d);
    at = end + 1;
  }
  return out;
}

Result<ImportOptions> import_options(const Options& options) {
  ImportOptions out;
  if (options.trust) out.trusted = kTrustAny;
  if (options.quantizers == "rules") out.quantizers = FileQuantizers::kRules;
  if (options.quantizers == "nodes") out.quantizers = FileQuantizers::kNodes;
  for (const std::string& given : options.shapes) {
    // The last one: names may contain any character.
    const std::size_t equals = given.rfind('=');
    if (equals == std::string::npos || equals == 0) return bad_shape(given, "it names no input");
    QUANVAS_TRY(out.shapes[given.substr(0, equals)], dimensions(given.substr(equals + 1), given));
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Workbench>> open_bench(const Options& options, JobContext& job) {
  QUANVAS_TRY(const ImportOptions import, import_options(options));
  return Workbench::open(options.path, {options.device, options.threads}, job, options.project, import);
}

}  // namespace quanvas::cli
