// Quanvas - what a pass works on.
#pragma once

#include "core/exec/runner.h"
#include "core/quant/statistics.h"

namespace quanvas {

struct PassContext {
  ModelPtr model;                      // current model; graph passes replace it
  QuantizedModel quantized;            // weight and training passes replace model, quantizers
  quant::StatisticsPtr statistics;     // null for graph passes, and when no activation is quantized
  DatasetPtr calibration_data;         // may be null: a pass that needs it says so
  std::vector<std::int64_t> calibration_samples;
  DatasetPtr training_data;            // may be null
  std::set<NodeId> nodes;              // the layers that a weight pass may change; empty: all
  bool may_change(NodeId node) const { return nodes.empty() || nodes.count(node) > 0; }
  std::string device = "cpu";
  std::vector<TrainPoint> curve;       // filled by training passes, kept with the run
  std::string measure;                 // filled by a pass that measures layers: see PassReport
  std::vector<PassLayer> layers;       // the same
  bool stopped_early = false;          // a training pass was cancelled and returned its best
};

}  // namespace quanvas
