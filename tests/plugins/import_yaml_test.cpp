#include <cmath>

#include "core/graph/layers.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

Imported import_text(const std::string& text) {
  return import_bytes(text, "test.net.yaml");
}

TEST(NetworkYaml, EveryLayerTypeAndItsShape) {
  const Imported m = import_text(R"(
name: all
input: [2, 9, 8]
seed: 3
layers:
  - {op: conv, name: a, out: 4, kernel: [3, 2], stride: [2, 1], pad: [1, 0]}
  - {op: batchnorm, name: b, epsilon: 0.001}
  - {op: relu6, name: c}
  - {op: conv, name: d, out: 4, kernel: 3, pad: 1, group: 4, bias: false}
  - {op: add, name: e, with: c}
  - {op: maxpool, name: f, kernel: 2}
  - {op: avgpool, name: g, kernel: 2, stride: 1, pad: 1}
  - {op: globalavgpool, name: h}
  - {op: flatten, name: i}
  - {op: linear, name: j, out: 3}
  - {op: relu, name: k}
  - {op: linear, name: l, out: 2, bias: false, from: j}
  - {op: softmax, name: m}
)");
  ASSERT_TRUE(m.model) << m.model.error().text();
  const std::pair<const char*, const char*> shapes[] = {
      {"a_output", "?×4×5×7"}, {"b_output", "?×4×5×7"}, {"c_output", "?×4×5×7"}, {"d_output", "?×4×5×7"},
      {"e_output", "?×4×5×7"}, {"f_output", "?×4×2×3"}, {"g_output", "?×4×3×4"}, {"h_output", "?×4×1×1"},
      {"i_output", "?×4"},     {"j_output", "?×3"},     {"l_output", "?×2"},     {"m_output", "?×2"}};
  for (const auto& [tensor, shape] : shapes) EXPECT_EQ(m.shape(tensor), shape) << tensor;
  EXPECT_EQ(m.model->weights->find("d.weight")->shape, (Shape{4, 1, 3, 3}));
  EXPECT_EQ(m.model->weights->find("d.bias"), nullptr);
  EXPECT_EQ(m.model->weights->find("b.running_var")->to_floats(), std::vector<float>(4, 1.0f));
  EXPECT_FLOAT_EQ(m.graph().find("b")->real("epsilon", 0), 0.001f);
  EXPECT_EQ(m.model->weights->find("c.max")->to_floats(), std::vector<float>{6.0f});
  EXPECT_EQ(m.graph().tensor(m.graph().find("l")->input(0)).name, "j_output");
}

TEST(NetworkYaml, WeightsAreHeUniformAndRepeatable) {
  const auto text = [](int seed) {
    return "input: [64]\nseed: " + std::to_string(seed) + "\nlayers:\n  - {op: linear, name: fc, out: 500}\n";
  };
  const Imported a = import_text(text(1)), same = import_text(text(1)), other = import_text(text(2));
  ASSERT_TRUE(a.model && same.model && other.model);
  EXPECT_EQ(a.model->weights->hash(), same.model->weights->hash());
  EXPECT_NE(a.model->weights->hash(), other.model->weights->hash());
  const auto w = a.model->weights->find("fc.weight")->to_floats();
  const double bound = std::sqrt(6.0 / 64);
  double sum = 0, squares = 0, most = 0;
  for (const float v : w) {
    sum += v;
    squares += v * v;
    most = std::max(most, std::fabs(static_cast<double>(v)));
  }
  const auto n = static_cast<double>(w.size());
  EXPECT_LE(most, bound);
  EXPECT_GT(most, 0.99 * bound);
  EXPECT_NEAR(sum / n, 0, 5 * bound / std::sqrt(3 * n));
  EXPECT_NEAR(squares / n, 2.0 / 64, 0.001);  // variance 2 / fan-in
  // std::mt19937_64 seeded with 1 gives 2469588189546311528 first.
  EXPECT_FLOAT_EQ(w[0], static_cast<float>(
                            (2 * std::ldexp(static_cast<double>(2469588189546311528ull >> 11), -53) - 1) * bound));
  EXPECT_EQ(a.model->weights->find("fc.bias")->to_floats(), std::vector<float>(500, 0.0f));
}

struct Sample {
  const char* file;
  double parameters_low, parameters_high, most_macs;
  const char* layer;
};

TEST(NetworkYaml, TheSampleNetworks) {
  const Sample rows[] = {{"projects/lenet5/lenet5.net.yaml", 61706, 61706, 0.42e6, "conv2"},
                         {"projects/dscnn/dscnn.net.yaml", 10000, 20000, 3e6, "block1.dw_relu"}};
  for (const Sample& row : rows) {
    const Imported m = import_file(std::string(QUANVAS_SOURCE_DIR) + "/" + row.file);
    ASSERT_TRUE(m.model) << m.model.error().text();
    double macs = 0, parameters = 0;
    for (const Node& n : m.graph().nodes()) {
      macs += node_cost(m.graph(), n).macs;
      parameters += node_cost(m.graph(), n).parameters;
    }
    EXPECT_GE(parameters, row.parameters_low) << row.file;
    EXPECT_LE(parameters, row.parameters_high) << row.file;
    EXPECT_LE(macs, row.most_macs) << row.file;
    EXPECT_GT(macs, 0);
    EXPECT_NE(m.graph().find(row.layer), nullptr);
    EXPECT_EQ(shape_text(*m.graph().tensor(m.graph().inputs()[0]).shape), "?×1×28×28");
    EXPECT_EQ(shape_text(*m.graph().tensor(m.graph().outputs()[0]).shape), "?×10");
  }
}

struct Mistake {
  const char* layers;  // after "input: [2, 8, 8]\nlayers:\n", so the first line is line 3
  const char* message;
};

TEST(NetworkYaml, MistakesAreNamedWithTheirLine) {
  const Mistake rows[] = {
      {"  - {op: conv, name: a, kernel: 3}", "test.net.yaml:3: layer 'a': 'out' is missing"},
      {"  - {op: conv, name: a, out: 3}", "'kernel' is missing"},
      {"  - {op: relu, name: a}\n  - {op: conv, name: b, out: 0, kernel: 3}",
       "test.net.yaml:4: layer 'b': 'out' must be a whole number"},
      {"  - {op: conv, name: a, out: x, kernel: 3}", "'out' must be a whole number"},
      {"  - {op: conv, name: a, out: 4, kernel: 3, stride: 0}", "'stride'"},
      {"  - {op: conv, name: a, out: 4, kernel: [3]}", "[height, width]"},
      {"  - {op: conv, name: a, out: 4, kernel: 9}", "larger than the padded picture 8×8"},
      {"  - {op: conv, name: a, out: 3, kernel: 1, group: 2}", "does not divide"},
      {"  - {op: conv, name: a, out: 3, kernel: 1, colour: red}", "unknown key 'colour'"},
      {"  - {op: conv, name: a, out: 3, kernel: 1, bias: perhaps}", "true or false"},
      {"  - {op: convolution, name: a}", "no layer type 'convolution'"},
      {"  - {op: relu}", "no 'name'"},
      {"  - {name: a}", "the key 'op'"},
      {"  - relu", "the key 'op'"},
      {"  - {op: relu, name: a}\n  - {op: relu, name: a}", "used twice"},
      {"  - {op: relu, name: input}", "used twice"},
      {"  - {op: linear, name: a, out: 3}", "Put a flatten"},
      {"  - {op: flatten, name: a}\n  - {op: maxpool, name: b, kernel: 2}", "needs a picture"},
      {"  - {op: flatten, name: a}\n  - {op: globalavgpool, name: b}", "needs a picture"},
      {"  - {op: relu, name: a, from: later}", "no earlier layer 'later'"},
      {"  - {op: add, name: a}", "'with' is missing"},
      {"  - {op: add, name: a, with: a}", "no earlier layer 'a'"},
      {"  - {op: flatten, name: a}\n  - {op: add, name: b, with: input}", "which differ"},
      {"  - {op: maxpool, name: a, kernel: 2, pad: 2}", "smaller than the kernel"},
      {"  - {op: batchnorm, name: a, epsilon: -1}", "'epsilon'"},
      {"  - {op: conv, name: a, out: 65536, kernel: 1}\n  - {op: conv, name: b, out: 65536, kernel: 8}",
       "parameters"},
      {"  - {op: relu, name: a", "test.net.yaml:"},
      {"  - {op: relu, name: \"a\x80\"}", "test.net.yaml:3: this is no text in UTF-8"},
      {"  5", "'layers' must be a list"},
      {"", "'layers' must be a list"},
  };
  for (const Mistake& row : rows) {
    const Imported m = import_text(std::string("input: [2, 8, 8]\nlayers:\n") + row.layers + "\n");
    ASSERT_FALSE(m.model) << row.layers;
    EXPECT_EQ(m.model.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(m.model.error().text().find(row.message), std::string::npos)
        << row.layers << ": " << m.model.error().text();
  }
  for (const char* text :
       {"[]", "5", "a: b", "layers: []", "input: [0]\nlayers: [{op: relu, name: a}]", "input: [1, 2]\nlayers: []",
        "input: [1]\nseed: -1\nlayers: [{op: relu, name: a}]", "\t", "\xff\xfe", "{", "&a [*a]"}) {
    const Imported m = import_text(text);
    ASSERT_FALSE(m.model) << text;
    EXPECT_EQ(m.model.error().code, ErrorCode::kInvalidArgument) << m.model.error().text();
  }
}

TEST(NetworkYaml, EveryPrefixOfASampleEndsInASentenceOrANetwork) {
  std::ifstream in(std::string(QUANVAS_SOURCE_DIR) + "/projects/lenet5/lenet5.net.yaml");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  ASSERT_GT(text.size(), 100u);
  for (std::size_t n = 0; n < text.size(); n += 3) {
    const Imported m = import_text(text.substr(0, n));
    if (!m.model) {
      EXPECT_NE(m.model.error().code, ErrorCode::kInternal) << n << m.model.error().text();
    }
  }
}

}  // namespace
}  // namespace quanvas::import_test
