// The verb "tensor": reference results through presets and declarations as a user writes them, and what is refused.
#include <cstring>

#include "tests/app/cli/program.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

struct Array {
  std::string shape;  // as it stands in the header
  std::string bytes;
  std::vector<float> floats() const {
    std::vector<float> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  std::vector<std::int32_t> ints() const {
    std::vector<std::int32_t> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

std::string npy(const std::string& type, const std::string& shape, const std::string& data, const char* fortran = "False") {
  std::string header = "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  return out + header + data;
}

Array read(const fs::path& path) {
  const std::string all = slurp(path);
  const std::size_t length = static_cast<unsigned char>(all.at(8)) | static_cast<unsigned char>(all.at(9)) << 8;
  const std::string header = all.substr(10, length);
  const auto open = header.find('('), close = header.find(')');
  return {header.substr(open, close - open + 1), all.substr(10 + length)};
}

json golden(const std::string& name) { return json::parse(slurp(QUANVAS_TEST_DATA "/golden/" + name + ".json")); }
const json& resolved(const json& j) {
  static const json shared = golden("shared_inputs");
  return j.contains("ref") ? shared.at(j.at("ref").get<std::string>()) : j;
}
std::vector<float> values(const json& j) {
  std::vector<float> out;
  for (const json& v : resolved(j).at("data")) out.push_back(static_cast<float>(*real_from(v)));
  return out;
}
std::string shape_of(const json& j) {
  std::string text = "(";
  for (const json& d : j.contains("reshape") ? j.at("reshape") : resolved(j).at("shape")) text += std::to_string(d.get<int>()) + ", ";
  return text + ")";
}
std::string bytes_of(const std::vector<float>& v) { return {reinterpret_cast<const char*>(v.data()), v.size() * 4}; }

struct Row {
  const char* file;
  const char* spec;  // a preset, or a declaration
};
// Bit for bit: the deviations that tests/core/quant/golden_test.cpp lists concern none of these.
constexpr Row kRows[] = {
    {"w_int8_per_tensor", "Int8WeightPerTensorFloat"},
    {"w_int8_per_channel", "Int8WeightPerChannelFloat"},
    {"w_int8_conv_per_channel", "Int8WeightPerChannelFloat"},
    {"w_int8_per_channel_wide", R"({"base": "Int8WeightPerChannelFloat", "narrow": false})"},
    {"w_int4_per_tensor", R"({"base": "Int8WeightPerTensorFloat", "bits": 4})"},
    {"w_int4_per_channel", R"({"base": "Int8WeightPerChannelFloat", "bits": 4})"},
    {"w_int8_fixed_point_per_tensor", "Int8WeightPerTensorFixedPoint"},
    {"w_int8_fixed_point_per_channel", "Int8WeightPerChannelFixedPoint"},
    {"w_int8_po2_round", R"({"base": "Int8WeightPerChannelFixedPoint", "exponent_rounding": "round"})"},
    {"w_int8_percentile99_tensor", R"({"base": "Int8WeightPerTensorFloat", "statistic": "percentile", "percentile": 99})"},
    {"w_uint8_asym_per_tensor", "ShiftedUint8WeightPerTensorFloat"},
    {"w_uint8_asym_per_channel", "ShiftedUint8WeightPerChannelFloat"},
    {"w_int8_ave", R"({"base": "Int8WeightPerTensorFloat", "statistic": "mean"})"},
    {"w_int8_he", R"({"base": "Int8WeightPerTensorFloat", "statistic": "he"})"},
    {"w_binary_const", "SignedBinaryWeightPerTensorConst"},
    {"w_ternary_const", "SignedTernaryWeightPerTensorConst"},
    {"w_ternary_thr05_per_channel", R"({"format": "ternary", "granularity": "channel"})"},
    {"w_round_round", R"({"source": "constant", "scale_value": 1})"},
    {"w_round_ceil", R"({"source": "constant", "scale_value": 1, "rounding": "ceil"})"},
    {"w_round_floor", R"({"source": "constant", "scale_value": 1, "rounding": "floor"})"},
    {"w_Fp8e4m3Weight", "Fp8e4m3Weight"},
    {"w_Fp8e5m2Weight", "Fp8e5m2Weight"},
    {"w_Fp8e4m3OCPWeight", "Fp8e4m3OCPWeight"},
    {"w_Fp8e5m2OCPWeight", "Fp8e5m2OCPWeight"},
    {"w_Fp8e4m3OCPWeightPerTensorFloat", "Fp8e4m3OCPWeightPerTensorFloat"},
    {"w_Fp8e4m3OCPWeightPerChannelFloat", "Fp8e4m3OCPWeightPerChannelFloat"},
    {"w_Fp4e2m1OCPW", "fp4-e2m1-weight-per-channel"},
    {"w_Fp6e3m2OCPW", "fp6-e3m2-weight-per-channel"},
    {"w_fp8e4m3_ocp_nonsat", R"({"base": "Fp8e4m3OCPWeight", "saturate": false})"},
    {"b_int8_internal_pt", "Int8BiasPerTensorFloatInternalScaling"},
};

class Tensor : public Program {
 protected:
  std::string spec(const char* given) { return *given == '{' ? write("spec.json", given).string() : given; }
};

TEST_F(Tensor, GivesTheReferenceResults) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.file);
    const json all = golden(row.file);
    const bool bias = *row.file == 'b';
    const json& j = bias ? all.at("quant_bias") : all;
    const json& input = bias ? all.at("bias") : all.at("input");
    write("x.npy", npy("<f4", shape_of(input), bytes_of(values(input))));
    const Answer answer = run({"tensor", "--spec", spec(row.spec), "--kind", bias ? "bias" : "weight", "--in", "x.npy", "--out",
                               "y.npy", "--codes", "c.npy", "--scale", "s.npy", "--zero-point", "z.npy"});
    ASSERT_EQ(answer.code, 0) << answer.err;
    const std::vector<float> out = values(j.at("out")), y = read(folder_ / "y.npy").floats();
    EXPECT_EQ(read(folder_ / "s.npy").floats(), values(j.at("scale")));
    ASSERT_EQ(y.size(), out.size());
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_TRUE(y[i] == out[i] || (std::isnan(y[i]) && std::isnan(out[i]))) << i << ": " << y[i] << ", expected " << out[i];
    const auto codes = read(folder_ / "c.npy").ints();
    const std::vector<float> expected = values(j.at("codes"));
    for (std::size_t i = 0; i < codes.size(); ++i) {
      if (std::isnan(out[i])) continue;
      ASSERT_EQ(static_cast<float>(codes[i]), expected[i]) << i;
    }
  }
}

TEST_F(Tensor, TakesTheScaleOfABiasFromTheAccumulator) {
  for (const char* file : {"b_int32_external_pc", "b_int32_external_pt", "b_int8_external_pc"}) {
    SCOPED_TRACE(file);
    const json j = golden(file);
    write("b.npy", npy("<f4", shape_of(j.at("bias")), bytes_of(values(j.at("bias")))));
    write("f.npy", npy("<f4", "()", bytes_of(values(j.at("input_scale")))));
    const auto weight = values(j.at("weight_scale"));
    write("g.npy", npy("<f4", "(" + std::to_string(weight.size()) + ",)", bytes_of(weight)));
    const std::string preset = std::string(file).substr(2, 5) == "int32" ? "Int32Bias" : "Int8Bias";
    const Answer answer = run({"tensor", "--spec", preset, "--kind", "bias", "--in", "b.npy", "--out", "y.npy", "--input-scale",
                               "f.npy", "--weight-scale", "g.npy"});
    ASSERT_EQ(answer.code, 0) << answer.err;
    EXPECT_EQ(read(folder_ / "y.npy").floats(), values(j.at("quant_bias").at("out")));
  }
}

TEST_F(Tensor, SaysWhatItMeasured) {
  write("x.npy", npy("<f4", "(2, 4)", bytes_of({0.5f, -1, 2, 3, -4, 5, 6, 7})));
  const json facts = run_json({"tensor", "--spec", "int4-weight-per-channel", "--in", "x.npy"});
  EXPECT_EQ(facts.at("scales"), 2);
  EXPECT_EQ(facts.at("shape"), json({2, 4}));
  EXPECT_EQ(facts.at("bits_per_element"), 12);  // 8 codes of 4 bits, 2 scales of 32
  EXPECT_EQ(run_json({"tensor", "--spec", "int4-weight-per-channel", "--set", "bits=8", "--in", "x.npy"}).at("spec").at("bits"), 8);
}

TEST_F(Tensor, RefusesInASentence) {
  const std::string data = bytes_of(std::vector<float>(8, 1.5f));
  write("x.npy", npy("<f4", "(2, 4)", data));
  write("text.npy", "this is no array at all");
  write("cut.npy", npy("<f4", "(20, 4)", data));
  write("fortran.npy", npy("<f4", "(2, 4)", data, "True"));
  write("big.npy", npy(">f4", "(2, 4)", data));
  write("object.npy", npy("|O", "(2, 4)", data));
  write("empty.npy", "");
  write("header.npy", std::string("\x93NUMPY\x02\x00\x00\x00\x00\xf0", 12) + "x");
  write("nan.npy", npy("<f4", "(1,)", bytes_of({std::nanf("")})));
  struct Bad {
    std::vector<std::string> arguments;
    int code;
    const char* says;
  };
  const Bad rows[] = {
      {{"--in", "text.npy"}, 5, "'text.npy' is no NumPy array"},
      {{"--in", "cut.npy"}, 5, "'cut.npy' is truncated"},
      {{"--in", "fortran.npy"}, 4, "stored in Fortran order"},
      {{"--in", "big.npy"}, 4, "which is big endian"},
      {{"--in", "object.npy"}, 4, "'|O'"},
      {{"--in", "empty.npy"}, 5, "'empty.npy' is empty"},
      {{"--in", "header.npy"}, 5, "at most 1 MiB is plausible"},
      {{"--in", "nan.npy"}, 2, "holds NaN at index [0]"},
      {{"--in", "none.npy"}, 3, "no file 'none.npy'"},
      {{"--in", "x.npy", "--set", "bits=99"}, 2, "bits is 99"},
      {{"--in", "x.npy", "--set", "bitz=4"}, 2, "bitz"},
      {{"--in", "x.npy", "--set", "bits"}, 2, "write FIELD=VALUE"},
      {{"--in", "x.npy", "--kind", "activation"}, 2, "--calib is missing"},
      {{"--in", "x.npy", "--out", "none/y.npy"}, 3, "none/y.npy"},
  };
  for (const Bad& row : rows) {
    std::vector<std::string> arguments = {"tensor", "--spec", "int8-weight-per-tensor"};
    arguments.insert(arguments.end(), row.arguments.begin(), row.arguments.end());
    const Answer answer = run(arguments);
    EXPECT_EQ(answer.code, row.code) << row.says << ": " << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(row.says));
  }
  EXPECT_THAT(run({"tensor", "--spec", "Int32Bias", "--kind", "bias", "--in", "x.npy"}).err, HasSubstr("--input-scale is missing"));
  EXPECT_THAT(run({"tensor", "--spec", "Int32Bias", "--in", "x.npy"}).err, HasSubstr("Use --kind bias"));
  EXPECT_THAT(run({"tensor", "--spec", "nothing", "--in", "x.npy"}).err, HasSubstr("neither a file nor a preset 'nothing'"));
}

}  // namespace
}  // namespace quanvas
