// Quanvas - the verbs of the command line over a Workbench, and what they print.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "app/cli/options.h"
#include "core/workflow/workbench.h"

namespace quanvas::cli {

// A table for people: columns as wide as their longest cell, numbers to the right, units in the heads.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string head;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string thousands(double value);                 // "1,234,567"; "-" for nan
std::string fixed(double value, int digits);         // "inf", "-" for nan
std::string percent(double share);                   // "87.30"; "-" for nan

// What a verb works with. One thread.
struct Work {
  const Options& options;
  JobContext& job;
  std::unique_ptr<Workbench> bench;   // open for all verbs but "new", "tensor" and "catalog"
};

// A verb prints its result to standard output; the Status decides the exit code.
using Verb = Status (*)(Work&);

// verbs_info.cpp
Status info(Work&);
Status runs(Work&);
Status compare_runs(Work&);
Status catalog(Work&);
void print_run(const Run& run, bool as_json);
// verbs_data.cpp
Status data(Work&);
Result<DataSettings> read_data_file(const std::string& path);
// verbs_recipe.cpp
Status recipe(Work&);
Result<Recipe> named_recipe(const std::string& file_or_id);
Result<Recipe> chosen_recipe(const Options& options, const Recipe& current);
// "key=value" by the schema's types; kInvalidArgument names key and what is legal.
Result<json> options_from(const std::vector<std::string>& given, const Schema& schema, const std::string& owner);
// verbs_run.cpp
Status calibrate(Work&);
Status quantize(Work&);
Status evaluate(Work&);
Status train(Work&);
Status sweep(Work&);
// verbs_export.cpp
Status export_model(Work&);
Status dump(Work&);
Status new_project(Work&);
// verbs_tensor.cpp
Status tensor(Work&);

void print(const std::string& text);                 // to standard output
void print_json(const json& value);

// Progress on standard error: one line that is rewritten on a terminal, else a line for each phase and tenth.
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet);
  void show(const Progress& progress);
  void issue(const Issue& issue);
  void clear();

 private:
  bool quiet_, terminal_, shown_ = false;
  std::string phase_;
  std::set<std::string> said_;
  int tenth_ = -1;
};

}  // namespace quanvas::cli
