// API keys through the real programs: the `salamander` command and a router behind mutual TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/clients/command.h"
#include "tests/common/service/raw_client.h"
#include "tests/security/secured_cluster.h"

namespace salamander {
namespace {

using testing::Command;
using ::testing::HasSubstr;
using ::testing::Not;

class ApiKeysTest : public testing::SecuredClusterTest {
 protected:
  // As an operator hashes a key: with the command that docs/operations.md tells.
  std::string HashOf(const std::string& key) {
    const std::string out = folder_.file("hash");
    EXPECT_EQ(std::system(absl::StrCat("printf %s '", key, "' | sha256sum > ", out).c_str()), 0);
    std::string hash;
    std::ifstream(out) >> hash;
    return hash;
  }
  void SetUp() override {
    const std::string keys =
        folder_.Write("keys.json", absl::StrCat(R"({"keys": [{"name": "team-a", "sha256": ")", HashOf("sk-a"),
                                                R"("}, {"name": "team-b", "sha256": ")", HashOf("sk-b"),
                                                R"(", "requests_per_minute": 1}]})"));
    api_key_ = "sk-a";
    StartCluster({"--api_keys_file=" + keys});
    prompt_ = folder_.Write("prompt.json", "[1, 2, 3, 4]");
  }
  // Runs `salamander generate` with these flags; its exit code, and its errors in err_.
  int Ask(std::vector<std::string> flags, std::vector<std::string> environment = {}) {
    const std::vector<std::string> tls = testing::TlsFlags(member_);
    flags.insert(flags.begin(), tls.begin(), tls.end());
    flags.insert(flags.begin(), {"generate", "--target=" + cluster_->router_address(), "--prompt_tokens=" + prompt_,
                                 "--max_tokens=2", "--json"});
    Command command(flags, {.environment = std::move(environment)});
    const int code = command.Wait();
    err_ = command.err();
    return code;
  }

  std::string prompt_, err_;
};

TEST_F(ApiKeysTest, CommandShowsItsKeyAndIsHeldToItsLimits) {
  ExpectServes();
  EXPECT_EQ(Ask({}), 1);
  EXPECT_THAT(err_, HasSubstr("UNAUTHENTICATED: no API key: send the metadata `authorization: Bearer KEY`"));
  EXPECT_EQ(Ask({}, {"SALAMANDER_API_KEY=sk-c"}), 1);
  EXPECT_THAT(err_, HasSubstr("UNAUTHENTICATED: the API key is not known here"));
  EXPECT_EQ(Ask({}, {"SALAMANDER_API_KEY=sk-a"}), 0) << err_;
  const std::string file = folder_.Write("key", "sk-b\n");
  EXPECT_EQ(Ask({"--api_key_file=" + file}, {"SALAMANDER_API_KEY=sk-c"}), 0) << err_;
  EXPECT_EQ(Ask({"--api_key_file=" + file}), 1);
  EXPECT_THAT(err_,
              HasSubstr("RESOURCE_EXHAUSTED: API key team-b has reached its limit: 1 requests a minute; retry in"));

  // By name, and never the key itself.
  const testing::ProcessCluster::Process& router = cluster_->process("router-0");
  const std::string scrape = testing::HttpGet(router.metrics_address, "/metrics").value();
  const auto value = [&](const std::string& sample) { return testing::MetricValue(scrape, sample).value_or(-1); };
  EXPECT_EQ(value("salamander_router_key_requests_total{key=\"team-a\",outcome=\"OK\"}"), 2);
  EXPECT_EQ(value("salamander_router_key_requests_total{key=\"team-b\",outcome=\"OK\"}"), 1);
  EXPECT_EQ(value("salamander_router_key_limited_total{key=\"team-b\",limit=\"requests\"}"), 1);
  EXPECT_EQ(value("salamander_router_key_tokens_total{key=\"team-b\",kind=\"prompt\"}"), 4);
  EXPECT_EQ(value("salamander_router_key_tokens_total{key=\"team-b\",kind=\"completion\"}"), 2);
  EXPECT_EQ(value("salamander_router_unauthenticated_total{reason=\"none\"}"), 1);
  EXPECT_EQ(value("salamander_router_unauthenticated_total{reason=\"unknown\"}"), 1);
  for (const std::string& text : {scrape, testing::ReadLog(*router.child)}) EXPECT_THAT(text, Not(HasSubstr("sk-")));

  // An operator's status needs no key, but the token.
  for (const bool with_token : {false, true}) {
    std::vector<std::string> flags = testing::TlsFlags(member_);
    flags.insert(flags.begin(), {"status", "--target=" + cluster_->router_address()});
    if (with_token) flags.push_back("--cluster_token_file=" + token_file_);
    Command status(flags);
    EXPECT_EQ(status.Wait(), with_token ? 0 : 1) << status.err();
  }
}

}  // namespace
}  // namespace salamander
