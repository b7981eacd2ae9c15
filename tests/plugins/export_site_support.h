// What an exported file computes at each quantizer, beside what the network on the screen does there.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/exec/runner.h"
#include "tests/plugins/export_net.h"

namespace quanvas::export_site {

namespace fs = std::filesystem;
using export_net::Formats;
using export_net::quantize;
using export_net::small_net;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

inline at::Tensor noise(const Shape& shape, std::uint32_t seed, float amplitude) {
  const TensorData data = export_net::random_floats(shape, seed, amplitude);
  return at::from_blob(const_cast<std::byte*>(data.data), shape, at::kFloat).clone();
}

class TargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-" + id_ + "-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  explicit TargetTest(std::string id) : id_(std::move(id)) {}

  const Exporter& exporter() const { return **Registry<Exporter>::instance().get(id_, "target"); }
  std::string path() const { return (folder_ / "out.onnx").string(); }
  json complete(const json& given = json::object()) const {
    const auto out = exporter().schema().complete(given, id_);
    EXPECT_TRUE(out) << out.error().text();
    return out.value_or(json::object());
  }
  std::vector<Refusal> refusals(const QuantizedModel& model, const json& options = json::object()) const {
    return exporter().check(model, complete(options));
  }
  static std::string text_of(const std::vector<Refusal>& list) {
    std::string out;
    for (const Refusal& r : list) out += r.rule + ": " + r.text() + "\n";
    return out;
  }
  static bool names(const std::vector<Refusal>& list, const std::string& rule, const std::string& layer) {
    return std::any_of(list.begin(), list.end(), [&](const Refusal& r) { return r.rule == rule && r.layer == layer; });
  }
  void write(const QuantizedModel& model, const json& options = json::object()) const {
    JobContext job;
    const auto refused = refusals(model, options);
    ASSERT_TRUE(refused.empty()) << text_of(refused);
    const Status written = exporter().write(model, path(), complete(options), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  std::vector<AuditRow> audit(const QuantizedModel& model, const json& options = json::object()) const {
    const auto rows = exporter().audit(model, path(), complete(options));
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<AuditRow>{});
  }
  static bool all_equal(const std::vector<AuditRow>& rows) {
    return !rows.empty() && std::all_of(rows.begin(), rows.end(), [](const AuditRow& r) { return r.equal; });
  }
  static std::string text_of(const std::vector<AuditRow>& rows) {
    std::string out;
    for (const AuditRow& r : rows)
      out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + (r.equal ? "\n" : "  DIFFERENT\n");
    return out;
  }
  void expect_audited(const QuantizedModel& model, const json& options = json::object()) const {
    const auto rows = audit(model, options);
    EXPECT_EQ(rows.size(), model.quantizers.size());
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    for (const AuditRow& row : rows) EXPECT_GT(row.bytes, 0) << row.layer << " " << row.quantizer;
  }
  onnx::ModelProto load() const {
    onnx::ModelProto proto;
    std::ifstream in(path(), std::ios::binary);
    EXPECT_TRUE(proto.ParseFromIstream(&in));
    return proto;
  }
  void store(const onnx::ModelProto& proto) const {
    std::ofstream out(path(), std::ios::binary);
    proto.SerializeToOstream(&out);
  }
  std::string bytes() const {
    std::ifstream in(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  struct Difference {
    double sites = 0, values = 0, steps = 0;  // compared; of how many values; how many are another code
    double largest = 0;                       // of the network's outputs, relative
  };
  // Runs both networks on x and compares what stands at each site of an activation in units of the scale.
  Difference compare(const QuantizedModel& model, const at::Tensor& x, const json& options = json::object()) const {
    Difference out;
    JobContext job;
    const c10::InferenceMode no_gradient;
    auto back = exporter().read(model, path(), complete(options), job);
    EXPECT_TRUE(back) << back.error().text();
    if (!back) return out;
    const auto screen = exec::Runner::create(model.model, &model.quantizers);
    const auto file = exec::Runner::create(back->model, back->quantizers.empty() ? nullptr : &back->quantizers);
    EXPECT_TRUE(screen && file) << (file ? "" : file.error().text());
    if (!screen || !file) return out;
    std::map<Site, at::Tensor> seen;
    exec::RunHooks hooks;
    hooks.quantize = [&](const Site& site, const at::Tensor& v) {
      const auto it = model.quantizers.find(site);
      if (it == model.quantizers.end()) return v;
      return seen[site] = exec::fake_quantize(v, it->second);
    };
    const auto wanted = (*screen)->run({x}, hooks);
    const auto got = (*file)->run_all({x});
    EXPECT_TRUE(wanted && got) << (got ? "" : got.error().text());
    if (!wanted || !got) return out;
    for (const auto& [site, held] : back->sites) {
      const TensorId t = back->model->graph->tensor(held.tensor);
      EXPECT_NE(t, kNoTensor) << held.tensor;
      if (t == kNoTensor || !seen.count(site)) continue;
      const at::Tensor a = seen.at(site), b = (*got)[static_cast<std::size_t>(t)];
      EXPECT_EQ(a.sizes(), b.sizes()) << held.tensor;
      if (a.sizes() != b.sizes()) continue;
      out.sites += 1;
      out.values += static_cast<double>(a.numel());
      out.steps += a.ne(b).sum().item<double>();
    }
    const at::Tensor y = (*wanted)[0], z = (*got)[static_cast<std::size_t>(back->model->graph->outputs()[0])];
    EXPECT_EQ(y.sizes(), z.sizes());
    if (y.sizes() == z.sizes())
      out.largest = (y - z).abs().max().item<double>() / std::max(1e-30, y.abs().max().item<double>());
    return out;
  }

  // A write that fails leaves what was there: a folder that is missing, a name that is a folder, a disk that is full.
  void expect_safe_failures(const QuantizedModel& model, const json& options = json::object()) const {
    JobContext job;
    EXPECT_FALSE(exporter().write(model, (folder_ / "none" / "out.onnx").string(), complete(options), job));
    fs::create_directories(folder_ / "folder.onnx" / "inside");
    EXPECT_FALSE(exporter().write(model, (folder_ / "folder.onnx").string(), complete(options), job));
    EXPECT_TRUE(fs::is_directory(folder_ / "folder.onnx" / "inside"));
    write(model, options);
    const std::string before = bytes();
    rlimit old{};
    getrlimit(RLIMIT_FSIZE, &old);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit tiny{100, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tiny);
    const Status full = exporter().write(model, path(), complete(options), job);
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    EXPECT_FALSE(full);
    EXPECT_EQ(bytes(), before);
  }

  // Cut, emptied, and with bits flipped: rows or an error, never "equal" where the file is no longer whole.
  void expect_hardy_readers(const QuantizedModel& model, const json& options = json::object()) const {
    write(model, options);
    const std::string good = bytes();
    const auto put = [&](const std::string& text) { std::ofstream(path(), std::ios::binary) << text; };
    const auto try_all = [&] {
      JobContext job;
      (void)exporter().audit(model, path(), complete(options));
      (void)exporter().read(model, path(), complete(options), job);
    };
    for (const double part : {0.0, 0.01, 0.3, 0.7, 0.99}) {
      put(good.substr(0, static_cast<std::size_t>(part * static_cast<double>(good.size()))));
      EXPECT_FALSE(exporter().audit(model, path(), complete(options))) << part;
      try_all();
    }
    std::mt19937 random(7);
    for (int i = 0; i < 60; ++i) {
      std::string bad = good;
      for (int k = 0; k < 3; ++k) bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
      put(bad);
      try_all();
    }
    onnx::ModelProto proto;
    ASSERT_TRUE(proto.ParseFromString(good));
    for (auto& t : *proto.mutable_graph()->mutable_initializer()) {
      t.clear_dims();
      for (int k = 0; k < 4; ++k) t.add_dims(std::int64_t{1} << 40);
    }
    store(proto);
    EXPECT_FALSE(all_equal(exporter().audit(model, path(), complete(options)).value_or(std::vector<AuditRow>{})));
    try_all();
    fs::remove(path());
    EXPECT_FALSE(exporter().audit(model, path(), complete(options)));
  }

  std::string id_;
  fs::path folder_;
};

// The quantizer of a site by the names of its node and of the kind.
inline quant::QuantParams& at_site(QuantizedModel& model, const std::string& node, SiteKind kind, int operand = 0) {
  return model.quantizers.at({model.model->graph->find(node)->id, kind, operand});
}
// Another quantizer for an activation, of a fixed range.
inline void set_activation(QuantizedModel& model, const std::string& node, SiteKind kind, int operand, const QuantSpec& spec,
                           float range) {
  const Graph& graph = *model.model->graph;
  const Layer layer = *find_layer(find_layers(graph), graph.find(node)->id);
  const Site site{layer.node, kind, operand};
  const auto layout = *quant::make_layout(spec, *graph.tensor(site_tensor(layer, site)).shape, 1);
  const auto n = static_cast<std::size_t>(layout.parameters());
  model.quantizers[site] = quant::params_from_range(spec, layout, std::vector<float>(n, spec.is_signed ? -range : 0),
                                                    std::vector<float>(n, range));
}
// Scales become the power of two at or above them.
inline void round_scales(QuantizedModel& model) {
  for (auto& [site, p] : model.quantizers) {
    for (float& s : p.scale) s = std::exp2(std::ceil(std::log2(s)));
    p.spec.scale = ScaleType::kPowerOfTwo;
  }
}

}  // namespace quanvas::export_site
