// Quanvas - values of the engine to messages of its service and back. Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include <grpcpp/support/status.h>

#include "core/project/project.h"
#include "core/workflow/workbench.h"
#include "engine.pb.h"

namespace quanvas::protocol {

// An Error travels whole: as the details of a call's status, or as the last event of a stream.
grpc::Status to_grpc(const Error& error);
// what: the question in words ("the histogram"), used when the status carries no Error of the engine
// (connection lost, deadline).
Error from_grpc(const grpc::Status& status, const std::string& what);
Failed to_message(const Error& error);
Error from_message(const Failed& failed);

// What Open ends with: everything that a window shows of a project, read at one moment.
struct OpenedProject {
  GraphPtr graph;
  ProjectState state;
  std::vector<Run> runs;
  std::vector<RecipeEdit> edits;  // the last ones, oldest first
};
std::string opened_to_text(const OpenedProject& opened);
Result<OpenedProject> opened_from_text(const std::string& text);

json edits_to_json(const std::vector<RecipeEdit>& edits);
Result<std::vector<RecipeEdit>> edits_from_json(const json& j);

// Thousands of layers are refused for the same few reasons: {"reasons": [Refusal without layer and node], "rows": [[layer,
// node, reason]]}; node null: it has no site. Errors name what is missing or out of range.
std::string refusals_to_text(const std::vector<Refusal>& refusals);
Result<std::vector<Refusal>> refusals_from_text(const std::string& text);

}  // namespace quanvas::protocol
