// Quanvas - building ONNX files: data types, IR versions, unique names, initializers as raw bytes.
//
// Used by the exporters that write ONNX; readers of these files (onnx_audit.h) share nothing with it.
// Not thread-safe: one writer per file.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <onnx/onnx_pb.h>

#include "core/base/schema.h"
#include "core/graph/weights.h"
#include "plugins/exporters/onnx_opset.h"
#include "plugins/exporters/onnx_storage.h"

namespace quanvas::onnx_file {

// Protobuf cannot serialize a message of 2 GiB or more. Weights beyond it stand in a file of their own.
inline constexpr std::size_t kMaxFileBytes = (std::size_t{1} << 31) - (std::size_t{1} << 20);

// The IR version that was released with an opset of ai.onnx (onnx/docs/Versioning.md), at least 4: from then
// on initializers need not be listed as graph inputs.
int ir_version(int opset);

// Where external data of a model file stands: beside it.
std::string data_path(const std::string& path);
// The files of an export: the model and, where there is one or will be, its data.
std::vector<std::string> onnx_files(const std::string& path, bool external);
// The option "external_data", "auto" or "always".
Field external_field();

void add_attribute(onnx::NodeProto& node, const std::string& name, const Attribute& value);

class ModelWriter {
 public:
  // Every name of the model's graph is taken from the start. opset: of ai.onnx in the file.
  ModelWriter(const Model& model, int opset);

  // `wanted` when it is free, else wanted_1, wanted_2 ...; the result is taken from then on.
  std::string tensor_name(const std::string& wanted) { return unique(wanted, tensor_names_); }
  std::string node_name(const std::string& wanted) { return unique(wanted, node_names_); }

  // dims {} is a scalar. raw: the bytes in the element type's own layout.
  void initializer(const std::string& name, DataType type, const Shape& dims, std::string raw);
  // In the place of the model's own initializer of that name. Everyone who reads it must mean this one.
  void replace_initializer(const std::string& name, DataType type, const Shape& dims, std::string raw);
  // A new operator of ai.onnx with the given names; the node name is made unique.
  onnx::NodeProto& node(const std::string& op, const std::string& name, const std::vector<std::string>& inputs,
                        const std::vector<std::string>& outputs);
  // A node of the model, in the words of the file's opset. Fails when this opset cannot say the same.
  Status copy(NodeDraft draft);

  // The version of another domain than ai.onnx; without it: 1, or what runtimes of opset 13 know.
  void set_domain(const std::string& domain, int version) { versions_[domain] = version; }
  // The file as it will be written but for inputs, outputs and opsets, which finish() adds once: for what no function
  // here says.
  onnx::ModelProto& proto() { return proto_; }
  void finish();
  // The file is for one sample: what the model leaves open in the first dimension of inputs and outputs is 1.
  void fix_batch() { one_sample_ = true; }
  // The version of another domain, for nodes that are made with domain set.
  void use_domain(const std::string& domain) { domains_.insert(domain); }

  // finish(), then writes atomically. Initializers of 1 KiB and more go to data_path() when `external`
  // is set or the file would have more than `most_bytes`; the data file takes its place only once the model is on the disk.
  Status save(const std::string& path, bool external = false, std::size_t most_bytes = kMaxFileBytes);

 private:
  Status copy_one(NodeDraft draft, bool is_own);  // is_own: its name is that of a node of the model
  static std::string unique(const std::string& wanted, std::unordered_set<std::string>& taken);
  // Writes an initializer of the model the first time that something reads it.
  void need(const std::string& name);
  void value_info(TensorId id, onnx::ValueInfoProto& info) const;
  Status save_model(const std::string& path, std::ostream& out) const;
  Status save_external(const std::string& path);

  const Model& model_;
  int opset_;
  bool one_sample_ = false;
  onnx::ModelProto proto_;
  std::unordered_map<std::string, std::string> constants_;  // of nodes, by content: the name in the file
  std::unordered_set<std::string> tensor_names_, node_names_, written_, domains_;
  std::map<std::string, int> versions_;  // of domains
  bool is_finished_ = false;
};

}  // namespace quanvas::onnx_file
