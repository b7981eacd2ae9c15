// Quanvas - the files whose code the user has let run, and the way to take that back. Values in, intents out.
#pragma once

#include <vector>

#include <QDialog>
#include <QStringList>

#include "core/report/trusted_models.h"

class QLabel;
class QPushButton;
class QStackedLayout;
class QTableWidget;

namespace quanvas {

class TrustDialog : public QDialog {
  Q_OBJECT

 public:
  explicit TrustDialog(QWidget* parent = nullptr);
  void set_models(const std::vector<TrustedModel>& models);
  void set_problem(const QString& sentence);   // empty: none
  QTableWidget* table() const { return table_; }

 Q_SIGNALS:
  void revoke_wanted(const QStringList& hashes);

 private:
  void revoke();
  void update_button();

  std::vector<TrustedModel> models_;
  QTableWidget* table_;
  QLabel *none_, *problem_;
  QPushButton* revoke_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
