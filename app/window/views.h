// Quanvas - session values turned into what panels show. Pure functions; no widgets are touched.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "app/session/session.h"
#include "widgets/graph/node_visual.h"
#include "widgets/graph/prepared_graph.h"
#include "widgets/charts/error_bars.h"
#include "widgets/models/layers_model.h"
#include "widgets/panels/distribution_panel.h"
#include "widgets/panels/jobs_panel.h"
#include "widgets/panels/sweep_panel.h"

namespace quanvas::views {

// Newest run of the current recipe on the current model and data; nullptr when there is none. It looks at every run:
// ask once for all that is shown together, and give the answer to the functions below that take a run.
const Run* current_run(const Session& session);
// Newest finished or unfinished sweep of the current model.
const Run* newest_sweep(const Session& session);
// Runs of another model or other data than now: they cannot be compared with today's.
std::set<std::int64_t> stale_runs(const Session& session);

// What the panels need of a network, made where the session opens it: the graph's cards and groups, the table's rows
// without facts.
struct Prepared {
  PreparedGraphPtr graph;
  std::vector<LayerRow> rows;
};
std::shared_ptr<void> prepare(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan);

// What facts change of a node's looks.
void set_facts(NodeVisual& visual, const LayerFacts& facts, bool stale);
std::map<NodeId, NodeVisual> node_visuals(const Session& session, const Run* run);
std::vector<ErrorBar> live_errors(const Session& session, const Run* run);
std::vector<SweepLayer> sweep_layers(const Session& session);
std::vector<DistributionPanel::Source> distribution_sources(const Session& session, NodeId node);
// Per rule the sites that it decides.
std::vector<int> rule_matches(const Recipe& recipe, const Plan& plan);
std::vector<JobRow> job_rows(const std::vector<JobStatus>& jobs);

// Why there is no choice between rules and nodes; empty when there is one.
QString why_no_file_quantizers(const Session& session);
FileQuantizers file_quantizers(const Session& session);
// The project beside this one for the other choice, and back.
QString project_with(const QString& project_path, FileQuantizers quantizers);
QString project_name(const ProjectState& state);
// Path of an exported file without its suffix: model and recipe, with the number of a run ("lenet5-w4a4-run7").
QString export_stem(const Session& session, const Run* run);
// Whether the run, or the recipe when null, has quantizers.
bool quantizes(const Session& session, const Run* run);
// "W4A4: 89.41 % top-1 (float 90.87), 31.9 kB" as rich text; empty without a run.
QString accuracy_line(const Session& session, const Run* run);
// "3 layers are stale since the last edit"; empty when nothing is.
QString stale_line(const Session& session, const Run* run);
// What the data declaration gives: "Calibration 512 of 4,096 samples, ..." or what is wrong.
QString data_line(const DataStatus& status);
QString engine_line(const std::map<std::string, std::string>& versions, bool remote);
// Top-1 lost by the current recipe's run against float, or the rise of its perplexity, in share.
std::optional<double> measured_drop(const Session& session, const Run* run);
// Why this cannot be done now, in one sentence; empty when it can.
QString why_not_run(const Session& session);
QString why_not_calibrate(const Session& session);
QString why_not_evaluate(const Session& session);
QString why_not_train(const Session& session);

}  // namespace quanvas::views
