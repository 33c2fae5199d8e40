#include "common/base/secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/base/limited_log.h"

namespace salamander {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Secret, RandomSecretsDiffer) {
  std::set<std::string> secrets;
  for (int i = 0; i < 1000; ++i) secrets.insert(RandomSecret(16));
  EXPECT_EQ(secrets.size(), 1000u);
  for (const std::string& secret : secrets) EXPECT_EQ(secret.size(), 16u);
}

TEST(Secret, OnlyTheSameBytesAreTheSecret) {
  const std::string secret("abc\0defghijklmno", 16);
  EXPECT_TRUE(IsSecret(secret, secret));
  for (size_t i = 0; i < secret.size(); ++i) {
    std::string other = secret;
    other[i] ^= 0x80;
    EXPECT_FALSE(IsSecret(other, secret)) << i;
  }
  EXPECT_FALSE(IsSecret(secret.substr(1), secret));
  EXPECT_FALSE(IsSecret(secret + '\0', secret));
  EXPECT_FALSE(IsSecret("", secret));
  EXPECT_FALSE(IsSecret("", ""));
}

class FakeClock final : public Clock {
 public:
  double Now() const override { return now; }
  double now = 5;
};

TEST(LimitedLog, LeavesOutAndCountsWhatIsTooMuch) {
  FakeClock clock;
  LimitedLog log(2, &clock);
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 5; ++i) log.Write(LogLevel::kWarning, "line " + std::to_string(i));
  clock.now += 1;
  log.Write(LogLevel::kWarning, "later");
  clock.now += 1;
  log.Write(LogLevel::kWarning, "last");
  const std::string text = ::testing::internal::GetCapturedStderr();
  for (const char* shown : {"line 0\n", "line 1\n", "later (and 3 like lines not shown before)\n", "last\n"}) {
    EXPECT_THAT(text, HasSubstr(shown));
  }
  EXPECT_THAT(text, Not(HasSubstr("line 2")));
}

}  // namespace
}  // namespace salamander
