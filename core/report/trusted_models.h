// Quanvas - the model files whose code the user has let run. Kept for the user (`trusted-models` in the user's data
// folder) and for the files' content: a line for each, its hash, when that was and where the file lay, divided by tabs.
#pragma once

#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/result.h"

namespace quanvas {

struct TrustedModel {
  std::string hash;    // of the content that may run
  std::string since;   // UTC, ISO 8601; empty: not known
  std::string path;    // where it was opened; empty: not known
  bool operator==(const TrustedModel&) const = default;
};
template <class V>
void visit_fields(V& v, TrustedModel& m) {
  v("hash", m.hash);
  v("since", m.since);
  v("path", m.path);
}

// In the order in which they were trusted; none where nothing can be read.
std::vector<TrustedModel> trusted_models();
// Of all of them, with spaces between: ImportOptions::trusted.
std::string trusted_hashes();
// Where it cannot be kept, the question is asked again next time.
void remember_trust(const std::string& hash, const std::string& path);
// `which`: a hash, the first characters of one (8 or more), or the path of a file. Returns those that were taken back;
// kNotFound when nothing is meant, kInvalidArgument when the characters begin several.
Result<std::vector<TrustedModel>> revoke_trust(const std::string& which);
Status revoke_all_trust();

}  // namespace quanvas
