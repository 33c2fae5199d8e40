#include "clients/cli/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salamander::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct Values {
  std::string text = "default";
  int64_t count = 1;
  bool loud = false;
  double rate = 0;
  std::optional<float> maybe;
  std::vector<std::string> many;
  absl::Duration wait = absl::InfiniteDuration();
  std::string secret;
};

FlagSet Flags(Values& values) {
  FlagSet flags("sing", "Sings.");
  flags.Add("text", &values.text, "what to sing");
  flags.Add("count", &values.count, "how often");
  flags.Add("loud", &values.loud, "sing loudly");
  flags.Add("rate", &values.rate, "beats a second");
  flags.Add("maybe", &values.maybe, "an option");
  flags.Add("many", &values.many, "verses");
  flags.Add("wait", &values.wait, "pause");
  flags.AddHidden("secret", &values.secret);
  return flags;
}

absl::Status Set(Values& values, const Args& args) { return Flags(values).Set(args); }

TEST(FlagSet, TakesValuesInBothForms) {
  Values values;
  ASSERT_TRUE(Set(values, {"--text=a=b", "--count", "-7", "--loud", "--rate=2.5", "--maybe", "0.25"}).ok());
  EXPECT_EQ(values.text, "a=b");
  EXPECT_EQ(values.count, -7);
  EXPECT_TRUE(values.loud);
  EXPECT_EQ(values.rate, 2.5);
  EXPECT_EQ(values.maybe, 0.25F);
}

TEST(FlagSet, KeepsDefaultsOfFlagsNotGiven) {
  Values values;
  ASSERT_TRUE(Set(values, {"--loud=false"}).ok());
  EXPECT_EQ(values.text, "default");
  EXPECT_EQ(values.maybe, std::nullopt);
  EXPECT_FALSE(values.loud);
}

TEST(FlagSet, TakesTheLastOfOneAndCollectsMany) {
  Values values;
  ASSERT_TRUE(Set(values, {"--count=1", "--many=a,b", "--count=2", "--many", "c"}).ok());
  EXPECT_EQ(values.count, 2);
  EXPECT_THAT(values.many, ElementsAre("a,b", "c"));
}

TEST(FlagSet, TakesEmptyAndDashedValues) {
  Values values;
  ASSERT_TRUE(Set(values, {"--text=", "--many", "--loud"}).ok());
  EXPECT_EQ(values.text, "");
  EXPECT_THAT(values.many, ElementsAre("--loud"));
  EXPECT_FALSE(values.loud);
}

TEST(FlagSet, ReadsSecondsAndUnits) {
  Values values;
  ASSERT_TRUE(Set(values, {"--wait=1.5"}).ok());
  EXPECT_EQ(values.wait, absl::Milliseconds(1500));
  ASSERT_TRUE(Set(values, {"--wait=1m30s"}).ok());
  EXPECT_EQ(values.wait, absl::Seconds(90));
  EXPECT_FALSE(Set(values, {"--wait=-1"}).ok());
  EXPECT_FALSE(Set(values, {"--wait=soon"}).ok());
}

TEST(FlagSet, NamesTheBadFlag) {
  const std::pair<Args, const char*> cases[] = {
      {{"--count=many"}, "--count must be INTEGER, got 'many'"},
      {{"--count=1.5"}, "--count must be INTEGER, got '1.5'"},
      {{"--count=99999999999999999999"}, "--count must be INTEGER"},
      {{"--loud=perhaps"}, "--loud must be true or false, got 'perhaps'"},
      {{"--maybe=x"}, "--maybe must be NUMBER, got 'x'"},
      {{"--volume=3"}, "unknown flag --volume"},
      {{"--text"}, "--text needs a value"},
      {{"song"}, "unexpected argument 'song'"},
      {{"-loud"}, "unexpected argument '-loud'"},
  };
  for (const auto& [args, message] : cases) {
    Values values;
    const absl::Status status = Set(values, args);
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(FlagSet, ParseEndsWithTheRightCode) {
  Values values;
  const FlagSet flags = Flags(values);
  EXPECT_EQ(flags.Parse({"--count=3"}), std::nullopt);
  EXPECT_EQ(flags.Parse({"--count=3", "--help"}), 0);
  EXPECT_EQ(flags.Parse({"--nothing"}), kExitUsage);
}

TEST(FlagSet, HelpShowsItsOwnFlagsOnly) {
  Values values;
  const std::string help = Flags(values).Help();
  EXPECT_THAT(help, HasSubstr("Usage: salamander sing [flags]"));
  EXPECT_THAT(help, HasSubstr("--count=INTEGER"));
  EXPECT_THAT(help, HasSubstr("--wait=SECONDS"));
  EXPECT_THAT(help, HasSubstr("--loud  "));
  EXPECT_THAT(help, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace salamander::cli
