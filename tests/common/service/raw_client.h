// A bare TCP client on loopback, for tests that speak HTTP by hand or send what no client should.
#ifndef SALAMANDER_TESTS_COMMON_SERVICE_RAW_CLIENT_H_
#define SALAMANDER_TESTS_COMMON_SERVICE_RAW_CLIENT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace salamander::testing {

class RawClient {
 public:
  // `address` is host:port with an IPv4 host.
  static absl::StatusOr<RawClient> Connect(const std::string& address);
  RawClient(RawClient&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ~RawClient();

  // False once the peer has closed.
  bool Send(std::string_view bytes);
  // What the peer sends until it closes, or until `seconds` pass without a byte.
  std::string ReadAll(double seconds);
  // Closes with a reset instead of a farewell.
  void Reset();

 private:
  explicit RawClient(int fd) : fd_(fd) {}
  int fd_;
};

// GET path over HTTP/1.1; the whole answer.
absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path);

// The value of a sample such as `salamander_memory_bytes{owner="free"}` in a scrape; NOT_FOUND if there is none.
absl::StatusOr<double> MetricValue(std::string_view scrape, std::string_view sample);

// Open descriptors of a process; "self" is this one.
int OpenFileDescriptors(const std::string& pid = "self");

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_SERVICE_RAW_CLIENT_H_
