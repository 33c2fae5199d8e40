// What a Subscription and the receiver share: the request's items, its failure, and the gate through which
// its owner closes it while messages of it are on their way.
#ifndef SALAMANDER_COMMON_STREAM_SUBSCRIPTION_CORE_H_
#define SALAMANDER_COMMON_STREAM_SUBSCRIPTION_CORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/base/secret.h"
#include "common/stream/gate.h"
#include "common/stream/item_table.h"
#include "common/stream/receiver.h"
#include "common/stream/stream_stats.h"

namespace salamander::stream {

struct Subscription::Core : std::enable_shared_from_this<Core> {
  // The receiver's services that a subscription needs.
  struct Host {
    virtual ~Host() = default;
    // No message is matched with the core any more; those that wait for staging memory are refused.
    virtual void Forget(Core* core) = 0;
    virtual void ExpireLater(std::shared_ptr<Core> core, int32_t span) = 0;
  };

  Core(RequestId request_id, uint64_t own_epoch, std::vector<ExpectedItem> items, std::function<void()> changed,
       Host* the_host, StreamStats* the_stats)
      : request(request_id),
        epoch(own_epoch),
        secret(RandomSecret(kStreamSecretBytes)),
        table(request_id, std::move(items)),
        on_change(std::move(changed)),
        host(the_host),
        stats(the_stats) {}

  // Any thread; the first failure stays and is told to the owner.
  void Fail(absl::Status failure);
  bool failed() const;
  // What is missing of `span` is lost; what is being received gets as long again.
  void Expire(int32_t span);
  // Says which request, for messages.
  std::string Named(std::string_view what) const;

  const RequestId request;
  const uint64_t epoch;
  const std::string secret;
  ItemTable table;
  const std::function<void()> on_change;
  Host* const host;          // outlives the Subscription
  StreamStats* const stats;  // used inside the gate

  // The items' memory and on_change are touched inside only; closed by the owner.
  Gate gate;
  mutable std::mutex mutex;
  absl::Status failure;  // by mutex
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_SUBSCRIPTION_CORE_H_
