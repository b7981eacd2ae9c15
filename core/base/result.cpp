#include "core/base/result.h"

namespace quanvas {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid-argument";
    case ErrorCode::kNotFound: return "not-found";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kReadOnly: return "read-only";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kNeedsTrust: return "needs-trust";
    case ErrorCode::kOutOfMemory: return "out-of-memory";
    case ErrorCode::kInternal: return "internal";
  }
  return "internal";
}

std::string Error::text() const {
  std::string out = context.empty() ? message : context + ": " + message;
  if (!hint.empty()) out += " " + hint;
  return out;
}

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return 2;
    case ErrorCode::kNotFound: return 3;
    case ErrorCode::kUnsupported: return 4;
    case ErrorCode::kCorrupt: return 5;
    case ErrorCode::kIo: return 6;
    case ErrorCode::kReadOnly: return 7;
    case ErrorCode::kOutOfMemory: return 8;
    case ErrorCode::kNeedsTrust: return 9;
    case ErrorCode::kCancelled: return 130;
    case ErrorCode::kInternal: return 70;
  }
  return 70;
}

}  // namespace quanvas
