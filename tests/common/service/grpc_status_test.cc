#include "common/service/grpc_status.h"

#include <gtest/gtest.h>

#include <string>

namespace salamander::service {
namespace {

TEST(GrpcStatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(ToGrpc(status).error_code(), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status) << code;
  }
}

TEST(GrpcStatusTest, CodesMeanTheSame) {
  EXPECT_EQ(ToGrpc(absl::DataLossError("x")).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(ToGrpc(absl::UnavailableError("x")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(FromGrpc(grpc::Status(grpc::StatusCode::CANCELLED, "x")).code(), absl::StatusCode::kCancelled);
}

TEST(GrpcStatusTest, LongMessagesAreCutBetweenCharacters) {
  std::string text;
  while (text.size() < 10000) text += "\xE2\x82\xAC";  // three bytes each
  const std::string cut = ToGrpc(absl::InternalError(text)).error_message();
  EXPECT_LE(cut.size(), 4096u);
  EXPECT_GT(cut.size(), 4000u);
  EXPECT_EQ(cut.substr(cut.size() - 3), "...");
  EXPECT_EQ((cut.size() - 3) % 3, 0u);
}

TEST(GrpcStatusTest, ShortMessagesAreWhole) {
  const std::string text(4096, 'x');
  EXPECT_EQ(ToGrpc(absl::InternalError(text)).error_message(), text);
}

}  // namespace
}  // namespace salamander::service
