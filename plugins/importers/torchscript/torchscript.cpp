// TorchScript files: an archive of tensors and code. The code is run, so the file is looked at first and must be
// trusted.
#include <ATen/ATen.h>
#include <torch/csrc/jit/api/function_impl.h>

#include <algorithm>

#include "core/plugin/registry.h"
#include "plugins/importers/onnx_quant.h"
#include "plugins/importers/torchscript/load.h"
#include "plugins/importers/torchscript/walk.h"
#include "plugins/importers/torchscript_archive.h"

namespace quanvas {
namespace {

using namespace torchscript;

constexpr int kMostWalks = 5;

Failure needs_trust(const std::string& path, const Archive& archive) {
  return fail(
      ErrorCode::kNeedsTrust,
      "'" + path + "' is TorchScript: it brings code of its own, which is run when it is read. It holds " +
          archive.content() + ".",
      "If you trust where it comes from, say so: --trust on the command line, or Open in the window's question.");
}

// One walk over the whole network. What it learns of its inputs is for the next one.
class Reading {
 public:
  Reading(const std::string& path, const torch::jit::Module& module, const ImportOptions& options, JobContext& job)
      : path_(path), module_(module), options_(options), job_(job) {}

  Result<Draft> read() {
    if (!module_.find_method("forward"))
      return fail(ErrorCode::kUnsupported, "'" + path_ + "' has no method 'forward'" + other_methods() + ".",
                  "Save the network with a forward method.");
    for (int i = 0; i < kMostWalks; ++i) {
      QUANVAS_CHECK(job_.check());
      const auto before = learned_;
      QUANVAS_TRY(Draft draft, walk(true));
      if (wants_cases(draft)) {
        cases_.assign(compared_.begin(), compared_.end());
        continue;
      }
      if (same(before, learned_) || i + 1 == kMostWalks) return settle(std::move(draft));
    }
    return walk(false);
  }

  const std::vector<std::string>& open_inputs() const { return open_; }

 private:
  const std::string& path_;
  const torch::jit::Module& module_;
  const ImportOptions& options_;
  JobContext& job_;
  std::map<std::string, TensorFacts> learned_;
  std::vector<std::string> open_;  // inputs of unknown rank
  std::int64_t batch_ = 0;         // the symbol of the freed batch; 0: none
  bool free_batch_ = true;
  std::set<std::int64_t> compared_;
  std::vector<std::int64_t> cases_;

  static bool same(const std::map<std::string, TensorFacts>& a, const std::map<std::string, TensorFacts>& b) {
    const auto equal = [](const auto& x, const auto& y) {
      return x.first == y.first && x.second.type == y.second.type && x.second.shape == y.second.shape;
    };
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), equal);
  }

  std::string other_methods() const {
    std::string out;
    for (const auto& m : module_.get_methods()) out += (out.empty() ? "; it has " : ", ") + m.name();
    return out;
  }

  // A batch of one in the given shapes is free when that reaches every output and all can be run.
  Result<Draft> settle(Draft draft) {
    if (batch_ == 0) return draft;
    bool good = true;
    for (const std::string& t : draft.outputs) {
      const TensorFacts* facts = draft.known(t);
      good = good && facts && facts->shape && !facts->shape->empty() && (*facts->shape)[0] == batch_;
    }
    for (const DraftNode& n : draft.nodes) good = good && n.opaque_reason.empty() && n.domain.empty();
    if (good) return draft;
    return walk(false);
  }

  // A number of the input that the program compares with others: walked for each of them, when the code cannot be
  // followed without knowing it.
  Refs call(Net& net, Walk& walk, torch::jit::Function& function, const Refs& arguments) {
    if (cases_.empty()) {
      const Refs results = walk.call(function, arguments);
      compared_ = walk.compared();
      return results;
    }
    std::size_t number = 0;
    for (std::size_t i = 1; i < arguments.size(); ++i)
      if (is_open_number(net, arguments[i])) number = i;
    std::vector<std::int64_t> values = cases_;
    const Refs results = walk.call_by_cases(function, arguments, number, values);
    std::string list;
    for (const std::int64_t v : values) list += (list.empty() ? "" : ", ") + std::to_string(v);
    if (told_.insert("cases").second)
      job_.issue({Severity::kInfo, path_,
                  "The network is read for '" + arguments[number]->name + "' = " + list +
                      "; any other value is run as the last of them.",
                  "For one of them alone give it: --shape " + arguments[number]->name + "=" +
                      std::to_string(values.back()) + "."});
    return results;
  }

  static bool is_open_number(const Net& net, const Ref& v) {
    return v->kind == Kind::kInt && !v->is_known() && net.is_input(v->name);
  }

  // Whether the walk is worth being repeated by cases: one number among the inputs, and branches that depend on it.
  bool wants_cases(const Draft& draft) {
    std::size_t numbers = 0;
    for (const std::string& t : draft.inputs) {
      const TensorFacts* facts = draft.known(t);
      numbers += facts && facts->type == DataType::kInt64 && facts->shape && facts->shape->empty();
    }
    constexpr std::size_t kMostCases = 16;
    const bool unclear = std::any_of(draft.nodes.begin(), draft.nodes.end(), [](const DraftNode& n) {
      return !n.bodies.empty() || !n.opaque_reason.empty();
    });
    return numbers == 1 && unclear && cases_.empty() && !compared_.empty() && compared_.size() <= kMostCases;
  }

  Result<Draft> walk(bool free_batch) {
    free_batch_ = free_batch;
    batch_ = 0;
    open_.clear();
    Net net;
    Walk walk(net, job_);
    net.learned = learned_;
    try {
      const Ref self = walk.import_module(module_);
      Refs arguments = {self};
      QUANVAS_CHECK(add_inputs(net, walk, arguments));
      const auto method = module_.get_method("forward");
      net.is_leaf = module_.named_children().size() == 0;
      const Refs results = call(net, walk, method.function(), arguments);
      QUANVAS_CHECK(add_outputs(net, results));
    } catch (const Stopped& e) {
      return Failure(e.error);
    } catch (const Raised& e) {
      return fail(ErrorCode::kInvalidArgument,
                  "'" + path_ + "': the network refuses its input: " + std::string(e.what()) + ".",
                  "Give the shape it expects: --shape NAME=1,3,224,224.");
    } catch (const Unmapped& e) {
      return fail(ErrorCode::kUnsupported, "'" + path_ + "' cannot be read: " + std::string(e.what()) + ".",
                  "Give the inputs' shapes (--shape), or export it as ONNX.");
    }
    learned_ = net.learned;
    if (walk.writes_state() && !told_state_) {
      told_state_ = true;
      job_.issue(
          {Severity::kInfo,
           path_,
           "The network keeps values from one call to the next; here every run begins with those of the file.",
           {}});
    }
    for (const std::string& check : walk.checks())
      if (told_.insert(check).second)
        job_.issue(
            {Severity::kInfo, path_, "The network checks its input (" + check + "); the graph does not.", {}});
    drop_unread_results(net.draft);
    return std::move(net.draft);
  }

  bool told_state_ = false;
  std::set<std::string> told_;

  Status add_inputs(Net& net, Walk& walk, Refs& arguments) {
    const auto& schema = module_.get_method("forward").function().getSchema();
    std::set<std::string> names;
    for (std::size_t i = 1; i < schema.arguments().size(); ++i) {
      const auto& a = schema.arguments()[i];
      const bool wanted = options_.shapes.count(a.name()) > 0;
      if (a.default_value() && !wanted) {
        arguments.push_back(walk.import_value(*a.default_value(), a.name()));
        continue;
      }
      QUANVAS_TRY(Ref v, input(net, a.name(), a.type(), names));
      arguments.push_back(v);
    }
    return check_names(names);
  }

  Status check_names(const std::set<std::string>& names) const {
    std::string known;
    for (const std::string& n : names) known += (known.empty() ? "" : ", ") + n;
    for (const auto& [name, shape] : options_.shapes)
      if (!names.count(name))
        return fail(ErrorCode::kInvalidArgument,
                    "'" + path_ + "' has no input '" + name + "', whose shape was given.",
                    "Its inputs are: " + known + ".");
    return {};
  }

  // Of an input that is a number not the shape is given but the number: --shape sr=16000.
  Ref fixed_number(const std::string& name, const c10::TypePtr& type, std::set<std::string>& names) const {
    const auto said = options_.shapes.find(name);
    if (said == options_.shapes.end() || said->second.size() != 1) return nullptr;
    names.insert(name);
    const std::int64_t v = said->second[0];
    if (type->kind() == c10::TypeKind::IntType) return make_int(v);
    if (type->kind() == c10::TypeKind::BoolType) return make_bool(v != 0);
    return type->kind() == c10::TypeKind::FloatType ? make_real(static_cast<double>(v)) : nullptr;
  }

  Result<Ref> input(Net& net, const std::string& name, const c10::TypePtr& type, std::set<std::string>& names) {
    if (const Ref number = fixed_number(name, type, names)) return number;
    switch (type->kind()) {
      case c10::TypeKind::OptionalType:
        return input(net, name, type->expectRef<c10::OptionalType>().getElementType(), names);
      case c10::TypeKind::TensorType:
        return make_tensor(add_input(net, name, {}, names));
      case c10::TypeKind::IntType:
        return net.number_of(add_input(net, name, DataType::kInt64, names), Kind::kInt);
      case c10::TypeKind::FloatType:
        return net.number_of(add_input(net, name, DataType::kFloat, names), Kind::kReal);
      case c10::TypeKind::BoolType:
        return net.number_of(add_input(net, name, DataType::kBool, names), Kind::kBool);
      case c10::TypeKind::TupleType: {
        Refs items;
        for (const auto& element : type->expectRef<c10::TupleType>().elements()) {
          QUANVAS_TRY(Ref item, input(net, name + "." + std::to_string(items.size()), element, names));
          items.push_back(item);
        }
        return make_list(items, Kind::kTuple);
      }
      default:
        return fail(ErrorCode::kUnsupported,
                    "'" + path_ + "': its input '" + name + "' is of type " + type->str() +
                        "; only tensors, numbers and tuples of them are read.",
                    "Give it a forward method that takes tensors.");
    }
  }

  // number: the type of a number, none for a tensor.
  std::string add_input(Net& net, const std::string& given, std::optional<DataType> number,
                        std::set<std::string>& names) {
    const std::string name = net.new_tensor(given);
    names.insert(given);
    net.draft.inputs.push_back(name);
    TensorFacts facts{number.value_or(DataType::kFloat), std::nullopt};
    if (number) facts.shape = Shape{};
    const auto learned = learned_.find(name);
    if (!number && learned != learned_.end() && learned->second.type != DataType::kUndefined)
      facts.type = learned->second.type;
    const auto said = options_.shapes.find(given);
    if (!number && said != options_.shapes.end())
      facts.shape = said->second;
    else if (!number && learned != learned_.end())
      facts.shape = learned->second.shape;
    if (!facts.shape) open_.push_back(name);
    if (facts.shape) name_dimensions(net, *facts.shape);
    net.draft.facts[name] = facts;
    return name;
  }

  void name_dimensions(Net& net, Shape& shape) {
    if (free_batch_ && shape.size() >= 2 && shape[0] == 1) {
      if (batch_ == 0) batch_ = net.draft.new_symbol();
      shape[0] = batch_;
    }
    for (std::int64_t& d : shape)
      if (d == -1) d = net.draft.new_symbol();
  }

  static void flatten(const Ref& v, const std::string& name, std::vector<std::pair<Ref, std::string>>& out) {
    if (v->is_list())
      for (std::size_t i = 0; i < v->items.size(); ++i)
        flatten(v->items[i], name + (name == "output" ? "" : ".") + std::to_string(i), out);
    else if (v->kind == Kind::kDict)
      for (std::size_t i = 0; i + 1 < v->items.size(); i += 2)
        flatten(v->items[i + 1], v->items[i]->text.empty() ? name + std::to_string(i / 2) : v->items[i]->text, out);
    else if (v->kind != Kind::kNone)
      out.emplace_back(v, name);
  }

  Status add_outputs(Net& net, const Refs& results) {
    std::vector<std::pair<Ref, std::string>> flat;
    for (const Ref& v : results) flatten(v, "output", flat);
    for (const auto& [v, name] : flat) {
      if (v->kind == Kind::kObject || v->kind == Kind::kText) continue;
      DraftNode node;  // gives the result its name; the clean-up takes it away where it can
      const std::string t = net.tensor_of(v);
      add_output(net, t, net.new_tensor(name));
    }
    if (net.draft.outputs.empty())
      return fail(ErrorCode::kUnsupported, "'" + path_ + "': its forward method gives no tensor.",
                  "Return the network's result.");
    return {};
  }

  // The tensor takes the output's name where it is the result of a node, else a node copies it.
  static void add_output(Net& net, const std::string& tensor, const std::string& name) {
    Draft& d = net.draft;
    d.outputs.push_back(name);
    d.output_names.insert(name);
    for (DraftNode& n : d.nodes) {
      const auto it = std::find(n.outputs.begin(), n.outputs.end(), tensor);
      if (it == n.outputs.end() || d.output_names.count(tensor)) continue;
      rename(d.nodes, tensor, name);
      d.facts[name] = d.facts[tensor];
      if (const auto said = d.declared.find(tensor); said != d.declared.end()) d.declared[name] = said->second;
      return;
    }
    DraftNode node;
    node.op = "Identity";
    node.inputs = {tensor};
    node.outputs = {name};
    net.origin = "identity";
    net.add_node(std::move(node));
    d.facts[name] = *d.known(tensor);
  }

  static void rename(std::vector<DraftNode>& nodes, const std::string& from, const std::string& to) {
    for (DraftNode& n : nodes) {
      std::replace(n.inputs.begin(), n.inputs.end(), from, to);
      std::replace(n.outputs.begin(), n.outputs.end(), from, to);
      std::replace(n.captured.begin(), n.captured.end(), from, to);
      for (auto& [key, body] : n.bodies) {
        auto fresh = std::make_shared<DraftBody>(*body);
        rename(fresh->nodes, from, to);
        std::replace(fresh->outputs.begin(), fresh->outputs.end(), from, to);
        body = fresh;
      }
    }
  }
};

void report_open(const std::vector<std::string>& inputs, const std::string& path, JobContext& job) {
  if (inputs.empty()) return;
  std::string names;
  for (const std::string& n : inputs) names += (names.empty() ? "'" : ", '") + n + "'";
  job.issue({Severity::kWarning, path, "The file does not say the shape of " + names + ".",
             "Give it, ? for what stays open: --shape " + inputs[0] + "=1,3,224,224."});
}

class TorchScriptImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {"torchscript", "TorchScript",
            "Networks saved by torch.jit.save; their code is run, so the file must be trusted."};
  }
  std::vector<std::string> extensions() const override { return {".pt", ".ts", ".jit", ".ts.pt"}; }
  int probe(const std::string& path, const std::string& head) const override {
    return torchscript::probe(path, head);
  }

  Result<Imported> load(const std::string& path, const ImportOptions& options, JobContext& job) const override {
    job.progress("read the model", 0.0);
    QUANVAS_TRY(const Archive archive, read_archive(path));
    if (options.trusted != kTrustAny && options.trusted.find(archive.hash) == std::string::npos) return needs_trust(path, archive);
    if (options.trusted == kTrustAny) {  // trusted by its hash: the very file has been read before
      QUANVAS_CHECK(check_apart(path, archive, job));
    }
    QUANVAS_TRY(const torch::jit::Module module, load_module(path, archive));
    job.progress("read the model", 0.3, "operators");
    const at::NoGradGuard no_gradients;
    Reading reading(path, module, options, job);
    QUANVAS_TRY(Draft draft, reading.read());
    job.progress("read the model", 0.7, "shapes");
    find_spelled_quantizers(draft);
    drop_unread_results(draft);
    draft = onnx_import::simplify(std::move(draft), job);
    QUANVAS_CHECK(job.check());
    onnx_import::Lifted lifted;
    if (options.quantizers != FileQuantizers::kNodes) {
      QUANVAS_TRY(lifted, onnx_import::lift_quantizers(draft, path, job));
    }
    choose_opset(draft);
    QUANVAS_TRY(Imported imported, onnx_import::finish(draft, path));
    if (!lifted.items.empty()) {
      auto weights = std::make_shared<WeightStore>(*imported.model.weights);
      imported.recipe = onnx_import::recipe_of(lifted, *imported.model.graph, *weights, path);
      imported.model.weights = std::move(weights);
    }
    report_open(reading.open_inputs(), path, job);
    onnx_import::report_opaque(*imported.model.graph, job);
    imported.trusted = archive.hash;
    job.progress("read the model", 1.0);
    return imported;
  }
};

QUANVAS_PLUGIN(Importer, TorchScriptImporter)

}  // namespace
}  // namespace quanvas
