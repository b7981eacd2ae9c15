// Quanvas - verb "evaluate" on windows of tokens: perplexity, and what the quantized network foretells as the float one.
#include <ATen/ATen.h>

#include "core/base/hash.h"
#include "core/exec/train.h"
#include "core/workflow/perplexity.h"

namespace quanvas {
namespace {

constexpr double kKeptOutputBytes = 256e6;  // of the float network's outputs

struct Scores {
  TokenSums sums;
  double agree = 0, nan = 0;
  quant::ErrorSums output;
  at::Tensor reference;
};

void warn_nan(const Scores& total, JobContext& job) {
  if (total.nan == 0) return;
  job.issue({Severity::kWarning, "Output",
             "The output holds NaN for " + std::to_string(static_cast<long long>(total.nan)) + " of " +
                 std::to_string(static_cast<long long>(total.sums.tokens)) + " tokens, so there is no perplexity.",
             "Look for NaN in the weights."});
}

// Of all windows of a chunk, in order.
Result<at::Tensor> run_rows(const exec::Runner& runner, const exec::Chunk& chunk, const Dataset& data) {
  std::vector<at::Tensor> rows;
  for (const exec::Chunk& part : without_filling(chunk, data, runner.graph())) {
    QUANVAS_TRY(const auto outputs, runner.run({part.input}));
    QUANVAS_TRY(const at::Tensor scored, scored_rows(outputs.at(0), windows_of(data, part.samples)));
    rows.push_back(scored);
  }
  return at::cat(rows);
}

void merge(Scores& total, Scores& one) {
  total.sums.merge(one.sums);
  total.agree += one.agree;
  total.nan += one.nan;
  total.output.merge(one.output);
}

}  // namespace

void FloatOutputs::add(at::Tensor chunk) {
  bytes += static_cast<double>(chunk.nbytes());
  if (bytes > kKeptOutputBytes) chunks.clear();
  else chunks.push_back(std::move(chunk));
}

std::shared_ptr<const FloatOutputs> WorkbenchState::known_outputs(const std::string& key) {
  std::lock_guard lock(cache_mutex_);
  return float_outputs_ && float_outputs_->key == key ? float_outputs_ : nullptr;
}

void WorkbenchState::keep_outputs(std::shared_ptr<FloatOutputs> outputs) {
  if (outputs->chunks.empty()) return;
  std::lock_guard lock(cache_mutex_);
  float_outputs_ = std::move(outputs);
}

Result<Accuracy> WorkbenchState::measure_tokens(const Prepared& prepared, const exec::Runner* quantized, const DatasetPtr& data,
                                                int samples, JobContext& job) {
  const Graph& graph = prepared.runner->graph();
  const bool is_distribution = exec::logits_of(graph) != graph.outputs().at(0);
  QUANVAS_TRY(const double bytes, bytes_per_sample(*prepared.runner, *data, {graph.outputs().at(0)}));
  auto fresh = std::make_shared<FloatOutputs>();
  fresh->key = Hasher().text(prepared.hash).text(data->hash()).number(samples).hex();
  const auto known = known_outputs(fresh->key);
  Scores total;
  QUANVAS_CHECK(exec::for_each_chunk<Scores>(
      *data, choose_samples(data->size(), samples, 0), options_.device, job, "evaluate",
      [&](exec::Chunk& chunk) -> Result<Scores> {
        const auto windows = windows_of(*data, chunk.samples);
        Scores s;
        if (known) {
          s.reference = known->chunks.at(static_cast<std::size_t>(chunk.index));
        } else {
          QUANVAS_TRY(s.reference, run_rows(*prepared.runner, chunk, *data));
        }
        at::Tensor rows = s.reference;
        if (quantized) {
          QUANVAS_TRY(rows, run_rows(*quantized, chunk, *data));
          s.agree = rows.argmax(1).eq(s.reference.argmax(1)).sum().item<double>();
          add_error(s.output, s.reference, rows);
        }
        s.nan = static_cast<double>(rows.isnan().any(1).sum().item<std::int64_t>());
        QUANVAS_TRY(s.sums, score_tokens(rows, chunk.input, windows, is_distribution));
        return s;
      },
      [&](std::int64_t, Scores& s) -> Status {
        merge(total, s);
        if (!known) fresh->add(std::move(s.reference));
        return {};
      },
      chunk_size_for(bytes)));
  warn_nan(total, job);
  keep_outputs(fresh);
  Accuracy a;
  const double nan = std::nan("");
  a.top1 = a.top5 = a.top1_stderr = nan;
  total.sums.write(a);
  a.agreement = quantized ? total.agree / total.sums.tokens : nan;
  a.output_sqnr_db = quantized ? total.output.result().sqnr_db : nan;
  return a;
}

}  // namespace quanvas
