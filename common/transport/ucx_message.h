// Messages as the UCX transport hands them out.
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_MESSAGE_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_MESSAGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/transport/transport.h"
#include "common/transport/ucx_core.h"

namespace salamander::transport {

// A small payload, which came along and is kept here.
class UcxEagerMessage final : public IncomingMessage {
 public:
  UcxEagerMessage(std::shared_ptr<UcxCore> core, const void* payload, size_t bytes);
  size_t payload_bytes() const override { return payload_.size(); }
  void Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) override;
  void Refuse() override {}

 private:
  const std::shared_ptr<UcxCore> core_;
  const std::string payload_;
};

// A large one, which waits at the sender until it is asked for.
class UcxAnnouncedMessage final : public IncomingMessage {
 public:
  UcxAnnouncedMessage(std::shared_ptr<UcxCore> core, uint64_t announced, size_t bytes);
  ~UcxAnnouncedMessage() override { Refuse(); }
  size_t payload_bytes() const override { return bytes_; }
  void Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) override;
  void Refuse() override;

 private:
  const std::shared_ptr<UcxCore> core_;
  uint64_t announced_;  // 0 once answered
  const size_t bytes_;
};

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_MESSAGE_H_
