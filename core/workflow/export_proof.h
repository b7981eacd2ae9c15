// Quanvas - the proof of an export: the file, read again and run, against the network on the screen.
#pragma once

#include <string>

#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/plugin/registry.h"

namespace quanvas {

// Runs both on samples of `data` and fills in what is compared: predictions, outputs and accuracy over `samples` of them
// (0: all), and over up to 32 each tensor that both have: quantized activations bit for bit and in steps of their
// quantizer, others within 1e-5 of the largest magnitude. with_quantizers: the file was to hold the quantized network, else the float one.
// The results do not depend on the number of threads.
Status prove_export(const QuantizedModel& network, bool with_quantizers, const ReadBack& file, const Dataset& data,
                    std::int64_t samples, const std::string& device, ExportReport& report, JobContext& job);

}  // namespace quanvas
