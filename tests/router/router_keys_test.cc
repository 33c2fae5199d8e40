// A router that asks for API keys.
#include <gmock/gmock.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "router/api_key_file.h"
#include "tests/common/service/probe.h"
#include "tests/router/router_fixture.h"
#include "tests/testing/temp_folder.h"

namespace salamander::router {
namespace {

using ::testing::HasSubstr;

class RouterKeysTest : public RouterTest {
 protected:
  void StartWithKey(const std::string& limits) {
    WriteKey("sk-1", limits);
    RouterOptions options = FastOptions();
    options.api_keys_file = folder_.file("keys");
    options.server.security.cluster_token = kToken;
    options.server.security.tls.reload_seconds = 1;
    StartRouter(options);
    // The fixture's stubs are an operator's: with the token, without a key.
    const auto channel = service::MakeChannel(router_->address(), {.cluster_token = kToken});
    cluster_ = v1::Cluster::NewStub(channel);
    stub_ = v1::Inference::NewStub(channel);
  }
  void WriteKey(const std::string& key, const std::string& limits) {
    folder_.Write("keys", absl::StrCat(R"({"keys": [{"name": "team", "sha256": ")", absl::BytesToHexString(Sha256(key)),
                                       "\"", limits, "}]}"));
  }
  Answer Ask(const std::string& key, int tokens = 100) {
    v1::GenerateRequest request = Tokens(tokens);
    request.set_max_tokens(3);
    return Generate(request, 20, key);
  }

  static constexpr char kToken[] = "0123456789abcdef";
  const testing::TempFolder folder_;
};

TEST_F(RouterKeysTest, ClientsNeedAKey) {
  StartWithKey("");
  AddPrefill("p0", {.cluster_token = kToken});
  AddDecode("d0", {.cluster_token = kToken});
  EXPECT_TRUE(Ask("sk-1").status.ok()) << Ask("sk-1").status.error_message();
  EXPECT_EQ(Ask("sk-2").status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const Answer none = Ask("");
  EXPECT_EQ(none.status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(none.status.error_message(), "no API key: send the metadata `authorization: Bearer KEY`");

  for (const auto& [key, code] :
       {std::pair{"", grpc::StatusCode::UNAUTHENTICATED}, std::pair{"sk-2", grpc::StatusCode::UNAUTHENTICATED},
        std::pair{"sk-1", grpc::StatusCode::OK}}) {
    const auto channel = service::MakeChannel(router_->address(), {.api_key = key});
    const auto inference = v1::Inference::NewStub(channel);
    grpc::ClientContext contexts[3];
    v1::GetModelResponse model;
    EXPECT_EQ(inference->GetModel(&contexts[0], {}, &model).error_code(), code);
    EXPECT_EQ(model.name().empty(), code != grpc::StatusCode::OK);
    v1::TokenizeRequest tokenize;
    *tokenize.mutable_prompt() = Tokens(4).prompt();
    v1::TokenizeResponse tokenized;
    EXPECT_EQ(inference->Tokenize(&contexts[1], tokenize, &tokenized).error_code(), code);
    v1::GetStatusResponse status;
    EXPECT_EQ(v1::Cluster::NewStub(channel)->GetStatus(&contexts[2], {}, &status).error_code(), code);
    EXPECT_EQ(status.workers_size(), code == grpc::StatusCode::OK ? 2 : 0);
  }
  // Probes and reflection need none.
  EXPECT_TRUE(testing::IsServing(router_->address(), "").value_or(false));
  EXPECT_TRUE(testing::ListServices(router_->address()).ok());
}

TEST_F(RouterKeysTest, LimitsRefuseWithAHintLikeAFullQueue) {
  StartWithKey(R"(, "requests_per_minute": 2)");
  AddPrefill("p0", {.cluster_token = kToken});
  AddDecode("d0", {.cluster_token = kToken});
  EXPECT_TRUE(Ask("sk-1").status.ok());
  EXPECT_TRUE(Ask("sk-1").status.ok());
  const Answer refused = Ask("sk-1");
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("API key team has reached its limit: 2 requests a minute"));
  EXPECT_GT(std::stoi(refused.retry_after_ms), 20000);
  EXPECT_LE(std::stoi(refused.retry_after_ms), 30000);
  ExpectNothingHeld();
}

TEST_F(RouterKeysTest, TokensAreThoseOfPromptAndAnswer) {
  StartWithKey(R"(, "tokens_per_minute": 1000)");
  AddPrefill("p0", {.cluster_token = kToken});
  AddDecode("d0", {.cluster_token = kToken});
  EXPECT_TRUE(Ask("sk-1", 900).status.ok());  // 903 of 1000 tokens
  const Answer refused = Ask("sk-1", 700);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("1000 tokens a minute, this request may use 703; retry in"));
  EXPECT_GT(std::stoi(refused.retry_after_ms), 20000);
  EXPECT_TRUE(Ask("sk-1", 20).status.ok());
}

// A request's place is free again however it ends.
TEST_F(RouterKeysTest, PlacesComeBack) {
  StartWithKey(R"(, "concurrent_requests": 1)");
  AddPrefill("p0", {.cluster_token = kToken});
  auto& decode = AddDecode("d0", {.hang_at = Stage::kAtStart, .cluster_token = kToken});
  for (int round = 0; round < 3; ++round) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer sk-1");
    auto reader = stub_->Generate(&context, Tokens(100));
    v1::GenerateResponse first;
    ASSERT_TRUE(reader->Read(&first));
    EXPECT_THAT(Ask("sk-1").status.error_message(), HasSubstr("1 requests at once"));
    ASSERT_TRUE(decode.WaitForStreams(round + 1));
    context.TryCancel();
    while (reader->Read(&first)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    ExpectNothingHeld();
  }

  v1::GenerateRequest bad = Tokens(100);
  bad.set_max_tokens(-1);
  EXPECT_EQ(Generate(bad, 20, "sk-1").status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Generate(bad, 20, "sk-1").status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RouterKeysTest, AChangedFileIsTakenUp) {
  StartWithKey("");
  AddPrefill("p0", {.cluster_token = kToken});
  AddDecode("d0", {.cluster_token = kToken});
  EXPECT_TRUE(Ask("sk-1").status.ok());
  WriteKey("sk-2", "");
  EXPECT_TRUE(WaitForStatus([this](const v1::GetStatusResponse&) { return Ask("sk-2").status.ok(); }));
  EXPECT_EQ(Ask("sk-1").status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(RouterKeysTest, ABrokenFileStopsTheStart) {
  RouterOptions options = FastOptions();
  options.api_keys_file = folder_.Write("keys", "nonsense");
  const auto router = router::StartRouter(options, {});
  EXPECT_EQ(router.status().message(), options.api_keys_file + ": is not JSON");
}

}  // namespace
}  // namespace salamander::router
