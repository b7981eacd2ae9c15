// Quanvas - a plan as a GGUF file.
#pragma once

#include "plugins/exporters/gguf_plan.h"

namespace quanvas::gguf_file {

// The vocabulary of a Llama must be the one of its embedding; empty: it is, or there is none to write.
std::vector<Refusal> check_tokenizer(const FilePlan& plan, const Options& options);

// Atomic. The plan has no refusals.
Status write_plan(const QuantizedModel& model, const FilePlan& plan, const Options& options, const std::string& path,
                  JobContext& job);

}  // namespace quanvas::gguf_file
