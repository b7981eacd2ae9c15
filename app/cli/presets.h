// Quanvas - the verb "presets".
#pragma once

#include "app/cli/options.h"
#include "core/base/result.h"

namespace quanvas::cli {

// Prints the presets whose id, title, heading or description contains the filter; kNotFound when none does.
Status presets(const Options& options);

}  // namespace quanvas::cli
