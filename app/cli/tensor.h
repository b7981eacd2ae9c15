// Quanvas - the verb "tensor".
#pragma once

#include "app/cli/options.h"
#include "core/base/result.h"

namespace quanvas::cli {

// Quantizes the array that the options name and prints what that did to it. Files are written whole or not at all.
Status tensor(const Options& options);

}  // namespace quanvas::cli
