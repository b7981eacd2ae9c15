// Quanvas - the verbs of the command line over a Workbench, and what they print.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/cli/options.h"
#include "app/cli/print.h"
#include "core/workflow/workbench.h"

namespace quanvas::cli {

// What a verb works with. One thread.
struct Work {
  const Options& options;
  JobContext& job;
  std::unique_ptr<Workbench> bench;   // open for all verbs but "new" and "catalog"
};

// Opens what the options name, read as they say.
Result<std::unique_ptr<Workbench>> open_bench(const Options& options, JobContext& job);

// A verb prints its result to standard output; the Status decides the exit code.
using Verb = Status (*)(Work&);

// verbs_info.cpp
Status info(Work&);
Status runs(Work&);
Status compare_runs(Work&);
Status catalog(Work&);
Status targets(Work&);
void print_run(const Run& run, bool as_json);
// verbs_data.cpp
Status data(Work&);
Result<DataSettings> read_data_file(const std::string& path);
// verbs_recipe.cpp
Status recipe(Work&);
Status check(Work&);
// Of --pass.
Result<std::vector<PassEntry>> passes_from(const std::vector<std::string>& texts);
Result<Recipe> named_recipe(const std::string& file_or_id);
Result<Recipe> chosen_recipe(const Options& options, const Recipe& current);
// "key=value" by the schema's types; kInvalidArgument names key and what is legal, and the flag that they came with.
Result<json> options_from(const std::vector<std::string>& given, const Schema& schema, const std::string& owner,
                          const std::string& flag = "--option ");
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

}  // namespace quanvas::cli
