#include "app/engine/service_calls.h"

#include <unistd.h>

#include <chrono>
#include <future>

#include "core/base/guarded.h"
#include "core/protocol/protocol.h"
#include "core/protocol/wire.h"
#include "core/report/trusted_models.h"

namespace quanvas {
namespace {

using protocol::JobEvent;

constexpr int kEditsKept = 51;  // 50 steps of undo need the state before the oldest one

std::string dump(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }

// Every call's body: returns Status; errors and exceptions become the call's status.
template <class Fn>
grpc::Status answer(const char* verb, Fn&& fn) {
  const Status status = guarded(verb, std::forward<Fn>(fn));
  return status ? grpc::Status::OK : protocol::to_grpc(status.error());
}

// Runs fn(stop) on the lane and waits for what it returns; stopped when the call is cancelled, also while it waits its turn.
template <class Fn>
std::invoke_result_t<Fn, std::stop_token> ask_stoppable(Lane& lane, const grpc::ServerContext& context, Fn fn) {
  using Answer = std::invoke_result_t<Fn, std::stop_token>;
  constexpr auto kLook = std::chrono::milliseconds(10);
  std::stop_source stop;
  auto task = std::make_shared<std::packaged_task<Answer()>>([&fn, token = stop.get_token()]() -> Answer {
    if (token.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
    return fn(token);
  });
  auto answer = task->get_future();
  lane.post([task] { (*task)(); });
  while (answer.wait_for(kLook) != std::future_status::ready)
    if (context.IsCancelled()) stop.request_stop();
  return answer.get();
}

}  // namespace

ServiceCalls::ServiceCalls(Backend backend, std::function<void()> on_shutdown)
    : backend_(std::move(backend)), on_shutdown_(std::move(on_shutdown)) {}

Result<WorkbenchPtr> ServiceCalls::workbench() const {
  std::lock_guard lock(mutex_);
  if (!workbench_) return fail(ErrorCode::kNotFound, "No project is open.", "Open a model or a project first.");
  return workbench_;
}

grpc::Status ServiceCalls::Hello(Context*, const protocol::HelloRequest* request, protocol::HelloReply* reply) {
  return answer("Hello", [&]() -> Status {
    reply->set_protocol_version(protocol::kVersion);
    if (request->protocol_version() != protocol::kVersion)
      return fail(ErrorCode::kUnsupported,
                  "The engine speaks version " + std::to_string(protocol::kVersion) +
                      " of the protocol, the client version " + std::to_string(request->protocol_version()) + ".",
                  "Use the window and the engine of the same release.");
    char host[256] = {};
    ::gethostname(host, sizeof host - 1);
    (*reply->mutable_versions())["host"] = host;
    (*reply->mutable_versions())["pid"] = std::to_string(::getpid());
    for (const auto& [key, text] : backend_.versions()) (*reply->mutable_versions())[key] = text;
    for (const auto& issue : backend_.warnings())
      reply->add_warnings(issue.hint.empty() ? issue.message : issue.message + " " + issue.hint);
    return {};
  });
}

grpc::Status ServiceCalls::Catalog(Context*, const Empty*, Json* reply) {
  return answer("Catalog", [&]() -> Status {
    json catalog = backend_.catalog();
    catalog["presets"] = to_json_value(PresetLibrary::builtin().all());
    catalog["recipes"] = json::array();
    for (const auto& id : builtin_recipe_ids()) {
      QUANVAS_TRY(const Recipe recipe, builtin_recipe(id));
      catalog["recipes"].push_back({{"id", id}, {"title", recipe.name}, {"recipe", to_json_value(recipe)}});
    }
    reply->set_text(dump(catalog));
    return {};
  });
}

grpc::Status ServiceCalls::GetGraph(Context*, const Empty*, Json* reply) {
  return answer("GetGraph", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    reply->set_text(dump(graph_to_json(*bench->graph())));
    return {};
  });
}

grpc::Status ServiceCalls::GetState(Context*, const Empty*, Json* reply) {
  return answer("GetState", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    reply->set_text(to_json_text(bench->state()));
    return {};
  });
}

grpc::Status ServiceCalls::GetRuns(Context*, const Empty*, Json* reply) {
  return answer("GetRuns", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto runs, bench->runs());
    reply->set_text(to_json_text(runs));
    return {};
  });
}

grpc::Status ServiceCalls::GetEdits(Context*, const protocol::EditsRequest* request, Json* reply) {
  return answer("GetEdits", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto edits, bench->edits(request->most()));
    reply->set_text(dump(protocol::edits_to_json(edits)));
    return {};
  });
}

grpc::Status ServiceCalls::SetRecipe(Context*, const protocol::SetRecipeRequest* request, Empty*) {
  return answer("SetRecipe", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(request->recipe(), "recipe"));
    return bench->set_recipe(recipe, request->label());
  });
}

grpc::Status ServiceCalls::SetData(Context*, const Json* request, Json* reply) {
  return answer("SetData", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto data, from_json_text<DataSettings>(request->text(), "data"));
    QUANVAS_TRY(const auto state, bench->set_data(data));
    reply->set_text(to_json_text(state));
    return {};
  });
}

grpc::Status ServiceCalls::SetValue(Context*, const protocol::KeyValue* request, Empty*) {
  return answer("SetValue", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    return bench->set_value(request->key(), request->value());
  });
}

grpc::Status ServiceCalls::GetValue(Context*, const protocol::KeyValue* request, protocol::KeyValue* reply) {
  return answer("GetValue", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(auto text, bench->value(request->key()));
    reply->set_key(request->key());
    reply->set_value(std::move(text));
    return {};
  });
}

grpc::Status ServiceCalls::GetTrust(Context*, const Empty*, Json* reply) {
  return answer("GetTrust", [&]() -> Status {
    reply->set_text(to_json_text(trusted_models()));
    return {};
  });
}

grpc::Status ServiceCalls::RevokeTrust(Context*, const Json* request, Json* reply) {
  return answer("RevokeTrust", [&]() -> Status {
    QUANVAS_TRY(const auto hashes, from_json_text<std::vector<std::string>>(request->text(), "hashes"));
    for (const std::string& hash : hashes) QUANVAS_CHECK(revoke_trust(hash));
    reply->set_text(to_json_text(trusted_models()));
    return {};
  });
}

grpc::Status ServiceCalls::SaveCopy(Context*, const protocol::PathRequest* request, Empty*) {
  return answer("SaveCopy", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    return bench->save_copy(request->path());
  });
}

grpc::Status ServiceCalls::GetLayerFacts(Context* context, const protocol::LayerFactsRequest* request,
                                         grpc::ServerWriter<Json>* out) {
  return answer("GetLayerFacts", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(request->recipe(), "recipe"));
    std::vector<NodeId> nodes(request->nodes().begin(), request->nodes().end());
    if (nodes.empty())
      for (const auto& layer : find_layers(*bench->graph())) nodes.push_back(layer.node);
    for (const NodeId node : nodes) {
      if (context->IsCancelled()) return fail(ErrorCode::kCancelled, "Stopped on request.");
      // One task per layer, so that a histogram that is asked for meanwhile comes after one layer, not all.
      QUANVAS_TRY(const auto facts, quick_.ask([&] {
        return guarded("layer facts", [&] { return bench->layer_facts(recipe, node); });
      }));
      Json reply;
      reply.set_text(to_json_text(facts));
      if (!out->Write(reply)) return fail(ErrorCode::kCancelled, "Stopped on request.");
    }
    return {};
  });
}

grpc::Status ServiceCalls::GetHistogram(Context*, const protocol::HistogramRequest* request, Json* reply) {
  return answer("GetHistogram", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(request->recipe(), "recipe"));
    QUANVAS_TRY(const auto site, from_json_text<Site>(request->site(), "site"));
    if (request->bins() < 1 || request->bins() > 65536)
      return fail(ErrorCode::kInvalidArgument,
                  "'bins' is " + std::to_string(request->bins()) + "; a histogram has 1 to 65536.");
    QUANVAS_TRY(const auto histogram, quick_.ask([&] {
      return guarded("histogram", [&] { return bench->histogram(recipe, site, request->bins()); });
    }));
    reply->set_text(to_json_text(histogram));
    return {};
  });
}

grpc::Status ServiceCalls::CheckExport(Context* context, const protocol::CheckExportRequest* request, Json* reply) {
  return answer("CheckExport", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(request->recipe(), "recipe"));
    json options = json::object();
    if (!request->options().empty()) {
      QUANVAS_TRY(options, parse_json(request->options(), "options"));
    }
    if (request->declarations()) {
      QUANVAS_TRY(const auto refusals, quick_.ask([&] {
        return guarded("export check", [&] { return bench->check_declarations(recipe, request->target(), options); });
      }));
      reply->set_text(protocol::refusals_to_text(refusals));
      return {};
    }
    QUANVAS_TRY(const auto refusals, ask_stoppable(checks_, *context, [&](std::stop_token stop) {
      return guarded("export check", [&] { return bench->check_export(recipe, request->target(), options, stop); });
    }));
    reply->set_text(protocol::refusals_to_text(refusals));
    return {};
  });
}

grpc::Status ServiceCalls::MendRecipe(Context*, const protocol::MendRecipeRequest* request, Json* reply) {
  return answer("MendRecipe", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(request->recipe(), "recipe"));
    QUANVAS_TRY(const auto refusals, protocol::refusals_from_text(request->refusals()));
    QUANVAS_TRY(const auto mended, quick_.ask([&] {
      return guarded("mend the recipe", [&] { return bench->mend_recipe(recipe, refusals, request->layer()); });
    }));
    reply->set_text(to_json_text(mended));
    return {};
  });
}

grpc::Status ServiceCalls::CheckRecipe(Context*, const Json* text, Json* reply) {
  return answer("CheckRecipe", [&]() -> Status {
    QUANVAS_TRY(const auto bench, workbench());
    QUANVAS_TRY(const auto recipe, from_json_text<Recipe>(text->text(), "recipe"));
    QUANVAS_TRY(const auto issues, quick_.ask([&] {
      return guarded("recipe check", [&] { return bench->check_recipe(recipe); });
    }));
    reply->set_text(to_json_text(issues));
    return {};
  });
}

grpc::Status ServiceCalls::stream(Context* context, const std::string& id, JobWork work,
                                  grpc::ServerWriter<JobEvent>* out) {
  auto job = heavy_.start(id, std::move(work));
  if (!job) return protocol::to_grpc(job.error());
  out->SendInitialMetadata();  // it has its place in the queue: the next one that is sent comes behind it
  stream_events(
      *job, [&](const JobEvent& event) { return out->Write(event); }, [&] { return context->IsCancelled(); });
  return grpc::Status::OK;
}

grpc::Status ServiceCalls::RunJob(Context* context, const protocol::JobRequest* request,
                                  grpc::ServerWriter<JobEvent>* out) {
  return answer("RunJob", [&]() -> Status {
    if (request->id().empty()) return fail(ErrorCode::kInvalidArgument, "The job has no id.");
    JobWork work;
    {
      QUANVAS_TRY(const auto bench, workbench());
      QUANVAS_TRY(work, find_verb(request->verb(), request->argument(), bench));
    }
    if (const auto status = stream(context, request->id(), std::move(work), out); !status.ok())
      return Failure(protocol::from_grpc(status, "the job"));
    return {};
  });
}

grpc::Status ServiceCalls::CancelJob(Context*, const protocol::JobId* request, Empty*) {
  return answer("CancelJob", [&]() -> Status {
    if (heavy_.cancel(request->id())) return {};
    return fail(ErrorCode::kNotFound, "There is no job '" + request->id() + "' any more.");
  });
}

grpc::Status ServiceCalls::Open(Context* context, const protocol::OpenRequest* request,
                                grpc::ServerWriter<JobEvent>* out) {
  // Who opens another project does not wait for the jobs of the last one.
  heavy_.cancel_all();
  const auto id = "open-" + std::to_string(next_open_++);
  return stream(
      context, id,
      [this, asked = *request](JobContext& job) { return open(asked, job); }, out);
}

void ServiceCalls::set_workbench(WorkbenchPtr bench) {
  std::lock_guard lock(mutex_);
  workbench_.swap(bench);
}  // the one before goes after the lock does

// Closes the project that is open, when the calls that use it have ended; jobs are none of them, because they run
// on the lane that this runs on. kCancelled when stopped while waiting: it is open as before.
Status ServiceCalls::close_project(WorkbenchPtr previous, JobContext& job) {
  set_workbench(nullptr);
  while (previous.use_count() > 1) {
    if (job.stopped()) {
      set_workbench(std::move(previous));
      return job.check();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return {};
}

Result<std::string> ServiceCalls::open(const protocol::OpenRequest& request, JobContext& job) {
  ImportOptions import;
  if (!request.import().empty()) {
    QUANVAS_TRY(import, from_json_text<ImportOptions>(request.import()));
  }
  const auto open_it = [&] { return backend_.open(request.path(), request.project_path(), import, job); };
  QUANVAS_TRY(WorkbenchPtr opened, open_it());
  WorkbenchPtr previous;
  {
    std::lock_guard lock(mutex_);
    previous = workbench_;
  }
  // The same project again: the one that is open holds the lock, so the new one came read-only. It stays when the
  // project cannot be opened although the lock is free.
  if (previous && opened->state().read_only && opened->state().project_path == previous->state().project_path) {
    QUANVAS_CHECK(close_project(std::move(previous), job));
    if (auto writable = open_it())
      opened = std::move(*writable);
    else
      job.issue({Severity::kWarning, request.path(), writable.error().message, writable.error().hint});
    set_workbench(opened);
  }
  previous.reset();
  QUANVAS_TRY(auto runs, opened->runs());
  QUANVAS_TRY(auto edits, opened->edits(kEditsKept));
  auto text = protocol::opened_to_text({opened->graph(), opened->state(), std::move(runs), std::move(edits)});
  set_workbench(std::move(opened));
  return text;
}

grpc::Status ServiceCalls::Upload(Context* context, grpc::ServerReader<protocol::FileChunk>* chunks,
                                  protocol::PathRequest* reply) {
  return answer("Upload", [&]() -> Status {
    QUANVAS_TRY(auto path, receive_upload(*context, chunks));
    reply->set_path(std::move(path));
    return {};
  });
}

grpc::Status ServiceCalls::Shutdown(Context*, const Empty*, Empty*) {
  on_shutdown_();
  return grpc::Status::OK;
}

}  // namespace quanvas
