// Targets: files of weights, as models and as what an audit reads, and the configuration beside them.
#include <cstdio>
#include <map>

#include "tests/fuzz/exported.h"

namespace quanvas::fuzz {
namespace {

constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

void read_all(const std::vector<Exported>& all, const std::string& path) {
  JobContext job;
  (void)import_file(path, {}, job);
  for (const Exported& e : all) {
    audit_file(e, path);
    read_file_again(e, path);
  }
}

QuantSpec half(QuantSpec s) {
  s.scale = ScaleType::kFloat16;
  return s;
}
QuantizedModel pictures() {
  return with_specs(picture_model(), {ints(8, true, kChannel), ints(8, false, kTensor), true});
}
ModelPtr linear() {
  static const ModelPtr model = linear_model(32, 8);
  return model;
}
// The first layer alone: its inputs are whole groups.
QuantizedModel one_layer(QuantizedModel model) {
  const NodeId fc = model.model->graph->find("/fc/Gemm")->id;
  std::erase_if(model.quantizers, [&](const auto& q) { return q.first.node != fc; });
  return model;
}
QuantizedModel static_inputs(const QuantSpec& weight, const QuantSpec& input) {
  Specs specs{weight, input};
  specs.biases = specs.limits = false;
  QuantizedModel out = with_specs(linear(), specs);
  std::erase_if(out.quantizers, [](const auto& q) { return q.first.kind == SiteKind::kOutput; });
  return one_layer(std::move(out));
}

// Plain numbers, with all that a network has, and narrow codes without gaps.
const std::vector<Exported>& plain_files() {
  static const std::vector<Exported> all = {
      {"safetensors", json::object(), pictures()},
      {"safetensors", {{"packing", "dense"}}, with_weights(picture_model(), ints(3, false, kChannel))}};
  return all;
}
void read_plain(const std::string& bytes) {
  read_all(plain_files(), scratch_file("m.safetensors", bytes));
}
Bytes plain_seeds() {
  return written(plain_files(), "m.safetensors");
}

const std::vector<Exported>& packed_files(const char* config) {
  const auto make = [&](const char* target, const QuantSpec& spec, json more = json::object()) {
    more["config"] = config;
    return Exported{target, std::move(more), one_layer(with_weights(linear(), spec))};
  };
  static std::map<std::string, std::vector<Exported>> all;
  std::vector<Exported>& out = all[config];
  if (!out.empty()) return out;
  out = {
      make("compressed-tensors", ints(4, false, kGroup)),
      make("compressed-tensors", ints(3, true, kChannel), {{"packing", "padded"}}),
      {"compressed-tensors", {{"config", config}}, static_inputs(ints(8, true, kChannel), ints(8, false, kTensor))},
      make("compressed-tensors", minifloat(4, 3, FloatSpecials::kNan, kChannel)),
      make("compressed-tensors", preset("mxfp4-weight")),
      make("compressed-tensors", preset("mxfp8-e4m3-weight")),
      make("compressed-tensors", preset("nvfp4-weight"), {{"scales", "round"}}),
      make("gptq", half(ints(4, true, kGroup))),
      make("gptq", half(ints(8, true, kChannel)), {{"checkpoint_format", "gptq_v2"}}),
      make("awq", half(ints(4, false, kGroup)))};
  return out;
}
// The description in the file says what the tensors are: one audit of each method.
void read_packed(const std::string& bytes) {
  static const std::vector<Exported> methods = {packed_files("")[2], packed_files("")[7], packed_files("")[9]};
  read_all(methods, scratch_file("m.safetensors", bytes));
}
Bytes packed_seeds() {
  return written(packed_files(""), "m.safetensors");
}

// config.json beside files that are right, each in a folder of its own; and as the configuration of the float
// model.
struct Configured {
  Exported file;
  std::string folder;
};
const std::vector<Configured>& configured() {
  static const std::vector<Configured> all = [] {
    std::vector<Configured> out;
    for (const std::size_t i : {0, 2, 7, 9}) {  // groups, inputs, GPTQ, AWQ
      out.push_back({packed_files("config.json")[i], "packed" + std::to_string(i)});
      write(out.back().file, scratch_path(out.back().folder + "/m.safetensors"));
    }
    return out;
  }();
  return all;
}
void read_config(const std::string& bytes) {
  for (const auto& [file, folder] : configured()) {
    (void)scratch_file(folder + "/config.json", bytes);
    const std::string path = scratch_path(folder + "/m.safetensors");
    audit_file(file, path);
  }
  // What stands there already is kept but for what the target says.
  Exported e = configured().back().file;
  e.options["base_config"] = scratch_file("kept/config.json", bytes);
  JobContext job;
  if (exporter(e.target).check(e.model, options_of(e)).empty())
    (void)exporter(e.target).write(e.model, scratch_path("kept/m.safetensors"), options_of(e), job);
}
Bytes config_seeds() {
  Bytes out;
  for (const Exported& e : packed_files("config.json")) {
    std::remove(scratch_path("seed/config.json").c_str());
    write(e, scratch_path("seed/m.safetensors"));
    out.push_back(contents(scratch_path("seed/config.json")));
  }
  return out;
}

const std::vector<Exported>& npz_files() {
  static const std::vector<Exported> all = {{"npz", json::object(), pictures()}};
  return all;
}
void read_npz(const std::string& bytes) {
  read_all(npz_files(), scratch_file("m.npz", bytes));
}
Bytes npz_seeds() {
  return written(npz_files(), "m.npz");
}

// Activations, multipliers, codes of 12 bits.
const std::vector<Exported>& header_files() {
  static const std::vector<Exported> all = {
      {"c-header", json::object(), pictures()},
      {"c-header", {{"packing", "dense"}}, with_weights(picture_model(), ints(12, false, kChannel))}};
  return all;
}
void read_header(const std::string& bytes) {
  const std::string path = scratch_file("m.h", bytes);
  for (const Exported& e : header_files()) {
    audit_file(e, path);
    read_file_again(e, path);
  }
}
Bytes header_seeds() {
  return written(header_files(), "m.h");
}

}  // namespace

std::vector<Target> weight_targets() {
  return {{"weights-safetensors", read_plain, plain_seeds},
          {"weights-packed", read_packed, packed_seeds},
          {"weights-config", read_config, config_seeds},
          {"weights-npz", read_npz, npz_seeds},
          {"weights-header", read_header, header_seeds}};
}

}  // namespace quanvas::fuzz
