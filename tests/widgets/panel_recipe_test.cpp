// Recipe panel, rule dialog, data, training and export dialogs: what their controls ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenu>
#include <QPushButton>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTableWidget>
#include <QTemporaryDir>
#include <QTest>
#include <QToolButton>
#include <QTreeWidget>

#include "tests/widgets/panel_sample.h"
#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/panels/data_dialog.h"
#include "widgets/panels/export_dialog.h"
#include "widgets/panels/palette.h"
#include "widgets/panels/recipe_panel.h"
#include "widgets/panels/rule_dialog.h"
#include "widgets/panels/train_dialog.h"

namespace quanvas {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<PluginEntry> some_passes() {
  const json catalog = {{"passes",
                         {{{"id", "fold-bn"}, {"title", "Fold batch normalization"}, {"doc", "d"}, {"stage", "graph"}, {"schema", to_json_value(Schema{})}},
                          {{"id", "bias-correction"}, {"title", "Correct biases"}, {"doc", "d"}, {"stage", "weights"}, {"schema", to_json_value(Schema{})}},
                          {{"id", "qat"}, {"title", "Quantization-aware training"}, {"doc", "d"}, {"stage", "training"},
                           {"schema", to_json_value(Schema{{integer_field("epochs", "Epochs", "", 1, 1, 100)}})}},
                          {{"title", "no id"}}, 7, {{"id", "broken"}, {"schema", "text"}}}}};
  return plugin_entries(catalog, "passes");
}

class RecipePanelTest : public testing::Test {
 protected:
  RecipePanelTest() {
    panel_.resize(400, 700);
    panel_.set_passes(some_passes());
    show(uniform_recipe(4, 4));
    panel_.show();
    QObject::connect(&panel_, &RecipePanel::recipe_edited, &panel_, [this](const Recipe& r, const QString& label) {
      labels_ << label;
      show(r);
    });
  }
  void show(const Recipe& r) {
    recipe_ = r;
    panel_.set_recipe(r, std::vector<int>(r.rules.size(), 5), {});
  }
  void press(const char* accessible_name) {
    for (auto* b : panel_.findChildren<QToolButton*>())
      if (b->accessibleName() == QLatin1String(accessible_name)) return b->click();
    FAIL() << accessible_name;
  }
  RecipePanel panel_;
  Recipe recipe_;
  QStringList labels_;
};

TEST(CatalogTest, EntriesThatCannotBeReadAreLeftOut) {
  EXPECT_EQ(some_passes().size(), 3u);
  EXPECT_TRUE(plugin_entries(json(), "passes").empty());
  EXPECT_TRUE(plugin_entries({{"passes", 3}}, "passes").empty());
}

TEST_F(RecipePanelTest, ListsRulesInWordsAndMovesAndDeletesThem) {
  const auto rules = recipe_.rules;
  ASSERT_EQ(panel_.rules()->topLevelItemCount(), static_cast<int>(rules.size()));
  EXPECT_EQ(panel_.rules()->topLevelItem(0)->text(2), QStringLiteral("W4"));
  EXPECT_EQ(panel_.rules()->topLevelItem(0)->text(1).toStdString(), describe(rules[0].select));
  panel_.rules()->setCurrentItem(panel_.rules()->topLevelItem(0));
  press("Move the rule down");
  EXPECT_EQ(recipe_.rules[1], rules[0]);
  panel_.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&panel_));  // shortcuts need it
  panel_.rules()->setFocus();
  QTest::keyClick(panel_.rules(), Qt::Key_Up, Qt::AltModifier);
  EXPECT_EQ(recipe_.rules, rules);
  press("Delete the rule");
  EXPECT_EQ(recipe_.rules.size(), rules.size() - 1);
  EXPECT_EQ(labels_.last(), QStringLiteral("Delete rule 1"));
}

TEST_F(RecipePanelTest, PassesAreSwitchedAddedAndHaveTheirOptions) {
  ASSERT_EQ(panel_.passes()->topLevelItemCount(), 1);
  panel_.passes()->topLevelItem(0)->setCheckState(0, Qt::Unchecked);
  EXPECT_FALSE(recipe_.passes[0].enabled);
  for (auto* menu : panel_.findChildren<QMenu*>())
    for (auto* action : menu->actions())
      if (action->text() == QStringLiteral("Quantization-aware training")) action->trigger();
  ASSERT_EQ(recipe_.passes.size(), 2u);
  panel_.passes()->setCurrentItem(panel_.passes()->topLevelItem(1));
  panel_.pass_form()->editor("epochs")->findChild<QSpinBox*>()->setValue(3);
  EXPECT_EQ(recipe_.passes[1].options["epochs"], 3);
  press("Move the pass up");
  EXPECT_EQ(recipe_.passes[0].id, "qat");
  panel_.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&panel_));  // shortcuts need it
  panel_.passes()->setFocus();
  QTest::keyClick(panel_.passes(), Qt::Key_Down, Qt::AltModifier);
  EXPECT_EQ(recipe_.passes[1].id, "qat") << "the same keys as in the list of rules";
  QTest::keyClick(panel_.passes(), Qt::Key_Up, Qt::AltModifier);
  EXPECT_EQ(recipe_.passes[0].id, "qat");
  press("Remove the pass");
  ASSERT_EQ(recipe_.passes.size(), 1u);
  EXPECT_EQ(recipe_.passes[0].id, "fold-bn");
}

TEST_F(RecipePanelTest, AWeightPassCanBeLimitedToTheSelectedLayers) {
  Recipe r = uniform_recipe(4, 4);
  r.passes.push_back({"bias-correction"});
  show(r);
  const auto button = [&](const char* name) { return panel_.findChild<QToolButton*>(QLatin1String(name)); };
  const auto* text = panel_.findChild<QLabel*>(QStringLiteral("pass-layers"));
  panel_.passes()->setCurrentItem(panel_.passes()->topLevelItem(0));
  EXPECT_FALSE(text->isVisible()) << "a graph pass changes the network as a whole";
  panel_.passes()->setCurrentItem(panel_.passes()->topLevelItem(1));
  ASSERT_TRUE(text->isVisible());
  EXPECT_EQ(text->text(), QStringLiteral("Layers: all"));
  EXPECT_FALSE(button("pass-selected")->isEnabled());
  panel_.set_selected_layers({"conv*1", "fc"});
  QTest::mouseClick(button("pass-selected"), Qt::LeftButton);
  EXPECT_EQ(recipe_.passes[1].select.names, (std::vector<std::string>{"conv\\*1", "fc"}));
  EXPECT_TRUE(text->text().contains(QStringLiteral("fc"))) << text->text().toStdString();
  QTest::mouseClick(button("pass-all"), Qt::LeftButton);
  EXPECT_EQ(recipe_.passes[1].select, Selector{});
  EXPECT_EQ(labels_, (QStringList{QStringLiteral("Correct biases: these layers only"), QStringLiteral("Correct biases: all layers")}));
}

TEST_F(RecipePanelTest, SaysWhatKeepsAPassFromRunning) {
  Recipe r = recipe_;
  r.passes = {{"fold-bn"}, {"bias-correction"}, {"qat"}};
  show(r);
  const auto lines = [&] {
    QStringList out;
    for (const auto* label : panel_.findChild<QWidget*>("pass-issues")->findChildren<QLabel*>())
      if (!label->text().isEmpty()) out << label->text();
    return out;
  };
  const auto mark = [&](int i) { return !panel_.passes()->topLevelItem(i)->icon(1).isNull(); };
  panel_.set_issues({{0, {Severity::kInfo, "", "It takes a while.", ""}, true},
                     {1, {Severity::kInfo, "", "It will keep 3 MB in memory.", ""}},
                     {2, {Severity::kError, "conv1", "Its weights are float.", "Give them a format."}}});
  EXPECT_TRUE(mark(0)) << "it has yet to measure";
  EXPECT_FALSE(mark(1));
  EXPECT_TRUE(mark(2));
  panel_.passes()->setCurrentItem(panel_.passes()->topLevelItem(2));
  EXPECT_EQ(lines(), QStringList{"conv1: Its weights are float. Give them a format."});
  EXPECT_THAT(panel_.passes()->topLevelItem(2)->toolTip(0).toStdString(), HasSubstr("Its weights are float."));
  panel_.passes()->setCurrentItem(panel_.passes()->topLevelItem(1));
  EXPECT_EQ(lines(), QStringList{"It will keep 3 MB in memory."});
  std::vector<RecipeIssue> many;
  for (int i = 0; i < 9; ++i) many.push_back({1, {Severity::kInfo, "layer " + std::to_string(i), "No.", ""}});
  many.push_back({-1, {Severity::kError, "", "Nothing runs.", ""}});
  panel_.set_issues(many);
  ASSERT_EQ(lines().size(), 7);
  EXPECT_EQ(lines().front(), QString("Nothing runs."));
  EXPECT_EQ(lines().back(), QString("And 4 more."));
  panel_.set_issues({{2, {Severity::kError, "conv1", "Its weights are float.", ""}}});
  ASSERT_TRUE(mark(2));
  r.passes.erase(r.passes.begin());
  show(r);
  EXPECT_TRUE(lines().isEmpty()) << "of the list as it was";
  EXPECT_FALSE(mark(1));
  panel_.set_recipe(r, {}, {"Rule 1 matches nothing."});
  panel_.set_issues({{-1, {Severity::kWarning, "", "Rule 1 matches nothing.", ""}}, {-1, {Severity::kWarning, "", "After folding it is float.", ""}}});
  EXPECT_EQ(lines(), QStringList{"After folding it is float."}) << "the other one stands below the rules";
  EXPECT_TRUE(labels_.isEmpty()) << "marks are no edits";
}

TEST_F(RecipePanelTest, CalibrationSettings) {
  panel_.calibration_form()->editor("samples")->findChild<QSpinBox*>()->setValue(64);
  EXPECT_EQ(recipe_.calibration.samples, 64);
}

TEST(RuleDialogTest, CountsMatchesWhileItIsEditedAndKeepsTheFormat) {
  const auto p = sample::project();
  Rule draft = p.recipe.rules[0];
  RuleDialog dialog(p.net.graph, draft);
  dialog.show();
  EXPECT_EQ(dialog.rule().override_fields, draft.override_fields) << "nothing edited, nothing changed";
  EXPECT_EQ(dialog.rule().preset, draft.preset);
  EXPECT_EQ(dialog.rule().select, draft.select);
  auto* format = dialog.form()->editor("format")->findChild<QComboBox*>();
  EXPECT_EQ(format->currentText(), QStringLiteral("Integer 4 bit signed, −7 … 7, per channel, …")) << "what fits";
  EXPECT_EQ(format->itemData(format->currentIndex(), Qt::ToolTipRole).toString().toStdString(), describe(*rule_spec(draft, PresetLibrary::builtin())));
  EXPECT_EQ(dialog.matches(), 5);
  auto* ops = dialog.form()->editor("ops")->findChild<QLineEdit*>();
  ops->setFocus();
  QTest::keyClicks(ops, QStringLiteral("Conv"));
  EXPECT_EQ(dialog.matches(), 2);
  QTest::keyClicks(ops, QStringLiteral(", Gemm"));
  EXPECT_EQ(dialog.matches(), 5);
  auto* position = dialog.form()->editor("position")->findChild<QComboBox*>();
  position->setCurrentIndex(position->findData(QStringLiteral("first")));
  Q_EMIT position->activated(position->currentIndex());
  EXPECT_EQ(dialog.matches(), 1);
  EXPECT_EQ(dialog.rule().select.ops, (std::vector<std::string>{"Conv", "Gemm"}));
}

TEST(RecipeEditsTest, OwnRulesAreTakenBackSiteBySite) {
  auto p = sample::project();
  const QuantSpec spec = p.spec(p.weight("conv2"));
  const std::vector<Site> two = {p.weight("conv2"), p.weight("fc1")};
  p.set(with_assignment(p.recipe, *p.net.graph, two, std::nullopt));
  EXPECT_FALSE(p.plan.find(two[0])->spec);
  p.set(without_own_rules(p.recipe, *p.net.graph, {two[0]}));
  EXPECT_EQ(p.plan.find(two[0])->spec, spec) << "the general rule again";
  EXPECT_FALSE(p.plan.find(two[1])->spec) << "the other layer keeps its own";
  p.set(without_own_rules(p.recipe, *p.net.graph, {two[1]}));
  EXPECT_EQ(p.recipe, uniform_recipe(4, 4));
}

TEST(RecipeEditsTest, MovesOutOfRangeChangeNothing) {
  const Recipe r = uniform_recipe(4, 4);
  for (const auto& [from, to] : {std::pair{-1, 0}, {0, -1}, {0, 99}, {99, 0}}) EXPECT_EQ(with_rule_moved(r, from, to), r);
  EXPECT_EQ(without_rule(r, -1), r);
  EXPECT_EQ(without_rule(r, 99), r);
}

TEST(TrainDialogTest, StartsFromTheRecipesOptionsAndReplacesThePass) {
  Recipe recipe;
  recipe.passes = {{"qat", false, {{"epochs", 4}}}, {"fold-bn", true, json::object()}};
  auto passes = some_passes();
  std::erase_if(passes, [](const PluginEntry& e) { return e.id != "qat"; });
  TrainDialog dialog(passes, recipe);
  EXPECT_EQ(dialog.pass().options["epochs"], 4);
  dialog.form()->editor("epochs")->findChild<QSpinBox*>()->setValue(2);
  const Recipe after = with_pass(recipe, dialog.pass());
  ASSERT_EQ(after.passes.size(), 2u);
  EXPECT_EQ(after.passes[0], (PassEntry{"qat", true, {{"epochs", 2}}}));
  EXPECT_EQ(with_pass(Recipe{}, dialog.pass()).passes.size(), 1u);
}

TEST(DataDialogTest, RoundTripsAndSaysWhatIsWrong) {
  DataSettings data;
  data.name = "Fashion-MNIST";
  data.calibrate = {"idx", {{"images", "a.gz"}, {"labels", "b.gz"}}, 0, 4096};
  data.evaluate = {"idx", {{"images", "c.gz"}, {"labels", ""}}, 100, -1};
  data.preprocessing.scale = 0.00392156863;
  data.preprocessing.mean = {0.485, 0.456, 0.406};
  const std::vector<PluginEntry> readers = {{"idx", "IDX", "doc", {{text_field("images", "Images", "", ""), text_field("labels", "Labels", "", "")}}, {}}};
  DataDialog dialog(data, readers);
  dialog.show();
  EXPECT_EQ(to_json_value(dialog.settings()), to_json_value(data));
  auto* mean = dialog.preprocessing_form()->editor("mean")->findChild<QLineEdit*>();
  mean->setText(QString());
  QTest::keyClicks(mean, QStringLiteral("0.5; 0.5"));
  EXPECT_TRUE(dialog.preprocessing_form()->has_errors());
  QTest::keyClick(mean, Qt::Key_A, Qt::ControlModifier);
  QTest::keyClicks(mean, QStringLiteral("0.5"));
  EXPECT_FALSE(dialog.preprocessing_form()->has_errors());
  EXPECT_EQ(dialog.settings().preprocessing.mean, std::vector<double>{0.5});
  auto* reader = dialog.sources()[0].reader;
  reader->setCurrentIndex(0);
  Q_EMIT reader->activated(0);
  EXPECT_TRUE(dialog.settings().calibrate.reader.empty());
  dialog.set_status(false, QStringLiteral("'a.gz' is missing."));
  EXPECT_EQ(dialog.status(), QStringLiteral("'a.gz' is missing."));
}

TEST(DataDialogTest, AppliesOnlyWhatIsRightAndChangesNoNumber) {
  DataSettings data;
  data.preprocessing.scale = 1.0 / 255;
  data.preprocessing.mean = {0.1 + 0.2, 1.0 / 3, 123.675};
  data.preprocessing.std = {0.22900000214576721, 5e-324, 58.395};
  DataDialog dialog(data, {});
  dialog.show();
  EXPECT_TRUE(dialog.settings() == data) << "what was not touched stays the same to the last bit";
  std::vector<DataSettings> applied;
  QObject::connect(&dialog, &DataDialog::apply_wanted, &dialog, [&](const DataSettings& d) { applied.push_back(d); });
  QPushButton* apply = nullptr;
  for (auto* button : dialog.findChildren<QPushButton*>())
    if (button->text().remove(u'&') == QStringLiteral("Apply")) apply = button;
  ASSERT_TRUE(apply);
  auto* mean = dialog.preprocessing_form()->editor("mean")->findChild<QLineEdit*>();
  mean->setText(QString());
  QTest::keyClicks(mean, QStringLiteral("0.485; 0.456"));
  apply->click();
  EXPECT_TRUE(applied.empty());
  EXPECT_THAT(dialog.status().toStdString(), HasSubstr("Nothing was applied"));
  QTest::keyClick(mean, Qt::Key_A, Qt::ControlModifier);
  QTest::keyClicks(mean, QStringLiteral("0.485, 0.456"));
  apply->click();
  ASSERT_EQ(applied.size(), 1u);
  EXPECT_EQ(applied[0].preprocessing.mean, (std::vector<double>{0.485, 0.456}));
}

TEST(DataDialogTest, AReaderThatIsNotInstalledIsKept) {
  DataSettings data;
  data.calibrate.reader = "parquet";
  DataDialog dialog(data, {});
  EXPECT_EQ(dialog.settings().calibrate.reader, "parquet");
}

TEST(ExportDialogTest, RefusalsBarATargetAndTheAuditIsShown) {
  const std::vector<PluginEntry> targets = {{"onnx-qdq", "ONNX QDQ", "doc", {}, {{"extension", ".onnx"}}}, {"other", "Other", "doc", {}, {}}};
  ExportDialog dialog(targets, 7, QStringLiteral("run 7"), QStringLiteral("/no/such/folder/net"), true);
  dialog.show();
  std::vector<QString> checked;
  QObject::connect(&dialog, &ExportDialog::check_wanted, &dialog, [&](const QString& t) { checked.push_back(t); });
  EXPECT_FALSE(dialog.export_button()->isEnabled()) << "not before the target was checked";
  Refusal refusal;
  refusal.layer = "conv2";
  refusal.quantizer = "weight";
  refusal.rule = "bits";
  refusal.got = "3";
  refusal.allowed = "4 or 8";
  dialog.set_refusals(QStringLiteral("onnx-qdq"), {refusal});
  EXPECT_FALSE(dialog.export_button()->isEnabled());
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("conv2"));
  dialog.select_target(QStringLiteral("other"));
  ASSERT_EQ(checked.size(), 1u);
  EXPECT_EQ(checked[0], QStringLiteral("other"));
  dialog.select_target(QStringLiteral("onnx-qdq"));
  dialog.set_refusals(QStringLiteral("onnx-qdq"), {});
  ASSERT_TRUE(dialog.export_button()->isEnabled());
  QString path;
  qint64 run = 0, samples = -1;
  QObject::connect(&dialog, &ExportDialog::export_wanted, &dialog, [&](const QString&, const QString& p, const json&, qint64 r, qint64 n) {
    path = p;
    run = r;
    samples = n;
  });
  dialog.samples_box()->setFocus();
  dialog.samples_box()->selectAll();
  QTest::keyClicks(dialog.samples_box(), QStringLiteral("40"));
  QTest::mouseClick(dialog.export_button(), Qt::LeftButton);
  EXPECT_EQ(path, QStringLiteral("/no/such/folder/net-onnx-qdq.onnx"));
  EXPECT_EQ(run, 7);
  EXPECT_EQ(samples, 40);
  ExportReport report;
  report.path = "/tmp/net-onnx-qdq.onnx";
  report.file_bytes = 32000;
  report.audit = {{"conv1", "weight", "int4", "int4", 100, true}, {"conv2", "weight", "int3", "int4", 100, false}};
  report.checked_samples = report.screen.samples = report.file.samples = 40;
  report.screen.top1 = 0.5;
  report.file.top1 = 0.525;
  dialog.set_report(report);
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("Top-1 50.00 % on the screen, 52.50 % of the file."));
  EXPECT_EQ(dialog.audit()->rowCount(), 2);
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("1 of 2 quantizers"));
  EXPECT_THAT(dialog.message().toStdString(), Not(HasSubstr("Exactness")));
  const auto role = [&] {
    for (const auto* label : dialog.findChildren<QLabel*>())
      if (label->text() == dialog.message()) return label->property("role").toString();
    return QString();
  };
  report.exactness = Exactness::kModel;
  dialog.set_report(report);
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("Exactness: model"));
  EXPECT_EQ(role(), QStringLiteral("warning"));
  report.exactness = Exactness::kNear;  // nobody promised the very numbers
  dialog.set_report(report);
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("Exactness: near"));
  EXPECT_EQ(role(), QStringLiteral("good"));
}

TEST(ExportDialogTest, TargetsThatKeepTheQuantizersComeFirst) {
  const std::vector<PluginEntry> targets = {{"onnx", "ONNX (float)", "", {}, {{"needs_quantizers", false}}},
                                            {"onnx-qdq", "ONNX QDQ", "", {}, {{"needs_quantizers", true}}}};
  for (const bool quantizes : {true, false}) {
    ExportDialog dialog(targets, 0, QStringLiteral("W4A4"), QStringLiteral("/no/such/folder/net"), quantizes);
    EXPECT_EQ(dialog.current_target(), quantizes ? QStringLiteral("onnx-qdq") : QStringLiteral("onnx"));
    dialog.show();
    const QRect before = dialog.list()->visualItemRect(dialog.list()->item(0));
    dialog.set_refusals(dialog.current_target(), {});
    EXPECT_EQ(dialog.list()->visualItemRect(dialog.list()->item(0)), before) << "the mark has its place from the start";
  }
}

TEST(ExportDialogTest, AFileIsNotReplacedUnasked) {
  QTemporaryDir folder;
  const QString stem = folder.filePath(QStringLiteral("net")), path = stem + QStringLiteral("-onnx.onnx");
  QFile file(path);
  ASSERT_TRUE(file.open(QIODevice::WriteOnly));
  file.close();
  ExportDialog dialog({{"onnx", "ONNX", "", {}, {{"extension", ".onnx"}}}}, 0, QStringLiteral("W4A4"), stem, true);
  dialog.show();
  dialog.set_refusals(QStringLiteral("onnx"), {});
  QStringList wanted;
  QObject::connect(&dialog, &ExportDialog::export_wanted, &dialog, [&](const QString&, const QString& p, const json&, qint64) { wanted << p; });
  dialog.export_button()->click();
  EXPECT_TRUE(wanted.isEmpty());
  EXPECT_THAT(dialog.message().toStdString(), HasSubstr("net-onnx.onnx exists already."));
  EXPECT_EQ(dialog.export_button()->text(), QStringLiteral("Replace"));
  QTest::keyClick(dialog.path_box(), Qt::Key_End);
  QTest::keyClicks(dialog.path_box(), QStringLiteral("2"));
  EXPECT_EQ(dialog.export_button()->text(), QStringLiteral("Export"));
  QTest::keyClick(dialog.path_box(), Qt::Key_Backspace);
  for (int click = 0; click < 2; ++click) dialog.export_button()->click();
  EXPECT_EQ(wanted, QStringList{path});
}

TEST(PaletteTest, FindsByLettersAndRunsTheChosen) {
  EXPECT_GT(palette_score("conv2", "conv2"), palette_score("conv2", "conv2_bias"));
  EXPECT_GT(palette_score("rr", "Run recipe"), palette_score("rr", "carry over"));
  EXPECT_EQ(palette_score("xyz", "conv2"), -1);
  QWidget window;
  QString ran;
  std::vector<PaletteItem> items;
  for (const char* name : {"conv1", "conv2", "Run recipe"})
    items.push_back({QString::fromLatin1(name), "layer", "", [&ran, name] { ran = QString::fromLatin1(name); }});
  auto* palette = new Palette(std::move(items), &window);
  palette->show();
  EXPECT_EQ(palette->list()->count(), 3);
  QTest::keyClicks(palette->box(), QStringLiteral("conv"));
  EXPECT_EQ(palette->list()->count(), 2);
  QTest::keyClick(palette->box(), Qt::Key_Down);
  QTest::keyClick(palette->box(), Qt::Key_Return);
  EXPECT_TRUE(QTest::qWaitFor([&] { return !ran.isEmpty(); }, 2000));
  EXPECT_EQ(ran, QStringLiteral("conv2"));
}

}  // namespace
}  // namespace quanvas
