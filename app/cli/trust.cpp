#include "app/cli/trust.h"

#include "app/cli/print.h"
#include "core/report/trusted_models.h"

namespace quanvas::cli {
namespace {

constexpr std::size_t kShownHash = 16;

void print_models(const std::vector<TrustedModel>& models) {
  Table table({{"hash"}, {"since"}, {"file"}});
  for (const TrustedModel& m : models)
    table.row({m.hash.substr(0, kShownHash), m.since.empty() ? "-" : m.since, m.path.empty() ? "-" : m.path});
  print(table.text());
}

}  // namespace

Status trust(const Options& options) {
  std::vector<TrustedModel> taken;
  if (options.revoke_all) {
    taken = trusted_models();
    QUANVAS_CHECK(revoke_all_trust());
  }
  for (const std::string& which : options.revoke) {
    QUANVAS_TRY(const auto some, revoke_trust(which));
    taken.insert(taken.end(), some.begin(), some.end());
  }
  const bool revoked = options.revoke_all || !options.revoke.empty();
  const auto models = revoked ? taken : trusted_models();
  if (options.json) {
    print_json(to_json_value(models));
    return {};
  }
  if (models.empty()) {
    print(revoked ? "Nothing was trusted.\n" : "No file's code is trusted.\n");
    return {};
  }
  print_models(models);
  if (revoked) print("\nThese are asked about again.\n");
  return {};
}

}  // namespace quanvas::cli
