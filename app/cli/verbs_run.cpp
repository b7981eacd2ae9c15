// calibrate, quantize, evaluate, train, sweep: the long verbs.
#include <algorithm>

#include "app/cli/verbs.h"

namespace quanvas::cli {
namespace {

constexpr char kTrainingPass[] = "qat";

Status keep_recipe(Work& work, const Recipe& recipe) {
  if (recipe == work.bench->state().recipe) return {};
  return work.bench->set_recipe(recipe, "Use recipe " + recipe.name);
}

// The flags that both kinds of training have, under the names of their schemas.
Result<json> training_options(const Options& o, const Schema& schema, const std::string& owner) {
  QUANVAS_TRY(json options, options_from(o.options, schema, owner));
  if (o.epochs) options["epochs"] = *o.epochs;
  if (o.batch) options["batch"] = *o.batch;
  if (o.learning_rate) options["learning_rate"] = *o.learning_rate;
  if (o.train_samples) options["max_samples"] = *o.train_samples;
  return schema.complete(options, owner);
}

Status run_recipe(Work& work, const Recipe& recipe) {
  if (work.options.keep) QUANVAS_CHECK(keep_recipe(work, recipe));
  RunRequest request;
  request.recipe = recipe;
  request.name = work.options.name;
  request.samples = work.options.samples.value_or(0);
  request.evaluate = work.options.evaluate;
  QUANVAS_TRY(const Run run, work.bench->run_recipe(request, work.job));
  print_run(run, work.options.json);
  return {};
}

Status train_float(Work& work) {
  if (work.options.out.empty())
    return fail(ErrorCode::kInvalidArgument, "train --float needs --out FILE, where the trained model goes.");
  TrainRequest request;
  request.output = work.options.out;
  QUANVAS_TRY(request.options, training_options(work.options, train_schema(), "train --float"));
  QUANVAS_TRY(const auto curve, work.bench->train_float(request, work.job));
  if (work.options.json) {
    print_json({{"path", request.output}, {"curve", to_json_value(curve)}});
    return {};
  }
  Table table({{"epoch", Table::Align::kRight}, {"step", Table::Align::kRight}, {"loss", Table::Align::kRight},
               {"learning rate", Table::Align::kRight}, {"top-1 (%)", Table::Align::kRight}});
  for (const auto& point : curve)
    if (point.top1)
      table.row({fixed(point.epoch, 1), thousands(point.step), fixed(point.loss, 4), fixed(point.learning_rate, 6),
                 percent(*point.top1)});
  print(table.text() + "Wrote " + request.output + "\n");
  return {};
}

Result<std::vector<NodeId>> named_layers(const Graph& graph, const std::vector<std::string>& patterns) {
  std::vector<NodeId> nodes;
  for (const auto& pattern : patterns) {
    const auto before = nodes.size();
    for (const auto& layer : find_layers(graph)) {
      const Node* node = graph.find(layer.node);
      if (node && matches_pattern(pattern, node->name) && std::find(nodes.begin(), nodes.end(), node->id) == nodes.end())
        nodes.push_back(node->id);
    }
    if (nodes.size() == before)
      return fail(ErrorCode::kNotFound, "No further layer is called '" + pattern + "'.",
                  "'quanvas-cli info' lists the names.");
  }
  return nodes;
}

}  // namespace

Status calibrate(Work& work) {
  QUANVAS_CHECK(keep_recipe(work, [&] {
    Recipe recipe = work.bench->state().recipe;
    if (work.options.calibration_samples) recipe.calibration.samples = *work.options.calibration_samples;
    if (work.options.seed) recipe.calibration.seed = *work.options.seed;
    return recipe;
  }()));
  QUANVAS_TRY(const ProjectState state, work.bench->calibrate(work.job));
  if (work.options.json)
    print_json(to_json_value(state));
  else
    print("Calibrated on " +
          thousands(state.recipe.calibration.samples == 0
                        ? state.data_status.calibration_samples
                        : std::min<double>(state.recipe.calibration.samples, state.data_status.calibration_samples)) +
          " samples; statistics " + state.statistics_hash + "\n");
  return {};
}

Status quantize(Work& work) {
  QUANVAS_TRY(const Recipe recipe, chosen_recipe(work.options, work.bench->state().recipe));
  return run_recipe(work, recipe);
}

Status evaluate(Work& work) {
  const auto& o = work.options;
  QUANVAS_TRY(const Run run, o.run ? work.bench->evaluate_run(*o.run, o.samples.value_or(0), work.job)
                                   : work.bench->evaluate_float(o.samples.value_or(0), work.job));
  print_run(run, o.json);
  return {};
}

Status train(Work& work) {
  if (work.options.train_float) return train_float(work);
  if (!work.options.out.empty())
    return fail(ErrorCode::kInvalidArgument, "--out belongs to train --float.",
                "A quantized network is kept as a run; 'quanvas-cli export' writes it.");
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(kTrainingPass, "pass"));
  QUANVAS_TRY(Recipe recipe, chosen_recipe(work.options, work.bench->state().recipe));
  QUANVAS_TRY(const json options, training_options(work.options, pass->schema(), "The pass 'qat'"));
  std::erase_if(recipe.passes, [](const PassEntry& entry) { return entry.id == kTrainingPass; });
  recipe.passes.push_back({kTrainingPass, true, options});
  return run_recipe(work, recipe);
}

Status sweep(Work& work) {
  const auto& o = work.options;
  SweepSettings settings;
  QUANVAS_TRY(settings.layers, named_layers(*work.bench->graph(), o.layers));
  if (!o.bits.empty()) settings.bits = o.bits;
  settings.weights = o.sweep_weights;
  settings.activations = o.sweep_activations;
  if (!settings.weights && !settings.activations)
    return fail(ErrorCode::kInvalidArgument, "--no-weights leaves nothing to quantize.", "Add --activations.");
  settings.samples = o.samples.value_or(settings.samples);
  QUANVAS_TRY(settings.passes, passes_from(o.passes));
  QUANVAS_TRY(const Run run, work.bench->sweep(settings, o.resume, work.job));
  print_run(run, o.json);
  return {};
}

}  // namespace quanvas::cli
