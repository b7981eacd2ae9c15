// Quanvas - the engine's service as functions that return values. Blocks; no Qt.
//
// Thread-safe: any number of calls at the same time. A client belongs to one connection: when that is lost,
// make a new one.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "core/protocol/wire.h"
#include "core/report/trusted_models.h"
#include "engine.grpc.pb.h"

namespace quanvas {

struct EngineHello {
  std::map<std::string, std::string> versions;
  std::vector<std::string> warnings;
};

struct JobEvents {
  std::function<void()> queued;  // the engine has the job: one that is sent from now on comes behind it
  std::function<void(const Progress&)> progress;
  std::function<void(const Issue&)> issue;
  std::function<void(const std::string& kind, const std::string& json)> partial;
};

class EngineClient {
 public:
  // Waits until somebody listens at `address` (unix:PATH), at most `patience`; kCancelled when stopped.
  static Result<std::shared_ptr<EngineClient>> connect(const std::string& address, std::chrono::milliseconds patience,
                                                       std::stop_token stop);

  // kUnsupported when the engine speaks another version of the protocol.
  Result<EngineHello> hello();
  Result<json> catalog();
  Result<protocol::OpenedProject> open(const std::string& path, const ImportOptions& import,
                                       const JobEvents& events, std::stop_token stop,
                                       const std::string& project_path = {});
  Result<ProjectState> state();
  Result<std::vector<Run>> runs();
  Status set_recipe(const Recipe& recipe, const std::string& label, std::chrono::milliseconds patience);
  Result<ProjectState> set_data(const DataSettings& data);
  Status set_value(const std::string& key, const std::string& text);
  Result<std::string> value(const std::string& key);  // "" when absent
  Status save_copy(const std::string& path);
  Result<std::vector<TrustedModel>> trust();
  Result<std::vector<TrustedModel>> revoke_trust(const std::vector<std::string>& hashes);
  // Calls `each` per layer, in the order of `nodes`.
  Status layer_facts(const Recipe& recipe, const std::vector<NodeId>& nodes,
                     const std::function<void(LayerFacts)>& each);
  Result<Histogram> histogram(const Recipe& recipe, const Site& site, int bins);
  Result<std::vector<Refusal>> check_export(const Recipe& recipe, const std::string& target, const json& options, std::stop_token stop = {});
  Result<std::vector<Refusal>> check_declarations(const Recipe& recipe, const std::string& target, const json& options);
  Result<Recipe> mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer);
  Result<std::vector<RecipeIssue>> check_recipe(const Recipe& recipe);
  // The result's JSON. The callbacks are called on the calling thread.
  Result<std::string> run_job(const std::string& id, const std::string& verb, const json& argument,
                              const JobEvents& events);
  Status cancel_job(const std::string& id);
  Result<std::string> upload(const std::string& path, std::stop_token stop);

  // Ends every call that runs and refuses new ones: used when the engine is gone or the window closes.
  void abort();
  // True since a call found nobody at the other end.
  bool lost() const { return lost_; }
  // Looks at the connection without a call.
  bool is_connected();

 private:
  Result<std::vector<Refusal>> ask_export(const Recipe& recipe, const std::string& target, const json& options, bool declarations, std::stop_token stop);
  class Call;
  EngineClient(std::shared_ptr<grpc::Channel> channel);
  Result<std::string> drain(grpc::ClientReader<protocol::JobEvent>& reader, const JobEvents& events,
                            const std::string& what);
  Status finish(const grpc::Status& status, const std::string& what);

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<protocol::Engine::Stub> stub_;
  std::atomic<bool> lost_ = false;
  std::mutex mutex_;  // guards the two below
  std::set<grpc::ClientContext*> calls_;
  bool aborted_ = false;
};

}  // namespace quanvas
