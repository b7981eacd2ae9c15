// What the repairs of packed linear layers put where a layer's sizes do not fit: nothing is left float that the file could
// hold, nothing is promised that it cannot, and one step is enough.
#include "core/report/target_lens.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class PackedMendTest : public WeightFileTest {
 protected:
  // The layers' quantizers after one step of the repair; those that are gone are float.
  static QuantizedModel mended(const std::string& target, const ModelPtr& net, const QuantizedModel& model) {
    std::map<Site, std::optional<QuantSpec>> changes;
    for (const Refusal& r : exporter(target).check(model, options(target, {}))) {
      EXPECT_TRUE(can_mend(r)) << r.text();
      if (r.site) changes.emplace(*r.site, r.fix);
    }
    QuantizedModel out;
    out.model = net;
    for (const auto& [site, params] : model.quantizers) {
      const auto change = changes.find(site);
      const std::optional<QuantSpec> spec = change == changes.end() ? params.spec : change->second;
      if (!spec) continue;
      std::set<std::string> others;
      for (const Node& n : net->graph->nodes())
        if (n.id != site.node) others.insert(n.name);
      for (const auto& [there, p] : linear_net::quantize(net, *spec, {}, others).quantizers)
        if (there == site) out.quantizers[site] = p;
    }
    return out;
  }
  // "4/16" for groups of 16 (at most the inputs), "8/-" for channels, "float".
  static std::string text(const QuantizedModel& model, const std::string& node) {
    const auto it = model.quantizers.find({model.model->graph->find(node)->id, SiteKind::kWeight, 0});
    if (it == model.quantizers.end()) return "float";
    const QuantSpec& s = it->second.spec;
    return std::to_string(s.bits) + "/" + (s.granularity == kGroup ? std::to_string(s.group_size) : "-");
  }
};

struct Case {
  const char* target;
  Sizes sizes;
  QuantSpec spec;
  const char* up;    // in -> hidden
  const char* down;  // hidden -> in
  const char* head;  // in -> out
};

TEST_F(PackedMendTest, LayersGetTheNearestQuantizerThatFitsThem) {
  const QuantSpec g32 = ints(4, true, kGroup, 32), g128 = ints(4, true, kGroup, 128);
  const Case cases[] = {
      // LeNet-5's: 400 inputs, 120, 84 and 10 outputs.
      {"gptq", {400, 120, 84}, g32, "4/16", "4/-", "8/16"},
      {"gptq", {120, 84, 10}, g32, "8/-", "8/-", "float"},
      {"gptq", {400, 120, 120}, half(g128), "4/16", "4/128", "4/16"},
      // Feed-forward layers of 172.
      {"gptq", {64, 172, 512}, g32, "8/32", "8/-", "4/32"},
      {"gptq", {64, 172, 512}, ints(8, true, kGroup, 32), "8/32", "8/-", "8/32"},
      {"gptq", {64, 96, 32}, ints(2, true, kGroup, 128), "2/128", "2/128", "2/128"},
      {"gptq", {96, 64, 40}, ints(3, true, kChannel), "3/-", "3/-", "4/-"},
      {"gptq", {64, 90, 32}, g32, "float", "float", "4/32"},
      // One group size for the file.
      {"awq", {400, 120, 84}, g32, "4/-", "4/-", "float"},
      {"awq", {400, 84, 120}, g32, "float", "4/-", "4/-"},
      {"awq", {64, 172, 512}, g32, "float", "4/-", "4/-"},
      {"awq", {80, 48, 16}, g32, "4/16", "4/16", "4/16"},
      {"awq", {64, 96, 32}, g128, "4/32", "4/32", "4/32"},
      {"awq", {64, 96, 30}, ints(8, true, kChannel), "4/-", "4/-", "float"},
      {"compressed-tensors", {400, 120, 84}, g32, "4/16", "4/-", "4/16"},
      {"compressed-tensors", {64, 172, 10}, g32, "4/32", "4/-", "4/32"},
      {"compressed-tensors", {64, 96, 10}, g128, "4/128", "4/128", "4/128"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.target) + " " + std::to_string(c.sizes.in) + ", " + std::to_string(c.sizes.hidden) + ", " +
                 std::to_string(c.sizes.out));
    const ModelPtr net = linear_net::net(c.sizes);
    const QuantizedModel after = mended(c.target, net, linear_net::quantize(net, c.spec));
    EXPECT_EQ(text(after, "/model/up/MatMul"), c.up);
    EXPECT_EQ(text(after, "/model/down/Gemm"), c.down);
    EXPECT_EQ(text(after, "/lm_head/MatMul"), c.head);
    ASSERT_NO_FATAL_FAILURE(write(c.target, after));
    EXPECT_TRUE(all_equal(audit(c.target, after))) << text_of(audit(c.target, after));
    expect_reopens(after);
  }
}

// Widths and groups by layer stand under "dynamic"; whoever does not look there reads garbage, and so does the audit then.
TEST_F(PackedMendTest, GptqTellsSettingsByLayer) {
  const ModelPtr net = linear_net::net({64, 172, 512});
  const QuantizedModel model = mended("gptq", net, linear_net::quantize(net, ints(4, true, kGroup, 32)));
  ASSERT_NO_FATAL_FAILURE(write("gptq", model));
  json config = json::parse(*read_file(path("config.json")));
  json& q = config["quantization_config"];
  EXPECT_EQ(q["desc_act"], false);
  ASSERT_EQ(q["dynamic"].size(), 2u);
  const json base = {{"bits", q["bits"]}, {"group_size", q["group_size"]}, {"sym", q["sym"]}};
  const auto of = [&](const std::string& module) {
    json out = base;
    for (const auto& [pattern, changes] : q["dynamic"].items())
      if (pattern == "+:^" + module + "$") out.update(changes);
    return out;
  };
  EXPECT_EQ(of("model\\.up"), (json{{"bits", 8}, {"group_size", 32}, {"sym", true}}));
  EXPECT_EQ(of("model\\.down"), (json{{"bits", 8}, {"group_size", -1}, {"sym", true}}));
  EXPECT_EQ(of("lm_head"), (json{{"bits", 4}, {"group_size", 32}, {"sym", true}}));
  const json good = config;
  for (const auto& [what, spoil] : std::vector<std::pair<const char*, std::function<void(json&)>>>{
           {"no dynamic", [](json& c) { c.erase("dynamic"); }},
           {"another width", [](json& c) { c["dynamic"].begin().value()["bits"] = 2; }},
           {"another group", [](json& c) { c["group_size"] = 16; }},
           {"another sign", [](json& c) { c["sym"] = false; }},
           {"another order", [](json& c) { c["desc_act"] = true; }}}) {
    SCOPED_TRACE(what);
    json bad = good;
    spoil(bad["quantization_config"]);
    overwrite(bad.dump(), "config.json");
    EXPECT_FALSE(all_equal(audit("gptq", model))) << text_of(audit("gptq", model));
  }
  overwrite(good.dump(), "config.json");
  EXPECT_TRUE(all_equal(audit("gptq", model)));
}

TEST_F(PackedMendTest, SuggestionsSayWhatIsLeft) {
  const auto said = [&](const std::string& target, const Sizes& sizes, const std::string& rule) {
    std::string out;
    for (const Refusal& r : exporter(target).check(linear_net::quantize(linear_net::net(sizes), half(ints(4, true, kGroup, 32))),
                                                   options(target, {})))
      if (r.rule == rule) out += r.layer + ": " + r.got + " | " + r.allowed + " | " + r.suggestion + "\n";
    return out;
  };
  EXPECT_NE(said("gptq", {64, 172, 512}, "size").find("Use 8 bits"), std::string::npos);
  EXPECT_NE(said("gptq", {64, 90, 512}, "size").find("no width of this target"), std::string::npos);
  EXPECT_NE(said("awq", {64, 172, 512}, "size").find("no other width"), std::string::npos);
  EXPECT_NE(said("awq", {64, 172, 512}, "one setting for all layers").find("a scale for each output, which all layers"),
            std::string::npos);
}

}  // namespace
}  // namespace quanvas
