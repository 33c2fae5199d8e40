// The sending end of all state streams of a process: links to peers, encoding, sending.
//
// Publish never blocks: encoding runs on the publisher's own threads, once per codec however many destinations, and
// sends are asynchronous. The caller limits itself by outstanding_bytes().
#ifndef SALAMANDER_COMMON_STREAM_PUBLISHER_H_
#define SALAMANDER_COMMON_STREAM_PUBLISHER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/base/memory_ledger.h"
#include "common/stream/item.h"
#include "common/stream/receiver.h"
#include "common/stream/stream_stats.h"
#include "common/transport/transport.h"

namespace salamander::stream {

struct PublisherOptions {
  int encode_threads = 1;
  // A warmed link slower than this is refused. 0: no floor.
  double min_bytes_per_second = 0;
};

// Where one subscriber's copy goes.
struct Destination {
  InstanceId instance = 0;
  uint64_t epoch = 0;
  std::string secret;  // the subscription's
};

struct PublishedItem {
  RequestId request = 0;
  ItemId id;
  ItemShape shape;
  v1::Codec codec = v1::CODEC_LOSSLESS;
  ItemSource source;  // unchanged until `done`
  std::vector<Destination> destinations;
  // If set, the encoded bytes of every send that succeeded are added; lives until `done`.
  std::atomic<int64_t>* encoded_bytes = nullptr;
};

struct LinkInfo {
  InstanceId peer = 0;
  bool connected = false;
  double bytes_per_second = 0;  // 0: not measured, as to this very process
  absl::Status status;
};

class Publisher {
 public:
  // Transport, ledger and stats outlive it.
  Publisher(const PublisherOptions& options, transport::Transport* transport, MemoryLedger* ledger, StreamStats* stats);
  // Waits for running sends (they fail fast when their link is closed).
  ~Publisher();

  // Connects to a peer and warms the link with probe messages; `done` gets the result and the measured rate shows in
  // links(). A link that is there already is kept.
  void Connect(InstanceId peer, const std::string& transport_address, std::function<void(absl::Status)> done);
  // Closes the link; its unfinished sends end with CANCELLED.
  void Disconnect(InstanceId peer);
  std::vector<LinkInfo> links() const;

  // Items for `peer` go to `receiver` of this process, without codec, transport or checksum: from where they are to
  // where they belong. The receiver outlives the publisher. Before any Publish.
  void ServeLocally(InstanceId peer, Receiver* receiver);

  // `done` runs once, on an internal thread, when every destination's send has ended: OK, or the first failure naming
  // item and peer. RESOURCE_EXHAUSTED when the ledger has no room for the encoded bytes.
  void Publish(PublishedItem item, std::function<void(absl::Status)> done);
  // Encoded bytes whose sends have not ended, plus source bytes not yet encoded.
  int64_t outstanding_bytes() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_PUBLISHER_H_
