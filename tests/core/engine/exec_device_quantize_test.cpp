// The ATen form of the quantizers against the kernels. On CPU tensors here: the operations are the same elsewhere.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/device_quantize.h"
#include "core/quant/truncate.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::noise;
using testing::same_bits;

struct Case {
  std::string name;
  QuantSpec spec;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  const auto add = [&](const std::string& name, auto change) {
    QuantSpec s;
    s.bits = 4;
    change(s);
    out.push_back({name, s});
  };
  const auto asymmetric = [](QuantSpec& s) {
    s.is_signed = false;
    s.zero_point = ZeroPointType::kInteger;
  };
  for (const Rounding r : {Rounding::kHalfEven, Rounding::kHalfUp, Rounding::kHalfAway, Rounding::kCeil, Rounding::kFloor,
                           Rounding::kTowardZero, Rounding::kDpu}) {
    const std::string name = enum_text(r);
    add("int " + name, [&](QuantSpec& s) { s.rounding = r; });
    add("asymmetric " + name, [&](QuantSpec& s) { asymmetric(s); s.rounding = r; });
    add("inside " + name, [&](QuantSpec& s) { asymmetric(s); s.rounding = r; s.zero_point_inside = true; });
    add("e4m3 " + name, [&](QuantSpec& s) { s.format = "float"; s.rounding = r; });
  }
  add("float zero point", [&](QuantSpec& s) { asymmetric(s); s.zero_point = ZeroPointType::kFloat; s.zero_point_inside = true; });
  add("narrow", [](QuantSpec& s) { s.narrow = true; });
  add("unsigned", [](QuantSpec& s) { s.is_signed = false; });
  add("16 bit", [](QuantSpec& s) { s.bits = 16; });
  add("24 bit", [](QuantSpec& s) { s.bits = 24; });
  add("offset", [&](QuantSpec& s) { asymmetric(s); s.zero_point = ZeroPointType::kOffset; });
  add("offset floor", [&](QuantSpec& s) { asymmetric(s); s.zero_point = ZeroPointType::kOffset; s.rounding = Rounding::kFloor; });
  add("signed-max", [](QuantSpec& s) { s.statistic = Statistic::kSignedMax; });
  add("decoupled", [](QuantSpec& s) { s.decoupled = Decoupling::kL2; });
  for (const Codebook& book : codebooks()) add(book.id, [&](QuantSpec& s) { s.format = book.id; });
  add("ternary", [](QuantSpec& s) { s.format = "ternary"; });
  add("binary", [](QuantSpec& s) { s.format = "binary"; });
  struct Mini {
    const char* name;
    int e, m;
    FloatSpecials specials;
    bool is_signed, saturate;
  };
  for (const Mini& f : {Mini{"e5m2", 5, 2, FloatSpecials::kIeee, true, true}, {"e5m2 open", 5, 2, FloatSpecials::kIeee, true, false},
                        {"e4m3 open", 4, 3, FloatSpecials::kNan, true, false}, {"e4m3 fnuz", 4, 3, FloatSpecials::kFnuz, true, true},
                        {"e3m2", 3, 2, FloatSpecials::kNone, true, true}, {"e2m1", 2, 1, FloatSpecials::kNone, true, true},
                        {"e5m0", 5, 0, FloatSpecials::kNan, false, true}, {"e4m4 unsigned", 4, 4, FloatSpecials::kNone, false, true}})
    add(f.name, [&](QuantSpec& s) {
      s.format = "float";
      s.exponent_bits = f.e;
      s.mantissa_bits = f.m;
      s.specials = f.specials;
      s.is_signed = f.is_signed;
      s.saturate = f.saturate;
    });
  return out;
}

struct Layout {
  const char* name;
  Granularity granularity;
  int axis, group;
};
constexpr Layout kLayouts[] = {{"tensor", Granularity::kTensor, 0, 1},   {"channel", Granularity::kChannel, 1, 1},
                               {"channel last", Granularity::kChannel, -1, 1}, {"row", Granularity::kRow, -1, 1},
                               {"group", Granularity::kGroup, 2, 4},     {"group strided", Granularity::kGroup, 1, 2}};

// Values that overflow, ties of the found scale, tiny ones, both zeros, NaN and infinities.
at::Tensor hard_values(const quant::QuantParams& p, at::Tensor x) {
  float* v = x.data_ptr<float>();
  const float s = p.scale[0];
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    if (i % 5 == 1) v[i] = (static_cast<float>(i % 23) - 11.5f) * s;
    if (i % 7 == 2) v[i] *= 100;
    if (i % 11 == 3) v[i] *= 1e-6f;
    if (i % 29 == 4) v[i] = 0.0f;
    if (i % 31 == 5) v[i] = -0.0f;
    if (i % 37 == 6) v[i] = NAN;
    if (i % 41 == 7) v[i] = i % 2 ? INFINITY : -INFINITY;
    if (i % 43 == 8) v[i] = 1e-42f;  // subnormal
  }
  return x;
}

// Equal bits, but for which of the NaNs a NaN is.
bool same_values(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor nan = a.isnan();
  return nan.equal(b.isnan()) && same_bits(at::where(nan, at::zeros({}), a).contiguous(), at::where(nan, at::zeros({}), b).contiguous());
}

TEST(ExecDeviceQuantize, IsTheKernelsBitForBit) {
  for (const Case& c : cases())
    for (const Layout& l : kLayouts) {
      const std::string what = c.name + ", " + l.name;
      QuantSpec s = c.spec;
      s.granularity = l.granularity;
      if (l.granularity != Granularity::kTensor) s.axis = l.axis;
      s.group_size = l.group;
      ASSERT_EQ(check(s), "") << what;
      const Shape shape = {5, 3, 11, 6};
      at::Tensor x = noise(shape, 3);
      auto p = quant::find_params(s, shape, x.data_ptr<float>(), 1);
      ASSERT_TRUE(p) << what << ": " << p.error().text();
      x = hard_values(*p, x);
      at::Tensor y = at::empty_like(x), dx = at::empty_like(x);
      quant::fake_quantize(*p, p->layout, x.data_ptr<float>(), y.data_ptr<float>());
      const at::Tensor got = exec::device_fake_quantize(x, *p, p->layout);
      ASSERT_TRUE(same_values(got, y)) << what;
      // The gradient, where there is one.
      const at::Tensor finite = at::where(x.isfinite(), x, at::zeros({})).contiguous(), dy = noise(shape, 4);
      for (const bool pass : {false, true}) {
        std::vector<float> dscale(p->scale.size());
        quant::fake_quantize_backward(*p, p->layout, finite.data_ptr<float>(), dy.data_ptr<float>(), dx.data_ptr<float>(), dscale.data(), pass);
        at::Tensor sums;
        EXPECT_TRUE(exec::device_backward(finite, dy, *p, p->layout, pass, &sums).equal(dx)) << what;
        const at::Tensor want = at::tensor(dscale, at::kFloat);
        if (want.isfinite().all().item().toBool()) {
          EXPECT_LT(testing::relative_difference(sums, want), 1e-3) << what;
        }
      }
    }
}

TEST(ExecDeviceQuantize, TruncationsAreTheKernelsBitForBit) {
  const Shape shape = {4, 3, 70};
  for (const Case& c : cases()) {
    QuantSpec s = c.spec;
    s.truncation = Truncation::kMsb;
    if (!check(s).empty() || s.bits != 4) continue;
    for (const float scale : {0.0123f, 0x1p-4f}) {
      const auto p = quant::truncation_params(s, shape, {scale, 7}, 0);
      ASSERT_TRUE(p) << c.name;
      at::Tensor x = at::round(noise(shape, 3) * 80) * scale;
      x = hard_values(*p, x);
      at::Tensor y = at::empty_like(x), dx = at::empty_like(x);
      quant::fake_quantize(*p, p->layout, x.data_ptr<float>(), y.data_ptr<float>());
      ASSERT_TRUE(same_values(exec::device_fake_quantize(x, *p, p->layout), y)) << c.name;
      const at::Tensor dy = noise(shape, 4);
      quant::fake_quantize_backward(*p, p->layout, x.data_ptr<float>(), dy.data_ptr<float>(), dx.data_ptr<float>(),
                                    nullptr, false);
      EXPECT_TRUE(exec::device_backward(x, dy, *p, p->layout, false, nullptr).equal(dx)) << c.name;
    }
  }
}

TEST(ExecDeviceQuantize, WhatDependsOnTheElementsNumberIsRefused) {
  for (const Rounding r : {Rounding::kStochastic, Rounding::kLearned}) {
    quant::QuantParams p;
    p.spec.rounding = r;
    p.scale = {1};
    p.layout.inner = 4;
    EXPECT_NE(exec::device_problem(p).find(enum_text(r)), std::string::npos);
    EXPECT_THROW(exec::device_fake_quantize(at::ones({4}), p, p.layout), std::exception);
  }
}

}  // namespace
}  // namespace quanvas
