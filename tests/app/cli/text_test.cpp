// Networks for text on the command line: data with a tokenizer, perplexity, quantization and export.
#include <cmath>

#include "tests/app/cli/program.h"
#include "tests/core/engine/text_files.h"

namespace quanvas {
namespace {

using testing::HasSubstr;
using testing_data::field;
using testing_data::raw_bytes;

constexpr std::uint64_t kVocabulary = 259, kWidth = 4, kFloat = 1, kInt64 = 7;

std::string tensor(const std::string& name, std::uint64_t rows, std::uint64_t columns, float amplitude) {
  std::string data;
  for (std::uint64_t i = 0; i < rows * columns; ++i)
    data += raw_bytes(amplitude * std::sin(static_cast<float>(i * i % 977) + static_cast<float>(columns)));
  return field(1, rows) + field(1, columns) + field(2, kFloat) + field(8, name) + field(9, data);
}

std::string node(const std::string& op, const std::vector<std::string>& inputs, const std::string& output) {
  std::string out;
  for (const auto& i : inputs) out += field(1, i);
  return out + field(2, output) + field(3, output) + field(4, op);
}

std::string value(const std::string& name, std::uint64_t type, const std::vector<std::uint64_t>& dims) {
  std::string shape;
  for (const std::uint64_t d : dims) shape += field(1, d == 0 ? field(2, std::string("n")) : field(1, d));
  return field(1, name) + field(2, field(1, field(1, type) + field(2, shape)));
}

// ids [n, 8] -> embedding -> linear layer with bias -> scores [n, 8, vocabulary]; amplitude 0: every token is as likely.
std::string network(float amplitude) {
  const std::string graph =
      field(1, node("Gather", {"table", "ids"}, "embedded")) + field(1, node("MatMul", {"embedded", "w"}, "product")) +
      field(1, node("Add", {"product", "b"}, "scores")) + field(2, std::string("text")) +
      field(5, tensor("table", kVocabulary, kWidth, 1)) + field(5, tensor("w", kWidth, kVocabulary, amplitude)) +
      field(5, tensor("b", 1, kVocabulary, amplitude)) + field(11, value("ids", kInt64, {0, 8})) +
      field(12, value("scores", kFloat, {0, 8, kVocabulary}));
  return field(1, std::uint64_t{8}) + field(7, graph) + field(8, field(2, std::uint64_t{13}));
}

TEST_F(Program, EvaluatesQuantizesAndExportsANetworkForText) {
  write("tokenizer.bin", testing_data::llama2c_file(testing_data::vocabulary({})));
  write("text.txt", "one two three|four five|six seven eight nine ten");
  for (const float amplitude : {0.0f, 2.0f}) {
    const std::string project = amplitude == 0 ? "even.quanvas" : "text.quanvas";
    write("text.onnx", network(amplitude));
    ASSERT_EQ(run({"new", "text.onnx", "--project", project}).code, 0);
    const Answer data = run({"data", project, "--split", "evaluate", "--reader", "text", "--data", "text.txt", "--tokenizer", "tokenizer.bin",
                             "--option", "separator=|"});
    ASSERT_EQ(data.code, 0) << data.err;
    const Answer evaluated = run({"evaluate", project});
    ASSERT_EQ(evaluated.code, 0) << evaluated.err;
    EXPECT_THAT(evaluated.out, HasSubstr(" tokens in "));
    if (amplitude == 0) {
      EXPECT_THAT(evaluated.out, HasSubstr("perplexity 259")) << "as many as there are tokens";
      continue;
    }
    EXPECT_THAT(evaluated.out, testing::Not(HasSubstr("perplexity 259")));
    const Answer quantized = run({"quantize", project, "--weights", "8", "--activations", "0", "--keep"});
    ASSERT_EQ(quantized.code, 0) << quantized.err;
    EXPECT_THAT(quantized.out, HasSubstr("perplexity "));
    const Answer exported = run({"export", project, "--target", "onnx-qdq", "--out", "out.onnx"});
    ASSERT_EQ(exported.code, 0) << exported.err;
    EXPECT_THAT(exported.out, HasSubstr("100"));
    EXPECT_TRUE(fs::exists(folder_ / "out.onnx"));
  }
}

}  // namespace
}  // namespace quanvas
