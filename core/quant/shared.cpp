#include "core/quant/shared.h"

namespace quanvas::quant {

Result<QuantParams> find_shared_params(const QuantSpec& spec, const std::vector<Values>& weights) {
  std::int64_t count = 0;
  for (const auto& [data, n] : weights) count += n;
  std::vector<float> all;
  all.reserve(static_cast<std::size_t>(count));
  for (const auto& [data, n] : weights) all.insert(all.end(), data, data + n);
  return find_params(spec, {count}, all.data(), 0);
}

}  // namespace quanvas::quant
