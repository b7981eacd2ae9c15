// All reference results of Brevitas 0.12.1 (tests/golden/README.md) through the verb "tensor", with presets and
// overrides as a user writes them (tests/golden/specs.json).
//
// Deviations, on purpose ("deviates" in that table; infinities and signs of zero need none):
//   infinity    Brevitas quantizes infinity to NaN even where it saturates; ours becomes the largest value.
//   negative 0  Brevitas gives -0 the pattern of a negative zero where the format has none (FNUZ); ours is 0.
//   negative    Brevitas' unsigned minifloats keep negative values; ours become 0.
//   zero-block  Brevitas' power-of-two scale of a block of zeros is 1e-10 over a power of two, which is none; ours is
//               one. Values and codes are the same.
//   zero-row    Brevitas' decoupled quantizer has the scale 0 for a row of zeros and so gives NaN; ours gives 0.
//   absmax      Brevitas 0.12.1 takes (max - min) / 128 for dynamic symmetric activations; ours is max |x| / 128, as in
//               Brevitas 0.13. The scale and the values are checked against that.
//   interval    Brevitas' percentile interval takes the scale from the percentiles but the zero point from the minimum,
//               which moves the range off the values. Ours takes both from the percentiles; the scale is compared.
//   padding     Brevitas fills the last group with zeros, which its half-quadratic search counts; ours looks at the
//               values alone. The other groups are compared.
#include <cmath>

#include "core/recipe/recipe.h"
#include "tests/app/cli/arrays.h"

namespace quanvas {
namespace {

json table() { return golden("specs"); }

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const auto& [name, row] : table().items()) out.push_back(name);
  return out;
}

std::int64_t ulps(float a, float b) {
  std::int32_t i, j;
  std::memcpy(&i, &a, 4);
  std::memcpy(&j, &b, 4);
  return std::abs(std::int64_t{i} - j);
}

// x / s + z next to a tie: within what 4 units in the last place of s make of it.
bool near_tie(float x, float s, float z) {
  const double v = static_cast<double>(x) / static_cast<double>(s) + static_cast<double>(z);
  return std::fabs(std::fabs(v - std::floor(v)) - 0.5) < 1e-6 + 6e-7 * std::fabs(v);
}

class Golden : public Program, public testing::WithParamInterface<std::string> {
 protected:
  // What Brevitas' layer does before it quantizes.
  static void apply_layer(const json& j, GoldenTensor& t) {
    const std::string layer = j.value("layer", "");
    for (float& v : t.data) {
      if (layer == "QuantReLU") v = std::max(v, 0.0f);
      if (layer == "QuantHardTanh") v = std::clamp(v, -1.5f, 1.5f);
      if (layer == "QuantSigmoid") v = 1.0f / (1.0f + std::exp(-v));
    }
  }
  // Mean of 2 x 2 pixels, the sum counted in steps of `scale`.
  static GoldenTensor pooled(const GoldenTensor& t, float scale) {
    GoldenTensor out = t;
    const std::int64_t h = t.shape[2], w = t.shape[3];
    out.shape[2] = h / 2;
    out.shape[3] = w / 2;
    out.data.clear();
    for (std::int64_t image = 0; image < t.shape[0] * t.shape[1]; ++image)
      for (std::int64_t y = 0; y + 1 < h; y += 2)
        for (std::int64_t x = 0; x + 1 < w; x += 2) {
          const auto at = [&](std::int64_t dy, std::int64_t dx) {
            return t.data[static_cast<std::size_t>((image * h + y + dy) * w + x + dx)];
          };
          out.data.push_back((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) * scale);
        }
    return out;
  }
};

// The elements of a tensor that share a scale of the given shape: 1 where they share it. `group`: length of groups along
// `axis`, which the scale counts in its dimension `axis`; 0: none.
std::size_t scale_of(std::size_t element, const std::vector<std::int64_t>& shape, std::size_t scales, std::int64_t group) {
  if (scales == 1) return 0;
  const auto inner = static_cast<std::size_t>(shape.back());
  if (group > 0) {
    const std::size_t groups = (inner + static_cast<std::size_t>(group) - 1) / static_cast<std::size_t>(group);
    return element / inner * groups + element % inner / static_cast<std::size_t>(group);
  }
  std::size_t rest = 1;
  for (std::size_t d = 1; d < shape.size(); ++d) rest *= static_cast<std::size_t>(shape[d]);
  return element / rest;
}

TEST_P(Golden, ThroughTheVerb) {
  const std::string name = GetParam();
  const json row = table().at(name), file = golden(name);
  const bool bias = name[0] == 'b', trunc = name[0] == 't', activation = name[0] == 'a';
  const json& j = bias ? file.at("quant_bias") : file;
  const std::string tolerance = row.value("tolerance", "exact"), deviates = row.value("deviates", "");
  GoldenTensor x(trunc ? file.at("input_codes") : bias ? file.at("bias") : file.contains("weight") ? file.at("weight") : file.at("input"));
  apply_layer(file, x);

  std::vector<std::string> arguments = {"tensor", "--in", "x.npy", "--out", "y.npy", "--codes", "c.npy", "--scale", "s.npy",
                                        "--zero-point", "z.npy", "--json", "--kind",
                                        bias ? "bias" : trunc ? "trunc" : activation ? "activation" : "weight", "--spec",
                                        row.at("spec").is_string() ? row.at("spec").get<std::string>()
                                                                   : write("spec.json", row.at("spec").dump()).string()};
  const auto give = [&](const char* option, const std::string& prefix, const std::string& path, const std::string& content) {
    write(path, content);
    arguments.insert(arguments.end(), {option, prefix + path});
  };
  std::vector<GoldenTensor> calibration;
  for (const json& sample : file.value("calib", json::array())) calibration.emplace_back(sample);
  if (trunc) {
    const float step = GoldenTensor(file.at("input_scale")).data.at(0) / 4;
    x = pooled(x, step);
    for (GoldenTensor& sample : calibration) sample = pooled(sample, 0.25f);
    give("--input-scale", "", "step.npy", npy("<f4", "()", bytes_of({step})));
    arguments.insert(arguments.end(), {"--input-bits", "10"});
  }
  if (bias && name != "b_int8_internal_pt") {
    give("--input-scale", "", "f.npy", GoldenTensor(file.at("input_scale")).npy());
    give("--weight-scale", "", "g.npy", GoldenTensor(file.at("weight_scale")).npy());
  }
  for (std::size_t i = 0; i < calibration.size(); ++i) {
    apply_layer(file, calibration[i]);
    give("--calib", "", "calib" + std::to_string(i) + ".npy", calibration[i].npy());
  }
  if (file.contains("round_param")) give("--param", "round=", "p.npy", GoldenTensor(file.at("round_param")).npy());
  write("x.npy", x.npy());
  const Answer answer = run(arguments);
  ASSERT_EQ(answer.code, 0) << answer.err;
  const json spec = json::parse(answer.out).at("spec");

  const std::vector<float> scale = read_array(folder_ / "s.npy").floats(), zero = read_array(folder_ / "z.npy").floats();
  const std::vector<float> y = read_array(folder_ / "y.npy").floats();
  const std::vector<std::int32_t> codes = read_array(folder_ / "c.npy").ints();
  const std::vector<float> expected_scale = GoldenTensor(j.at("scale")).data, out = GoldenTensor(j.at("out")).data;
  const std::vector<float> expected_zero = j.contains("zero_point") ? GoldenTensor(j.at("zero_point")).data : std::vector<float>{0};
  ASSERT_EQ(scale.size(), expected_scale.size());
  ASSERT_EQ(y.size(), out.size());
  const std::int64_t group = spec.at("granularity") == "group" ? spec.at("group_size").get<std::int64_t>() : 0;
  const auto index = [&](std::size_t element) { return scale_of(element, x.shape, scale.size(), group); };

  // Per scale: the elements that have it.
  std::vector<float> most(scale.size());
  std::vector<std::int64_t> count(scale.size());
  for (std::size_t e = 0; e < x.data.size(); ++e) {
    most[index(e)] = std::max(most[index(e)], std::fabs(x.data[e]));
    ++count[index(e)];
  }
  if (deviates == "absmax") {
    for (std::size_t i = 0; i < scale.size(); ++i)
      EXPECT_EQ(scale[i], std::max(most[i], 1e-10f) / 128) << "scale " << i;
    for (std::size_t e = 0; e < y.size(); ++e) {
      const float s = scale[index(e)];
      EXPECT_EQ(y[e], std::clamp(std::nearbyint(x.data[e] / s), -128.0f, 127.0f) * s) << e;
    }
    return;
  }
  const std::int64_t most_ulps = tolerance == "exact" ? 0 : 4;
  std::vector<bool> skipped(scale.size());
  for (std::size_t i = 0; i < scale.size(); ++i) {
    if (deviates == "padding" && count[i] < group) {
      skipped[i] = true;
      continue;
    }
    if ((deviates == "zero-block" || deviates == "zero-row") && most[i] == 0) {
      skipped[i] = true;
      EXPECT_TRUE(std::isfinite(scale[i]) && scale[i] > 0) << i;
      continue;
    }
    if (tolerance == "accumulator") EXPECT_NEAR(scale[i] / expected_scale[i], 1, 1e-6) << "scale " << i;
    else EXPECT_LE(ulps(scale[i], expected_scale[i]), most_ulps) << "scale " << i << ": " << scale[i] << ", expected " << expected_scale[i];
    const float z = expected_zero.size() == 1 ? expected_zero[0] : expected_zero[i];
    if (deviates == "interval") EXPECT_NE(zero[i], z) << "no longer a deviation";
    else if (tolerance == "exact" || z == std::nearbyint(z)) EXPECT_EQ(zero[i], z) << "zero point " << i;
    else EXPECT_NEAR(zero[i], z, 4e-6 * std::fabs(z)) << "zero point " << i;
  }
  if (deviates == "interval") return;

  if (tolerance == "accumulator") {
    const std::vector<float> expected = GoldenTensor(j.at("codes")).data, norms = GoldenTensor(j.at("int_l1_norm_per_channel")).data;
    std::vector<double> norm(scale.size()), positive(scale.size()), negative(scale.size());
    for (std::size_t e = 0; e < codes.size(); ++e) {
      EXPECT_NEAR(static_cast<float>(codes[e]), expected[e], 1) << e;
      norm[index(e)] += std::abs(codes[e]);
      (codes[e] > 0 ? positive : negative)[index(e)] += std::abs(codes[e]);
    }
    for (std::size_t i = 0; i < scale.size(); ++i) {
      EXPECT_NEAR(norm[i], norms[i], 1) << i;
      EXPECT_LE(255 * std::max(positive[i], negative[i]), 32767) << "a 16 bit accumulator overflows in channel " << i;
    }
    return;
  }

  const bool minifloat = spec.at("format") == "float";
  std::vector<float> expected;
  if (j.contains("codes")) {
    const GoldenTensor stored(j.at("codes"));
    // In padded groups: [..., groups, group]; ours are not padded.
    const auto line = static_cast<std::size_t>(x.shape.empty() ? 1 : x.shape.back());
    const std::size_t padded = group > 0 ? (line + static_cast<std::size_t>(group) - 1) / static_cast<std::size_t>(group) * static_cast<std::size_t>(group) : line;
    for (std::size_t e = 0; e < codes.size(); ++e) expected.push_back(stored.data.at(e / line * padded + e % line));
  }
  for (std::size_t e = 0; e < y.size(); ++e) {
    const std::size_t i = index(e);
    const float z = zero.size() == 1 ? zero[0] : zero[i];
    if (skipped[i]) {
      EXPECT_TRUE(y[e] == 0 || deviates == "padding") << e;
      continue;
    }
    if (minifloat && std::isinf(x.data[e]) && spec.at("saturate").get<bool>()) {
      EXPECT_TRUE(std::isnan(out[e]) || deviates == "negative") << e << ": no longer a deviation";
      EXPECT_TRUE(std::isfinite(y[e]) && (y[e] != 0 || deviates == "negative")) << e;
      continue;
    }
    if (deviates == "negative" && x.data[e] < 0) {
      EXPECT_EQ(y[e], 0) << e;
      EXPECT_EQ(codes[e], 0) << e;
      continue;
    }
    if (std::isnan(out[e])) {
      EXPECT_TRUE(std::isnan(y[e])) << e;
      continue;
    }
    const bool as_near = tolerance != "exact" && near_tie(x.data[e], scale[i], z);
    if (y[e] != out[e] && !as_near)
      EXPECT_LE(std::fabs(y[e] - out[e]), most_ulps * 1.2e-7 * std::max(std::fabs(out[e]), scale[i] * (1 + std::fabs(z)))) << e << ": " << y[e] << ", expected " << out[e];
    if (expected.empty()) continue;
    if (minifloat && y[e] == 0 && out[e] == 0) continue;  // which zero
    if (!as_near) EXPECT_EQ(static_cast<float>(codes[e]), expected[e]) << e;
    else EXPECT_NEAR(static_cast<float>(codes[e]), expected[e], 1) << e;
  }
}
INSTANTIATE_TEST_SUITE_P(All, Golden, testing::ValuesIn(names()), [](const auto& info) { return info.param; });

TEST(GoldenTable, NamesAllFiles) {
  const json rows = table();
  EXPECT_EQ(rows.size(), 99u);
  std::size_t found = 0;
  for (const auto& entry : fs::directory_iterator(QUANVAS_TEST_DATA "/golden")) {
    const std::string name = entry.path().stem().string();
    if (name.size() < 3 || name[1] != '_') continue;
    EXPECT_TRUE(rows.contains(name)) << name;
    ++found;
  }
  EXPECT_EQ(found, rows.size());
}

}  // namespace
}  // namespace quanvas
