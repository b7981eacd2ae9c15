// What the verbs print with: tables, numbers, the progress line.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "app/cli/options.h"
#include "app/cli/print.h"
#include "core/report/report.h"

namespace quanvas::cli {
namespace {

// Columns on a terminal: UTF-8 continuation bytes take none.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t columns, bool right) {
  const std::string space(columns - std::min(columns, width(text)), ' ');
  return right ? space + text : text + space;
}

}  // namespace

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& column : columns_) widths.push_back(width(column.head));
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  std::string out;
  const auto line = [&](auto&& cell) {
    std::string text;
    for (std::size_t i = 0; i < columns_.size(); ++i)
      text += (i ? "  " : "") + padded(cell(i), widths[i], columns_[i].align == Align::kRight);
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  line([&](std::size_t i) { return columns_[i].head; });
  line([&](std::size_t i) { return std::string(widths[i], '-'); });
  for (const auto& row : rows_) line([&](std::size_t i) { return i < row.size() ? row[i] : std::string(); });
  return out;
}

std::string thousands(double value) {
  if (!std::isfinite(value)) return fixed(value, 0);
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.0f", std::abs(value));
  std::string text = digits;
  for (auto i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3)
    text.insert(static_cast<std::size_t>(i), ",");
  return (value < 0 ? "-" : "") + text;
}

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string percent(double share) { return fixed(100 * share, 2); }

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

namespace {
bool json_is_out = false;  // standard output holds one document
}  // namespace

void print_json(const json& value) {
  json_is_out = true;
  print(value.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

ProgressLine::ProgressLine(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const Progress& progress) {
  if (quiet_) return;
  const int share = static_cast<int>(std::lround(100 * progress.fraction));
  std::string text = progress.phase + (progress.detail.empty() ? "" : ": " + progress.detail);
  if (progress.seconds_left >= 1) text += ", " + thousands(std::ceil(progress.seconds_left)) + " s left";
  if (terminal_) {
    constexpr std::size_t kMost = 100;
    if (text.size() > kMost) text = text.substr(0, kMost - 3) + "...";
    std::fprintf(stderr, "\r\033[K%3d %% %s", share, text.c_str());
    std::fflush(stderr);
    shown_ = true;
    return;
  }
  if (progress.phase == phase_ && share / 10 == tenth_) return;
  phase_ = progress.phase;
  tenth_ = share / 10;
  std::fprintf(stderr, "%3d %% %s\n", share, text.c_str());
}

void ProgressLine::issue(const Issue& issue) {
  // What opening, preparing and running a network find alike is said once.
  if (!said_.insert(issue.where + "\n" + issue.message).second) return;
  clear();
  std::fprintf(stderr, "%s: %s%s%s%s%s\n", enum_text(issue.severity), issue.where.c_str(),
               issue.where.empty() ? "" : ": ", issue.message.c_str(), issue.hint.empty() ? "" : " ",
               issue.hint.c_str());
}

void ProgressLine::clear() {
  if (shown_) std::fprintf(stderr, "\r\033[K");
  shown_ = false;
}

int finish(const Status& status, const Options& options, bool stopped) {
  if (status && std::fflush(stdout) != 0) {
    std::fprintf(stderr, "quanvas-cli: Cannot write to standard output.\n");
    return exit_code(ErrorCode::kIo);
  }
  if (status) return stopped ? exit_code(ErrorCode::kCancelled) : 0;
  const Error& error = status.error();
  std::fprintf(stderr, "quanvas-cli: %s\n", error.text().c_str());
  if (options.json && !json_is_out)
    print_json({{"error",
                 {{"code", to_string(error.code)}, {"message", error.message}, {"hint", error.hint},
                  {"context", error.context}}}});
  std::fflush(stdout);
  return exit_code(error.code);
}

}  // namespace quanvas::cli
