#include "router/api_key_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace salamander::router {
namespace {

using ::testing::HasSubstr;

const std::string kHash(64, 'a');

TEST(ApiKeyFile, HashesAsSha256sumDoes) {
  EXPECT_EQ(absl::BytesToHexString(Sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(absl::BytesToHexString(Sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(ApiKeyFile, EveryFieldIsRead) {
  const auto entries = ParseApiKeys(absl::StrCat(R"({"keys": [{"name": "team-a", "sha256": ")", std::string(64, 'B'),
                                                 R"(", "requests_per_minute": 600,
          "tokens_per_minute": 2e6, "concurrent_requests": 16}, {"name": "b.2_", "sha256": ")",
                                                 kHash, R"("}]})"));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "team-a");
  EXPECT_EQ((*entries)[0].sha256, std::string(32, '\xBB'));
  EXPECT_EQ((*entries)[0].limits.requests_per_minute, 600);
  EXPECT_EQ((*entries)[0].limits.tokens_per_minute, 2e6);
  EXPECT_EQ((*entries)[0].limits.concurrent_requests, 16);
  EXPECT_FALSE((*entries)[1].limits.requests_per_minute || (*entries)[1].limits.tokens_per_minute ||
               (*entries)[1].limits.concurrent_requests);
  EXPECT_EQ(ParseApiKeys(R"({"keys": []})")->size(), 0u);
}

TEST(ApiKeyFile, FaultsAreNamed) {
  const auto entry = [](const std::string& more) {
    return absl::StrCat(R"({"keys": [{"name": "a", "sha256": ")", kHash, "\"", more, "}]}");
  };
  const std::pair<std::string, std::string> cases[] = {
      {"", "is not JSON"},
      {"[]", "the file must be an object"},
      {"{}", "keys must be a list"},
      {R"({"keys": {}})", "keys must be a list"},
      {R"({"keys": [], "kesy": []})", "the file has an unknown field \"kesy\""},
      {R"({"keys": [7]})", "keys[0] must be an object"},
      {R"({"keys": [{}]})", "keys[0].name must be 1 to 64"},
      {R"({"keys": [{"name": "a b"}]})", "keys[0].name must be 1 to 64"},
      {R"({"keys": [{"name": "a", "sha256": "abc"}]})", "keys[0].sha256 must be the key's SHA-256"},
      {R"({"keys": [{"name": "a", "sha256": ")" + std::string(64, 'g') + R"("}]})", "keys[0].sha256 must be"},
      {entry(R"(, "request_per_minute": 5)"), "keys[0] has an unknown field \"request_per_minute\""},
      {entry(R"(, "requests_per_minute": 0)"),
       "keys[0].requests_per_minute: expected a number greater than 0, found 0"},
      {entry(R"(, "tokens_per_minute": "many")"), "keys[0].tokens_per_minute: expected a number greater than 0"},
      {entry(R"(, "concurrent_requests": 0)"), "keys[0].concurrent_requests: expected a whole number from 1"},
      {absl::StrCat(R"({"keys": [{"name": "a", "sha256": ")", kHash, R"("}, {"name": "a", "sha256": ")",
                    std::string(64, 'c'), R"("}]})"),
       "there are two keys of the name a"},
      {absl::StrCat(R"({"keys": [{"name": "a", "sha256": ")", kHash, R"("}, {"name": "b", "sha256": ")", kHash,
                    R"("}]})"),
       "key b has the sha256 of another"},
  };
  for (const auto& [json, message] : cases) {
    const absl::Status status = ParseApiKeys(json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << json;
  }
}

}  // namespace
}  // namespace salamander::router
