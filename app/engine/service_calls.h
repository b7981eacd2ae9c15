// Quanvas - the calls of the service, one method per verb of engine.proto.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "app/engine/service.h"
#include "app/engine/service_jobs.h"
#include "engine.grpc.pb.h"

namespace quanvas {

using WorkbenchPtr = std::shared_ptr<Workbench>;

// Thread-safe: gRPC calls the methods from many threads.
class ServiceCalls final : public protocol::Engine::Service {
 public:
  ServiceCalls(Backend backend, std::function<void()> on_shutdown);

  void cancel_all() { heavy_.cancel_all(); }
  bool busy() const { return heavy_.busy() || quick_.busy() || checks_.busy(); }

  using Context = grpc::ServerContext;
  using Json = protocol::Json;
  using Empty = protocol::Empty;
  grpc::Status Hello(Context*, const protocol::HelloRequest*, protocol::HelloReply*) override;
  grpc::Status Catalog(Context*, const Empty*, Json*) override;
  grpc::Status Open(Context*, const protocol::OpenRequest*, grpc::ServerWriter<protocol::JobEvent>*) override;
  grpc::Status GetGraph(Context*, const Empty*, Json*) override;
  grpc::Status GetState(Context*, const Empty*, Json*) override;
  grpc::Status GetRuns(Context*, const Empty*, Json*) override;
  grpc::Status GetEdits(Context*, const protocol::EditsRequest*, Json*) override;
  grpc::Status SetRecipe(Context*, const protocol::SetRecipeRequest*, Empty*) override;
  grpc::Status SetData(Context*, const Json*, Json*) override;
  grpc::Status SetValue(Context*, const protocol::KeyValue*, Empty*) override;
  grpc::Status GetValue(Context*, const protocol::KeyValue*, protocol::KeyValue*) override;
  grpc::Status SaveCopy(Context*, const protocol::PathRequest*, Empty*) override;
  grpc::Status GetTrust(Context*, const Empty*, Json*) override;
  grpc::Status RevokeTrust(Context*, const Json*, Json*) override;
  grpc::Status GetLayerFacts(Context*, const protocol::LayerFactsRequest*, grpc::ServerWriter<Json>*) override;
  grpc::Status GetHistogram(Context*, const protocol::HistogramRequest*, Json*) override;
  grpc::Status CheckExport(Context*, const protocol::CheckExportRequest*, Json*) override;
  grpc::Status MendRecipe(Context*, const protocol::MendRecipeRequest*, Json*) override;
  grpc::Status CheckRecipe(Context*, const Json* recipe, Json* reply) override;
  grpc::Status RunJob(Context*, const protocol::JobRequest*, grpc::ServerWriter<protocol::JobEvent>*) override;
  grpc::Status CancelJob(Context*, const protocol::JobId*, Empty*) override;
  grpc::Status Upload(Context*, grpc::ServerReader<protocol::FileChunk>*, protocol::PathRequest*) override;
  grpc::Status Shutdown(Context*, const Empty*, Empty*) override;

 private:
  Result<WorkbenchPtr> workbench() const;
  void set_workbench(WorkbenchPtr bench);
  Status close_project(WorkbenchPtr previous, JobContext& job);
  Result<std::string> open(const protocol::OpenRequest& request, JobContext& job);
  grpc::Status stream(Context* context, const std::string& id, JobWork work,
                      grpc::ServerWriter<protocol::JobEvent>* out);

  Backend backend_;
  std::function<void()> on_shutdown_;
  mutable std::mutex mutex_;  // guards workbench_ (the pointer)
  WorkbenchPtr workbench_;
  std::atomic<std::int64_t> next_open_ = 1;
  Lane quick_;
  Lane checks_;   // whole export checks, which may search scales for seconds: quick questions do not wait for them
  JobLane heavy_;  // last: its jobs use the members above
};

// The long verbs of RunJob by name; kInvalidArgument with the known names. Work that waits does not keep the
// workbench alive: it ends with kCancelled when its project was closed meanwhile.
Result<JobWork> find_verb(const std::string& verb, const std::string& argument, const WorkbenchPtr& workbench);

// Receives a file into <cache>/uploads/<hash of its bytes>/<name>; the same file is stored once.
Result<std::string> receive_upload(const grpc::ServerContext& context,
                                   grpc::ServerReader<protocol::FileChunk>* chunks);

}  // namespace quanvas
