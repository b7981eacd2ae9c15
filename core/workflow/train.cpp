// Quanvas - verb "train": the float trainer behind the sample projects. Quantization-aware training is the
// pass "qat" of a recipe.
#include "core/base/guarded.h"
#include "core/exec/train.h"
#include "core/workflow/state.h"

namespace quanvas {

const Schema& train_schema() {
  static const Schema schema = {{
      integer_field("epochs", "Epochs", "Passes over the training samples.", 5, 1, 1000),
      integer_field("batch", "Batch", "Samples per step.", 128, 2, 65536, "samples"),
      choice_field("optimizer", "Optimizer", "Adam (Kingma, Ba 2015) or SGD with momentum 0.9.", "adam",
                   {{"adam", "Adam", ""}, {"sgd", "SGD, momentum 0.9", ""}}),
      real_field("learning_rate", "Learning rate", "Of the first step; see the schedule.", 1e-3, 1e-8, 10),
      real_field("weight_decay", "Weight decay", "Decoupled (Loshchilov, Hutter 2019), of weights only.", 0, 0, 1),
      choice_field("schedule", "Schedule", "Learning rate over the steps.", "cosine",
                   {{"cosine", "Cosine to 0", ""}, {"constant", "Constant", ""}}),
      integer_field("seed", "Seed", "Order of the samples.", 0, 0, 1e15),
      integer_field("max_samples", "Samples", "Of the training split; 0: all.", 0, 0, 1e9, "samples"),
      integer_field("validation_samples", "Validation", "Held out from the end; the best epoch on them is kept.", 1000, 0,
                    1e9, "samples"),
      bool_field("augment_flip", "Mirror", "Mirror pictures left to right at random.", false),
  }};
  return schema;
}

Result<std::vector<TrainPoint>> WorkbenchState::train_float(const TrainRequest& request, JobContext& job) {
  return guarded("train", [&]() -> Result<std::vector<TrainPoint>> {
    QUANVAS_CHECK(check_output(request.output, /*overwrite=*/true));  // not only after hours of training
    QUANVAS_TRY(const json o, train_schema().complete(request.options, "float training"));
    const Data d = data();
    if (!d.train)
      return no_data("There is no training data", d.train_error, "Declare a training split.");
    QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get("onnx", "export target"));
    exec::TrainSettings s;
    s.epochs = o["epochs"];
    s.batch = o["batch"];
    s.optimizer = o["optimizer"];
    s.learning_rate = o["learning_rate"];
    s.weight_decay = o["weight_decay"];
    s.schedule = o["schedule"];
    s.seed = o["seed"];
    s.max_samples = o["max_samples"];
    s.validation_samples = o["validation_samples"];
    s.augment_flip = o["augment_flip"];
    job.set_range(0, 0.98);
    QUANVAS_TRY(const exec::TrainResult trained, exec::train(model_, nullptr, *d.train, s, options_.device, job));
    if (trained.cancelled && trained.best_epoch == 0)
      return fail(ErrorCode::kCancelled, "Stopped before an epoch was better than the start; nothing was written.");
    QuantizedModel network;
    network.model = std::make_shared<const Model>(Model{model_->graph, trained.weights, model_->source});
    JobContext finishing;  // what was trained is written even when the training was stopped
    QUANVAS_CHECK(exporter->write(network, request.output, exporter->schema().defaults(), finishing));
    return trained.curve;
  });
}

}  // namespace quanvas
