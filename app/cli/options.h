// Quanvas - what the command line was asked for. Plain values: they cross from the thin executable, which
// parses and answers --help without LibTorch, to the library that does the work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace quanvas::cli {

struct Options {
  std::string verb;             // name of the subcommand
  // For every subcommand.
  bool json = false, quiet = false;
  std::string device = "cpu";
  int threads = 0;
  std::string project;          // project file of a model; empty: the model's own
  std::string path;             // model or project
  std::vector<std::string> shapes;  // "NAME=1,3,224,224"; how the model is read from now on
  std::string quantizers;       // of the model file: "rules", "nodes"; empty: as the project has it
  bool trust = false;           // code that the model brings may run

  // Recipe: at most one way to name it; none: the project's.
  std::string recipe;           // file or id of a built-in one
  std::optional<int> weight_bits, activation_bits;
  std::optional<int> calibration_samples;
  std::optional<std::int64_t> seed;
  std::vector<std::string> passes;  // "ID" or "ID:key=value,key=value", added behind the recipe's
  std::string name;
  bool keep = false;            // the recipe becomes the project's

  std::optional<int> samples;   // of the evaluation split; 0: all
  int code_samples = 100;       // dump
  bool evaluate = true;
  std::optional<std::int64_t> run;
  std::int64_t run_a = 0, run_b = 0;

  // train
  bool train_float = false;
  std::optional<int> epochs, batch, train_samples;
  std::optional<double> learning_rate;

  // sweep
  std::vector<int> bits;
  std::vector<std::string> layers;
  bool sweep_weights = true, sweep_activations = false;
  std::int64_t resume = 0;

  // export, recipe, train --float
  std::string target, out;
  bool check_only = false, overwrite = true, fix = false, markdown = false;
  std::vector<std::string> options;  // "key=value" by the plug-in's schema

  // data
  std::string data_file;        // JSON or YAML
  std::string reader, data_name;
  std::vector<std::string> splits;
  bool force = false;           // store a source that cannot be read
  std::string images, labels, folder, data, tokenizer;
  std::optional<std::int64_t> begin, end;
  std::optional<double> scale;
  std::vector<double> mean, std;
  std::optional<int> resize;
  std::vector<int> crop;
  std::optional<std::string> channels, layout;

  // recipe
  std::string set_recipe;

  // presets
  std::string filter;

  // trust
  std::vector<std::string> revoke;  // hashes or their beginnings, or paths
  bool revoke_all = false;

  // tensor
  std::string spec, in, codes, scale_out, zero_point_out;
  std::string kind = "weight", layer = "linear";
  std::vector<std::string> calib;
  std::string input_scale, weight_scale;
  int input_bits = 0;
  std::string packed;
  bool on_grid = false;
  std::vector<std::string> params;
  std::optional<int> axis;
};

// Parses; answers --help, --version and mistakes itself. Returns the exit code when there is nothing more to
// do, nothing when `out` is to be carried out.
std::optional<int> parse(int argc, char** argv, Options& out);

}  // namespace quanvas::cli
