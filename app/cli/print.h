// Quanvas - what the command line prints with: tables, numbers, errors, the progress line.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/base/json.h"

namespace quanvas::cli {

struct Options;

// A table for people: columns as wide as their longest cell, numbers to the right, units in the heads.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string head;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string thousands(double value);                 // "1,234,567"; "-" for nan
std::string fixed(double value, int digits);         // "inf", "-" for nan
std::string percent(double share);                   // "87.30"; "-" for nan

void print(const std::string& text);                 // to standard output
void print_json(const json& value);

// Progress on standard error: one line that is rewritten on a terminal, else a line for each phase and tenth.
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet);
  void show(const Progress& progress);
  void issue(const Issue& issue);
  void clear();

 private:
  bool quiet_, terminal_, shown_ = false;
  std::string phase_;
  std::set<std::string> said_;
  int tenth_ = -1;
};

// What a verb ended with: its error on standard error (and as JSON on standard output with --json), the exit code. `stopped`:
// it was asked to stop and stored what it had.
int finish(const Status& status, const Options& options, bool stopped);

}  // namespace quanvas::cli
