// Quanvas - the one way a data set is walked: in chunks of fixed size, shared out to worker threads that run
// LibTorch with one thread each; results are consumed in the order of the chunks. So every sum is formed in
// an order that does not depend on the number of threads, and results are bit-equal for 1, 2 or 7.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/base/job.h"
#include "core/data/dataset.h"

namespace quanvas::exec {

struct Chunk {
  std::int64_t index = 0;               // 0, 1, 2 ...
  std::vector<std::int64_t> samples;    // indices in the data set
  at::Tensor input;                     // [n, ...]
  at::Tensor labels;                    // int64 [n]; undefined without labels
};

inline constexpr std::int64_t kChunkSize = 32;

// work(chunk) runs on the workers (inference mode on), its result goes to consume(chunk index, result) on the
// calling thread in ascending order. Stops at the first error or when the job is stopped.
// Progress is reported as phase. R must be movable.
template <class R>
Status for_each_chunk(const Dataset& data, const std::vector<std::int64_t>& samples, const std::string& device,
                      JobContext& job, const std::string& phase, const std::function<Result<R>(Chunk&)>& work,
                      const std::function<Status(std::int64_t, R&)>& consume,
                      std::int64_t chunk_size = kChunkSize);

// The same without a data set: parallel_ordered(n, ...) calls work(0..n-1) on the workers and
// consume in order. inference: run work under InferenceMode (false for training).
Status parallel_ordered(std::int64_t n, JobContext& job, bool inference,
                        const std::function<Result<std::shared_ptr<void>>(std::int64_t)>& work,
                        const std::function<Status(std::int64_t, void*)>& consume);

Result<Chunk> read_chunk(const Dataset& data, std::vector<std::int64_t> samples, std::int64_t index,
                         const std::string& device);

template <class R>
Status for_each_chunk(const Dataset& data, const std::vector<std::int64_t>& samples, const std::string& device,
                      JobContext& job, const std::string& phase, const std::function<Result<R>(Chunk&)>& work,
                      const std::function<Status(std::int64_t, R&)>& consume, std::int64_t chunk_size) {
  const auto total = static_cast<std::int64_t>(samples.size());
  const std::int64_t chunks = (total + chunk_size - 1) / chunk_size;
  return parallel_ordered(
      chunks, job, /*inference=*/true,
      [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
        const auto begin = samples.begin() + i * chunk_size;
        const auto end = samples.begin() + std::min(total, (i + 1) * chunk_size);
        QUANVAS_TRY(Chunk chunk, read_chunk(data, {begin, end}, i, device));
        QUANVAS_TRY(R result, work(chunk));
        return std::shared_ptr<void>(std::make_shared<R>(std::move(result)));
      },
      [&](std::int64_t i, void* result) -> Status {
        QUANVAS_CHECK(consume(i, *static_cast<R*>(result)));
        job.progress(phase, static_cast<double>(i + 1) / static_cast<double>(chunks),
                     std::to_string(std::min(total, (i + 1) * chunk_size)) + " of " + std::to_string(total) + " samples");
        return {};
      });
}

}  // namespace quanvas::exec
