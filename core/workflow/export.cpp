// Quanvas - verb "export": check, write, read again, prove. Nothing is written while anything is refused.
#include <cmath>
#include <filesystem>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kProofSamples = 256;

struct Proof {
  double samples = 0, predictions = 0, equal = 0, difference = 0;
};

Refusal not_calibrated() {
  return {"", "", "calibration", "activations without statistics", "calibrated activations", "Calibrate first."};
}

// Whether more than the graph passes changes the float network.
Result<bool> changes_weights(const Recipe& recipe) {
  for (const auto& entry : recipe.passes) {
    if (!entry.enabled) continue;
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry.id, "pass"));
    if (pass->stage() != PassStage::kGraph) return true;
  }
  return false;
}

// Largest |x - y|; values that are equal do not differ, infinite ones neither. NaN when a difference is.
double largest_difference(const at::Tensor& x, const at::Tensor& y) {
  return at::where(x.eq(y), at::zeros({}, x.options()), (x - y).abs()).max().item<double>();
}

// Dynamic ones and those of the model's file need no calibration.
bool needs_calibration(const Plan& plan, const Prepared& prepared) {
  for (const auto& s : plan.sites)
    if (s.spec && s.spec->source != ScaleSource::kDynamic && is_activation(s.site.kind) &&
        !has_params_of_file(prepared, s))
      return true;
  return false;
}

}  // namespace

Status WorkbenchState::check_output(const fs::path& path, bool overwrite) const {
  std::error_code ec;
  const std::string shown = path.string();
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "No file to write was given.");
  if (fs::is_directory(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is a folder.", "Give the name of a file.");
  const fs::path folder = path.parent_path().empty() ? fs::path(".") : path.parent_path();
  if (!fs::is_directory(folder, ec))
    return fail(ErrorCode::kNotFound, "There is no folder '" + folder.string() + "'.", "Make it first.");
  // Without them nothing could be opened, run or exported again.
  for (const auto& own : {project_->model_path(), project_->path()})
    if (fs::equivalent(path, own, ec))
      return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is what this project is made of and is not replaced.",
                  "Choose another name.");
  if (!overwrite && fs::exists(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' exists already.", "Choose another name or allow overwriting.");
  return {};
}

Result<std::vector<Refusal>> WorkbenchState::check_export(const Recipe& recipe, const std::string& target,
                                                          const json& given) {
  return guarded("export check", [&]() -> Result<std::vector<Refusal>> {
    QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get(target, "export target"));
    QUANVAS_TRY(const json options, exporter->schema().complete(given, "export target '" + target + "'"));
    JobContext quiet;
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    const auto statistics = known_statistics(*prepared, recipe.calibration);
    QuantizedModel network;
    network.model = prepared->model;
    network.plan = *plan;
    QUANVAS_TRY(network.quantizers, quantizers(*prepared, *plan, statistics.get(), quiet));
    std::vector<Refusal> refusals;
    if (exporter->needs_quantizers() && !statistics && needs_calibration(*plan, *prepared)) refusals.push_back(not_calibrated());
    for (auto& r : exporter->check(network, options)) refusals.push_back(std::move(r));
    return refusals;
  });
}

Result<ExportReport> WorkbenchState::export_model(const ExportRequest& request, JobContext& job) {
  return guarded("export", [&]() -> Result<ExportReport> {
    QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get(request.target, "export target"));
    QUANVAS_TRY(const json options, exporter->schema().complete(request.options, "export target '" + request.target + "'"));
    QUANVAS_CHECK(check_output(request.path, request.overwrite));
    Quantized quantized;
    if (request.run) {
      QUANVAS_TRY(const Run run, project_->run(request.run));
      if (run.kind == RunKind::kFloat) {
        QUANVAS_TRY(quantized.prepared, prepare_whole(run.recipe, job));
        quantized.network.model = quantized.prepared->model;
      } else {
        QUANVAS_TRY(quantized, load_run(run, job));
      }
    } else {
      job.set_range(0, 0.6);
      QUANVAS_TRY(const Recipe recipe, project_->recipe());
      QUANVAS_TRY(const bool compute, changes_weights(recipe));
      if (compute || exporter->needs_quantizers()) {
        auto made = quantize(recipe, job);
        if (made) drop_parts(job);
        else keep_parts(job);
        QUANVAS_TRY(quantized, std::move(made));
      } else {
        QUANVAS_TRY(quantized.prepared, prepare_whole(recipe, job));
        quantized.network.model = quantized.prepared->model;
      }
    }
    const QuantizedModel& network = quantized.network;
    ExportReport report;
    report.target = request.target;
    report.path = request.path;
    report.refusals = exporter->check(network, options);
    if (!report.refusals.empty()) return report;
    job.set_range(0.6, 1);
    job.progress("write", 0.1, request.path);
    QUANVAS_CHECK(job.check());
    QUANVAS_CHECK(exporter->write(network, request.path, options, job));
    std::error_code ec;
    report.file_bytes = static_cast<double>(fs::file_size(request.path, ec));
    job.progress("audit", 0.3, request.path);
    QUANVAS_TRY(report.audit, exporter->audit(network, request.path, options));

    // Proof: the file, read by the importer and run as it stands, against the network that it was to hold.
    const Data d = data();
    const DatasetPtr source = d.evaluate ? d.evaluate : d.calibrate;
    if (!source) {
      report.notes.push_back("Not run against the screen's network: no data is declared.");
      return report;
    }
    if (fs::path(request.path).extension() != ".onnx") {
      report.notes.push_back("Not run against the screen's network: this file type cannot be opened again yet.");
      return report;
    }
    QUANVAS_TRY(Model written, import_model(request.path, job));
    const exec::QuantizerMap* quantizers = exporter->needs_quantizers() ? &network.quantizers : nullptr;
    QUANVAS_TRY(const auto screen, exec::Runner::create(network.model, quantizers, options_.device));
    QUANVAS_TRY(const auto file, exec::Runner::create(std::make_shared<const Model>(std::move(written)), nullptr, options_.device));
    Proof total;
    QUANVAS_CHECK(exec::for_each_chunk<Proof>(
        *source, choose_samples(source->size(), kProofSamples, 0), options_.device, job, "compare",
        [&](exec::Chunk& chunk) -> Result<Proof> {
          QUANVAS_TRY(const auto a, screen->run({chunk.input}));
          QUANVAS_TRY(const auto b, file->run({chunk.input}));
          Proof p;
          QUANVAS_TRY(const at::Tensor x, prediction_rows(a.at(0), chunk.input.size(0), *source));
          QUANVAS_TRY(const at::Tensor y, prediction_rows(b.at(0), chunk.input.size(0), *source));
          if (x.sizes() != y.sizes())
            return fail(ErrorCode::kInternal, "The exported file gives an output of another shape.", "Report this file.");
          p.samples = static_cast<double>(chunk.input.size(0));
          p.predictions = static_cast<double>(x.size(0));
          p.equal = x.argmax(1).eq(y.argmax(1)).sum().item<double>();
          p.difference = largest_difference(x, y);
          return p;
        },
        [&](std::int64_t, Proof& p) -> Status {
          total.samples += p.samples;
          total.predictions += p.predictions;
          total.equal += p.equal;
          if (std::isnan(p.difference) || p.difference > total.difference) total.difference = p.difference;
          return {};
        },
        chunk_size_for(*network.model->graph)));
    report.checked_samples = total.samples;
    report.equal_predictions = total.predictions > 0 ? total.equal / total.predictions : 0;
    report.max_output_difference = total.difference;
    return report;
  });
}

}  // namespace quanvas
