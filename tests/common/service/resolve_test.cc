#include "common/service/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salamander::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ResolveTest, AddressesAreThemselves) {
  for (const char* target : {"127.0.0.1:7000", "10.1.2.3:1", "[::1]:7000"}) {
    EXPECT_TRUE(IsAddress(target)) << target;
    EXPECT_THAT(ResolveAll(target).value(), ElementsAre(target));
  }
}

TEST(ResolveTest, NamesAreLookedUp) {
  EXPECT_FALSE(IsAddress("localhost:7000"));
  EXPECT_THAT(ResolveAll("localhost:7000").value(), ElementsAre("127.0.0.1:7000"));
}

TEST(ResolveTest, SaysWhatIsWrong) {
  const absl::Status unknown = ResolveAll("no-such-host.invalid:7000").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("no-such-host.invalid"));
  for (const char* target : {"", "host", ":7000", "host:"}) {
    EXPECT_FALSE(IsAddress(target)) << target;
    const absl::Status bad = ResolveAll(target).status();
    EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument) << target;
    EXPECT_THAT(std::string(bad.message()), HasSubstr("host:port"));
  }
}

}  // namespace
}  // namespace salamander::service
