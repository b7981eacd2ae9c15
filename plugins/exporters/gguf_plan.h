// Quanvas - what a GGUF file of a network will hold: tensors with their types and names, constants, the graph that reads
// them. Made before a byte is written; the check and the writer use the same plan.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plugins/exporters/gguf_fit.h"
#include "plugins/exporters/gguf_llama.h"

namespace quanvas::gguf_file {

struct Options {
  bool round_scales = false;     // scales that are no float16 are rounded
  Type float_type = Type::kF32;  // of float matrices
  bool round_floats = false;     // matrices that float_type does not hold are rounded
  bool conv_rows = false;        // kernels of convolutions are written as matrices, one row for each output channel
  bool graph = true;             // the network's graph is in the file, so that Quanvas opens it again
  std::string form = "auto";     // "auto", "llama", "container"
  std::string tokenizer;         // path; empty: none
};
Options options_of(const json& options);

// One initializer in the file: a tensor, or among the metadata.
struct Entry {
  bool in_metadata = false;     // its bytes as they are, row-major; of a quantized bias the float32 values
  std::string file_name;        // of tensors: at most 63 bytes, unique
  std::string tensor;           // name of the initializer in the plan's graph
  std::string original;         // in the model's graph
  std::vector<NodeId> readers;  // not empty: these nodes read it instead of `original`
  View view;
  Shape dims;  // of the file, slowest first
  Type type = Type::kF32;
  std::optional<PlacedQuantizer> quantizer;  // of a weight that is stored in blocks, or of a bias
  std::uint64_t bytes = 0;
};

struct FilePlan {
  std::vector<Entry> tensors;
  GraphPtr graph;              // the model's, with an initializer for each tensor of the file
  std::optional<Llama> llama;  // the file is one of llama.cpp's architecture
  std::string not_llama;       // why it is not, for people
  std::vector<Refusal> refusals;
};
// Points into the model. Errors are defects of ours (weights without data).
Result<FilePlan> plan(const QuantizedModel& model, const Options& options);

TargetTable gguf_table(const Options& options);

}  // namespace quanvas::gguf_file
