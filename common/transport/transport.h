// Moves messages between processes: a small header and a payload that goes straight into memory the receiver names.
//
// Backends: UCX (ucx_transport.h) and an in-process fake that can drop, delay, duplicate, reorder and corrupt
// (fake_transport.h). Everything above is tested unmodified over both.
//
// Threads: all methods may be called from any thread. Callbacks run on the transport's own progress thread; they must
// not block and must not destroy the transport.
#ifndef SALAMANDER_COMMON_TRANSPORT_TRANSPORT_H_
#define SALAMANDER_COMMON_TRANSPORT_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace salamander::transport {

// Largest header of a message.
inline constexpr size_t kMaxHeaderBytes = 512;

// One message that has been announced by a peer and waits for the receiver's word. Exactly one of Receive and Refuse
// must be called, on any thread, now or later (later is how a receiver slows a sender down). The object may be
// destroyed right after.
class IncomingMessage {
 public:
  virtual ~IncomingMessage() = default;  // Not answered: refused.
  virtual size_t payload_bytes() const = 0;
  // Receives into `memory` (payload_bytes() long), which stays valid until `done`. OK: all bytes are there; if the
  // sender gave up meanwhile, perhaps not those it meant (which is why items carry checksums).
  virtual void Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) = 0;
  // The payload is dropped; nothing is written anywhere. The sender's Send completes all the same.
  virtual void Refuse() = 0;
};

// Gets every message that arrives. `header` is valid during the call only.
using MessageHandler = std::function<void(std::string_view header, std::unique_ptr<IncomingMessage> message)>;

// A link to one peer. Closed and drained by its destructor: no callback runs after that; unfinished sends end with
// CANCELLED. The destructor waits for the progress thread, so it must not run on it.
class Connection {
 public:
  virtual ~Connection() = default;
  // `payload` stays valid until `done`. UNAVAILABLE once the peer is gone. Messages may overtake each other.
  virtual void Send(std::string header, absl::Span<const std::byte> payload,
                    std::function<void(absl::Status)> done) = 0;
  // Not OK once the link broke; never becomes OK again.
  virtual absl::Status status() const = 0;
};

// Connections are destroyed before their transport. Messages may outlive it: answering them then does nothing, and a
// `done` that was due is dropped without a call once its memory is no longer written to.
class Transport {
 public:
  virtual ~Transport() = default;
  // What a peer passes to Connect. Opaque bytes.
  virtual std::string address() const = 0;
  // For logs and status: "ucx tcp,sysv,cma on lo".
  virtual std::string name() const = 0;
  // Must be called once, before the address is given to anybody.
  virtual void SetHandler(MessageHandler handler) = 0;
  // INVALID_ARGUMENT for bytes that are no address, UNAVAILABLE if nobody is there (possibly only at the first Send).
  virtual absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& address) = 0;
};

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_TRANSPORT_H_
