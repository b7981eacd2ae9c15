#include "widgets/common/format.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace quanvas {

namespace {

const QChar kMinus(0x2212);
const QChar kNoBreakSpace(0x00a0);

QString with_unit(const QString& number, const QString& unit) {
  return unit.isEmpty() ? number : number + kNoBreakSpace + unit;
}

// Digits of |value|, thousands separated.
QString magnitude(double value, int decimals) {
  QString digits = QString::number(std::fabs(value), 'f', std::clamp(decimals, 0, 12));
  const qsizetype dot = digits.indexOf(QLatin1Char('.'));
  for (qsizetype i = (dot < 0 ? digits.size() : dot) - 3; i > 0; i -= 3) digits.insert(i, QLatin1Char(','));
  return digits;
}

bool is_zero_text(const QString& digits) {
  return std::none_of(digits.begin(), digits.end(), [](QChar c) { return c >= QLatin1Char('1') && c <= QLatin1Char('9'); });
}

QString superscript(int exponent) {
  static const QString kDigits = QStringLiteral("⁰¹²³⁴⁵⁶⁷⁸⁹");
  QString out = exponent < 0 ? QStringLiteral("⁻") : QString();
  for (const QChar c : QString::number(std::abs(exponent))) out += kDigits[c.digitValue()];
  return out;
}

struct Prefix {
  double factor;
  const char* name;
};
constexpr std::array<Prefix, 7> kPrefixes = {
    {{1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}}};

const Prefix& prefix_of(double value) {
  // 0.9995 of the next prefix already rounds up to it.
  for (const Prefix& p : kPrefixes)
    if (std::fabs(value) >= 0.9995 * p.factor) return p;
  return kPrefixes.back();
}

}  // namespace

QString number_text(double value, int decimals) {
  if (std::isnan(value)) return missing_text();
  if (std::isinf(value)) return value > 0 ? QStringLiteral("∞") : QStringLiteral("−∞");
  const QString digits = magnitude(value, decimals);
  return value < 0 && !is_zero_text(digits) ? kMinus + digits : digits;
}

QString count_text(double value) { return number_text(value, 0); }

QString signed_text(double value, int decimals) {
  const QString text = number_text(value, decimals);
  const bool plus = value > 0 && !(std::isfinite(value) && is_zero_text(text));
  return plus ? QLatin1Char('+') + text : text;
}

QString significant_text(double value, int digits) {
  if (!std::isfinite(value) || value == 0) return number_text(value, 0);
  digits = std::clamp(digits, 1, 12);
  int exponent = static_cast<int>(std::floor(std::log10(std::fabs(value))));
  if (exponent >= -4 && exponent < 6) return number_text(value, std::max(0, digits - 1 - exponent));
  double mantissa = value / std::pow(10.0, exponent);
  if (std::fabs(mantissa) >= 10 - 0.5 * std::pow(10.0, 1 - digits)) {
    mantissa /= 10;
    ++exponent;
  }
  return number_text(mantissa, digits - 1) + QStringLiteral("·10") + superscript(exponent);
}

QString db_text(double db, int decimals) {
  return std::isnan(db) ? missing_text() : with_unit(number_text(db, decimals), QStringLiteral("dB"));
}

QString percent_text(double fraction, int decimals) {
  return std::isnan(fraction) ? missing_text() : with_unit(number_text(fraction * 100, decimals), QStringLiteral("%"));
}

QString bytes_text(double bytes) {
  if (!std::isfinite(bytes)) return number_text(bytes);
  const Prefix& p = prefix_of(bytes);
  return with_unit(number_text(bytes / p.factor, p.factor == 1 ? 0 : 1), QLatin1String(p.name) + QLatin1Char('B'));
}

QString si_text(double value, const QString& unit) {
  if (!std::isfinite(value)) return number_text(value);
  const Prefix& p = prefix_of(value);
  const double scaled = value / p.factor;
  const double size = std::fabs(scaled);
  const int decimals = p.factor == 1 && scaled == std::round(scaled) ? 0 : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return with_unit(number_text(scaled, decimals), QLatin1String(p.name) + unit);
}

QString bits_text(double bits) {
  if (std::isnan(bits)) return missing_text();
  return with_unit(number_text(bits, bits == std::round(bits) ? 0 : 2), QStringLiteral("bit"));
}

QString duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return missing_text();
  if (seconds < 9.95 && seconds != std::round(seconds)) return with_unit(number_text(seconds, 1), QStringLiteral("s"));
  const auto total = static_cast<qint64>(std::llround(std::min(seconds, 1e15)));
  if (total < 60) return with_unit(count_text(static_cast<double>(total)), QStringLiteral("s"));
  const auto two = [](qint64 v) { return QStringLiteral("%1").arg(v, 2, 10, QLatin1Char('0')); };
  if (total < 3600)
    return with_unit(QString::number(total / 60), QStringLiteral("min ")) + with_unit(two(total % 60), QStringLiteral("s"));
  return with_unit(count_text(static_cast<double>(total / 3600)), QStringLiteral("h ")) +
         with_unit(two(total % 3600 / 60), QStringLiteral("min"));
}

QString change_text(const QString& before, const QString& after) {
  const qsizetype a = before.lastIndexOf(kNoBreakSpace), b = after.lastIndexOf(kNoBreakSpace);
  const bool same_unit = a >= 0 && b >= 0 && before.mid(a) == after.mid(b);
  return (same_unit ? before.left(a) : before) + QStringLiteral(" → ") + after;
}

}  // namespace quanvas
