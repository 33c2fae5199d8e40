// A cluster of the real programs in which every hop is mutual TLS and every member shows the cluster's token.
#ifndef SALAMANDER_TESTS_SECURITY_SECURED_CLUSTER_H_
#define SALAMANDER_TESTS_SECURITY_SECURED_CLUSTER_H_

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/service/channel.h"
#include "common/service/security.h"
#include "tests/testing/certificates.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"
#include "tests/testing/temp_folder.h"

namespace salamander::testing {

// What gives a program or command these files.
inline std::vector<std::string> TlsFlags(const service::TlsFiles& files) {
  return {"--tls_cert=" + files.cert, "--tls_key=" + files.key, "--tls_ca=" + files.ca};
}

inline std::string ReadLog(const ChildProcess& process) {
  std::ostringstream text;
  text << std::ifstream(process.log()).rdbuf();
  return text.str();
}

class SecuredClusterTest : public ::testing::Test {
 protected:
  void StartCluster(std::vector<std::string> router_flags = {}, std::vector<std::string> more_flags = {}) {
    std::vector<std::string> flags = TlsFlags(member_);
    for (const std::string& flag : {"--cluster_token_file=" + token_file_, std::string("--reload_seconds=1")}) {
      flags.push_back(flag);
    }
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    auto cluster = ProcessCluster::Start({.model = golden_.folder,
                                          .routers = {{.span_tokens = 128}},
                                          .max_logprobs = golden_.vocab_size,
                                          .flags = flags,
                                          .router_flags = std::move(router_flags),
                                          .security = {.tls = member_, .cluster_token = kToken, .api_key = api_key_}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }
  void ExpectServes() {
    const Answer answer = cluster_->Generate(golden_.Request(false));
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.tokens, golden_.continuation);
  }

  static constexpr char kToken[] = "the token of this test's cluster";
  const Golden golden_{"dense"};
  const TestAuthority authority_{"authority"}, stranger_{"stranger"};
  const service::TlsFiles member_ = authority_.Issue("member");
  const TempFolder folder_;
  const std::string token_file_ = folder_.Write("token", std::string(kToken) + "\n");
  std::string api_key_;  // set before StartCluster if keys are needed
  std::unique_ptr<ProcessCluster> cluster_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_SECURITY_SECURED_CLUSTER_H_
