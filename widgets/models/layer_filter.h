// Quanvas - the filter box of the layer table: words and conditions, all of which must hold.
//
//   conv            name, type or scope contains "conv" (case does not matter)
//   !pool           ... does not
//   "relu 1"        with a space
//   type:conv,gemm  one of; '*' and '?' are wildcards; keys of text: name, type, scope
//   bits<=4         keys of numbers: bits, abits (activation), params, macs, sqnr (output, dB), wsqnr (weight, dB)
//                   operators < <= > >= = !=; suffixes k, M, G; spaces around the operator are allowed
//   is:float        is: float, quantized, stale, selected
// Values, thread-safe.
#pragma once

#include <vector>

#include <QString>
#include <QStringList>

namespace quanvas {

struct LayerRow;

class LayerFilter {
 public:
  // A text that cannot be understood gives a filter that matches everything and has error() set.
  static LayerFilter parse(const QString& text);

  bool matches(const LayerRow& row) const;
  bool empty() const { return terms_.empty(); }
  const QString& error() const { return error_; }  // one sentence; empty when understood

 private:
  enum class Op { kContains, kOneOf, kLess, kLessEqual, kGreater, kGreaterEqual, kEqual, kNotEqual, kIs };
  struct Term {
    QString key;  // empty: any text
    Op op = Op::kContains;
    QStringList texts;
    double number = 0;
    bool negated = false;
  };
  QString add_term(const QString& token, bool quoted);
  QString add_condition(const QString& key, const QString& op, const QString& value, bool negated);
  static bool holds(const Term& term, const LayerRow& row);

  std::vector<Term> terms_;
  QString error_;
};

}  // namespace quanvas
