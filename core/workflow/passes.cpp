// Quanvas - the passes behind calibration: what is asked before they run, what they share, and what a stopped run leaves to the
// next one.
#include <algorithm>
#include <chrono>
#include <utility>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

// Of parts of another version nothing is taken.
constexpr const char* kPartsVersion = "1";
constexpr const char* kPartsValue = "stopped-parts";
constexpr std::size_t kMostParts = std::size_t{1} << 30;  // bytes; a run of more begins with the rest anew

using PartsByKey = std::map<std::string, std::map<std::string, std::string>>;

std::string pack_parts(const PartsByKey& parts) {
  json out = json::object();
  for (const auto& [key, own] : parts)
    for (const auto& [part, bytes] : own) out[key][part] = json::binary({bytes.begin(), bytes.end()});
  const auto packed = json::to_cbor(out);
  return {packed.begin(), packed.end()};
}

// What cannot be read is none: it is computed again.
PartsByKey unpack_parts(const std::string& bytes) {
  PartsByKey out;
  const json all = json::from_cbor(bytes, true, false);
  if (!all.is_object()) return out;
  for (const auto& [key, own] : all.items()) {
    if (!own.is_object()) continue;
    for (const auto& [part, value] : own.items())
      if (value.is_binary()) out[key][part] = {value.get_binary().begin(), value.get_binary().end()};
  }
  return out;
}

}  // namespace

Result<std::vector<ChosenPass>> chosen_passes(const Recipe& recipe, bool before_calibration) {
  std::vector<ChosenPass> out;
  for (std::size_t i = 0; i < recipe.passes.size(); ++i) {
    const PassEntry& entry = recipe.passes[i];
    if (!entry.enabled) continue;
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry.id, "pass"));
    if ((pass->stage() == PassStage::kGraph) != before_calibration) continue;
    QUANVAS_TRY(json options, pass->schema().complete(entry.options, "pass '" + entry.id + "'"));
    out.push_back({static_cast<int>(i), &entry, pass, std::move(options)});
  }
  return out;
}

// Everything that keeps the passes from doing what is asked, before the first of them has taken its time.
Result<std::vector<RecipeIssue>> WorkbenchState::check_passes(const Recipe& recipe, const Prepared& prepared, const Plan& plan,
                                                              const Data& data) {
  std::vector<RecipeIssue> out;
  int accumulator_bits = 0;
  std::int64_t samples = data.calibrate ? data.calibrate->size() : 0;
  if (recipe.calibration.samples > 0) samples = std::min<std::int64_t>(samples, recipe.calibration.samples);
  QUANVAS_TRY(const auto passes, chosen_passes(recipe, /*before_calibration=*/false));
  for (const ChosenPass& chosen : passes) {
    const Pass& pass = *chosen.pass;
    const Selector& select = chosen.entry->select;
    if (pass.stage() == PassStage::kTraining && !(select == Selector{}))
      out.push_back({chosen.index, {Severity::kError, "", "It changes the network as a whole and cannot be limited to layers.", ""}});
    const auto selected = selected_layers(*prepared.model->graph, select);
    const std::set<NodeId> nodes(selected.begin(), selected.end());
    if (nodes.empty()) {
      out.push_back({chosen.index, {Severity::kWarning, "", "No layer is selected (" + describe(select) + "): the pass does nothing.", ""}});
      continue;
    }
    const PassQuestion question{*prepared.model, plan, nodes, data.calibrate != nullptr, data.train != nullptr, accumulator_bits, samples};
    for (Issue& issue : pass.check(question, chosen.options)) out.push_back({chosen.index, std::move(issue)});
    if (const int bits = pass.accumulator_bits(chosen.options); bits > 0) accumulator_bits = bits;
  }
  return out;
}

Result<std::vector<RecipeIssue>> WorkbenchState::check_recipe(const Recipe& recipe) {
  return guarded("recipe check", [&]() -> Result<std::vector<RecipeIssue>> {
    std::vector<RecipeIssue> out;
    const auto problem = [&](int pass, const Error& e) { out.push_back({pass, {Severity::kError, "", e.message, e.hint}}); };
    // One by one: what is wrong with one pass hides nothing of the others.
    Recipe readable = recipe;
    for (std::size_t i = 0; i < recipe.passes.size(); ++i) {
      Recipe alone;
      alone.passes = {recipe.passes[i]};
      for (const bool before : {true, false})
        if (const auto chosen = chosen_passes(alone, before); !chosen) {
          problem(static_cast<int>(i), chosen.error());
          readable.passes[i].enabled = false;
          break;
        }
    }
    QUANVAS_TRY(const auto before, chosen_passes(readable, /*before_calibration=*/true));
    JobContext quiet;
    const auto prepared = prepare(readable, quiet);
    if (!prepared) {
      int failed = -1;
      for (const ChosenPass& chosen : before)
        if (prepared.error().context.starts_with(chosen.pass->info().title)) failed = chosen.index;
      problem(failed, prepared.error());
      return out;
    }
    for (RecipeIssue issue : (*prepared)->issues) {
      const auto number = static_cast<std::size_t>(issue.pass);
      issue.pass = number < before.size() ? before[number].index : -1;
      if (issue.pass >= 0 && issue.issue.where == before[number].pass->info().title) issue.issue.where.clear();
      out.push_back(std::move(issue));
    }
    QUANVAS_TRY(const auto plan, plan_for(*prepared, readable));
    for (const std::string& warning : plan->warnings) out.push_back({-1, {Severity::kWarning, "", warning, ""}});
    QUANVAS_TRY(auto later, check_passes(readable, **prepared, *plan, data()));
    std::move(later.begin(), later.end(), std::back_inserter(out));
    return out;
  });
}

PassContext WorkbenchState::pass_context(QuantizedModel network, const Recipe& recipe, const Prepared& prepared, const Data& data) {
  PassContext context;
  context.model = network.model;
  context.quantized = std::move(network);
  context.calibration_data = data.calibrate;
  if (data.calibrate)
    context.calibration_samples = choose_samples(data.calibrate->size(), recipe.calibration.samples, recipe.calibration.seed);
  context.training_data = data.train;
  context.device = options_.device;
  context.kept = kept_values_;
  context.kept_key = Hasher()
                         .text(kPartsVersion)
                         .text(prepared.hash)
                         .text(data.calibrate ? data.calibrate->hash() : "")
                         .number(recipe.calibration.samples)
                         .number(recipe.calibration.seed)
                         .hex();
  return context;
}

Result<PassReport> WorkbenchState::apply_pass(PassContext& context, const ChosenPass& chosen, JobContext& job) {
  const PluginInfo info = chosen.pass->info();
  context.nodes.clear();
  if (!(chosen.entry->select == Selector{})) {
    const auto selected = selected_layers(*context.quantized.model->graph, chosen.entry->select);
    context.nodes = {selected.begin(), selected.end()};
    if (selected.empty()) return PassReport{info.id, info.title, "Nothing: no layer is selected.", 0};
  }
  const auto start = std::chrono::steady_clock::now();
  QUANVAS_TRY(std::string summary, chosen.pass->apply(context, chosen.options, job));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return PassReport{info.id, info.title, std::move(summary), took.count(), std::exchange(context.measure, {}), std::exchange(context.layers, {})};
}

void WorkbenchState::forget_parts() {
  std::lock_guard lock(parts_mutex_);
  parts_.clear();
  parts_bytes_ = 0;
}

void WorkbenchState::begin_parts(PassContext& context, const std::string& key) {
  context.finished_part = [this, key](const std::string& part) -> std::optional<std::string> {
    std::lock_guard lock(parts_mutex_);
    if (!stopped_parts_) {
      stopped_parts_.emplace();
      if (const auto artifact = project_->value(kPartsValue); artifact && !artifact->empty())
        if (const auto bytes = project_->artifact(*artifact)) *stopped_parts_ = unpack_parts(*bytes);
    }
    const auto own = stopped_parts_->find(key);
    if (own == stopped_parts_->end()) return std::nullopt;
    const auto it = own->second.find(part);
    if (it == own->second.end()) return std::nullopt;
    parts_bytes_ += it->second.size();
    return parts_[key][part] = it->second;
  };
  context.finish_part = [this, key](const std::string& part, const std::string& bytes) {
    std::lock_guard lock(parts_mutex_);
    parts_bytes_ += bytes.size();
    if (parts_bytes_ <= kMostParts) parts_[key][part] = bytes;
  };
}

void WorkbenchState::keep_parts(JobContext& job) {
  std::lock_guard lock(parts_mutex_);
  if (parts_.empty()) return;
  // The same run, stopped again before it has taken all that it could: nothing of that is lost.
  const bool again = stopped_parts_ && std::any_of(parts_.begin(), parts_.end(), [&](const auto& own) { return stopped_parts_->count(own.first) > 0; });
  if (!again || !stopped_parts_) stopped_parts_.emplace();
  for (auto& [key, own] : parts_)
    for (auto& [part, bytes] : own) (*stopped_parts_)[key].insert_or_assign(part, std::move(bytes));
  parts_.clear();
  if (project_->read_only()) return;
  const auto keep = [&]() -> Status {
    QUANVAS_TRY(const std::string old, project_->value(kPartsValue));
    QUANVAS_TRY(const std::string artifact, project_->put_artifact(pack_parts(*stopped_parts_)));
    QUANVAS_CHECK(project_->set_value(kPartsValue, artifact));
    return old.empty() || old == artifact ? Status() : project_->remove_artifact(old);
  };
  if (const Status status = keep(); !status)
    job.issue({Severity::kWarning, project_->path(), "What the stopped run had finished was not stored: " + status.error().message,
               "It holds as long as the project is open."});
}

void WorkbenchState::drop_parts(JobContext& job) {
  std::lock_guard lock(parts_mutex_);
  const bool used = stopped_parts_ && std::any_of(parts_.begin(), parts_.end(), [&](const auto& own) { return stopped_parts_->count(own.first) > 0; });
  parts_.clear();
  if (!used) return;
  stopped_parts_.emplace();
  if (project_->read_only()) return;
  const auto drop = [&]() -> Status {
    QUANVAS_TRY(const std::string old, project_->value(kPartsValue));
    if (old.empty()) return {};
    QUANVAS_CHECK(project_->set_value(kPartsValue, ""));
    return project_->remove_artifact(old);
  };
  if (const Status status = drop(); !status)
    job.issue({Severity::kWarning, project_->path(), "What a stopped run had left was not removed: " + status.error().message, ""});
}

}  // namespace quanvas
