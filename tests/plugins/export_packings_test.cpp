// The packings of linear layers: words worked out by hand from the formats' descriptions, every row of the tables written,
// audited and opened again.
#include "plugins/importers/described_network.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
using Words = std::vector<std::uint32_t>;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class PackingTest : public WeightFileTest {};

std::vector<int> counted(std::int64_t n, int period, int first) {
  std::vector<int> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(first + static_cast<int>(i % period));
  return out;
}

// --- compressed-tensors, pack-quantized ---

TEST_F(PackingTest, FourBitWordsHoldEightCodesTheFirstLowest) {
  // -8 ... 7 twice; in the words they count from 0.
  const QuantizedModel model = with_codes(2, 16, ints(4, true, kChannel), false, counted(32, 16, -8));
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_packed"), (Words{0x76543210, 0xfedcba98, 0x76543210, 0xfedcba98}));
  EXPECT_EQ(values<std::int64_t>("fc.weight_shape"), (std::vector<std::int64_t>{2, 16}));
  EXPECT_EQ(values<float>("fc.weight_scale"), (std::vector<float>{1, 1}));
}

TEST_F(PackingTest, RowsBeginWithWordsOfTheirOwn) {
  // 9 inputs: the second word of each row has one code.
  const QuantizedModel model =
      with_codes(2, 9, ints(4, true, kChannel), false, {-8, -8, -8, -8, -8, -8, -8, -8, 7, 7, 7, 7, 7, 7, 7, 7, 7, -7});
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_packed"), (Words{0, 15, 0xffffffff, 1}));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model))) << text_of(audit("compressed-tensors", model));
  expect_reopens(model);
}

TEST_F(PackingTest, WidthsThatReadersDisagreeOnNeedTheirVersion) {
  // 11 codes of 3 bits, all 7 but the last, which is 5 (101): dense it begins at bit 30, padded in the next word.
  std::vector<int> codes(11, 3);
  codes[10] = 1;
  const QuantizedModel model = with_codes(1, 11, ints(3, true, kChannel), false, codes);
  EXPECT_EQ(rules(exporter("compressed-tensors").check(model, options("compressed-tensors", {}))),
            (std::set<std::string>{"packing"}));
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model, {{"packing", "dense"}}));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_packed"), (Words{0x3fffffffu | 1u << 30, 1}));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model, {{"packing", "dense"}})));
  expect_reopens(model);
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model, {{"packing", "padded"}}));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_packed"), (Words{0x3fffffffu, 5}));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model, {{"packing", "padded"}})));
  expect_reopens(model);
}

TEST_F(PackingTest, ZeroPointsArePackedAlongTheOutputs) {
  // Unsigned codes; zero points 0 ... 7 of eight rows in one word.
  const QuantizedModel model = with_codes(8, 8, ints(4, false, kChannel), true, counted(64, 16, 0), counted(8, 8, 0));
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_zero_point"), (Words{0x76543210}));
  EXPECT_EQ(values<std::uint32_t>("fc.weight_packed")[0], 0x76543210u);
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model))) << text_of(audit("compressed-tensors", model));
  expect_reopens(model);
}

TEST_F(PackingTest, UnsignedCodesAreMovedByHalfTheirRangeInBytes) {
  const QuantizedModel model = with_codes(2, 4, ints(8, false, kChannel), false, {0, 128, 255, 3, 4, 5, 6, 7}, {128, 0});
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model, {{"format", "int-quantized"}}));
  EXPECT_EQ(values<std::int8_t>("fc.weight"), (std::vector<std::int8_t>{-128, 0, 127, -125, -124, -123, -122, -121}));
  EXPECT_EQ(values<std::int8_t>("fc.weight_zero_point"), (std::vector<std::int8_t>{0, -128}));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model, {{"format", "int-quantized"}})));
  expect_reopens(model);
}

TEST_F(PackingTest, MxfpHasExponentsAndTheFirstCodeInTheLowNibble) {
  // e2m1: 0.5 is 0001, -6 is 1111, 1 is 0010, 3 is 0101.
  QuantizedModel model = with_codes(1, 32, ints(4, true, kGroup), false, std::vector<int>(32, 0));
  const float row[4] = {0.5f, -6, 1, 3};
  std::vector<float> w(32, 0.0f);
  for (int i = 0; i < 4; ++i) w[static_cast<std::size_t>(i)] = row[i] * 0.125f;
  auto weights = std::make_shared<WeightStore>();
  weights->set("fc.weight", TensorData::of_floats({1, 32}, w));
  model.model = std::make_shared<const Model>(Model{model.model->graph, weights, ""});
  QuantSpec spec = minifloat(2, 1, FloatSpecials::kNone, kGroup, 32);
  spec.scale = ScaleType::kPowerOfTwo;
  auto params = quant::find_params(spec, {1, 32}, w.data(), 1);
  ASSERT_TRUE(params);
  params->scale = {0.125f};
  model.quantizers.begin()->second = *params;
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  const auto packed = values<std::uint8_t>("fc.weight_packed");
  ASSERT_EQ(packed.size(), 16u);
  EXPECT_EQ(packed[0], 0xf1);
  EXPECT_EQ(packed[1], 0x52);
  EXPECT_EQ(values<std::uint8_t>("fc.weight_scale"), (std::vector<std::uint8_t>{127 - 3}));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model))) << text_of(audit("compressed-tensors", model));
  expect_reopens(model);
}

// --- GPTQ ---

TEST_F(PackingTest, GptqPacksDownTheInputsAndVersionsDifferInTheZeroPoint) {
  // [out 8, in 8], code = input index: one word per output; all zero points 8.
  const QuantizedModel model = with_codes(8, 8, half(ints(4, true, kChannel)), true, counted(64, 8, -8));
  ASSERT_NO_FATAL_FAILURE(write("gptq", model));
  EXPECT_EQ(values<std::uint32_t>("fc.qweight"), Words(8, 0x76543210));
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0x77777777}));
  EXPECT_EQ(values<std::uint16_t>("fc.scales"), std::vector<std::uint16_t>(8, 0x3c00));
  EXPECT_EQ(values<std::int32_t>("fc.g_idx"), std::vector<std::int32_t>(8, 0));
  EXPECT_TRUE(all_equal(audit("gptq", model)));
  ASSERT_NO_FATAL_FAILURE(write("gptq", model, {{"checkpoint_format", "gptq_v2"}}));
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0x88888888}));
  EXPECT_TRUE(all_equal(audit("gptq", model, {{"checkpoint_format", "gptq_v2"}})));
  // The first version's reader adds one: with the label of the other version the numbers are wrong, and the audit sees it.
  std::string config = *read_file(path("config.json"));
  config.replace(config.find("gptq_v2"), 7, "gptq");
  overwrite(config, "config.json");
  EXPECT_FALSE(all_equal(audit("gptq", model, {{"checkpoint_format", "gptq_v2"}})));
}

TEST_F(PackingTest, GptqOfThreeBitsFillsThreeWordsWithThirtyTwoCodes) {
  const QuantizedModel model = with_codes(32, 32, half(ints(3, true, kChannel)), false, counted(32 * 32, 8, -4));
  ASSERT_NO_FATAL_FAILURE(write("gptq", model));
  const auto words = values<std::uint32_t>("fc.qweight");
  ASSERT_EQ(words.size(), 3u * 32);
  // AutoGPTQ's three words, of codes 0 ... 7 again and again.
  const auto q = [](int i) { return static_cast<std::uint32_t>(i % 8); };
  std::uint32_t first = q(10) << 30, second = (q(10) >> 2 & 1) | q(21) << 31, third = q(21) >> 1 & 3;
  for (int j = 0; j < 10; ++j) {
    first |= q(j) << (3 * j);
    second |= q(11 + j) << (3 * j + 1);
    third |= q(22 + j) << (3 * j + 2);
  }
  EXPECT_EQ(first, 0x88fac688u);  // by hand: the bytes 88 c6 fa four times
  EXPECT_EQ(second, 0xc688fac6u);
  EXPECT_EQ(third, 0xfac688fau);
  for (std::size_t o = 0; o < 32; ++o) {
    EXPECT_EQ(words[o], first);
    EXPECT_EQ(words[32 + o], second);
    EXPECT_EQ(words[64 + o], third);
  }
  // 32 zero points 4, stored as 3 (011).
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0xdb6db6db, 0xb6db6db6, 0x6db6db6d}));
  EXPECT_TRUE(all_equal(audit("gptq", model)));
  expect_reopens(model);
}

TEST_F(PackingTest, GptqOfTheFirstVersionHasNoPlaceForTheLowestZeroPoint) {
  QuantizedModel model =
      with_codes(8, 8, half(ints(4, false, kChannel)), false, counted(64, 16, 0), {1, 2, 3, 4, 5, 6, 7, 0});
  EXPECT_EQ(rules(exporter("gptq").check(model, options("gptq", {}))), (std::set<std::string>{"zero point"}));
  ASSERT_NO_FATAL_FAILURE(write("gptq", model, {{"checkpoint_format", "gptq_v2"}}));
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0x07654321}));
  EXPECT_TRUE(all_equal(audit("gptq", model, {{"checkpoint_format", "gptq_v2"}})));
  model.quantizers.begin()->second.zero_point.back() = 15;
  ASSERT_NO_FATAL_FAILURE(write("gptq", model));
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0xe6543210}));
  expect_reopens(model);
}

// --- AWQ ---

TEST_F(PackingTest, AwqInterleavesEightOutputs) {
  // Output o has the code o everywhere, zero point 15 - o.
  std::vector<int> codes, zeros;
  for (int o = 0; o < 8; ++o) {
    for (int i = 0; i < 16; ++i) codes.push_back(o);
    zeros.push_back(15 - o);
  }
  const QuantizedModel model = with_codes(8, 16, half(ints(4, false, kChannel)), true, codes, zeros);
  ASSERT_NO_FATAL_FAILURE(write("awq", model));
  // Nibbles from the lowest: columns 0 2 4 6 1 3 5 7.
  EXPECT_EQ(values<std::uint32_t>("fc.qweight"), Words(16, 0x75316420));
  EXPECT_EQ(values<std::uint32_t>("fc.qzeros"), (Words{0x8ace9bdf}));
  EXPECT_TRUE(all_equal(audit("awq", model)));
  expect_reopens(model);
}

// --- every row of the tables ---

struct Row {
  const char* target;
  QuantSpec spec;
  json options;
};

TEST_F(PackingTest, EveryWidthAndGranularityIsExactAndOpensAgain) {
  std::vector<Row> rows;
  for (int bits = 1; bits <= 8; ++bits)
    for (const bool is_signed : {true, false})
      for (const auto granularity : {kTensor, kChannel, kGroup})
        for (const char* form : {"pack-quantized", "int-quantized"}) {
          if (granularity == kTensor && !is_signed && bits == 1) continue;
          rows.push_back({"compressed-tensors",
                          ints(bits, is_signed, granularity),
                          {{"format", form}, {"packing", bits % 2 ? "dense" : "padded"}}});
        }
  for (const int bits : {2, 3, 4, 8})
    for (const bool is_signed : {true, false})
      for (const auto granularity : {kTensor, kChannel, kGroup})
        rows.push_back(
            {"gptq", half(ints(bits, is_signed, granularity)), {{"checkpoint_format", is_signed ? "gptq" : "gptq_v2"}}});
  for (const bool is_signed : {true, false})
    for (const auto granularity : {kTensor, kChannel, kGroup})
      rows.push_back({"awq", half(ints(4, is_signed, granularity)), json::object()});
  QuantSpec narrow = ints(4, true, kChannel);
  narrow.narrow = true;
  rows.push_back({"compressed-tensors", narrow, json::object()});
  for (const auto granularity : {kTensor, kChannel, kGroup})
    rows.push_back({"compressed-tensors", minifloat(4, 3, FloatSpecials::kNan, granularity), json::object()});
  QuantSpec mx = minifloat(4, 3, FloatSpecials::kNan, kGroup, 32);
  mx.scale = ScaleType::kPowerOfTwo;
  rows.push_back({"compressed-tensors", mx, {{"format", "mxfp8-quantized"}}});
  mx.exponent_bits = 2;
  mx.mantissa_bits = 1;
  mx.specials = FloatSpecials::kNone;
  rows.push_back({"compressed-tensors", mx, json::object()});
  const ModelPtr net = linear_net::net();
  for (const Row& row : rows) {
    SCOPED_TRACE(std::string(row.target) + " " + describe(row.spec) + " " + row.options.dump());
    const QuantizedModel model = linear_net::quantize(net, row.spec);
    ASSERT_NO_FATAL_FAILURE(write(row.target, model, row.options));
    const auto audited = audit(row.target, model, row.options);
    EXPECT_EQ(audited.size(), model.quantizers.size());
    EXPECT_TRUE(all_equal(audited)) << text_of(audited);
    for (const AuditRow& r : audited) EXPECT_GT(r.bytes, 0) << r.layer;
    ASSERT_NO_FATAL_FAILURE(expect_reopens(model));
    JobContext job;
    const auto back = exporter(row.target).read(model, path(), options(row.target, row.options), job);
    ASSERT_TRUE(back) << back.error().text();
    for (const auto& [site, p] : model.quantizers) {
      const Layer layer = *find_layer(find_layers(*net->graph), site.node);
      const std::string& name = net->graph->tensor(layer.weight).name;
      const std::vector<float> x = net->weights->find(name)->to_floats();
      std::vector<float> wanted(x.size());
      quant::fake_quantize(p, p.layout, x.data(), wanted.data());
      EXPECT_EQ(back->model->weights->find(name)->to_floats(), wanted) << name;
    }
  }
}

// Scales that are a float8 divided by one number are exact, others are refused or, on request, rounded.
TEST_F(PackingTest, Nvfp4IsExactOrSaysHowFarItIsOff) {
  QuantSpec spec = minifloat(2, 1, FloatSpecials::kNone, kGroup, 16);
  spec.scale = ScaleType::kFloat8;
  const ModelPtr net = linear_net::net();
  QuantizedModel model = linear_net::quantize(net, spec);
  for (auto& [site, p] : model.quantizers)
    for (std::size_t i = 0; i < p.scale.size(); ++i)
      p.scale[i] = small_value(DataType::kFloat8E4M3Fn, static_cast<std::uint8_t>(40 + i % 60)) / 1024;
  model.quantizers.begin()->second.scale[0] = 448.0f / 1024;
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model))) << text_of(audit("compressed-tensors", model));
  expect_reopens(model);
  for (auto& [site, p] : model.quantizers)
    for (std::size_t i = 0; i < p.scale.size(); ++i) p.scale[i] = std::nextafter(p.scale[i], i % 2 ? 1.0f : 0.0f);
  EXPECT_EQ(rules(exporter("compressed-tensors").check(model, options("compressed-tensors", {}))),
            (std::set<std::string>{"scale"}));
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model, {{"scales", "round"}}));
  for (const AuditRow& row : audit("compressed-tensors", model, {{"scales", "round"}})) {
    EXPECT_FALSE(row.equal);
    EXPECT_NE(row.written.find("largest difference of a weight"), std::string::npos) << row.written;
  }
}

// --- sizes that no packing has ---

// A file's empty tensors fit a shape whose codes would end inside a word: nothing is read from them.
TEST_F(PackingTest, SizesThatFillNoWholeWordsAreRefused) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  QuantSpec mx = minifloat(2, 1, FloatSpecials::kNone, kGroup, 32);
  mx.scale = ScaleType::kPowerOfTwo;
  struct Row {
    const char* form;
    QuantSpec spec;
    Shape shape;  // [out, in]
    Shape codes, zeros;
  };
  const Row rows[] = {{"mxfp4-pack-quantized", mx, {1, 1}, {1, 0}, {}},
                      {"mxfp4-pack-quantized", mx, {kHuge, 1}, {kHuge, 0}, {}},
                      {"gptq", half(ints(4, true, kChannel)), {1, 1}, {0, 1}, {1, 0}},
                      {"gptq", half(ints(4, true, kChannel)), {1, 8}, {1, 1}, {1, 0}},
                      {"gptq", half(ints(4, true, kChannel)), {8, 7}, {0, 8}, {1, 1}},
                      {"awq", half(ints(4, false, kChannel)), {1, 4}, {4, 0}, {1, 0}},
                      {"awq", half(ints(4, false, kChannel)), {1, kHuge}, {kHuge, 0}, {1, 0}}};
  for (const Row& row : rows) {
    SCOPED_TRACE(std::string(row.form) + " " + shape_text(row.shape));
    described::Weight w;
    w.initializer = w.tensor = "fc";
    w.form = row.form;
    w.shape = row.shape;
    w.spec = row.spec;
    w.spec->axis = row.spec.granularity == kGroup ? 1 : 0;
    w.bits = 4;
    const auto source = [&](const std::string& name) -> Result<TensorData> {
      const std::string part = name.substr(name.find('.'));
      TensorData t;
      if (part == ".weight_packed") t.type = DataType::kUint8, t.shape = row.codes;
      if (part == ".qweight") t.type = DataType::kInt32, t.shape = row.codes;
      if (part == ".qzeros") t.type = DataType::kInt32, t.shape = row.zeros;
      if (part == ".weight_scale") t.type = DataType::kUint8, t.shape = {row.shape[0], 1};
      if (part == ".scales") t.type = DataType::kFloat16, t.shape = {1, row.shape[0]};
      if (part == ".g_idx") t.type = DataType::kInt32, t.shape = {row.shape[1]};
      if (element_count(t.shape) > 64) return t;  // of the tensors whose size is refused before they are read
      return TensorData::copy_of(t.type, t.shape, std::string(256, '\0').data(),
                                 static_cast<std::size_t>(element_count(t.shape)) * element_size(t.type));
    };
    const auto held = described::decode(source, w);
    ASSERT_FALSE(held);
    EXPECT_EQ(held.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(held.error().message.find("whole words"), std::string::npos) << held.error().message;
  }
}

}  // namespace
}  // namespace quanvas
