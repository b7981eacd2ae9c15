#include "app/window/status_line.h"

#include <QHBoxLayout>
#include <QProgressBar>
#include <QPushButton>
#include <QToolButton>
#include <QVBoxLayout>

#include "widgets/common/empty_state.h"
#include "widgets/common/icons.h"
#include "widgets/common/theme.h"

namespace quanvas {

StatusLine::StatusLine(QWidget* parent)
    : QWidget(parent), title_(new QLabel(this)), detail_(new QLabel(this)), eta_(new QLabel(this)), cancel_(new QLabel(this)),
      stale_(new QLabel(this)), accuracy_(new QLabel(this)), bar_(new QProgressBar(this)) {
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(12, 0, 12, 0);
  row->setSpacing(12);
  for (auto* l : {detail_, eta_, stale_, accuracy_}) l->setProperty("role", "muted");
  detail_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  bar_->setFixedWidth(160);
  bar_->setRange(0, 1000);
  bar_->setTextVisible(false);
  cancel_->setTextInteractionFlags(Qt::LinksAccessibleByMouse | Qt::LinksAccessibleByKeyboard);
  cancel_->setAccessibleName(tr("Cancel"));
  row->addWidget(title_);
  row->addWidget(detail_, 1);
  row->addWidget(bar_);
  row->addWidget(eta_);
  row->addWidget(cancel_);
  row->addStretch(0);
  row->addSpacing(12);
  row->addWidget(stale_);
  row->addWidget(accuracy_);
  connect(cancel_, &QLabel::linkActivated, this, [this] { Q_EMIT cancel_wanted(job_id_); });
  set_job(nullptr, 0);
}

void StatusLine::set_job(const JobRow* job, int waiting) {
  bar_->setVisible(job);
  eta_->setVisible(job);
  cancel_->setVisible(job);
  job_id_ = job ? job->id : QString();
  if (!job) {
    title_->clear();
    detail_->clear();
    return;
  }
  title_->setText(job->title);
  detail_->setText(waiting > 0 ? tr("%1 (%2 waiting)").arg(job->detail).arg(waiting) : job->detail);
  bar_->setValue(static_cast<int>(job->fraction * 1000));
  eta_->setText(job_state_text(*job));
  cancel_->setText(QStringLiteral("<a href=\"c\" style=\"color:%1; text-decoration:none\">%2</a>").arg(colors().accent.name(), tr("Cancel")));
  cancel_->setVisible(job->phase != JobRow::Phase::kCancelling);
}

void StatusLine::set_message(const QString& text) {
  if (job_id_.isEmpty()) detail_->setText(text);
}
void StatusLine::set_stale(const QString& text) { stale_->setText(text); }
void StatusLine::set_accuracy(const QString& html) { accuracy_->setText(html); }
QString StatusLine::job_text() const { return title_->text(); }
QString StatusLine::stale_text() const { return stale_->text(); }
QString StatusLine::accuracy_text() const { return accuracy_->text(); }

EnginePill::EnginePill(QWidget* parent) : QLabel(parent) {
  setProperty("role", "muted");
  setTextFormat(Qt::RichText);
  connect(&Theme::instance(), &Theme::changed, this, &EnginePill::restyle);
}

void EnginePill::set_state(State state, const QString& text, const QString& tooltip) {
  state_ = state;
  text_ = text;
  setToolTip(tooltip);
  setAccessibleName(text);
  restyle();
}

void EnginePill::restyle() {
  const Colors& c = colors();
  static const QString kMarks[] = {QStringLiteral("○"), QStringLiteral("●"), QStringLiteral("✕")};
  const QColor color = state_ == State::kReady ? c.good : state_ == State::kLost ? c.error : c.muted;
  setText(QStringLiteral("<span style=\"color:%1\">%2</span>&nbsp; %3").arg(color.name(), kMarks[static_cast<int>(state_)], text_.toHtmlEscaped()));
}

Banner::Banner(QWidget* parent) : QFrame(parent), icon_(new QLabel(this)), text_(new QLabel(this)), action_(new QPushButton(this)) {
  setObjectName(QStringLiteral("banner"));
  setProperty("role", "block");
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(12, 6, 8, 6);
  row->setSpacing(10);
  text_->setWordWrap(true);
  text_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  auto* close = new QToolButton(this);
  close->setIcon(icon(QStringLiteral("close")));
  close->setProperty("flat", true);
  close->setToolTip(tr("Close"));
  close->setAccessibleName(tr("Close"));
  row->addWidget(icon_);
  row->addWidget(text_, 1);
  row->addWidget(action_);
  row->addWidget(close);
  connect(close, &QToolButton::clicked, this, &QWidget::hide);
  connect(action_, &QPushButton::clicked, this, [this] { Q_EMIT action_triggered(key_); });
  hide();
}

void Banner::show_message(const QString& key, const QString& icon_name, const QString& text, const QString& action) {
  key_ = key;
  const bool bad = icon_name == QLatin1String("error");
  icon_->setPixmap(icon_pixmap(icon_name, 18, bad ? colors().error : colors().warning, devicePixelRatioF()));
  text_->setText(text);
  action_->setText(action);
  action_->setVisible(!action.isEmpty());
  setAccessibleName(text);
  show();
}

void Banner::hide_key(const QString& key) {
  if (key_ == key) hide();
}

QString Banner::text() const { return isHidden() ? QString() : text_->text(); }

StartPage::StartPage(bool has_example, QWidget* parent)
    : QWidget(parent), empty_(new EmptyState(QStringLiteral("graph"), {}, {}, this)), bar_(new QProgressBar(this)), error_(new QLabel(this)) {
  auto* layout = new QVBoxLayout(this);
  bar_->setFixedWidth(260);
  bar_->setRange(0, 1000);
  bar_->setTextVisible(false);
  error_->setProperty("role", "error");
  error_->setWordWrap(true);
  error_->setAlignment(Qt::AlignCenter);
  error_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  layout->addStretch(2);
  layout->addWidget(empty_);
  layout->addWidget(bar_, 0, Qt::AlignHCenter);
  layout->addWidget(error_);
  layout->addStretch(3);
  empty_->add_action(QStringLiteral("open"), tr("Open…"), QStringLiteral("open"));
  if (has_example) empty_->add_action(QStringLiteral("example"), tr("Open the Fashion-MNIST example"));
  connect(empty_, &EmptyState::action_triggered, this, &StartPage::action_triggered);
  shown_ = has_example ? tr("Drop an ONNX file here, or open the Fashion-MNIST example") : tr("Drop an ONNX file here");
  set_idle();
}

void StartPage::set_idle() {
  bar_->hide();
  empty_->set_text(shown_, tr("Or a Quanvas project. The network's layers, formats and errors appear here."));
}

void StartPage::set_progress(const QString& text, double fraction) {
  error_->hide();
  empty_->set_text(tr("Opening"), text);
  bar_->show();
  bar_->setValue(static_cast<int>(fraction * 1000));
}

void StartPage::set_error(const QString& sentence) {
  set_idle();
  error_->setText(sentence);
  error_->setVisible(!sentence.isEmpty());
}

}  // namespace quanvas
