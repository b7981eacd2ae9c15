#include "plugins/exporters/hf_file.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "core/base/files.h"

namespace quanvas::weight_file {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMostConfig = 64 << 20;

Result<json> read_config(const std::string& path) {
  QUANVAS_TRY(const std::string text, read_file(path, kMostConfig));
  QUANVAS_TRY(json j, parse_json(text, "'" + path + "'"));
  if (!j.is_object()) return fail(ErrorCode::kCorrupt, "'" + path + "' is no map of settings.", "Choose another 'config'.");
  return j;
}

std::string transposed_bytes(const TensorData& data) {
  const auto rows = static_cast<std::size_t>(data.shape[0]), columns = static_cast<std::size_t>(data.shape[1]);
  std::string out(data.bytes, '\0');
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      std::memcpy(out.data() + (c * rows + r) * sizeof(float), data.data + (r * columns + c) * sizeof(float),
                  sizeof(float));
  return out;
}

}  // namespace

std::vector<Field> config_fields() {
  return {
      text_field(
          "config", "Configuration",
          "Name of the configuration beside the file; empty: none. One that is there keeps all but quantization_config.",
          "config.json"),
      text_field("base_config", "Configuration of the float model",
                 "Path of a config.json whose other settings are taken over; empty: none.", ""),
      graph_field()};
}

std::string config_path(const std::string& path, const json& options) {
  const std::string name = options.value("config", std::string("config.json"));
  return name.empty() ? name : (fs::path(path).parent_path() / name).string();
}

std::vector<std::string> files_with_config(const std::string& path, const json& options) {
  const std::string config = config_path(path, options);
  return config.empty() ? std::vector<std::string>{path} : std::vector<std::string>{path, config};
}

std::vector<Refusal> check_config(const json& options) {
  std::vector<Refusal> out;
  const std::string name = options.value("config", std::string()), base = options.value("base_config", std::string());
  if (name.find('/') != std::string::npos || name == "." || name == "..")
    out.push_back({{},
                   {},
                   "configuration",
                   "'" + name + "'",
                   "the name of a file beside the weights",
                   "Leave out the folder.",
                   {},
                   {},
                   false});
  if (base.empty()) return out;
  if (const auto config = read_config(base); !config)
    out.push_back({{},
                   {},
                   "configuration",
                   config.error().message,
                   "a config.json",
                   "Give another base_config, or none.",
                   {},
                   {},
                   false});
  return out;
}

described::Weight& HfFile::describe(const LinearLayer& l, const std::string& form) {
  described::Weight w;
  w.initializer = l.weight;
  w.tensor = l.module;
  w.form = form;
  w.transposed = l.transposed;
  w.shape = l.transposed ? Shape{l.in, l.out} : Shape{l.out, l.in};
  w.bits = code_bits(l.quantizer->spec);
  w.spec = stored_spec(*l.quantizer, SiteKind::kWeight);
  network.weights.push_back(std::move(w));
  return network.weights.back();
}

Status HfFile::add_plain() {
  const Graph& graph = *model.model->graph;
  for (const TensorId id : contents.plain) {
    const TensorData& data = *model.model->weights->find(graph.tensor(id).name);
    described::Weight w;
    w.initializer = graph.tensor(id).name;
    w.tensor = plain_name(model, layers, id, w.transposed);
    for (int n = 2; writer.has(w.tensor); ++n) w.tensor = graph.tensor(id).name + "_" + std::to_string(n);
    w.shape = data.shape;
    w.type = static_cast<int>(data.type);
    const std::string bytes(reinterpret_cast<const char*>(data.data), data.bytes);
    if (w.transposed) {
      QUANVAS_CHECK(writer.add(w.tensor, data.type, {data.shape[1], data.shape[0]}, transposed_bytes(data)));
    } else if (Status added = writer.add(w.tensor, data.type, data.shape, bytes); !added) {
      // A type without a name there: its bytes.
      QUANVAS_CHECK(writer.add(w.tensor, DataType::kUint8, {static_cast<std::int64_t>(data.bytes)}, bytes));
    }
    network.weights.push_back(std::move(w));
  }
  return {};
}

Status HfFile::finish(const std::string& path, const json& options, const json& quantization_config, JobContext& job) {
  QUANVAS_CHECK(add_plain());
  std::map<NodeId, std::string> modules;
  for (const LinearLayer& l : layers) modules[l.node->id] = l.module;
  describe_sites(model, contents, network, [&](const Coded& c, const PlacedQuantizer& q) {
    const auto m = modules.find(q.node->id);
    return m == modules.end() ? c.name : m->second;
  });
  for (auto& [key, text] : description_texts(model, network, options.value("graph", true)))
    writer.metadata(key, std::move(text));
  QUANVAS_CHECK(job.check());
  const std::string config = config_path(path, options);
  if (config.empty()) return writer.save(path);

  json settings = json::object();
  std::optional<std::string> before;
  std::error_code ec;
  if (fs::exists(config, ec)) {
    QUANVAS_TRY(before, read_file(config, kMostConfig));
  }
  const std::string base = options.value("base_config", std::string());
  if (!base.empty()) {
    QUANVAS_TRY(settings, read_config(base));
  } else if (before) {
    QUANVAS_TRY(settings, read_config(config));
  }
  settings["quantization_config"] = quantization_config;
  QUANVAS_CHECK(write_file_atomically(config, settings.dump(2, ' ', false, json::error_handler_t::replace) + "\n"));
  Status saved = writer.save(path);
  if (!saved) {
    if (before)
      (void)write_file_atomically(config, *before);
    else
      fs::remove(config, ec);
  }
  return saved;
}

WordPacker::WordPacker(std::int64_t rows, std::int64_t n, int bits, bool padded)
    : rows_(rows), bits_(bits), padded_(padded) {
  const std::int64_t each = 32 / bits;
  words_ = padded ? (n + each - 1) / each : (n * bits + 31) / 32;
  data_.assign(static_cast<std::size_t>(rows * words_), 0);
}

void WordPacker::put(std::int64_t row, std::int64_t i, std::uint32_t code) {
  const std::int64_t each = 32 / bits_;
  const std::int64_t bit = padded_ ? i / each * 32 + i % each * bits_ : i * bits_;
  const std::uint64_t shifted = static_cast<std::uint64_t>(code & (0xffffffffu >> (32 - bits_))) << (bit % 32);
  const auto at = static_cast<std::size_t>(row * words_ + bit / 32);
  data_[at] |= static_cast<std::uint32_t>(shifted);
  if (shifted >> 32) data_[at + 1] |= static_cast<std::uint32_t>(shifted >> 32);
}

std::vector<std::uint32_t> WordPacker::columns() const {
  std::vector<std::uint32_t> out(data_.size());
  for (std::int64_t r = 0; r < rows_; ++r)
    for (std::int64_t w = 0; w < words_; ++w)
      out[static_cast<std::size_t>(w * rows_ + r)] = data_[static_cast<std::size_t>(r * words_ + w)];
  return out;
}

}  // namespace quanvas::weight_file
