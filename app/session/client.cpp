#include "app/session/client.h"

#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/protocol/address.h"
#include "core/protocol/protocol.h"

namespace quanvas {
namespace {

using Clock = std::chrono::steady_clock;

using protocol::kScheme;

std::shared_ptr<grpc::Channel> make_channel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // A restarted engine is another one: no connection is shared with the last client.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

// A call in progress: its context can be cancelled by abort() from another thread.
class EngineClient::Call {
 public:
  explicit Call(EngineClient& client) : client_(client) {
    std::lock_guard lock(client_.mutex_);
    client_.calls_.insert(&context);
    if (client_.aborted_) context.TryCancel();
  }
  ~Call() {
    std::lock_guard lock(client_.mutex_);
    client_.calls_.erase(&context);
  }
  void set_patience(std::chrono::milliseconds patience) {
    context.set_deadline(std::chrono::system_clock::now() + patience);
  }

  grpc::ClientContext context;

 private:
  EngineClient& client_;
};

EngineClient::EngineClient(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)), stub_(protocol::Engine::NewStub(channel_)) {}

Result<std::shared_ptr<EngineClient>> EngineClient::connect(const std::string& address,
                                                            std::chrono::milliseconds patience,
                                                            std::stop_token stop) {
  const std::string path = address.rfind(kScheme, 0) == 0 ? address.substr(std::strlen(kScheme)) : "";
  if (path.empty() || path.size() > protocol::kMaxSocketPath)
    return fail(ErrorCode::kInvalidArgument, "The engine's address '" + address + "' is not of the form unix:PATH" +
                                                 (path.empty() ? "." : " with a path of at most " +
                                                      std::to_string(protocol::kMaxSocketPath) + " bytes."));
  const auto deadline = Clock::now() + patience;
  while (!protocol::somebody_listens(path)) {
    if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
    if (Clock::now() > deadline)
      return fail(ErrorCode::kNotFound, "Nobody listens at '" + address + "'.",
                  "Start the engine there: quanvas-engine --listen " + address);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return std::shared_ptr<EngineClient>(new EngineClient(make_channel(kScheme + path)));
}

Status EngineClient::finish(const grpc::Status& status, const std::string& what) {
  if (status.ok()) return {};
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) lost_ = true;
  return Failure(protocol::from_grpc(status, what));
}

bool EngineClient::is_connected() {
  const auto state = channel_->GetState(false);
  return state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_CONNECTING;
}

void EngineClient::abort() {
  std::lock_guard lock(mutex_);
  aborted_ = true;
  for (auto* context : calls_) context->TryCancel();
}

Result<EngineHello> EngineClient::hello() {
  Call call(*this);
  call.set_patience(std::chrono::seconds(20));
  protocol::HelloRequest request;
  request.set_protocol_version(protocol::kVersion);
  request.set_client("window");
  protocol::HelloReply reply;
  QUANVAS_CHECK(finish(stub_->Hello(&call.context, request, &reply), "the greeting"));
  if (reply.protocol_version() != protocol::kVersion)
    return fail(ErrorCode::kUnsupported,
                "The engine speaks version " + std::to_string(reply.protocol_version()) +
                    " of the protocol, this window version " + std::to_string(protocol::kVersion) + ".",
                "Use the window and the engine of the same release.");
  EngineHello hello;
  hello.versions.insert(reply.versions().begin(), reply.versions().end());
  hello.warnings.assign(reply.warnings().begin(), reply.warnings().end());
  return hello;
}

Result<json> EngineClient::catalog() {
  Call call(*this);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->Catalog(&call.context, {}, &reply), "the catalog"));
  return parse_json(reply.text(), "The catalog");
}

Result<std::string> EngineClient::drain(grpc::ClientReader<protocol::JobEvent>& reader, const JobEvents& events,
                                        const std::string& what) {
  std::optional<Result<std::string>> result;
  protocol::JobEvent event;
  while (reader.Read(&event)) {
    if (event.has_progress() && events.progress) {
      if (const auto p = from_json_text<Progress>(event.progress())) events.progress(*p);
    } else if (event.has_issue() && events.issue) {
      if (const auto i = from_json_text<Issue>(event.issue())) events.issue(*i);
    } else if (event.has_partial() && events.partial) {
      events.partial(event.partial().kind(), event.partial().json());
    } else if (event.has_result()) {
      result = event.result();
    } else if (event.has_failed()) {
      result = Failure(protocol::from_message(event.failed()));
    }
  }
  QUANVAS_CHECK(finish(reader.Finish(), what));
  if (!result) return fail(ErrorCode::kInternal, "The engine ended " + what + " without a result.");
  return *result;
}

Result<protocol::OpenedProject> EngineClient::open(const std::string& path,
                                                   const ImportOptions& import,
                                                   const JobEvents& events, std::stop_token stop,
                                                   const std::string& project_path) {
  Call call(*this);
  std::stop_callback cancel(stop, [&] { call.context.TryCancel(); });
  protocol::OpenRequest request;
  request.set_path(path);
  request.set_project_path(project_path);
  if (!(import == ImportOptions{})) request.set_import(to_json_value(import).dump());
  const auto reader = stub_->Open(&call.context, request);
  QUANVAS_TRY(const auto text, drain(*reader, events, "the opening of '" + path + "'"));
  return protocol::opened_from_text(text);
}

Result<ProjectState> EngineClient::state() {
  Call call(*this);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->GetState(&call.context, {}, &reply), "the project's state"));
  return from_json_text<ProjectState>(reply.text());
}

Result<std::vector<Run>> EngineClient::runs() {
  Call call(*this);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->GetRuns(&call.context, {}, &reply), "the list of runs"));
  return from_json_text<std::vector<Run>>(reply.text());
}

Status EngineClient::set_recipe(const Recipe& recipe, const std::string& label, std::chrono::milliseconds patience) {
  Call call(*this);
  call.set_patience(patience);
  protocol::SetRecipeRequest request;
  request.set_recipe(to_json_text(recipe));
  request.set_label(label);
  protocol::Empty reply;
  return finish(stub_->SetRecipe(&call.context, request, &reply), "the edit '" + label + "'");
}

Result<ProjectState> EngineClient::set_data(const DataSettings& data) {
  Call call(*this);
  protocol::Json request, reply;
  request.set_text(to_json_text(data));
  QUANVAS_CHECK(finish(stub_->SetData(&call.context, request, &reply), "the data settings"));
  return from_json_text<ProjectState>(reply.text());
}

Status EngineClient::set_value(const std::string& key, const std::string& text) {
  Call call(*this);
  protocol::KeyValue request;
  request.set_key(key);
  request.set_value(text);
  protocol::Empty reply;
  return finish(stub_->SetValue(&call.context, request, &reply), "the value '" + key + "'");
}

Result<std::string> EngineClient::value(const std::string& key) {
  Call call(*this);
  protocol::KeyValue request, reply;
  request.set_key(key);
  QUANVAS_CHECK(finish(stub_->GetValue(&call.context, request, &reply), "the value '" + key + "'"));
  return reply.value();
}

Status EngineClient::save_copy(const std::string& path) {
  Call call(*this);
  protocol::PathRequest request;
  request.set_path(path);
  protocol::Empty reply;
  return finish(stub_->SaveCopy(&call.context, request, &reply), "the copy to '" + path + "'");
}

Result<std::vector<TrustedModel>> EngineClient::trust() {
  Call call(*this);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->GetTrust(&call.context, {}, &reply), "the list of trusted files"));
  return from_json_text<std::vector<TrustedModel>>(reply.text());
}

Result<std::vector<TrustedModel>> EngineClient::revoke_trust(const std::vector<std::string>& hashes) {
  Call call(*this);
  protocol::Json request, reply;
  request.set_text(to_json_text(hashes));
  QUANVAS_CHECK(finish(stub_->RevokeTrust(&call.context, request, &reply), "taking back the trust"));
  return from_json_text<std::vector<TrustedModel>>(reply.text());
}

Status EngineClient::layer_facts(const Recipe& recipe, const std::vector<NodeId>& nodes,
                                 const std::function<void(LayerFacts)>& each) {
  Call call(*this);
  protocol::LayerFactsRequest request;
  request.set_recipe(to_json_text(recipe));
  for (const NodeId node : nodes) request.add_nodes(node);
  const auto reader = stub_->GetLayerFacts(&call.context, request);
  protocol::Json reply;
  Status parsed;
  while (reader->Read(&reply)) {
    auto facts = from_json_text<LayerFacts>(reply.text());
    if (facts)
      each(std::move(*facts));
    else if (parsed)
      parsed = Failure(facts.error());
  }
  QUANVAS_CHECK(finish(reader->Finish(), "the facts of a layer"));
  return parsed;
}

Result<Histogram> EngineClient::histogram(const Recipe& recipe, const Site& site, int bins) {
  Call call(*this);
  protocol::HistogramRequest request;
  request.set_recipe(to_json_text(recipe));
  request.set_site(to_json_text(site));
  request.set_bins(bins);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->GetHistogram(&call.context, request, &reply), "the histogram"));
  return from_json_text<Histogram>(reply.text());
}

Result<std::vector<Refusal>> EngineClient::ask_export(const Recipe& recipe, const std::string& target, const json& options, bool declarations,
                                                      std::stop_token stop) {
  Call call(*this);
  std::stop_callback cancel(stop, [&] { call.context.TryCancel(); });
  protocol::CheckExportRequest request;
  request.set_recipe(to_json_text(recipe));
  request.set_target(target);
  request.set_options(options.dump());
  request.set_declarations(declarations);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->CheckExport(&call.context, request, &reply), "the export check"));
  return protocol::refusals_from_text(reply.text());
}

Result<std::vector<Refusal>> EngineClient::check_export(const Recipe& recipe, const std::string& target, const json& options, std::stop_token stop) {
  return ask_export(recipe, target, options, /*declarations=*/false, stop);
}

Result<std::vector<Refusal>> EngineClient::check_declarations(const Recipe& recipe, const std::string& target, const json& options) {
  return ask_export(recipe, target, options, /*declarations=*/true, {});
}

Result<Recipe> EngineClient::mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer) {
  Call call(*this);
  protocol::MendRecipeRequest request;
  request.set_recipe(to_json_text(recipe));
  request.set_refusals(protocol::refusals_to_text(refusals));
  request.set_layer(layer);
  protocol::Json reply;
  QUANVAS_CHECK(finish(stub_->MendRecipe(&call.context, request, &reply), "the mending of the recipe"));
  return from_json_text<Recipe>(reply.text(), "recipe");
}

Result<std::vector<RecipeIssue>> EngineClient::check_recipe(const Recipe& recipe) {
  Call call(*this);
  protocol::Json request, reply;
  request.set_text(to_json_text(recipe));
  QUANVAS_CHECK(finish(stub_->CheckRecipe(&call.context, request, &reply), "the check of the recipe"));
  return from_json_text<std::vector<RecipeIssue>>(reply.text());
}

Result<std::string> EngineClient::run_job(const std::string& id, const std::string& verb, const json& argument,
                                          const JobEvents& events) {
  Call call(*this);
  protocol::JobRequest request;
  request.set_id(id);
  request.set_verb(verb);
  request.set_argument(argument.dump(-1, ' ', false, json::error_handler_t::replace));
  const auto reader = stub_->RunJob(&call.context, request);
  reader->WaitForInitialMetadata();
  if (events.queued) events.queued();
  return drain(*reader, events, "the job '" + verb + "'");
}

Status EngineClient::cancel_job(const std::string& id) {
  Call call(*this);
  call.set_patience(std::chrono::seconds(2));
  protocol::JobId request;
  request.set_id(id);
  protocol::Empty reply;
  return finish(stub_->CancelJob(&call.context, request, &reply), "the request to stop");
}

Result<std::string> EngineClient::upload(const std::string& path, std::stop_token stop) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ErrorCode::kIo, "Cannot read '" + path + "'.");
  Call call(*this);
  std::stop_callback cancel(stop, [&] { call.context.TryCancel(); });
  protocol::PathRequest reply;
  const auto writer = stub_->Upload(&call.context, &reply);
  protocol::FileChunk chunk;
  chunk.set_name(std::filesystem::path(path).filename().string());
  std::string buffer(protocol::kChunkBytes, '\0');
  bool first = true;
  while (in || first) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    chunk.set_data(buffer.data(), static_cast<std::size_t>(in.gcount()));
    if (!writer->Write(chunk)) break;
    chunk.clear_name();
    first = false;
  }
  if (in.bad()) call.context.TryCancel();
  writer->WritesDone();
  QUANVAS_CHECK(finish(writer->Finish(), "the upload of '" + path + "'"));
  return reply.path();
}

}  // namespace quanvas
