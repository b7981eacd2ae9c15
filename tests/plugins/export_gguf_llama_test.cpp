// GGUF files of the architecture llama: what is recognised however it is spelt, what is not, names and hyperparameters,
// rows that are paired anew, tokenizers.
#include <ATen/ATen.h>

#include <set>

#include "core/exec/runner.h"
#include "tests/plugins/export_gguf_net.h"
#include "tests/plugins/llama_net.h"

namespace quanvas {
namespace {

using namespace gguf_net;
using llama_net::Form;

class GgufLlamaTest : public GgufTest {
 protected:
  json llama(const std::string& tokenizer_bytes = llama_net::tokenizer(320)) const {
    std::ofstream(path("tokenizer.bin"), std::ios::binary) << tokenizer_bytes;
    return {{"form", "llama"}, {"tokenizer", path("tokenizer.bin")}};
  }
};

std::uint64_t number(const gguf_in::File& f, const std::string& key) {
  const auto it = f.values.find(key);
  return it == f.values.end() ? 0 : std::get<std::uint64_t>(it->second);
}
double real_number(const gguf_in::File& f, const std::string& key) {
  return std::get<double>(f.values.at(key));
}

Form with(const std::function<void(Form&)>& change) {
  Form f;
  change(f);
  return f;
}

const std::pair<const char*, Form> kForms[] = {
    {"neighbours, groups of 2", Form{}},
    {"neighbours, a key for each head", with([](Form& f) { f.kv_heads = 4; })},
    {"neighbours, one key", with([](Form& f) { f.kv_heads = 1; })},
    {"halves, groups of 2", with([](Form& f) { f.halves = true; })},
    {"halves, one key, biases", with([](Form& f) { f.halves = true, f.kv_heads = 1, f.biases = true; })},
    {"biases", with([](Form& f) { f.biases = true; })},
    {"another base", with([](Form& f) { f.base = 500000, f.halves = true; })},
    {"an uncommon base", with([](Form& f) { f.base = 75000; })},
    {"three blocks, one head", with([](Form& f) { f.blocks = 3, f.heads = f.kv_heads = 1; })},
    {"texts of any length", with([](Form& f) { f.any_length = true; })},
    {"texts of any length, halves, one key", with([](Form& f) { f.any_length = f.halves = true, f.kv_heads = 1; })},
    {"tied, a Gemm", with([](Form& f) { f.tied = true; })},
    {"a window as long as the text", with([](Form& f) { f.window = 8; })},
};

TEST_F(GgufLlamaTest, RecognisesEverySpellingAndKeepsEveryWeight) {
  for (const auto& [name, form] : kForms) {
    SCOPED_TRACE(name);
    const ModelPtr net = llama_net::network(form);
    const QuantizedModel model = quantize(net, preset("gguf-q8_0"));
    ASSERT_NO_FATAL_FAILURE(write(model, llama()));
    EXPECT_TRUE(all_equal(audit(model, llama()))) << text_of(audit(model, llama()));
    const gguf_in::File f = file();
    EXPECT_EQ(f.text("general.architecture"), "llama");
    EXPECT_EQ(number(f, "llama.block_count"), static_cast<std::uint64_t>(form.blocks));
    EXPECT_EQ(number(f, "llama.context_length"), 8u);
    EXPECT_EQ(number(f, "llama.embedding_length"), 64u);
    EXPECT_EQ(number(f, "llama.feed_forward_length"), 96u);
    EXPECT_EQ(number(f, "llama.attention.head_count"), static_cast<std::uint64_t>(form.heads));
    EXPECT_EQ(number(f, "llama.attention.head_count_kv"), static_cast<std::uint64_t>(form.kv_heads));
    EXPECT_EQ(number(f, "llama.rope.dimension_count"), static_cast<std::uint64_t>(64 / form.heads));
    EXPECT_NEAR(real_number(f, "llama.rope.freq_base"), form.base, 1e-6 * form.base);
    EXPECT_FLOAT_EQ(static_cast<float>(real_number(f, "llama.attention.layer_norm_rms_epsilon")), 1e-5f);
    std::set<std::string> wanted = {"token_embd.weight", "output_norm.weight"};
    if (!form.tied) wanted.insert("output.weight");
    for (int i = 0; i < form.blocks; ++i)
      for (const char* t : {"attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight",
                            "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", "attn_q.bias",
                            "attn_k.bias", "attn_v.bias", "attn_output.bias"})
        if (form.biases || !std::string_view(t).ends_with("bias")) wanted.insert("blk." + std::to_string(i) + "." + t);
    std::set<std::string> there;
    for (const gguf_in::Tensor& t : f.tensors) there.insert(t.name);
    EXPECT_EQ(there, wanted) << "llama.cpp refuses files with other tensors";
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    const Placement placement = place(model);
    for (const PlacedQuantizer& q : placement.quantizers) {
      const std::string& tensor = net->graph->tensor(q.tensor).name;
      EXPECT_EQ(opened->weights->find(tensor)->to_floats(), stored_tensor(model, q)->values) << tensor;
    }
    for (const char* constant : {"norm.0.first", "norm.last"})
      EXPECT_EQ(opened->weights->find(constant)->to_floats(), net->weights->find(constant)->to_floats());
  }
}

// llama.cpp rotates neighbours: of a network that rotates halves, row 2j of a head is its row j, row 2j + 1 its row
// size/2 + j.
TEST_F(GgufLlamaTest, RowsOfHalvesAreInterleaved) {
  const Form form = with([](Form& f) { f.halves = true, f.biases = true; });
  const ModelPtr net = llama_net::network(form);
  ASSERT_NO_FATAL_FAILURE(write({net, {}, {}}, llama()));
  const gguf_in::File f = file();
  gguf_in::Row row;
  for (const auto& [name, weight, heads] : {std::tuple{"attn_q", "0.q", 4}, {"attn_k", "0.k", 2}}) {
    const gguf_in::Tensor& t = *f.find(std::string("blk.0.") + name + ".weight");
    const std::vector<float> original = net->weights->find(weight)->to_floats();  // [64, heads * 16]
    const std::vector<float> bias = net->weights->find(std::string(weight) + ".bias")->to_floats();
    const gguf_in::Tensor& b = *f.find(std::string("blk.0.") + name + ".bias");
    const std::size_t columns = static_cast<std::size_t>(heads) * 16;
    for (std::size_t r = 0; r < columns; ++r) {
      const std::size_t head = r / 16, at = r % 16, source = head * 16 + at / 2 + (at % 2 ? 8 : 0);
      gguf_in::decode(t.type, t.bytes.substr(r * 256, 256), 64, row);
      for (std::size_t i = 0; i < 64; ++i) ASSERT_EQ(row.values[i], original[i * columns + source]) << name << " row " << r;
      float value = 0;
      std::memcpy(&value, b.bytes.data() + 4 * r, 4);
      EXPECT_EQ(value, bias[source]) << name << " bias " << r;
    }
  }
  gguf_in::decode(f.find("blk.0.attn_v.weight")->type, f.find("blk.0.attn_v.weight")->bytes.substr(256, 256), 64, row);
  EXPECT_EQ(row.values[3], net->weights->find("0.v")->to_floats()[3 * 32 + 1]) << "values stay";
  EXPECT_TRUE(exporter().audit({net, {}, {}}, path(), options(llama()))->empty()) << "no float differs";
}

const std::pair<const char*, Form> kOthers[] = {
    {"another attention", with([](Form& f) { f.causal = false; })},
    {"another attention", with([](Form& f) { f.plain_scale = false; })},
    {"no product with a SiLU", with([](Form& f) { f.silu = false; })},
    {"no blocks of attention", with([](Form& f) { f.residual = false; })},
    {"several epsilons", with([](Form& f) { f.second_epsilon = 1e-6f; })},
    {"no causal mask", with([](Form& f) { f.causal = false; })},
    {"a sliding window of 3 tokens", with([](Form& f) { f.window = 3; })},
    {"a sliding window of 3 tokens", with([](Form& f) { f.window = 3, f.any_length = true, f.tokens = 64; })},
    {"a scaled rotary embedding (positions divided by 4)", with([](Form& f) { f.position_factor = 4; })},
    {"positions divided by 8", with([](Form& f) { f.position_factor = 8, f.halves = f.any_length = true; })},
    // Beyond the tokens that tell one spelling from another.
    {"it has a sliding window of 40 tokens", with([](Form& f) { f.window = 40, f.any_length = true, f.tokens = 64; })},
    {"it has a sliding window of 63 tokens",
     with([](Form& f) { f.window = 63, f.any_length = f.halves = true, f.kv_heads = 1, f.tokens = 64; })},
    {"rotary embedding is scaled",
     with([](Form& f) { f.slow_factor = 8, f.base = 500000, f.any_length = true, f.tokens = 1024, f.heads = 2; })},
};

TEST_F(GgufLlamaTest, WhatLlamaCppDoesNotComputeIsAContainerOrRefused) {
  for (const auto& [reason, form] : kOthers) {
    SCOPED_TRACE(reason);
    const QuantizedModel model{llama_net::network(form), {}, {}};
    json given = llama();
    const auto refusals = exporter().check(model, options(given));
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, "Llama network");
    EXPECT_NE(refusals[0].got.find(reason), std::string::npos) << refusals[0].got;
    given["form"] = "auto";
    ASSERT_NO_FATAL_FAILURE(write(model, given));
    const gguf_in::File f = file();
    EXPECT_EQ(f.text("general.architecture"), "custom");
    EXPECT_NE(f.text("general.description").find(reason), std::string_view::npos);
    JobContext job;
    const auto back = exporter().read(model, path(), options(given), job);
    ASSERT_TRUE(back) << back.error().text();
    ASSERT_FALSE(back->notes.empty());
    EXPECT_NE(back->notes[0].find(reason), std::string::npos);
  }
  EXPECT_EQ(exporter().check({network(), {}, {}}, options(llama()))[0].rule, "Llama network");
}

// Tables that a graph cuts to the text's length end somewhere: that is the context the file promises.
TEST_F(GgufLlamaTest, TheContextIsWhatTheTablesServe) {
  const ModelPtr net = llama_net::network(with([](Form& f) { f.any_length = true, f.tokens = 23; }));
  ASSERT_NO_FATAL_FAILURE(write({net, {}, {}}, llama()));
  EXPECT_EQ(number(file(), "llama.context_length"), 23u);
}

TEST_F(GgufLlamaTest, TiedEmbeddingsAreOneTensorOrTwo) {
  for (const bool transposed : {false, true}) {
    const ModelPtr net = llama_net::network(with([&](Form& f) { f.tied = true, f.transposed = transposed; }));
    ASSERT_NO_FATAL_FAILURE(write({net, {}, {}}, llama()));
    EXPECT_TRUE(file().find("token_embd.weight"));
    EXPECT_FALSE(file().find("output.weight")) << "llama.cpp takes the table";
  }
  // Quantized for one of its readers only, it is there twice.
  const ModelPtr net = llama_net::network(with([](Form& f) { f.tied = true; }));
  QuantizedModel model = quantize(net, preset("gguf-q8_0"));
  std::erase_if(model.quantizers, [&](const auto& q) { return net->graph->find(q.first.node)->op == "Gather"; });
  ASSERT_NO_FATAL_FAILURE(write(model, llama()));
  ASSERT_TRUE(file().find("output.weight"));
  EXPECT_EQ(file().find("output.weight")->type, 8u);
  EXPECT_EQ(file().find("token_embd.weight")->type, 0u);
  EXPECT_TRUE(all_equal(audit(model, llama()))) << text_of(audit(model, llama()));
}

TEST_F(GgufLlamaTest, ALlamaWithoutATokenizerIsAContainer) {
  const QuantizedModel model{llama_net::network(Form{}), {}, {}};
  ASSERT_NO_FATAL_FAILURE(write(model));
  EXPECT_EQ(file().text("general.architecture"), "custom");
  ASSERT_NO_FATAL_FAILURE(write(model, {{"form", "container"}, {"tokenizer", "/no/such/file"}}));
  const auto refusals = exporter().check(model, options({{"form", "llama"}}));
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "tokenizer");
}

TEST_F(GgufLlamaTest, TokenizersAreWrittenOrRefused) {
  const QuantizedModel model{llama_net::network(Form{}), {}, {}};
  const std::string good = llama_net::tokenizer(320);
  std::vector<std::pair<std::string, int>> pieces = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
  while (pieces.size() < 320) pieces.emplace_back("\xe2\x96\x81p" + std::to_string(pieces.size()), 1);
  const std::pair<const char*, std::string> bad[] = {
      {"empty", ""},
      {"other bytes", "hello"},
      {"too few tokens", llama_net::tokenizer(319)},
      {"too many tokens", llama_net::tokenizer(321)},
      {"fewer tokens than bytes", llama_net::tokenizer(100)},
      {"ends early", good.substr(0, good.size() - 1)},
      {"unigram", llama_net::sentencepiece(pieces, 1)},
      {"half a model", llama_net::sentencepiece(pieces, 2).substr(0, 1000)},
  };
  for (const auto& [name, bytes] : bad) {
    SCOPED_TRACE(name);
    const auto refusals = exporter().check(model, options(llama(bytes)));
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, "tokenizer");
  }
  ASSERT_NO_FATAL_FAILURE(write(model, llama()));
  gguf_in::File f = file();
  const auto tokens = std::get<gguf_in::Array>(f.values.at("tokenizer.ggml.tokens"));
  ASSERT_EQ(tokens.texts.size(), 320u);
  EXPECT_EQ(tokens.texts[1], "<s>");
  EXPECT_EQ(tokens.texts[13], "<0x0A>");
  EXPECT_EQ(tokens.texts[300], "\xe2\x96\x81w300") << "a space is U+2581";
  const auto types = std::get<gguf_in::Array>(f.values.at("tokenizer.ggml.token_type"));
  std::vector<std::int32_t> kinds(320);
  std::memcpy(kinds.data(), types.bytes.data(), types.bytes.size());
  EXPECT_EQ(std::vector<std::int32_t>(kinds.begin(), kinds.begin() + 4), (std::vector<std::int32_t>{2, 3, 3, 6}));
  EXPECT_EQ(kinds[258], 6);
  EXPECT_EQ(kinds[259], 1);
  ASSERT_NO_FATAL_FAILURE(write(model, llama(llama_net::sentencepiece(pieces, 2))));
  f = file();
  EXPECT_EQ(std::get<gguf_in::Array>(f.values.at("tokenizer.ggml.tokens")).texts[5], "\xe2\x96\x81p5");
  EXPECT_EQ(number(f, "tokenizer.ggml.eos_token_id"), 2u);
}

// --- opened without a graph of its own ---

at::Tensor scores(const ModelPtr& model, const exec::QuantizerMap* quantizers, const std::vector<std::int64_t>& ids) {
  const auto runner = exec::Runner::create(model, quantizers);
  if (!runner) throw std::runtime_error(runner.error().text());
  const at::Tensor input = at::tensor(ids, at::kLong).view({-1, 8});
  const auto out = (*runner)->run({input});
  if (!out) throw std::runtime_error(out.error().text());
  return out->at(0).to(at::kDouble);
}

TEST_F(GgufLlamaTest, ALlamaWithoutAGraphIsANetworkThatComputesTheSame) {
  const std::vector<std::int64_t> ids = {1, 300, 17, 42, 42, 319, 5, 260, 1, 2, 3, 4, 5, 6, 7, 8};  // two texts
  for (const auto& [name, form] : kForms) {
    SCOPED_TRACE(name);
    const QuantizedModel model = quantize(llama_net::network(form), preset("gguf-q4_0"));
    json given = llama();
    given["graph"] = false;
    ASSERT_NO_FATAL_FAILURE(write(model, given));
    JobContext job;
    auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    const auto network = std::make_shared<const Model>(std::move(*opened));
    const at::Tensor ours = scores(model.model, &model.quantizers, ids), theirs = scores(network, nullptr, ids);
    ASSERT_EQ(ours.sizes(), theirs.sizes());
    EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-4 * ours.abs().max().item<double>());
    // It is recognised again, and its tensors are the same.
    const gguf_in::File first = file();
    const QuantizedModel again = quantize(network, preset("gguf-q4_0"));
    ASSERT_NO_FATAL_FAILURE(write(again, given));
    const gguf_in::File second = file();
    // Opened, tied embeddings are a table and a matrix.
    ASSERT_EQ(first.tensors.size() + (form.tied ? 1u : 0u), second.tensors.size());
    for (const char* key :
         {"llama.attention.head_count", "llama.attention.head_count_kv", "llama.block_count", "llama.feed_forward_length"})
      EXPECT_EQ(number(first, key), number(second, key)) << key;
    EXPECT_NEAR(real_number(first, "llama.rope.freq_base"), real_number(second, "llama.rope.freq_base"), 1e-3);
    for (const gguf_in::Tensor& t : first.tensors) {
      const gguf_in::Tensor* other = second.find(t.name);
      ASSERT_NE(other, nullptr) << t.name;
      EXPECT_EQ(t.bytes, other->bytes) << t.name << ": values of a grid are on the same grid";
    }
  }
}

TEST_F(GgufLlamaTest, DamagedLlamasAreErrorsNotCrashes) {
  json given = llama();
  given["graph"] = false;
  ASSERT_NO_FATAL_FAILURE(write({llama_net::network(with([](Form& f) { f.biases = true; })), {}, {}}, given));
  const std::string good = *read_file(path());
  JobContext job;
  int refused = 0;
  for (const char* key : {"vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
                          "rope.dimension_count", "attention.layer_norm_rms_epsilon", "rope.freq_base"})
    for (const std::uint32_t value : {0u, 1u, 3u, 24u, 1u << 24, 0x7f800000u, 0x7fc00000u, 0x80000000u, 0xffffffffu}) {
      const std::string name = std::string("llama.") + key;
      std::string bad = good;
      const std::size_t at = bad.find(name);
      ASSERT_NE(at, std::string::npos) << key;
      std::memcpy(&bad[at + name.size() + 4], &value, sizeof value);
      std::ofstream(path(), std::ios::binary) << bad;
      const auto opened = import_model(path(), job);
      refused += !opened;
      if (!opened) {
        EXPECT_FALSE(opened.error().message.empty());
      }
    }
  EXPECT_GT(refused, 60);
  for (const char* name :
       {"blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output_norm.weight", "token_embd.weight", "blk.1.attn_k.bias"}) {
    std::string bad = good;
    bad[bad.rfind(name) + 3] = 'x';
    std::ofstream(path(), std::ios::binary) << bad;
    EXPECT_FALSE(import_model(path(), job)) << name;
  }
}

}  // namespace
}  // namespace quanvas
