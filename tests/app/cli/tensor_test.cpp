// The verb "tensor": what it says and what it refuses. Its results: golden_tensor_test.cpp.
#include "tests/app/cli/arrays.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

class Tensor : public Program {};

TEST_F(Tensor, SaysWhatItMeasured) {
  write("x.npy", npy("<f4", "(2, 4)", bytes_of({0.5f, -1, 2, 3, -4, 5, 6, 7})));
  const json facts = run_json({"tensor", "--spec", "int4-weight-per-channel", "--in", "x.npy"});
  EXPECT_EQ(facts.at("scales"), 2);
  EXPECT_EQ(facts.at("shape"), json({2, 4}));
  EXPECT_EQ(facts.at("bits_per_element"), 12);  // 8 codes of 4 bits, 2 scales of 32
  EXPECT_EQ(run_json({"tensor", "--spec", "int4-weight-per-channel", "--set", "bits=8", "--in", "x.npy"}).at("spec").at("bits"), 8);
}

// Of a truncation, not of a quantizer with its scale: 1023 of 10 bits is cut off to 255, not clipped to it.
TEST_F(Tensor, FactsOfATruncationAreItsOwn) {
  std::vector<float> x(1024);
  for (std::size_t n = 0; n < x.size(); ++n) x[n] = static_cast<float>(n) * 0.5f;
  const std::vector<std::string> at = {"tensor", "--spec",        "TruncTo8bit", "--in",         "x.npy", "--kind",
                                       "trunc",  "--input-scale", "s.npy",       "--input-bits", "10"};
  write("s.npy", npy("<f4", "()", bytes_of({0.5f})));
  write("x.npy", npy("<f4", "(1024,)", bytes_of(x)));
  json facts = run_json(at);
  EXPECT_EQ(facts.at("codes_used"), 256);
  EXPECT_EQ(facts.at("codes_total"), 256);
  EXPECT_EQ(facts.at("clipped_share"), 0);
  EXPECT_EQ(facts.at("scale_max"), 2);
  EXPECT_DOUBLE_EQ(facts.at("error").at("mse").get<double>(), (0 + 1 + 4 + 9) / 4.0 * 0.25);
  EXPECT_EQ(facts.at("error").at("max_abs"), 1.5);
  EXPECT_EQ(facts.at("bits_per_element"), 8 + 32 / 1024.0);
  x[7] = 1024 * 0.5f;  // more than 10 bits
  write("x.npy", npy("<f4", "(1024,)", bytes_of(x)));
  EXPECT_EQ(run_json(at).at("clipped_share"), 1 / 1024.0);
}

TEST_F(Tensor, PacksCodesWithoutGaps) {
  write("x.npy", npy("<f4", "(3,)", bytes_of({1, 2, 3})));
  const std::vector<std::string> at = {"tensor", "--spec", "int4-weight-per-tensor", "--set", "source=constant", "--in", "x.npy"};
  auto arguments = at;
  arguments.insert(arguments.end(), {"--packed", "p.bin", "--on-grid"});
  const Answer answer = run(arguments);
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(slurp(folder_ / "p.bin"), std::string("\x21\x03", 2));
  write("x.npy", npy("<f4", "(3,)", bytes_of({1, 2.25f, 3})));
  const Answer off = run(arguments);
  EXPECT_EQ(off.code, 2);
  EXPECT_THAT(off.err, HasSubstr("of element 1 is not on the quantizer's grid"));
}

TEST_F(Tensor, TakesTrainedParameters) {
  write("x.npy", npy("<f4", "(2, 2)", bytes_of({1, 2, 3, 4})));
  write("s.npy", npy("<f4", "(2,)", bytes_of({0.5f, 1})));
  write("one.npy", npy("<f4", "(1,)", bytes_of({0.5f})));
  write("zero.npy", npy("<f4", "(2,)", bytes_of({0, 1})));
  const std::vector<std::string> at = {"tensor", "--spec", "Int8WeightPerChannelFloat", "--in", "x.npy", "--scale", "out.npy"};
  const auto with = [&](const std::vector<std::string>& more) {
    auto arguments = at;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  EXPECT_EQ(with({"--param", "scale=s.npy"}).code, 0);
  EXPECT_EQ(read_array(folder_ / "out.npy").floats(), std::vector<float>({0.5f, 1}));
  EXPECT_THAT(with({"--param", "scale=one.npy"}).err, HasSubstr("holds 1 numbers; 2 are needed"));
  EXPECT_THAT(with({"--param", "scale=zero.npy"}).err, HasSubstr("holds a number that is 0"));
  EXPECT_THAT(with({"--param", "zero-point=s.npy"}).err, HasSubstr("has no zero point"));
  EXPECT_THAT(with({"--param", "round=s.npy"}).err, HasSubstr("rounding is not learned"));
  EXPECT_THAT(with({"--param", "size=s.npy"}).err, HasSubstr("write scale=FILE"));
  EXPECT_THAT(with({"--set", "rounding=learned"}).err, HasSubstr("--param round=FILE is missing"));
  EXPECT_THAT(with({"--kind", "trunc"}).err, HasSubstr("truncation is none"));
  const Answer trunc = run({"tensor", "--spec", "TruncTo8bit", "--in", "x.npy", "--kind", "trunc"});
  EXPECT_THAT(trunc.err, HasSubstr("--input-scale is missing"));
  EXPECT_THAT(run({"tensor", "--spec", "TruncTo8bit", "--in", "x.npy"}).err, HasSubstr("Use --kind trunc"));
  EXPECT_THAT(run({"tensor", "--spec", "ShiftRoundSaturateTo8bit", "--set", "source=constant", "--in", "x.npy", "--kind", "trunc",
                   "--input-scale", "one.npy", "--input-bits", "16"}).err,
              HasSubstr("truncation with source constant"));
  EXPECT_THAT(run({"tensor", "--spec", "ShiftedUint8WeightPerChannelFloat", "--in", "x.npy", "--param", "zero-point=s.npy"}).err,
              HasSubstr("it must be a whole number from 0 to 255"));
}

TEST_F(Tensor, LayersDeclarations) {
  write("x.npy", npy("<f4", "(2, 2)", bytes_of({1, 2, 3, 4})));
  write("spec.json", R"({"base": "Int8WeightPerChannelFloat", "bit_width": 4, "narrow_range": false})");
  const json spec = run_json({"tensor", "--spec", "spec.json", "--in", "x.npy"}).at("spec");
  EXPECT_EQ(spec.at("bits"), 4);
  EXPECT_EQ(spec.at("narrow"), false);
  EXPECT_EQ(spec.at("granularity"), "channel");
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
      {{"--in", "x.npy", "--set", "statistic=hqo", "--set", "batches=mean"}, 2, "statistic is hqo with batches mean"},
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
