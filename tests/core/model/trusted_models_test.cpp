#include "core/report/trusted_models.h"

#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/files.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

class TrustedModels : public testing::Test {
 protected:
  TrustedModels() {
    char name[] = "/tmp/quanvas-trust-XXXXXX";
    folder_ = ::mkdtemp(name);
    if (const char* const home = std::getenv("XDG_DATA_HOME")) home_ = home;
    ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    fs::create_directories(user_data_dir());
  }
  ~TrustedModels() override {
    if (home_.empty()) ::unsetenv("XDG_DATA_HOME");
    else ::setenv("XDG_DATA_HOME", home_.c_str(), 1);
    std::error_code ec;
    fs::remove_all(folder_, ec);
  }
  static std::string hash(char c) { return std::string(64, c); }

  fs::path folder_;
  std::string home_;
};

TEST_F(TrustedModels, AreKeptWithTheirPlaceAndTakenBack) {
  EXPECT_TRUE(trusted_models().empty());
  remember_trust(hash('a'), "/models/a.ts");
  remember_trust(hash('b'), "/models/b.ts");
  remember_trust(hash('a'), "/elsewhere/a.ts");
  const auto models = trusted_models();
  ASSERT_EQ(models.size(), 2u) << "a content is trusted once";
  EXPECT_EQ(models[0].path, "/models/a.ts");
  EXPECT_EQ(models[0].since.size(), 20u) << models[0].since;
  EXPECT_EQ(trusted_hashes(), hash('a') + " " + hash('b'));
  const auto taken = revoke_trust("/models/../models/a.ts");
  ASSERT_TRUE(taken) << taken.error().text();
  EXPECT_EQ(*taken, std::vector<TrustedModel>{models[0]});
  EXPECT_EQ(trusted_hashes(), hash('b'));
  ASSERT_TRUE(revoke_trust("bbbbbbbb"));
  EXPECT_TRUE(trusted_models().empty());
}

TEST_F(TrustedModels, OfEarlierReleasesAreHashesAlone) {
  ASSERT_TRUE(write_file_atomically(user_data_dir() / "trusted-models", hash('a') + "\n\n" + hash('b') + "\n"));
  EXPECT_EQ(trusted_models(), (std::vector<TrustedModel>{{hash('a'), "", ""}, {hash('b'), "", ""}}));
  remember_trust(hash('c'), "c.ts");
  ASSERT_TRUE(revoke_trust(hash('a')));
  EXPECT_EQ(trusted_hashes(), hash('b') + " " + hash('c'));
}

// A file's name is the stranger's choice: it must not add a line, nor stand for a hash.
TEST_F(TrustedModels, NamesAreNoHashes) {
  remember_trust(hash('a'), "/models/x\n" + hash('b') + "\t" + hash('c') + ".ts");
  EXPECT_EQ(trusted_models().size(), 1u);
  EXPECT_EQ(trusted_hashes(), hash('a'));
  EXPECT_FALSE(revoke_trust(hash('b')));
}

TEST_F(TrustedModels, WhatIsMeantMustBeClear) {
  remember_trust("abcdef0123", "/a");
  remember_trust("abcdef0199", "/b");
  struct Row {
    const char* which;
    ErrorCode code;
  };
  for (const Row& row : {Row{"abcdef01", ErrorCode::kInvalidArgument}, Row{"abcdef", ErrorCode::kNotFound},
                         Row{"/c", ErrorCode::kNotFound}, Row{"", ErrorCode::kNotFound}}) {
    const auto taken = revoke_trust(row.which);
    ASSERT_FALSE(taken) << row.which;
    EXPECT_EQ(taken.error().code, row.code) << row.which;
  }
  EXPECT_EQ(trusted_models().size(), 2u);
  ASSERT_TRUE(revoke_all_trust());
  EXPECT_TRUE(trusted_models().empty());
}

}  // namespace
}  // namespace quanvas
