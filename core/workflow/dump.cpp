// Quanvas - verb "dump": what the screen's network computes, as raw files, so that any other program can be
// held against it: logits and predictions of the evaluation samples, and the integer codes of every activation
// quantizer on the first of them.
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/quant/dynamic.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

using Codes = std::map<Site, std::vector<std::int32_t>>;

struct Part {
  std::vector<float> logits;
  std::vector<std::int64_t> predictions;
  Codes codes;
};

void append_codes(std::vector<std::int32_t>& out, const at::Tensor& value, const quant::QuantParams& params) {
  const at::Tensor x = value.to(at::kCPU, at::kFloat).contiguous();
  if (quant::is_dynamic(params)) {
    std::vector<std::int32_t> codes(static_cast<std::size_t>(x.numel()));
    const Shape shape(x.sizes().begin(), x.sizes().end());
    if (quant::quantize_codes_samples(params, shape, x.data_ptr<float>(), codes.data()))
      out.insert(out.end(), codes.begin(), codes.end());
    return;
  }
  const auto layout = quant::rebatch(params, Shape(x.sizes().begin(), x.sizes().end()));
  if (!layout) return;
  const auto begin = out.size();
  out.resize(begin + static_cast<std::size_t>(x.numel()));
  quant::quantize_codes(params, *layout, x.data_ptr<float>(), out.data() + begin);
}

template <class T>
Status write_raw(const fs::path& path, const std::vector<T>& values) {
  return write_file_atomically(path, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

}  // namespace

Status WorkbenchState::dump_run(std::int64_t id, const DumpRequest& request, JobContext& job) {
  return guarded("dump", [&]() -> Status {
    QUANVAS_TRY(const Run run, project_->run(id));
    Quantized loaded;
    if (run.kind == RunKind::kFloat) {
      QUANVAS_TRY(loaded.prepared, prepare_whole(run.recipe, job));
      loaded.network.model = loaded.prepared->model;
    } else {
      QUANVAS_TRY(loaded, load_run(run, job));
    }
    const Data d = data();
    if (!d.evaluate)
      return no_data("There is no evaluation data", d.evaluate_error, "Declare a data set for evaluation.");
    std::error_code ec;
    fs::create_directories(request.folder, ec);
    if (ec) return fail(ErrorCode::kIo, "Cannot make the folder '" + request.folder + "': " + ec.message() + ".");
    const auto& quantizers = loaded.network.quantizers;
    QUANVAS_TRY(const auto runner, exec::Runner::create(loaded.network.model, &quantizers, options_.device));
    Part all;
    QUANVAS_CHECK(exec::for_each_chunk<Part>(
        *d.evaluate, choose_samples(d.evaluate->size(), request.samples, 0), options_.device, job, "dump",
        [&](exec::Chunk& chunk) -> Result<Part> {
          Part part;
          exec::RunHooks hooks;
          const bool wanted = chunk.index * exec::kChunkSize < request.code_samples;
          const std::int64_t rows = request.code_samples - chunk.index * exec::kChunkSize;
          if (wanted)
            hooks.quantize = [&](const Site& site, const at::Tensor& x) {
              const auto q = quantizers.find(site);
              if (q == quantizers.end()) return x;
              append_codes(part.codes[site], x.size(0) > rows ? x.narrow(0, 0, rows) : x, q->second);
              return exec::fake_quantize(x, q->second);
            };
          QUANVAS_TRY(const auto outputs, runner->run({chunk.input}, hooks));
          QUANVAS_TRY(const at::Tensor logits, output_rows(outputs.at(0), chunk.input.size(0)));
          part.logits.assign(logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel());
          QUANVAS_TRY(const at::Tensor scores, prediction_rows(outputs.at(0), chunk.input.size(0), *d.evaluate));
          const at::Tensor best = scores.argmax(1).contiguous();
          part.predictions.assign(best.data_ptr<std::int64_t>(), best.data_ptr<std::int64_t>() + best.numel());
          return part;
        },
        [&](std::int64_t, Part& part) -> Status {
          all.logits.insert(all.logits.end(), part.logits.begin(), part.logits.end());
          all.predictions.insert(all.predictions.end(), part.predictions.begin(), part.predictions.end());
          for (auto& [site, codes] : part.codes) {
            auto& to = all.codes[site];
            to.insert(to.end(), codes.begin(), codes.end());
          }
          return {};
        }));
    const fs::path folder = request.folder;
    QUANVAS_CHECK(write_raw(folder / "logits.f32", all.logits));
    std::string predictions;
    for (const auto p : all.predictions) predictions += std::to_string(p) + "\n";
    QUANVAS_CHECK(write_file_atomically(folder / "predictions.txt", predictions));
    json index = json::array();
    const Graph& graph = *loaded.network.model->graph;
    for (const auto& [site, codes] : all.codes) {
      const Layer* layer = find_layer(loaded.prepared->layers, site.node);
      const std::string file = "codes-" + std::to_string(index.size()) + ".i32";
      QUANVAS_CHECK(write_raw(folder / file, codes));
      index.push_back({{"layer", graph.find(site.node)->name},
                       {"site", enum_text(site.kind)},
                       {"operand", site.operand},
                       {"tensor", layer ? graph.tensor(site_tensor(*layer, site)).name : ""},
                       {"bits", code_bits(quantizers.at(site).spec)},
                       {"file", file}});
    }
    return write_file_atomically(folder / "codes.json", index.dump(1) + "\n");
  });
}

}  // namespace quanvas
