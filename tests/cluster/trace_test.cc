// A client's W3C trace context in the log lines of every process that had a part in the request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/service/trace_context.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::Golden;
using testing::ProcessCluster;

// The messages of `log` that are of this request; each must be of this trace (empty: of none).
std::vector<std::string> MessagesOf(const std::string& log, const std::string& request_id,
                                    const std::string& trace_id) {
  std::vector<std::string> messages;
  std::ifstream file(log);
  for (std::string line; std::getline(file, line);) {
    const auto fields = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(fields.is_object()) << line;
    if (!fields.is_object() || fields.value("request_id", "") != request_id) continue;
    EXPECT_EQ(fields.value("trace_id", ""), trace_id) << line;
    messages.push_back(fields["msg"]);
  }
  return messages;
}

TEST(ClusterTrace, EveryLegsLinesNameIt) {
  const Golden golden("dense");
  const auto cluster = ProcessCluster::Start(
      {.model = golden.folder, .routers = {{.span_tokens = 128}}, .flags = {"--log_format=json"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::string trace_id = "0af7651916cd43dd8448eb211c80319c";
  const auto ask = [&](const std::string& traceparent) {
    grpc::ClientContext context;
    context.AddMetadata(service::kTraceparentKey, traceparent);
    auto reader = (*cluster)->inference()->Generate(&context, golden.Request(false));
    v1::GenerateResponse event;
    std::string request_id;
    while (reader->Read(&event)) {
      if (event.has_accepted()) request_id = event.accepted().request_id();
    }
    EXPECT_TRUE(reader->Finish().ok());
    return request_id;
  };
  const std::string traced = ask("00-" + trace_id + "-b7ad6b7169203331-01");
  const std::string malformed = ask("00-" + trace_id + "-0000000000000000-01");
  for (const auto& [name, process] : (*cluster)->processes()) {
    SCOPED_TRACE(name);
    EXPECT_GE(MessagesOf(process.child->log(), traced, trace_id).size(), 2U);
    EXPECT_GE(MessagesOf(process.child->log(), malformed, "").size(), 2U);
  }
}

}  // namespace
}  // namespace salamander
