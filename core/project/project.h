// Quanvas - the project file: one SQLite file (WAL, application_id, user_version, numbered migrations). Each
// edit is one transaction; what a call returned success for survives kill -9 and power loss (synchronous
// FULL). Large tensors lie beside it in "<file>.data/", content-addressed.
// Thread-safe (one mutex). A second process that opens the file gets it read-only (advisory lock on
// "<file>.lock"), and read_only_reason() says by whom.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/recipe/recipe.h"
#include "core/report/report.h"

namespace quanvas {

struct RecipeEdit {
  std::int64_t id = 0;     // rising
  std::string label;       // "Set conv1 weight to 4 bit"
  std::string time;        // ISO 8601 UTC
  Recipe after;
};

class Project {
 public:
  static constexpr int kSchemaVersion = 1;

  // New file; kInvalidArgument when it exists. model_path is stored relative to the project's folder when it
  // lies below it.
  static Result<std::unique_ptr<Project>> create(const std::string& path, const std::string& model_path);
  // Refuses files that are no project, newer schema versions and damaged files, each with its sentence.
  static Result<std::unique_ptr<Project>> open(const std::string& path);
  ~Project();

  const std::string& path() const;
  std::string directory() const;
  std::string model_path() const;          // absolute
  bool read_only() const;
  std::string read_only_reason() const;

  Result<Recipe> recipe() const;
  Status set_recipe(const Recipe& recipe, const std::string& label);
  // The last `most` edits, oldest first, for the undo history after a restart; those after the last one that cannot
  // be read.
  Result<std::vector<RecipeEdit>> edits(int most) const;

  Result<DataSettings> data() const;
  Status set_data(const DataSettings& data);

  // Free key-value texts: window layout, annotations, model hash ...
  Result<std::string> value(const std::string& key) const;  // "" when absent
  Status set_value(const std::string& key, const std::string& text);

  // Appends and returns the new id; the run's `id` is set in the stored copy.
  Result<std::int64_t> add_run(const Run& run);
  Status update_run(const Run& run);       // sweeps that go on
  // By id. A run that cannot be read is left out, and said in `unreadable` when that is given.
  Result<std::vector<Run>> runs(std::vector<Issue>* unreadable = nullptr) const;
  Result<Run> run(std::int64_t id) const;

  // Content-addressed blobs; put returns the key (hash of the bytes). Written atomically, never changed.
  Result<std::string> put_artifact(const std::string& bytes);
  Result<std::string> artifact(const std::string& key) const;
  // One that nothing needs any more. kInvalidArgument: a run names it. Whoever stored its key elsewhere has removed that.
  Status remove_artifact(const std::string& key);

  // A consistent copy elsewhere, artifacts included; the model path stays valid.
  Status save_copy(const std::string& path) const;

 private:
  Project();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quanvas
