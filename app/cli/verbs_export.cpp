// export and new: files that the program makes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "app/cli/verbs.h"
#include "core/base/files.h"
#include "core/plugin/registry.h"
#include "core/recipe/plan.h"
#include "core/recipe/recipe.h"
#include "core/report/target_lens.h"

namespace quanvas::cli {
namespace {

constexpr std::size_t kNamed = 3;  // places of one refusal that are named; the rest is counted

// Refusals that say the same of several places are one line; --json lists them one by one.
void print_refusals(const std::string& target, const std::vector<Refusal>& refusals) {
  if (refusals.empty()) return print(target + " takes everything.\n");
  struct Line {
    const Refusal* refusal;
    std::vector<std::string> places;
  };
  std::vector<Line> lines;
  for (const Refusal& r : refusals) {
    const auto same = [&](const Line& l) {
      return l.refusal->rule == r.rule && l.refusal->got == r.got && l.refusal->allowed == r.allowed && l.refusal->suggestion == r.suggestion;
    };
    auto line = std::find_if(lines.begin(), lines.end(), same);
    if (line == lines.end()) line = lines.insert(lines.end(), {&r, {}});
    line->places.push_back(r.layer + (r.layer.empty() || r.quantizer.empty() ? "" : " ") + r.quantizer);
  }
  Table table({{"where"}, {"rule"}, {"got"}, {"taken"}, {"what to do"}});
  for (const Line& l : lines) {
    std::string where;
    for (std::size_t i = 0; i < std::min(kNamed, l.places.size()); ++i) where += (i ? ", " : "") + l.places[i];
    if (l.places.size() > kNamed) where += " and " + std::to_string(l.places.size() - kNamed) + " more";
    table.row({where, l.refusal->rule, l.refusal->got, l.refusal->allowed, l.refusal->suggestion});
  }
  print(table.text());
}

// As many digits as a person compares; --json has all.
std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return std::isnan(value) ? "NaN" : text;
}

// Every tensor that differs; how many do not is said in one line.
void print_nodes(const ExportReport& report) {
  if (report.nodes.empty()) return;
  Table table({{"layer"}, {"tensor"}, {"values", Table::Align::kRight}, {"differ", Table::Align::kRight},
               {"most steps", Table::Align::kRight}, {"largest difference", Table::Align::kRight}});
  std::size_t equal = 0;
  double values = 0;
  for (const NodeAudit& n : report.nodes) {
    values += n.values;
    equal += n.differing == 0;
    if (n.differing > 0)
      table.row({n.layer, n.what, thousands(n.values), thousands(n.differing), n.is_quantized ? short_number(n.max_steps) : "",
                 short_number(n.max_difference)});
  }
  print("\n" + std::to_string(equal) + " of " + std::to_string(report.nodes.size()) + " tensors, " + thousands(values) +
        " values of up to 32 samples, are the screen's" + (equal == report.nodes.size() ? ".\n" : "; these differ, the first in the network first:\n"));
  if (equal < report.nodes.size()) print(table.text());
}

void print_report(const ExportReport& report) {
  Table table({{"layer"}, {"quantizer"}, {"requested"}, {"written"}, {"bytes", Table::Align::kRight}, {"equal"}});
  for (const auto& row : report.audit)
    table.row({row.layer, row.quantizer, row.requested, row.written, thousands(row.bytes), row.equal ? "yes" : "NO"});
  print(table.text() + "\nWrote ");
  for (std::size_t i = 0; i < report.files.size(); ++i) print((i ? ", " : "") + report.files[i]);
  print(": " + thousands(report.file_bytes) + " bytes (weights and biases: float " + thousands(report.float_bytes) + ", codes and scales " +
        thousands(report.ideal_bytes) + ")\n");
  print_nodes(report);
  if (report.checked_samples > 0)
    print("Read again and run on " + thousands(report.checked_samples) + " samples: largest difference of an output " +
          short_number(report.max_output_difference) + ", same class " + percent(report.equal_predictions) + " %\n");
  if (const std::string both = both_accuracies(report); !both.empty()) print(both + "\n");
  if (report.exactness) print("Exactness: " + std::string(enum_text(*report.exactness)) + ", " + meaning(*report.exactness) + ".\n");
  for (const auto& note : report.notes) print("note: " + note + "\n");
}

Failure refused(const std::string& target, const std::vector<Refusal>& refusals) {
  return fail(ErrorCode::kUnsupported, "The target '" + target + "' refuses " + std::to_string(refusals.size()) +
                                           " of the choices; nothing was written.",
              "The first: " + refusals.front().text());
}

// What is not calibrated yet keeps nothing from being mended.
bool is_calibration(const Refusal& r) { return !r.site && r.rule == "calibration"; }

bool quantizes_weights(const Plan& plan) {
  return std::any_of(plan.sites.begin(), plan.sites.end(), [](const SitePlan& s) { return s.spec && s.site.kind == SiteKind::kWeight; });
}

// The recipe with what the target takes in the place of what it refuses, until nothing more can be mended. It becomes the
// project's only when the target takes all of it, and when it still quantizes something. What became float is said.
Result<std::vector<Refusal>> mend(Work& work, const json& options, std::vector<Refusal> refusals) {
  const auto& o = work.options;
  constexpr int kRounds = 4;  // a mended quantizer can ask for another one
  const Recipe before = work.bench->state().recipe;
  Recipe after = before;
  for (int round = 0; round < kRounds && std::any_of(refusals.begin(), refusals.end(), can_mend); ++round) {
    QUANVAS_TRY(Recipe next, work.bench->mend_recipe(after, refusals, {}));
    if (next == after) break;
    after = std::move(next);
    QUANVAS_TRY(refusals, work.bench->check_export(after, o.target, options));
  }
  if (after == before) return refusals;
  if (!std::all_of(refusals.begin(), refusals.end(), is_calibration)) {
    if (!o.json) print("The recipe is left as it was: this remains when all is mended that can be.\n");
    return refusals;
  }
  const GraphPtr graph = work.bench->graph();
  QUANVAS_TRY(const Plan asked, resolve(*graph, before, PresetLibrary::builtin()));
  QUANVAS_TRY(const Plan given, resolve(*graph, after, PresetLibrary::builtin()));
  std::string now_float;
  for (const SitePlan& site : asked.sites) {
    const SitePlan* now = given.find(site.site);
    const Node* node = graph->find(site.site.node);
    if (!site.spec || (now && now->spec) || !node || site.site.kind != SiteKind::kWeight) continue;
    now_float += (now_float.empty() ? "" : ", ") + node->name;
  }
  if (!quantizes_weights(given))
    return fail(ErrorCode::kUnsupported, "The target '" + o.target + "' can hold none of the recipe's weights: mended, all would be float.",
                "The recipe is left as it was; 'targets --target " + o.target + "' prints what the target takes.");
  after.name += ", fit for " + o.target;
  QUANVAS_CHECK(work.bench->set_recipe(after, "Fit " + o.target));
  if (!o.json) print("The project's recipe is now '" + after.name + "'.\n");
  if (!o.json && !now_float.empty()) print("Float now: the weights of " + now_float + ".\n");
  return refusals;
}

// That of a run is what it was made with.
Result<Recipe> recipe_to_check(Work& work) {
  const auto& o = work.options;
  if (!o.run) return work.bench->state().recipe;
  if (o.fix)
    return fail(ErrorCode::kInvalidArgument, "--fix changes the project's recipe; a run has its own and stays what it is.", "Leave --run out.");
  QUANVAS_TRY(const std::vector<Run> runs, work.bench->runs());
  const auto run = std::find_if(runs.begin(), runs.end(), [&](const Run& r) { return r.id == *o.run; });
  if (run == runs.end()) return fail(ErrorCode::kNotFound, "There is no run " + std::to_string(*o.run) + ".", "'runs' lists them.");
  return run->recipe;
}

}  // namespace

Status export_model(Work& work) {
  const auto& o = work.options;
  QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get(o.target, "exporter"));
  QUANVAS_TRY(const json options, options_from(o.options, exporter->schema(), "the exporter '" + o.target + "'"));
  if (o.check_only || o.fix) {
    QUANVAS_TRY(const Recipe recipe, recipe_to_check(work));
    QUANVAS_TRY(auto refusals, work.bench->check_export(recipe, o.target, options));
    if (o.fix) {
      QUANVAS_TRY(refusals, mend(work, options, std::move(refusals)));
    }
    if (o.json)
      print_json(to_json_value(refusals));
    else
      print_refusals(o.target, refusals);
    if (refusals.empty()) {
      QUANVAS_TRY(const Plan plan, resolve(*work.bench->graph(), work.bench->state().recipe, PresetLibrary::builtin()));
      if (!o.json && !o.run && exporter->needs_quantizers() && !quantizes_weights(plan)) print("The recipe quantizes no weight.\n");
      return {};
    }
    const auto mendable = std::count_if(refusals.begin(), refusals.end(), can_mend);
    return fail(ErrorCode::kUnsupported, "The target '" + o.target + "' refuses " + std::to_string(refusals.size()) + " of the choices.",
                o.check_only && mendable > 0 && !o.run ? "--fix can mend " + std::to_string(mendable) + " of them." : "");
  }
  if (o.out.empty())
    return fail(ErrorCode::kInvalidArgument, "export needs --out FILE.", "--check only says what the target refuses.");
  ExportRequest request;
  request.target = o.target;
  request.path = o.out;
  request.options = options;
  request.run = o.run.value_or(0);
  request.overwrite = o.overwrite;
  if (o.samples) request.samples = *o.samples;
  QUANVAS_TRY(const ExportReport report, work.bench->export_model(request, work.job));
  if (o.json)
    print_json(to_json_value(report));
  else if (report.refusals.empty())
    print_report(report);
  else
    print_refusals(o.target, report.refusals);
  if (!report.refusals.empty()) return refused(o.target, report.refusals);
  // What the user has asked to be rounded is not the screen's by construction; the report says by how much.
  if (!falls_short(report)) return {};
  const auto unequal = std::count_if(report.audit.begin(), report.audit.end(), [](const AuditRow& r) { return !r.equal; });
  if (unequal > 0)
    return fail(ErrorCode::kInternal, "'" + report.path + "' was written, but " + std::to_string(unequal) +
                                          " of its quantizers differ from the requested ones.");
  return fail(ErrorCode::kInternal, "'" + report.path + "' was written, but its network gives the screen's class for only " +
                                        percent(report.equal_predictions) + " % of the samples.");
}

namespace {

std::string in_words(const std::vector<std::string>& list, const char* none) {
  std::string out;
  for (const std::string& s : list) out += (out.empty() ? "" : ", ") + s;
  return out.empty() ? none : out;
}

std::string sites_of(const TargetRow& row) {
  std::vector<std::string> words;
  for (const SiteKind kind : row.sites) words.emplace_back(enum_text(kind));
  return in_words(words, "");
}

// The constraint tables as a page of the documentation.
void print_markdown(const Exporter& exporter, const TargetTable& table) {
  const PluginInfo info = exporter.info();
  print("\n## " + info.title + " (`" + info.id + "`)\n" + info.doc + "\n\n");
  if (const std::string why = exporter.unavailable(); !why.empty()) return print("Not offered: " + why + "\n");
  if (table.rows.empty()) return print("Holds no quantizers.\n");
  print("Exactness: " + std::string(enum_text(table.exactness)) + ".\n\n| in the file | sites | layers | takes |\n|---|---|---|---|\n");
  for (const TargetRow& row : table.rows)
    print("| " + row.form + " | " + sites_of(row) + " | " + in_words(row.ops, "all") + " | " + describe(row) + " |\n");
  for (const TargetNeed& need : table.needs)
    print("\nNeeds a quantizer: " + std::string(enum_text(need.site)) + " of " + in_words(need.ops, "every layer") + ": " + need.why + ".\n");
  for (const std::string& note : table.notes) print("\n" + note + "\n");
}

}  // namespace

Status targets(Work& work) {
  const auto& o = work.options;
  json all = json::array();
  if (!o.target.empty()) QUANVAS_CHECK(Registry<Exporter>::instance().get(o.target, "exporter"));
  if (o.markdown)
    print("# What each export target takes\n\nWritten by `quanvas-cli targets --markdown` from the tables that check an export, with each "
          "target's default options.\n");
  for (const Exporter* exporter : Registry<Exporter>::instance().all()) {
    const PluginInfo info = exporter->info();
    if (!o.target.empty() && info.id != o.target) continue;
    json given = json::object();
    if (!o.target.empty()) {
      QUANVAS_TRY(given, options_from(o.options, exporter->schema(), "the exporter '" + o.target + "'"));
    }
    QUANVAS_TRY(const json options, exporter->schema().complete(given, "the exporter '" + info.id + "'"));
    const TargetTable table = exporter->unavailable().empty() ? exporter->table(options) : TargetTable{};
    if (o.markdown) {
      print_markdown(*exporter, table);
    } else if (o.json) {
      json entry = table_json(table);
      entry["id"] = info.id;
      entry["title"] = info.title;
      entry["unavailable"] = exporter->unavailable();
      all.push_back(std::move(entry));
    } else {
      print(info.id + "  " + info.title + (table.rows.empty() ? "" : ", exactness " + std::string(enum_text(table.exactness))) + "\n");
      if (const std::string why = exporter->unavailable(); !why.empty()) print("  not offered: " + why + "\n");
      Table rows({{"in the file"}, {"sites"}, {"layers"}, {"takes"}});
      for (const TargetRow& row : table.rows) rows.row({row.form, sites_of(row), in_words(row.ops, "all"), describe(row)});
      if (!table.rows.empty()) print(rows.text() + "\n");
    }
  }
  if (o.json && !o.markdown) print_json(all);
  return {};
}

Status dump(Work& work) {
  const auto& o = work.options;
  DumpRequest request;
  request.folder = o.out;
  request.samples = o.samples.value_or(0);
  request.code_samples = o.code_samples;
  QUANVAS_CHECK(work.bench->dump_run(*o.run, request, work.job));
  const auto path = std::filesystem::path(o.out) / "dump.json";
  QUANVAS_TRY(const std::string text, read_file(path));
  QUANVAS_TRY(const json index, parse_json(text, path.string()));
  if (o.json)
    print_json(index);
  else
    print("Wrote inputs, logits, predictions" + std::string(index.contains("labels") ? ", labels" : "") + " of " +
          thousands(index["samples"].get<double>()) + " samples and codes of " + thousands(index["code_samples"].get<double>()) +
          " to " + o.out + "; dump.json says what is where.\n");
  return {};
}

Status new_project(Work& work) {
  const auto& o = work.options;
  std::error_code ec;
  if (std::filesystem::exists(o.project, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + o.project + "' exists already.", "Choose another file for --project.");
  // Read first: a mistake in them leaves no half-made project behind.
  std::optional<DataSettings> data;
  std::optional<Recipe> recipe;
  if (!o.data_file.empty()) {
    QUANVAS_TRY(data, read_data_file(o.data_file));
  }
  if (!o.recipe.empty()) {
    QUANVAS_TRY(recipe, named_recipe(o.recipe));
  }
  QUANVAS_TRY(work.bench, open_bench(o, work.job));
  for (const auto& issue : work.bench->state().issues) work.job.issue(issue);
  if (data) QUANVAS_CHECK(work.bench->set_data(*data));
  if (recipe) QUANVAS_CHECK(work.bench->set_recipe(*recipe, "Use recipe " + recipe->name));
  const auto state = work.bench->state();
  if (o.json)
    print_json(to_json_value(state));
  else
    print("Made " + state.project_path + (state.data_status.problem.empty() ? "" : "\n" + state.data_status.problem) +
          "\n");
  return {};
}

}  // namespace quanvas::cli
