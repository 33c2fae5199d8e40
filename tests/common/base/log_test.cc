#include "common/base/log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/ids.h"

namespace salamander {
namespace {

nlohmann::json Fields(const std::string& message) {
  return nlohmann::json::parse(absl::StrCat("{", JsonLogFields(message), "}"));
}

TEST(JsonLog, RequestsAreAFieldOfTheirOwn) {
  EXPECT_EQ(Fields("request 72be8475e090d0cf: queued -> failed: \"x\"\n").dump(),
            R"({"msg":"request 72be8475e090d0cf: queued -> failed: \"x\"\n","request_id":"72be8475e090d0cf"})");
  EXPECT_EQ(Fields("request 72be8475e090d0cf trace 0af7651916cd43dd8448eb211c80319c: claimed").dump(),
            R"({"msg":"request 72be8475e090d0cf trace 0af7651916cd43dd8448eb211c80319c: claimed",)"
            R"("request_id":"72be8475e090d0cf","trace_id":"0af7651916cd43dd8448eb211c80319c"})");
  EXPECT_EQ(RequestLabel(0x12, "0af7"), "request 0000000000000012 trace 0af7");
  EXPECT_EQ(RequestLabel(0x12, ""), "request 0000000000000012");
  for (const char* message : {"", "ready", "request : empty", "request of a worker: lost",
                              "request 12ab without a colon", "request of a trace 12ab: lost"}) {
    EXPECT_EQ(Fields(message), nlohmann::json({{"msg", message}})) << message;
  }
}

TEST(JsonLog, LinesAreJsonWhateverTheMessageHas) {
  testing::internal::CaptureStderr();
  InitLog("a \"process\"", LogLevel::kWarning, LogFormat::kJson);
  Log(LogLevel::kInfo, "below the level");
  Log(LogLevel::kWarning, "%v {} \xff \x01");
  InitLog("log_test", LogLevel::kInfo);
  const nlohmann::json line = nlohmann::json::parse(testing::internal::GetCapturedStderr());
  EXPECT_EQ(line["process"], "a \"process\"");
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["msg"], "%v {} \xef\xbf\xbd \x01");
  EXPECT_EQ(line["ts"].get<std::string>().size(), std::string("2026-01-02T03:04:05.678Z").size());
}

}  // namespace
}  // namespace salamander
