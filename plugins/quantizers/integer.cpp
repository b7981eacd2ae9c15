// The integer affine format: q = clamp(rint(x / s) + z, lo, hi), x~ = (q - z) s.
#include "core/plugin/registry.h"

namespace quanvas {
namespace {

class IntegerFormat final : public NumberFormat {
 public:
  PluginInfo info() const override {
    return {"int", "Integer", "Affine integer codes of 1 to 16 bits (bias: 32): x~ = (q − z) · s (Jacob et al. 2018)."};
  }
  std::string check(const QuantSpec& spec) const override { return quanvas::check(spec); }
  CodeRange codes(const QuantSpec& spec) const override { return code_range(spec); }

  // Groups carry a float32 scale each, and a zero point of the codes' width; scales per tensor and per channel
  // do not count here, they vanish against the codes.
  double bits_per_element(const QuantSpec& spec) const override {
    if (spec.granularity != Granularity::kGroup || spec.group_size < 1) return spec.bits;
    const double zero_point = spec.zero_point == ZeroPointType::kInteger ? spec.bits : 0;
    return spec.bits + (32 + zero_point) / spec.group_size;
  }
};

QUANVAS_PLUGIN(NumberFormat, IntegerFormat)

}  // namespace
}  // namespace quanvas
