#include "plugins/exporters/gguf_write.h"

#include <algorithm>
#include <map>

#include "core/base/files.h"
#include "plugins/exporters/gguf_file.h"
#include "plugins/exporters/gguf_tokenizer.h"

namespace quanvas::gguf_file {
namespace {

constexpr std::uint32_t kQuantizationVersion = 2;  // of ggml's block formats

// The bytes of an initializer that stands in the metadata: as they are, or of a quantized bias its values.
Result<std::string> constant_bytes(const QuantizedModel& model, const Entry& e) {
  if (e.quantizer) {
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model, *e.quantizer));
    return std::string(reinterpret_cast<const char*>(stored.values.data()), stored.values.size() * sizeof(float));
  }
  const TensorData& data = *model.model->weights->find(e.original);
  return std::string(reinterpret_cast<const char*>(data.data), data.bytes);
}

std::string constant_key(std::size_t index) {
  return "quanvas.constant." + std::to_string(index);
}

// Which tensor of the file stands for which of the graph, and how its elements lie.
json contents(const QuantizedModel& model, const FilePlan& plan) {
  json out = json::array();
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const Entry& e = plan.tensors[i];
    const TensorData& data = *model.model->weights->find(e.original);
    json entry = {
        {"tensor", e.tensor}, {"shape", data.shape}, {"type", static_cast<int>(e.quantizer ? DataType::kFloat : data.type)}};
    if (!e.readers.empty()) entry["of"] = e.original, entry["readers"] = e.readers;
    if (e.in_metadata) {
      entry["key"] = constant_key(i);
    } else {
      entry["file"] = e.file_name;
      entry["order"] = e.view.order;
      if (e.view.heads > 0) entry["heads"] = e.view.heads;
    }
    out.push_back(std::move(entry));
  }
  return out;
}

// What most of the weights are.
std::uint32_t file_type(const FilePlan& plan) {
  std::map<Type, std::uint64_t> bytes;
  for (const Entry& e : plan.tensors)
    if (!e.in_metadata && e.dims.size() > 1) bytes[e.type] += static_cast<std::uint64_t>(element_count(e.dims));
  Type most = Type::kF32;
  std::uint64_t count = 0;
  for (const auto& [type, n] : bytes)
    if (n > count) most = type, count = n;
  return static_cast<std::uint32_t>(form_of(most).file_type);
}

void llama_metadata(const Llama& l, const Vocabulary& v, Metadata& out) {
  const auto u32 = [&](const char* key, int value) { out.u32(std::string("llama.") + key, static_cast<std::uint32_t>(value)); };
  u32("vocab_size", l.vocabulary);
  u32("context_length", l.context);
  u32("embedding_length", l.embedding);
  u32("block_count", l.blocks);
  u32("feed_forward_length", l.feed_forward);
  u32("attention.head_count", l.heads);
  u32("attention.head_count_kv", l.kv_heads);
  u32("attention.key_length", l.head_size);
  u32("attention.value_length", l.head_size);
  u32("rope.dimension_count", l.head_size);
  out.f32("llama.attention.layer_norm_rms_epsilon", l.epsilon);
  out.f32("llama.rope.freq_base", l.rope_base);
  out.text("tokenizer.ggml.model", "llama");
  out.text("tokenizer.ggml.pre", "default");
  out.texts("tokenizer.ggml.tokens", v.tokens);
  out.f32s("tokenizer.ggml.scores", v.scores);
  out.i32s("tokenizer.ggml.token_type", v.types);
  const auto id = [&](const char* key, int value) {
    if (value >= 0) out.u32(std::string("tokenizer.ggml.") + key, static_cast<std::uint32_t>(value));
  };
  id("unknown_token_id", v.unknown);
  id("bos_token_id", v.bos);
  id("eos_token_id", v.eos);
  out.boolean("tokenizer.ggml.add_bos_token", v.bos >= 0);
  out.boolean("tokenizer.ggml.add_eos_token", false);
  out.boolean("tokenizer.ggml.add_space_prefix", v.space_prefix);
}

Result<Metadata> metadata_of(const QuantizedModel& model, const FilePlan& plan, const Options& options) {
  Metadata out;
  out.text("general.architecture", plan.llama ? "llama" : "custom");
  out.text("general.name", plan.graph->name().empty() ? "network" : plan.graph->name());
  out.u32("general.alignment", static_cast<std::uint32_t>(kAlignment));
  out.u32("general.quantization_version", kQuantizationVersion);
  out.u32("general.file_type", file_type(plan));
  if (plan.llama) {
    QUANVAS_TRY(const Vocabulary vocabulary, read_vocabulary(options.tokenizer));
    llama_metadata(*plan.llama, vocabulary, out);
  } else {
    out.text("general.description",
             "Weights of a network that llama.cpp has no loader for (" + plan.not_llama + "). Written by Quanvas.");
  }
  out.text("quanvas.tensors", contents(model, plan).dump());
  if (!options.graph) return out;
  out.text("quanvas.graph", graph_to_json(*plan.graph).dump());
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    if (!plan.tensors[i].in_metadata) continue;
    QUANVAS_TRY(const std::string bytes, constant_bytes(model, plan.tensors[i]));
    out.bytes(constant_key(i), bytes);
  }
  return out;
}

void put(std::ostream& out, std::string_view bytes) {
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

Status write_tensor(const QuantizedModel& model, const Entry& e, const Options& options, std::ostream& out) {
  StoredTensor stored;
  if (e.quantizer) {
    QUANVAS_TRY(stored, stored_tensor(model, *e.quantizer));
  } else {
    stored.values = model.model->weights->find(e.original)->to_floats();
  }
  const bool blocks = form_of(e.type).block > 1;
  std::string bytes;
  for (std::int64_t r = 0; r < e.view.rows; ++r) {
    bytes.clear();
    if (blocks) {
      const auto row = Fitter(*e.quantizer->params, stored, e.view, options.round_scales).row(e.type, r);
      if (!row) return fail(ErrorCode::kInternal, "'" + e.tensor + "' no longer fits its GGUF type: " + row.error().rule + ".");
      pack(e.type, *row, bytes);
    } else {
      std::vector<float> values;
      for (const std::int64_t i : e.view.row(r)) values.push_back(stored.values[static_cast<std::size_t>(i)]);
      pack_floats(e.type, values.data(), values.size(), bytes);
    }
    put(out, bytes);
    if (!out) return {};  // the caller says why
  }
  put(out, std::string(padding(e.bytes), '\0'));
  return {};
}

}  // namespace

std::vector<Refusal> check_tokenizer(const FilePlan& plan, const Options& options) {
  const auto refuse = [](std::string got, const char* allowed, std::string what) {
    return std::vector<Refusal>{{{}, {}, "tokenizer", std::move(got), allowed, std::move(what), {}, {}, false}};
  };
  if (options.form == "llama" && options.tokenizer.empty())
    return refuse("none", "the network's tokenizer",
                  "Give a SentencePiece model or a tokenizer.bin of llama2.c, or write a container.");
  if (!plan.llama) return {};
  const auto vocabulary = read_vocabulary(options.tokenizer);
  if (!vocabulary) return refuse(vocabulary.error().message, "a tokenizer that can be read", vocabulary.error().hint);
  if (static_cast<int>(vocabulary->tokens.size()) != plan.llama->vocabulary)
    return refuse(std::to_string(vocabulary->tokens.size()) + " tokens", "as many as the embedding has rows",
                  "The embedding has " + std::to_string(plan.llama->vocabulary) + " rows: give the network's own tokenizer.");
  return {};
}

Status write_plan(const QuantizedModel& model, const FilePlan& plan, const Options& options, const std::string& path,
                  JobContext& job) {
  QUANVAS_TRY(const Metadata metadata, metadata_of(model, plan, options));
  std::vector<TensorInfoOut> infos;
  for (const Entry& e : plan.tensors) {
    if (e.in_metadata) continue;
    TensorInfoOut info{e.file_name, {}, static_cast<std::uint32_t>(e.type), e.bytes};
    for (auto d = e.dims.rbegin(); d != e.dims.rend(); ++d) info.dims.push_back(static_cast<std::uint64_t>(*d));
    infos.push_back(std::move(info));
  }
  return write_file_atomically(path, [&](std::ostream& out) -> Status {
    put(out, head(metadata, infos));
    std::size_t done = 0;
    for (const Entry& e : plan.tensors) {
      QUANVAS_CHECK(job.check());
      if (!e.in_metadata) QUANVAS_CHECK(write_tensor(model, e, options, out));
      if (!out) return {};
      job.progress("export", static_cast<double>(++done) / static_cast<double>(plan.tensors.size()), e.tensor);
    }
    return {};
  });
}

}  // namespace quanvas::gguf_file
