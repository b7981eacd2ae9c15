// C headers: compiled as C99 and C++17 and compared number by number; a layer computed with nothing but its integers.
#include <cstdio>
#include <map>
#include <sstream>

#include "plugins/exporters/c_header_read.h"
#include "plugins/exporters/c_names.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
using export_net::small_net;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

class CHeaderTest : public WeightFileTest {
 protected:
  static bool has(const std::string& compiler) {
    return std::system((compiler + " --version > /dev/null 2>&1").c_str()) == 0;
  }
  // Compiles the source and gives what the program prints; "" when it does not compile.
  std::string run(const std::string& compiler, const std::string& source) const {
    const std::string name = compiler.starts_with("g++") || compiler.starts_with("c++") ? "main.cpp" : "main.c";
    overwrite(source, name);
    const std::string log = path("log.txt"), program = path("program");
    const std::string command =
        compiler + " -O1 -Wall -Wextra -Wpedantic -Werror -Wno-unused-const-variable -Wno-unused-variable -o " + program +
        " " + path(name) + " -lm > " + log + " 2>&1";
    if (std::system(command.c_str()) != 0) {
      ADD_FAILURE() << read_file(log).value_or("");
      return {};
    }
    EXPECT_EQ(std::system((program + " > " + log).c_str()), 0);
    return *read_file(log);
  }
};

QuantizedModel small() {
  return export_net::quantize(small_net(),
                              {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true});
}

TEST_F(CHeaderTest, CompilersSeeTheVeryNumbers) {
  if (!has("cc") || !has("c++")) GTEST_SKIP() << "no C compiler";
  struct Case {
    const char* name;
    QuantizedModel model;
  };
  QuantSpec groups = ints(12, false, Granularity::kGroup, 24);
  for (const Case& c :
       {Case{"int8, bias, activations", small()}, Case{"groups of 12 bits", linear_net::quantize(net(), groups)},
        Case{"float8", linear_net::quantize(net(), minifloat(4, 3, FloatSpecials::kNan, kChannel))},
        Case{"nf4", linear_net::quantize(net(), [] {
               QuantSpec s;
               s.format = "nf4";
               s.granularity = kChannel;
               return s;
             }())}}) {
    SCOPED_TRACE(c.name);
    ASSERT_NO_FATAL_FAILURE(write("c-header", c.model, {{"prefix", "m_"}}, "net.h"));
    std::string source =
        "#include <stdio.h>\n#include \"net.h\"\n#include \"net.h\"\nint main(void) {\n unsigned long i = 0;\n";
    const auto print = [&](const std::string& array, bool real) {
      source += " for (i = 0; i < sizeof " + array + " / sizeof " + array + "[0]; ++i) printf(\"" + array +
                (real ? " %a\\n\", (double)" : " %ld\\n\", (long)") + array + "[i]);\n";
    };
    std::map<std::string, std::vector<double>> wanted;
    const weight_file::Contents contents = weight_file::contents_of(c.model);
    for (const weight_file::Coded& coded : contents.coded) {
      // The names are what a reader of the documentation expects.
      std::string id = "m_" + coded.initializer;
      for (char& ch : id) ch = ch == '.' || ch == ':' ? '_' : ch;
      print(id + "_codes", false);
      print(id + "_scale", true);
      const auto stored = stored_tensor(c.model, coded.sites.front());
      ASSERT_TRUE(stored);
      wanted[id + "_codes"].assign(stored->codes.begin(), stored->codes.end());
      wanted[id + "_scale"].assign(coded.params().scale.begin(), coded.params().scale.end());
      if (coded.params().spec.zero_point == kInteger) {
        print(id + "_zero_point", false);
        wanted[id + "_zero_point"].assign(coded.params().zero_point.begin(), coded.params().zero_point.end());
      }
      if (const QuantSpec& s = coded.params().spec; s.format == "float" || find_codebook(s.format)) {
        // Value of each code through the table.
        source += " for (i = 0; i < sizeof " + id + "_codes / sizeof " + id + "_codes[0]; ++i) printf(\"" + id +
                  "_values %a\\n\", (double)(" + id + "_lut[" + id + "_codes[i]] * " + id + "_scale[i / (sizeof " + id +
                  "_codes / sizeof " + id + "_codes[0] / (sizeof " + id + "_scale / sizeof " + id + "_scale[0]))]));\n";
        if (c.model.model->graph->tensor(coded.tensor).name == "model.down.weight")
          wanted[id + "_values"].assign(stored->values.begin(), stored->values.end());
      }
    }
    if (c.name == std::string("int8, bias, activations")) {
      print("m_conv1_input_scale", true);
      print("m_conv1_input_zero_lo_hi", false);
      const quant::QuantParams& p = c.model.quantizers.at({c.model.model->graph->find("conv1")->id, SiteKind::kInput, 0});
      wanted["m_conv1_input_scale"] = {static_cast<double>(p.scale[0])};
      wanted["m_conv1_input_zero_lo_hi"] = {static_cast<double>(p.zero_point[0]), static_cast<double>(p.lo),
                                            static_cast<double>(p.hi)};
    }
    source += " return 0;\n}\n";
    for (const char* compiler : {"cc -std=c99", "c++ -std=c++17"}) {
      SCOPED_TRACE(compiler);
      std::map<std::string, std::vector<double>> got;
      std::istringstream lines(run(compiler, source));
      std::string name, number;
      while (lines >> name >> number) got[name].push_back(std::strtod(number.c_str(), nullptr));
      for (const auto& [array, values] : wanted) EXPECT_EQ(got[array], values) << array;
    }
  }
}

// fc of the small network from integers alone: sums of codes, bias, multiplier; against the codes of the fake-quantized
// values.
TEST_F(CHeaderTest, ALayerComputesItsCodesFromIntegers) {
  if (!has("cc")) GTEST_SKIP() << "no C compiler";
  const QuantizedModel model = small();
  ASSERT_NO_FATAL_FAILURE(write("c-header", model, {}, "net.h"));
  constexpr int kIn = 64, kOut = 5, kRows = 2000;
  std::ostringstream source;
  source << "#include <stdio.h>\n#include \"net.h\"\nint main(void) {\n  unsigned long long state = 1;\n  int r, o, i;\n  "
            "for (r = 0; r < "
         << kRows
         << "; ++r) {\n    int32_t x[64];\n    for (i = 0; i < 64; ++i) { state = state * 6364136223846793005ull + "
            "1442695040888963407ull; x[i] = (int32_t)(state >> 56); }\n"
         << "    for (o = 0; o < 5; ++o) {\n      int32_t sum = fc_bias_codes[o];\n"
         << "      for (i = 0; i < 64; ++i) sum += (x[i] - fc_input_zero_lo_hi[0]) * fc_weight_codes[o * 64 + i];\n"
         << "      printf(\"%ld\\n\", (long)quanvas_requantize(sum, fc_multiplier[o], fc_shift[o], fc_zero_lo_hi));\n    "
            "}\n  }\n  return 0;\n}\n";
  std::istringstream got(run("cc -std=c99", source.str()));
  const NodeId fc = model.model->graph->find("fc")->id;
  const quant::QuantParams &in = model.quantizers.at({fc, SiteKind::kInput, 0}),
                           &w = model.quantizers.at({fc, SiteKind::kWeight, 0}),
                           &bias = model.quantizers.at({fc, SiteKind::kBias, 0}),
                           &out = model.quantizers.at({fc, SiteKind::kOutput, 0});
  std::vector<std::int32_t> weight(kIn * kOut), b(kOut);
  quant::quantize_codes(w, w.layout, model.model->weights->find("fc.weight")->to_floats().data(), weight.data());
  quant::quantize_codes(bias, bias.layout, model.model->weights->find("fc.bias")->to_floats().data(), b.data());
  unsigned long long state = 1;
  int differ = 0, seen = 0;
  for (int r = 0; r < kRows; ++r) {
    std::int32_t x[kIn];
    for (std::int32_t& v : x) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      v = static_cast<std::int32_t>(state >> 56);
    }
    for (int o = 0; o < kOut; ++o) {
      std::int64_t sum = b[static_cast<std::size_t>(o)];
      for (int i = 0; i < kIn; ++i)
        sum += static_cast<std::int64_t>(x[i] - static_cast<std::int32_t>(in.zero_point[0])) *
               weight[static_cast<std::size_t>(o * kIn + i)];
      const double real = static_cast<double>(sum) *
                          static_cast<double>(in.scale[0] * w.scale[static_cast<std::size_t>(o)]) /
                          static_cast<double>(out.scale[0]);
      const double wanted = std::clamp(std::nearbyint(real) + static_cast<double>(out.zero_point[0]),
                                       static_cast<double>(out.lo), static_cast<double>(out.hi));
      long code = 0;
      ASSERT_TRUE(got >> code);
      ++seen;
      if (static_cast<double>(code) == wanted) continue;
      ++differ;
      EXPECT_LE(std::fabs(static_cast<double>(code) - wanted), 1);
      EXPECT_LT(std::fabs(real - std::floor(real) - 0.5), 1e-5) << "only next to a tie";
    }
  }
  EXPECT_EQ(seen, kRows * kOut);
  EXPECT_LT(differ, 5);
}

TEST_F(CHeaderTest, MultipliersAreWithinHalfAUnitOfThirtyOneBits) {
  for (const double m : {0.5, 1.0, 0.999999999999, 0.25, 1e-3, 3.7e-9, 1.5e8, 1.0 / 3}) {
    c_header::Multiplier out;
    ASSERT_TRUE(c_header::multiplier_of(m, out)) << m;
    EXPECT_GE(out.m0, 1 << 30);
    EXPECT_LE(std::fabs(std::ldexp(static_cast<double>(out.m0), out.shift - 31) - m), std::ldexp(m, -31));
  }
  c_header::Multiplier out;
  for (const double m : {0.0, -1.0, 1e-12, 1e12, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    EXPECT_FALSE(c_header::multiplier_of(m, out)) << m;
}

TEST_F(CHeaderTest, NamesAreLegalAndUnique) {
  c_header::Names names;
  EXPECT_EQ(names.give("a.b"), "a_b");
  EXPECT_EQ(names.give("a/b"), "a_b_2");
  EXPECT_EQ(names.give("a_b_2"), "a_b_2_2");
  EXPECT_EQ(names.give("1x"), "t1x");
  EXPECT_EQ(names.give("_X"), "t_X");
  EXPECT_EQ(names.give(""), "t");
  EXPECT_EQ(names.give("\xc3\xa4"), "t__");
}

TEST_F(CHeaderTest, TamperedNumbersAreNotEqual) {
  const QuantizedModel model = small();
  ASSERT_NO_FATAL_FAILURE(write("c-header", model, {}, "net.h"));
  const std::string good = *read_file(path("net.h"));
  ASSERT_TRUE(all_equal(audit("c-header", model, {}, "net.h"))) << text_of(audit("c-header", model, {}, "net.h"));
  std::size_t arrays = 0;
  for (std::size_t at = 0; (at = good.find("] = {\n", at)) != std::string::npos; ++arrays) {
    at = good.find_first_of("0123456789", at);
    std::string bad = good;
    // Of a hexadecimal float the exponent's last digit.
    const std::size_t digit = good.compare(at, 2, "0x") == 0 ? good.find('f', good.find('p', at)) - 1 : at;
    bad[digit] = bad[digit] == '1' ? '2' : '1';
    overwrite(bad, "net.h");
    const auto rows = exporter("c-header").audit(model, path("net.h"), options("c-header", {}));
    EXPECT_TRUE(!rows || !all_equal(*rows)) << good.substr(at > 60 ? at - 60 : 0, 80);
  }
  EXPECT_GT(arrays, 20u);
}

// Shifts and codes of any size, and of other types than the writer's: not equal, and nothing is computed with them.
TEST_F(CHeaderTest, NumbersOfOtherTypesAreNotEqual) {
  const QuantizedModel model = small();
  ASSERT_NO_FATAL_FAILURE(write("c-header", model, {}, "net.h"));
  const std::string good = *read_file(path("net.h"));
  const std::string text = "_shift[";
  const std::size_t name = good.find(text);
  ASSERT_NE(name, std::string::npos);
  const std::size_t begin = good.rfind("static const ", name), end = good.find("};", name) + 2;
  const std::string declared = good.substr(good.rfind(' ', name) + 1, good.find(']', name) + 1 - good.rfind(' ', name) - 1);
  const std::int64_t count = std::stoll(good.substr(name + text.size()));
  for (const auto& [type, value] : {std::pair{"int32_t", "(-2147483647 - 1)"}, std::pair{"int64_t", "INT64_MIN"},
                                    std::pair{"float", "NAN"}, std::pair{"float", "0x1p100f"}}) {
    SCOPED_TRACE(std::string(type) + " " + value);
    std::string values = value;
    for (std::int64_t i = 1; i < count; ++i) values += std::string(", ") + value;
    overwrite(good.substr(0, begin) + "static const " + type + " " + declared + " = {" + values + good.substr(end - 2), "net.h");
    const auto rows = exporter("c-header").audit(model, path("net.h"), options("c-header", {}));
    ASSERT_TRUE(rows) << rows.error().text();
    EXPECT_FALSE(all_equal(*rows));
  }
}

TEST_F(CHeaderTest, HostileHeadersAreRefused) {
  for (const char* text :
       {"static const int8_t a[4] = {1, 2, 3};", "static const int8_t a[99999999999] = {1};",
        "static const int8_t a[1] = {200};", "static const int8_t a[1] = {1}; static const int8_t a[1] = {1};",
        "static const double a[1] = {1};", "static const float a[1] = {0.5f};", "static const float a[1] = {0x1p9999f};",
        "static const int8_t a[-1] = {};", "static const int8_t a[1] = {1", "static const int32_t a[2] = {1 2};",
        "static const int8_t a[2] = {1, 2, 3};"}) {
    SCOPED_TRACE(text);
    EXPECT_FALSE(c_header::parse_header(text, "x.h"));
  }
  const auto fine =
      c_header::parse_header("/* static const int8_t no[1] = {1}; */ static const int8_t a[2] = {-1, /* 7 */ 2};", "x.h");
  ASSERT_TRUE(fine);
  ASSERT_EQ(fine->size(), 1u);
  EXPECT_EQ(fine->at("a").to_int64(), (std::vector<std::int64_t>{-1, 2}));
}

}  // namespace
}  // namespace quanvas
