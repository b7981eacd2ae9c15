#include "app/cli/options.h"

#include <cstdlib>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "app/engine/launch.h"

namespace quanvas::cli {
namespace {

constexpr char kAbout[] =
    "Explores how to quantize a neural network: formats for each layer, calibration, post-training quantization, "
    "quantization-aware training, sweeps and export with proof.";
constexpr char kFooter[] =
    "Exit codes: 0 done, 2 wrong arguments, 3 not found, 4 not possible, 5 corrupt file, 6 read or write failed,\n"
    "7 read-only project, 8 out of memory, 9 code that nobody has trusted, 70 internal error, 130 stopped. See docs/command-line.md.";

CLI::Validator at_least(double least) {
  return CLI::Validator(
      [least](std::string& text) {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        if (text.empty() || *end) return "'" + text + "' is no number";
        if (value >= least) return std::string();
        return text + " is too small" + (least >= 1 ? "; the least is 1" : least == 0 ? "; the least is 0" : "; it must be above 0");
      },
      least >= 1 ? ">= 1" : least == 0 ? ">= 0" : "> 0");
}

CLI::App* verb(CLI::App& app, const char* name, const char* doc) {
  auto* sub = app.add_subcommand(name, doc);
  sub->fallthrough();  // global flags may stand behind the subcommand
  return sub;
}

CLI::App* project_verb(CLI::App& app, Options& o, const char* name, const char* doc) {
  auto* sub = verb(app, name, doc);
  sub->add_option("path", o.path, "Model (.onnx, .pt, .ts, .jit) or project (.quanvas)")->required()->type_name("FILE");
  return sub;
}

// What changes a recipe for this run.
void add_recipe_changes(CLI::App* sub, Options& o) {
  sub->add_option("--pass", o.passes, "Pass behind those of the recipe, repeatable; 'catalog' lists them")
      ->type_name("ID[:KEY=VALUE,...]")
      ->allow_extra_args(false);
  sub->add_option("--name", o.name, "Name of the run");
  sub->add_option("--calibration-samples", o.calibration_samples, "Samples that ranges are taken from; 0: all")
      ->check(at_least(0));
  sub->add_option("--seed", o.seed, "Seed of the choice of samples");
  sub->add_flag("--keep", o.keep, "Make this recipe the project's");
}

void add_recipe(CLI::App* sub, Options& o) {
  auto* recipe = sub->add_option("--recipe", o.recipe, "Recipe file, or id of a built-in one")->type_name("FILE|ID");
  sub->add_option("--weights", o.weight_bits, "Bits of every weight; 0: float")->check(CLI::Range(0, 16))->excludes(recipe);
  sub->add_option("--activations", o.activation_bits, "Bits of every activation; 0: float")
      ->check(CLI::Range(0, 16))
      ->excludes(recipe);
  add_recipe_changes(sub, o);
}

void add_samples(CLI::App* sub, Options& o) {
  sub->add_option("--samples", o.samples, "Samples of the evaluation split; 0: all")->check(at_least(0));
}

void add_options(CLI::App* sub, Options& o, const char* doc) {
  sub->add_option("--option", o.options, doc)->type_name("KEY=VALUE");
}

void add_data(CLI::App& app, Options& o) {
  auto* sub = project_verb(app, o, "data", "Declare data sets, or show what is declared");
  sub->add_option("--data-file,--json-file", o.data_file, "Data settings as JSON or YAML")->type_name("FILE");
  sub->add_option("--name", o.data_name, "Name of the data");
  sub->add_flag("--force", o.force, "Declare sources that cannot be read");
  sub->add_option("--split", o.splits, "calibrate, train, evaluate: which of them the source below is for")
      ->check(CLI::IsMember({"calibrate", "train", "evaluate"}))
      ->delimiter(',');
  auto* reader = sub->add_option("--reader", o.reader, "Data set plug-in: idx, images, npy, raw, text, tokens, bytes");
  sub->add_option("--images", o.images, "File with the samples (idx)")->type_name("FILE")->needs(reader);
  sub->add_option("--labels", o.labels, "File with the labels")->type_name("FILE")->needs(reader);
  sub->add_option("--folder", o.folder, "Folder with pictures (images) or files (bytes)")->type_name("DIR")->needs(reader);
  sub->add_option("--data", o.data, "File with the samples (npy, raw, text, tokens)")->type_name("FILE")->needs(reader);
  sub->add_option("--tokenizer", o.tokenizer, "File with the tokenizer (text)")->type_name("FILE")->needs(reader);
  add_options(sub, o, "Further option of the reader");
  sub->add_option("--begin", o.begin, "First sample")->check(at_least(0));
  sub->add_option("--end", o.end, "Sample behind the last one; -1: all");
  sub->add_option("--scale", o.scale, "Factor of every value, before mean and std");
  sub->add_option("--mean", o.mean, "Per channel, subtracted")->delimiter(',');
  sub->add_option("--std", o.std, "Per channel, divided by")->delimiter(',');
  sub->add_option("--resize", o.resize, "Shorter side in pixels; 0: none")->check(at_least(0));
  sub->add_option("--crop", o.crop, "Height and width of the centre in pixels")->delimiter(',')->expected(2);
  sub->add_option("--channels", o.channels, "rgb or grey")->check(CLI::IsMember({"rgb", "grey"}));
  sub->add_option("--layout", o.layout, "What the model wants")->check(CLI::IsMember({"nchw", "nhwc"}));
}

void add_train(CLI::App& app, Options& o) {
  auto* sub = project_verb(app, o, "train", "Quantization-aware training, or with --float training of a float model");
  add_recipe(sub, o);
  add_samples(sub, o);
  sub->add_flag("--float", o.train_float, "Train the float model and write it with --out");
  sub->add_option("--out", o.out, "ONNX file of the trained float model")->type_name("FILE");
  sub->add_option("--epochs", o.epochs, "Passes over the training samples")->check(at_least(1));
  sub->add_option("--lr", o.learning_rate, "Learning rate")->check(at_least(1e-12));
  sub->add_option("--batch", o.batch, "Samples per step")->check(at_least(1));
  sub->add_option("--train-samples", o.train_samples, "Samples of the training split; 0: all")
      ->check(at_least(0));
  add_options(sub, o, "Further option of the training");
}

void add_sweep(CLI::App& app, Options& o) {
  auto* sub = project_verb(app, o, "sweep", "Measure each layer alone at each width");
  add_samples(sub, o);
  sub->add_option("--bits", o.bits, "Widths, 8,4,2")->delimiter(',')->check(CLI::Range(1, 16));
  sub->add_option("--layers", o.layers, "Names; * and ? are wildcards; default: all compute layers")->delimiter(',');
  sub->add_flag("--weights,!--no-weights", o.sweep_weights, "Quantize the layer's weight (default)");
  sub->add_flag("--activations,!--no-activations", o.sweep_activations, "Quantize the layer's input");
  sub->add_option("--pass", o.passes, "Pass that rounds the weights at each width, repeatable; default: to nearest")
      ->type_name("ID[:KEY=VALUE,...]")
      ->allow_extra_args(false);
  sub->add_option("--resume", o.resume, "Run number of an unfinished sweep")->check(at_least(1));
}

void add_export(CLI::App& app, Options& o) {
  auto* sub = project_verb(app, o, "export", "Write the network for a target, read it again and compare");
  sub->add_option("--target", o.target, "Exporter; see 'catalog'")->required();
  auto* check = sub->add_flag("--check", o.check_only, "Only say what the target refuses");
  auto* fix = sub->add_flag("--fix", o.fix, "Change the project's recipe to one that the target takes, if there is one")->excludes(check);
  sub->add_option("--out", o.out, "File to write")->type_name("FILE")->excludes(check)->excludes(fix);
  sub->add_option("--run", o.run, "Export the network of this run; default: the project's recipe, computed anew")
      ->check(at_least(1));
  sub->add_flag("--overwrite,!--no-overwrite", o.overwrite, "Replace a file that is there (default)");
  sub->add_option("--samples", o.samples, "Samples on which the file is compared with the network; default 256, 0: all")->check(at_least(0));
  add_options(sub, o, "Option of the exporter");
}

void add_tensor(CLI::App& app, Options& o) {
  auto* sub = verb(app, "tensor", "Quantize an array of a .npy file, without a model");
  sub->add_option("--spec", o.spec, "Preset, or JSON file with a quantizer declaration")->required()->type_name("FILE|ID");
  sub->add_option("--set", o.options, "Field of the declaration to change")->type_name("FIELD=VALUE");
  sub->add_option("--in", o.in, "Array to quantize (.npy)")->required()->type_name("FILE");
  sub->add_option("--out", o.out, "Quantized values (.npy, float32)")->type_name("FILE");
  sub->add_option("--codes", o.codes, "Codes (.npy, int32); of minifloats their bit patterns")->type_name("FILE");
  sub->add_option("--packed", o.packed, "Codes without gaps, lowest bits first (raw bytes)")->type_name("FILE");
  sub->add_flag("--on-grid", o.on_grid, "Refuse an array whose values are not on the quantizer's grid already");
  sub->add_option("--scale", o.scale_out, "Scales (.npy)")->type_name("FILE");
  sub->add_option("--zero-point", o.zero_point_out, "Zero points (.npy)")->type_name("FILE");
  sub->add_option("--calib", o.calib, "Batch of samples that the range of an activation comes from (.npy); several may be given")->type_name("FILE");
  sub->add_option("--kind", o.kind, "What the array is")->check(CLI::IsMember({"weight", "activation", "bias", "trunc"}));
  sub->add_option("--layer", o.layer, "Layer of a weight; decides the axis of channels and groups")
      ->check(CLI::IsMember({"linear", "conv", "conv-transpose"}));
  sub->add_option("--axis", o.axis, "Axis of channels, groups or rows instead of the layer's")->check(CLI::Range(-8, 7));
  sub->add_option("--input-scale", o.input_scale, "Scale of the input, for a bias; of the array itself, for a truncation (.npy)")
      ->type_name("FILE");
  sub->add_option("--input-bits", o.input_bits, "Width of the array's integers, for a truncation")->check(CLI::Range(1, 32));
  sub->add_option("--param", o.params, "A trained parameter instead of what the array gives: scale, zero-point or round (.npy)")
      ->type_name("NAME=FILE");
  sub->add_option("--weight-scale", o.weight_scale, "Scales of the weight, for a bias (.npy)")->type_name("FILE");
}

void add_verbs(CLI::App& app, Options& o) {
  project_verb(app, o, "info", "Layers with shapes, cost and formats; state of the data")->alias("open");

  auto* create = verb(app, "new", "Make a project from a model");
  create->add_option("model", o.path, "Model (.onnx, .pt, .ts, .jit)")->required()->type_name("FILE");
  create->add_option("--data-file", o.data_file, "Data settings as JSON or YAML")->type_name("FILE");
  create->add_option("--recipe", o.recipe, "Recipe file, or id of a built-in one")->type_name("FILE|ID");

  add_data(app, o);

  auto* calibrate = project_verb(app, o, "calibrate", "Gather the statistics that ranges are taken from");
  calibrate->add_option("--samples", o.calibration_samples, "Samples; kept in the recipe; 0: all")
      ->check(at_least(0));
  calibrate->add_option("--seed", o.seed, "Seed of their choice; kept in the recipe");

  auto* quantize = project_verb(app, o, "quantize", "Quantize and measure; the result is a run");
  add_recipe(quantize, o);
  add_samples(quantize, o);
  quantize->add_flag("!--no-evaluate", o.evaluate, "Do not measure accuracy");

  auto* run = verb(app, "run", "quantize with the recipe first: run RECIPE PROJECT");
  run->add_option("recipe", o.recipe, "Recipe file, or id of a built-in one")->required()->type_name("FILE|ID");
  run->add_option("path", o.path, "Model or project")->required()->type_name("FILE");
  add_recipe_changes(run, o);
  run->add_flag("!--no-evaluate", o.evaluate, "Do not measure accuracy");
  add_samples(run, o);

  auto* evaluate = project_verb(app, o, "evaluate", "Measure the float model, or the network of a run");
  evaluate->add_option("--run", o.run, "Run number; default: the float model")->check(at_least(1));
  add_samples(evaluate, o);

  add_train(app, o);
  add_sweep(app, o);

  auto* compare = project_verb(app, o, "compare", "Compare two runs, layer by layer");
  compare->add_option("a", o.run_a, "Run number")->required()->check(at_least(1));
  compare->add_option("b", o.run_b, "Run number")->required()->check(at_least(1));

  add_export(app, o);

  auto* dump = project_verb(app, o, "dump", "Write samples and what a run's network computes of them as raw files, for other programs and devices");
  dump->add_option("--run", o.run, "Run number")->required()->check(at_least(1));
  dump->add_option("--out", o.out, "Folder for inputs, labels, logits, predictions and activation codes")->required()->type_name("DIR");
  dump->add_option("--code-samples", o.code_samples, "Samples whose activation codes are written")
      ->check(at_least(0));
  add_samples(dump, o);

  auto* runs = project_verb(app, o, "runs", "List the runs, or show one");
  runs->add_option("--run", o.run, "Run number")->check(at_least(1));

  auto* recipe = project_verb(app, o, "recipe", "Print the project's recipe as YAML, or set it");
  recipe->add_option("--set", o.set_recipe, "Recipe file, or id of a built-in one")->type_name("FILE|ID");
  recipe->add_option("--out", o.out, "Write the recipe to this file")->type_name("FILE");

  auto* check = project_verb(app, o, "check", "Say what keeps a recipe's passes from running and what they will take");
  add_recipe(check, o);

  add_tensor(app, o);

  auto* presets = verb(app, "presets", "Named quantizers, for 'preset' in recipes and 'tensor --spec'");
  presets->add_option("--filter", o.filter, "Only those whose name or description contains this")->type_name("TEXT");

  auto* trust = verb(app, "trust", "Files whose code may run (--trust, TorchScript); take that back");
  trust->add_option("--revoke", o.revoke, "Take it back: path of the file, or 8 or more first characters of its hash")->type_name("FILE|HASH");
  trust->add_flag("--revoke-all", o.revoke_all, "Take it back for all files");

  auto* targets = verb(app, "targets", "What each export target takes of quantizers");
  targets->add_option("--target", o.target, "This one only");
  targets->add_flag("--markdown", o.markdown, "As a page of documentation");
  add_options(targets, o, "Option of the exporter");

  verb(app, "catalog", "Plug-ins with their options, presets, built-in recipes");
}

}  // namespace

std::optional<int> parse(int argc, char** argv, Options& out) {
  CLI::App app(kAbout, "quanvas-cli");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text("quanvas-cli"));
  app.add_flag("--json", out.json, "Results as JSON on standard output");
  app.add_flag("--quiet,-q", out.quiet, "No progress on standard error");
  app.add_option("--device", out.device, "Where tensors are computed")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--threads", out.threads, "Threads that compute; 0: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--project", out.project, "Project file of a model; default: the model's own")->type_name("FILE");
  app.add_option("--shape", out.shapes, "Shape of an input that the model leaves open, or the value of an input that is one integer; kept with the project; ? stays open")
      ->type_name("INPUT=1,3,224,224");
  app.add_option("--quantizers", out.quantizers,
                 "Quantizers that the model file carries: rules of the recipe for the float network (default), or nodes "
                 "that are executed as they stand; of a new project only")
      ->check(CLI::IsMember({"rules", "nodes"}));
  app.add_flag("--trust", out.trust, "Let the code run that the model brings (TorchScript); remembered for this content");
  add_verbs(app, out);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : exit_code(ErrorCode::kInvalidArgument);
  }
  out.verb = app.get_subcommands().front()->get_name();
  if (out.verb == "new" && out.project.empty()) {
    std::fprintf(stderr, "--project is required: the file of the new project.\n");
    return exit_code(ErrorCode::kInvalidArgument);
  }
  return std::nullopt;
}

}  // namespace quanvas::cli
