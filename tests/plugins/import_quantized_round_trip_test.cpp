// Networks that were quantized here and exported, and real ones of others, opened again.
#include <fstream>

#include "tests/plugins/export_net.h"
#include "tests/plugins/import_quantized_support.h"

namespace quanvas::import_test {
namespace {

namespace fs = std::filesystem;
using export_net::Formats;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

struct Trip {
  const char* name;
  Formats formats;
};
const Trip kTrips[] = {
    {"W8A8 per tensor", {spec(8, true, false, kNone, kTensor), spec(8, false, false, kInteger, kTensor)}},
    {"W8A8 per channel, narrow, outputs too", {spec(8, true, true, kNone, kChannel), spec(8, false, false, kNone, kTensor), true}},
    {"W4A4 per channel", {spec(4, true, true, kNone, kChannel), spec(4, false, false, kNone, kTensor)}},
    {"W3A5 with zero points", {spec(3, false, false, kInteger, kTensor), spec(5, false, false, kInteger, kTensor)}},
    {"W2A8 signed", {spec(2, true, true, kNone, kChannel), spec(8, true, false, kNone, kTensor)}},
};

class RoundTrip : public ::testing::TestWithParam<Trip> {};

TEST_P(RoundTrip, AnExportedNetworkComesBackAsItsRecipe) {
  const QuantizedModel before = export_net::quantize(export_net::small_net(), GetParam().formats);
  const Exporter& exporter = **Registry<Exporter>::instance().get("onnx-qdq", "target");
  const Folder folder;
  const std::string file = (folder.path() / "small.onnx").string();
  JobContext job;
  const auto refusals = exporter.check(before, json::object());
  ASSERT_TRUE(refusals.empty()) << refusals[0].got;
  ASSERT_TRUE(exporter.write(before, file, json::object(), job));
  const Opened rules = open_file(file, FileQuantizers::kRules), nodes = open_file(file, FileQuantizers::kNodes);
  ASSERT_TRUE(rules.file) << rules.file.error().text();
  for (const std::string& op : rules.ops()) EXPECT_TRUE(op.find("uantizeLinear") == std::string::npos) << rules.all_issues();
  const c10::InferenceMode no_gradient;
  const at::Tensor x = input_of({5, 1, 8, 8});
  const auto original = (*exec::Runner::create(before.model, &before.quantizers))->run({x});
  const auto got = run(rules, {x}), want = run(nodes, {x});
  ASSERT_TRUE(original && got && want) << (got ? "" : got.error().text());
  EXPECT_LE(difference((*got)[0], (*want)[0]), 1e-6);
  EXPECT_LE(difference((*got)[0], (*original)[0]), 1e-6);
  // The same formats at the same layers, with the same numbers.
  const auto after = quantizers_of(*rules.file);
  ASSERT_TRUE(after) << after.error().text();
  for (const auto& [site, q] : before.quantizers) {
    if (site.kind != SiteKind::kWeight && site.kind != SiteKind::kBias) continue;
    const Node* node = rules.graph().find(before.model->graph->find(site.node)->name);
    ASSERT_NE(node, nullptr);
    const auto same = after->find({node->id, site.kind, 0});
    ASSERT_NE(same, after->end()) << node->name << " " << enum_text(site.kind);
    EXPECT_EQ(same->second.scale, q.scale) << node->name;
    EXPECT_EQ(code_bits(same->second.spec), code_bits(q.spec)) << node->name;
    EXPECT_EQ(same->second.spec.scale_from_accumulator, q.spec.scale_from_accumulator) << node->name;
  }
}
INSTANTIATE_TEST_SUITE_P(Formats, RoundTrip, ::testing::ValuesIn(kTrips), [](const auto& info) {
  std::string name;
  for (const char* c = info.param.name; *c; ++c) name += std::isalnum(static_cast<unsigned char>(*c)) ? *c : '_';
  return name;
});

// --- networks of others

std::string shared(const std::string& name) { return std::string(QUANVAS_SHARED_DIR) + "/models/qonnx/" + name; }

at::Tensor read_tensor(const std::string& path) {
  onnx::TensorProto t;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(t.ParseFromIstream(&in));
  Shape shape(t.dims().begin(), t.dims().end());
  EXPECT_EQ(t.float_data_size(), element_count(shape));
  return at::from_blob(t.mutable_float_data()->mutable_data(), shape, at::kFloat).clone();
}

struct Real {
  const char* file;
  const char* reference;  // the float network beside it; empty: none
  Shape input;            // empty: the file's own test picture
  std::size_t rules;
  double most;            // relative difference from the float network
};
const Real kReal[] = {{"TFC_2W2A.onnx", "", {16, 1, 28, 28}, 2, 0},
                      {"qonnx_act_weight_fp8.onnx", "", {7, 3}, 2, 0},
                      {"espcn/subpixel/quant_model.onnx", "", {}, 5, 0.5},
                      {"espcn/nn_resize/quant_model.onnx", "espcn/nn_resize/float_model.onnx", {}, 5, 0.5}};

TEST(QuantizedNetworks, ComputeAsRecipesWhatTheirNodesCompute) {
  if (!fs::exists(shared("TFC_2W2A.onnx"))) GTEST_SKIP() << "no reference models";
  for (const Real& real : kReal) {
    SCOPED_TRACE(real.file);
    const Opened rules = open_file(shared(real.file), FileQuantizers::kRules), nodes = open_file(shared(real.file), FileQuantizers::kNodes);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    ASSERT_TRUE(rules.file->recipe);
    EXPECT_EQ(rules.file->recipe->rules.size(), real.rules);
    const at::Tensor x = real.input.empty() ? read_tensor(shared("espcn/test_data/input_0.pb")) : input_of(real.input, 5, 1);
    const auto got = run(rules, {x}), want = run(nodes, {x});
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_TRUE(want) << want.error().text();
    const double d = difference((*got)[0], (*want)[0]);
    std::cout << real.file << ": recipe against nodes " << d << "\n";
    EXPECT_LE(d, 1e-6);
    if (!*real.reference) continue;
    const Opened plain = open_file(shared(real.reference), FileQuantizers::kRules);
    const auto reference = run(plain, {x});
    ASSERT_TRUE(reference) << reference.error().text();
    const double r = difference((*got)[0], (*reference)[0]);
    const at::Tensor error = (*got)[0] - (*reference)[0];
    std::cout << real.file << ": against the float network " << r << ", PSNR "
              << -10 * std::log10(error.pow(2).mean().item<double>()) << " dB\n";
    EXPECT_LE(r, real.most);
  }
}

// The samples of this repository: exported as W8A8, opened, the same predictions.
TEST(QuantizedNetworks, SampleProjectsComeBack) {
  for (const char* name : {"lenet5/lenet5.onnx", "dscnn/dscnn.onnx"}) {
    const fs::path file = fs::path(QUANVAS_SOURCE_DIR) / "projects" / name;
    if (!fs::exists(file)) GTEST_SKIP() << "no sample projects";
    SCOPED_TRACE(name);
    JobContext job;
    auto model = import_model(file.string(), job);
    ASSERT_TRUE(model) << model.error().text();
    for (const int bits : {8, 4}) {
      const QuantizedModel before = export_net::quantize(std::make_shared<const Model>(*model),
                                                         {spec(bits, true, true, kNone, kChannel), spec(bits, true, false, kNone, kTensor)});
      const Exporter& exporter = **Registry<Exporter>::instance().get("onnx-qdq", "target");
      const Folder folder;
      const std::string written = (folder.path() / "net.onnx").string();
      ASSERT_TRUE(exporter.write(before, written, json::object(), job));
      const Opened rules = open_file(written, FileQuantizers::kRules), nodes = open_file(written, FileQuantizers::kNodes);
      ASSERT_TRUE(rules.file) << rules.file.error().text();
      for (const std::string& op : rules.ops()) EXPECT_TRUE(op.find("uantizeLinear") == std::string::npos) << rules.all_issues();
      Shape shape = *model->graph->tensor(model->graph->inputs()[0]).shape;
      shape[0] = 3;
      const at::Tensor x = input_of(shape, 2, 1);
      const c10::InferenceMode no_gradient;
      const auto original = (*exec::Runner::create(before.model, &before.quantizers))->run({x});
      const auto got = run(rules, {x}), want = run(nodes, {x});
      ASSERT_TRUE(original && got && want) << (got ? "" : got.error().text());
      EXPECT_LE(difference((*got)[0], (*want)[0]), 1e-6) << bits;
      EXPECT_LE(difference((*got)[0], (*original)[0]), 1e-6) << bits;
    }
  }
}

}  // namespace
}  // namespace quanvas::import_test
