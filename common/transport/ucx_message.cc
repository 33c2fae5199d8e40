#include "common/transport/ucx_message.h"

#include <cstring>
#include <utility>

namespace salamander::transport {

UcxEagerMessage::UcxEagerMessage(std::shared_ptr<UcxCore> core, const void* payload, size_t bytes)
    : core_(std::move(core)), payload_(static_cast<const char*>(payload), bytes) {}

void UcxEagerMessage::Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) {
  core_->Post([payload = payload_, memory, done = std::move(done)] {
    if (!payload.empty()) std::memcpy(memory.data(), payload.data(), payload.size());
    done(absl::OkStatus());
  });
}

UcxAnnouncedMessage::UcxAnnouncedMessage(std::shared_ptr<UcxCore> core, uint64_t announced, size_t bytes)
    : core_(std::move(core)), announced_(announced), bytes_(bytes) {}

// A task lives in the core, which it may therefore name without owning it.
void UcxAnnouncedMessage::Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) {
  core_->Post([core = core_.get(), announced = std::exchange(announced_, 0), memory, done = std::move(done)] {
    core->StartReceive(announced, memory, done);
  });
}

void UcxAnnouncedMessage::Refuse() {
  if (announced_ == 0) return;
  core_->Post([core = core_.get(), announced = std::exchange(announced_, 0)] { core->Release(announced); });
}

}  // namespace salamander::transport
