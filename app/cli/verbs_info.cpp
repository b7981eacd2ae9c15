// info, runs, compare, catalog: what is there.
#include <algorithm>

#include "app/cli/verbs.h"
#include "core/report/target_lens.h"

namespace quanvas::cli {
namespace {

using Align = Table::Align;

std::string sqnr(const std::optional<TensorError>& error) { return error ? fixed(error->sqnr_db, 2) : "-"; }

std::string format_of(const Plan& plan, NodeId node, SiteKind kind) {
  for (const auto& site : plan.sites)
    if (site.site.node == node && site.site.kind == kind && site.spec) return chip_text(*site.spec, kind);
  return "";
}

// The name that sites with one quantizer share; "node" for the inputs of a layer, "edge" for edges on one scale.
std::string share_of(const Plan& plan, NodeId node, SiteKind kind) {
  for (const auto& site : plan.sites)
    if (site.site.node == node && site.site.kind == kind && site.spec)
      return site.share.starts_with("#e") ? "edge" : site.share.starts_with("#") ? "node" : site.share;
  return "";
}

// For the table: "A8 (shared: in)".
std::string format_text(const Plan& plan, NodeId node, SiteKind kind) {
  const std::string share = share_of(plan, node, kind);
  return format_of(plan, node, kind) + (share.empty() ? "" : " (shared: " + share + ")");
}

std::string output_shape(const Graph& graph, const Node& node) {
  if (node.outputs.empty() || node.outputs[0] == kNoTensor) return "?";
  const auto& shape = graph.tensor(node.outputs[0]).shape;
  return shape ? shape_text(*shape) : "?";
}

std::string data_text(const ProjectState& state) {
  const auto& status = state.data_status;
  std::string out = "data       " + (state.data.name.empty() ? std::string("not named") : state.data.name) + ": " +
                    thousands(status.calibration_samples) + " calibrate, " + thousands(status.training_samples) +
                    " train, " + thousands(status.evaluation_samples) + " evaluate" +
                    (status.has_labels ? ", with labels" : status.has_tokens ? ", windows of tokens" : "") + "\n";
  if (!status.problem.empty()) out += "           " + status.problem + "\n";
  return out + "calibrated " + (state.calibrated ? "yes" : "no") + "\n";
}

std::string header_text(const Graph& graph, const ProjectState& state) {
  std::string out = "model      " + state.model_path + "\nproject    " + state.project_path;
  if (state.read_only) out += " (read-only: " + state.read_only_reason + ")";
  out += "\nrecipe     " + state.recipe.name + "\n" + data_text(state);
  for (const TensorId id : graph.inputs()) {
    const auto& tensor = graph.tensor(id);
    out += "input      " + tensor.name + " " + type_name(tensor.type) + " " +
           (tensor.shape ? shape_text(*tensor.shape) : "?") + "\n";
  }
  return out + "opset      " + std::to_string(graph.opset()) + "\n";
}

json node_json(const Graph& graph, const Node& node, const Plan& plan) {
  const auto cost = node_cost(graph, node);
  json out = {{"id", node.id},
              {"name", node.name},
              {"op", node.op},
              {"shape", output_shape(graph, node)},
              {"parameters", cost.parameters},
              {"macs", cost.macs},
              {"weight_bytes", cost.weight_bytes},
              {"weight_format", format_of(plan, node.id, SiteKind::kWeight)},
              {"input_format", format_of(plan, node.id, SiteKind::kInput)}};
  for (const auto& [key, kind] : {std::pair{"weight_share", SiteKind::kWeight}, {"input_share", SiteKind::kInput}})
    if (const std::string share = share_of(plan, node.id, kind); !share.empty()) out[key] = share;
  if (!node.opaque_reason.empty()) out["opaque_reason"] = node.opaque_reason;
  return out;
}

void print_graph(const Graph& graph, const ProjectState& state, const Plan& plan) {
  Table table({{"name"}, {"op"}, {"output shape"}, {"params", Align::kRight}, {"MACs", Align::kRight}, {"weight"},
               {"input"}});
  double parameters = 0, macs = 0;
  for (const auto& node : graph.nodes()) {
    const auto cost = node_cost(graph, node);
    parameters += cost.parameters;
    macs += cost.macs;
    table.row({node.name, node.opaque_reason.empty() ? node.op : node.op + " (not executed)",
               output_shape(graph, node), cost.parameters > 0 ? thousands(cost.parameters) : "",
               cost.macs > 0 ? thousands(cost.macs) : "", format_text(plan, node.id, SiteKind::kWeight),
               format_text(plan, node.id, SiteKind::kInput)});
  }
  print(header_text(graph, state) + "\n" + table.text());
  print("\n" + thousands(static_cast<double>(graph.nodes().size())) + " nodes, " + thousands(parameters) +
        " parameters, " + thousands(macs) + " MACs for one sample\n");
  for (const auto& warning : plan.warnings) print("warning: " + warning + "\n");
}

// For a table whose column says "top-1 (%)"; a perplexity says its unit itself.
std::string accuracy_text(const Run& run) {
  if (!run.accuracy) return "-";
  const auto& a = *run.accuracy;
  if (has_perplexity(a)) return perplexity_text(a);
  return percent(a.top1) + (a.top1_stderr == a.top1_stderr ? " ± " + percent(a.top1_stderr) : "");
}

std::string score_head(const std::vector<Run>& runs) {
  const auto any = [&](bool perplexity) {
    return std::any_of(runs.begin(), runs.end(), [&](const Run& r) { return r.accuracy && has_perplexity(*r.accuracy) == perplexity; });
  };
  return !any(true) ? "top-1 (%)" : any(false) ? "top-1 (%) or perplexity" : "perplexity";
}

// For a sentence.
std::string score_text(const Run& run) {
  if (run.accuracy && has_perplexity(*run.accuracy)) return accuracy_text(run);
  return "top-1 " + accuracy_text(run) + " %";
}

void print_accuracy(const Run& run, const Accuracy& a) {
  if (has_perplexity(a)) {
    print("perplexity " + accuracy_text(run) + ", loss " + fixed(a.loss, 4) + " ± " + fixed(a.loss_stderr, 4) + " nats per token on " +
          thousands(a.tokens) + " tokens in " + thousands(a.samples) + (a.samples == 1 ? " window\n" : " windows\n"));
    if (a.agreement == a.agreement)
      print("same token as float " + percent(a.agreement) + " %, output SQNR " + fixed(a.output_sqnr_db, 2) + " dB\n");
    return;
  }
  print("top-1 " + accuracy_text(run) + " %, top-5 " + percent(a.top5) + " %, loss " + fixed(a.loss, 4) + " on " +
        thousands(a.samples) + " samples\n");
  if (a.agreement == a.agreement)
    print("same class as float " + percent(a.agreement) + " %, output SQNR " + fixed(a.output_sqnr_db, 2) + " dB\n");
}

void print_layers(const Run& run) {
  Table table({{"layer"}, {"op"}, {"weight"}, {"input"}, {"weight SQNR (dB)", Align::kRight},
               {"output alone (dB)", Align::kRight}, {"output in all (dB)", Align::kRight}});
  for (const auto& layer : run.layers)
    table.row({layer.name, layer.op, layer.weight_format, layer.activation_format, sqnr(layer.weight),
               sqnr(layer.isolated), sqnr(layer.cumulative)});
  print("\n" + table.text());
}

void print_sweep(const Run& run, const SweepResult& result) {
  std::vector<NodeId> nodes;
  std::map<std::pair<NodeId, int>, const SweepCell*> cells;
  for (const auto& cell : result.cells) {
    if (std::find(nodes.begin(), nodes.end(), cell.node) == nodes.end()) nodes.push_back(cell.node);
    cells[{cell.node, cell.bits}] = &cell;
  }
  std::map<NodeId, std::string> names;
  for (const auto& layer : run.layers) names[layer.node] = layer.name;
  const auto matrix = [&](auto&& value) {
    std::vector<Table::Column> columns = {{"layer"}};
    for (const int bits : result.settings.bits) columns.push_back({std::to_string(bits) + " bit", Align::kRight});
    Table table(columns);
    for (const NodeId node : nodes) {
      std::vector<std::string> row = {names.count(node) ? names[node] : "node " + std::to_string(node)};
      for (const int bits : result.settings.bits) {
        const auto it = cells.find({node, bits});
        row.push_back(it == cells.end() ? "" : value(*it->second));
      }
      table.row(row);
    }
    return table.text();
  };
  print("\nSQNR of the network's output (dB)\n" + matrix([](const SweepCell& c) { return fixed(c.output_sqnr_db, 1); }));
  if (result.float_perplexity == result.float_perplexity)
    print("\nrise of perplexity (%; float has " + perplexity_digits(result.float_perplexity) + ")\n" +
          matrix([](const SweepCell& c) { return percent(c.perplexity_rise); }));
  else
    print("\nloss of top-1 (percentage points; float has " + percent(result.float_top1) + " %)\n" +
          matrix([](const SweepCell& c) { return percent(c.top1_drop); }));
  if (!result.complete)
    print("\nThe sweep is not complete; go on with --resume " + std::to_string(run.id) + ".\n");
}

void print_pass(const PassReport& pass) {
  print("pass " + pass.title + " (" + fixed(pass.seconds, 2) + " s): " + pass.summary + "\n");
  if (pass.layers.empty()) return;
  if (!pass.measure.empty()) print("  before, after: " + pass.measure + "\n");
  Table table({{"  layer"}, {"before", Table::Align::kRight}, {"after", Table::Align::kRight}, {"note"}});
  const auto number = [](double v) {
    char text[32] = "-";
    if (!std::isnan(v)) std::snprintf(text, sizeof text, "%.4g", v);
    return std::string(text);
  };
  for (const PassLayer& l : pass.layers) table.row({"  " + l.layer, number(l.before), number(l.after), l.note});
  print(table.text());
}

}  // namespace

void print_run(const Run& run, bool as_json) {
  if (as_json) return print_json(to_json_value(run));
  print((run.id ? "run " + std::to_string(run.id) : std::string("run, not stored")) + "  " + run.name + "  (" + enum_text(run.kind) + ", " +
        fixed(run.seconds, 1) + " s)\n");
  if (run.accuracy) print_accuracy(run, *run.accuracy);
  print("size " + thousands(run.bytes) + " bytes (float " + thousands(run.bytes_float) + "), " + thousands(run.bops) +
        " BOPs\n");
  for (const auto& pass : run.passes) print_pass(pass);
  if (!run.layers.empty() && !run.sweep) print_layers(run);
  if (run.sweep) print_sweep(run, *run.sweep);
  for (const auto& issue : run.issues)
    print(std::string(enum_text(issue.severity)) + ": " + issue.where + ": " + issue.message + "\n");
}

Status info(Work& work) {
  const auto graph = work.bench->graph();
  const auto state = work.bench->state();
  QUANVAS_TRY(const Plan plan, resolve(*graph, state.recipe, PresetLibrary::builtin()));
  if (!work.options.json) {
    print_graph(*graph, state, plan);
    return {};
  }
  json nodes = json::array();
  for (const auto& node : graph->nodes()) nodes.push_back(node_json(*graph, node, plan));
  print_json({{"state", to_json_value(state)}, {"nodes", nodes}, {"warnings", plan.warnings}});
  return {};
}

Status runs(Work& work) {
  QUANVAS_TRY(const auto list, work.bench->runs());
  if (work.options.run) {
    for (const auto& run : list)
      if (run.id == *work.options.run) {
        print_run(run, work.options.json);
        if (work.options.json) return {};
        QUANVAS_TRY(const std::string kept, work.bench->value(exports_key(run.id)));
        if (kept.empty()) return {};
        QUANVAS_TRY(const auto reports, from_json_text<std::vector<ExportReport>>(kept, "exports"));
        print("\nexported to\n");
        for (const ExportReport& report : reports) print("  " + summary(report) + "\n");
        return {};
      }
    return fail(ErrorCode::kNotFound, "There is no run " + std::to_string(*work.options.run) + ".",
                "'quanvas-cli runs' lists them.");
  }
  if (work.options.json) {
    print_json(to_json_value(list));
    return {};
  }
  Table table({{"run", Align::kRight}, {"name"}, {"kind"}, {"created (UTC)"}, {score_head(list), Align::kRight},
               {"samples", Align::kRight}, {"size (bytes)", Align::kRight}, {"BOPs", Align::kRight},
               {"time (s)", Align::kRight}});
  for (const auto& run : list)
    table.row({std::to_string(run.id), run.name, enum_text(run.kind), run.created, accuracy_text(run),
               run.accuracy ? thousands(run.accuracy->samples) : "-", thousands(run.bytes), thousands(run.bops),
               fixed(run.seconds, 1)});
  print(table.text());
  return {};
}

Status compare_runs(Work& work) {
  QUANVAS_TRY(const auto list, work.bench->runs());
  const auto find = [&](std::int64_t id) -> Result<const Run*> {
    for (const auto& run : list)
      if (run.id == id) return &run;
    return fail(ErrorCode::kNotFound, "There is no run " + std::to_string(id) + ".", "'quanvas-cli runs' lists them.");
  };
  QUANVAS_TRY(const Run* a, find(work.options.run_a));
  QUANVAS_TRY(const Run* b, find(work.options.run_b));
  const auto comparison = compare(*a, *b);
  if (work.options.json) {
    print_json(to_json_value(comparison));
    return {};
  }
  print("a: run " + std::to_string(a->id) + " " + a->name + ", " + score_text(*a) + ", " + thousands(a->bytes) +
        " bytes\nb: run " + std::to_string(b->id) + " " + b->name + ", " + score_text(*b) + ", " + thousands(b->bytes) + " bytes\n");
  const bool tokens = comparison.perplexity_delta == comparison.perplexity_delta;
  print("b - a: " + (tokens ? "perplexity " + fixed(comparison.perplexity_delta, 4) : "top-1 " + percent(comparison.top1_delta) + " points") +
        ", " + thousands(comparison.bytes_delta) +
        " bytes, " + thousands(comparison.bops_delta) + " BOPs\n");
  for (const auto& difference : comparison.recipe_differences) print("  " + difference + "\n");
  Table table({{"layer"}, {"a"}, {"b"}, {"a output (dB)", Align::kRight}, {"b output (dB)", Align::kRight},
               {"b - a (dB)", Align::kRight}});
  const auto format = [](const std::optional<LayerResult>& r) {
    if (!r) return std::string("-");
    const std::string text = r->weight_format + (r->activation_format.empty() ? "" : " " + r->activation_format);
    return text.empty() ? std::string("float") : text;
  };
  for (const auto& d : comparison.layers)
    table.row({d.name, format(d.a), format(d.b), d.a ? sqnr(d.a->cumulative) : "-", d.b ? sqnr(d.b->cumulative) : "-",
               fixed(d.cumulative_delta_db, 2)});
  print("\n" + table.text());
  return {};
}

Status catalog(Work& work) {
  json all = plugin_catalog();
  all["presets"] = to_json_value(PresetLibrary::builtin().all());
  all["recipes"] = builtin_recipe_ids();
  if (work.options.json) {
    print_json(all);
    return {};
  }
  const auto text = [](const json& row, const char* key) {
    return row.is_object() && row.contains(key) && row[key].is_string() ? row[key].get<std::string>() : std::string();
  };
  for (const auto& [kind, rows] : all.items()) {
    Table table({{"id"}, {"title"}, {"what it does"}});
    for (const auto& row : rows)
      table.row(row.is_string() ? std::vector<std::string>{row.get<std::string>()}
                                : std::vector<std::string>{text(row, "id"), text(row, "title"), text(row, "doc")});
    print(kind + "\n" + table.text() + "\n");
  }
  return {};
}

}  // namespace quanvas::cli
