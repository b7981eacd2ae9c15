// Targets: files of weights, as models and as what an audit reads.
#include <cstdlib>

#include "core/plugin/registry.h"
#include "tests/fuzz/parts.h"

namespace quanvas::fuzz {
namespace {

const Exporter& exporter(const char* id) {
  const Exporter* found = Registry<Exporter>::instance().find(id);
  if (!found) std::abort();
  return *found;
}

json options_of(const char* id, json given) {
  const auto complete = exporter(id).schema().complete(given, id);
  if (!complete) std::abort();
  return *complete;
}

// The weights of the linear layer or of all layers, in channels.
QuantizedModel quantized(int bits, bool is_signed, bool linear_only) {
  QuantizedModel out{small_model(), {}, {}};
  const Graph& graph = *out.model->graph;
  for (const Layer& layer : find_layers(graph)) {
    if (layer.weight == kNoTensor || (linear_only && graph.find(layer.node)->op != "MatMul")) continue;
    QuantSpec spec;
    spec.bits = bits;
    spec.is_signed = is_signed;
    spec.granularity = Granularity::kChannel;
    if (!is_signed) {
      spec.zero_point = ZeroPointType::kInteger;
      spec.statistic = Statistic::kMinMax;
    }
    const TensorData& data = *out.model->weights->find(graph.tensor(layer.weight).name);
    auto params = quant::find_params(spec, data.shape, data.to_floats().data(), layer.channel_axis);
    if (!params) std::abort();
    out.quantizers[{layer.node, SiteKind::kWeight, 0}] = *params;
  }
  return out;
}

struct Seed {
  const char* target;
  json options;
  QuantizedModel model;
};
const std::vector<Seed>& seeds_of_safetensors() {
  static const std::vector<Seed> all = {
      {"safetensors", json::object(), quantized(5, false, false)},
      {"safetensors", {{"packing", "dense"}}, quantized(3, true, false)},
      {"compressed-tensors", {{"config", ""}, {"format", "pack-quantized"}}, quantized(4, false, true)},
      {"compressed-tensors", {{"config", ""}, {"format", "int-quantized"}}, quantized(8, false, true)}};
  return all;
}

Bytes written(const std::vector<Seed>& seeds, const char* name) {
  Bytes out;
  for (const Seed& s : seeds) {
    JobContext job;
    const std::string path = scratch_file(name, "");
    const json options = options_of(s.target, s.options);
    if (!exporter(s.target).check(s.model, options).empty() || !exporter(s.target).write(s.model, path, options, job))
      std::abort();
    out.push_back(contents(path));
  }
  return out;
}

void read_all(const std::vector<Seed>& seeds, const std::string& path) {
  JobContext job;
  (void)import_file(path, {}, job);
  for (const Seed& s : seeds) {
    const json options = options_of(s.target, s.options);
    (void)exporter(s.target).audit(s.model, path, options);
    (void)exporter(s.target).read(s.model, path, options, job);
  }
}

void read_safetensors(const std::string& bytes) {
  read_all(seeds_of_safetensors(), scratch_file("m.safetensors", bytes));
}
Bytes safetensors_seeds() {
  return written(seeds_of_safetensors(), "m.safetensors");
}

const std::vector<Seed>& seeds_of_npz() {
  static const std::vector<Seed> all = {{"npz", json::object(), quantized(8, true, false)}};
  return all;
}
void read_npz(const std::string& bytes) {
  read_all(seeds_of_npz(), scratch_file("m.npz", bytes));
}
Bytes npz_seeds() {
  return written(seeds_of_npz(), "m.npz");
}

const std::vector<Seed>& seeds_of_header() {
  static const std::vector<Seed> all = {{"c-header", json::object(), quantized(12, false, false)}};
  return all;
}
void read_header(const std::string& bytes) {
  const Seed& s = seeds_of_header().front();
  const std::string path = scratch_file("m.h", bytes);
  (void)exporter(s.target).audit(s.model, path, options_of(s.target, s.options));
}
Bytes header_seeds() {
  return written(seeds_of_header(), "m.h");
}

}  // namespace

std::vector<Target> weight_targets() {
  return {{"weights-safetensors", read_safetensors, safetensors_seeds},
          {"weights-npz", read_npz, npz_seeds},
          {"weights-header", read_header, header_seeds}};
}

}  // namespace quanvas::fuzz
