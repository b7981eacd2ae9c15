// What contradicts itself in the table of an export target.
#include <algorithm>
#include <set>

#include "core/plugin/target_table.h"

namespace quanvas {
namespace {

template <class T>
bool takes(const std::vector<T>& list, const T& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

// As format_name() says them.
bool is_format(const std::string& name) {
  for (const char* known :
       {"int", "ternary", "binary", "e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e2m3", "e3m2"})
    if (name == known || name == std::string("u") + known) return true;
  return find_codebook(name) || name.rfind("float e", 0) == 0 || name.rfind("ufloat e", 0) == 0;
}

}  // namespace

std::vector<std::string> problems(const TargetTable& table) {
  std::vector<std::string> out;
  std::set<std::string> forms;
  for (const TargetRow& row : table.rows) {
    const auto say = [&](const std::string& what) { out.push_back("Row '" + row.form + "' " + what + "."); };
    if (row.form.empty()) say("has no name");
    if (!forms.insert(row.form).second) say("is there twice");
    if (row.sites.empty()) say("is for no site");
    const bool integers = takes(row.formats, std::string("int"));
    if (integers && (row.least_bits < 1 || row.most_bits > 32 || row.least_bits > row.most_bits))
      say("takes integers of " + std::to_string(row.least_bits) + " to " + std::to_string(row.most_bits) + " bit");
    for (const std::string& format : row.formats)
      if (!is_format(format)) say("takes '" + format + "', which is no number format");
    const bool groups = takes(row.granularities, Granularity::kGroup);
    if (!groups && (!row.group_sizes.empty() || row.group_multiple != 0))
      say("limits the size of groups and takes none");
    if (row.group_multiple < 0) say("takes groups of multiples of " + std::to_string(row.group_multiple));
    for (const int size : row.group_sizes) {
      const std::string groups_of = "takes groups of " + std::to_string(size);
      if (size < 1)
        say(groups_of);
      else if (row.group_multiple > 0 && size % row.group_multiple != 0)
        say(groups_of + ", no multiple of " + std::to_string(row.group_multiple));
    }
    for (const int axis : row.axes)
      if (axis < 0 && axis != kOwnAxis) say("takes axis " + std::to_string(axis) + ", which is counted from the last");
  }
  for (const TargetNeed& need : table.needs) {
    const auto say = [&](const std::string& what) {
      out.push_back("The need of a quantizer at " + std::string(enum_text(need.site)) + " " + what + ".");
    };
    if (need.why.empty()) say("has no reason");
    if (const std::string wrong = check(need.fix, need.site); !wrong.empty()) {
      say("has an illegal fix: " + wrong);
      continue;
    }
    for (const std::string& op : need.ops.empty() ? std::vector<std::string>{"Conv"} : need.ops)
      if (!judge(table, op, need.site, need.fix).row) say("of " + op + " has a fix that no row takes");
  }
  return out;
}

}  // namespace quanvas
