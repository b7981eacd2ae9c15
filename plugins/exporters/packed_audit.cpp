#include "plugins/exporters/packed_audit.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>

#include "core/base/files.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/linear_layers.h"
#include "plugins/importers/safetensors_file.h"

namespace quanvas::weight_file {
namespace {

std::string number(double v) {
  std::ostringstream out;
  out << v;
  return out.str();
}

struct Scheme {
  described::Weight weight;
  std::optional<bool> symmetric;  // GPTQ: every zero point is at half the range
  json input;  // of activations; null: none
};

bool is_symmetric(const quant::QuantParams& p) {
  return p.spec.is_signed && p.spec.zero_point == ZeroPointType::kNone;
}

// What the configuration says of one linear layer; an empty form: it is left float.
class Config {
 public:
  static Result<Config> read(const std::string& path, const std::string& method) {
    QUANVAS_TRY(const std::string text, read_file(path, 64 << 20));
    QUANVAS_TRY(const json all, parse_json(text, "'" + path + "'"));
    Config c;
    c.method_ = method;
    if (all.is_object() && all.contains("quantization_config") && all["quantization_config"].is_object())
      c.q_ = all["quantization_config"];
    else
      return fail(ErrorCode::kCorrupt, "'" + path + "' has no quantization_config.", "Export it again.");
    if (c.text("quant_method") != method)
      return fail(ErrorCode::kCorrupt, "'" + path + "' is of another method than " + method + ".", "Export it again.");
    return c;
  }

  Scheme scheme(const LinearLayer& l, const QuantSpec& asked) const {
    Scheme s;
    s.weight.initializer = l.weight;
    s.weight.tensor = l.module;
    s.weight.transposed = l.transposed;
    s.weight.shape = l.transposed ? Shape{l.in, l.out} : Shape{l.out, l.in};
    s.weight.spec = asked;
    s.weight.form.clear();
    s.weight.zero_points = true;
    if (method_ == "compressed-tensors") {
      tensors_scheme(l, s);
    } else {
      const bool kept = method_ == "awq" ? listed("modules_to_not_convert", l.module, true) : dynamic_float(l.module);
      if (kept) return s;
      s.weight.form = method_ == "awq" ? (text("version") == "gemm" && flag(q_, "zero_point") ? "awq" : "?")
                                       : text("checkpoint_format");
      const json own = settings(l.module);
      s.weight.bits = integer(own, "bits");
      apply_group(s.weight, integer(own, "group_size"));
      if (method_ == "gptq") s.symmetric = flag(own, "sym");
      if (flag(own, "desc_act")) s.weight.form = "?";  // groups of another order are written nowhere
    }
    if (s.weight.spec->format == "int") s.weight.spec->bits = s.weight.bits;
    return s;
  }

 private:
  std::string text(const char* key) const {
    return q_.contains(key) && q_[key].is_string() ? q_[key].get<std::string>() : std::string();
  }
  static bool flag(const json& j, const char* key) { return j.contains(key) && j[key].is_boolean() && j[key].get<bool>(); }
  static int integer(const json& j, const char* key) {
    return j.contains(key) && j[key].is_number_integer()
               ? static_cast<int>(std::clamp<std::int64_t>(j[key].get<std::int64_t>(), -1, 1 << 30))
               : -1;
  }
  bool listed(const char* key, const std::string& module, bool part) const {
    if (!q_.contains(key) || !q_[key].is_array()) return false;
    for (const json& name : q_[key])
      if (name.is_string() &&
          (part ? module.find(name.get<std::string>()) != std::string::npos : module == name.get<std::string>()))
        return true;
    return false;
  }
  bool dynamic_float(const std::string& module) const { return dynamic("-:", module) != nullptr; }
  // The entry of a module by its name, as a pattern.
  const json* dynamic(const std::string& sign, const std::string& module) const {
    if (!q_.contains("dynamic") || !q_["dynamic"].is_object()) return nullptr;
    std::string pattern = sign + "^";
    for (const char c : module)
      pattern += std::string(std::string(".^$*+?()[]{}|\\").find(c) == std::string::npos ? "" : "\\") + c;
    const auto it = q_["dynamic"].find(pattern + "$");
    return it == q_["dynamic"].end() ? nullptr : &*it;
  }
  // The configuration's, with what it changes for the module.
  json settings(const std::string& module) const {
    json out = q_;
    const json* changes = method_ == "gptq" ? dynamic("+:", module) : nullptr;
    if (changes && changes->is_object()) out.update(*changes);
    return out;
  }
  // Groups of `size` inputs; -1: rows. What the quantizer has once for the whole tensor stands there for each row.
  static void apply_group(described::Weight& w, int size) {
    if (size > 0) {
      w.spec->granularity = Granularity::kGroup;
      w.spec->group_size = size;
      w.spec->axis = w.transposed ? 0 : 1;
    } else if (w.spec->granularity == Granularity::kGroup) {
      w.spec->granularity = Granularity::kChannel;
      w.spec->axis = w.transposed ? 1 : 0;
    }
  }

  void tensors_scheme(const LinearLayer& l, Scheme& s) const {
    if (listed("ignore", l.module, false) || !q_.contains("config_groups") || !q_["config_groups"].is_object()) return;
    const json* by_type = nullptr;
    const json* by_name = nullptr;
    for (const auto& [key, group] : q_["config_groups"].items()) {
      if (!group.is_object() || !group.contains("targets") || !group["targets"].is_array()) continue;
      for (const json& target : group["targets"]) {
        if (target == "Linear" && !by_type) by_type = &group;
        if (target == l.module && !by_name) by_name = &group;
      }
    }
    const json* group = by_name ? by_name : by_type;
    if (!group || !group->contains("weights") || !(*group)["weights"].is_object()) return;
    const json& w = (*group)["weights"];
    s.weight.form = text("format");
    if (s.weight.form == "mixed-precision")
      s.weight.form =
          group->contains("format") && (*group)["format"].is_string() ? (*group)["format"].get<std::string>() : "?";
    s.weight.bits = integer(w, "num_bits");
    s.weight.zero_points = !flag(w, "symmetric");
    const bool is_int = w.contains("type") && w["type"] == "int";
    if (is_int != (s.weight.spec->format == "int")) s.weight.form = "?";
    const json strategy = w.contains("strategy") ? w["strategy"] : json();
    if (strategy == "tensor") {
      s.weight.spec->granularity = Granularity::kTensor;
    } else {
      apply_group(s.weight, strategy == "channel" ? -1 : integer(w, "group_size"));
      // One scale that stands in every row is still one to us, unless rows differ.
      if (s.weight.form != "pack-quantized" && s.weight.spec->granularity == Granularity::kTensor) {
        s.weight.spec->granularity = Granularity::kChannel;
        s.weight.spec->axis = s.weight.transposed ? 1 : 0;
      }
    }
    if (group->contains("input_activations")) s.input = (*group)["input_activations"];
  }

  std::string method_;
  json q_;
};

struct Audit {
  const QuantizedModel& model;
  std::shared_ptr<const safetensors::File> file;
  std::optional<Config> config;
  std::optional<described::Network> network;  // where there is no configuration, and of what it does not say
  std::vector<LinearLayer> layers;

  static Result<Audit> open(const QuantizedModel& model, const std::string& path, const std::string& config_path,
                            const std::string& method) {
    Audit a{model, nullptr, std::nullopt, std::nullopt, linear_layers(model)};
    QUANVAS_TRY(a.file, safetensors::File::open(path));
    if (const std::string* text = a.file->metadata(described::kNetworkKey)) {
      QUANVAS_TRY(a.network, described::parse(*text, path));
    }
    if (!config_path.empty()) {
      QUANVAS_TRY(a.config, Config::read(config_path, method));
    } else if (!a.network) {
      return fail(ErrorCode::kCorrupt, "'" + path + "' says nothing of its packing.", "Export it again.");
    }
    return a;
  }

  described::Source source() const {
    return [this](const std::string& name) { return file->tensor(name); };
  }
  const described::Weight* described_weight(const std::string& tensor) const {
    if (network)
      for (const described::Weight& w : network->weights)
        if (w.tensor == tensor && w.form != "float") return &w;
    return nullptr;
  }
  const LinearLayer* layer_of(NodeId node) const {
    for (const LinearLayer& l : layers)
      if (l.node->id == node) return &l;
    return nullptr;
  }
  Scheme scheme(const LinearLayer& l) const {
    Scheme s;
    const described::Weight* own = described_weight(l.module);
    if (!config) {
      if (own)
        s.weight = *own;
      else
        s.weight.form.clear();
      return s;
    }
    s = config->scheme(l, stored_spec(*l.quantizer, SiteKind::kWeight));
    if (own) s.weight.padded = own->padded;  // nothing else says which version of the reader it is for
    return s;
  }

  void weight_row(const LinearLayer& l, AuditRow& row) const {
    const Scheme s = scheme(l);
    if (s.weight.form.empty()) {
      row.written = "float, says the configuration";
      return;
    }
    const auto held = described::decode(source(), s.weight);
    if (!held) {
      row.written = held.error().message;
      return;
    }
    const quant::QuantParams& p = *l.quantizer;
    row.bytes = held->bytes;
    row.written = s.weight.form + ", " + std::to_string(s.weight.bits) + " bit, " + std::to_string(held->scale.size()) +
                  " scales" + (held->zero_point.empty() ? "" : ", zero points");
    PlacedQuantizer placed;
    placed.site = l.site;
    placed.params = &p;
    placed.node = placed.reader = l.node;
    placed.tensor = model.model->graph->tensor(l.weight);
    const auto stored = stored_tensor(model, placed);
    if (!stored) return;
    const std::vector<float> zero =
        p.zero_point.empty() && !held->zero_point.empty() ? std::vector<float>(p.scale.size(), 0) : p.zero_point;
    const bool zeros = held->zero_point.empty() ? std::all_of(zero.begin(), zero.end(), [](float z) { return z == 0; })
                                                : same_numbers(held->zero_point, zero);
    if (s.symmetric && *s.symmetric != is_symmetric(p)) {
      row.written += *s.symmetric ? ", symmetric, says the configuration" : ", with zero points, says the configuration";
      return;
    }
    row.equal = held->codes == stored->codes && zeros && same_bits(held->scale, p.scale) &&
                same_numbers(held->values, stored->values);
    if (row.equal) return;
    double most = 0;
    for (std::size_t i = 0; i < held->values.size() && i < stored->values.size(); ++i)
      most = std::max(most, std::fabs(static_cast<double>(held->values[i]) - static_cast<double>(stored->values[i])));
    row.written += held->codes == stored->codes && zeros ? ", other scales" : ", other codes";
    row.written += ", largest difference of a weight " + number(most);
  }
  void input_row(const LinearLayer& l, const PlacedQuantizer& q, AuditRow& row) const {
    const Scheme s = l.quantizer ? scheme(l) : Scheme{};
    if (!s.input.is_object()) {
      row.written = "float, says the configuration";
      return;
    }
    const json& in = s.input;
    const QuantSpec& spec = q.params->spec;
    const auto get = [&](const char* key) { return in.contains(key) ? in[key] : json(); };
    const bool dynamic = get("dynamic") == true, is_int = get("type") == "int";
    row.written = std::string(dynamic ? "dynamic " : "static ") + get("type").dump() + " " + get("num_bits").dump() + ", " +
                  get("strategy").dump();
    bool same = is_int == (spec.format == "int") && get("num_bits") == code_bits(spec) &&
                dynamic == quant::is_dynamic(*q.params) && get("strategy") == (dynamic ? "token" : "tensor");
    if (!dynamic) {
      const auto scale = file->tensor(l.module + ".input_scale");
      same = same && scale && scale->type == DataType::kFloat && scale->shape == Shape{1} &&
             same_bits(scale->to_floats(), q.params->scale);
      const std::int64_t shift = is_int && !spec.is_signed ? std::int64_t{1} << (spec.bits - 1) : 0;
      const std::int64_t wanted = zero_points(*q.params).empty() ? 0 : zero_points(*q.params)[0] - shift;
      const auto zero = file->tensor(l.module + ".input_zero_point");
      same = same && (zero ? zero->type == DataType::kInt8 && zero->shape == Shape{1} && zero->to_int64()[0] == wanted &&
                                 get("symmetric") == false
                           : wanted == 0 && get("symmetric") == true);
      row.bytes = (scale ? static_cast<double>(scale->bytes) : 0) + (zero ? static_cast<double>(zero->bytes) : 0);
    }
    row.equal = same;
  }

  // Tensors that are to be as they were, and layers that are to be float.
  void others(std::vector<AuditRow>& rows) const {
    const Contents contents = contents_of(model);
    for (const TensorId id : contents.plain) {
      const TensorData& wanted = *model.model->weights->find(model.model->graph->tensor(id).name);
      bool transposed = false;
      const std::string name = plain_name(model, layers, id, transposed);
      described::Weight w;
      w.initializer = w.tensor = name;
      w.transposed = transposed;
      w.shape = wanted.shape;
      const auto data = file->tensor(name);
      bool same = data.has_value();
      if (same && wanted.type == DataType::kFloat) {
        const auto held = described::decode(source(), w);
        same = held && data->type == DataType::kFloat && same_bits(held->values, wanted.to_floats());
      } else if (same) {
        same = data->bytes == wanted.bytes && (wanted.bytes == 0 || std::memcmp(data->data, wanted.data, wanted.bytes) == 0);
      }
      if (!same)
        rows.push_back({name, "values", "float", data ? "other values" : "nothing",
                        data ? static_cast<double>(data->bytes) : 0, false});
    }
    for (const LinearLayer& l : layers) {
      if (l.quantizer && !l.input && scheme(l).input.is_object())
        rows.push_back({l.node->name, "input", "float", "quantized, says the configuration", 0, false});
      if (l.quantizer) continue;
      if (config && !config->scheme(l, QuantSpec{}).weight.form.empty() &&
          std::any_of(layers.begin(), layers.end(), [](const LinearLayer& o) { return o.quantizer; }))
        rows.push_back({l.node->name, "weight", "float", "quantized, says the configuration", 0, false});
      for (const char* part : {".weight_packed", ".qweight", ".weight_scale"})
        if (file->tensor(l.module + part))
          rows.push_back({l.node->name, "weight", "float", std::string("a tensor '") + part + "'", 0, false});
    }
  }
};

}  // namespace

Result<std::vector<AuditRow>> audit_packed(const QuantizedModel& model, const std::string& path, const std::string& config,
                                           const std::string& method) {
  QUANVAS_TRY(const Audit audit, Audit::open(model, path, config, method));
  std::vector<AuditRow> rows;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    AuditRow row{q.node->name, q.name, quantizer_text(*q.params), "nothing", 0, false};
    if (q.params->spec.format != "int" || quant::is_dynamic(*q.params)) row.requested = quanvas::describe(q.params->spec);
    const LinearLayer* l = audit.layer_of(q.node->id);
    if (l && q.site.kind == SiteKind::kWeight)
      audit.weight_row(*l, row);
    else if (l && q.site.kind == SiteKind::kInput)
      audit.input_row(*l, q, row);
    rows.push_back(std::move(row));
  }
  audit.others(rows);
  return rows;
}

Result<ReadBack> read_packed(const QuantizedModel& model, const std::string& path, const std::string& config,
                             const std::string& method) {
  QUANVAS_TRY(const Audit audit, Audit::open(model, path, config, method));
  const Contents contents = contents_of(model);
  FileValues values;
  for (const Coded& c : contents.coded) {
    const LinearLayer* l = audit.layer_of(c.sites.front().node->id);
    if (!l) continue;
    const Scheme s = audit.scheme(*l);
    if (s.weight.form.empty())
      return fail(ErrorCode::kCorrupt, "'" + path + "' has '" + l->module + "' as float.", "Export it again.");
    QUANVAS_TRY(described::Held held, described::decode(audit.source(), s.weight));
    values.coded[c.name] = std::move(held.values);
  }
  for (const TensorId id : contents.plain) {
    const TensorInfo& info = model.model->graph->tensor(id);
    if (model.model->weights->find(info.name)->type != DataType::kFloat) continue;
    described::Weight w;
    w.tensor = plain_name(model, audit.layers, id, w.transposed);
    w.shape = model.model->weights->find(info.name)->shape;
    QUANVAS_TRY(described::Held held, described::decode(audit.source(), w));
    values.plain[info.name] = std::move(held.values);
  }
  std::map<Site, quant::QuantParams> quantizers;
  for (const auto& [site, params] : model.quantizers) {
    if (!is_activation(site.kind)) continue;
    quant::QuantParams own = params;
    const LinearLayer* l = audit.layer_of(site.node);
    if (l && site.kind == SiteKind::kInput && !quant::is_dynamic(params)) {
      const auto scale = audit.file->tensor(l->module + ".input_scale");
      if (scale && scale->type == DataType::kFloat && scale->shape == Shape{1}) own.scale = scale->to_floats();
      const auto zero = audit.file->tensor(l->module + ".input_zero_point");
      const float shift =
          params.spec.format == "int" && !params.spec.is_signed ? std::ldexp(1.0f, params.spec.bits - 1) : 0.0f;
      if (zero && zero->type == DataType::kInt8 && zero->shape == Shape{1} && !own.zero_point.empty())
        own.zero_point = {static_cast<float>(zero->to_int64()[0]) + shift};
    }
    quantizers[site] = std::move(own);
  }
  QUANVAS_TRY(ReadBack back, read_back(model, contents, values, std::move(quantizers)));
  back.notes.push_back("The file holds weights; the graph is the screen's.");
  return back;
}

}  // namespace quanvas::weight_file
