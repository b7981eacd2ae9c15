// Quanvas - the time as projects store it.
#pragma once

#include <string>

namespace quanvas {

std::string now_utc();  // ISO 8601: "2026-03-01T12:34:56Z"

}  // namespace quanvas
