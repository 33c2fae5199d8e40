// The receiving end of all state streams of a process.
//
// A Subscription is one request's manifest: the items it expects and where their bytes go. For each message the
// receiver finds the subscription by instance and epoch and checks its secret, then request, item, sizes; receives the
// payload into a staging buffer of its own (ledger owner in_transfer; when the budget is used up, senders wait),
// verifies the checksum, decodes into the item's memory, and marks the item. An item is written once: duplicates are
// dropped, and a message of an unknown or closed subscription is refused before a byte of it moves, so a late sender
// cannot write into reused pages.
//
//   receiver.Subscribe(...) → subscription;  … subscription->Has(id) …;  destroy: drained, no callback after that.
//
// Failures are final for a subscription: a checksum or size mismatch, a decode error, or an item missing long after its
// span was finished → DATA_LOSS naming the item.
#ifndef SALAMANDER_COMMON_STREAM_RECEIVER_H_
#define SALAMANDER_COMMON_STREAM_RECEIVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/base/memory_ledger.h"
#include "common/stream/item.h"
#include "common/stream/stream_stats.h"
#include "common/transport/transport.h"

namespace salamander::stream {

struct ReceiverOptions {
  InstanceId instance = 0;
  int64_t staging_bytes = 64 << 20;
  int decode_threads = 1;
  // How long after SpanFinished an item of that span may still be on its way.
  double missing_item_seconds = 5;
};

class Receiver;

class Subscription {
 public:
  // Blocks until every receive into this request's memory has completed or been refused. Afterwards no callback runs
  // and no byte is written.
  ~Subscription();

  uint64_t epoch() const;
  // kStreamSecretBytes random bytes, made for this subscription alone. Never in a log.
  const std::string& secret() const;
  // The item is verified and its bytes are in place (acquire: the caller may read them).
  bool Has(const ItemId& id) const;
  // Every item is verified.
  bool complete() const;
  int64_t received_items() const;
  // First failure, or OK.
  absl::Status status() const;
  std::vector<ItemId> Missing() const;
  // The publisher is done with `span`: what is missing of it missing_item_seconds from now is lost.
  void SpanFinished(int32_t span);

 private:
  friend class Receiver;
  struct Core;
  explicit Subscription(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

class Receiver {
 public:
  // Installs itself as the transport's handler. Transport, ledger and stats outlive it.
  Receiver(const ReceiverOptions& options, transport::Transport* transport, MemoryLedger* ledger, StreamStats* stats);
  // All subscriptions are gone by then. What the transport is receiving at that moment gives its staging memory back
  // when the transport is done with it.
  ~Receiver();

  // `on_change` runs after every verified item and once on failure, on an internal thread; it must not block and must
  // not destroy the subscription.
  std::unique_ptr<Subscription> Subscribe(RequestId request, std::vector<ExpectedItem> expected,
                                          std::function<void()> on_change);

  // An item from this very process: checked like a message, then copied to where it belongs. Refused ones are dropped,
  // and failures the subscription's, as with messages. Blocks; any thread.
  void Deliver(const v1::ItemHeader& header, const ItemSource& source);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_RECEIVER_H_
