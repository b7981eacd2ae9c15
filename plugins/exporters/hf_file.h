// Quanvas - what the exporters of packed linear layers share: the rest of the network's tensors, the description, and the
// config.json beside the file whose quantization_config tells readers what the tensors are.
#pragma once

#include <string>
#include <vector>

#include "plugins/exporters/linear_layers.h"
#include "plugins/exporters/safetensors_write.h"

namespace quanvas::weight_file {

// One file in the making.
struct HfFile {
  explicit HfFile(const QuantizedModel& m) : model(m), contents(contents_of(m)), layers(linear_layers(m)) {}
  const QuantizedModel& model;
  Contents contents;
  std::vector<LinearLayer> layers;
  safetensors::Writer writer;
  described::Network network;

  // The description of a layer's weight, to be completed by its packing.
  described::Weight& describe(const LinearLayer& layer, const std::string& form);
  // Everything that is not packed, under the names of modules; then writes: the configuration first, the tensors last. A
  // configuration that was there is as before when the tensors cannot be written.
  Status finish(const std::string& path, const json& options, const json& quantization_config, JobContext& job);

 private:
  Status add_plain();
};

std::vector<Field> config_fields();  // config, base_config, graph
// Of the file at `path`; empty: none is written.
std::string config_path(const std::string& path, const json& options);
std::vector<std::string> files_with_config(const std::string& path, const json& options);
// What keeps the configuration from being written.
std::vector<Refusal> check_config(const json& options);

// Bits as they lie in 32-bit words, the lowest first.
class WordPacker {
 public:
  // n codes of `bits` bits in each of `rows` rows. padded: no code goes on in the next word.
  WordPacker(std::int64_t rows, std::int64_t n, int bits, bool padded = false);
  void put(std::int64_t row, std::int64_t i, std::uint32_t code);
  std::int64_t words() const { return words_; }                     // of a row
  const std::vector<std::uint32_t>& rows() const { return data_; }  // [rows, words]
  std::vector<std::uint32_t> columns() const;                       // [words, rows]

 private:
  std::int64_t rows_, words_;
  int bits_;
  bool padded_;
  std::vector<std::uint32_t> data_;
};

}  // namespace quanvas::weight_file
