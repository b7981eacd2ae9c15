#include "core/base/hash.h"

#include <cstdint>
#include <cstdio>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quanvas {

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher::~Hasher() = default;

Hasher& Hasher::bytes(const void* data, std::size_t size) {
  if (size) XXH3_128bits_update(&state_->xxh, data, size);
  return *this;
}
Hasher& Hasher::text(std::string_view s) {
  number(static_cast<std::int64_t>(s.size()));
  return bytes(s.data(), s.size());
}
Hasher& Hasher::number(std::int64_t v) { return bytes(&v, sizeof v); }

std::string Hasher::hex() const {
  const XXH128_hash_t h = XXH3_128bits_digest(&state_->xxh);
  char out[33];
  std::snprintf(out, sizeof out, "%016llx%016llx", static_cast<unsigned long long>(h.high64),
                static_cast<unsigned long long>(h.low64));
  return out;
}

std::string hash_bytes(const void* data, std::size_t size) { return Hasher().bytes(data, size).hex(); }
std::string hash_text(std::string_view s) { return hash_bytes(s.data(), s.size()); }

}  // namespace quanvas
