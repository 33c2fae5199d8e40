#include "common/service/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/service/security.h"

namespace salamander::service {
namespace {

using ::testing::HasSubstr;

TEST(Address, PartsOfIt) {
  EXPECT_EQ(HostOf("a.example:7000"), "a.example");
  EXPECT_EQ(PortOf("a.example:7000"), "7000");
  EXPECT_EQ(HostOf("[::1]:7000"), "::1");
  EXPECT_EQ(PortOf("[::1]:7000"), "7000");
}

TEST(Address, LoopbackIsWhatOnlyThisMachineReaches) {
  for (const char* host : {"localhost", "127.0.0.1", "127.8.9.10", "::1"}) EXPECT_TRUE(IsLoopback(host)) << host;
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "", "127.0.0.1.example", "localhost.example", "::ffff:10.0.0.1"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(CheckExposure, BeyondLoopbackNeedsTlsAndAToken) {
  Security security;
  EXPECT_TRUE(CheckExposure("--listen", "127.0.0.1:1", security).ok());
  EXPECT_TRUE(CheckExposure("--listen", "[::1]:1", security).ok());
  for (const char* address : {"0.0.0.0:1", "[::]:1", "10.1.2.3:1", "pod.example:1"}) {
    security = {};
    EXPECT_THAT(std::string(CheckExposure("--listen", address, security).message()),
                HasSubstr(std::string("--listen=") + address + " is not loopback: it needs TLS (--tls_cert, "));
    security.tls = {.cert = "c", .key = "k", .ca = "a"};
    EXPECT_THAT(std::string(CheckExposure("--listen", address, security).message()), HasSubstr("--cluster_token_file"));
    security.cluster_token = "0123456789abcdef";
    EXPECT_TRUE(CheckExposure("--listen", address, security).ok());
    EXPECT_TRUE(CheckExposure("--listen", address, {.allow_insecure = true}).ok());
  }
}

}  // namespace
}  // namespace salamander::service
