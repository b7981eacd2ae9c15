#include "widgets/models/runs_model.h"

#include <cmath>
#include <limits>

#include <QFont>
#include <QPixmap>

#include "widgets/common/format.h"
#include "widgets/common/icons.h"
#include "widgets/common/theme.h"
#include "widgets/models/counted.h"

namespace quanvas {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct ColumnText {
  const char* title;
  const char* tooltip;
};
const ColumnText kTexts[RunsModel::kColumns] = {
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Run"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Number of the run. Tick: of the current recipe. Clock: of another model or other data than now")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Recipe"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Name of the recipe that was run")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Top-1, %"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Share of samples whose first class is right, ± standard error √(p(1−p)/n)")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Δ float"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Top-1 (in points) or perplexity minus that of the float network on the same samples")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Size"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Weights and biases as quantized, with scales")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "SQNR, dB"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "10·log10( Σy² / Σ(y−y~)² ) of the network's output against float")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "BOPs"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "Bit operations: Σ MACs × weight bits × activation bits")},
    {QT_TRANSLATE_NOOP("quanvas::RunsModel", "Time"), QT_TRANSLATE_NOOP("quanvas::RunsModel", "How long the run took")},
};

const ColumnText kPerplexity = {
    QT_TRANSLATE_NOOP("quanvas::RunsModel", "Perplexity"),
    QT_TRANSLATE_NOOP("quanvas::RunsModel", "exp of the mean loss per token in nats, ± standard error over the windows; smaller is better")};

QIcon no_icon() {
  QPixmap empty(16, 16);
  empty.fill(Qt::transparent);
  return QIcon(empty);
}

}  // namespace

const Run* float_baseline(const Run& run, const std::vector<Run>& runs) {
  if (!run.accuracy) return nullptr;
  const Run* found = nullptr;
  for (const auto& r : runs)
    if (r.kind == RunKind::kFloat && r.accuracy && r.model_hash == run.model_hash && r.data_hash == run.data_hash && r.accuracy->samples == run.accuracy->samples) found = &r;
  return found;
}

QString run_accuracy_text(const Accuracy& a) {
  if (has_perplexity(a)) return QString::fromStdString(perplexity_text(a));
  if (std::isnan(a.top1)) return missing_text();
  return QStringLiteral("%1 ± %2").arg(number_text(a.top1 * 100, 2), number_text(a.top1_stderr * 100, 2));
}

void RunsModel::set_runs(std::vector<Run> runs, std::set<std::int64_t> stale, std::int64_t current) {
  const bool same = runs.size() == runs_.size() && std::equal(runs.begin(), runs.end(), runs_.begin(), [](const Run& a, const Run& b) { return a.id == b.id; });
  if (!same) beginResetModel();
  runs_ = std::move(runs);
  stale_ = std::move(stale);
  current_ = current;
  if (!same) endResetModel();
  Q_EMIT headerDataChanged(Qt::Horizontal, kTop1, kTop1);
  if (same && !runs_.empty()) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, kColumns - 1));
}

void RunsModel::set_marks(const std::set<std::int64_t>& stale, std::int64_t current) {
  if (stale == stale_ && current == current_) return;
  stale_ = stale;
  current_ = current;
  if (!runs_.empty()) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, kColumns - 1));
}

const Run* RunsModel::run(std::int64_t id) const {
  for (const auto& r : runs_)
    if (r.id == id) return &r;
  return nullptr;
}

int RunsModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : static_cast<int>(runs_.size()); }
int RunsModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : kColumns; }

double RunsModel::delta(const Run& run) const {
  if (run.kind == RunKind::kFloat) return kUnknown;
  const Run* base = float_baseline(run, runs_);
  if (base && has_perplexity(*run.accuracy)) return run.accuracy->perplexity - base->accuracy->perplexity;
  return base ? (run.accuracy->top1 - base->accuracy->top1) * 100 : kUnknown;
}

bool RunsModel::only_perplexities() const {
  bool any = false;
  for (const Run& r : runs_) {
    if (!r.accuracy) continue;
    if (!has_perplexity(*r.accuracy)) return false;
    any = true;
  }
  return any;
}

double RunsModel::number(const Run& run, int column) const {
  switch (column) {
    case kId: return static_cast<double>(run.id);
    case kTop1:  // for sorting: a smaller perplexity is as a larger share, so that the best stand at the same end
      if (!run.accuracy) return kUnknown;
      return has_perplexity(*run.accuracy) ? -run.accuracy->perplexity : run.accuracy->top1 * 100;
    case kDelta: return delta(run);
    case kSize: return run.kind == RunKind::kFloat ? run.bytes_float : run.bytes > 0 ? run.bytes : kUnknown;
    case kSqnr: return run.accuracy ? run.accuracy->output_sqnr_db : kUnknown;
    case kBops: return run.bops > 0 ? run.bops : kUnknown;
    case kTime: return run.seconds;
    default: return kUnknown;
  }
}

QString RunsModel::text(const Run& run, int column) const {
  const double v = number(run, column);
  switch (column) {
    case kId: return QString::number(run.id);
    case kRecipe: return QString::fromStdString(run.name);
    case kTop1: return run.accuracy ? run_accuracy_text(*run.accuracy) : missing_text();
    case kDelta: return std::isnan(v) ? QString() : signed_text(v, has_perplexity(*run.accuracy) ? 3 : 2);
    case kSize: return std::isnan(v) ? missing_text() : bytes_text(v);
    case kSqnr: return std::isnan(v) ? missing_text() : number_text(v, 1);
    case kBops: return std::isnan(v) ? missing_text() : si_text(v);
    case kTime: return duration_text(v);
  }
  return {};
}

QString RunsModel::tooltip(const Run& run) const {
  QStringList lines = {QString::fromStdString(run.name), tr("started %1").arg(QString::fromStdString(run.created))};
  if (run.accuracy && has_perplexity(*run.accuracy))
    lines << tr("%1 tokens in %2 windows").arg(count_text(run.accuracy->tokens), count_text(run.accuracy->samples));
  else if (run.accuracy) lines << tr("%1 samples").arg(count_text(run.accuracy->samples));
  if (run.id == current_) lines << tr("This is the current recipe.");
  if (is_stale(run.id)) lines << tr("Stale: the model or the data are others now.");
  if (!run.issues.empty()) lines << counted(static_cast<double>(run.issues.size()), tr("1 issue, see the details"), tr("%1 issues, see the details"));
  return lines.join(u'\n');
}

QVariant RunsModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || index.row() >= rowCount()) return {};
  const Run& run = runs_[static_cast<std::size_t>(index.row())];
  switch (role) {
    case Qt::DisplayRole: return text(run, index.column());
    case Qt::ToolTipRole: return tooltip(run);
    case Qt::TextAlignmentRole:
      return QVariant((index.column() > kRecipe ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    case Qt::DecorationRole:
      if (index.column() != kId) return {};
      if (is_stale(run.id)) return icon(QStringLiteral("stale"), IconRole::kMuted);
      if (run.id == current_) return icon(QStringLiteral("check"), IconRole::kGood);
      return no_icon();  // so that the numbers stand below each other
    case Qt::FontRole: return index.column() == kTop1 ? QVariant(text_font(12.5, QFont::DemiBold)) : QVariant();
    case Qt::ForegroundRole:
      return index.column() == kDelta || is_stale(run.id) ? QVariant(colors().muted) : QVariant();
    case kSortRole: return index.column() == kRecipe ? QVariant(text(run, kRecipe)) : QVariant(number(run, index.column()));
    case kRunRole: return static_cast<qlonglong>(run.id);
    default: return {};
  }
}

QVariant RunsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || section < 0 || section >= kColumns) return {};
  const ColumnText& text = section == kTop1 && only_perplexities() ? kPerplexity : kTexts[section];
  if (role == Qt::DisplayRole) return tr(text.title);
  if (role == Qt::ToolTipRole) return tr(text.tooltip);
  if (role == Qt::TextAlignmentRole) return QVariant((section > kRecipe ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  return {};
}

bool RunsProxy::lessThan(const QModelIndex& a, const QModelIndex& b) const {
  const QVariant x = a.data(RunsModel::kSortRole), y = b.data(RunsModel::kSortRole);
  if (x.typeId() == QMetaType::QString) return QString::localeAwareCompare(x.toString(), y.toString()) < 0;
  const double u = x.toDouble(), v = y.toDouble();
  if (std::isnan(u) && std::isnan(v)) return false;
  if (std::isnan(u)) return sortOrder() == Qt::DescendingOrder;
  if (std::isnan(v)) return sortOrder() == Qt::AscendingOrder;
  return u < v;
}

}  // namespace quanvas
