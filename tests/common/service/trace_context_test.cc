#include "common/service/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace salamander::service {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kParent = "b7ad6b7169203331";

TEST(Traceparent, IsWhatTheSpecificationSays) {
  const std::string rest = "-" + kTrace + "-" + kParent + "-";
  for (const std::string& good : {"00" + rest + "01", "00" + rest + "00", "00" + rest + "ff", "cc" + rest + "01",
                                  "cc" + rest + "01-what-the-future-will-be-like", "01" + rest + "01-"}) {
    EXPECT_TRUE(IsTraceparent(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), "00" + rest, "00" + rest + "1", "00" + rest + "01-more", "00" + rest + "01 ", "ff" + rest + "01",
        "cc" + rest + "01.more", "0" + rest + "001", "00" + rest + "0g", "0X" + rest + "01",
        "00-" + kTrace + "_" + kParent + "-01", "00-" + std::string(32, '0') + "-" + kParent + "-01",
        "00-" + kTrace + "-" + std::string(16, '0') + "-01",
        "00-" + std::string("0AF7651916CD43DD8448EB211C80319C") + "-" + kParent + "-01"}) {
    EXPECT_FALSE(IsTraceparent(bad)) << bad;
  }
}

TEST(Tracestate, IsAListOfMembers) {
  for (const std::string& good :
       {std::string("rojo=00f067aa0ba902b7"), std::string("rojo=1,congo=t61rcWkgMzE"), std::string("a=1 ,\tb=2"),
        std::string("fw529a3039@dt=FfffffffF"), std::string("a=1,,b=2"), "a=" + std::string(256, 'x')}) {
    EXPECT_TRUE(IsTracestate(good)) << good;
  }
  std::string many = "a=1";
  for (int i = 0; i < 32; ++i) many += ",b=2";
  for (const std::string& bad : {std::string(), std::string(" , "), std::string("novalue"), std::string("=1"),
                                 std::string("a="), std::string("A=1"), std::string("a b=1"), std::string("a=b=c"),
                                 std::string("a@b@c=1"), std::string("a=\x01"), "a=" + std::string(257, 'x'), many}) {
    EXPECT_FALSE(IsTracestate(bad)) << bad;
  }
}

TEST(TraceContext, NamesItsTrace) {
  EXPECT_EQ(TraceContext().trace_id(), "");
  EXPECT_EQ((TraceContext{.traceparent = "00-" + kTrace + "-" + kParent + "-01", .tracestate = ""}).trace_id(), kTrace);
}

}  // namespace
}  // namespace salamander::service
