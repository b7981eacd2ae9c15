// Quanvas - the verb "trust".
#pragma once

#include "app/cli/options.h"
#include "core/base/result.h"

namespace quanvas::cli {

// Prints the files whose code this user has let run, or takes that back.
Status trust(const Options& options);

}  // namespace quanvas::cli
