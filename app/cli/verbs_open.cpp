// Opening a project or a model as the command line says.
#include "app/cli/verbs.h"
#include "core/report/shape_entry.h"

namespace quanvas::cli {
namespace {

Result<ImportOptions> import_options(const Options& options) {
  ImportOptions out;
  if (options.trust) out.trusted = kTrustAny;
  if (options.quantizers == "rules") out.quantizers = FileQuantizers::kRules;
  if (options.quantizers == "nodes") out.quantizers = FileQuantizers::kNodes;
  for (const std::string& given : options.shapes) {
    // The last one: names may contain any character.
    const std::size_t equals = given.rfind('=');
    auto shape = equals == std::string::npos || equals == 0 ? Result<Shape>(fail(ErrorCode::kInvalidArgument, "it names no input"))
                                                            : parse_shape(given.substr(equals + 1));
    if (!shape)
      return fail(ErrorCode::kInvalidArgument, "--shape " + given + ": " + shape.error().message + ".",
                  "Give an input and its dimensions, ? for one that stays open: --shape image=1,3,224,224. Of an input that is one integer give its "
                  "value: --shape rate=16000.");
    out.shapes[given.substr(0, equals)] = std::move(*shape);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Workbench>> open_bench(const Options& options, JobContext& job) {
  QUANVAS_TRY(const ImportOptions import, import_options(options));
  return Workbench::open(options.path, {options.device, options.threads}, job, options.project, import);
}

}  // namespace quanvas::cli
