// What ONNX QDQ refuses, by layer, quantizer and rule.
#include <functional>

#include <gtest/gtest.h>

#include "tests/plugins/export_net.h"

namespace quanvas {
namespace {

using export_net::quantize;
using export_net::small_net;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

const Exporter& exporter(const std::string& id) { return **Registry<Exporter>::instance().get(id, "target"); }
export_net::Formats plain() { return {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), false}; }

// What the target cannot hold: how to make it so, and the rule that must be named.
struct RefusalCase {
  const char* name;
  SiteKind kind;
  std::function<void(quant::QuantParams&)> spoil;
  const char* rule;
};
const RefusalCase kRefusals[] = {
    {"17 bit weight", SiteKind::kWeight, [](auto& p) { p.spec.bits = 17; p.lo = -65535; p.hi = 65535; }, "bit width"},
    {"17 bit activation", SiteKind::kInput, [](auto& p) { p.spec.bits = 17; p.lo = 0; p.hi = 131071; }, "bit width"},
    {"another format", SiteKind::kWeight, [](auto& p) { p.spec.format = "float8"; }, "number format"},
    {"rows", SiteKind::kWeight, [](auto& p) { p.spec.granularity = Granularity::kRow; }, "granularity"},
    {"groups of an activation", SiteKind::kInput, [](auto& p) { p.spec.granularity = kGroup; }, "granularity"},
    {"zero point inside", SiteKind::kInput, [](auto& p) { p.spec.zero_point_inside = true; }, "place of the zero point"},
    {"stochastic", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kStochastic; }, "rounding"},
    {"half away", SiteKind::kInput, [](auto& p) { p.spec.rounding = Rounding::kHalfAway; }, "rounding"},
    {"fractional zero point", SiteKind::kWeight,
     [](auto& p) { p.spec.zero_point = ZeroPointType::kFloat; p.zero_point.assign(p.scale.size(), 0.5f); }, "zero point"},
    {"float e4m3 of largest 480", SiteKind::kInput,
     [](auto& p) { p.spec.format = "float"; p.spec.specials = FloatSpecials::kNone; p.spec.zero_point = kNone; p.zero_point.clear(); },
     "number format"},
    {"binary", SiteKind::kInput, [](auto& p) { p.spec.format = "binary"; p.spec.zero_point = kNone; p.zero_point.clear(); }, "number format"},
    {"33 bit bias", SiteKind::kBias, [](auto& p) { p.spec.bits = 33; p.lo = -(std::int64_t{1} << 32); p.hi = -p.lo - 1; },
     "bit width"},
    {"unsigned bias", SiteKind::kBias, [](auto& p) { p.spec.is_signed = false; p.lo = 0; }, "sign"},
    {"zero point", SiteKind::kBias, [](auto& p) { p.zero_point.assign(p.scale.size(), 3); }, "zero point"},
    {"scale 0", SiteKind::kInput, [](auto& p) { p.scale[0] = 0; }, "scale"},
    {"scale nan", SiteKind::kWeight, [](auto& p) { p.scale[0] = NAN; }, "scale"},
    {"scale inf", SiteKind::kInput, [](auto& p) { p.scale[0] = INFINITY; }, "scale"},
    {"no scale", SiteKind::kInput, [](auto& p) { p.scale.clear(); p.zero_point.clear(); }, "scale"},
    {"zero point 0.5", SiteKind::kInput, [](auto& p) { p.zero_point = {0.5f}; }, "zero point"},
    {"zero point -1 of uint8", SiteKind::kInput, [](auto& p) { p.zero_point = {-1}; }, "zero point"},
    {"zero point nan", SiteKind::kInput, [](auto& p) { p.zero_point = {NAN}; }, "zero point"},
    {"too few scales", SiteKind::kWeight, [](auto& p) { p.scale.pop_back(); }, "axis of scales"},
    {"negative scale", SiteKind::kWeight, [](auto& p) { p.scale[0] = -p.scale[0]; }, "scale"},
    {"codebook", SiteKind::kWeight, [](auto& p) { p.spec.format = "nf4"; }, "number format"},
    {"offset", SiteKind::kWeight,
     [](auto& p) { p.spec.zero_point = ZeroPointType::kOffset; p.zero_point.assign(p.scale.size(), 0.3f); }, "zero point"},
    {"dynamic", SiteKind::kInput,
     [](auto& p) { p.spec.source = ScaleSource::kDynamic; p.spec.is_signed = true; p.scale.clear(); p.zero_point.clear(); }, "scale source"},
    {"axis 7", SiteKind::kWeight, [](auto& p) { p.spec.axis = 7; }, "axis of scales"},
};

TEST(QdqRefusals, RefusalsNameLayerQuantizerAndRule) {
  const QuantizedModel good = quantize(small_net(), plain());
  for (const RefusalCase& c : kRefusals) {
    SCOPED_TRACE(c.name);
    QuantizedModel model = good;
    for (auto& [site, params] : model.quantizers) {
      if (site.kind != c.kind || model.model->graph->find(site.node)->name != "conv1") continue;
      c.spoil(params);
    }
    const auto refusals = exporter("onnx-qdq").check(model, json::object());
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, c.rule);
    EXPECT_EQ(refusals[0].layer, "conv1");
    EXPECT_EQ(refusals[0].quantizer, enum_text(c.kind));
    for (const std::string* part : {&refusals[0].got, &refusals[0].allowed, &refusals[0].suggestion})
      EXPECT_FALSE(part->empty());
    EXPECT_NE(refusals[0].text().find("conv1"), std::string::npos);
  }
}

// Of a constant only codes and scale are stored, however the codes came about.
TEST(QdqRefusals, CodesByAScaleOfTheirOwnAreAccepted) {
  QuantizedModel model = quantize(small_net(), plain());
  for (auto& [site, params] : model.quantizers)
    if (site.kind == SiteKind::kWeight) {
      params.spec.decoupled = Decoupling::kL2;
      params.code_scale = params.scale;
      params.center.assign(params.scale.size(), 0.0f);
    }
  EXPECT_TRUE(exporter("onnx-qdq").check(model, json::object()).empty());
}

TEST(QdqRefusals, RefusesQuantizersWithoutAPlaceAndFloat16) {
  QuantizedModel model = quantize(small_net(), plain());
  model.quantizers[{12345, SiteKind::kWeight, 0}] = model.quantizers.begin()->second;
  auto refusals = exporter("onnx-qdq").check(model, json::object());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "place of a quantizer");

  GraphBuilder b(*small_net()->graph);
  b.tensor("conv1.weight", DataType::kFloat16, Shape{4, 1, 3, 3});
  QuantizedModel half = quantize(small_net(), plain());
  half.model = std::make_shared<const Model>(Model{*b.build(), half.model->weights, ""});
  refusals = exporter("onnx-qdq").check(half, json::object());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "element type");
  EXPECT_EQ(refusals[0].got, type_name(DataType::kFloat16));
}

}  // namespace
}  // namespace quanvas
