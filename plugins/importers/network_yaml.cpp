// Networks as text, "*.net.yaml": the starting point of float training, with freshly initialised weights.
//
//   name: lenet5
//   input: [1, 28, 28]                # channels, height, width of one sample
//   seed: 1                           # of the initialisation
//   layers:
//     - {op: conv, name: conv1, out: 6, kernel: 5, pad: 2}
//     - {op: relu, name: relu1}
//     - {op: add, name: sum, with: conv1}
//
// Every layer reads the one before it, or the one that `from` names. The whole format: docs/network-yaml.md.
#include <yaml-cpp/yaml.h>

#include <cmath>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

constexpr std::uint64_t kMostBytes = 1 << 20;
constexpr std::int64_t kMostParameters = std::int64_t{1} << 27;
constexpr std::int64_t kMostActivations = std::int64_t{1} << 31;

struct Range {
  std::int64_t low, high;
};
constexpr Range kSize = {1, 1 << 16};

// Uniform in [0, 1) from the upper 53 bits: std::uniform_real_distribution differs between libraries.
double uniform(std::mt19937_64& generator) {
  return std::ldexp(static_cast<double>(generator() >> 11), -53);
}

class Reader {
 public:
  explicit Reader(std::string path)
      : path_(std::move(path)), shown_(std::filesystem::path(path_).filename().string()) {}

  Result<Model> read(const std::string& text) {
    if (const std::size_t bad = find_bad_utf8(text); bad < text.size()) {
      const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n');
      return fail(ErrorCode::kInvalidArgument, shown_ + ":" + std::to_string(line) + ": this is no text in UTF-8.",
                  "Convert it, for example with iconv.");
    }
    YAML::Node root;
    try {
      root = YAML::Load(text);
      QUANVAS_CHECK(network(root));
    } catch (const YAML::Exception& e) {
      return fail(ErrorCode::kInvalidArgument, where(e.mark) + e.msg + ".",
                  "The format is described in docs/network-yaml.md.");
    }
    builder_.set_opset(13);
    builder_.output(tensor_of(last_));
    QUANVAS_TRY(GraphPtr graph, builder_.build());
    return Model{std::move(graph), weights_, path_};
  }

 private:
  struct Size {
    std::int64_t h = 1, w = 1;
  };
  using Handler = Status (Reader::*)(const YAML::Node&);
  struct Operator {
    Handler handler;
    std::set<std::string> keys;  // beside op, name and from
  };

  std::string path_, shown_;
  GraphBuilder builder_;
  std::shared_ptr<WeightStore> weights_ = std::make_shared<WeightStore>();
  std::mt19937_64 generator_;
  std::map<std::string, Shape> shapes_;  // of one sample, by layer name
  std::string last_ = "input", name_, from_;
  std::int64_t parameters_ = 0;

  static const std::map<std::string, Operator>& operators() {
    static const std::map<std::string, Operator> table = {
        {"conv", {&Reader::conv, {"out", "kernel", "stride", "pad", "group", "bias"}}},
        {"batchnorm", {&Reader::batchnorm, {"epsilon"}}},
        {"relu", {&Reader::relu, {}}},
        {"relu6", {&Reader::relu6, {}}},
        {"maxpool", {&Reader::maxpool, {"kernel", "stride", "pad"}}},
        {"avgpool", {&Reader::avgpool, {"kernel", "stride", "pad"}}},
        {"globalavgpool", {&Reader::globalavgpool, {}}},
        {"flatten", {&Reader::flatten, {}}},
        {"linear", {&Reader::linear, {"out", "bias"}}},
        {"softmax", {&Reader::softmax, {}}},
        {"add", {&Reader::add, {"with"}}},
    };
    return table;
  }

  std::string where(const YAML::Mark& mark) const {
    return mark.is_null() ? shown_ + ": " : shown_ + ":" + std::to_string(mark.line + 1) + ": ";
  }
  Failure bad(const YAML::Node& at, const std::string& what, const std::string& hint = {}) const {
    const std::string layer = name_.empty() ? "" : "layer '" + name_ + "': ";
    return fail(ErrorCode::kInvalidArgument, where(at.Mark()) + layer + what + ".", hint);
  }

  static std::string joined(const std::set<std::string>& words) {
    std::string out;
    for (const std::string& w : words) out += (out.empty() ? "" : ", ") + w;
    return out;
  }

  Status only_keys(const YAML::Node& map, const std::set<std::string>& legal, const std::string& what) const {
    if (!map.IsMap()) return bad(map, what + " must be a map");
    for (const auto& entry : map) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      if (!legal.count(key))
        return bad(entry.first, what + " has the unknown key '" + key + "'",
                   "Legal keys are: " + joined(legal) + ".");
    }
    return {};
  }

  Result<std::int64_t> integer(const YAML::Node& node, const std::string& key, Range range) const {
    std::int64_t v = 0;
    if (!node.IsScalar() || !YAML::convert<std::int64_t>::decode(node, v) || v < range.low || v > range.high)
      return bad(node, "'" + key + "' must be a whole number from " + std::to_string(range.low) + " to " +
                           std::to_string(range.high));
    return v;
  }

  Result<std::int64_t> integer_or(const YAML::Node& map, const char* key, std::int64_t fallback,
                                  Range range) const {
    if (!map[key]) return fallback;
    return integer(map[key], key, range);
  }

  Result<std::int64_t> required(const YAML::Node& map, const char* key, Range range) const {
    if (!map[key]) return bad(map, std::string("'") + key + "' is missing");
    return integer(map[key], key, range);
  }

  Result<bool> flag(const YAML::Node& map, const char* key, bool fallback) const {
    bool v = fallback;
    if (map[key] && (!map[key].IsScalar() || !YAML::convert<bool>::decode(map[key], v)))
      return bad(map[key], std::string("'") + key + "' must be true or false");
    return v;
  }

  // One number for both directions, or [height, width].
  Result<Size> size(const YAML::Node& map, const char* key, Size fallback, Range range) const {
    const YAML::Node node = map[key];
    if (!node) return fallback;
    if (node.IsScalar()) {
      QUANVAS_TRY(const std::int64_t v, integer(node, key, range));
      return Size{v, v};
    }
    if (!node.IsSequence() || node.size() != 2)
      return bad(node, std::string("'") + key + "' must be a number or [height, width]");
    QUANVAS_TRY(const std::int64_t h, integer(node[0], key, range));
    QUANVAS_TRY(const std::int64_t w, integer(node[1], key, range));
    return Size{h, w};
  }

  Status network(const YAML::Node& root) {
    QUANVAS_CHECK(only_keys(root, {"name", "input", "seed", "layers"}, "the network"));
    QUANVAS_TRY(const std::int64_t seed, integer_or(root, "seed", 0, {0, std::int64_t{1} << 53}));
    generator_.seed(static_cast<std::uint64_t>(seed));
    const YAML::Node name = root["name"];
    if (name && !name.IsScalar()) return bad(name, "'name' must be a text");
    builder_.set_name(name ? name.Scalar() : std::filesystem::path(path_).stem().stem().string());
    QUANVAS_CHECK(input(root));
    const YAML::Node layers = root["layers"];
    if (!layers || !layers.IsSequence() || layers.size() == 0)
      return bad(layers ? layers : root, "'layers' must be a list of at least one layer");
    for (const YAML::Node& entry : layers) QUANVAS_CHECK(layer(entry));
    return {};
  }

  Status input(const YAML::Node& root) {
    const YAML::Node node = root["input"];
    if (!node || !node.IsSequence() || (node.size() != 1 && node.size() != 3))
      return bad(node ? node : root, "'input' must be [channels, height, width] or [features]");
    Shape shape;
    for (const YAML::Node& d : node) {
      QUANVAS_TRY(const std::int64_t v, integer(d, "input", kSize));
      shape.push_back(v);
    }
    builder_.input("input");
    declare("input", shape);
    return {};
  }

  Status layer(const YAML::Node& entry) {
    name_.clear();
    if (!entry.IsMap() || !entry["op"] || !entry["op"].IsScalar())
      return bad(entry, "a layer must be a map with the key 'op'");
    const std::string op = entry["op"].Scalar();
    const auto known = operators().find(op);
    if (known == operators().end()) {
      std::set<std::string> names;
      for (const auto& [id, unused] : operators()) names.insert(id);
      return bad(entry["op"], "there is no layer type '" + op + "'", "Known are: " + joined(names) + ".");
    }
    if (!entry["name"] || !entry["name"].IsScalar() || entry["name"].Scalar().empty())
      return bad(entry, "the layer of type '" + op + "' has no 'name'");
    name_ = entry["name"].Scalar();
    if (shapes_.count(name_)) return bad(entry["name"], "the name is used twice");
    std::set<std::string> keys = known->second.keys;
    keys.insert({"op", "name", "from"});
    QUANVAS_CHECK(only_keys(entry, keys, "'" + op + "'"));
    from_ = last_;
    if (entry["from"]) {
      QUANVAS_TRY(from_, layer_name(entry["from"]));
    }
    QUANVAS_CHECK((this->*known->second.handler)(entry));
    last_ = name_;
    return {};
  }

  Result<std::string> layer_name(const YAML::Node& node) const {
    const std::string name = node.IsScalar() ? node.Scalar() : "";
    if (!shapes_.count(name)) return bad(node, "there is no earlier layer '" + name + "'");
    return name;
  }

  static std::string tensor_of(const std::string& layer) { return layer == "input" ? layer : layer + "_output"; }
  const Shape& in() const { return shapes_.at(from_); }

  void declare(const std::string& layer, const Shape& sample) {
    shapes_[layer] = sample;
    Shape batched = sample;
    batched.insert(batched.begin(), -1);
    builder_.tensor(tensor_of(layer), DataType::kFloat, batched);
  }

  Status emit(const YAML::Node& at, const std::string& op, std::vector<std::string> more, Attributes attributes,
              Shape out) {
    if (element_count(out) > kMostActivations) return bad(at, "its result has " + shape_text(out) + " elements");
    more.insert(more.begin(), tensor_of(from_));
    declare(name_, out);
    builder_.node(name_, op, std::move(more), {tensor_of(name_)}, std::move(attributes));
    return {};
  }

  std::string constant(const char* suffix, Shape shape, std::vector<float> values) {
    const std::string name = name_ + "." + suffix;
    builder_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, TensorData::of_floats(std::move(shape), std::move(values)));
    return name;
  }

  Status count_parameters(const YAML::Node& at, const Shape& shape) {
    const std::int64_t n = element_count(shape);
    if (n > kMostParameters - parameters_)
      return bad(at, "the network has more than " + std::to_string(kMostParameters) +
                         " parameters with its weight of " + shape_text(shape));
    parameters_ += n;
    return {};
  }

  // He et al. 2015, for ReLU: uniform in ±sqrt(6 / fan_in).
  std::string he_uniform(const Shape& shape) {
    const std::int64_t fan_in = element_count(Shape(shape.begin() + 1, shape.end()));
    const double bound = std::sqrt(6.0 / static_cast<double>(fan_in));
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    for (float& v : values) v = static_cast<float>((2 * uniform(generator_) - 1) * bound);
    return constant("weight", shape, std::move(values));
  }

  std::vector<std::string> weight_and_bias(const Shape& shape, bool bias) {
    std::vector<std::string> names = {he_uniform(shape)};
    if (bias) names.push_back(filled("bias", shape[0], 0));
    return names;
  }

  std::string filled(const char* suffix, std::int64_t n, float value) {
    return constant(suffix, {n}, std::vector<float>(static_cast<std::size_t>(n), value));
  }

  Status expect_picture(const YAML::Node& at) const {
    if (in().size() == 3) return {};
    return bad(at, "needs a picture [channels, height, width], but '" + from_ + "' gives " + shape_text(in()));
  }

  struct Window {
    Size kernel, stride, pad;
    Shape out;  // [0, height, width]
    Attributes attributes() const {
      using Ints = std::vector<std::int64_t>;
      return {{"kernel_shape", Ints{kernel.h, kernel.w}},
              {"strides", Ints{stride.h, stride.w}},
              {"pads", Ints{pad.h, pad.w, pad.h, pad.w}}};
    }
  };

  Result<Window> window(const YAML::Node& at, bool stride_is_kernel) const {
    QUANVAS_CHECK(expect_picture(at));
    if (!at["kernel"]) return bad(at, "'kernel' is missing");
    Window w;
    QUANVAS_TRY(w.kernel, size(at, "kernel", {}, kSize));
    QUANVAS_TRY(w.stride, size(at, "stride", stride_is_kernel ? w.kernel : Size{}, kSize));
    QUANVAS_TRY(w.pad, size(at, "pad", {0, 0}, {0, kSize.high}));
    if (stride_is_kernel && (w.pad.h >= w.kernel.h || w.pad.w >= w.kernel.w))
      return bad(at["pad"], "'pad' must be smaller than the kernel");
    const std::int64_t h = in()[1] + 2 * w.pad.h - w.kernel.h, wide = in()[2] + 2 * w.pad.w - w.kernel.w;
    if (h < 0 || wide < 0)
      return bad(at, "the kernel " + shape_text({w.kernel.h, w.kernel.w}) + " is larger than the padded picture " +
                         shape_text({in()[1] + 2 * w.pad.h, in()[2] + 2 * w.pad.w}));
    w.out = {0, h / w.stride.h + 1, wide / w.stride.w + 1};
    return w;
  }

  Status conv(const YAML::Node& at) {
    QUANVAS_TRY(Window w, window(at, false));
    QUANVAS_TRY(const std::int64_t out, required(at, "out", kSize));
    QUANVAS_TRY(const std::int64_t group, integer_or(at, "group", 1, kSize));
    QUANVAS_TRY(const bool bias, flag(at, "bias", true));
    if (in()[0] % group || out % group)
      return bad(at, "'group' is " + std::to_string(group) + ", which does not divide " + std::to_string(in()[0]) +
                         " input and " + std::to_string(out) + " output channels");
    const Shape weight = {out, in()[0] / group, w.kernel.h, w.kernel.w};
    QUANVAS_CHECK(count_parameters(at, weight));
    w.out[0] = out;
    Attributes attributes = w.attributes();
    attributes["group"] = group;
    attributes["dilations"] = std::vector<std::int64_t>{1, 1};
    return emit(at, "Conv", weight_and_bias(weight, bias), std::move(attributes), w.out);
  }

  Status linear(const YAML::Node& at) {
    if (in().size() != 1)
      return bad(at, "needs a vector, but '" + from_ + "' gives " + shape_text(in()), "Put a flatten before it.");
    QUANVAS_TRY(const std::int64_t out, required(at, "out", kSize));
    QUANVAS_TRY(const bool bias, flag(at, "bias", true));
    const Shape weight = {out, in()[0]};
    QUANVAS_CHECK(count_parameters(at, weight));
    return emit(at, "Gemm", weight_and_bias(weight, bias), {{"transB", std::int64_t{1}}}, {out});
  }

  Status batchnorm(const YAML::Node& at) {
    float epsilon = 1e-5f;
    const YAML::Node e = at["epsilon"];
    if (e && (!e.IsScalar() || !YAML::convert<float>::decode(e, epsilon) || !(epsilon > 0 && epsilon < 1)))
      return bad(e, "'epsilon' must be a number between 0 and 1");
    const std::int64_t n = in()[0];
    return emit(
        at, "BatchNormalization",
        {filled("weight", n, 1), filled("bias", n, 0), filled("running_mean", n, 0), filled("running_var", n, 1)},
        {{"epsilon", epsilon}}, in());
  }

  Status relu(const YAML::Node& at) { return emit(at, "Relu", {}, {}, in()); }
  Status relu6(const YAML::Node& at) {
    return emit(at, "Clip", {constant("min", {}, {0.0f}), constant("max", {}, {6.0f})}, {}, in());
  }
  Status softmax(const YAML::Node& at) { return emit(at, "Softmax", {}, {{"axis", std::int64_t{1}}}, in()); }

  Status pool(const YAML::Node& at, const char* op) {
    QUANVAS_TRY(Window w, window(at, true));
    w.out[0] = in()[0];
    return emit(at, op, {}, w.attributes(), w.out);
  }
  Status maxpool(const YAML::Node& at) { return pool(at, "MaxPool"); }
  Status avgpool(const YAML::Node& at) { return pool(at, "AveragePool"); }
  Status globalavgpool(const YAML::Node& at) {
    QUANVAS_CHECK(expect_picture(at));
    return emit(at, "GlobalAveragePool", {}, {}, {in()[0], 1, 1});
  }
  Status flatten(const YAML::Node& at) {
    return emit(at, "Flatten", {}, {{"axis", std::int64_t{1}}}, {element_count(in())});
  }

  Status add(const YAML::Node& at) {
    if (!at["with"]) return bad(at, "'with' is missing: the layer whose result is added");
    QUANVAS_TRY(const std::string other, layer_name(at["with"]));
    if (shapes_.at(other) != in())
      return bad(at, "adds " + shape_text(in()) + " of '" + from_ + "' and " + shape_text(shapes_.at(other)) +
                         " of '" + other + "', which differ");
    return emit(at, "Add", {tensor_of(other)}, {}, in());
  }
};

class NetworkYamlImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {
        "network-yaml", "Network description",
        "A network as text with freshly initialised weights, the start of float training (docs/network-yaml.md)."};
  }
  std::vector<std::string> extensions() const override { return {".net.yaml"}; }
  int probe(const std::string& path, const std::string&) const override {
    return path.ends_with(".net.yaml") ? 100 : 0;
  }
  Result<Imported> load(const std::string& path, const ImportOptions&, JobContext&) const override {
    QUANVAS_TRY(const std::string text, read_file(path, kMostBytes));
    QUANVAS_TRY(Model model, Reader(path).read(text));
    return Imported(std::move(model));
  }
};

QUANVAS_PLUGIN(Importer, NetworkYamlImporter)

}  // namespace
}  // namespace quanvas
