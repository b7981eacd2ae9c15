// Quanvas - the one place where exceptions (LibTorch's, protobuf's, std::bad_alloc) become an Error.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace quanvas {

// First line that says something of a what(), never empty: LibTorch appends a C++ stack trace that helps nobody in a window.
std::string first_line(std::string_view what);

// Runs fn (which returns Result<T> or Status) and turns what it throws into an Error whose context is `where`.
template <class Fn>
auto guarded(std::string_view where, Fn&& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return Failure(Error{ErrorCode::kOutOfMemory, "Not enough memory.",
                         "Use a smaller batch or fewer samples.", std::string(where)});
  } catch (const std::exception& e) {
    return Failure(Error{ErrorCode::kInternal, first_line(e.what()), {}, std::string(where)});
  }
}

}  // namespace quanvas
