// Quanvas - what a pass works on.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/exec/kept_values.h"
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

  // Graph passes are applied again whenever a quick question needs their network, so what takes long is computed once, in a
  // run, and kept with the project: measured(what, compute) gives the bytes that compute gave for this pass, model,
  // calibration data and `what`; computed() for what needs no data. An error where it was never computed and this is a
  // quick question: the pass gives it back and leaves the model alone. Bytes that is_good refuses are computed anew: a
  // project may come from anywhere.
  using Compute = std::function<Result<std::string>(JobContext&)>;
  using IsGood = std::function<bool(const std::string&)>;
  using Remember = std::function<Result<std::string>(const std::string& what, const Compute& compute, const IsGood& is_good)>;
  Remember measured, computed;
  // The recipe's formats on `model`, for graph passes.
  std::function<Result<Plan>()> plan;

  // For weight passes. Values that follow from the float network and the calibration samples alone, kept between runs
  // and the cells of a sweep under kept_key + what they are of. Null: nothing is kept.
  std::shared_ptr<KeptValues> kept;
  std::string kept_key;
  // For passes that take long. Finished parts of this pass with the same network, formats, samples and options: kept when
  // the run is stopped, found by the one that begins again. Empty functions: nothing is kept.
  std::function<std::optional<std::string>(const std::string& part)> finished_part;
  std::function<void(const std::string& part, const std::string& bytes)> finish_part;
};

}  // namespace quanvas
