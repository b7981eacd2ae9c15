// Quanvas - the one undo command: a recipe before and after. Consecutive edits with the same merge key become
// one step. GUI thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <QString>
#include <QUndoCommand>

#include "core/recipe/recipe.h"

namespace quanvas {

// The label of an edit that was undone, when this is the label of its undoing.
std::optional<std::string> undone_label(const std::string& label);

class EditRecipe final : public QUndoCommand {
 public:
  // Makes a recipe the current one; merge_key as given to the command, empty for undo and redo.
  using Apply = std::function<void(const Recipe& recipe, const QString& label, const QString& merge_key)>;

  // done: the edit has happened already (history of an opened project); pushing it changes nothing.
  EditRecipe(Recipe before, Recipe after, const QString& label, const QString& merge_key, Apply apply,
             bool done = false);

  void redo() override;
  void undo() override;
  int id() const override { return merge_key_.isEmpty() ? -1 : 1; }
  bool mergeWith(const QUndoCommand* other) override;

 private:
  Recipe before_, after_;
  QString label_, merge_key_;
  Apply apply_;
  bool done_, first_ = true;
};

}  // namespace quanvas
