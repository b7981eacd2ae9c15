#include "app/session/versions.h"

#include <grpcpp/version_info.h>

namespace quanvas {

const char* transport_version() { return "gRPC " GRPC_CPP_VERSION_STRING; }

}  // namespace quanvas
