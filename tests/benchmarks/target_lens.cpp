// How long the target lens takes on a network: what declarations say, what numbers add after an edit of one layer,
// and all numbers anew. target_lens MODEL|PROJECT [TARGET [RECIPE.yaml]]; see docs/benchmarks.md.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <vector>

#include <unistd.h>

#include "core/graph/layers.h"
#include "core/workflow/workbench.h"

namespace {

using namespace quanvas;
namespace fs = std::filesystem;

// W4A8 with scales of least squared error, biases as sums of codes.
Recipe searched() {
  Recipe recipe = uniform_recipe(4, 8);
  for (Rule& rule : recipe.rules) {
    const auto& sites = rule.select.sites;
    if (!rule.is_float && std::find(sites.begin(), sites.end(), SiteKind::kWeight) != sites.end())
      rule.override_fields["statistic"] = "mse";
  }
  return recipe;
}

double milliseconds(const std::function<void()>& what) {
  const auto start = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// The recipe with another width at the weight of one layer, as a click makes it.
Recipe edited(const Recipe& recipe, const Graph& graph, NodeId layer, int bits) {
  Recipe out = recipe;
  Rule rule;
  rule.select.names = {quote_pattern(graph.find(layer)->name)};
  rule.select.sites = {SiteKind::kWeight};
  rule.override_fields = {{"bits", bits}, {"granularity", "channel"}, {"statistic", "mse"}};
  out.rules.push_back(rule);
  return out;
}

void line(const char* what, std::vector<double> times, std::size_t refusals) {
  std::sort(times.begin(), times.end());
  std::printf("%-44s median %9.2f ms, longest %9.2f ms of %zu, %zu refusals\n", what, times[times.size() / 2],
              times.back(), times.size(), refusals);
}

int fail_with(const Error& error) {
  std::fprintf(stderr, "%s\n", error.text().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "target_lens MODEL|PROJECT [TARGET [RECIPE.yaml]]\n"), 2;
  const std::string target = argc > 2 ? argv[2] : "onnx-qdq";
  Recipe recipe = searched();
  if (argc > 3) {
    std::ifstream in(argv[3]);
    const auto parsed = parse_recipe({std::istreambuf_iterator<char>(in), {}}, argv[3]);
    if (!parsed) return fail_with(parsed.error());
    recipe = *parsed;
  }
  const fs::path folder = fs::temp_directory_path() / ("quanvas-lens-" + std::to_string(getpid()));
  fs::create_directories(folder);
  JobContext job;
  const bool is_project = fs::path(argv[1]).extension() == ".quanvas";
  auto bench = Workbench::open(argv[1], {}, job, is_project ? std::string() : (folder / "lens.quanvas").string());
  if (!bench) return fail_with(bench.error());
  const Graph& graph = *(*bench)->graph();
  const std::vector<Layer> layers = find_layers(graph);
  std::vector<NodeId> with_weights;
  for (const Layer& layer : layers)
    if (layer.weights() == 1) with_weights.push_back(layer.node);
  std::printf("%s: %zu nodes, %zu layers, %zu with weights; target %s\n", argv[1], graph.nodes().size(),
              layers.size(), with_weights.size(), target.c_str());
  if (with_weights.empty()) return 1;
  std::size_t refusals = 0;
  const auto ask = [&](const Recipe& of) {
    const auto answer = (*bench)->check_export(of, target, json::object());
    if (!answer) std::exit(fail_with(answer.error()));
    refusals = answer->size();
  };
  std::vector<double> times = {milliseconds([&] { ask(recipe); })};
  line("whole, the first time", times, refusals);
  const auto declare = [&](const Recipe& of) {
    const auto answer = (*bench)->check_declarations(of, target, json::object());
    if (!answer) std::exit(fail_with(answer.error()));
    refusals = answer->size();
  };
  times.clear();
  for (int i = 0; i < 20; ++i) {
    const Recipe after =
        edited(recipe, graph, with_weights[static_cast<std::size_t>(i) * 7 % with_weights.size()], 2 + i % 5);
    times.push_back(milliseconds([&] { declare(after); }));
  }
  line("declarations, another width of one layer", times, refusals);
  times.clear();
  for (int i = 0; i < 5; ++i) {
    const Recipe after =
        edited(recipe, graph, with_weights[static_cast<std::size_t>(i) * 7 % with_weights.size()], 2 + i % 5);
    times.push_back(milliseconds([&] { ask(after); }));
  }
  line("whole, another width of one layer", times, refusals);
  std::error_code ec;
  fs::remove_all(folder, ec);
  return 0;
}
