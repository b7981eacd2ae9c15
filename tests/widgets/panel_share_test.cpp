// Quantizers that several sites share, in the inspector, the rule dialog and the list of rules.
#include <QPushButton>
#include <QSignalSpy>
#include <QSlider>
#include <QToolButton>
#include <QTreeWidget>

#include "tests/widgets/inspector_bench.h"
#include "widgets/panels/recipe_panel.h"
#include "widgets/panels/rule_dialog.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

Rule shared_weights(const std::vector<std::string>& names, const char* share, int bits = 6) {
  Rule rule;
  rule.select.sites = {SiteKind::kWeight};
  rule.select.names = names;
  rule.override_fields = {{"bits", bits}};
  rule.share = share;
  return rule;
}

class ShareTest : public InspectorTest {
 protected:
  ShareTest() {
    QObject::connect(&panel_, &InspectorPanel::share_wanted, &panel_,
                     [this](const std::vector<Site>& sites, bool share) { wanted_.emplace_back(sites, share); });
    p_.set(with_rule(p_.recipe, shared_weights({"conv1", "conv2", "fc1"}, "w")));
  }
  std::vector<std::pair<std::vector<Site>, bool>> wanted_;
};

TEST_F(ShareTest, TheInspectorSaysWithWhomAndUnshares) {
  select({"conv1"});
  EXPECT_THAT(panel_.share_text().toStdString(),
              HasSubstr("Shared with: conv2 weight, fc1 weight (as “w”). Edits change all of them."));
  ASSERT_TRUE(follow("unshare"));
  ASSERT_EQ(wanted_.size(), 1u);
  EXPECT_EQ(wanted_[0].first, std::vector<Site>{p_.weight("conv1")});
  EXPECT_FALSE(wanted_[0].second);
  p_.set(with_share(p_.recipe, *p_.net.graph, wanted_[0].first, ""));
  select({"conv1"});
  EXPECT_EQ(panel_.share_text(), QString());
  EXPECT_EQ(p_.spec(p_.weight("conv1")).bits, 6) << "the format stays";
  select({"conv2"});
  EXPECT_THAT(panel_.share_text().toStdString(), HasSubstr("Shared with: fc1 weight (as"));
  select({"fc2"});
  EXPECT_EQ(panel_.share_text(), QString());
  EXPECT_FALSE(follow("unshare"));
}

TEST_F(ShareTest, EditsOfOneReachAllAndKeepTheName) {
  select({"conv2"});
  auto* slider = control<QSlider>("bits");
  slider->setFocus();
  QTest::keyClick(slider, Qt::Key_Left);
  ASSERT_EQ(asked_.size(), 1u);
  apply();
  for (const char* name : {"conv1", "conv2", "fc1"}) {
    EXPECT_EQ(p_.spec(p_.weight(name)).bits, 5) << name;
    EXPECT_EQ(p_.plan.find(p_.weight(name))->share, "w") << name;
  }
  EXPECT_THAT(panel_.share_text().toStdString(), HasSubstr("conv1 weight, fc1 weight"));
}

TEST_F(ShareTest, WhatCannotBeSharedIsRefusedWithTheReason) {
  select({"conv1"});
  auto* granularity = control<QComboBox>("granularity");
  const int row = granularity->findData(QStringLiteral("channel"));
  EXPECT_FALSE(granularity->model()->flags(granularity->model()->index(row, 0)) & Qt::ItemIsEnabled);
  EXPECT_THAT(granularity->itemData(row, Qt::ToolTipRole).toString().toStdString(),
              HasSubstr("the quantizer is shared. Unshare it first."));
  auto* presets = panel_.preset_combo();
  const int shown = presets->currentIndex();
  choose(presets, presets->findData(QStringLiteral("int8-weight-per-channel")));
  EXPECT_TRUE(asked_.empty());
  EXPECT_THAT(field_error("granularity").toStdString(), HasSubstr("granularity is channel, which must be tensor"));
  EXPECT_EQ(presets->currentIndex(), shown) << "what was picked is not there";
  // The table and the graph ask the same.
  Assignment per_channel{{p_.weight("conv1")}, PresetLibrary::builtin().find("int8-weight-per-channel")->spec};
  EXPECT_THAT(sharing_refusal(*p_.net.graph, p_.plan, {per_channel}).toStdString(),
              HasSubstr("conv1 shares its quantizer"));
  per_channel.sites = {p_.weight("fc2")};
  EXPECT_EQ(sharing_refusal(*p_.net.graph, p_.plan, {per_channel}), QString());
}

TEST_F(ShareTest, SeveralTensorsOfOneFormatCanShare) {
  p_.set(with_rule(uniform_recipe(4, 4), shared_weights({"conv1", "conv2"}, "")));
  select({"conv1", "conv2"});
  EXPECT_EQ(panel_.share_text(), QString());
  ASSERT_TRUE(follow("share"));
  ASSERT_EQ(wanted_.size(), 1u);
  EXPECT_TRUE(wanted_[0].second);
  const std::string name = fresh_share_name(p_.recipe, wanted_[0].first);
  EXPECT_EQ(name, "shared");
  p_.set(with_share(p_.recipe, *p_.net.graph, wanted_[0].first, name));
  EXPECT_EQ(fresh_share_name(p_.recipe, wanted_[0].first), "shared 2");
  select({"conv1", "conv2"});
  EXPECT_EQ(panel_.share_text().toStdString(), "These 2 tensors share one quantizer. Unshare");
  EXPECT_FALSE(follow("share"));
  // Per channel there is nothing to share.
  p_.set(uniform_recipe(4, 4));
  select({"conv1", "conv2"});
  EXPECT_FALSE(follow("share"));
}

TEST_F(ShareTest, ANameThatNobodyElseHasIsSaid) {
  p_.set(with_rule(uniform_recipe(4, 4), shared_weights({"conv1"}, "lonely")));
  select({"conv1"});
  EXPECT_THAT(panel_.share_text().toStdString(), HasSubstr("“lonely”, a name that no other tensor has."));
  EXPECT_TRUE(follow("unshare"));
}

TEST_F(ShareTest, ARuleForAllOfATypeLeavesThemShared) {
  Rule five;
  five.select.sites = {SiteKind::kWeight};
  five.select.ops = {"Conv"};
  five.override_fields = {{"bits", 5}};
  p_.set(with_rule(uniform_recipe(4, 4), shared_weights({"conv1", "conv2"}, "w")));
  p_.set(with_rule_for_all(p_.recipe, *p_.net.graph, five));
  for (const char* name : {"conv1", "conv2"}) {
    EXPECT_EQ(p_.spec(p_.weight(name)).bits, 5) << name;
    EXPECT_EQ(p_.plan.find(p_.weight(name))->share, "w") << name;
  }
}

class RuleShareTest : public testing::Test {
 protected:
  void open(const Rule& draft) {
    dialog_ = std::make_unique<RuleDialog>(p_.net.graph, draft);
    dialog_->show();
  }
  QLineEdit* share() { return dialog_->form()->editor("share")->findChild<QLineEdit*>(); }
  QPushButton* ok() {
    for (auto* b : dialog_->findChildren<QPushButton*>())
      if (b->text() == QStringLiteral("Set rule")) return b;
    return nullptr;
  }
  std::string error() {
    for (auto* label : dialog_->form()->findChildren<QLabel*>())
      if (label->property("role") == QLatin1String("error") && !label->isHidden())
        return label->text().toStdString();
    return {};
  }
  void type(const char* text) {
    share()->setFocus();
    share()->selectAll();
    QTest::keyClicks(share(), QLatin1String(text));
  }
  void choose(const char* key, const QString& value) {
    auto* combo = dialog_->form()->editor(key)->findChild<QComboBox*>();
    combo->setCurrentIndex(combo->findData(value));
    Q_EMIT combo->activated(combo->currentIndex());
  }
  sample::Project p_ = sample::project();
  std::unique_ptr<RuleDialog> dialog_;
};

TEST_F(RuleShareTest, TheNameIsTypedKeptAndTakenAway) {
  open(shared_weights({"conv1", "conv2"}, "w"));
  EXPECT_EQ(share()->text(), QStringLiteral("w"));
  EXPECT_EQ(dialog_->rule(), shared_weights({"conv1", "conv2"}, "w")) << "nothing edited, nothing changed";
  type("all weights ");
  EXPECT_EQ(dialog_->rule().share, "all weights");
  EXPECT_EQ(error(), "");
  share()->selectAll();
  QTest::keyClick(share(), Qt::Key_Delete);
  EXPECT_EQ(dialog_->rule().share, "");
  EXPECT_EQ(share()->placeholderText(), QStringLiteral("each has its own"));
  EXPECT_THAT(share()->toolTip().isEmpty() ? dialog_->form()->editor("share")->toolTip().toStdString()
                                           : share()->toolTip().toStdString(),
              HasSubstr("one scale and zero point"));
}

TEST_F(RuleShareTest, SaysWhatWouldComeOfIt) {
  open(shared_weights({"conv1"}, ""));
  type("#7");
  EXPECT_THAT(error(), HasSubstr("does not begin with '#'"));
  EXPECT_FALSE(ok()->isEnabled());
  type("node");
  EXPECT_TRUE(ok()->isEnabled());
  EXPECT_THAT(error(), HasSubstr("tick Input"));
  type("w");
  EXPECT_EQ(error(), "");
  choose("format", QStringLiteral("int8-weight-per-channel"));
  EXPECT_THAT(error(), HasSubstr("stay float: granularity is channel, which must be tensor"));
}

TEST_F(RuleShareTest, WhatStaysFloatSharesNothing) {
  open(shared_weights({"conv1"}, "w"));
  choose("format", QStringLiteral("\x01"
                                  "float"));
  EXPECT_FALSE(share()->isEnabled());
  EXPECT_THAT(dialog_->form()->disabled_reason("share").toStdString(), HasSubstr("no quantizer to share"));
  EXPECT_EQ(dialog_->rule().share, "");
  EXPECT_TRUE(dialog_->rule().is_float);
}

TEST(RecipePanelShare, TheListOfRulesTellsIt) {
  RecipePanel panel;
  Recipe recipe;
  recipe.rules = {shared_weights({"conv1"}, "w"), shared_weights({"conv2"}, ""), shared_weights({"add"}, "node")};
  panel.set_recipe(recipe, {1, 1, 1}, {});
  const auto* tree = panel.rules();
  EXPECT_TRUE(tree->topLevelItem(0)->text(1).endsWith(QStringLiteral(", shared")));
  EXPECT_THAT(tree->topLevelItem(0)->toolTip(1).toStdString(), HasSubstr("all sites named “w”"));
  EXPECT_FALSE(tree->topLevelItem(1)->text(1).contains(QStringLiteral("shared")));
  EXPECT_THAT(tree->topLevelItem(2)->toolTip(1).toStdString(), HasSubstr("The inputs of each layer"));
}

}  // namespace
}  // namespace quanvas
