// Profiles of TVM's frontends, and targets that are named but not offered.
#include <functional>
#include <set>

#include "tests/plugins/export_site_support.h"

namespace quanvas {
namespace {

using namespace export_site;

class ExportTvm : public TargetTest {
 protected:
  ExportTvm() : TargetTest("tvm-relax-qdq") {}
};

const Formats kPlain = {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true};

TEST_F(ExportTvm, EveryRowIsWrittenAuditedAndComputesTheSame) {
  const Formats rows[] = {kPlain,
                          {spec(8, true, false, kNone, kTensor), spec(8, true, false, kNone, kTensor)},
                          {spec(8, false, false, kInteger, kChannel), spec(8, true, false, kNone, kChannel)}};
  for (const Formats& formats : rows) {
    const QuantizedModel model = quantize(small_net(9), formats);
    ASSERT_NO_FATAL_FAILURE(write(model));
    expect_audited(model);
    const onnx::ModelProto proto = load();
    EXPECT_EQ(proto.opset_import(0).version(), 13);
    std::set<std::string> ops;
    for (const auto& n : proto.graph().node()) {
      ops.insert(n.op_type());
      EXPECT_EQ(n.domain(), "");
      EXPECT_NE(n.op_type(), "Clip");
      for (const auto& a : n.attribute()) {
        EXPECT_NE(a.name(), "block_size");
      }
    }
    EXPECT_TRUE(ops.count("QuantizeLinear") && ops.count("DequantizeLinear"));
    JobContext job;
    const c10::InferenceMode no_gradient;
    const auto back = exporter().read(model, path(), complete(), job);
    ASSERT_TRUE(back) << back.error().text();
    const at::Tensor x = noise({4, 1, 8, 8}, 3, 2);
    const auto want = (*exec::Runner::create(model.model, &model.quantizers))->run({x});
    const auto got = (*exec::Runner::create(back->model, nullptr))->run({x});
    ASSERT_TRUE(want && got);
    EXPECT_TRUE(at::allclose((*want)[0], (*got)[0], 1e-5, 1e-6));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1) << "nothing is left beside it";
  }
}

struct RefusalCase {
  const char* name;
  SiteKind kind;
  std::function<void(quant::QuantParams&)> spoil;
  const char* rule;
};
const RefusalCase kRefusals[] = {
    {"four bits", SiteKind::kWeight,
     [](auto& p) {
       p.spec.bits = 4;
       p.lo = -7;
       p.hi = 7;
     },
     "bit width"},
    {"seven bits", SiteKind::kInput,
     [](auto& p) {
       p.spec.bits = 7;
       p.lo = 0;
       p.hi = 127;
     },
     "bit width"},
    {"16 bit bias", SiteKind::kBias,
     [](auto& p) {
       p.spec.bits = 16;
       p.lo = -32768;
       p.hi = 32767;
     },
     "bit width"},
    {"narrow activations", SiteKind::kInput,
     [](auto& p) {
       p.spec.narrow = true;
       p.hi = 254;
     },
     "range of codes"},
    {"groups", SiteKind::kWeight,
     [](auto& p) {
       p.spec.granularity = kGroup;
       p.layout.granularity = kGroup;
       p.layout.group = 3;
     },
     "granularity"},
    {"dynamic", SiteKind::kInput,
     [](auto& p) {
       p.spec.source = ScaleSource::kDynamic;
       p.scale.clear();
       p.zero_point.clear();
     },
     "scale source"},
    {"a minifloat", SiteKind::kWeight, [](auto& p) { p.spec.format = "float"; }, "number format"},
};

TEST_F(ExportTvm, RefusalsNameLayerAndRule) {
  const QuantizedModel good = quantize(small_net(), kPlain);
  ASSERT_TRUE(refusals(good).empty());
  for (const RefusalCase& c : kRefusals) {
    SCOPED_TRACE(c.name);
    QuantizedModel model = good;
    c.spoil(at_site(model, "conv1", c.kind));
    const auto list = refusals(model);
    EXPECT_TRUE(names(list, c.rule, "conv1")) << text_of(list);
  }
}

TEST_F(ExportTvm, OperatorsThatTheFrontendLacksAreNamed) {
  GraphBuilder b(*small_net()->graph);
  b.tensor("z", DataType::kFloat, Shape{-1, 5});
  b.node("det", "BitShift", {"logits"}, {"z"});
  b.output("z");
  QuantizedModel model = quantize(small_net(), kPlain);
  model.model = std::make_shared<const Model>(Model{*b.build(), model.model->weights, ""});
  EXPECT_TRUE(names(refusals(model), "operator", "det")) << text_of(refusals(model));
}

TEST_F(ExportTvm, TheAuditLooksAtTheOperatorsToo) {
  const QuantizedModel model = quantize(small_net(), kPlain);
  ASSERT_NO_FATAL_FAILURE(write(model));
  onnx::ModelProto bad = load();
  bad.mutable_graph()->mutable_node(0)->add_attribute()->set_name("block_size");
  auto& a = *bad.mutable_graph()->mutable_node(0)->mutable_attribute(bad.graph().node(0).attribute_size() - 1);
  a.set_type(onnx::AttributeProto::INT);
  a.set_i(32);
  store(bad);
  EXPECT_FALSE(all_equal(audit(model)));
}

TEST_F(ExportTvm, FailuresAndDamage) {
  const QuantizedModel model = quantize(small_net(), kPlain);
  expect_safe_failures(model);
  expect_hardy_readers(model);
}

// The Relay profiles stand on targets of their own names: without those they say so, with them they write.
TEST(TvmRelay, WorksWhereItsTargetDoes) {
  for (const auto& [id, writes] :
       {std::pair{"tvm-relay-qoperator", "onnx-qoperator"}, {"tvm-relay-pytorch", "torchscript-quantized"}}) {
    const Exporter* profile = Registry<Exporter>::instance().find(id);
    ASSERT_NE(profile, nullptr) << id;
    const Exporter* writer = Registry<Exporter>::instance().find(writes);
    const bool is_there = writer && writer->unavailable().empty();
    EXPECT_EQ(profile->unavailable().empty(), is_there) << id;
    if (is_there) {
      EXPECT_FALSE(profile->table(json::object()).rows.empty()) << id;
      continue;
    }
    EXPECT_NE(profile->unavailable().find(writes), std::string::npos);
    JobContext job;
    QuantizedModel model;
    model.model = small_net();
    EXPECT_FALSE(profile->check(model, json::object()).empty());
    EXPECT_FALSE(profile->write(model, "/tmp/quanvas-none.pt", json::object(), job));
    EXPECT_FALSE(profile->audit(model, "/tmp/quanvas-none.pt", json::object()));
    EXPECT_FALSE(profile->read(model, "/tmp/quanvas-none.pt", json::object(), job));
  }
}

// An output takes the quantizer of all that reads it, as in the target that writes the file.
TEST(TvmRelay, AsksForNoOutputQuantizerThatReadersGive) {
  QuantizedModel model = quantize(small_net(), kPlain);
  const NodeId last = model.model->graph->find("fc")->id;
  std::erase_if(model.quantizers, [&](const auto& q) { return q.first.kind == SiteKind::kOutput && q.first.node != last; });
  for (const char* id : {"onnx-qoperator", "tvm-relay-qoperator"}) {
    const Exporter& exporter = **Registry<Exporter>::instance().get(id, "target");
    const json options = *exporter.schema().complete(json::object(), id);
    const auto refused = exporter.check(model, options);
    EXPECT_TRUE(refused.empty()) << id << ": " << refused[0].text();
    QuantizedModel without = model;
    std::erase_if(without.quantizers, [&](const auto& q) { return q.first.node == last && q.first.kind == SiteKind::kOutput; });
    const auto needed = exporter.check(without, options);
    ASSERT_EQ(needed.size(), 1u) << id;
    EXPECT_EQ(needed[0].rule, "missing quantizer");
    EXPECT_EQ(needed[0].layer, "fc");
  }
}

TEST(UnavailableTargets, SayWhyAndWhatToUseInstead) {
  for (const char* id : {"xir", "sharktank", "torch-mlir-packed", "vllm-brevitas"}) {
    const Exporter* target = Registry<Exporter>::instance().find(id);
    ASSERT_NE(target, nullptr) << id;
    const std::string why = target->unavailable();
    EXPECT_GT(why.size(), 40u) << id;
    EXPECT_TRUE(why.ends_with(".")) << id;
    EXPECT_TRUE(why.find("use ") != std::string::npos || why.find("export to") != std::string::npos) << id;
    JobContext job;
    QuantizedModel model;
    model.model = small_net();
    EXPECT_FALSE(target->check(model, json::object()).empty());
    EXPECT_FALSE(target->write(model, "/tmp/quanvas-none", json::object(), job));
    EXPECT_FALSE(target->audit(model, "/tmp/quanvas-none", json::object()));
    EXPECT_FALSE(fs::exists("/tmp/quanvas-none"));
  }
}

}  // namespace
}  // namespace quanvas
