#include "plugins/importers/gguf_llama.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "plugins/importers/gguf_values.h"

namespace quanvas::gguf_in {
namespace {

constexpr std::int64_t kLongestTable = 16384;  // positions of the rotary embedding
constexpr std::int64_t kLargestSize = 1 << 24;
constexpr float kHidden = -1e9f;  // of scores: its exponential is 0
using Ints = std::vector<std::int64_t>;

class Maker {
 public:
  Maker(const File& file, const std::string& path, JobContext& job) : file_(file), path_(path), job_(job) {}

  Result<Model> run() {
    QUANVAS_CHECK(sizes());
    QUANVAS_CHECK(refuse_what_is_more());
    b_.set_name(file_.text("general.name").empty() ? "llama" : std::string(file_.text("general.name").substr(0, 200)));
    b_.set_opset(13);
    b_.tensor("ids", DataType::kInt64, Shape{-1, -1});
    b_.input("ids");
    QUANVAS_CHECK(matrix("token_embd.weight", embedding_, vocabulary_, false));
    // The tables are as wide as a head: the file must have heads of that size before memory is taken for them.
    QUANVAS_CHECK(found("blk.0.attn_q.weight", embedding_, heads_ * size_));
    constants();
    std::string x = node("token_embd", "Gather", {"token_embd.weight", "ids"}, line(embedding_));
    for (std::int64_t i = 0; i < blocks_; ++i) {
      QUANVAS_CHECK(job_.check());
      job_.progress("read", static_cast<double>(i) / static_cast<double>(blocks_), "block " + std::to_string(i));
      QUANVAS_TRY(x, block("blk." + std::to_string(i) + ".", x));
    }
    QUANVAS_TRY(const std::string last, norm("output_norm", x));
    if (file_.find("output.weight")) {
      QUANVAS_CHECK(matrix("output.weight", embedding_, vocabulary_, true));
    } else {
      tied();
    }
    b_.node("output", "MatMul", {last, "output.weight"}, {"logits"});
    b_.tensor("logits", DataType::kFloat, line(vocabulary_));
    b_.output("logits");
    for (const Tensor& t : file_.tensors)
      if (!used_.count(t.name)) return unsupported("the tensor '" + t.name.substr(0, 200) + "'");
    QUANVAS_TRY(GraphPtr graph, b_.build());
    return Model{std::move(graph), weights_, path_};
  }

 private:
  Failure unsupported(const std::string& what) const {
    return fail(ErrorCode::kUnsupported, "'" + path_ + "' is a Llama with " + what + ", which is not opened yet.",
                "Open the network's ONNX or TorchScript file.");
  }
  Failure corrupt(const std::string& what) const {
    return fail(ErrorCode::kCorrupt, "'" + path_ + "': " + what + ".", "Convert or copy the file again.");
  }

  std::optional<std::int64_t> integer(const std::string& key) const {
    const auto it = file_.values.find("llama." + key);
    if (it == file_.values.end()) return std::nullopt;
    if (const auto* u = std::get_if<std::uint64_t>(&it->second))
      return static_cast<std::int64_t>(std::min<std::uint64_t>(*u, INT64_MAX));
    if (const auto* i = std::get_if<std::int64_t>(&it->second)) return *i;
    return -1;
  }
  double real(const std::string& key, double fallback) const {
    const auto it = file_.values.find("llama." + key);
    const auto* v = it == file_.values.end() ? nullptr : std::get_if<double>(&it->second);
    return v ? *v : fallback;
  }

  Status sizes() {
    const Tensor* table = file_.find("token_embd.weight");
    if (!table || table->dims.size() != 2) return corrupt("the tensor 'token_embd.weight' is missing or no matrix");
    vocabulary_ = static_cast<std::int64_t>(table->dims[1]);
    const auto take = [&](const char* key, std::int64_t& out, std::optional<std::int64_t> fallback = {}) -> Status {
      out = integer(key).value_or(fallback.value_or(-1));
      if (out < 1 || out > kLargestSize) return corrupt(std::string("the key 'llama.") + key + "' is missing or no size");
      return {};
    };
    QUANVAS_CHECK(take("embedding_length", embedding_));
    QUANVAS_CHECK(take("block_count", blocks_));
    QUANVAS_CHECK(take("feed_forward_length", feed_forward_));
    QUANVAS_CHECK(take("attention.head_count", heads_));
    QUANVAS_CHECK(take("attention.head_count_kv", kv_heads_, heads_));
    QUANVAS_CHECK(take("attention.key_length", size_, embedding_ / heads_));
    QUANVAS_CHECK(take("context_length", context_, 2048));
    if (blocks_ > static_cast<std::int64_t>(file_.tensors.size())) return corrupt("it has fewer tensors than blocks");
    if (heads_ % kv_heads_ != 0 || size_ % 2 != 0 || heads_ * size_ > kLargestSize)
      return corrupt("its heads have no sizes that fit each other");
    epsilon_ = real("attention.layer_norm_rms_epsilon", 1e-5);
    base_ = real("rope.freq_base", 10000);
    if (!(epsilon_ >= 0 && epsilon_ < 1) || !(base_ > 1 && base_ < 1e30))
      return corrupt("its epsilon or rotary base is no such number");
    return {};
  }

  Status refuse_what_is_more() const {
    if (integer("attention.value_length").value_or(size_) != size_) return unsupported("values of another size than keys");
    if (integer("rope.dimension_count").value_or(size_) != size_)
      return unsupported("a rotary embedding of a part of each head");
    if (integer("expert_count").value_or(0) != 0) return unsupported("experts");
    const std::string_view scaling = file_.text("llama.rope.scaling.type");
    if (!scaling.empty() && scaling != "none") return unsupported("a scaled rotary embedding");
    if (real("rope.scale_linear", 1) != 1) return unsupported("a scaled rotary embedding");
    return {};
  }

  Shape line(std::int64_t features) const { return {-1, -1, features}; }

  Result<const Tensor*> found(const std::string& name, std::int64_t in, std::int64_t out) const {
    const Tensor* t = file_.find(name);
    if (!t) return corrupt("the tensor '" + name + "' is missing");
    if (t->dims != std::vector<std::uint64_t>{static_cast<std::uint64_t>(in), static_cast<std::uint64_t>(out)})
      return corrupt("the tensor '" + name + "' is not " + std::to_string(in) + " × " + std::to_string(out));
    return t;
  }
  // Of the file, transposed to [in, out] or as it is: [out, in].
  Status matrix(const std::string& name, std::int64_t in, std::int64_t out, bool transpose) {
    QUANVAS_TRY(const Tensor* const t, found(name, in, out));
    used_.insert(name);
    std::vector<float> values(static_cast<std::size_t>(in * out));
    const std::size_t bytes = t->bytes.size() / static_cast<std::size_t>(out);
    Row row;
    for (std::int64_t r = 0; r < out; ++r) {
      decode(t->type, t->bytes.substr(static_cast<std::size_t>(r) * bytes, bytes), t->columns(), row);
      for (std::int64_t c = 0; c < in; ++c)
        values[static_cast<std::size_t>(transpose ? c * out + r : r * in + c)] = row.values[static_cast<std::size_t>(c)];
    }
    set(name, transpose ? Shape{in, out} : Shape{out, in}, std::move(values));
    return {};
  }
  Status vector(const std::string& name, std::int64_t size) {
    const Tensor* t = file_.find(name);
    if (!t) return corrupt("the tensor '" + name + "' is missing");
    if (t->dims != std::vector<std::uint64_t>{static_cast<std::uint64_t>(size)})
      return corrupt("the tensor '" + name + "' is no vector of " + std::to_string(size));
    used_.insert(name);
    Row row;
    decode(t->type, t->bytes, t->columns(), row);
    set(name, {size}, std::move(row.values));
    return {};
  }
  void set(const std::string& name, Shape shape, std::vector<float> values) {
    b_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, TensorData::of_floats(std::move(shape), std::move(values)));
  }
  // Of llama.cpp's: without a matrix of its own the output has the embedding's.
  void tied() {
    const std::vector<float> table = weights_->find("token_embd.weight")->to_floats();
    std::vector<float> values(table.size());
    const auto rows = static_cast<std::size_t>(vocabulary_), columns = static_cast<std::size_t>(embedding_);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) values[c * rows + r] = table[r * columns + c];
    set("output.weight", {embedding_, vocabulary_}, std::move(values));
  }

  std::string ints(const std::string& name, Ints values, bool is_scalar = false) {
    const Shape shape = is_scalar ? Shape{} : Shape{static_cast<std::int64_t>(values.size())};
    if (!weights_->find(name)) {
      b_.initializer(name, DataType::kInt64, shape);
      weights_->set(name, TensorData::of_int64(shape, std::move(values)));
    }
    return name;
  }
  std::string node(const std::string& name, const std::string& op, std::vector<std::string> in, Shape shape,
                   Attributes attributes = {}, DataType type = DataType::kFloat) {
    const std::string out = name + "_out";
    b_.node(name, op, std::move(in), {out}, std::move(attributes));
    b_.tensor(out, type, std::move(shape));
    return out;
  }

  // Tables of the rotary embedding, and the mask, cut to the length of the ids.
  void constants() {
    const std::int64_t half = size_ / 2, positions = std::min({context_, kLongestTable, kLargestSize / half});
    if (positions < context_)
      job_.issue({Severity::kWarning, "",
                  "Texts of up to " + std::to_string(positions) + " tokens can be read; the file says " +
                      std::to_string(context_) + ".",
                  ""});
    std::vector<float> cos, sin;
    for (std::int64_t t = 0; t < positions; ++t)
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(t) * std::pow(base_, -2.0 * static_cast<double>(i) / static_cast<double>(size_));
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    set("rope.cos", {positions, half}, std::move(cos));
    set("rope.sin", {positions, half}, std::move(sin));
    set("mask.hidden", {}, {kHidden});
    set("mask.seen", {}, {0});
    const std::string shape = node("shape", "Shape", {"ids"}, {2}, {}, DataType::kInt64);
    const std::string length = node("length", "Gather", {shape, ints("one", {1}, true)}, {}, {}, DataType::kInt64);
    const std::string end = node("end", "Unsqueeze", {length, ints("axis_0", {0})}, {1}, {}, DataType::kInt64);
    for (const char* table : {"cos", "sin"}) {
      const std::string name = std::string("rope.") + table;
      const std::string cut = node(name + "_cut", "Slice", {name, ints("axis_0", {0}), end, ints("axis_0", {0})}, {-1, half});
      (table[0] == 'c' ? cos_ : sin_) = node(name + "_by_head", "Unsqueeze", {cut, ints("axis_1", {1})}, {-1, 1, half});
    }
    const std::string range =
        node("positions", "Range", {ints("zero", {0}, true), length, ints("one", {1}, true)}, {-1}, {}, DataType::kInt64);
    const std::string rows = node("mask.rows", "Unsqueeze", {range, ints("axis_1", {1})}, {-1, 1}, {}, DataType::kInt64);
    const std::string columns = node("mask.columns", "Unsqueeze", {range, ints("axis_0", {0})}, {1, -1}, {}, DataType::kInt64);
    const std::string later = node("mask.later", "Less", {rows, columns}, {-1, -1}, {}, DataType::kBool);
    mask_ = node("mask", "Where", {later, "mask.hidden", "mask.seen"}, {-1, -1});
    set("attention.scale", {}, {static_cast<float>(1 / std::sqrt(static_cast<double>(size_)))});
  }

  Result<std::string> norm(const std::string& name, const std::string& x) {
    QUANVAS_CHECK(vector(name + ".weight", embedding_));
    return node(name, "RMSNormalization", {x, name + ".weight"}, line(embedding_),
                {{"axis", std::int64_t{-1}}, {"epsilon", static_cast<float>(epsilon_)}});
  }
  Result<std::string> linear(const std::string& name, const std::string& x, std::int64_t in, std::int64_t out) {
    QUANVAS_CHECK(matrix(name + ".weight", in, out, true));
    std::vector<std::string> inputs = {x, name + ".weight"};
    if (file_.find(name + ".bias")) {
      QUANVAS_CHECK(vector(name + ".bias", out));
      inputs.push_back(name + ".bias");
    }
    return node(name, "MatMul", inputs, line(out));
  }

  // Neighbours 2i, 2i + 1 of each head are turned by the angle of their position.
  std::string rotate(const std::string& at, const std::string& x, std::int64_t heads) {
    const Shape pairs = {-1, -1, heads, size_ / 2, 2}, half = {-1, -1, heads, size_ / 2}, whole = {-1, -1, heads, size_};
    const std::string split =
        node(at + "pairs", "Reshape", {x, ints("pairs_of_" + std::to_string(heads), {0, 0, heads, size_ / 2, 2})}, pairs);
    const Attributes last = {{"axis", std::int64_t{4}}};
    const std::string a = node(at + "first", "Gather", {split, ints("zero", {0}, true)}, half, last);
    const std::string b = node(at + "second", "Gather", {split, ints("one", {1}, true)}, half, last);
    const std::string c =
        node(at + "a", "Sub", {node(at + "a_cos", "Mul", {a, cos_}, half), node(at + "b_sin", "Mul", {b, sin_}, half)}, half);
    const std::string d =
        node(at + "b", "Add", {node(at + "a_sin", "Mul", {a, sin_}, half), node(at + "b_cos", "Mul", {b, cos_}, half)}, half);
    const Shape one = {-1, -1, heads, size_ / 2, 1};
    const std::string turned = node(at + "joined", "Concat",
                                    {node(at + "a_1", "Unsqueeze", {c, ints("axis_4", {4})}, one),
                                     node(at + "b_1", "Unsqueeze", {d, ints("axis_4", {4})}, one)},
                                    pairs, {{"axis", std::int64_t{4}}});
    return node(at + "turned", "Reshape", {turned, ints("heads_of_" + std::to_string(heads), {0, 0, heads, size_})}, whole);
  }
  // Heads that share keys and values.
  std::string repeated(const std::string& at, const std::string& x) {
    const std::int64_t group = heads_ / kv_heads_;
    if (group == 1) return x;
    const std::string one = node(at + "1", "Unsqueeze", {x, ints("axis_3", {3})}, {-1, -1, kv_heads_, 1, size_});
    const std::string all =
        node(at + "repeated", "Expand", {one, ints("repetition", {1, 1, 1, group, 1})}, {-1, -1, kv_heads_, group, size_});
    return node(at + "all", "Reshape", {all, ints("all_heads", {0, 0, heads_, size_})}, {-1, -1, heads_, size_});
  }

  Result<std::string> block(const std::string& at, const std::string& x) {
    const std::int64_t wide = heads_ * size_, narrow = kv_heads_ * size_;
    QUANVAS_TRY(const std::string n, norm(at + "attn_norm", x));
    QUANVAS_TRY(const std::string q, linear(at + "attn_q", n, embedding_, wide));
    QUANVAS_TRY(const std::string k, linear(at + "attn_k", n, embedding_, narrow));
    QUANVAS_TRY(const std::string v, linear(at + "attn_v", n, embedding_, narrow));
    const std::string keys = repeated(at + "k_", rotate(at + "k_rope_", k, kv_heads_));
    const std::string values = repeated(
        at + "v_", node(at + "v_heads", "Reshape", {v, ints("heads_of_" + std::to_string(kv_heads_), {0, 0, kv_heads_, size_})},
                        {-1, -1, kv_heads_, size_}));
    const auto turn = [&](const std::string& name, const std::string& t, Ints perm, Shape shape) {
      return node(at + name, "Transpose", {t}, std::move(shape), {{"perm", std::move(perm)}});
    };
    const Shape square = {-1, heads_, -1, -1}, by_head = {-1, heads_, -1, size_};
    const std::string queries = turn("q_by_head", rotate(at + "q_rope_", q, heads_), {0, 2, 1, 3}, by_head);
    std::string s =
        node(at + "scores", "MatMul", {queries, turn("k_by_head", keys, {0, 2, 3, 1}, {-1, heads_, size_, -1})}, square);
    s = node(at + "scaled", "Mul", {s, "attention.scale"}, square);
    s = node(at + "masked", "Add", {s, mask_}, square);
    s = node(at + "probabilities", "Softmax", {s}, square, {{"axis", std::int64_t{-1}}});
    s = node(at + "mixed", "MatMul", {s, turn("v_by_head", values, {0, 2, 1, 3}, by_head)}, by_head);
    s = turn("by_token", s, {0, 2, 1, 3}, {-1, -1, heads_, size_});
    s = node(at + "heads_joined", "Reshape", {s, ints("joined", {0, 0, wide})}, line(wide));
    QUANVAS_TRY(const std::string attended, linear(at + "attn_output", s, wide, embedding_));
    const std::string h = node(at + "attn_sum", "Add", {x, attended}, line(embedding_));
    QUANVAS_TRY(const std::string m, norm(at + "ffn_norm", h));
    QUANVAS_TRY(const std::string gate, linear(at + "ffn_gate", m, embedding_, feed_forward_));
    QUANVAS_TRY(const std::string up, linear(at + "ffn_up", m, embedding_, feed_forward_));
    const std::string open = node(at + "ffn_sigmoid", "Sigmoid", {gate}, line(feed_forward_));
    const std::string silu = node(at + "ffn_silu", "Mul", {gate, open}, line(feed_forward_));
    const std::string product = node(at + "ffn_product", "Mul", {silu, up}, line(feed_forward_));
    QUANVAS_TRY(const std::string down, linear(at + "ffn_down", product, feed_forward_, embedding_));
    return node(at + "ffn_sum", "Add", {h, down}, line(embedding_));
  }

  const File& file_;
  const std::string& path_;
  JobContext& job_;
  GraphBuilder b_;
  std::shared_ptr<WeightStore> weights_ = std::make_shared<WeightStore>();
  std::set<std::string> used_;
  std::int64_t vocabulary_ = 0, embedding_ = 0, blocks_ = 0, feed_forward_ = 0, heads_ = 0, kv_heads_ = 0, size_ = 0,
               context_ = 0;
  double epsilon_ = 0, base_ = 0;
  std::string cos_, sin_, mask_;
};

}  // namespace

Result<Model> llama_network(const File& file, const std::string& path, JobContext& job) {
  return Maker(file, path, job).run();
}

}  // namespace quanvas::gguf_in
