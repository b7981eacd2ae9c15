// Quanvas - runs a TorchScript program on values that are known only in part. What is known is computed on the way
// (attributes, lists, loops of known length, branches whose condition is known); what depends on the network's
// inputs becomes nodes of the draft. Modules give nodes and tensors their names.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::exec {
struct TorchCall;
}

namespace quanvas::torchscript {

// The program says that such an input is wrong.
struct Raised : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The user has stopped, or the program is without end.
struct Stopped : std::runtime_error {
  explicit Stopped(Error e) : std::runtime_error(e.message), error(std::move(e)) {}
  Error error;
};

using Env = std::unordered_map<const torch::jit::Value*, Ref>;

class Walk {
 public:
  Walk(Net& net, JobContext& job) : net_(net), job_(job) {}

  Ref import_module(const torch::jit::Module& module);
  Ref import_value(const c10::IValue& value, const std::string& name);
  Refs call(torch::jit::Function& function, const Refs& arguments);

  // The same for one argument that is a number of the network's input: walked for each of `values`, and the results
  // chosen by what the number is when the network runs. Values that the program refuses are left out; those that
  // stay come back in `values`, and the last one stands for all others.
  Refs call_by_cases(torch::jit::Function& function, Refs arguments, std::size_t number,
                     std::vector<std::int64_t>& values);

  const std::set<std::int64_t>& compared() const { return compared_; }  // with numbers that only a run knows
  bool writes_state() const { return writes_state_; }
  const std::vector<std::string>& checks() const { return checks_; }  // errors that inputs could raise

 private:
  Net& net_;
  JobContext& job_;
  std::unordered_map<const void*, Ref> imported_;  // tensors and objects of the module
  std::vector<std::map<Ref, Val>> journals_;  // what was changed in each branch that is being walked, as it was
  std::map<int, std::vector<std::weak_ptr<Val>>> groups_;
  std::vector<std::string> checks_;
  std::set<std::int64_t> compared_;
  std::set<std::string> chosen_;  // numbers that an If gives
  struct Equality {
    std::int64_t dimension = 0, value = 0;  // a symbol; what it is compared with
    bool negated = false;
  };
  std::map<std::string, Equality> equalities_;  // by the name of the truth value
  std::vector<std::map<std::string, TensorFacts>>
      facts_before_;  // of tensors whose facts a branch has made sharper
  bool writes_state_ = false, remembers_ = true;
  int next_group_ = 1, depth_ = 0;
  std::int64_t walked_ = 0;

  using Step = Refs (Walk::*)(torch::jit::Node*, const Refs&);
  static const std::map<std::string, Step>& steps();

  // walk.cpp
  void block(torch::jit::Block* block, Env& env);
  void node(torch::jit::Node* node, Env& env);
  Refs results_of(torch::jit::Node* node, const Refs& in);
  Refs mapped(torch::jit::Node* node, const Refs& in);
  Refs fit(torch::jit::Node* node, Results results);
  void share(const std::string& op, const Refs& in, const Refs& out);
  Refs write_in_place(torch::jit::Node* node, const Refs& in, const Refs& out);
  void mutate(const Ref& value);
  void note_comparison(const std::string& op, const Refs& in, const Refs& out);
  Refs opaque(torch::jit::Node* node, const Refs& in, const std::string& why);
  Ref read(const torch::jit::Value* value, const Env& env) const;

  // steps.cpp: what is no arithmetic
  Refs constant(torch::jit::Node*, const Refs&);
  Refs get_attribute(torch::jit::Node*, const Refs&);
  Refs set_attribute(torch::jit::Node*, const Refs&);
  Refs create_object(torch::jit::Node*, const Refs&);
  Refs call_method(torch::jit::Node*, const Refs&);
  Refs call_function(torch::jit::Node*, const Refs&);
  Refs make_sequence(torch::jit::Node*, const Refs&);
  Refs make_dictionary(torch::jit::Node*, const Refs&);
  Refs unpack(torch::jit::Node*, const Refs&);
  Refs tuple_item(torch::jit::Node*, const Refs&);
  Refs tuple_slice(torch::jit::Node*, const Refs&);
  Refs raise(torch::jit::Node*, const Refs&);
  Refs nothing(torch::jit::Node*, const Refs&);
  Refs first(torch::jit::Node*, const Refs&);
  Refs uninitialized(torch::jit::Node*, const Refs&);
  Refs number_to_tensor(torch::jit::Node*, const Refs&);
  Refs tensor_to_number(torch::jit::Node*, const Refs&);
  Refs type_of(torch::jit::Node*, const Refs&);
  Refs device_of(torch::jit::Node*, const Refs&);
  Refs is_instance(torch::jit::Node*, const Refs&);
  Refs is_same(torch::jit::Node*, const Refs&);
  Refs contains(torch::jit::Node*, const Refs&);
  Refs extreme(torch::jit::Node*, const Refs&);
  Refs size(torch::jit::Node*, const Refs&);
  Refs rank(torch::jit::Node*, const Refs&);
  Refs count(torch::jit::Node*, const Refs&);
  Refs length(torch::jit::Node*, const Refs&);
  Refs is_floating(torch::jit::Node*, const Refs&);
  Refs get_item(torch::jit::Node*, const Refs&);
  Refs set_item(torch::jit::Node*, const Refs&);
  Refs append(torch::jit::Node*, const Refs&);
  Refs extend(torch::jit::Node*, const Refs&);
  Refs insert(torch::jit::Node*, const Refs&);
  Refs pop(torch::jit::Node*, const Refs&);
  Refs clear(torch::jit::Node*, const Refs&);
  Refs copy_list(torch::jit::Node*, const Refs&);
  Refs keys(torch::jit::Node*, const Refs&);
  Refs dict_values(torch::jit::Node*, const Refs&);
  Refs format(torch::jit::Node*, const Refs&);
  Refs list_step(torch::jit::Node*, const Refs&);

  // values.cpp
  Ref import_tensor(const at::Tensor& t, const std::string& name);
  Ref import_packed(const c10::IValue& value, const std::string& name, const std::string& what);
  bool is_constant(const Ref& v) const;
  c10::IValue ivalue(const Ref& v, const c10::TypePtr& type) const;
  std::optional<Refs> folded(torch::jit::Node* node, const Refs& in);

  // control.cpp
  struct Branch {
    std::vector<DraftNode> nodes;
    Refs results;
    std::map<Ref, Val> changed;  // as they are after it
    std::string raised;          // not empty: it ends in this error
  };
  void branch_or_loop(torch::jit::Node* node, Env& env);
  void choose(torch::jit::Node* node, Env& env);
  Branch record(const std::function<Refs()>& walk);
  Branch walk_branch(torch::jit::Block* block, Env& env);
  Refs either(const std::string& condition, Branch& a, Branch& b);
  void assume(const std::string& condition, bool holds);
  Refs go_on_with(Branch& branch);
  void spoil(const Branch& branch, const std::string& why);
  void walk_inline(torch::jit::Node* node, torch::jit::Block* block, Env& env);
  Ref merged(const Val& a, const Val& b, DraftBody& then_body, DraftBody& else_body, DraftNode& out);
  void loop(torch::jit::Node* node, Env& env);
  bool unroll(torch::jit::Node* node, Env& env);
  void unknown_loop(torch::jit::Node* node, Env& env);

  // fallback.cpp: one operator run by LibTorch itself
  Refs torch_node(torch::jit::Node* node, const Refs& in, const std::string& why);
  void find_facts(const exec::TorchCall& call, const DraftNode& node);
};

// What `node`'s last inputs are, from what its bodies read. Results that nothing reads are taken out first.
void capture(DraftNode& node);
void drop_unread_results(Draft& draft);

DataType data_type(at::ScalarType type);  // kUndefined: no such type here
std::int64_t scalar_type_number(DataType type);
at::ScalarType scalar_type_of(DataType type);
std::string place_of(torch::jit::Node* node);  // "model.py:12"; may be empty

}  // namespace quanvas::torchscript
