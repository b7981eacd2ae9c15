// Targets: GGUF files, as models and as what the audit reads, and the tokenizers that go into them.
#include "plugins/exporters/gguf_tokenizer.h"
#include "tests/fuzz/exported.h"
#include "tests/plugins/llama_net.h"

namespace quanvas::fuzz {
namespace {

ModelPtr rows_of(std::int64_t columns) {
  static std::map<std::int64_t, ModelPtr> all;
  ModelPtr& model = all[columns];
  if (!model) model = linear_model(columns, 2);
  return model;
}
// The layer that fills whole blocks alone.
QuantizedModel in_blocks(const std::string& type, std::int64_t columns) {
  const ModelPtr model = rows_of(columns);
  QuantizedModel out = with_weights(model, preset("gguf-" + type));
  const NodeId head = model->graph->find("/head/MatMul")->id;
  std::erase_if(out.quantizers, [&](const auto& q) { return q.first.node == head; });
  return out;
}
Exported blocks(const std::string& type, std::int64_t columns) {
  return {"gguf", {{"scales", "round"}}, in_blocks(type, columns)};
}

ModelPtr llama() {
  static const ModelPtr model = [] {
    llama_net::Form form;
    form.features = form.feed_forward = 8;
    form.heads = 2;
    form.kv_heads = form.blocks = 1;
    form.words = 260;
    return llama_net::network(form);
  }();
  return model;
}
Exported llama_with(const std::string& tokenizer) {
  return {"gguf", {{"form", "llama"}, {"tokenizer", tokenizer}, {"graph", false}}, {llama(), {}, {}}};
}

// Every type of block, float types, a Llama.
const std::vector<Exported>& gguf_files() {
  static const std::vector<Exported> all = [] {
    std::vector<Exported> out;
    for (const char* type : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4"})
      out.push_back(blocks(type, 32));
    for (const char* type : {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "tq1_0", "tq2_0"})
      out.push_back(blocks(type, 256));
    for (const char* type : {"f16", "bf16"})
      out.push_back({"gguf", {{"float_type", type}, {"round_floats", true}}, {rows_of(32), {}, {}}});
    out.push_back(llama_with(scratch_file("tokenizer.bin", llama_net::tokenizer(260))));
    return out;
  }();
  return all;
}

void read_gguf(const std::string& bytes) {
  JobContext job;
  auto imported = import_file(scratch_file("m.gguf", bytes), {}, job);
  if (imported) (void)graph_from_json(graph_to_json(*imported->model.graph));
}
Bytes gguf_seeds() {
  return written(gguf_files(), "m.gguf");
}

// The audit, against a network with blocks of each size and against the Llama.
void audit_gguf(const std::string& bytes) {
  const std::string path = scratch_file("m.gguf", bytes);
  for (const Exported& e : gguf_files()) {
    const std::size_t which = static_cast<std::size_t>(&e - gguf_files().data());
    if (which != 1 && which != 9 && which + 1 != gguf_files().size()) continue;
    audit_file(e, path);
    read_file_again(e, path);
  }
}

void read_tokenizer(const std::string& bytes) {
  const std::string path = scratch_file("given.bin", bytes);
  (void)gguf_file::read_vocabulary(path);
  const Exported e = llama_with(path);
  if (!exporter("gguf").check(e.model, options_of(e)).empty()) return;
  JobContext job;
  (void)exporter("gguf").write(e.model, scratch_path("given.gguf"), options_of(e), job);
}
Bytes tokenizer_seeds() {
  std::vector<std::pair<std::string, int>> pieces = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}, {"<0x41>", 6}};
  for (int i = 4; i < 260; ++i) pieces.push_back({"\xe2\x96\x81w" + std::to_string(i), 1});
  return {llama_net::tokenizer(260), llama_net::sentencepiece(pieces, 2),
          llama_net::sentencepiece({{"<unk>", 2}}, 1)};
}

}  // namespace

std::vector<Target> gguf_targets() {
  return {{"gguf", read_gguf, gguf_seeds},
          {"gguf-audit", audit_gguf, gguf_seeds},
          {"gguf-tokenizer", read_tokenizer, tokenizer_seeds}};
}

}  // namespace quanvas::fuzz
