// What transport tests share: outcomes of asynchronous calls, and a handler that keeps what arrives.
#ifndef SALAMANDER_TESTS_COMMON_TRANSPORT_TRANSPORT_TEST_UTIL_H_
#define SALAMANDER_TESTS_COMMON_TRANSPORT_TRANSPORT_TEST_UTIL_H_

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/transport/transport.h"

namespace salamander::transport::testing {

// Values that other threads hand in and the test takes out; every wait is bounded.
template <typename T>
class Mailbox {
 public:
  void Put(T value) {
    std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // False if there are fewer than `count` after `seconds`.
  bool WaitFor(size_t count, double seconds = 20) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return values_.size() >= count; });
  }
  std::vector<T> TakeAll() {
    std::lock_guard lock(mutex_);
    return std::exchange(values_, {});
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return values_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> values_;
};

using Statuses = Mailbox<absl::Status>;
inline std::function<void(absl::Status)> Into(Statuses& statuses) {
  return [&statuses](absl::Status status) { statuses.Put(std::move(status)); };
}

inline std::vector<std::byte> RandomBytes(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> result(bytes);
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(&result[i], &word, std::min<size_t>(8, bytes - i));
  }
  return result;
}

struct Received {
  std::string header;
  std::vector<std::byte> payload;
  absl::Status status;
};

// Receives every message at once into memory of its own.
inline MessageHandler ReceiveInto(Mailbox<Received>& mailbox) {
  return [&mailbox](std::string_view header, std::unique_ptr<IncomingMessage> message) {
    auto received = std::make_shared<Received>();
    received->header = header;
    received->payload.resize(message->payload_bytes());
    message->Receive(absl::MakeSpan(received->payload), [&mailbox, received](absl::Status status) {
      received->status = std::move(status);
      mailbox.Put(std::move(*received));
    });
  };
}

struct Announced {
  std::string header;
  std::unique_ptr<IncomingMessage> message;
};

// Leaves every message to the test.
inline MessageHandler KeepIn(Mailbox<Announced>& mailbox) {
  return [&mailbox](std::string_view header, std::unique_ptr<IncomingMessage> message) {
    mailbox.Put(Announced{std::string(header), std::move(message)});
  };
}

}  // namespace salamander::transport::testing

#endif  // SALAMANDER_TESTS_COMMON_TRANSPORT_TRANSPORT_TEST_UTIL_H_
