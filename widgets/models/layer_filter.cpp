#include "widgets/models/layer_filter.h"

#include <cmath>
#include <utility>

#include <QCoreApplication>
#include <QRegularExpression>

#include "widgets/models/layers_model.h"

namespace quanvas {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("LayerFilter", text); }

struct NumberKey {
  const char* key;
  double (*value)(const LayerRow&);  // nan: unknown, no condition holds
};
double bits_of(const FormatCell& c) {
  return c.state == FormatCell::State::kQuantized ? code_bits(c.spec) : std::nan("");
}
const NumberKey kNumbers[] = {
    {"bits", [](const LayerRow& r) { return bits_of(r.weight); }},
    {"abits", [](const LayerRow& r) { return bits_of(r.activation()); }},
    {"params", [](const LayerRow& r) { return r.parameters; }},
    {"macs", [](const LayerRow& r) { return r.macs; }},
    {"sqnr", [](const LayerRow& r) { return r.output_sqnr; }},
    {"wsqnr", [](const LayerRow& r) { return r.weight_sqnr; }},
};
struct TextKey {
  const char* key;
  QStringList (*values)(const LayerRow&);
};
const TextKey kTexts[] = {
    {"name", [](const LayerRow& r) { return QStringList{r.name}; }},
    {"type", [](const LayerRow& r) { return QStringList{r.op, r.type}; }},
    {"scope", [](const LayerRow& r) { return QStringList{r.scope}; }},
};
bool is_quantized(const LayerRow& r) {
  for (const auto* c : {&r.weight, &r.input, &r.output})
    if (c->state == FormatCell::State::kQuantized) return true;
  return false;
}
struct StateKey {
  const char* key;
  bool (*value)(const LayerRow&);
};
const StateKey kStates[] = {
    {"float", [](const LayerRow& r) { return !is_quantized(r); }},
    {"quantized", is_quantized},
    {"stale", [](const LayerRow& r) { return r.stale; }},
    {"selected", [](const LayerRow& r) { return r.selected; }},
};

template <class Row, std::size_t N>
const Row* find_key(const Row (&table)[N], const QString& key) {
  for (const auto& row : table)
    if (key.compare(QLatin1String(row.key), Qt::CaseInsensitive) == 0) return &row;
  return nullptr;
}
template <class Row, std::size_t N>
QString key_list(const Row (&table)[N]) {
  QStringList keys;
  for (const auto& row : table) keys << QLatin1String(row.key);
  return keys.join(QStringLiteral(", "));
}

bool parse_number(QString text, double& value) {
  double factor = 1;
  static const std::pair<QChar, double> kSuffixes[] = {
      {u'k', 1e3}, {u'K', 1e3}, {u'm', 1e6}, {u'M', 1e6}, {u'g', 1e9}, {u'G', 1e9}};
  for (const auto& [suffix, f] : kSuffixes) {
    if (!text.endsWith(suffix)) continue;
    text.chop(1);
    factor = f;
    break;
  }
  bool ok = false;
  value = text.toDouble(&ok) * factor;
  return ok && std::isfinite(value);
}

// Whole-text match with '*' and '?' (also over '/'); a pattern without them matches anywhere. Linear.
bool wildcard_match(const QString& pattern, const QString& text) {
  if (!pattern.contains(u'*') && !pattern.contains(u'?')) return text.contains(pattern, Qt::CaseInsensitive);
  qsizetype p = 0, t = 0, star = -1, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == u'?' || pattern[p].toCaseFolded() == text[t].toCaseFolded())) {
      ++p;
      ++t;
    } else if (p < pattern.size() && pattern[p] == u'*') {
      star = p++;
      mark = t;
    } else if (star >= 0) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == u'*') ++p;
  return p == pattern.size();
}

struct Token {
  QString text;
  bool quoted = false;
};

// Splits at spaces outside quotes; a space before or after an operator does not split.
QString tokenize(const QString& text, std::vector<Token>& out) {
  static const QRegularExpression spaced(QStringLiteral("\\s*(<=|>=|!=|<|>|=|:)\\s*"));
  Token token;
  bool in_quotes = false;
  const auto flush = [&] {
    if (!token.text.isEmpty() || token.quoted) out.push_back(token);
    token = {};
  };
  QString joined;
  const auto parts = text.split(u'"');
  for (int i = 0; i < parts.size(); ++i) {
    QString part = parts[i];
    if (i % 2 == 0) part.replace(spaced, QStringLiteral("\\1"));
    joined += (i ? QStringLiteral("\"") : QString()) + part;
  }
  for (const QChar c : joined) {
    if (c == u'"') {
      in_quotes = !in_quotes;
      token.quoted = true;
    } else if (c.isSpace() && !in_quotes) {
      flush();
    } else {
      token.text += c;
    }
  }
  flush();
  return in_quotes ? tr("The quotation mark is not closed.") : QString();
}

}  // namespace

LayerFilter LayerFilter::parse(const QString& text) {
  LayerFilter filter;
  std::vector<Token> tokens;
  QString error = tokenize(text, tokens);
  for (const auto& token : tokens) {
    if (!error.isEmpty()) break;
    error = filter.add_term(token.text, token.quoted);
  }
  if (error.isEmpty()) return filter;
  LayerFilter broken;
  broken.error_ = error;
  return broken;
}

QString LayerFilter::add_term(const QString& token, bool quoted) {
  const bool negated = token.startsWith(u'!') && !token.startsWith(QLatin1String("!="));
  const QString body = negated ? token.mid(1) : token;
  static const QRegularExpression condition(QStringLiteral("^([A-Za-z_]*)(<=|>=|!=|<|>|=|:)(.*)$"));
  const auto match = condition.match(body);
  if (match.hasMatch() && (!quoted || !match.captured(1).isEmpty()))
    return add_condition(match.captured(1).toLower(), match.captured(2), match.captured(3), negated);
  if (body.isEmpty()) return tr("'!' needs a word or a condition after it.");
  terms_.push_back({{}, Op::kContains, {body}, 0, negated});
  return {};
}

QString LayerFilter::add_condition(const QString& key, const QString& op, const QString& value, bool negated) {
  Term term;
  term.key = key;
  term.negated = negated;
  if (value.isEmpty()) return tr("'%1' needs a value, for example %2.").arg(key + op, QStringLiteral("bits<=4"));
  if (key == QLatin1String("is")) {
    if (!find_key(kStates, value)) return tr("'is:%1' is unknown; use one of: %2.").arg(value, key_list(kStates));
    term.op = Op::kIs;
    term.texts = {value};
  } else if (find_key(kTexts, key)) {
    if (op != QLatin1String(":") && op != QLatin1String("=") && op != QLatin1String("!="))
      return tr("'%1' is a text; compare it with ':' or '='.").arg(key);
    term.op = Op::kOneOf;
    term.texts = value.split(u',', Qt::SkipEmptyParts);
    term.negated = negated != (op == QLatin1String("!="));
  } else if (find_key(kNumbers, key)) {
    static const std::pair<const char*, Op> kOps[] = {
        {"<=", Op::kLessEqual}, {">=", Op::kGreaterEqual}, {"!=", Op::kNotEqual}, {"<", Op::kLess},
        {">", Op::kGreater},    {"=", Op::kEqual},         {":", Op::kEqual}};
    for (const auto& [text, code] : kOps)
      if (op == QLatin1String(text)) term.op = code;
    if (!parse_number(value, term.number)) return tr("'%1' is not a number; %2 needs one.").arg(value, key);
  } else {
    return tr("Unknown field '%1'; use name, type, scope, is, %2.").arg(key, key_list(kNumbers));
  }
  terms_.push_back(term);
  return {};
}

bool LayerFilter::holds(const Term& term, const LayerRow& row) {
  if (term.op == Op::kContains) {
    const QString& t = term.texts.first();
    return wildcard_match(t, row.name) || wildcard_match(t, row.type) || row.op.contains(t, Qt::CaseInsensitive) ||
           row.scope.contains(t, Qt::CaseInsensitive);
  }
  if (term.op == Op::kIs) return find_key(kStates, term.texts.first())->value(row);
  if (term.op == Op::kOneOf) {
    const auto values = find_key(kTexts, term.key)->values(row);
    for (const auto& pattern : term.texts)
      for (const auto& v : values)
        if (wildcard_match(pattern, v)) return true;
    return false;
  }
  const double v = find_key(kNumbers, term.key)->value(row);
  if (std::isnan(v)) return false;
  switch (term.op) {
    case Op::kLess: return v < term.number;
    case Op::kLessEqual: return v <= term.number;
    case Op::kGreater: return v > term.number;
    case Op::kGreaterEqual: return v >= term.number;
    case Op::kNotEqual: return v != term.number;
    default: return v == term.number;
  }
}

bool LayerFilter::matches(const LayerRow& row) const {
  for (const auto& term : terms_)
    if (holds(term, row) == term.negated) return false;
  return true;
}

}  // namespace quanvas
