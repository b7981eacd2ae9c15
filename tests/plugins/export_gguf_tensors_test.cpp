// Tensors of GGUF files: shared ones, kernels, names, constants of every type; files without their graph.
#include <random>

#include "tests/plugins/export_gguf_net.h"

namespace quanvas {
namespace {

using namespace gguf_net;

TEST_F(GgufTest, WithoutTheGraphTheScreensIsUsed) {
  const QuantizedModel model = quantize(network(), preset("gguf-q4_1"));
  ASSERT_NO_FATAL_FAILURE(write(model, {{"graph", false}}));
  EXPECT_TRUE(all_equal(audit(model, {{"graph", false}})));
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(opened.error().message.find("custom"), std::string::npos) << opened.error().text();
  const auto back = exporter().read(model, path(), options(), job);
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ(back->model->weights->find("up")->to_floats(), values_of(model, "up"));
  EXPECT_EQ(back->model->weights->find("rows")->to_int64(), model.model->weights->find("rows")->to_int64());
}

// One table, read as an embedding and as the output's matrix.
TEST_F(GgufTest, ATensorWithTwoQuantizersIsTwoTensors) {
  const ModelPtr tied = network(256, 512, true);
  for (const bool both : {false, true}) {
    QuantizedModel model = quantize(tied, preset("gguf-q4_0"), {"head"});
    if (both)
      for (const auto& [site, params] : quantize(tied, preset("gguf-q8_0"), {"embedding"}).quantizers)
        model.quantizers[site] = params;
    ASSERT_NO_FATAL_FAILURE(write(model));
    EXPECT_TRUE(all_equal(audit(model))) << text_of(audit(model));
    EXPECT_EQ(type_of("table"), both ? "Q8_0" : "F32");
    EXPECT_EQ(type_of("table_2"), "Q4_0");
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    const Node* head = opened->graph->find("head");
    ASSERT_NE(head, nullptr);
    EXPECT_EQ(opened->graph->tensor(head->input(1)).name, "table_2");
    EXPECT_EQ(opened->weights->find("table_2")->to_floats(), values_of(model, "head"));
    const auto back = exporter().read(model, path(), options({{"graph", false}}), job);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->model->weights->find("table_2")->to_floats(), values_of(model, "head"));
  }
  QuantizedModel same = quantize(tied, preset("gguf-q4_0"), {"embedding", "head"});
  ASSERT_NO_FATAL_FAILURE(write(same));
  EXPECT_EQ(type_of("table_2"), "missing") << "equal quantizers share one tensor";
  EXPECT_TRUE(all_equal(audit(same)));
}

TEST_F(GgufTest, LongNamesAreShortenedToUniqueOnes) {
  const std::string prefix(70, 'n');
  const QuantizedModel model = quantize(network(256, 512, false, prefix), preset("gguf-q4_0"));
  ASSERT_NO_FATAL_FAILURE(write(model));
  const gguf_in::File f = file();
  EXPECT_EQ(f.tensors.size(), 5u);
  for (const gguf_in::Tensor& t : f.tensors) EXPECT_LE(t.name.size(), 63u);
  EXPECT_TRUE(all_equal(audit(model)));
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_NE(opened->weights->find(prefix + "up"), nullptr);
}

TEST_F(GgufTest, KernelsAsRowsHaveInputChannelsFastest) {
  GraphBuilder b;
  b.set_name("conv");
  b.set_opset(13);
  auto weights = std::make_shared<WeightStore>();
  b.tensor("x", DataType::kFloat, Shape{-1, 32, 6, 6});
  b.input("x");
  b.initializer("w", DataType::kFloat, {5, 32, 3, 3});
  weights->set("w", random_floats({5, 32, 3, 3}, 1));
  b.initializer("t", DataType::kFloat, {32, 4, 2, 2});
  weights->set("t", random_floats({32, 4, 2, 2}, 2));
  b.node("conv", "Conv", {"x", "w"}, {"y"}, {{"kernel_shape", std::vector<std::int64_t>{3, 3}}});
  b.node("transposed", "ConvTranspose", {"x", "t"}, {"z"}, {{"kernel_shape", std::vector<std::int64_t>{2, 2}}});
  for (const char* out : {"y", "z"}) {
    b.tensor(out, DataType::kFloat, Shape{-1, 5, -1, -1});
    b.output(out);
  }
  auto graph = b.build();
  ASSERT_TRUE(graph);
  const auto net = std::make_shared<const Model>(Model{*graph, weights, ""});
  const QuantizedModel model = quantize(net, preset("gguf-q4_0"));
  ASSERT_EQ(model.quantizers.size(), 2u);
  const auto refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 2u);
  EXPECT_EQ(refusals[0].rule, "convolution kernel");
  const json rows = {{"conv", "rows"}};
  ASSERT_NO_FATAL_FAILURE(write(model, rows));
  EXPECT_TRUE(all_equal(audit(model, rows))) << text_of(audit(model, rows));
  const gguf_in::File f = file();
  EXPECT_EQ(f.find("w")->dims, (std::vector<std::uint64_t>{288, 5}));
  EXPECT_EQ(f.find("t")->dims, (std::vector<std::uint64_t>{128, 4}));
  gguf_in::Row row;
  gguf_in::decode(f.find("w")->type, f.find("w")->bytes.substr(0, 9 * 18), 288, row);
  const std::vector<float> values = values_of(model, "conv");
  for (std::size_t k = 0; k < 9; ++k)
    for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(row.values[k * 32 + i], values[i * 9 + k]);
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_EQ(opened->weights->find("w")->to_floats(), values);
  EXPECT_EQ(opened->weights->find("t")->to_floats(), values_of(model, "transposed"));
  // Float kernels keep their axes.
  ASSERT_NO_FATAL_FAILURE(write(quantize(net, preset("gguf-q4_0"), {"conv"}), rows));
  EXPECT_EQ(file().find("t")->dims, (std::vector<std::uint64_t>{2, 2, 4, 32}));
}

// Whatever an initializer is, a tensor of the file or bytes of its metadata.
TEST_F(GgufTest, EveryInitializerComesBackBitForBit) {
  struct Case {
    DataType type;
    Shape shape;
    bool is_tensor;
  };
  const Case cases[] = {{DataType::kFloat, {3, 5}, true},
                        {DataType::kFloat16, {3, 5}, true},
                        {DataType::kBfloat16, {7}, true},
                        {DataType::kFloat, {}, false},
                        {DataType::kFloat, {2, 1, 3, 2, 2}, false},
                        {DataType::kFloat, {0, 4}, false},
                        {DataType::kDouble, {3}, false},
                        {DataType::kInt64, {2, 2}, false},
                        {DataType::kInt32, {5}, false},
                        {DataType::kUint8, {5}, false},
                        {DataType::kBool, {3}, false},
                        {DataType::kInt4, {5}, false},
                        {DataType::kFloat8E4M3Fn, {3}, false},
                        {DataType::kUint64, {1}, false},
                        {DataType::kFloat, {2, 3, 2, 2}, true}};
  GraphBuilder b;
  b.set_name("constants");
  b.set_opset(13);
  b.tensor("x", DataType::kFloat, Shape{1});
  b.input("x");
  b.node("same", "Identity", {"x"}, {"y"});
  b.tensor("y", DataType::kFloat, Shape{1});
  b.output("y");
  auto weights = std::make_shared<WeightStore>();
  std::mt19937 random(5);
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const std::string name = "c" + std::to_string(i), out = "o" + std::to_string(i);
    const std::int64_t count = element_count(cases[i].shape);
    std::string bytes(is_small_type(cases[i].type) ? bytes_of(cases[i].type, count)
                                                   : static_cast<std::size_t>(count) * element_size(cases[i].type),
                      '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 0x7c);  // no NaN, whose payload conversions may change
    weights->set(name, TensorData::copy_of(cases[i].type, cases[i].shape, bytes.data(), bytes.size()));
    b.initializer(name, cases[i].type, cases[i].shape);
    b.node("n" + std::to_string(i), "Identity", {name}, {out});
    b.tensor(out, cases[i].type, cases[i].shape);
    b.output(out);
  }
  auto graph = b.build();
  ASSERT_TRUE(graph) << graph.error().text();
  const QuantizedModel model{std::make_shared<const Model>(Model{*graph, weights, ""}), {}, {}};
  ASSERT_NO_FATAL_FAILURE(write(model));
  EXPECT_TRUE(audit(model).empty()) << text_of(audit(model));
  const gguf_in::File f = file();
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_EQ(opened->graph->hash(), model.model->graph->hash());
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const std::string name = "c" + std::to_string(i);
    SCOPED_TRACE(std::string(type_name(cases[i].type)) + " " + shape_text(cases[i].shape));
    EXPECT_EQ(f.find(name) != nullptr, cases[i].is_tensor);
    const TensorData *mine = weights->find(name), *theirs = opened->weights->find(name);
    ASSERT_NE(theirs, nullptr);
    EXPECT_EQ(theirs->type, mine->type);
    EXPECT_EQ(theirs->shape, mine->shape);
    EXPECT_EQ(theirs->content_hash(), mine->content_hash());
  }
}

TEST_F(GgufTest, QuantizersWithoutAPlaceAndTextsAreRefused) {
  QuantizedModel model = quantize(network(), preset("gguf-q4_0"));
  model.quantizers[{12345, SiteKind::kWeight, 0}] = model.quantizers.begin()->second;
  auto refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "place of a quantizer");
  model = quantize(network(), preset("gguf-q4_0"));
  auto weights = std::make_shared<WeightStore>(*model.model->weights);
  weights->set("up.bias", TensorData::copy_of(DataType::kString, {512}, "", 0));
  model.model = std::make_shared<const Model>(Model{model.model->graph, weights, ""});
  refusals = exporter().check(model, options());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "element type");
  // Weights that are not those which the quantizers were found on.
  weights = std::make_shared<WeightStore>(*network()->weights);
  weights->set("up", random_floats({8, 8}, 1));
  model.model = std::make_shared<const Model>(Model{network()->graph, weights, ""});
  EXPECT_FALSE(exporter().check(model, options()).empty());
}

}  // namespace
}  // namespace quanvas
