// What GGUF files hold of quantizers: every type of the table, the types that follow from other quantizers, what is
// refused, how tensors lie, and that the importer opens the file with the same numbers.
#include <set>

#include "tests/plugins/export_gguf_net.h"

namespace quanvas {
namespace {

using namespace gguf_net;

constexpr auto kGroup = Granularity::kGroup;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kTensor = Granularity::kTensor;

QuantSpec integers(int bits, bool is_signed, ZeroPointType zero, Granularity granularity, int group = 32) {
  QuantSpec s = export_net::spec(bits, is_signed, false, zero, granularity);
  s.scale = ScaleType::kFloat16;
  s.group_size = group;
  return s;
}
QuantSpec changed(QuantSpec s, const std::function<void(QuantSpec&)>& change) {
  change(s);
  return s;
}

struct TypeCase {
  const char* name;
  QuantSpec spec;
  const char* type;
};
std::vector<TypeCase> types() {
  constexpr auto kNone = ZeroPointType::kNone;
  constexpr auto kInteger = ZeroPointType::kInteger;
  constexpr auto kOffset = ZeroPointType::kOffset;
  QuantSpec ternary = preset("gguf-tq1_0"), binary, e2m1 = preset("mxfp4-weight");
  binary.format = "binary";
  binary.statistic = Statistic::kMean;
  binary.scale = ScaleType::kFloat16;
  return {
      {"gguf-q8_0", preset("gguf-q8_0"), "Q8_0"},
      {"gguf-q4_0", preset("gguf-q4_0"), "Q4_0"},
      {"gguf-q4_1", preset("gguf-q4_1"), "Q4_1"},
      {"gguf-q5_0", preset("gguf-q5_0"), "Q5_0"},
      {"gguf-q5_1", preset("gguf-q5_1"), "Q5_1"},
      {"gguf-q2_k", preset("gguf-q2_k"), "Q2_K"},
      {"gguf-q3_k", preset("gguf-q3_k"), "Q3_K"},
      {"gguf-q4_k", preset("gguf-q4_k"), "Q4_K"},
      {"gguf-q5_k", preset("gguf-q5_k"), "Q5_K"},
      {"gguf-q6_k", preset("gguf-q6_k"), "Q6_K"},
      {"gguf-tq1_0", ternary, "TQ1_0"},
      {"gguf-tq2_0", preset("gguf-tq2_0"), "TQ2_0"},
      {"gguf-iq4_nl", preset("gguf-iq4_nl"), "IQ4_NL"},
      {"gguf-mxfp4", preset("gguf-mxfp4"), "MXFP4"},
      {"int2", integers(2, true, kNone, kGroup), "Q4_0"},
      {"int3 per channel", integers(3, true, kNone, kChannel), "Q4_0"},
      {"int4 per tensor", integers(4, true, kNone, kTensor), "Q4_0"},
      {"int5 in groups of 64", integers(5, true, kNone, kGroup, 64), "Q5_0"},
      {"int6", integers(6, true, kNone, kGroup), "Q8_0"},
      {"int7 per channel", integers(7, true, kNone, kChannel), "Q8_0"},
      {"int8 in groups of 128", integers(8, true, kNone, kGroup, 128), "Q8_0"},
      {"int8, groups longer than rows", integers(8, true, kNone, kGroup, 4096), "Q8_0"},
      {"int8, powers of two",
       changed(integers(8, true, kNone, kTensor), [](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; }), "Q8_0"},
      {"uint4 without zero point", integers(4, false, kNone, kGroup), "Q4_1"},
      {"uint5 without zero point", integers(5, false, kNone, kChannel), "Q5_1"},
      {"uint7 without zero point", integers(7, false, kNone, kTensor), "Q8_0"},
      {"uint3 with zero point", integers(3, false, kInteger, kGroup), "Q4_0"},
      {"uint4 with zero point", integers(4, false, kInteger, kGroup), "Q5_0"},
      {"uint6 with zero point", integers(6, false, kInteger, kChannel), "Q8_0"},
      {"uint4 with zero point, powers of two",
       changed(integers(4, false, kInteger, kGroup), [](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; }), "Q4_1"},
      {"uint2 with offset", integers(2, false, kOffset, kChannel), "Q4_1"},
      {"ternary per tensor", changed(ternary, [](QuantSpec& s) { s.granularity = kTensor; }), "TQ1_0"},
      {"ternary in groups of 32", changed(ternary, [](QuantSpec& s) { s.group_size = 32; }), "Q4_0"},
      {"binary per tensor", binary, "TQ1_0"},
      {"e2m1 per channel", changed(e2m1, [](QuantSpec& s) { s.granularity = kChannel; }), "MXFP4"},
      {"K, one float16 for a whole line", changed(preset("gguf-q4_k"), [](QuantSpec& s) { s.scale_group = 0; }), "Q4_K"},
      {"3 bits in Q4_K", changed(preset("gguf-q4_k"), [](QuantSpec& s) { s.bits = 3; }), "Q4_K"},
      {"4 bits in Q6_K", changed(preset("gguf-q6_k"), [](QuantSpec& s) { s.bits = 4; }), "Q6_K"},
  };
}

TEST_F(GgufTest, EveryQuantizerIsWrittenInItsTypeAuditedAndOpenedAgain) {
  std::set<std::string> seen, forms;
  const TargetTable table = exporter().table(options());
  for (const TypeCase& c : types()) {
    SCOPED_TRACE(c.name);
    ASSERT_EQ(check(c.spec, SiteKind::kWeight), "");
    const TargetRow* row = judge(table, "MatMul", SiteKind::kWeight, c.spec).row;
    ASSERT_NE(row, nullptr);
    EXPECT_NE(row->form.find(c.type), std::string::npos) << row->form;
    forms.insert(row->form);
    const QuantizedModel model = quantize(network(), c.spec);
    ASSERT_NO_FATAL_FAILURE(write(model));
    const auto rows = audit(model);
    EXPECT_EQ(rows.size(), model.quantizers.size());
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    for (const char* tensor : {"table", "up", "down", "head"}) EXPECT_EQ(type_of(tensor), c.type) << tensor;
    EXPECT_EQ(type_of("up.bias"), "F32");
    seen.insert(type_of("up"));
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    for (const char* layer : {"embedding", "up", "down", "head"}) {
      std::string tensor;
      const std::vector<float> expected = values_of(model, layer, &tensor), got = opened->weights->find(tensor)->to_floats();
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected[i]) << tensor << " [" << i << "]";
    }
  }
  EXPECT_EQ(seen.size(), 14u) << "every block type";
  for (const TargetRow& row : table.rows) {
    if (row.sites.front() == SiteKind::kWeight) {
      EXPECT_TRUE(forms.count(row.form)) << row.form << " is not tested";
    }
  }
}

// A row of the file is an output channel, whatever order the graph's tensor has.
TEST_F(GgufTest, RowsAreOutputChannels) {
  const QuantizedModel model = quantize(network(), preset("gguf-q8_0"), {"up"});
  ASSERT_NO_FATAL_FAILURE(write(model));
  const gguf_in::File f = file();
  const gguf_in::Tensor &up = *f.find("up"), &down = *f.find("down"), &head = *f.find("head"), &table = *f.find("table");
  using Dims = std::vector<std::uint64_t>;
  EXPECT_EQ(up.dims, (Dims{256, 512})) << "in, out";
  EXPECT_EQ(down.dims, (Dims{512, 256}));
  EXPECT_EQ(head.dims, (Dims{256, 40})) << "float matrices too";
  EXPECT_EQ(table.dims, (Dims{256, 40}));
  const std::vector<float> expected = values_of(model, "up");  // [256, 512]
  gguf_in::Row row;
  gguf_in::decode(up.type, up.bytes.substr(7 * 256 / 32 * 34, 256 / 32 * 34), 256, row);
  for (std::size_t i = 0; i < 256; ++i) EXPECT_EQ(row.values[i], expected[i * 512 + 7]);
  for (const gguf_in::Tensor& t : f.tensors) EXPECT_EQ(t.offset % 32, 0u) << t.name;
  EXPECT_EQ(f.version, 3u);
  EXPECT_EQ(f.text("general.architecture"), "custom");
  EXPECT_EQ(std::get<std::uint64_t>(f.values.at("general.quantization_version")), 2u);
  EXPECT_EQ(std::get<std::uint64_t>(f.values.at("general.file_type")), 0u) << "most are floats";
  EXPECT_FALSE(f.find("rows")) << "integers are metadata";
  ASSERT_NO_FATAL_FAILURE(write(quantize(network(), preset("gguf-q8_0"))));
  EXPECT_EQ(std::get<std::uint64_t>(file().values.at("general.file_type")), 7u);
}

struct RefusalCase {
  const char* name;
  QuantSpec spec;
  const char* rule;
};

TEST_F(GgufTest, RefusesByRule) {
  constexpr auto kNone = ZeroPointType::kNone;
  QuantSpec nf4, fp8;
  nf4.format = "nf4";
  nf4.granularity = kGroup;
  nf4.scale = ScaleType::kFloat16;
  fp8.format = "float";
  fp8.scale = ScaleType::kFloat16;
  const RefusalCase cases[] = {
      {"float32 scales", export_net::spec(8, true, false, kNone, kTensor), "scale type"},
      {"groups of 16", integers(4, true, kNone, kGroup, 16), "group size"},
      {"groups of 48", integers(4, true, kNone, kGroup, 48), "group size"},
      {"9 bits", integers(9, true, kNone, kGroup), "bit width"},
      {"nf4", nf4, "number format"},
      {"fp8", fp8, "number format"},
      {"a fraction as zero point", integers(4, false, ZeroPointType::kFloat, kGroup), "zero point"},
      {"8 bits with an offset", integers(8, false, ZeroPointType::kOffset, kGroup), "bit width"},
      {"groups along outputs", changed(integers(4, true, kNone, kGroup), [](QuantSpec& s) { s.axis = 1; }), "blocks of scales"},
      {"channels along inputs", changed(integers(4, true, kNone, kChannel), [](QuantSpec& s) { s.axis = 0; }),
       "blocks of scales"},
      {"super-blocks of 128", changed(preset("gguf-q4_k"), [](QuantSpec& s) { s.scale_group = 4; }), "super-block scales"},
      {"scales of 8 bits in Q4_K", changed(preset("gguf-q4_k"), [](QuantSpec& s) { s.scale_bits = 8; }), "super-block scales"},
  };
  for (const RefusalCase& c : cases) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize(network(), c.spec, {"up"});
    const auto refusals = exporter().check(model, options());
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, c.rule) << refusals[0].text();
    EXPECT_EQ(refusals[0].layer, "up");
    EXPECT_EQ(refusals[0].quantizer, "weight");
    EXPECT_FALSE(refusals[0].got.empty() || refusals[0].allowed.empty() || refusals[0].suggestion.empty());
    if (!refusals[0].fix) continue;
    // The fix is one.
    const QuantizedModel mended = quantize(network(), *refusals[0].fix, {"up"});
    EXPECT_TRUE(exporter().check(mended, options()).empty());
  }
}

TEST_F(GgufTest, RefusesWhatTheNumbersDoNotFit) {
  // uint8 with zero points whose codes reach beyond int8.
  QuantSpec wide = integers(8, false, ZeroPointType::kInteger, kTensor);
  QuantizedModel model = quantize(network(), wide, {"up"});
  model.quantizers.begin()->second.zero_point = {10};
  auto refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "codes");
  model.quantizers.begin()->second.zero_point = {128};
  EXPECT_TRUE(exporter().check(model, options()).empty()) << "-128 to 127";

  // A pass that changed scales.
  model = quantize(network(), preset("gguf-q8_0"), {"up"});
  model.quantizers.begin()->second.scale[5] *= 1.0001f;
  refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "float16 scale");
  model = quantize(network(), preset("gguf-q6_k"), {"up"});
  model.quantizers.begin()->second.scale[5] *= 1.0001f;
  refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "super-block scales");

  // Row lengths.
  refusals = exporter().check(quantize(network(172, 96), preset("gguf-q4_0"), {"up", "down"}), options());
  ASSERT_EQ(refusals.size(), 1u) << "rows of 172 and of 96";
  EXPECT_EQ(refusals[0].rule, "row length");
  EXPECT_EQ(refusals[0].layer, "up");
  EXPECT_TRUE(refusals[0].float_fixes && !refusals[0].fix);
  EXPECT_NE(refusals[0].suggestion.find("float (F32 in the file)"), std::string::npos) << refusals[0].suggestion;
  // Another quantizer does not help where no block fits, whatever else is wrong.
  const QuantSpec wrong_scale = export_net::spec(4, true, false, ZeroPointType::kNone, kTensor);
  for (const Refusal& r : exporter().check(quantize(network(172, 96), wrong_scale, {"up"}),
                                           options({{"float_type", "f16"}, {"round_floats", true}})))
    EXPECT_TRUE(r.float_fixes && !r.fix) << r.text();
  refusals = exporter().check(quantize(network(256, 96), preset("gguf-q4_k"), {"up", "down"}), options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].layer, "down");
  EXPECT_EQ(refusals[0].rule, "row length");
  // Blocks of 32 hold what those of 256 do not, with no fewer bits.
  for (const auto& [super, smaller] : {std::pair{"gguf-q2_k", "gguf-q4_1"}, {"gguf-q3_k", "gguf-q4_0"}, {"gguf-q4_k", "gguf-q4_1"},
                                       {"gguf-q5_k", "gguf-q5_1"}, {"gguf-q6_k", "gguf-q8_0"}}) {
    SCOPED_TRACE(super);
    const auto said = exporter().check(quantize(network(256, 96), preset(super), {"down"}), options());
    ASSERT_EQ(said.size(), 1u);
    ASSERT_TRUE(said[0].fix);
    EXPECT_EQ(*said[0].fix, preset(smaller));
    EXPECT_NE(said[0].suggestion.find(smaller), std::string::npos) << said[0].suggestion;
    EXPECT_TRUE(exporter().check(quantize(network(256, 96), *said[0].fix, {"down"}), options()).empty());
    const auto never = exporter().check(quantize(network(256, 172), preset(super), {"down"}), options());
    ASSERT_EQ(never.size(), 1u);
    EXPECT_TRUE(never[0].float_fixes && !never[0].fix);
  }

  // Float matrices.
  model = quantize(network(), preset("gguf-q8_0"), {"up"});
  refusals = exporter().check(model, options({{"float_type", "f16"}}));
  ASSERT_EQ(refusals.size(), 3u) << "table, down, head";
  EXPECT_EQ(refusals[0].rule, "float values");
}

TEST_F(GgufTest, RoundingIsReportedAndNotCalledEqual) {
  const QuantizedModel model = quantize(network(), export_net::spec(8, true, false, ZeroPointType::kNone, kChannel));
  const json round = {{"scales", "round"}};
  ASSERT_NO_FATAL_FAILURE(write(model, round));
  EXPECT_EQ(type_of("up"), "Q8_0");
  const auto rows = audit(model, round);
  ASSERT_EQ(rows.size(), 4u);
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_TRUE(opened);
  for (const AuditRow& row : rows) {
    EXPECT_FALSE(row.equal) << row.layer;
    const auto at = row.written.find("within ");
    ASSERT_NE(at, std::string::npos) << row.written;
    std::string tensor;
    const std::vector<float> wanted = values_of(model, row.layer, &tensor), got = opened->weights->find(tensor)->to_floats();
    double largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])));
    EXPECT_NEAR(std::stod(row.written.substr(at + 7)), largest, 1e-5 * largest);
    EXPECT_GT(largest, 0);
    EXPECT_LT(largest, 0.5 * 0x1p-11 * 1.01) << "half a unit of float16 of the largest weight";
  }
  const auto back = exporter().read(model, path(), options(round), job);
  ASSERT_TRUE(back) << back.error().text();
  ASSERT_FALSE(back->notes.empty());
  EXPECT_NE(back->notes[0].find("Rounding moves weights by up to "), std::string::npos) << back->notes[0];
  EXPECT_EQ(exporter().table(options(round)).exactness, Exactness::kNear);
  EXPECT_EQ(exporter().table(options()).exactness, Exactness::kWeights);
}

TEST_F(GgufTest, FloatMatricesAsHalves) {
  const QuantizedModel model = quantize(network(), preset("gguf-q8_0"), {"up"});
  for (const auto& [type, name, unit] : {std::tuple{"f16", "F16", 0x1p-12}, {"bf16", "BF16", 0x1p-9}}) {
    const json given = {{"float_type", type}, {"round_floats", true}};
    ASSERT_NO_FATAL_FAILURE(write(model, given));
    EXPECT_EQ(type_of("head"), name);
    EXPECT_EQ(exporter().table(options(given)).exactness, Exactness::kNear);
    EXPECT_EQ(type_of("up.bias"), "F32");
    const auto rows = audit(model, given);
    EXPECT_EQ(rows.size(), 4u) << "the quantizer, and three matrices that changed";
    for (const AuditRow& row : rows) EXPECT_EQ(row.equal, row.layer == "up") << row.layer;
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened);
    const std::vector<float> wanted = model.model->weights->find("head")->to_floats(),
                             got = opened->weights->find("head")->to_floats();
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], unit * 0.5);
  }
  // Values that the type holds are not rounded.
  auto weights = std::make_shared<WeightStore>(*model.model->weights);
  for (const char* name : {"table", "down", "head"}) {
    std::vector<float> v = weights->find(name)->to_floats();
    for (float& x : v) x = std::nearbyint(x * 16) / 16;
    weights->set(name, TensorData::of_floats(weights->find(name)->shape, v));
  }
  QuantizedModel even = model;
  even.model = std::make_shared<const Model>(Model{model.model->graph, weights, ""});
  ASSERT_NO_FATAL_FAILURE(write(even, {{"float_type", "bf16"}}));
  EXPECT_TRUE(all_equal(audit(even, {{"float_type", "bf16"}})));
}

TEST_F(GgufTest, ActivationsAreLeftToTheReader) {
  QuantizedModel model = quantize(network(), preset("gguf-q4_0"));
  QuantSpec activation = export_net::spec(8, false, false, ZeroPointType::kInteger, kTensor);
  const auto layout = quant::make_layout(activation, {1, 1, 512}, 1);
  ASSERT_TRUE(layout);
  const NodeId down = model.model->graph->find("down")->id, up = model.model->graph->find("up")->id;
  model.quantizers[{down, SiteKind::kInput, 0}] = quant::params_from_range(activation, *layout, {-1}, {2});
  // A quantized bias is written as the floats that its codes stand for.
  const Layer* layer = nullptr;
  const auto layers = find_layers(*model.model->graph);
  layer = find_layer(layers, up);
  ASSERT_NE(layer, nullptr);
  model.quantizers[{up, SiteKind::kBias, 0}] = params_for(*model.model, *layer, {up, SiteKind::kBias, 0},
                                                          export_net::spec(8, true, false, ZeroPointType::kNone, kTensor));
  ASSERT_NO_FATAL_FAILURE(write(model));
  const auto rows = audit(model);
  EXPECT_EQ(rows.size(), 5u);
  EXPECT_TRUE(all_equal(rows)) << text_of(rows);
  for (const AuditRow& row : rows) {
    EXPECT_NE(row.quantizer, "input") << "the file does not hold it, so there is nothing to call equal";
    if (row.quantizer == "bias") {
      EXPECT_EQ(row.written, "F32");
    }
  }
  JobContext job;
  const auto back = exporter().read(model, path(), options(), job);
  ASSERT_TRUE(back) << back.error().text();
  ASSERT_EQ(back->quantizers.size(), 1u);
  EXPECT_EQ(back->quantizers.begin()->first, (Site{down, SiteKind::kInput, 0}));
  EXPECT_FALSE(back->notes.empty());
}

}  // namespace
}  // namespace quanvas
