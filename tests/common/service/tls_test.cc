// Servers and channels with certificates: who is let in, who is not and what he is told, and renewal.
#include "common/service/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/service/certificate.h"
#include "common/service/server.h"
#include "common/service/tls_diagnosis.h"
#include "tests/common/service/probe.h"
#include "tests/testing/certificates.h"

namespace salamander::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsServing;
using testing::TestAuthority;

class TlsTest : public ::testing::Test {
 protected:
  std::unique_ptr<Server> Start(const TlsFiles& tls, const std::string& health_listen = "") {
    ServerOptions options;
    options.metrics_listen = "";
    options.health_listen = health_listen;
    options.security.tls = tls;
    auto server = Server::Start(options, &metrics_, {});
    EXPECT_TRUE(server.ok()) << server.status();
    if (!server.ok()) return nullptr;
    (*server)->SetServing(true);
    return *std::move(server);
  }
  // Whether a client with `tls` gets an answer; otherwise why not, once with gRPC and once explained.
  void ExpectServes(const Server& server, const TlsFiles& tls) {
    EXPECT_TRUE(IsServing(server.address(), "", {.tls = tls}).value_or(false));
    EXPECT_EQ(ExplainTlsFailure(server.address(), tls), "");
  }
  void ExpectRefuses(const Server& server, const TlsFiles& tls, const std::string& why) {
    EXPECT_EQ(IsServing(server.address(), "", {.tls = tls}).status().code(), absl::StatusCode::kUnavailable) << why;
    EXPECT_THAT(ExplainTlsFailure(server.address(), tls), HasSubstr(why));
  }
  static bool WaitUntil(const std::function<bool()>& condition) {
    const double deadline = RealClock().Now() + 20;
    while (!condition() && RealClock().Now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return condition();
  }

  Metrics metrics_{"tester"};
  const TestAuthority authority_{"authority"}, stranger_{"stranger"};
  const TlsFiles good_ = authority_.Issue("good");
  const TlsFiles only_roots_{.ca = authority_.ca()};
};

TEST_F(TlsTest, MutualTlsLetsInWhoHasACertificate) {
  const auto server = Start(good_);
  ExpectServes(*server, good_);
  ExpectServes(*server, authority_.Issue("other_member", {.names = "DNS:client.example"}));
}

TEST_F(TlsTest, ClientsAreRefused) {
  const auto server = Start(good_);
  ExpectRefuses(*server, only_roots_, "it takes no client without a certificate (--tls_cert, --tls_key)");
  TlsFiles wrong = stranger_.Issue("stranger");
  wrong.ca = authority_.ca();
  ExpectRefuses(*server, wrong, "it refuses the certificate in " + wrong.cert);
  const TlsFiles expired = authority_.Issue("expired", {.expired = true});
  ExpectRefuses(*server, expired, "it refuses the certificate in " + expired.cert);
  ExpectRefuses(*server, {}, "it speaks TLS (--tls_ca)");
}

TEST_F(TlsTest, ServersAreRefused) {
  const auto server = Start(good_);
  TlsFiles distrusting = good_;
  distrusting.ca = stranger_.ca();
  ExpectRefuses(*server, distrusting, "its certificate is not by an authority in --tls_ca");

  TlsFiles named = authority_.Issue("named", {.names = "DNS:elsewhere.example,DNS:*.pods.example"});
  const auto elsewhere = Start(named);
  ExpectRefuses(*elsewhere, good_,
                "its certificate is for elsewhere.example, *.pods.example, not for 127.0.0.1 (--tls_server_name)");
  for (const char* name : {"elsewhere.example", "any.pods.example"}) {
    TlsFiles expecting = good_;
    expecting.server_name = name;
    ExpectServes(*elsewhere, expecting);
  }

  const auto plain = Start({});
  ExpectRefuses(*plain, good_, "it does not speak TLS");
  ExpectServes(*plain, {});
}

TEST_F(TlsTest, WithoutClientAuthRootsAreEnough) {
  TlsFiles one_way = good_;
  one_way.client_certificates = false;
  const auto server = Start(one_way);
  ExpectServes(*server, only_roots_);
  ExpectServes(*server, good_);
}

TEST_F(TlsTest, HealthListenerNeedsNoCertificateAndServesNothingElse) {
  const auto server = Start(good_, "127.0.0.1:0");
  ASSERT_NE(server->health_address(), "");
  EXPECT_TRUE(IsServing(server->health_address(), "").value());
  server->SetServing(false);
  EXPECT_FALSE(IsServing(server->health_address(), "").value());
  EXPECT_EQ(testing::ListServices(server->health_address()).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(testing::ListServices(server->address(), {.tls = good_}).ok());
}

// What runs goes on, new connections get the new certificate: first a good one, then one that has expired.
TEST_F(TlsTest, RenewedCertificatesAreTakenUp) {
  const TlsFiles own = authority_.Issue("own");
  const auto server = Start(own);
  TlsFiles trusting_stranger = good_;
  trusting_stranger.ca = stranger_.ca();
  trusting_stranger.reload_seconds = 1;
  EXPECT_FALSE(IsServing(server->address(), "", {.tls = trusting_stranger}).ok());
  const auto before = MakeChannel(server->address(), {.tls = good_});
  ASSERT_TRUE(before->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10)));

  TestAuthority::Renew(stranger_.Issue("renewed"), own);
  EXPECT_TRUE(WaitUntil([&] { return IsServing(server->address(), "", {.tls = trusting_stranger}).ok(); }));
  EXPECT_THAT(ExplainTlsFailure(server->address(), good_), HasSubstr("not by an authority in --tls_ca"));
  EXPECT_EQ(before->GetState(false), GRPC_CHANNEL_READY);

  TestAuthority::Renew(stranger_.Issue("old", {.expired = true}), own);
  EXPECT_TRUE(WaitUntil(
      [&] { return ExplainTlsFailure(server->address(), trusting_stranger) == "its certificate has expired"; }));
  EXPECT_FALSE(IsServing(server->address(), "", {.tls = trusting_stranger}).ok());
}

TEST_F(TlsTest, ChannelsTakeUpRenewedCertificatesToo) {
  const auto server = Start(good_);
  const TlsFiles own = authority_.Issue("own", {.expired = true});
  // As long as one channel is there, others with the same files share what it has read of them.
  const auto held = MakeChannel(server->address(), {.tls = own});
  EXPECT_FALSE(IsServing(server->address(), "", {.tls = own}).ok());
  TestAuthority::Renew(authority_.Issue("renewed"), own);
  EXPECT_FALSE(IsServing(server->address(), "", {.tls = own}).ok());
  EXPECT_TRUE(WaitUntil([&] { return IsServing(server->address(), "", {.tls = own}).ok(); }));
}

TEST_F(TlsTest, FilesAreCheckedAtStart) {
  const auto refusal = [&](const TlsFiles& tls) {
    const auto server = Server::Start({.metrics_listen = "", .security = {.tls = tls}}, &metrics_, {});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << server.status();
    return std::string(server.status().message());
  };
  const auto with = [&](std::string TlsFiles::*field, const std::string& path) {
    TlsFiles files = good_;
    files.*field = path;
    return files;
  };
  EXPECT_THAT(refusal(with(&TlsFiles::cert, "")), HasSubstr("--tls_ca needs --tls_cert and --tls_key"));
  EXPECT_THAT(refusal(with(&TlsFiles::key, "")), HasSubstr("--tls_cert and --tls_key must be given together"));
  EXPECT_THAT(refusal(with(&TlsFiles::ca, "")), HasSubstr("--tls_cert needs --tls_ca"));
  EXPECT_THAT(refusal(only_roots_), HasSubstr("--tls_ca needs --tls_cert and --tls_key"));
  EXPECT_THAT(refusal(with(&TlsFiles::key, authority_.Issue("other").key)), HasSubstr("is not the key of"));
  EXPECT_THAT(refusal(with(&TlsFiles::cert, good_.key)), HasSubstr(good_.key + " has no PEM certificate"));
  EXPECT_THAT(refusal(with(&TlsFiles::key, good_.cert)), HasSubstr(good_.cert + " has no PEM private key"));
  EXPECT_THAT(refusal(authority_.Issue("late", {.expired = true})), HasSubstr("expired"));
  const auto missing = Server::Start({.security = {.tls = with(&TlsFiles::ca, "/no/such")}}, &metrics_, {});
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("--tls_ca: cannot read /no/such"));
}

TEST_F(TlsTest, CertificateInfo) {
  const auto info = ReadCertificate(authority_.Issue("shown", {.names = "DNS:a.example,IP:10.0.0.1,IP:::1"}).cert);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->subject, "shown");
  EXPECT_THAT(info->names, ElementsAre("a.example", "10.0.0.1", "::1"));
  EXPECT_GT(info->not_after, absl::Now() + absl::Hours(47));
  EXPECT_LT(info->not_after, absl::Now() + absl::Hours(49));
}

}  // namespace
}  // namespace salamander::service
