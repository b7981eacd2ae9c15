// What the tests of the panels show: the sample network with a recipe, its plan, facts and runs.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/recipe/plan.h"
#include "core/report/report.h"
#include "tests/widgets/graph_sample.h"
#include "widgets/models/layers_model.h"

namespace quanvas::sample {

struct Project {
  Net net;
  Recipe recipe;
  Plan plan;
  std::map<NodeId, LayerFacts> facts;

  NodeId id(const std::string& name) const { return net.id(name); }
  Site weight(const std::string& name) const { return {id(name), SiteKind::kWeight, 0}; }
  Site input(const std::string& name) const { return {id(name), SiteKind::kInput, 0}; }
  QuantSpec spec(const Site& site) const { return plan.find(site)->spec.value(); }
  void set(const Recipe& r) {
    recipe = r;
    plan = resolve(*net.graph, recipe, PresetLibrary::builtin()).value();
  }
};

inline TensorError error_of(double db) {
  TensorError e;
  e.sqnr_db = db;
  e.mse = std::pow(10, -db / 10);
  e.cosine = 1 - e.mse / 2;
  e.elements = 100;
  return e;
}

inline LayerFacts facts_of(const Project& p, const std::string& name, double weight_db, double output_db) {
  LayerFacts f;
  f.node = p.id(name);
  SiteFacts w;
  w.site = p.weight(name);
  w.error = error_of(weight_db);
  w.codes_used = 13;
  w.codes_total = 15;
  w.clipped_share = 0.0021;
  w.bytes_float = 9600;
  w.bytes_quantized = 1264;
  w.bits_per_element = 4.21;
  w.scale_min = w.scale_max = 0.104;
  SiteFacts in;
  in.site = p.input(name);
  in.missing = "Calibrate first.";
  f.sites = {w, in};
  f.output = error_of(output_db);
  return f;
}

inline Project project() {
  Project p;
  p.net = lenet();
  p.set(uniform_recipe(4, 4));
  const std::tuple<const char*, double, double> rows[] = {
      {"conv1", 41.8, 27.9}, {"conv2", 19.6, 22.1}, {"fc1", 13.2, 15.4}, {"fc2", 18.9, 19.8}, {"fc3", 42.3, 33.0}};
  for (const auto& [name, weight, output] : rows) p.facts[p.id(name)] = facts_of(p, name, weight, output);
  return p;
}

inline std::vector<LayerRow> rows(const Project& p) { return layer_rows(*p.net.graph, p.net.layers, p.plan, p.facts); }

inline Run run(const Project& p, std::int64_t id, RunKind kind, double top1, double bytes) {
  Run r;
  r.id = id;
  r.kind = kind;
  r.name = kind == RunKind::kFloat ? "float" : "W4A4 " + std::to_string(id);
  r.data_hash = "data";
  r.recipe = p.recipe;
  r.bytes = bytes;
  r.bytes_float = 246800;
  r.bops = 1e6 * static_cast<double>(id);
  Accuracy a;
  a.samples = 10000;
  a.top1 = top1;
  a.top1_stderr = std::sqrt(top1 * (1 - top1) / a.samples);
  a.output_sqnr_db = 20;
  r.accuracy = a;
  for (const auto& [node, facts] : p.facts) {
    LayerResult l;
    l.node = node;
    l.name = p.net.graph->find(node)->name;
    l.weight_format = "W4";
    l.isolated = facts.output;
    l.cumulative = error_of(facts.output->sqnr_db - 5 - static_cast<double>(id));
    r.layers.push_back(l);
  }
  return r;
}

}  // namespace quanvas::sample
