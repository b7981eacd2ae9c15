// Small decoders of the architecture llama in several spellings, and their tokenizers, for the tests of the GGUF exporter.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/plugins/export_net.h"

namespace quanvas::llama_net {

using export_net::random_floats;
using Ints = std::vector<std::int64_t>;

struct Form {
  std::int64_t features = 64, heads = 4, kv_heads = 2, feed_forward = 96, blocks = 2, words = 320, tokens = 8;
  bool halves = false;  // rotary embedding of pairs (i, i + size/2)
  bool tied = false;    // the output's matrix is the embedding's table
  bool transposed = false;  // tied, by a node Transpose instead of a Gemm
  bool biases = false;  // of queries, keys, values and the attention's output
  double base = 10000;
  bool any_length = false;  // texts of any length up to `tokens`, which the tables serve
  // What llama.cpp does not compute.
  std::int64_t window = 0;  // a token sees so many, itself included; 0: all before it
  double position_factor = 1;  // positions are divided by it
  double slow_factor = 1;      // only frequencies below 1e-4 are
  std::int64_t still = 0;      // so many pairs of a head are not rotated
  bool causal = true, silu = true, plain_scale = true, residual = true;
  float second_epsilon = 1e-5f;
};

class Builder {
 public:
  explicit Builder(const Form& form) : f_(form), size_(form.features / form.heads) {}

  ModelPtr build() {
    b_.set_name("tiny llama");
    b_.set_opset(13);
    t_ = f_.any_length ? -1 : f_.tokens;
    b_.tensor("ids", DataType::kInt64, Shape{-1, t_});
    b_.input("ids");
    parameter("table", {f_.words, f_.features});
    tables();
    std::string x = node("Gather", {"table", "ids"}, {-1, t_, f_.features});
    for (int i = 0; i < f_.blocks; ++i) x = block(std::to_string(i) + ".", x);
    const std::string last = norm("last", x, 1e-5f);
    if (f_.tied && f_.transposed) {
      node_to("MatMul", {last, node("Transpose", {"table"}, {f_.features, f_.words}, {{"perm", Ints{1, 0}}})}, "logits",
              {-1, t_, f_.words});
    } else if (f_.tied) {
      // Gemm takes matrices only.
      const std::string rows = node("Reshape", {last, ints({-1, f_.features})}, {-1, f_.features});
      const std::string flat = node("Gemm", {rows, "table"}, {-1, f_.words}, {{"transB", std::int64_t{1}}});
      node_to("Reshape", {flat, ints({-1, f_.tokens, f_.words})}, "logits", {-1, t_, f_.words});
    } else {
      parameter("head", {f_.features, f_.words});
      node_to("MatMul", {last, "head"}, "logits", {-1, t_, f_.words});
    }
    b_.output("logits");
    auto graph = b_.build();
    if (!graph) throw std::runtime_error(graph.error().text());
    return std::make_shared<const Model>(Model{*graph, weights_, ""});
  }

 private:
  void parameter(const std::string& name, Shape shape) {
    b_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, random_floats(shape, ++seed_, shape.size() == 1 ? 0.2f : 0.3f));
  }
  std::string constant(Shape shape, std::vector<float> values) {
    const std::string name = "constant" + std::to_string(++count_);
    b_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, TensorData::of_floats(shape, std::move(values)));
    return name;
  }
  std::string ints(Ints values, bool is_scalar = false) {
    const std::string name = "ints" + std::to_string(++count_);
    const Shape shape = is_scalar ? Shape{} : Shape{static_cast<std::int64_t>(values.size())};
    b_.initializer(name, DataType::kInt64, shape);
    weights_->set(name, TensorData::of_int64(shape, std::move(values)));
    return name;
  }
  // What a Reshape is told: axes that are as they were where the length is open.
  std::string dims(Shape shape) {
    if (f_.any_length) shape[0] = shape[1] = 0;
    return ints(Ints(shape.begin(), shape.end()));
  }
  void node_to(const std::string& op, std::vector<std::string> in, const std::string& out, Shape shape, Attributes a = {}) {
    b_.node(op + std::to_string(++count_), op, std::move(in), {out}, std::move(a));
    b_.tensor(out, DataType::kFloat, std::move(shape));
  }
  std::string node(const std::string& op, std::vector<std::string> in, Shape shape, Attributes a = {}) {
    const std::string out = "t" + std::to_string(++count_);
    node_to(op, std::move(in), out, std::move(shape), std::move(a));
    return out;
  }
  std::string norm(const std::string& name, const std::string& x, float epsilon) {
    const std::string w = "norm." + name;
    b_.initializer(w, DataType::kFloat, {f_.features});
    std::vector<float> values = random_floats({f_.features}, ++seed_, 0.2f).to_floats();
    for (float& v : values) v += 1;
    weights_->set(w, TensorData::of_floats({f_.features}, values));
    return node("RMSNormalization", {x, w}, {-1, t_, f_.features}, {{"axis", std::int64_t{-1}}, {"epsilon", epsilon}});
  }
  std::string linear(const std::string& name, const std::string& x, std::int64_t in, std::int64_t out, bool bias = false) {
    parameter(name, {in, out});
    std::vector<std::string> inputs = {x, name};
    if (bias) parameter(name + ".bias", {out}), inputs.push_back(name + ".bias");
    return node("MatMul", inputs, {-1, t_, out});
  }

  void tables() {
    const std::int64_t columns = f_.halves ? size_ : size_ / 2;
    std::vector<float> cos, sin, mask;
    for (std::int64_t t = 0; t < f_.tokens; ++t)
      for (std::int64_t i = 0; i < columns; ++i) {
        const std::int64_t pair = i % (size_ / 2);
        double frequency = std::pow(f_.base, -2.0 * static_cast<double>(pair) / static_cast<double>(size_)) / f_.position_factor;
        if (frequency < 1e-4) frequency /= f_.slow_factor;
        if (pair >= size_ / 2 - f_.still) frequency = 0;
        const double angle = static_cast<double>(t) * frequency;
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    for (std::int64_t t = 0; t < f_.tokens; ++t)
      for (std::int64_t s = 0; s < f_.tokens; ++s)
        mask.push_back((f_.causal && s > t) || (f_.window > 0 && t - s >= f_.window) ? -std::numeric_limits<float>::infinity()
                                                                                     : 0.0f);
    cos_ = constant({f_.tokens, 1, columns}, cos);
    sin_ = constant({f_.tokens, 1, columns}, sin);
    mask_ = constant({f_.tokens, f_.tokens}, mask);
    if (!f_.any_length) return;
    const std::string shape = "shape", length = "length";
    b_.node("Shape", "Shape", {"ids"}, {shape});
    b_.tensor(shape, DataType::kInt64, Shape{2});
    b_.node("Length", "Slice", {shape, ints({1}), ints({2}), ints({0})}, {length});
    b_.tensor(length, DataType::kInt64, Shape{1});
    cos_ = node("Slice", {cos_, ints({0}), length, ints({0})}, {-1, 1, columns});
    sin_ = node("Slice", {sin_, ints({0}), length, ints({0})}, {-1, 1, columns});
    mask_ = node("Slice", {mask_, ints({0}), length, ints({0})}, {-1, f_.tokens});
    mask_ = node("Slice", {mask_, ints({0}), length, ints({1})}, {-1, -1});
  }

  std::string rotate(const std::string& flat, std::int64_t heads) {
    const Shape whole = {-1, t_, heads, size_}, half = {-1, t_, heads, size_ / 2};
    if (f_.halves) {
      const std::string x = node("Reshape", {flat, dims(whole)}, whole);
      const std::string a = node("Slice", {x, ints({0}), ints({size_ / 2}), ints({3})}, half);
      const std::string b =
          node("Slice", {x, ints({size_ / 2}), ints({std::numeric_limits<std::int64_t>::max()}), ints({3})}, half);
      const std::string turned = node("Concat", {node("Neg", {b}, half), a}, whole, {{"axis", std::int64_t{-1}}});
      return node("Add", {node("Mul", {x, cos_}, whole), node("Mul", {turned, sin_}, whole)}, whole);
    }
    const Shape pairs = {-1, t_, heads, size_ / 2, 2};
    const std::string x = node("Reshape", {flat, dims(pairs)}, pairs);
    const Attributes last = {{"axis", std::int64_t{4}}};
    const std::string a = node("Gather", {x, ints({0}, true)}, half, last),
                      b = node("Gather", {x, ints({1}, true)}, half, last);
    const std::string c = node("Sub", {node("Mul", {a, cos_}, half), node("Mul", {b, sin_}, half)}, half);
    const std::string d = node("Add", {node("Mul", {a, sin_}, half), node("Mul", {b, cos_}, half)}, half);
    Shape one = half;
    one.push_back(1);
    const std::string both = node("Concat", {node("Unsqueeze", {c, ints({-1})}, one), node("Unsqueeze", {d, ints({-1})}, one)},
                                  pairs, {{"axis", std::int64_t{-1}}});
    return node("Reshape", {both, dims(whole)}, whole);
  }

  // Keys and values of a group of heads: [N, tokens, heads, size].
  std::string repeated(const std::string& x) {
    const std::int64_t group = f_.heads / f_.kv_heads;
    if (group == 1) return x;
    const Shape wide = {-1, t_, f_.kv_heads, group, size_}, whole = {-1, t_, f_.heads, size_};
    const std::string one = node("Unsqueeze", {x, ints({3})}, {-1, t_, f_.kv_heads, 1, size_});
    const std::string all = node("Expand", {one, ints({1, 1, f_.kv_heads, group, size_})}, wide);
    return node("Reshape", {all, dims(whole)}, whole);
  }

  std::string block(const std::string& at, const std::string& x) {
    const Shape line = {-1, t_, f_.features}, by_head = {-1, f_.heads, t_, size_},
                square = {-1, f_.heads, t_, t_};
    const std::string n = norm(at + "first", x, 1e-5f);
    const std::int64_t kv = f_.kv_heads * size_;
    const std::string q = rotate(linear(at + "q", n, f_.features, f_.features, f_.biases), f_.heads);
    const std::string k = repeated(rotate(linear(at + "k", n, f_.features, kv, f_.biases), f_.kv_heads));
    const Shape kv_shape = {-1, t_, f_.kv_heads, size_};
    const std::string v =
        repeated(node("Reshape", {linear(at + "v", n, f_.features, kv, f_.biases), dims(kv_shape)}, kv_shape));
    const auto heads = [&](const std::string& t, Ints perm, Shape shape) {
      return node("Transpose", {t}, std::move(shape), {{"perm", perm}});
    };
    const std::string keys = heads(k, {0, 2, 3, 1}, {-1, f_.heads, size_, t_});
    const double scale = f_.plain_scale ? 1 / std::sqrt(static_cast<double>(size_)) : 0.5;
    std::string scores = node("MatMul", {heads(q, {0, 2, 1, 3}, by_head), keys}, square);
    scores = node("Mul", {scores, constant({}, {static_cast<float>(scale)})}, square);
    scores = node("Softmax", {node("Add", {scores, mask_}, square)}, square, {{"axis", std::int64_t{-1}}});
    const std::string mixed = node("MatMul", {scores, heads(v, {0, 2, 1, 3}, by_head)}, by_head);
    const std::string joined =
        node("Reshape", {heads(mixed, {0, 2, 1, 3}, {-1, t_, f_.heads, size_}), dims(line)}, line);
    const std::string out = linear(at + "o", joined, f_.features, f_.features, f_.biases);
    const std::string h = f_.residual ? node("Add", {x, out}, line) : node("Relu", {out}, line);
    const std::string m = norm(at + "second", h, f_.second_epsilon);
    const Shape wide = {-1, t_, f_.feed_forward};
    const std::string gate = linear(at + "gate", m, f_.features, f_.feed_forward),
                      up = linear(at + "up", m, f_.features, f_.feed_forward);
    const std::string open = f_.silu ? node("Mul", {gate, node("Sigmoid", {gate}, wide)}, wide) : node("Relu", {gate}, wide);
    return node("Add", {h, linear(at + "down", node("Mul", {open, up}, wide), f_.feed_forward, f_.features)}, line);
  }

  Form f_;
  std::int64_t size_, t_ = 0;
  GraphBuilder b_;
  std::shared_ptr<WeightStore> weights_ = std::make_shared<WeightStore>();
  std::string cos_, sin_, mask_;
  std::uint32_t seed_ = 0;
  int count_ = 0;
};

inline ModelPtr network(const Form& form) {
  return Builder(form).build();
}

// A tokenizer.bin of llama2.c with so many tokens.
inline std::string tokenizer(std::int64_t words) {
  std::string out;
  const auto put = [&](auto v) { out.append(reinterpret_cast<const char*>(&v), sizeof v); };
  put(std::int32_t{8});
  for (std::int64_t i = 0; i < words; ++i) {
    std::string text = i == 0 ? "<unk>" : i == 1 ? "\n<s>\n" : i == 2 ? "\n</s>\n" : " w" + std::to_string(i);
    if (i >= 3 && i < 259) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(i - 3));
      text = name;
    }
    put(-static_cast<float>(i));
    put(static_cast<std::int32_t>(text.size()));
    out += text;
  }
  return out;
}

// A SentencePiece model: pieces of these texts and types, and the trainer's model type.
inline std::string sentencepiece(const std::vector<std::pair<std::string, int>>& pieces, int model_type) {
  const auto field = [](int number, const std::string& payload) {
    return std::string(1, static_cast<char>(number * 8 + 2)) + static_cast<char>(payload.size()) + payload;
  };
  std::string out;
  for (const auto& [text, type] : pieces) {
    const float score = -1;
    std::string piece = field(1, text) + std::string(1, static_cast<char>(2 * 8 + 5));
    piece.append(reinterpret_cast<const char*>(&score), sizeof score);
    piece += std::string(1, static_cast<char>(3 * 8)) + static_cast<char>(type);
    out += field(1, piece);
  }
  return out + field(2, std::string(1, static_cast<char>(3 * 8)) + static_cast<char>(model_type));
}

}  // namespace quanvas::llama_net
