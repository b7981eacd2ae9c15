#include "app/session/edit_recipe.h"

#include <utility>

namespace quanvas {
namespace {

constexpr char kUndo[] = "Undo: ";  // stored in projects

}  // namespace

std::optional<std::string> undone_label(const std::string& label) {
  if (label.rfind(kUndo, 0) != 0) return std::nullopt;
  return label.substr(sizeof kUndo - 1);
}

EditRecipe::EditRecipe(Recipe before, Recipe after, const QString& label, const QString& merge_key, Apply apply,
                       bool done)
    : QUndoCommand(label),
      before_(std::move(before)),
      after_(std::move(after)),
      label_(label),
      merge_key_(merge_key),
      apply_(std::move(apply)),
      done_(done) {}

void EditRecipe::redo() {
  const bool skip = std::exchange(done_, false);
  const bool first = std::exchange(first_, false);
  if (!skip) apply_(after_, label_, first ? merge_key_ : QString());
}

void EditRecipe::undo() { apply_(before_, QLatin1String(kUndo) + label_, {}); }

bool EditRecipe::mergeWith(const QUndoCommand* other) {
  const auto* next = static_cast<const EditRecipe*>(other);
  if (next->merge_key_ != merge_key_) return false;
  after_ = next->after_;
  if (after_ == before_) setObsolete(true);
  return true;
}

}  // namespace quanvas
