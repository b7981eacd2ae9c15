#include "app/engine/service.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "app/engine/service_calls.h"
#include "core/protocol/address.h"
#include "core/protocol/protocol.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

using protocol::kScheme;

// Whoever may write into the folder may replace the socket by one of his own.
Status check_folder(const fs::path& folder) {
  std::error_code ec;
  if (!fs::exists(folder, ec)) {
    fs::create_directories(folder, ec);
    if (!ec) fs::permissions(folder, fs::perms::owner_all, ec);
    if (ec) return fail(ErrorCode::kIo, "Cannot make the folder '" + folder.string() + "': " + ec.message() + ".");
  }
  struct stat info {};
  if (::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return fail(ErrorCode::kIo, "'" + folder.string() + "' is not a folder that can be read.");
  if (info.st_uid != ::geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(ErrorCode::kIo, "The folder '" + folder.string() + "' can be written by others.",
                "Choose a private folder for the socket (chmod 700), such as $XDG_RUNTIME_DIR.");
  return {};
}

Result<std::string> socket_path(const std::string& address) {
  if (address.rfind(kScheme, 0) != 0 || address.size() == std::strlen(kScheme))
    return fail(ErrorCode::kInvalidArgument, "The address '" + address + "' is not of the form unix:PATH.");
  const std::string path = fs::absolute(address.substr(std::strlen(kScheme))).string();
  if (path.size() > protocol::kMaxSocketPath)
    return fail(ErrorCode::kInvalidArgument, "The socket's path '" + path + "' has " + std::to_string(path.size()) +
                                                 " bytes; at most " + std::to_string(protocol::kMaxSocketPath) +
                                                 " are possible.",
                "Choose a folder with a shorter path.");
  QUANVAS_CHECK(check_folder(fs::path(path).parent_path()));
  std::error_code ec;
  const auto kind = fs::symlink_status(path, ec).type();
  if (kind == fs::file_type::socket) {
    if (protocol::somebody_listens(path))
      return fail(ErrorCode::kInvalidArgument, "Another engine listens at '" + path + "'.", "Choose another path.");
    fs::remove(path, ec);  // left behind by one that was killed
  } else if (kind != fs::file_type::not_found) {
    return fail(ErrorCode::kInvalidArgument, "'" + path + "' exists and is not a socket.", "Choose another path.");
  }
  return path;
}

}  // namespace

struct Server::Impl {
  Impl(Backend backend, std::function<void()> on_shutdown)
      : calls(std::move(backend), std::move(on_shutdown)) {}

  ServiceCalls calls;
  std::unique_ptr<grpc::Server> server;
  std::string path;
};

Server::Server(Backend backend, std::function<void()> on_shutdown)
    : impl_(std::make_unique<Impl>(std::move(backend), std::move(on_shutdown))) {}

Server::~Server() { stop(std::chrono::milliseconds(0)); }

Status Server::listen(const std::string& address) {
  QUANVAS_TRY(const std::string path, socket_path(address));
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(kScheme + path, grpc::InsecureServerCredentials());
  builder.RegisterService(&impl_->calls);
  const mode_t before = ::umask(0177);  // the socket is private from its first moment
  impl_->server = builder.BuildAndStart();
  ::umask(before);
  if (!impl_->server) return fail(ErrorCode::kIo, "Cannot listen at '" + path + "': " + std::strerror(errno) + ".");
  ::chmod(path.c_str(), 0600);
  impl_->path = path;
  return {};
}

bool Server::stop(std::chrono::milliseconds patience) {
  if (!impl_->server) return true;
  impl_->calls.cancel_all();
  const auto deadline = std::chrono::system_clock::now() + patience;
  impl_->server->Shutdown(deadline);
  std::error_code ec;
  fs::remove(impl_->path, ec);
  while (impl_->calls.busy() && std::chrono::system_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (impl_->calls.busy()) return false;
  impl_->server.reset();
  return true;
}

}  // namespace quanvas
