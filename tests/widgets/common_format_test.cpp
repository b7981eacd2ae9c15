#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "widgets/common/format.h"

namespace quanvas {
namespace {

struct Row {
  const char* what;
  QString got;
  const char* want;  // "_" stands for the no-break space
};

TEST(Format, TableOfNumbers) {
  const double inf = INFINITY, nan = NAN;
  const Row rows[] = {
      {"count", count_text(61706), "61,706"},
      {"count small", count_text(999), "999"},
      {"count negative", count_text(-1234567), "−1,234,567"},
      {"number", number_text(1234.56, 1), "1,234.6"},
      {"no negative zero", number_text(-0.04, 1), "0.0"},
      {"nan", number_text(nan), "–"},
      {"inf", number_text(-inf), "−∞"},
      {"signed", signed_text(-1.46), "−1.46"},
      {"signed plus", signed_text(0.125, 3), "+0.125"},
      {"signed zero", signed_text(0.001), "0.00"},
      {"signed inf", signed_text(inf), "+∞"},
      {"dB", db_text(22.08), "22.1_dB"},
      {"dB inf", db_text(inf), "∞_dB"},
      {"dB nan", db_text(nan), "–"},
      {"percent", percent_text(0.89409), "89.41_%"},
      {"bytes", bytes_text(612), "612_B"},
      {"kB", bytes_text(246824), "246.8_kB"},
      {"MB round up", bytes_text(999999), "1.0_MB"},
      {"GB", bytes_text(7.26e9), "7.3_GB"},
      {"si", si_text(1.234e9, QStringLiteral("MAC")), "1.23_GMAC"},
      {"si whole", si_text(84), "84"},
      {"si k", si_text(416520), "417_k"},
      {"bits", bits_text(4), "4_bit"},
      {"bits fraction", bits_text(4.031), "4.03_bit"},
      {"seconds", duration_text(0.42), "0.4_s"},
      {"seconds whole", duration_text(9), "9_s"},
      {"minutes", duration_text(125), "2_min 05_s"},
      {"hours", duration_text(4800), "1_h 20_min"},
      {"negative time", duration_text(-1), "–"},
      {"significant", significant_text(0.012345), "0.0123"},
      {"significant large", significant_text(123456), "123,456"},
      {"significant tiny", significant_text(-1.23e-7), "−1.23·10⁻⁷"},
      {"significant carry", significant_text(9.999e-8), "1.00·10⁻⁷"},
      {"change", change_text(bytes_text(9400), bytes_text(1200)), "9.4 → 1.2_kB"},
      {"change of unit", change_text(bytes_text(9400), bytes_text(612)), "9.4_kB → 612_B"},
  };
  for (const Row& row : rows) {
    QString want = QString::fromUtf8(row.want);
    want.replace(QLatin1Char('_'), QChar(0x00a0));
    EXPECT_EQ(row.got.toStdString(), want.toStdString()) << row.what;
  }
}

TEST(Format, EveryFunctionAnswersForEveryDouble) {
  const std::function<QString(double)> functions[] = {
      [](double v) { return count_text(v); },       [](double v) { return signed_text(v); },
      [](double v) { return significant_text(v); }, [](double v) { return db_text(v); },
      [](double v) { return percent_text(v); },     [](double v) { return bytes_text(v); },
      [](double v) { return si_text(v); },          [](double v) { return bits_text(v); },
      [](double v) { return duration_text(v); }};
  for (const auto& f : functions)
    for (const double v : {0.0, -0.0, 1e-310, -1e308, 1e308, double(INFINITY), -double(INFINITY), double(NAN)})
      EXPECT_FALSE(f(v).isEmpty()) << v;
}

}  // namespace
}  // namespace quanvas
