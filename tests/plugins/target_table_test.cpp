// Tables of targets made by hand: each field of a row, what must not be float, numbers beyond declarations, rows
// that contradict themselves; and declarations alone against the whole check, for every target.
#include <functional>
#include <random>
#include <set>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/plugins/export_fit.h"

namespace quanvas {
namespace {

using namespace export_fit;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// Takes everything at all sites.
TargetRow open_row(const char* form = "anything") {
  TargetRow row;
  row.form = form;
  row.sites = {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput, SiteKind::kInternal};
  row.formats.clear();
  row.least_bits = 1;
  row.most_bits = 32;
  row.narrow.reset();
  row.zero_points.clear();
  row.zero_point_inside.reset();
  row.granularities.clear();
  row.roundings.clear();
  row.dynamic.reset();
  row.truncation = true;
  return row;
}

TargetTable of(std::vector<TargetRow> rows) {
  TargetTable table;
  table.rows = std::move(rows);
  return table;
}

struct FieldCase {
  const char* rule;
  SiteKind site;
  std::function<void(TargetRow&)> limit;
  std::function<void(QuantSpec&)> spec;
  std::function<bool(const QuantSpec&)> mended;
  OwnAxis own = {};
};

std::vector<FieldCase> field_cases() {
  using S = QuantSpec;
  using K = SiteKind;
  const auto zero = [](ZeroPointType type, bool inside = false) {
    return [=](S& s) {
      s.zero_point = type, s.zero_point_inside = inside,
      s.statistic = type == ZeroPointType::kNone ? Statistic::kAbsMax : Statistic::kMinMax;
    };
  };
  const auto groups = [](int size) {
    return [=](S& s) { s.granularity = Granularity::kGroup, s.group_size = size; };
  };
  const auto channel = [](int axis) { return [=](S& s) { s.granularity = Granularity::kChannel, s.axis = axis; }; };
  return {
      {"number format", K::kWeight, [](TargetRow& r) { r.formats = {"int"}; }, [](S& s) { s.format = "ternary"; },
       [](const S& s) { return s.format == "int"; }},
      {"number format", K::kWeight,
       [](TargetRow& r) {
         r.formats = {"e4m3fn", "e5m2"};
       },
       [](S&) {}, [](const S& s) { return format_name(s) == "e4m3fn"; }},
      {"bit width", K::kWeight, [](TargetRow& r) { r.most_bits = 8; }, [](S& s) { s.bits = 16; },
       [](const S& s) { return s.bits == 8; }},
      {"bit width", K::kInput, [](TargetRow& r) { r.least_bits = 4; }, [](S& s) { s.bits = 2; },
       [](const S& s) { return s.bits == 4; }},
      {"sign", K::kWeight, [](TargetRow& r) { r.is_signed = true; }, [](S& s) { s.is_signed = false; },
       [](const S& s) { return s.is_signed; }},
      {"sign", K::kInput, [](TargetRow& r) { r.is_signed = false; }, [](S&) {},
       [](const S& s) { return !s.is_signed; }},
      {"range of codes", K::kWeight, [](TargetRow& r) { r.narrow = false; }, [](S& s) { s.narrow = true; },
       [](const S& s) { return !s.narrow; }},
      {"range of codes", K::kWeight, [](TargetRow& r) { r.narrow = true; }, [](S&) {},
       [](const S& s) { return s.narrow; }},
      {"zero point", K::kWeight, [](TargetRow& r) { r.zero_points = {ZeroPointType::kNone}; },
       zero(ZeroPointType::kInteger), [](const S& s) { return s.zero_point == ZeroPointType::kNone; }},
      {"place of the zero point", K::kInput, [](TargetRow& r) { r.zero_point_inside = false; },
       zero(ZeroPointType::kInteger, true),
       [](const S& s) { return !s.zero_point_inside && s.zero_point == ZeroPointType::kInteger; }},
      {"granularity", K::kWeight, [](TargetRow& r) { r.granularities = {Granularity::kTensor}; }, channel(0),
       [](const S& s) { return s.granularity == Granularity::kTensor; }},
      {"granularity", K::kWeight,
       [](TargetRow& r) {
         r.granularities = {Granularity::kChannel, Granularity::kTensor};
       },
       groups(32), [](const S& s) { return s.granularity == Granularity::kChannel; }},
      {"group size", K::kWeight,
       [](TargetRow& r) {
         r.group_sizes = {32, 64};
       },
       groups(48), [](const S& s) { return s.group_size == 32; }},
      {"group size", K::kWeight,
       [](TargetRow& r) {
         r.group_sizes = {32, 64};
       },
       groups(16), [](const S& s) { return s.group_size == 32; }},
      {"group size", K::kWeight, [](TargetRow& r) { r.group_multiple = 16; }, groups(40),
       [](const S& s) { return s.group_size == 32; }},
      {"axis of scales",
       K::kWeight,
       [](TargetRow& r) { r.axes = {kOwnAxis}; },
       channel(1),
       [](const S& s) { return !s.axis; },
       {0, 2}},
      {"axis of scales",
       K::kWeight,
       [](TargetRow& r) { r.axes = {kOwnAxis}; },
       channel(-1),
       [](const S& s) { return !s.axis; },
       {0, 2}},
      {"axis of scales",
       K::kWeight,
       [](TargetRow& r) { r.axes = {1}; },
       channel(2),
       [](const S& s) { return !s.axis; },
       {0, 4}},
      {"axis of scales",
       K::kWeight,
       [](TargetRow& r) { r.axes = {kOwnAxis}; },
       channel(0),
       [](const S& s) { return !s.axis; },
       {std::nullopt, 2}},
      {"rounding", K::kInput, [](TargetRow& r) { r.roundings = {Rounding::kHalfEven}; },
       [](S& s) { s.rounding = Rounding::kFloor; }, [](const S& s) { return s.rounding == Rounding::kHalfEven; }},
      {"scale type", K::kWeight, [](TargetRow& r) { r.scales = {ScaleType::kPowerOfTwo}; }, [](S&) {},
       [](const S& s) { return s.scale == ScaleType::kPowerOfTwo; }},
      {"scale source", K::kInput, [](TargetRow& r) { r.dynamic = false; },
       [](S& s) { s.source = ScaleSource::kDynamic; },
       [](const S& s) { return s.source == ScaleSource::kStatistics; }},
      {"scale source", K::kInput, [](TargetRow& r) { r.dynamic = true; }, [](S&) {},
       [](const S& s) { return s.source == ScaleSource::kDynamic; }},
      {"scale of a bias", K::kBias, [](TargetRow& r) { r.accumulator = true; }, [](S& s) { s.bits = 32; },
       [](const S& s) { return s.scale_from_accumulator; }},
      {"scale of a bias", K::kBias, [](TargetRow& r) { r.accumulator = false; },
       [](S& s) { s.bits = 32, s.scale_from_accumulator = true; },
       [](const S& s) { return !s.scale_from_accumulator; }},
      {"truncation", K::kOutput, [](TargetRow& r) { r.truncation = false; },
       [](S& s) { s.truncation = Truncation::kMsb; }, [](const S& s) { return s.truncation == Truncation::kNone; }},
      {"two scales", K::kWeight, [](TargetRow& r) { r.decoupled = false; },
       [](S& s) { s.granularity = Granularity::kChannel, s.decoupled = Decoupling::kL1; },
       [](const S& s) { return s.decoupled == Decoupling::kNone; }},
  };
}

TEST(TargetTable, EachFieldOfARowRefusesByItsRuleAndMends) {
  for (const FieldCase& c : field_cases()) {
    TargetRow row = open_row();
    QuantSpec spec;
    c.spec(spec);
    SCOPED_TRACE(std::string(c.rule) + ": " + describe(spec));
    ASSERT_EQ(check(spec, c.site), "") << "legal as such";
    EXPECT_EQ(judge(of({row}), "Conv", c.site, spec, c.own).row->form, "anything") << "without the limit";
    c.limit(row);
    const TargetTable table = of({row});
    const TargetVerdict v = judge(table, "Conv", c.site, spec, c.own);
    EXPECT_EQ(v.row, nullptr);
    ASSERT_EQ(v.refusals.size(), 1u) << "one field, one reason";
    EXPECT_EQ(v.refusals[0].rule, c.rule);
    EXPECT_FALSE(v.refusals[0].got.empty());
    EXPECT_FALSE(v.refusals[0].allowed.empty());
    EXPECT_NE(v.refusals[0].got, v.refusals[0].allowed);
    EXPECT_FALSE(v.refusals[0].suggestion.empty());
    ASSERT_TRUE(v.fix) << "the table has a form for it";
    EXPECT_TRUE(c.mended(*v.fix)) << describe(*v.fix);
    EXPECT_EQ(check(*v.fix, c.site), "");
    EXPECT_TRUE(judge(table, "Conv", c.site, *v.fix, c.own).row);
    EXPECT_THAT(problems(table), IsEmpty());
  }
}

TEST(TargetTable, TheOwnAxisIsLegalInWhateverWords) {
  TargetRow row = open_row();
  row.axes = {kOwnAxis};
  const TargetTable own = of({row});
  row.axes = {2};
  const TargetTable more = of({row});
  QuantSpec s;
  s.granularity = Granularity::kChannel;
  struct Case {
    std::optional<int> axis;
    OwnAxis own;
    bool is_own, is_more;
  };
  for (const Case& c : {Case{std::nullopt, {}, true, true}, Case{0, {0, 0}, true, true},
                        Case{0, {0, 4}, true, true}, Case{-4, {0, 4}, true, true}, Case{3, {-1, 4}, true, true},
                        Case{1, {0, 4}, false, false}, Case{2, {0, 4}, false, true}, Case{-2, {0, 4}, false, true},
                        Case{-2, {0, 0}, false, false}, Case{0, {std::nullopt, 4}, false, false}}) {
    s.axis = c.axis;
    const std::string what =
        "axis " + (c.axis ? std::to_string(*c.axis) : "unset") + " of rank " + std::to_string(c.own.rank);
    EXPECT_EQ(judge(own, "Conv", SiteKind::kWeight, s, c.own).row != nullptr, c.is_own) << what;
    EXPECT_EQ(judge(more, "Conv", SiteKind::kWeight, s, c.own).row != nullptr, c.is_more) << what;
  }
  s.granularity = Granularity::kTensor;
  s.axis = 1;
  EXPECT_TRUE(judge(own, "Conv", SiteKind::kWeight, s, {0, 4}).row) << "one scale lies on no axis";
}

// Steps of the accumulator are for wide biases: narrow ones get steps of their own, and the other way round.
TEST(TargetTable, MendedBiasesHaveTheBitsThatTheirStepsNeed) {
  TargetRow narrow = open_row(), wide = open_row();
  narrow.least_bits = narrow.most_bits = 8;
  narrow.scales = {ScaleType::kPowerOfTwo};
  wide.accumulator = true;
  QuantSpec sums = export_net::spec(32, true, false, ZeroPointType::kNone, Granularity::kTensor), own = sums;
  sums.scale_from_accumulator = true;
  own.bits = 8;
  const auto to_narrow = judge(of({narrow}), "Conv", SiteKind::kBias, sums).fix;
  ASSERT_TRUE(to_narrow);
  EXPECT_EQ(to_narrow->bits, 8);
  EXPECT_FALSE(to_narrow->scale_from_accumulator);
  EXPECT_EQ(to_narrow->scale, ScaleType::kPowerOfTwo);
  const auto to_wide = judge(of({wide}), "Conv", SiteKind::kBias, own).fix;
  ASSERT_TRUE(to_wide);
  EXPECT_EQ(to_wide->bits, 32);
  EXPECT_TRUE(to_wide->scale_from_accumulator);
}

TEST(TargetTable, TheNearestRowAnswersAndOperatorsAndSitesCount) {
  TargetRow conv = open_row("conv"), gemm = open_row("gemm"), wide = open_row("wide");
  conv.sites = gemm.sites = wide.sites = {SiteKind::kWeight};
  conv.ops = {"Conv"};
  conv.most_bits = 4;
  gemm.ops = {"Gemm"};
  wide.ops = {"Conv"};
  wide.least_bits = wide.most_bits = 16;
  wide.formats = {"int"};
  wide.is_signed = true;
  wide.zero_points = {ZeroPointType::kNone};
  const TargetTable table = of({conv, gemm, wide});
  QuantSpec s;
  EXPECT_TRUE(judge(table, "Gemm", SiteKind::kWeight, s).row);
  TargetVerdict v = judge(table, "Conv", SiteKind::kWeight, s);  // 8 bit: one change to either row
  ASSERT_EQ(v.refusals.size(), 1u);
  EXPECT_EQ(v.refusals[0].allowed, "1 to 4 bit or 16 bit");
  ASSERT_TRUE(v.fix);
  EXPECT_EQ(v.fix->bits, 4);
  s.is_signed = false;
  v = judge(table, "Conv", SiteKind::kWeight, s);
  ASSERT_EQ(v.refusals.size(), 1u) << "the row that asks for least";
  for (const auto& [op, site] : {std::pair("MatMul", SiteKind::kWeight), std::pair("Conv", SiteKind::kInput)}) {
    v = judge(table, op, site, s);
    ASSERT_EQ(v.refusals.size(), 1u);
    EXPECT_EQ(v.refusals[0].rule, "place of a quantizer");
    EXPECT_THAT(v.refusals[0].allowed, HasSubstr("weight of Conv"));
    EXPECT_FALSE(v.fix);
  }
}

TEST(TargetTable, RowsThatContradictThemselvesAreNamedAndNeverCrash) {
  using Change = std::function<void(TargetTable&)>;
  const std::vector<std::pair<const char*, Change>> cases = {
      {"has no name", [](TargetTable& t) { t.rows[0].form.clear(); }},
      {"is there twice", [](TargetTable& t) { t.rows.push_back(t.rows[0]); }},
      {"is for no site", [](TargetTable& t) { t.rows[0].sites.clear(); }},
      {"integers of 9 to 4 bit", [](TargetTable& t) { t.rows[0].least_bits = 9, t.rows[0].most_bits = 4; }},
      {"integers of 0 to 32 bit", [](TargetTable& t) { t.rows[0].least_bits = 0; }},
      {"integers of 1 to 64 bit", [](TargetTable& t) { t.rows[0].most_bits = 64; }},
      {"'float5', which is no number format", [](TargetTable& t) { t.rows[0].formats = {"float5"}; }},
      {"limits the size of groups and takes none",
       [](TargetTable& t) { t.rows[0].granularities = {Granularity::kTensor}, t.rows[0].group_sizes = {32}; }},
      {"groups of 0", [](TargetTable& t) { t.rows[0].group_sizes = {0}; }},
      {"no multiple of 16", [](TargetTable& t) { t.rows[0].group_sizes = {24}, t.rows[0].group_multiple = 16; }},
      {"multiples of -4", [](TargetTable& t) { t.rows[0].group_multiple = -4; }},
      {"axis -2", [](TargetTable& t) { t.rows[0].axes = {-2}; }},
      {"has no reason",
       [](TargetTable& t) {
         t.needs = {{{}, SiteKind::kInput, "", {}}};
       }},
      {"has an illegal fix",
       [](TargetTable& t) {
         t.needs = {{{}, SiteKind::kInput, "codes", {}}}, t.needs[0].fix.bits = 77;
       }},
      {"has a fix that no row takes",
       [](TargetTable& t) {
         t.rows[0].most_bits = 4, t.needs = {{{"Gemm"}, SiteKind::kInput, "codes", {}}};
       }},
  };
  EXPECT_THAT(problems(of({open_row()})), IsEmpty());
  QuantSpec ternary, grouped, axis;
  ternary.format = "ternary";
  grouped.granularity = Granularity::kGroup;
  axis.granularity = Granularity::kChannel;
  axis.axis = 1;
  for (const auto& [what, change] : cases) {
    TargetTable table = of({open_row()});
    change(table);
    const auto said = problems(table);
    EXPECT_THAT(said, testing::Contains(HasSubstr(what)));
    // Whatever the table says, an answer is legal or none.
    for (const QuantSpec& s : {QuantSpec{}, ternary, grouped, axis})
      for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kInput}) {
        const TargetVerdict v = judge(table, "Conv", kind, s, {0, 4});
        EXPECT_EQ(v.row == nullptr, !v.refusals.empty()) << what;
        if (v.fix) EXPECT_EQ(check(*v.fix, kind), "") << what;
      }
    (void)table_json(table);
  }
}

TEST(TargetTable, NoTargetContradictsItself) {
  for (const Exporter* e : Registry<Exporter>::instance().all()) {
    if (!e->unavailable().empty()) continue;
    const Schema schema = e->schema();
    const json defaults = *schema.complete(json::object(), "options");
    EXPECT_THAT(problems(e->table(defaults)), IsEmpty()) << e->info().id;
    for (const Field& field : schema.fields)
      for (const Choice& choice : field.choices) {
        json options = defaults;
        options[field.key] = choice.value;
        EXPECT_THAT(problems(e->table(options)), IsEmpty()) << e->info().id << " " << options.dump();
      }
  }
}

// --- networks ---

QuantSpec plain(int bits = 8) {
  QuantSpec s;
  s.bits = bits;
  return s;
}

class TargetNetwork : public ::testing::Test {
 protected:
  void SetUp() override {
    network_.model = export_net::small_net();
    layers_ = find_layers(graph());
  }
  const Graph& graph() const { return *network_.model->graph; }
  Site site(const char* node, SiteKind kind, int operand = 0) const {
    return {graph().find(node)->id, kind, operand};
  }
  void quantize(const Site& at, const QuantSpec& s) {
    const auto p = quantizer(network_, *find_layer(layers_, at.node), at, s);
    ASSERT_TRUE(p);
    network_.quantizers[at] = *p;
  }
  static std::vector<std::string> said(const std::vector<Refusal>& refusals) {
    std::vector<std::string> out;
    for (const Refusal& r : refusals) out.push_back(r.layer + " " + r.quantizer + ": " + r.rule);
    return out;
  }
  std::vector<std::string> asked(const TargetTable& table) const { return said(check_quantizers(network_, table)); }

  QuantizedModel network_;
  std::vector<Layer> layers_;
};

TEST_F(TargetNetwork, NeedsAreMissedWhereTheLayerIsQuantizedOrCannotBeFloat) {
  TargetTable table = of({open_row()});
  TargetNeed input, weight;
  input = {{"Conv"}, SiteKind::kInput, "codes are convolved", plain(7)};
  weight = {{}, SiteKind::kWeight, "weights are stored as codes", plain(5)};
  table.needs = {input, weight};
  EXPECT_THAT(asked(table), IsEmpty()) << "float layers are written as they are";
  quantize(site("conv1", SiteKind::kWeight), plain());
  const auto refusals = check_quantizers(network_, table);
  ASSERT_THAT(said(refusals), ElementsAre("conv1 input: missing quantizer"));
  EXPECT_EQ(refusals[0].fix, plain(7));
  EXPECT_EQ(refusals[0].allowed, "codes are convolved");
  EXPECT_FALSE(refusals[0].float_fixes);
  EXPECT_EQ(refusals[0].site, site("conv1", SiteKind::kInput));
  quantize(site("conv1", SiteKind::kInput), plain());
  EXPECT_THAT(asked(table), IsEmpty());
  quantize(site("fc", SiteKind::kInput), plain());
  EXPECT_THAT(asked(table), ElementsAre("fc weight: missing quantizer"))
      << "the need of a convolution's input is not the Gemm's";
  // What must be there has no float as its repair.
  EXPECT_FALSE(may_be_float(table, "Conv", SiteKind::kInput));
  EXPECT_TRUE(may_be_float(table, "Gemm", SiteKind::kInput));
}

TEST_F(TargetNetwork, LayersWithoutAFloatFormAreNamed) {
  TargetTable table = of({open_row()});
  table.needs = {{{"Conv"}, SiteKind::kWeight, "codes", plain()}};
  table.float_ops = {"MaxPool", "Relu", "Add"};
  // The needs say what a Conv lacks; of a Gemm nothing does.
  EXPECT_THAT(asked(table), UnorderedElementsAre("conv1 weight: missing quantizer",
                                                 "conv2 weight: missing quantizer", "fc : layer"));
  for (const Refusal& r : check_quantizers(network_, table)) {
    if (r.rule != kFloatLayer) continue;
    EXPECT_FALSE(r.float_fixes || r.fix);
    EXPECT_THAT(r.allowed, HasSubstr("Gemm"));
  }
  table.float_ops.clear();
  EXPECT_THAT(asked(table), IsEmpty());
  table.allows_float = false;
  std::vector<std::string> every = {"conv1 weight: missing quantizer", "conv2 weight: missing quantizer"};
  for (const Layer& layer : layers_)
    if (const Node& node = *graph().find(layer.node); node.op != "Conv" && !layer.sites().empty())
      every.push_back(node.name + " : layer");
  EXPECT_THAT(asked(table), testing::UnorderedElementsAreArray(every));
  EXPECT_FALSE(may_be_float(table, "Gemm", SiteKind::kInput));
  quantize(site("fc", SiteKind::kInput), plain());
  std::erase(every, "fc : layer");
  EXPECT_THAT(asked(table), testing::UnorderedElementsAreArray(every));
}

TEST_F(TargetNetwork, NumbersBeyondDeclarations) {
  TargetTable table = of({open_row()});
  const Site weight = site("fc", SiteKind::kWeight);
  quantize(weight, plain());
  quant::QuantParams& p = network_.quantizers.at(weight);
  const auto rules = [&] { return asked(table); };
  p.scale = {0.25f};
  EXPECT_THAT(rules(), IsEmpty());
  for (const float wrong : {0.0f, INFINITY, std::nanf("")}) {
    p.scale = {wrong};
    EXPECT_THAT(rules(), ElementsAre("fc weight: scale")) << wrong;
  }
  p.scale = {-0.25f};
  const auto negative = check_quantizers(network_, table);
  ASSERT_THAT(said(negative), ElementsAre("fc weight: scale"));
  table.negative_scales = true;
  EXPECT_THAT(rules(), IsEmpty());
  p.scale = {0.1f};
  EXPECT_THAT(rules(), IsEmpty());
  table.half_scales = true;
  const auto half = check_quantizers(network_, table);
  ASSERT_THAT(said(half), ElementsAre("fc weight: scale"));
  ASSERT_TRUE(half[0].fix);
  EXPECT_EQ(half[0].fix->scale, ScaleType::kFloat16);
  p.scale = {half_to_float(float_to_half(0.1f))};
  EXPECT_THAT(rules(), IsEmpty());
  // Where nothing holds the quantizer, its scale is not asked for.
  p.scale = {0.1f};
  table.rows[0].most_bits = 4;
  EXPECT_THAT(rules(), ElementsAre("fc weight: bit width"));
}

// Calibration writes the axis into the declaration: that changes nothing of what a target takes.
TEST_F(TargetNetwork, ScalesOnAnotherAxisAreRefusedBeforeAndAfterCalibration) {
  TargetRow row = open_row();
  row.axes = {kOwnAxis};
  TargetTable table = of({row});
  QuantSpec own = plain(), other = plain();
  own.granularity = other.granularity = Granularity::kChannel;
  other.axis = 1;
  const Site weight = site("conv1", SiteKind::kWeight);
  for (const bool is_own : {true, false}) {
    const QuantSpec& spec = is_own ? own : other;
    quantize(weight, spec);
    ASSERT_EQ(network_.quantizers.at(weight).spec.axis, is_own ? 0 : 1) << "resolved";
    Plan plan;
    plan.sites.push_back({weight, spec, 0, "", ""});
    const auto numbers = check_quantizers(network_, table),
               declared = check_declarations(graph(), layers_, plan, table);
    EXPECT_EQ(said(numbers), said(declared));
    if (is_own) {
      EXPECT_THAT(numbers, IsEmpty());
      continue;
    }
    ASSERT_THAT(said(numbers), ElementsAre("conv1 weight: axis of scales"));
    EXPECT_EQ(numbers[0].got, "axis 1");
    ASSERT_TRUE(numbers[0].fix);
    EXPECT_FALSE(numbers[0].fix->axis);
    EXPECT_EQ(numbers[0].fix, declared[0].fix);
  }
  // Without a fix where the own axis is refused for another reason.
  table.rows[0].granularities = {Granularity::kGroup};
  table.rows[0].group_sizes = {7};
  table.rows[0].formats = {"e2m1"};
  const auto refusals = check_quantizers(network_, table);
  EXPECT_THAT(said(refusals), testing::IsSupersetOf({"conv1 weight: axis of scales", "conv1 weight: granularity"}));
}

TEST_F(TargetNetwork, InsideOfOperatorsNeedsARowForIt) {
  TargetRow row = open_row();
  row.sites = {SiteKind::kWeight, SiteKind::kInput};
  Plan plan;
  plan.sites.push_back({{graph().find("conv1")->id, SiteKind::kInternal, 0}, plain(), 0, "", ""});
  EXPECT_THAT(check_declarations(graph(), layers_, plan, of({row})), IsEmpty())
      << "a site that no layer has is no quantizer";
}

// --- declarations against the whole check, for all targets ---

const std::vector<QuantSpec>& some_specs(SiteKind kind) {
  static std::map<SiteKind, std::vector<QuantSpec>> all;
  std::vector<QuantSpec>& out = all[kind];
  if (!out.empty()) return out;
  for (const int bits : {2, 4, 8, 16})
    for (const bool is_signed : {true, false})
      for (const ZeroPointType zero : {ZeroPointType::kNone, ZeroPointType::kInteger, ZeroPointType::kFloat})
        for (const Granularity g : {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup})
          for (const Rounding rounding : {Rounding::kHalfEven, Rounding::kHalfUp})
            for (const ScaleType scale : {ScaleType::kFloat32, ScaleType::kPowerOfTwo, ScaleType::kFloat16})
              for (const int axis : {-9, 0, 1}) {
                QuantSpec s;
                s.bits = bits;
                s.is_signed = is_signed;
                s.zero_point = zero;
                s.zero_point_inside = zero == ZeroPointType::kFloat;
                s.statistic = zero == ZeroPointType::kNone ? Statistic::kAbsMax : Statistic::kMinMax;
                s.granularity = g;
                s.rounding = rounding;
                s.scale = scale;
                if (axis >= 0 && g != Granularity::kTensor) s.axis = axis;
                if (check(s, kind).empty()) out.push_back(s);
              }
  return out;
}

TEST(TargetDeclarations, ArePartOfTheWholeAnswerAndNumbersAddOnlyNumbers) {
  const std::set<std::string> numeric = {"scale", "zero point", "axis of scales"};
  std::mt19937 random(7);
  std::size_t refused = 0, legal = 0;
  for (const ModelPtr& model : {export_net::small_net(), linear_net()}) {
    const Graph& graph = *model->graph;
    const std::vector<Layer> layers = find_layers(graph);
    for (int round = 0; round < 12; ++round) {
      QuantizedModel network;
      network.model = model;
      Plan plan;
      for (const Layer& layer : layers)
        for (const Site& site : layer.sites()) {
          SitePlan planned{site, {}, -1, "", ""};
          const auto& specs = some_specs(site.kind);
          if (random() % 3) {
            const QuantSpec& s = specs[random() % specs.size()];
            if (const auto p = quantizer(network, layer, site, s)) {
              network.quantizers[site] = *p;
              planned.spec = s;
            }
          }
          plan.sites.push_back(planned);
        }
      for (const Exporter* e : Registry<Exporter>::instance().all()) {
        if (!e->unavailable().empty()) continue;
        const json options = *e->schema().complete(json::object(), "options");
        const TargetTable table = e->table(options);
        SCOPED_TRACE(e->info().id);
        const auto declared = check_declarations(graph, layers, plan, table);
        if (table.rows.empty()) {
          EXPECT_THAT(declared, IsEmpty());
          continue;
        }
        const auto whole = check_quantizers(network, table);
        const auto has = [](const std::vector<Refusal>& list, const Refusal& r) {
          return std::any_of(list.begin(), list.end(), [&](const Refusal& o) {
            return o.layer == r.layer && o.quantizer == r.quantizer && o.rule == r.rule && o.got == r.got &&
                   o.allowed == r.allowed && o.site == r.site && o.fix.has_value() == r.fix.has_value() &&
                   o.float_fixes == r.float_fixes;
          });
        };
        for (const Refusal& r : declared) EXPECT_TRUE(has(whole, r)) << "only declared: " << r.text();
        // Whether whoever reads a result gives it its quantizer only the target knows, and says it with the numbers.
        const auto is_of_result = [](const Refusal& r) { return r.rule == kMissingQuantizer && r.site && r.site->kind == SiteKind::kOutput; };
        for (const Refusal& r : whole)
          if (!has(declared, r)) EXPECT_TRUE(numeric.count(r.rule) || is_of_result(r)) << "only whole: " << r.text();
        (declared.empty() ? legal : refused) += 1;
      }
    }
  }
  EXPECT_GT(refused, 100u);
  EXPECT_GT(legal, 20u);
}

}  // namespace
}  // namespace quanvas
