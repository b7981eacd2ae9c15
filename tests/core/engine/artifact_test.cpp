// Stored networks and statistics: what was packed comes back, and bytes that nobody packed are a sentence.
#include <cstring>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/graph/graph.h"
#include "core/workflow/artifact.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;

ModelPtr small_model() {
  GraphBuilder builder;
  builder.input("x");
  builder.tensor("x", DataType::kFloat, Shape{1, 3});
  builder.initializer("w", DataType::kFloat, {2, 3});
  builder.node("fc", "Gemm", {"x", "w"}, {"y"}, {{"transB", std::int64_t{1}}});
  builder.tensor("y", DataType::kFloat, Shape{1, 2});
  builder.output("y");
  auto weights = std::make_shared<WeightStore>();
  weights->set("w", TensorData::of_floats({2, 3}, {1, 2, 3, -4, 5, -6}));
  const auto graph = builder.build();
  EXPECT_TRUE(graph) << graph.error().text();
  return std::make_shared<const Model>(Model{*graph, weights, ""});
}

const Site kWeightSite{0, SiteKind::kWeight, 0};

QuantizedModel small_network() {
  QuantizedModel out{small_model(), {}, {}};
  QuantSpec spec;
  spec.bits = 4;
  out.plan.sites.push_back({kWeightSite, spec, 0, "rule 1"});
  out.quantizers[kWeightSite] = *quant::find_params(spec, {2, 3}, out.model->weights->find("w")->to_floats().data(), 0);
  return out;
}

// A network packed with its weight, so that there is a tensor to damage.
std::string packed() {
  const QuantizedModel network = small_network();
  return pack_artifact(network, Model{network.model->graph, std::make_shared<WeightStore>(), ""});
}

// The bytes with another header.
std::string with_header(const std::string& bytes, const std::function<void(json&)>& change) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  json header = json::parse(bytes.substr(8, length));
  change(header);
  const std::string text = header.dump();
  const std::uint64_t changed = text.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &changed, sizeof changed);
  return out + text + bytes.substr(8 + length);
}

// The same for a text in the metadata.
std::function<void(json&)> in_metadata(const char* key, const std::function<void(json&)>& change) {
  return [=](json& header) {
    json inner = json::parse(header["__metadata__"][key].get<std::string>());
    change(inner);
    header["__metadata__"][key] = inner.dump();
  };
}

TEST(StoredNetwork, ComesBack) {
  const auto network = unpack_artifact(packed(), small_model());
  ASSERT_TRUE(network) << network.error().text();
  EXPECT_EQ(network->plan.sites.size(), 1u);
  EXPECT_EQ(network->quantizers.at(kWeightSite).scale, small_network().quantizers.at(kWeightSite).scale);
  EXPECT_EQ(network->model->weights->find("w")->to_floats(), small_model()->weights->find("w")->to_floats());
}

TEST(StoredNetwork, WhatNobodyPackedIsRefused) {
  struct Row {
    const char* name;
    std::function<void(json&)> change;
  };
  const auto tensor = [](const char* key, json value) { return [=](json& h) { h["weight/w"][key] = value; }; };
  const auto quantizer = [](const std::function<void(json&)>& change) {
    return in_metadata("quantizers", [=](json& list) { change(list.at(0)); });
  };
  const Row rows[] = {
      {"elements that overflow to none", [](json& h) { h["weight/w"] = {{"dtype", "F32"}, {"shape", {std::int64_t{1} << 62}}, {"data_offsets", {0, 0}}}; }},
      {"more elements than bytes", tensor("shape", {3, 3})},
      {"a negative dimension", tensor("shape", {-2, -3})},
      {"offsets behind the end", tensor("data_offsets", {0, 1 << 20})},
      {"an offset below 0", tensor("data_offsets", {-24, 0})},
      {"no offsets", tensor("data_offsets", json::array())},
      {"an unknown type", tensor("dtype", "F12")},
      {"metadata that is a list", [](json& h) { h["__metadata__"] = json::array(); }},
      {"a tensor that is a number", [](json& h) { h["weight/w"] = 3; }},
      {"a quantizer of no node", quantizer([](json& q) { q["site"]["node"] = 7; })},
      {"a quantizer of a node below 0", quantizer([](json& q) { q["site"]["node"] = -5; })},
      {"a plan for no node", in_metadata("plan", [](json& p) { p["sites"][0]["site"]["node"] = 7; })},
      {"a format that is none", quantizer([](json& q) { q["spec"]["format"] = "float"; q["spec"]["exponent_bits"] = 60; })},
      {"an illegal format in the plan", in_metadata("plan", [](json& p) { p["sites"][0]["spec"]["bits"] = 4000; })},
      {"a layout whose elements overflow to none", quantizer([](json& q) { q["outer"] = q["dim"] = q["inner"] = std::int64_t{1} << 48; })},
      {"a layout whose groups overflow", quantizer([](json& q) { q["outer"] = q["dim"] = std::int64_t{1} << 48; q["inner"] = 0; })},
      {"a layout of more elements than scales", quantizer([](json& q) { q["outer"] = std::int64_t{1} << 47; q["dim"] = 1 << 20; })},
  };
  for (const Row& row : rows) {
    const auto network = unpack_artifact(with_header(packed(), row.change), small_model());
    ASSERT_FALSE(network) << row.name;
    EXPECT_EQ(network.error().code, ErrorCode::kCorrupt) << row.name;
    EXPECT_THAT(network.error().text(), HasSubstr("is damaged")) << row.name;
  }
}

TEST(StoredNetwork, TextsThatAreNestedTooDeepAreRefused) {
  constexpr std::size_t kDeep = 1 << 21;  // more than any stack holds
  const std::string deep = std::string(kDeep, '[') + std::string(kDeep, ']');
  const std::string header = "{\"__metadata__\": " + deep + "}";
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  EXPECT_FALSE(unpack_artifact(bytes + header, small_model()));
  EXPECT_FALSE(unpack_statistics(bytes + header));
  for (const char* key : {"plan", "graph", "quantizers"})
    EXPECT_FALSE(unpack_artifact(with_header(packed(), [&](json& h) { h["__metadata__"][key] = deep; }), small_model())) << key;
}

TEST(StoredStatistics, ComeBackOrAreRefused) {
  quant::Statistics all;
  all.key = "k";
  all.samples = 3;
  const float values[] = {1, -2, 3};
  all.tensors["x"].add(values, {1, 3});
  const std::string good = pack_statistics(all);
  const auto again = unpack_statistics(good);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->key, "k");
  EXPECT_EQ(again->samples, 3);
  EXPECT_EQ(again->tensors.at("x").maximum(), 3);
  const std::function<void(json&)> rows[] = {
      [](json& h) { h["__metadata__"] = json::array({1}); },
      [](json& h) { h["__metadata__"]["key"] = 7; },
      [](json& h) { h["__metadata__"]["samples"] = json::array(); },
      [](json& h) { h["statistics/x"] = "no"; },
      [](json& h) { h["other"] = 1; },
  };
  for (const auto& change : rows) {
    const auto refused = unpack_statistics(with_header(good, change));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text(), HasSubstr("is damaged"));
  }
}

}  // namespace
}  // namespace quanvas
