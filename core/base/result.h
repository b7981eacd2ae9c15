// Quanvas - errors as values. Every fallible function of the engine returns Result<T>; exceptions of
// third parties are turned into an Error at one place (guarded() in core/base/guarded.h).
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace quanvas {

enum class ErrorCode {
  kInvalidArgument,  // an option, a recipe or a request that makes no sense
  kNotFound,         // file, layer, run or preset that does not exist
  kUnsupported,      // understood, but not possible here; the message says why
  kCorrupt,          // bytes that are not what they claim to be
  kIo,               // the operating system refused (permission, disk full ...)
  kReadOnly,         // the project is open elsewhere or the file is write protected
  kCancelled,        // stopped on request
  kNeedsTrust,       // the file brings code of its own, and nobody has said that it may run
  kOutOfMemory,
  kInternal,         // a defect of ours
};

const char* to_string(ErrorCode code);

// message: one clear sentence that names the file, layer or option and what was expected.
// hint: what to do about it (may be empty). context: where it happened, outermost first (may be empty).
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::string hint;
  std::string context;

  // "message Hint." in one line, for logs and the command line.
  std::string text() const;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = tl::expected<void, Error>;
using Failure = tl::unexpected<Error>;

inline Failure fail(ErrorCode code, std::string message, std::string hint = {}) {
  return Failure(Error{code, std::move(message), std::move(hint), {}});
}

// Process exit code of the command line for an error; documented in docs/command-line.md.
int exit_code(ErrorCode code);

}  // namespace quanvas

// QUANVAS_TRY(auto x, expression): x is the value, or the enclosing function returns the error.
#define QUANVAS_CONCAT_INNER(a, b) a##b
#define QUANVAS_CONCAT(a, b) QUANVAS_CONCAT_INNER(a, b)
#define QUANVAS_TRY(declaration, ...) QUANVAS_TRY_IMPL(QUANVAS_CONCAT(try_, __LINE__), declaration, __VA_ARGS__)
#define QUANVAS_TRY_IMPL(temporary, declaration, ...)                       \
  auto temporary = (__VA_ARGS__);                                           \
  if (!temporary) return ::quanvas::Failure(std::move(temporary).error());  \
  declaration = std::move(*temporary)
#define QUANVAS_CHECK(...)                                                          \
  do {                                                                              \
    if (auto try_status = (__VA_ARGS__); !try_status)                               \
      return ::quanvas::Failure(std::move(try_status).error());                     \
  } while (false)
