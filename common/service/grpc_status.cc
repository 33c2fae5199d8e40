#include "common/service/grpc_status.h"

#include <string>

namespace salamander::service {
namespace {

// gRPC sends the message in an HTTP/2 header, whose total size peers limit to 8 KiB.
constexpr size_t kMaxStatusMessageBytes = 4096;

// Cuts between UTF-8 characters.
std::string Cut(std::string message) {
  if (message.size() <= kMaxStatusMessageBytes) return message;
  size_t end = kMaxStatusMessageBytes - 3;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), Cut(std::string(status.message())));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace salamander::service
