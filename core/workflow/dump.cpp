// Quanvas - verb "dump": evaluation samples as the network gets them and what the screen's network computes of them, as raw
// files, so that any other program, or a device, can be held against it: inputs, labels, logits, predictions, quantized
// weights, and the integer codes of every activation quantizer on the first of the samples. Files grow chunk by chunk, so that memory does
// not depend on the number of samples.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/exec/ops.h"
#include "core/quant/dynamic.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr const char* kIndex = "dump.json";

struct Part {
  at::Tensor input;  // of the type that the model declares, contiguous, on the CPU
  at::Tensor logits;
  Shape output;      // of one sample
  std::vector<std::int64_t> predictions, labels;
  std::map<Site, std::vector<std::int32_t>> codes;
};

// The files of a dump. They grow under other names beside their own and get those in finish(), the index last; until then
// those of an earlier dump stay, and without finish() nothing is left behind.
class DumpFiles {
 public:
  explicit DumpFiles(fs::path folder) : folder_(std::move(folder)) {}
  DumpFiles(const DumpFiles&) = delete;
  DumpFiles& operator=(const DumpFiles&) = delete;
  ~DumpFiles() {
    std::error_code ignored;
    for (const std::string& name : names_) fs::remove(growing(name), ignored);
  }
  Status append(const std::string& name, const void* bytes, std::size_t count) {
    const bool is_new = names_.insert(name).second;
    errno = 0;
    std::ofstream out(growing(name), std::ios::binary | (is_new ? std::ios::trunc : std::ios::app));
    out.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count));
    out.close();
    if (out) return {};
    return fail(ErrorCode::kIo, "Cannot write '" + (folder_ / name).string() + "': " + std::strerror(errno ? errno : ENOSPC) + ".",
                "Free some space, choose another folder or fewer samples.");
  }
  Status append(const std::string& name, const std::string& text) { return append(name, text.data(), text.size()); }
  Status finish(const std::string& index) {
    std::error_code ec;
    fs::remove(folder_ / kIndex, ec);
    while (!names_.empty()) {
      const std::string name = *names_.begin();
      fs::rename(growing(name), folder_ / name, ec);
      if (ec) return fail(ErrorCode::kIo, "Cannot write '" + (folder_ / name).string() + "': " + ec.message() + ".");
      names_.erase(names_.begin());
    }
    return write_file_atomically(folder_ / kIndex, index);
  }

 private:
  fs::path growing(const std::string& name) const { return folder_ / (name + ".part"); }
  fs::path folder_;
  std::set<std::string> names_;  // of those that still grow
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

std::string lines(const std::vector<std::int64_t>& values) {
  std::string text;
  for (const auto v : values) text += std::to_string(v) + "\n";
  return text;
}

Shape with_samples(std::int64_t samples, Shape shape) {
  shape.insert(shape.begin(), samples);
  return shape;
}

// Weights and biases as the network computes with them: on their quantizers' grids.
Status dump_constants(const QuantizedModel& network, const std::vector<Layer>& layers, DumpFiles& files) {
  const Graph& graph = *network.model->graph;
  json list = json::array();
  for (const auto& [site, params] : network.quantizers) {
    const Layer* layer = is_activation(site.kind) ? nullptr : find_layer(layers, site.node);
    if (!layer) continue;
    const std::string& name = graph.tensor(site_tensor(*layer, site)).name;
    const TensorData* data = network.model->weights->find(name);
    if (!data) continue;
    const at::Tensor values = exec::fake_quantize(exec::to_tensor(*data).to(at::kFloat), params).contiguous();
    const std::string file = "weights-" + std::to_string(list.size()) + ".f32";
    QUANVAS_CHECK(files.append(file, values.data_ptr(), values.nbytes()));
    list.push_back({{"layer", graph.find(site.node)->name},
                    {"site", enum_text(site.kind)},
                    {"operand", site.operand},
                    {"tensor", name},
                    {"shape", data->shape},
                    {"bits", code_bits(params.spec)},
                    {"file", file}});
  }
  return files.append("weights.json", list.dump(1) + "\n");
}

// What one sample of this tensor has; one number per value where its first dimension is not that of the samples.
Shape shape_of_one(const at::Tensor& t, std::int64_t samples) {
  if (t.dim() > 0 && t.size(0) == samples) return Shape(t.sizes().begin() + 1, t.sizes().end());
  return {t.numel() / samples};
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
    const Graph& graph = *loaded.network.model->graph;
    const TensorInfo& input = graph.tensor(graph.inputs().at(0));
    const at::ScalarType input_type = exec::scalar_type(input.type).value_or(at::kFloat);
    // Those of the evaluation, so that sums are formed alike.
    const std::int64_t chunk_size = chunk_size_for(loaded.prepared->runner->graph());
    DumpFiles files(request.folder);
    std::int64_t samples = 0, predictions = 0;
    Shape output;
    struct CodeFile {
      std::string name;
      std::int64_t values = 0;
    };
    std::map<Site, CodeFile> code_files;
    QUANVAS_CHECK(exec::for_each_chunk<Part>(
        *d.evaluate, choose_samples(d.evaluate->size(), request.samples, 0), options_.device, job, "dump",
        [&](exec::Chunk& chunk) -> Result<Part> {
          Part part;
          const std::int64_t n = chunk.input.size(0);
          exec::RunHooks hooks;
          const std::int64_t rows = request.code_samples - chunk.index * chunk_size;
          if (rows > 0)
            hooks.quantize = [&](const Site& site, const at::Tensor& x) {
              const auto q = quantizers.find(site);
              if (q == quantizers.end()) return x;
              append_codes(part.codes[site], x.size(0) > rows ? x.narrow(0, 0, rows) : x, q->second);
              return exec::fake_quantize(x, q->second);
            };
          QUANVAS_TRY(const auto outputs, runner->run({chunk.input}, hooks));
          QUANVAS_TRY(part.logits, output_rows(outputs.at(0), n));
          part.output = shape_of_one(outputs.at(0), n);
          QUANVAS_TRY(const at::Tensor scores, prediction_rows(outputs.at(0), n, *d.evaluate));
          const auto values_of = [](const at::Tensor& t) {
            const at::Tensor all = t.to(at::kCPU, at::kLong).contiguous();
            return std::vector<std::int64_t>(all.data_ptr<std::int64_t>(), all.data_ptr<std::int64_t>() + all.numel());
          };
          part.predictions = values_of(scores.argmax(1));
          if (chunk.labels.defined()) part.labels = values_of(chunk.labels);
          part.input = chunk.input.to(at::kCPU, input_type).contiguous();
          return part;
        },
        [&](std::int64_t, Part& part) -> Status {
          samples += part.input.size(0);
          predictions += static_cast<std::int64_t>(part.predictions.size());
          output = part.output;
          QUANVAS_CHECK(files.append("input-0.bin", part.input.data_ptr(), part.input.nbytes()));
          QUANVAS_CHECK(files.append("logits.f32", part.logits.data_ptr(), part.logits.nbytes()));
          QUANVAS_CHECK(files.append("predictions.txt", lines(part.predictions)));
          if (!part.labels.empty()) QUANVAS_CHECK(files.append("labels.txt", lines(part.labels)));
          for (const auto& [site, codes] : part.codes) {
            CodeFile& file = code_files[site];
            if (file.name.empty()) file.name = "codes-" + std::to_string(code_files.size() - 1) + ".i32";
            file.values += static_cast<std::int64_t>(codes.size());
            QUANVAS_CHECK(files.append(file.name, codes.data(), codes.size() * sizeof(std::int32_t)));
          }
          return {};
        },
        chunk_size));
    if (samples == 0) return fail(ErrorCode::kInvalidArgument, "The evaluation data set is empty.");
    const std::int64_t code_samples = code_files.empty() ? 0 : std::min<std::int64_t>(samples, request.code_samples);
    json codes = json::array();
    for (const auto& [site, file] : code_files) {
      const Layer* layer = find_layer(loaded.prepared->layers, site.node);
      codes.push_back({{"layer", graph.find(site.node)->name},
                       {"site", enum_text(site.kind)},
                       {"operand", site.operand},
                       {"tensor", layer ? graph.tensor(site_tensor(*layer, site)).name : ""},
                       {"bits", code_bits(quantizers.at(site).spec)},
                       {"values", file.values},
                       {"file", file.name}});
    }
    QUANVAS_CHECK(files.append("codes.json", codes.dump(1) + "\n"));
    QUANVAS_CHECK(dump_constants(loaded.network, loaded.prepared->layers, files));
    json index = {{"samples", samples},
                  {"inputs", json::array({{{"name", input.name},
                                           {"type", type_name(exec::scalar_type(input.type) ? input.type : DataType::kFloat)},
                                           {"shape", with_samples(samples, d.evaluate->sample_shape())},
                                           {"file", "input-0.bin"}}})},
                  {"outputs", json::array({{{"name", graph.tensor(graph.outputs().at(0)).name},
                                            {"type", "float32"},
                                            {"shape", with_samples(samples, output)},
                                            {"file", "logits.f32"}}})},
                  {"predictions", {{"count", predictions}, {"file", "predictions.txt"}}},
                  {"code_samples", code_samples},
                  {"codes", "codes.json"},
                  {"weights", "weights.json"}};
    if (d.evaluate->has_labels()) index["labels"] = {{"count", samples}, {"file", "labels.txt"}};
    return files.finish(index.dump(1) + "\n");
  });
}

}  // namespace quanvas
