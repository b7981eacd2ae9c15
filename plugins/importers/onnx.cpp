// ONNX files: protobuf, every operator set, external data beside the file.
#include <google/protobuf/io/coded_stream.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <filesystem>

#include "core/base/files.h"
#include "core/plugin/registry.h"
#include "plugins/importers/onnx_draft.h"
#include "plugins/importers/onnx_quant.h"
#include "plugins/importers/onnx_wire.h"

namespace quanvas {
namespace {

using namespace onnx_import;

constexpr std::uint64_t kMostBytes = std::uint64_t{2} << 30;  // protobuf's own limit

// A file of a model as the library can read it. The data of large tensors may have stayed in `file`.
struct Text {
  std::string bytes;
  std::shared_ptr<const MappedFile> file;
};

Failure not_onnx(const std::string& path, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + path + "' is not a whole ONNX file: " + what + ".",
              "Export or copy the model again.");
}

Result<Text> read_text(const std::string& path) {
  std::error_code ec;
  const auto size = std::filesystem::file_size(path, ec);
  if (ec || size < kMapFrom) {
    QUANVAS_TRY(std::string bytes, read_file(path, kMostBytes - 1));
    return Text{std::move(bytes), nullptr};
  }
  QUANVAS_TRY(auto file, MappedFile::open(path));
  auto slim = without_large_tensors({reinterpret_cast<const char*>(file->data()), file->size()});
  if (!slim) return not_onnx(path, slim.error().message);
  if (slim->size() >= kMostBytes)
    return fail(ErrorCode::kUnsupported, "'" + path + "' has " + std::to_string(slim->size() >> 20) +
                                             " MiB beside its large tensors; at most 2048 can be read.",
                "Export its weights as external data.");
  return Text{std::move(*slim), std::move(file)};
}

Result<onnx::ModelProto> parse(const std::string& path, const std::string& bytes) {
  if (bytes.empty()) return not_onnx(path, "it is empty");
  onnx::ModelProto model;
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  if (model.MergePartialFromCodedStream(&in) && in.ConsumedEntireMessage()) return model;
  // Every ONNX file begins with its version.
  if (!model.has_ir_version() && !model.has_graph())
    return fail(ErrorCode::kCorrupt, "'" + path + "' is not an ONNX file.",
                "Choose a model (.onnx) or a project (.quanvas).");
  const auto at = static_cast<std::size_t>(in.CurrentPosition());
  if (at >= bytes.size())
    return not_onnx(path, "it ends in the middle, after " + std::to_string(bytes.size()) + " bytes");
  return not_onnx(path,
                  "it cannot be read beyond byte " + std::to_string(at) + " of " + std::to_string(bytes.size()));
}

// What our own files for the DPU say of the rounding that the format leaves open.
std::string dpu_rounding(const onnx::ModelProto& model) {
  for (const auto& entry : model.metadata_props())
    if (entry.key() == "vai_quant_rounding") return entry.value();
  return {};
}

Shape without_symbols(Shape shape) {
  for (std::int64_t& d : shape) d = std::max(d, kUnknownDim);
  return shape;
}

std::optional<Shape> final_shape(const TensorFacts& facts) {
  return facts.shape ? std::optional(without_symbols(*facts.shape)) : std::nullopt;
}

// A subgraph as a Graph: its own inputs, then what it captures.
Result<GraphPtr> finish_body(const Draft& draft, const DraftNode& owner, const DraftBody& body);

Result<Attributes> attributes_of(const Draft& draft, const DraftNode& node) {
  Attributes out = node.attributes;
  for (const auto& [key, body] : node.bodies) {
    QUANVAS_TRY(GraphPtr graph, finish_body(draft, node, *body));
    out[key] = std::move(graph);
  }
  if (!node.bodies.empty()) out["captured"] = static_cast<std::int64_t>(node.captured.size());
  return out;
}

Result<GraphPtr> finish_body(const Draft& draft, const DraftNode& owner, const DraftBody& body) {
  GraphBuilder builder;
  builder.set_name(body.name);
  builder.set_opset(draft.opset);
  const auto declare = [&](const std::string& t) {
    const auto said = draft.declared.find(t);
    if (const TensorFacts* facts = draft.known(t))
      builder.tensor(t, facts->type, final_shape(*facts));
    else if (said != draft.declared.end())
      builder.tensor(t, said->second.type, final_shape(said->second));
  };
  for (const auto* list : {&body.inputs, &owner.captured})
    for (const std::string& t : *list) {
      builder.input(t);
      declare(t);
    }
  for (const DraftNode& n : body.nodes) {
    QUANVAS_TRY(Attributes attributes, attributes_of(draft, n));
    builder.node(n.name, n.op, n.inputs, n.outputs, std::move(attributes), n.domain, n.opaque_reason);
    for (const std::string& t : n.outputs)
      if (!t.empty()) declare(t);
  }
  for (const std::string& t : body.outputs) builder.output(t);
  return builder.build();
}

}  // namespace

Result<Model> onnx_import::finish(const Draft& draft, const std::string& path) {
  GraphBuilder builder;
  auto weights = std::make_shared<WeightStore>();
  builder.set_name(draft.name.empty() ? std::filesystem::path(path).stem().string() : draft.name);
  builder.set_opset(draft.opset);
  const auto declare = [&](const std::string& t) {
    if (const TensorFacts* facts = draft.known(t)) builder.tensor(t, facts->type, final_shape(*facts));
  };
  const auto use = [&](const std::string& t) {
    const TensorData* data = draft.constant(t);
    if (!data || weights->find(t)) return;
    builder.initializer(t, data->type, data->shape);
    weights->set(t, *data);
  };
  for (const std::string& t : draft.inputs) {
    builder.input(t);
    declare(t);
  }
  for (const DraftNode& n : draft.nodes) {
    if (n.removed) continue;
    for (const std::string& t : n.inputs) use(t);
    QUANVAS_TRY(Attributes attributes, attributes_of(draft, n));
    builder.node(n.name, n.op, n.inputs, n.outputs, std::move(attributes), n.domain, n.opaque_reason);
    for (const std::string& t : n.outputs) declare(t);
  }
  for (const std::string& t : draft.outputs) {
    use(t);
    builder.output(t);
    declare(t);
  }
  auto graph = builder.build();
  if (!graph) {
    Error e = graph.error();
    e.message = "'" + path + "': " + e.message;
    return Failure(std::move(e));
  }
  return Model{std::move(*graph), std::move(weights), path};
}

void onnx_import::report_opaque(const Graph& graph, JobContext& job) {
  for (const Node& n : graph.nodes())
    if (!n.opaque_reason.empty())
      job.issue({Severity::kWarning, n.name,
                 "'" + n.name + "' (" + n.op + ") cannot be executed: " + n.opaque_reason + ".",
                 "The network can be looked at; layers that depend on this one cannot be measured."});
}

namespace {

class OnnxImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {"onnx", "ONNX", "Open Neural Network Exchange files, with folded constants and inferred shapes."};
  }
  std::vector<std::string> extensions() const override { return {".onnx"}; }
  int probe(const std::string& path, const std::string& head) const override {
    const bool named = path.ends_with(".onnx");
    // Field 1 (ir_version) as a varint below 128 opens every file that an exporter has written.
    const bool looks = head.size() > 2 && head[0] == '\x08' && head[1] > 0 && head[1] < 100;
    return named ? (looks ? 100 : 80) : looks ? 40 : 0;
  }
  Result<Imported> load(const std::string& path, const ImportOptions& options, JobContext& job) const override {
    const bool lifts = options.quantizers != FileQuantizers::kNodes;
    job.progress("read the model", 0.0);
    QUANVAS_TRY(Text text, read_text(path));
    QUANVAS_TRY(onnx::ModelProto proto, parse(path, text.bytes));
    text.bytes = {};
    QUANVAS_TRY(Draft draft, read_draft(proto, Source{path, job, text.file}));
    expand_dpu_layers(draft, dpu_rounding(proto));
    QUANVAS_CHECK(bind_shapes(draft, options.shapes));
    job.progress("read the model", 0.5, "shapes");
    expand_integer_operators(draft, !lifts);
    draft = simplify(std::move(draft), job);
    QUANVAS_CHECK(job.check());
    Lifted lifted;
    if (lifts) {
      QUANVAS_TRY(lifted, lift_quantizers(draft, path, job));
    }
    QUANVAS_TRY(Model model, finish(draft, path));
    report_opaque(*model.graph, job);
    job.progress("read the model", 1.0);
    if (lifted.items.empty()) return model;
    auto weights = std::make_shared<WeightStore>(*model.weights);
    Recipe recipe = recipe_of(lifted, *model.graph, *weights, path);
    model.weights = std::move(weights);
    return Imported(std::move(model), std::move(recipe));
  }
};

QUANVAS_PLUGIN(Importer, OnnxImporter)

}  // namespace
}  // namespace quanvas
