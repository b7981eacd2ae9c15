// Quanvas - numbers as text, the same everywhere: thousands separated by a comma, the minus sign U+2212, a
// no-break space before the unit, an en dash for what is not known (nan). Pure functions.
#pragma once

#include <QString>

namespace quanvas {

inline QString missing_text() { return QStringLiteral("–"); }

// 61706 -> "61,706"; rounds to whole numbers.
QString count_text(double value);
// Fixed decimals: (1234.5, 1) -> "1,234.5"; "∞" and "−∞" for infinities.
QString number_text(double value, int decimals = 1);
// With sign: "+0.12", "−1.46", "0.00".
QString signed_text(double value, int decimals = 2);
// Up to `digits` significant digits, powers of ten as "1.2·10⁻⁵" outside 1e-4..1e6.
QString significant_text(double value, int digits = 3);
QString db_text(double db, int decimals = 1);               // "22.1 dB"
QString percent_text(double fraction, int decimals = 2);    // 0.8941 -> "89.41 %"
QString bytes_text(double bytes);                           // "612 B", "9.4 kB", "1.2 MB": powers of 1000
QString si_text(double value, const QString& unit = {});    // 1.234e9 -> "1.23 G"; with unit "1.23 GMAC"
QString bits_text(double bits);                             // "4 bit", "4.03 bit"
QString duration_text(double seconds);                      // "0.4 s", "9 s", "2 min 05 s", "1 h 20 min"
QString change_text(const QString& before, const QString& after);  // "9.4 → 1.2 kB" when the units agree

}  // namespace quanvas
