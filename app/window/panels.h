// Quanvas - the window's panels, made by MainWindow, arranged by Docks, connected to the session by Wiring.
#pragma once

#include "widgets/graph/graph_view.h"
#include "widgets/panels/distribution_panel.h"
#include "widgets/panels/error_panel.h"
#include "widgets/panels/history_panel.h"
#include "widgets/panels/inspector_panel.h"
#include "widgets/panels/issues_panel.h"
#include "widgets/panels/jobs_panel.h"
#include "widgets/panels/layers_panel.h"
#include "widgets/panels/recipe_panel.h"
#include "widgets/panels/runs_panel.h"
#include "widgets/panels/sweep_panel.h"
#include "widgets/panels/target_panel.h"

namespace quanvas {

// All owned by the window.
struct Panels {
  GraphView* graph = nullptr;
  LayersPanel* layers = nullptr;
  RecipePanel* recipe = nullptr;
  TargetPanel* target = nullptr;
  InspectorPanel* inspector = nullptr;
  DistributionPanel* distribution = nullptr;
  SweepPanel* sweep = nullptr;
  ErrorPanel* error = nullptr;
  RunsPanel* runs = nullptr;
  JobsPanel* jobs = nullptr;
  IssuesPanel* issues = nullptr;
  HistoryPanel* history = nullptr;
};

}  // namespace quanvas
