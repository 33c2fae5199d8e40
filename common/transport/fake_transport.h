// An in-process transport with injected faults, for tests of everything above the transport.
//
//   FakeNetwork network({.seed = 7, .reorder = true, .duplicate = 0.1});
//   auto a = network.CreateTransport(), b = network.CreateTransport();
#ifndef SALAMANDER_COMMON_TRANSPORT_FAKE_TRANSPORT_H_
#define SALAMANDER_COMMON_TRANSPORT_FAKE_TRANSPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "common/transport/transport.h"

namespace salamander::transport {

struct FakeFaults {
  uint64_t seed = 1;
  // Probabilities per message.
  double drop = 0;       // never delivered; the sender sees success
  double duplicate = 0;  // delivered twice
  double corrupt = 0;    // one bit of the payload flipped
  double delay = 0;      // held for up to max_delay_seconds
  double max_delay_seconds = 0.05;
  bool reorder = false;  // deliver in random order
  // Restricts faults to messages it returns true for; all when empty.
  std::function<bool(std::string_view header)> only;
};

class FakeNetwork {
 public:
  explicit FakeNetwork(FakeFaults faults);
  ~FakeNetwork();
  // May outlive the network object: both share its core.
  std::unique_ptr<Transport> CreateTransport();
  // Every link to and from that address breaks, as when its process dies.
  void Kill(const std::string& address);
  struct Counts {
    int64_t delivered = 0, dropped = 0, duplicated = 0, corrupted = 0, delayed = 0;
  };
  Counts counts() const;

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_FAKE_TRANSPORT_H_
