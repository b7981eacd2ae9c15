#include "core/protocol/wire.h"

#include <algorithm>
#include <map>
#include <utility>

namespace quanvas::protocol {
namespace {

struct CodeRow {
  ErrorCode code;
  grpc::StatusCode status;
};
constexpr CodeRow kCodes[] = {
    {ErrorCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
    {ErrorCode::kNotFound, grpc::StatusCode::NOT_FOUND},
    {ErrorCode::kUnsupported, grpc::StatusCode::UNIMPLEMENTED},
    {ErrorCode::kCorrupt, grpc::StatusCode::DATA_LOSS},
    {ErrorCode::kIo, grpc::StatusCode::ABORTED},
    {ErrorCode::kReadOnly, grpc::StatusCode::FAILED_PRECONDITION},
    {ErrorCode::kCancelled, grpc::StatusCode::CANCELLED},
    {ErrorCode::kOutOfMemory, grpc::StatusCode::RESOURCE_EXHAUSTED},
    {ErrorCode::kNeedsTrust, grpc::StatusCode::PERMISSION_DENIED},
    {ErrorCode::kInternal, grpc::StatusCode::INTERNAL},
};

std::string dump(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }

const json& member(const json& j, const char* key) {
  static const json none;
  const auto it = j.find(key);
  return it == j.end() ? none : *it;
}

}  // namespace

Failed to_message(const Error& error) {
  Failed out;
  out.set_code(to_string(error.code));
  out.set_message(error.message);
  out.set_hint(error.hint);
  out.set_context(error.context);
  return out;
}

Error from_message(const Failed& failed) {
  Error out{ErrorCode::kInternal, failed.message(), failed.hint(), failed.context()};
  for (const auto& row : kCodes)
    if (failed.code() == to_string(row.code)) out.code = row.code;
  return out;
}

grpc::Status to_grpc(const Error& error) {
  auto status = grpc::StatusCode::INTERNAL;
  for (const auto& row : kCodes)
    if (row.code == error.code) status = row.status;
  return {status, error.message, to_message(error).SerializeAsString()};
}

Error from_grpc(const grpc::Status& status, const std::string& what) {
  Failed failed;
  if (!status.error_details().empty() && failed.ParseFromString(status.error_details()))
    return from_message(failed);
  switch (status.error_code()) {
    case grpc::StatusCode::CANCELLED: return {ErrorCode::kCancelled, "Stopped on request.", {}, {}};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {ErrorCode::kIo, "The engine did not answer " + what + " in time.", {}, {}};
    case grpc::StatusCode::UNAVAILABLE:
      return {ErrorCode::kIo, "The connection to the engine was lost during " + what + ".", {}, {}};
    default: return {ErrorCode::kInternal, "The engine refused " + what + ": " + status.error_message(), {}, {}};
  }
}

json edits_to_json(const std::vector<RecipeEdit>& edits) {
  json out = json::array();
  for (const auto& e : edits)
    out.push_back({{"id", e.id}, {"label", e.label}, {"time", e.time}, {"after", to_json_value(e.after)}});
  return out;
}

Result<std::vector<RecipeEdit>> edits_from_json(const json& j) {
  if (!j.is_array()) return json_type_error("edits", "a list", j);
  std::vector<RecipeEdit> out;
  for (const auto& row : j) {
    if (!row.is_object()) return json_type_error("edits[]", "a map", row);
    RecipeEdit edit;
    QUANVAS_CHECK(read_json_value(member(row, "id"), edit.id, "edits[].id"));
    QUANVAS_CHECK(read_json_value(member(row, "label"), edit.label, "edits[].label"));
    QUANVAS_CHECK(read_json_value(member(row, "time"), edit.time, "edits[].time"));
    QUANVAS_CHECK(read_json_value(member(row, "after"), edit.after, "edits[].after"));
    out.push_back(std::move(edit));
  }
  return out;
}

namespace {

bool same_reason(const Refusal& a, const Refusal& b) {
  return a.quantizer == b.quantizer && a.rule == b.rule && a.got == b.got && a.allowed == b.allowed && a.suggestion == b.suggestion &&
         a.site.has_value() == b.site.has_value() && (!a.site || (a.site->kind == b.site->kind && a.site->operand == b.site->operand)) &&
         a.float_fixes == b.float_fixes && a.fix == b.fix;
}

}  // namespace

std::string refusals_to_text(const std::vector<Refusal>& refusals) {
  std::map<std::string, std::vector<std::size_t>> by_words;  // indices of reasons
  std::vector<const Refusal*> reasons;
  json rows = json::array();
  for (const Refusal& r : refusals) {
    std::vector<std::size_t>& alike = by_words[r.rule + '\n' + r.got + '\n' + r.quantizer];
    auto known = std::find_if(alike.begin(), alike.end(), [&](std::size_t i) { return same_reason(*reasons[i], r); });
    if (known == alike.end()) {
      reasons.push_back(&r);
      known = alike.insert(alike.end(), reasons.size() - 1);
    }
    rows.push_back(json::array({r.layer, r.site ? json(r.site->node) : json(), *known}));
  }
  json list = json::array();
  for (const Refusal* r : reasons) {
    Refusal reason = *r;
    reason.layer.clear();
    if (reason.site) reason.site->node = 0;
    list.push_back(to_json_value(reason));
  }
  return dump({{"reasons", std::move(list)}, {"rows", std::move(rows)}});
}

Result<std::vector<Refusal>> refusals_from_text(const std::string& text) {
  QUANVAS_TRY(const json j, parse_json(text, "refusals"));
  if (!j.is_object()) return json_type_error("refusals", "a map", j);
  std::vector<Refusal> reasons, out;
  QUANVAS_CHECK(read_json_value(member(j, "reasons"), reasons, "refusals.reasons"));
  const json& rows = member(j, "rows");
  if (!rows.is_array()) return json_type_error("refusals.rows", "a list", rows);
  out.reserve(rows.size());
  for (const json& row : rows) {
    if (!row.is_array() || row.size() != 3) return json_type_error("refusals.rows[]", "a layer, a node and a reason", row);
    std::size_t reason = 0;
    QUANVAS_CHECK(read_json_value(row[2], reason, "refusals.rows[][2]"));
    if (reason >= reasons.size()) return json_type_error("refusals.rows[][2]", "the index of a reason", row[2]);
    Refusal r = reasons[reason];
    QUANVAS_CHECK(read_json_value(row[0], r.layer, "refusals.rows[][0]"));
    if (row[1].is_null() == r.site.has_value()) return json_type_error("refusals.rows[][1]", r.site ? "a node" : "null", row[1]);
    if (r.site) QUANVAS_CHECK(read_json_value(row[1], r.site->node, "refusals.rows[][1]"));
    out.push_back(std::move(r));
  }
  return out;
}

std::string opened_to_text(const OpenedProject& opened) {
  return dump({{"graph", graph_to_json(*opened.graph)},
               {"state", to_json_value(opened.state)},
               {"runs", to_json_value(opened.runs)},
               {"edits", edits_to_json(opened.edits)}});
}

Result<OpenedProject> opened_from_text(const std::string& text) {
  QUANVAS_TRY(const json j, parse_json(text, "The engine's answer to Open"));
  if (!j.is_object()) return json_type_error("opened", "a map", j);
  OpenedProject out;
  QUANVAS_TRY(out.graph, graph_from_json(member(j, "graph")));
  QUANVAS_CHECK(read_json_value(member(j, "state"), out.state, "state"));
  QUANVAS_CHECK(read_json_value(member(j, "runs"), out.runs, "runs"));
  QUANVAS_TRY(out.edits, edits_from_json(member(j, "edits")));
  return out;
}

}  // namespace quanvas::protocol
