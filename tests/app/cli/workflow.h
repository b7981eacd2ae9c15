// A small project for the tests of the command line's verbs.
#pragma once

#include "tests/app/cli/program.h"

namespace quanvas {

// A network of 300 parameters and 64 pictures of noise: every verb once.
class Workflow : public Program {
 protected:
  void SetUp() override {
    write("tiny.net.yaml",
          "name: tiny\ninput: [1, 8, 8]\nseed: 1\nlayers:\n"
          "  - {op: conv, name: conv1, out: 4, kernel: 3, pad: 1}\n  - {op: relu, name: relu1}\n"
          "  - {op: flatten, name: flat}\n  - {op: linear, name: fc, out: 4}\n");
    constexpr int kPictures = 64;
    std::string images("\0\0\x08\x03\0\0\0\x40\0\0\0\x08\0\0\0\x08", 16), labels("\0\0\x08\x01\0\0\0\x40", 8);
    unsigned state = 1;
    for (int i = 0; i < kPictures * 64; ++i) {
      state = state * 1664525u + 1013904223u;
      images += static_cast<char>(state >> 24);
    }
    for (int i = 0; i < kPictures; ++i) labels += static_cast<char>(i % 4);
    write("images.idx", images);
    write("labels.idx", labels);
    const Answer made = run({"new", "tiny.net.yaml", "--project", "p.quanvas"});
    ASSERT_EQ(made.code, 0) << made.err;
    const Answer declared = run({"data", "p.quanvas", "--reader", "idx", "--images", "images.idx", "--labels",
                                 "labels.idx", "--split", "calibrate,train,evaluate", "--scale", "0.00392156862745098",
                                 "--name", "noise"});
    ASSERT_EQ(declared.code, 0) << declared.err;
  }
};

}  // namespace quanvas
