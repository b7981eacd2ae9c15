// Quanvas - the plug-in kinds and where they register. One .cpp in plugins/ = one plug-in:
//
//   class MyPass final : public Pass { ... };
//   QUANVAS_PLUGIN(Pass, MyPass)
//
// ids are persisted in recipes and projects and never renamed. Registries are filled before main (or by
// load_plugins for modules in QUANVAS_PLUGIN_PATH) and read-only afterwards; plug-ins are stateless and
// thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/base/schema.h"
#include "core/data/dataset.h"
#include "core/graph/weights.h"
#include "core/plugin/target_table.h"
#include "core/quant/params.h"
#include "core/report/import_options.h"

namespace quanvas {

struct PluginInfo {
  std::string id;     // "onnx", "fold-bn"
  std::string title;  // "ONNX", "Fold batch normalization"
  std::string doc;    // one sentence; algorithms name the paper
};
template <class V>
void visit_fields(V& v, PluginInfo& p) {
  v("id", p.id);
  v("title", p.title);
  v("doc", p.doc);
}

class Plugin {
 public:
  virtual ~Plugin() = default;
  virtual PluginInfo info() const = 0;
  virtual Schema schema() const { return {}; }
};

// What a model file holds.
struct Imported {
  Model model;
  std::optional<Recipe> recipe;  // quantizers that the file carries, as rules of a recipe for the float model
  std::string trusted;           // not empty: hash of the file, whose code was run because the options allow it

  Imported(Model m, std::optional<Recipe> r = {}) : model(std::move(m)), recipe(std::move(r)) {}
};

class Importer : public Plugin {
 public:
  virtual std::vector<std::string> extensions() const = 0;  // ".onnx"
  // 0..100: how sure the first bytes (at most 4096) and the name make it.
  virtual int probe(const std::string& path, const std::string& head) const = 0;
  // Trouble that does not stop the import goes to job.issue. A file whose code must be trusted first fails with
  // kNeedsTrust and says what it contains.
  virtual Result<Imported> load(const std::string& path, const ImportOptions& options, JobContext& job) const = 0;
};

class DatasetReader : public Plugin {
 public:
  virtual Result<std::unique_ptr<RawDataset>> open(const json& options, const std::string& base) const = 0;
  // Fills in what the options leave to the model. expected: shape of its input with batch, -1: unknown; maybe empty.
  virtual json options_for(const json& options, const Shape& /*expected*/) const { return options; }
};

// A network with its frozen quantizers: what passes produce, runs store, evaluation runs and exporters write.
struct QuantizedModel {
  ModelPtr model;                                  // after graph passes; weights in float ("master" values)
  Plan plan;                                       // resolved on model->graph
  std::map<Site, quant::QuantParams> quantizers;   // weights, biases, inputs, outputs
};

// What a pass is asked about before anything is computed.
struct PassQuestion {
  const Model& model;
  const Plan& plan;               // resolved on the model's graph
  const std::set<NodeId>& nodes;  // the layers that the pass may change
  bool calibration_data = false, training_data = false;
  int accumulator_bits = 0;       // that a pass before this one has kept the sums of codes within; 0: none has
  std::int64_t samples = 0;       // of the calibration data, as the recipe chooses them; 0: unknown
};

enum class PassStage { kGraph, kWeights, kTraining };  // before calibration, after it, gradient based
struct PassContext;  // core/exec/pass_context.h
class Pass : public Plugin {
 public:
  virtual PassStage stage() const = 0;
  // Why it cannot do what is asked, layer by layer: an error stops the run before it begins, a warning says what is left
  // as it is, an info what it will take. Not asked of graph passes.
  virtual std::vector<Issue> check(const PassQuestion& /*question*/, const json& /*options*/) const { return {}; }
  // The accumulator that no sums of the codes it leaves overflow, whatever comes in; 0: it proves nothing.
  virtual int accumulator_bits(const json& /*options*/) const { return 0; }
  // Changes ctx.model (kGraph) or ctx.quantized (others) and says in one line what was done.
  virtual Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const = 0;
};

// What an exported file computes, read by a reader of its own, for the proof against the network on the screen.
struct ReadBack {
  // A tensor of the file's network that stands for one of the screen's: its values, or codes of (q - zero_point) * scale.
  struct Held {
    std::string tensor;
    std::vector<float> scale, zero_point;  // empty: real values. Else one, or one per index of `axis`
    int axis = -1;
  };
  ModelPtr model;  // inputs and outputs in the order of the network that was written
  // Quantizers that the file leaves to whoever runs it (files that hold weights alone: those of the activations), by the
  // sites of `model`.
  std::map<Site, quant::QuantParams> quantizers;
  // Where things are, beyond tensors of equal names: quantized activations by their site, others by their name.
  std::map<Site, Held> sites;
  std::map<std::string, Held> tensors;
  std::vector<std::string> notes;
};

class Exporter : public Plugin {
 public:
  virtual std::string extension() const = 0;  // ".onnx"
  virtual bool needs_quantizers() const { return true; }  // false: also writes plain float models
  // Not empty: why this target, which others have had, is not offered, and what to use instead. Nothing else is called.
  virtual std::string unavailable() const { return {}; }
  // What it takes of quantizers. Options are complete.
  virtual TargetTable table(const json& /*options*/) const { return {}; }
  // Every file that write() makes, `path` first.
  virtual std::vector<std::string> files(const std::string& path, const json& /*options*/) const { return {path}; }
  // Everything that this target cannot hold, by name; empty: write() will succeed but for the disk. Exporters with a table
  // begin with check_quantizers() (target_check.h).
  virtual std::vector<Refusal> check(const QuantizedModel& model, const json& options) const = 0;
  // Writes atomically. No check of its own beyond check(), which the caller has run.
  virtual Status write(const QuantizedModel& model, const std::string& path, const json& options,
                       JobContext& job) const = 0;
  // Reads the file again with a reader of its own and compares quantizer by quantizer.
  virtual Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                              const json& options) const = 0;
  // The file as something that runs. By default it is opened as any model file is.
  virtual Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json& options,
                                JobContext& job) const;
};

template <class Kind>
class Registry {
 public:
  static Registry& instance();
  void add(std::unique_ptr<Kind> plugin) { plugins_.push_back(std::move(plugin)); }
  // Sorted by id at first use is not needed: order of registration; find is linear (tens of plug-ins).
  const Kind* find(const std::string& id) const {
    for (const auto& p : plugins_)
      if (p->info().id == id) return p.get();
    return nullptr;
  }
  std::vector<const Kind*> all() const;  // sorted by id
  // kNotFound with the known ids.
  Result<const Kind*> get(const std::string& id, const std::string& what) const;

 private:
  std::vector<std::unique_ptr<Kind>> plugins_;
};

template <class Kind, class T>
struct Registrar {
  Registrar() { Registry<Kind>::instance().add(std::make_unique<T>()); }
};
#define QUANVAS_PLUGIN(Kind, Class) \
  static const ::quanvas::Registrar<::quanvas::Kind, Class> quanvas_registrar_##Class;

// Opens every lib*.so in the folders of QUANVAS_PLUGIN_PATH (':' separated); a module that does not load is
// an Issue, not an error.
void load_plugins(JobContext& job);
// {"importers":[{id,title,doc,schema}], "passes":..., "exporters":..., "datasets":...}, and "formats": the number formats
// of a QuantSpec as {id,title,doc}.
json plugin_catalog();

// Imports with the importer that is most sure of itself. Errors name the file and the known types.
Result<Imported> import_file(const std::string& path, const ImportOptions& options, JobContext& job);
// The model alone: quantizers that the file carries are nodes of its graph.
Result<Model> import_model(const std::string& path, JobContext& job);

}  // namespace quanvas
